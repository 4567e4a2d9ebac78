//! `GET /calls/{call_id}/history`: the events of a call, in fold order.

use axum::{Json, extract::State, http::Uri};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{
    IntoParams, PartialSchema as _, ToSchema,
    openapi::path::{Parameter, ParameterIn},
};
use uuid::Uuid;

use crate::{
    call::{
        CallError, CallId, CallSid, Disposition, Fingerprint, Position, ProjectId, Status,
        TimeProblem,
    },
    http::{
        Problem, Shared,
        auth::ApiClient,
        openapi::example,
        pagination::{
            PageParameters, read_cursor, read_limit, read_time, write_cursor, write_time,
        },
        query::{CallIdInPath, InProject, Query, parameter},
        routes::calls::get::{NoSuchCall, only_one},
    },
    store::{
        calls::{
            StoredCall,
            find::{CallQuery, find},
        },
        events::{
            history::{HistoryEvent, history},
            row::{Derived, StoredEvent},
        },
    },
};

/// The most events on a page.
const MAX_LIMIT: u16 = 500;

/// The most events on a page that shows their payloads, which may be large.
const MAX_LIMIT_WITH_PAYLOAD: u16 = 100;

/// The most bytes of payloads on a page, unless its first event alone has more: 8 MiB.
pub(crate) const MAX_PAYLOAD_BYTES: u32 = 8 << 20;

/// A page of a call's history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = History)]
pub(crate) struct HistoryDocument {
    /// The provider's name of the call.
    call_id: CallId,
    /// The project that the call is of.
    project_id: ProjectId,
    /// Its events, in the order in which they were folded.
    events: Vec<EventDocument>,
    /// The `cursor` of the next page; null at the end.
    next_cursor: Option<String>,
}

/// One distinct thing that the provider said of a call, and what it did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
struct EventDocument {
    /// The status that the event says; null where its type is unknown.
    status: Option<Status>,
    #[serde(flatten)]
    details: EventDetails,
}

/// An event and its effect on its call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventDetails {
    /// Identifies the event: the same for each of its deliveries.
    event_id: Uuid,
    /// What the event is called, be it known or not.
    event_type: String,
    /// What the state machine did with it.
    disposition: Disposition,
    /// Why, in one sentence.
    reason: String,
    /// The status that it took the call from; null where it changed nothing, or is the first.
    from_status: Option<Status>,
    /// The status that it took the call to; null where it changed nothing.
    to_status: Option<Status>,
    /// The number of the attempt that it counts for; null where for none.
    #[schema(minimum = 1)]
    attempt: Option<u32>,
    /// The telephony provider's id of the dial that it is about.
    call_sid: Option<CallSid>,
    /// When it happened, where the provider said so.
    occurred_at: Option<DateTime<Utc>>,
    /// Why the time that the event states is not used; null where it is used, or none is stated.
    time_problem: Option<TimeProblem>,
    /// When its first delivery was received.
    received_at: DateTime<Utc>,
    /// When it counts as having happened: `occurred_at`, else `received_at`.
    effective_at: DateTime<Utc>,
    /// How many deliveries of it came.
    #[schema(minimum = 1)]
    delivery_count: u32,
    /// When its last delivery came.
    last_delivered_at: DateTime<Utc>,
    /// The name of the endpoint that took its first delivery.
    endpoint: String,
    /// What went wrong, as it told.
    errors: Vec<CallError>,
    /// The first delivery, exactly as it was received; with `include=payload`. Null where retention
    /// removed it.
    #[schema(value_type = Option<Object>, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(clippy::option_option, reason = "not requested, removed and stored are three things")]
    payload: Option<Option<Box<RawValue>>>,
    /// When retention removed the payload; only where it did.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_removed_at: Option<DateTime<Utc>>,
}

impl From<HistoryEvent> for EventDocument {
    fn from(shown: HistoryEvent) -> Self {
        Self { status: reported_status(&shown), details: shown.into() }
    }
}

/// The status that an event reports, if its type is known.
pub(crate) fn reported_status(shown: &HistoryEvent) -> Option<Status> {
    Some(shown.stored.event.status()).filter(|status| *status != Status::Unknown)
}

impl From<HistoryEvent> for EventDetails {
    fn from(shown: HistoryEvent) -> Self {
        let event_id = shown.event_id();
        let StoredEvent { event, derived, last_delivered_at } = shown.stored;
        let Derived { event_type: _, effective_at, outcome } = derived;
        Self {
            event_id,
            event_type: event.event_type.as_str().to_owned(),
            disposition: outcome.disposition,
            reason: outcome.reason.sentence(event.status(), outcome.attempt),
            from_status: outcome.from_status,
            to_status: outcome.to_status,
            attempt: outcome.attempt,
            occurred_at: event.occurred_at,
            time_problem: shown.time_problem,
            received_at: event.received_at,
            effective_at,
            call_sid: event.call_sid,
            delivery_count: shown.delivery_count,
            last_delivered_at,
            endpoint: shown.endpoint,
            errors: shown.errors,
            payload_removed_at: shown.payload.as_ref().and_then(|payload| payload.removed_at),
            payload: shown.payload.map(|payload| payload.body),
        }
    }
}

/// The events of a call
///
/// In the order in which they were folded, each with what it did to the call and why.
#[utoipa::path(
    get,
    path = "/calls/{call_id}/history",
    operation_id = "get_history",
    tag = "calls",
    params(
        CallIdInPath,
        InProject,
        Include,
        PageParameters::<MAX_LIMIT, MAX_LIMIT>,
    ),
    responses(
        (status = 200, description = "A page of its events.", body = HistoryDocument,
         example = json!(example(include_str!("../../openapi/examples/history.json")))),
        NoSuchCall,
    ),
    security((), ("api_key" = [])),
)]
pub(crate) async fn show(
    State(service): State<Shared>,
    caller: ApiClient,
    CallIdInPath(call_id): CallIdInPath,
    uri: Uri,
) -> Result<Json<HistoryDocument>, Problem> {
    let mut query = Query::of(&uri);
    let projects = caller.projects(query.take_project_id().as_ref());
    let with_payload = query.take("include", read_include).is_some();
    let most = if with_payload { MAX_LIMIT_WITH_PAYLOAD } else { MAX_LIMIT };
    let limit = query.take("limit", |limit| read_limit(limit, most)).unwrap_or(most);
    let after = query.take("cursor", read_position);
    query.finish()?;

    let calls = CallQuery { call_id: call_id.clone(), projects };
    let found = find(&service.pool, &[&calls]).await?.into_iter().flatten().collect();
    let call = only_one(found, &call_id, |stored: &StoredCall| &stored.key.project_id)?;
    let payload_bytes = with_payload.then_some(MAX_PAYLOAD_BYTES);
    let page = history(&service.pool, call.id, &call.key, after, limit, payload_bytes).await?;
    let last = page.events.last().filter(|_| page.has_more);
    let next_cursor = last.map(|last| write_position(last.position()));
    Ok(Json(HistoryDocument {
        call_id: call.key.call_id,
        project_id: call.key.project_id,
        events: page.events.into_iter().map(EventDocument::from).collect(),
        next_cursor,
    }))
}

/// What is shown only where it is asked for.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum Include {
    Payload,
}

impl IntoParams for Include {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = format!(
            "Shows what is left out otherwise; `limit` is then at most {MAX_LIMIT_WITH_PAYLOAD}, and a \
             page ends before payloads have more than {} MiB, but for one that does alone.",
            MAX_PAYLOAD_BYTES >> 20
        );
        vec![parameter("include", ParameterIn::Query, &meaning, Self::schema())]
    }
}

pub(crate) fn read_include(include: &str) -> Result<Include, String> {
    if include == "payload" { Ok(Include::Payload) } else { Err("must be payload".to_owned()) }
}

/// A cursor is the position of the last event on the page: its time, rank and
/// fingerprint.
fn write_position(position: Position) -> String {
    write_cursor(&[
        &write_time(position.effective_at),
        &position.rank.get().to_be_bytes(),
        &position.fingerprint.0,
    ])
}

fn read_position(cursor: &str) -> Result<Position, String> {
    read_cursor(cursor, |bytes: [u8; 42]| {
        let (at, rest) = bytes.split_first_chunk::<8>()?;
        let (rank, fingerprint) = rest.split_first_chunk::<2>()?;
        Some(Position {
            effective_at: read_time(*at)?,
            rank: i16::from_be_bytes(*rank).try_into().ok()?,
            fingerprint: Fingerprint(fingerprint.try_into().ok()?),
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_as_it_was_written(
            microseconds in -62_135_596_800_000_000..253_402_300_799_000_000i64,
            rank in -1_i16..=7,
            fingerprint: [u8; 32],
        ) {
            let position = Position {
                effective_at: DateTime::from_timestamp_micros(microseconds).unwrap(),
                rank: rank.try_into().unwrap(),
                fingerprint: Fingerprint(fingerprint),
            };
            prop_assert_eq!(read_position(&write_position(position)), Ok(position));
        }

        #[test]
        fn anything_else_is_refused(cursor in ".{0,64}") {
            let _ = read_position(&cursor);
        }
    }
}

//! `GET /calls`: calls, filtered, newest first.
//!
//! A cursor is a position in the order that all lists have, and when the list started, by
//! time and by position in the change feed. It does not contain the filter: with another
//! one, it goes on from that position in another list.

use axum::{Json, extract::State, http::Uri};
use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use serde::Serialize;
use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat, Type,
        path::{Parameter, ParameterIn},
    },
};

use crate::{
    call::{CallId, CallSid, ClientId, Direction, ProjectId, Status},
    http::{
        Problem, Shared,
        auth::ApiClient,
        openapi::{answers::BadParameter, example},
        pagination::{
            FIRST_YEAR, PageParameters, cut, read_cursor, read_limit, read_time, write_cursor,
            write_time,
        },
        query::{
            Query, list_parameter, parameter, read_call_ids, read_flag, read_instant, read_name,
            read_statuses, statuses_parameter,
        },
        routes::calls::get::{CallDocument, documents},
    },
    store::calls::{
        filter::Filter,
        list::{ListPosition, ListStart, page},
    },
};

/// The most calls on a page.
const MAX_LIMIT: u16 = 500;

/// The calls on a page, unless it is said.
const DEFAULT_LIMIT: u16 = 50;

/// The most calls that the parameter `call_id` names.
const MAX_CALL_IDS: usize = 100;

/// The most errors of each call that are shown: the first. The call alone shows
/// more.
const MAX_ERRORS: u16 = 10;

/// A page of calls, the newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CallPage)]
pub(crate) struct ListDocument {
    /// The calls, each with its first 10 errors at most.
    calls: Vec<CallDocument>,
    /// The `cursor` of the next page; null at the end.
    next_cursor: Option<String>,
}

/// The parameters that say which calls are listed.
pub(crate) struct Filters;

impl IntoParams for Filters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let named = |name: &str| RefOr::<Schema>::from(Ref::from_schema_name(name));
        let flag = || ObjectBuilder::new().schema_type(Type::Boolean).into();
        let time = || {
            let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
            ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
        };
        let text = || ObjectBuilder::new().schema_type(Type::String).into();
        let filters: [(&str, &str, RefOr<Schema>); 10] = [
            ("terminal", "Those that have ended, at least for now, or are under way.", flag()),
            ("direction", "Those that were dialled so.", named(&Direction::name())),
            ("project_id", "Those of this project.", named(&ProjectId::name())),
            ("client_id", "Those of this party.", named(&ClientId::name())),
            (
                "call_sid",
                "Those of which an attempt has this id of the telephony provider.",
                named(&CallSid::name()),
            ),
            ("has_errors", "Those that have errors, or have none.", flag()),
            (
                "anomalous",
                "Those with forced, conflicting or unrecognized events, or without any.",
                flag(),
            ),
            (
                "stalled_for",
                "Those under way for which no delivery came for so long, such as `15m`.",
                text(),
            ),
            ("from", "Those that began then or later.", time()),
            ("to", "Those that began before.", time()),
        ];
        let filters = filters
            .into_iter()
            .map(|(name, meaning, schema)| parameter(name, ParameterIn::Query, meaning, schema));
        let status = statuses_parameter("Those that have one of these statuses.");
        let meaning = format!("Those by these ids, at most {MAX_CALL_IDS}.");
        let call_id = Ref::from_schema_name(CallId::name());
        let call_id = list_parameter("call_id", &meaning, call_id);
        [status, call_id].into_iter().chain(filters).collect()
    }
}

/// Calls
///
/// Those that all filters leave, the newest `first_event_at` first.
#[utoipa::path(
    get,
    path = "/calls",
    operation_id = "list_calls",
    tag = "calls",
    params(Filters, PageParameters::<MAX_LIMIT, DEFAULT_LIMIT>),
    responses(
        (status = 200, description = "A page of calls.", body = ListDocument,
         example = json!(example(include_str!("../../openapi/examples/calls.json")))),
        BadParameter,
    ),
    security((), ("api_key" = [])),
)]
pub(crate) async fn list(
    State(service): State<Shared>,
    caller: ApiClient,
    uri: Uri,
) -> Result<Json<ListDocument>, Problem> {
    let now = service.clock.now();
    let mut query = Query::of(&uri);
    let filter = take_filter(&mut query, &caller, now);
    let limit = query.take("limit", |limit| read_limit(limit, MAX_LIMIT)).unwrap_or(DEFAULT_LIMIT);
    let cursor = query.take("cursor", read_list_cursor);
    query.finish()?;

    let pool = &service.pool;
    let (start, after) = match cursor {
        Some((start, after)) => (start.unless_too_old(pool, now).await?, Some(after)),
        None => (ListStart::now(pool, now).await?, None),
    };
    // One more than is returned shows whether there is a next page.
    let mut listed = page(pool, &filter, start, after, limit + 1).await?;
    let next_cursor = cut(&mut listed, limit).map(|(last, _)| write_list_cursor(start, *last));
    let calls = listed.into_iter().map(|(_, it)| (it.id, it.key, it.call)).collect();
    Ok(Json(ListDocument { calls: documents(&service, calls, MAX_ERRORS).await?, next_cursor }))
}

/// The calls that are asked for, of those that the caller may see.
fn take_filter(query: &mut Query, caller: &ApiClient, now: DateTime<Utc>) -> Filter {
    let project_id = query.take_project_id();
    let statuses = query.take("status", read_statuses);
    let terminal = query.take("terminal", read_flag);
    let delivered_by = query.take("stalled_for", |stalled_for| read_stalled_for(stalled_for, now));
    let is_wanted = |status: &Status| {
        statuses.as_ref().is_none_or(|statuses| statuses.contains(status))
            && terminal.is_none_or(|terminal| status.is_terminal() == terminal)
            && (delivered_by.is_none() || !status.is_terminal())
    };
    let (from, to) = (query.take("from", read_instant), query.take("to", read_instant));
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        query.fault("from", "must not be after to");
    }
    Filter {
        projects: caller.projects(project_id.as_ref()),
        statuses: Status::ALL.iter().copied().filter(is_wanted).collect(),
        direction: query.take("direction", read_name),
        call_ids: query.take("call_id", |value| read_call_ids(value, MAX_CALL_IDS)),
        client_id: query
            .take("client_id", |value| ClientId::new(value).map_err(|why| why.to_string())),
        call_sid: query
            .take("call_sid", |value| CallSid::new(value).map_err(|why| why.to_string())),
        has_errors: query.take("has_errors", read_flag),
        is_anomalous: query.take("anomalous", read_flag),
        delivered_by,
        from,
        to,
    }
}

/// The time after which no delivery was received for calls that are stalled for so long.
fn read_stalled_for(stalled_for: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    humantime::parse_duration(stalled_for)
        .ok()
        .and_then(|duration| TimeDelta::from_std(duration).ok())
        .and_then(|duration| now.checked_sub_signed(duration))
        .filter(|by| by.year() >= FIRST_YEAR)
        .ok_or_else(|| "must be a duration such as 90s, 15m or 2h".to_owned())
}

/// A cursor is when the list started and the position of the last call on the page.
fn write_list_cursor(start: ListStart, last: ListPosition) -> String {
    write_cursor(&[
        &write_time(start.at),
        &start.feed_position.to_be_bytes(),
        &write_time(last.first_event_at),
        &last.id.to_be_bytes(),
    ])
}

/// When the list started, and the position of the last call on the page before.
fn read_list_cursor(cursor: &str) -> Result<(ListStart, ListPosition), String> {
    read_cursor(cursor, |bytes: [u8; 32]| {
        let ([at, feed_position, first_event_at, id], []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let feed_position = i64::from_be_bytes(*feed_position);
        let start = ListStart { at: read_time(*at)?, feed_position };
        let id = i64::from_be_bytes(*id);
        Some((start, ListPosition { first_event_at: read_time(*first_event_at)?, id }))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_as_it_was_written(
            started_at in -62_135_596_800_000_000..253_402_300_799_000_000i64,
            feed_position: i64,
            at in -62_135_596_800_000_000..253_402_300_799_000_000i64,
            id: i64,
        ) {
            let time = |at| DateTime::from_timestamp_micros(at).unwrap();
            let start = ListStart { at: time(started_at), feed_position };
            let last = ListPosition { first_event_at: time(at), id };
            prop_assert_eq!(read_list_cursor(&write_list_cursor(start, last)), Ok((start, last)));
        }

        #[test]
        fn any_other_text_is_an_error(cursor in ".{0,64}") {
            let _ = read_list_cursor(&cursor);
        }
    }

    #[test]
    fn a_call_is_stalled_for_a_duration_that_time_has_room_for() {
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(read_stalled_for("15m", now), Ok(now - TimeDelta::minutes(15)));
        assert_eq!(read_stalled_for("1h 30m", now), Ok(now - TimeDelta::minutes(90)));
        for none in ["15", "-15m", "soon", "20000y", "600000000000y"] {
            assert!(read_stalled_for(none, now).is_err(), "{none}");
        }
    }
}

//! A row of `events`, the event in it and its effect.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::PgExecutor;

use super::{
    feed::FeedEvent,
    history::{HistoryEvent, Payload},
};
use crate::{
    call::{
        CallError, CallKey, CallSid, ClientId, Event, EventType, Fingerprint, KnownEvent, Outcome,
        Reason, ReasonCode, TimeProblem, event_id,
    },
    store::{
        Error,
        codec::{self, Row, count, fingerprint},
    },
};

/// An event as it is stored, as far as the fold is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The event.
    pub event: Event,
    /// The stored columns that follow from the events of its call.
    pub derived: Derived,
    /// When its last delivery was received.
    pub last_delivered_at: DateTime<Utc>,
}

/// The columns of an event that follow from the events of its call. A release that did
/// not know the type of the event has stored other values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// The number of its type; 0 where it is unrecognized.
    pub event_type: i16,
    /// `occurred_at`, or `received_at` where that is unknown.
    pub effective_at: DateTime<Utc>,
    /// Its effect on the call.
    pub outcome: Outcome,
}

impl Derived {
    /// The columns of an event with that outcome.
    pub(in crate::store) fn of(event: &Event, outcome: Outcome) -> Self {
        let (event_type, effective_at) = (event.event_type.id(), event.effective_at());
        Self { event_type, effective_at, outcome }
    }
}

/// A row of `events` as Postgres returns it. Enums and JSON are text, so that an
/// invalid value is reported with its column.
pub(in crate::store) struct EventRow {
    pub(in crate::store) call: i64,
    /// The names of the call are null where they are not selected or the call is missing.
    pub(in crate::store) call_id: Option<String>,
    pub(in crate::store) project_id: Option<String>,
    pub(in crate::store) position: i64,
    pub(in crate::store) fingerprint: Vec<u8>,
    pub(in crate::store) event_type: i16,
    pub(in crate::store) unrecognized_type: Option<String>,
    pub(in crate::store) occurred_at: Option<DateTime<Utc>>,
    pub(in crate::store) time_problem: Option<i16>,
    pub(in crate::store) received_at: DateTime<Utc>,
    pub(in crate::store) effective_at: DateTime<Utc>,
    pub(in crate::store) call_sid: Option<String>,
    pub(in crate::store) client_id: Option<String>,
    pub(in crate::store) provider_status: Option<String>,
    pub(in crate::store) errors: Option<String>,
    pub(in crate::store) disposition: String,
    pub(in crate::store) reason: i16,
    pub(in crate::store) reason_status: Option<i16>,
    pub(in crate::store) reason_attempt: Option<i32>,
    pub(in crate::store) from_status: Option<i16>,
    pub(in crate::store) to_status: Option<i16>,
    pub(in crate::store) attempt: Option<i32>,
    pub(in crate::store) delivery_count: i32,
    pub(in crate::store) last_delivered_at: DateTime<Utc>,
    pub(in crate::store) endpoint: String,
    pub(in crate::store) call_direction: Option<String>,
    pub(in crate::store) call_status: i16,
    pub(in crate::store) call_attempt_count: i32,
    pub(in crate::store) call_has_errors: bool,
    pub(in crate::store) call_updated_at: Option<DateTime<Utc>>,
    /// Whether payloads are selected.
    pub(in crate::store) has_payload_selected: bool,
    /// Null where it is not selected.
    pub(in crate::store) payload: Option<String>,
    pub(in crate::store) payload_removed_at: Option<DateTime<Utc>>,
    /// Whether the payloads up to this row are within the limit of the page.
    pub(in crate::store) is_within_limit: bool,
}

/// Selects events as [`EventRow`]s: the columns, written once for the text that follows
/// them and its arguments. `$names` are the columns `call_id` and `project_id`.
///
/// Payloads are selected only where `$limit` is given, the number of a parameter that may
/// be null: a page ends before its payloads exceed so many bytes, and has one event at
/// least. The text then defines the window `page`.
macro_rules! select_events {
    (names $names:literal, payloads up to $limit:literal, $following:literal, $($argument:expr),+ $(,)?) => {
        select_events!(
            @ $names,
            $limit "::bigint is not null",
            "case when " $limit "::bigint is not null then events.payload::text end",
            "(
                " $limit " is null
                or row_number() over page = 1
                or coalesce(
                    sum(octet_length(case when " $limit " is not null then events.payload::text end))
                        over page,
                    0
                ) <= " $limit "
            )",
            $following,
            $($argument),+
        )
    };
    (names $names:literal, $following:literal, $($argument:expr),+ $(,)?) => {
        select_events!(@ $names, "false", "null::text", "true", $following, $($argument),+)
    };
    (@ $names:literal, $($has_payload_selected:literal)+, $($payload:literal)+, $($is_within_limit:literal)+, $following:literal, $($argument:expr),+) => {
        sqlx::query_as!(
            $crate::store::events::row::EventRow,
            r#"
            select events.call as "call!", "# + $names + r#", events.position as "position!",
                events.fingerprint as "fingerprint!", events.event_type as "event_type!",
                events.unrecognized_type, events.occurred_at, events.time_problem,
                events.received_at as "received_at!", events.effective_at as "effective_at!",
                events.call_sid, events.client_id, events.provider_status,
                events.errors::text as errors, events.disposition::text as "disposition!",
                events.reason as "reason!", events.reason_status, events.reason_attempt,
                events.from_status, events.to_status, events.attempt,
                events.delivery_count as "delivery_count!",
                events.last_delivered_at as "last_delivered_at!", events.endpoint as "endpoint!",
                events.call_direction::text as call_direction,
                events.call_status as "call_status!",
                events.call_attempt_count as "call_attempt_count!",
                events.call_has_errors as "call_has_errors!", events.call_updated_at,
                events.payload_removed_at, "# $(+ $has_payload_selected)+
            + r#" as "has_payload_selected!", "# $(+ $payload)+ + r#" as payload, "# $(+ $is_within_limit)+
            + r#" as "is_within_limit!"
            "# + $following,
            $($argument),+
        )
    };
}
pub(in crate::store) use select_events;

/// Names an event in an error.
pub(in crate::store) fn name_of(call: i64, fingerprint: &[u8]) -> String {
    match fingerprint.try_into().map(Fingerprint) {
        Ok(fingerprint) => format!("event {fingerprint} of call number {call}"),
        Err(_) => format!("an event of call number {call}"),
    }
}

impl EventRow {
    /// The call's names.
    pub(in crate::store) fn key(&self) -> Result<CallKey, Error> {
        match (&self.project_id, &self.call_id) {
            (Some(project_id), Some(call_id)) => {
                codec::key("calls", project_id.clone(), call_id.clone())
            }
            _ => {
                let name = name_of(self.call, &self.fingerprint);
                Err(Row { table: "events", key: &name }.corrupt("call", "the call is missing"))
            }
        }
    }

    /// The event as far as the fold is concerned.
    pub(in crate::store) fn stored(self) -> Result<StoredEvent, Error> {
        let name = name_of(self.call, &self.fingerprint);
        let at = Row { table: "events", key: &name };
        let call_sid = self.call_sid.map(CallSid::new).transpose();
        let client_id = self.client_id.map(ClientId::new).transpose();
        let event_type =
            at.read("event_type", event_type(self.event_type, self.unrecognized_type))?;
        let event = Event {
            fingerprint: at.read("fingerprint", fingerprint(&self.fingerprint))?,
            event_type,
            occurred_at: self.occurred_at,
            received_at: self.received_at,
            call_sid: at.read("call_sid", call_sid)?,
            client_id: at.read("client_id", client_id)?,
            provider_status: self.provider_status,
            has_errors: self.errors.is_some(),
        };
        let code = ReasonCode::from_id(self.reason)
            .ok_or_else(|| format!("{} is not the id of a known reason", self.reason));
        let reason_attempt = self.reason_attempt.map(count).transpose();
        let outcome = Outcome {
            disposition: at.read("disposition", self.disposition.parse())?,
            from_status: at.status("from_status", self.from_status)?,
            to_status: at.status("to_status", self.to_status)?,
            attempt: at.read("attempt", self.attempt.map(count).transpose())?,
            reason: Reason {
                code: at.read("reason", code)?,
                status: at.status("reason_status", self.reason_status)?,
                attempt: at.read("reason_attempt", reason_attempt)?,
            },
        };
        let (event_type, effective_at) = (self.event_type, self.effective_at);
        let derived = Derived { event_type, effective_at, outcome };
        Ok(StoredEvent { event, derived, last_delivered_at: self.last_delivered_at })
    }

    /// The event as the history of its call shows it.
    pub(in crate::store) fn history(mut self, key: CallKey) -> Result<HistoryEvent, Error> {
        let name = name_of(self.call, &self.fingerprint);
        let at = Row { table: "events", key: &name };
        let body = self.payload.take().map(RawValue::from_string).transpose();
        let payload =
            Payload { body: at.read("payload", body)?, removed_at: self.payload_removed_at };
        let errors: Option<Vec<CallError>> =
            at.read("errors", self.errors.as_deref().map(serde_json::from_str).transpose())?;
        let time_problem = self.time_problem.map(|id| {
            TimeProblem::from_id(id).ok_or_else(|| format!("{id} is not a known problem"))
        });
        Ok(HistoryEvent {
            delivery_count: at.read("delivery_count", count(self.delivery_count))?,
            endpoint: std::mem::take(&mut self.endpoint),
            time_problem: at.read("time_problem", time_problem.transpose())?,
            errors: errors.unwrap_or_default(),
            payload: self.has_payload_selected.then_some(payload),
            stored: self.stored()?,
            key,
        })
    }

    /// The event as the feed shows it.
    pub(in crate::store) fn feed(&self, key: CallKey) -> Result<FeedEvent, Error> {
        let name = name_of(self.call, &self.fingerprint);
        let at = Row { table: "events", key: &name };
        let fingerprint = at.read("fingerprint", fingerprint(&self.fingerprint))?;
        let event_type = event_type(self.event_type, self.unrecognized_type.clone());
        Ok(FeedEvent {
            position: self.position,
            direction: at.parse("call_direction", self.call_direction.as_deref())?,
            status: at.read("call_status", codec::status(self.call_status))?,
            attempt_count: at.read("call_attempt_count", count(self.call_attempt_count))?,
            has_errors: self.call_has_errors,
            event_id: event_id(&key, fingerprint),
            event_type: at.read("event_type", event_type)?.as_str().to_owned(),
            disposition: at.read("disposition", self.disposition.parse())?,
            updated_at: self.call_updated_at.unwrap_or(self.received_at),
            key,
        })
    }
}

/// The event type of a stored number and name. A name that was unrecognized when
/// it was stored may be known by now.
fn event_type(id: i16, unrecognized: Option<String>) -> Result<EventType, String> {
    match (id, unrecognized) {
        (0, Some(name)) => Ok(EventType::of(&name)),
        (0, None) => Err("0 needs a name in unrecognized_type".to_owned()),
        (id, _) => KnownEvent::from_id(id)
            .map(EventType::Known)
            .ok_or_else(|| format!("{id} is not the id of a known event type")),
    }
}

/// All events of these calls, by call. An invalid row is the result of its call, so that
/// it hides no other.
pub async fn of_calls(
    executor: impl PgExecutor<'_>,
    calls: &[i64],
) -> Result<HashMap<i64, Result<Vec<StoredEvent>, Error>>, Error> {
    let rows = select_events!(
        names "null::text as call_id, null::text as project_id",
        "from events where events.call = any($1)",
        calls,
    )
    .fetch_all(executor)
    .await?;
    let mut events: HashMap<i64, Result<Vec<StoredEvent>, Error>> = HashMap::new();
    for row in rows {
        let of_call = events.entry(row.call).or_insert_with(|| Ok(Vec::new()));
        if let Ok(valid) = of_call {
            match row.stored() {
                Ok(event) => valid.push(event),
                Err(error) => *of_call = Err(error),
            }
        }
    }
    Ok(events)
}

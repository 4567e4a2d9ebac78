//! A row of `events`, the event in it and its effect.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use crate::{
    call::{
        CallSid, ClientId, Event, EventType, Fingerprint, KnownEvent, Outcome, Reason, ReasonCode,
        Status,
    },
    store::{
        Error,
        codec::{Row, as_int, count, fingerprint},
    },
};

/// An event as it is stored, as far as the fold is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The event.
    pub event: Event,
    /// What is stored of it that follows from the events of its call.
    pub derived: Derived,
    /// When its last delivery was received.
    pub last_delivered_at: DateTime<Utc>,
}

/// What is stored of an event that follows from the events of its call. Another
/// release may have derived something else, such as one that did not know its type.
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
    /// What is to be stored of an event with that outcome.
    pub(in crate::store) fn of(event: &Event, outcome: Outcome) -> Self {
        let (event_type, effective_at) = (event.event_type.id(), event.effective_at());
        Self { event_type, effective_at, outcome }
    }
}

/// A row of `events` as Postgres returns it, as far as the fold is concerned.
pub(in crate::store) struct EventRow {
    pub(in crate::store) call: i64,
    pub(in crate::store) fingerprint: Vec<u8>,
    pub(in crate::store) event_type: i16,
    pub(in crate::store) unrecognized_type: Option<String>,
    pub(in crate::store) occurred_at: Option<DateTime<Utc>>,
    pub(in crate::store) received_at: DateTime<Utc>,
    pub(in crate::store) effective_at: DateTime<Utc>,
    pub(in crate::store) call_sid: Option<String>,
    pub(in crate::store) client_id: Option<String>,
    pub(in crate::store) provider_status: Option<String>,
    pub(in crate::store) has_errors: bool,
    pub(in crate::store) disposition: String,
    pub(in crate::store) reason: i16,
    pub(in crate::store) reason_status: Option<i16>,
    pub(in crate::store) reason_attempt: Option<i32>,
    pub(in crate::store) from_status: Option<i16>,
    pub(in crate::store) to_status: Option<i16>,
    pub(in crate::store) attempt: Option<i32>,
    pub(in crate::store) last_delivered_at: DateTime<Utc>,
}

/// Names an event in an error.
pub(in crate::store) fn name_of(call: i64, fingerprint: &[u8]) -> String {
    match fingerprint.try_into().map(Fingerprint) {
        Ok(fingerprint) => format!("event {fingerprint} of call number {call}"),
        Err(_) => format!("an event of call number {call}"),
    }
}

impl EventRow {
    pub(in crate::store) fn read(self) -> Result<StoredEvent, Error> {
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
            has_errors: self.has_errors,
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
}

/// The event type of a stored number and name. A name that was unrecognized when
/// it was stored may be known by now.
pub(in crate::store) fn event_type(
    id: i16,
    unrecognized: Option<String>,
) -> Result<EventType, String> {
    match (id, unrecognized) {
        (0, Some(name)) => Ok(EventType::of(&name)),
        (0, None) => Err("0 needs a name in unrecognized_type".to_owned()),
        (id, _) => KnownEvent::from_id(id)
            .map(EventType::Known)
            .ok_or_else(|| format!("{id} is not the id of a known event type")),
    }
}

/// All events of these calls, by call.
pub async fn of_calls(
    executor: impl PgExecutor<'_>,
    calls: &[i64],
) -> Result<HashMap<i64, Vec<StoredEvent>>, Error> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select call, fingerprint, event_type, unrecognized_type, occurred_at, received_at,
            effective_at, call_sid, client_id, provider_status,
            errors is not null as "has_errors!", disposition::text as "disposition!", reason,
            reason_status, reason_attempt, from_status, to_status, attempt, last_delivered_at
        from events
        where call = any($1)
        "#,
        calls,
    )
    .fetch_all(executor)
    .await?;
    let mut events: HashMap<i64, Vec<StoredEvent>> = HashMap::new();
    for row in rows {
        events.entry(row.call).or_default().push(row.read()?);
    }
    Ok(events)
}

/// A correction of what is stored of an event.
pub(in crate::store) struct Amendment<'a> {
    pub(in crate::store) call: i64,
    pub(in crate::store) fingerprint: Fingerprint,
    pub(in crate::store) event_type: &'a EventType,
    pub(in crate::store) derived: Derived,
}

/// Corrects what is stored of events.
pub(in crate::store) async fn amend(
    conn: &mut PgConnection,
    amendments: &[Amendment<'_>],
) -> Result<(), Error> {
    if amendments.is_empty() {
        return Ok(());
    }
    let calls: Vec<i64> = amendments.iter().map(|it| it.call).collect();
    let fingerprints: Vec<&[u8]> = amendments.iter().map(|it| &it.fingerprint.0[..]).collect();
    let types: Vec<i16> = amendments.iter().map(|it| it.derived.event_type).collect();
    let unrecognized: Vec<Option<&str>> =
        amendments.iter().map(|it| unrecognized_name(it.event_type)).collect();
    let effective_at: Vec<DateTime<Utc>> =
        amendments.iter().map(|it| it.derived.effective_at).collect();
    let outcomes: Vec<Outcome> = amendments.iter().map(|it| it.derived.outcome).collect();
    let dispositions: Vec<&str> = outcomes.iter().map(|it| it.disposition.as_str()).collect();
    let reasons: Vec<i16> = outcomes.iter().map(|it| it.reason.code.id()).collect();
    let reason_statuses: Vec<Option<i16>> =
        outcomes.iter().map(|it| it.reason.status.map(Status::id)).collect();
    let reason_attempts: Vec<Option<i32>> =
        outcomes.iter().map(|it| it.reason.attempt.map(as_int)).collect();
    let from: Vec<Option<i16>> = outcomes.iter().map(|it| it.from_status.map(Status::id)).collect();
    let to: Vec<Option<i16>> = outcomes.iter().map(|it| it.to_status.map(Status::id)).collect();
    let attempts: Vec<Option<i32>> = outcomes.iter().map(|it| it.attempt.map(as_int)).collect();
    sqlx::query!(
        r#"
        update events set
            event_type = amended.event_type,
            unrecognized_type = amended.unrecognized_type,
            effective_at = amended.effective_at,
            disposition = amended.disposition::event_disposition,
            reason = amended.reason,
            reason_status = amended.reason_status,
            reason_attempt = amended.reason_attempt,
            from_status = amended.from_status,
            to_status = amended.to_status,
            attempt = amended.attempt
        from unnest(
            $1::bigint[], $2::bytea[], $3::smallint[], $4::text[], $5::timestamptz[], $6::text[],
            $7::smallint[], $8::smallint[], $9::int[], $10::smallint[], $11::smallint[], $12::int[]
        ) as amended (
            call, fingerprint, event_type, unrecognized_type, effective_at, disposition, reason,
            reason_status, reason_attempt, from_status, to_status, attempt
        )
        where events.call = amended.call and events.fingerprint = amended.fingerprint
        "#,
        &calls,
        &fingerprints as &[&[u8]],
        &types,
        &unrecognized as &[Option<&str>],
        &effective_at,
        &dispositions as &[&str],
        &reasons,
        &reason_statuses as &[Option<i16>],
        &reason_attempts as &[Option<i32>],
        &from as &[Option<i16>],
        &to as &[Option<i16>],
        &attempts as &[Option<i32>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The name of an event type, where it is unrecognized.
pub(in crate::store) fn unrecognized_name(event_type: &EventType) -> Option<&str> {
    match event_type {
        EventType::Known(_) => None,
        EventType::Unrecognized(name) => Some(name),
    }
}

/// Further deliveries of a stored event.
pub(in crate::store) struct Repetition {
    pub(in crate::store) call: i64,
    pub(in crate::store) fingerprint: Fingerprint,
    pub(in crate::store) deliveries: i32,
    pub(in crate::store) in_all: i32,
    pub(in crate::store) last_delivered_at: DateTime<Utc>,
}

/// Counts repeated deliveries. Where another store has counted, the greater number
/// is stored, so that importing its count twice changes nothing.
pub(in crate::store) async fn count_repetitions(
    conn: &mut PgConnection,
    repetitions: &[Repetition],
) -> Result<(), Error> {
    if repetitions.is_empty() {
        return Ok(());
    }
    let calls: Vec<i64> = repetitions.iter().map(|it| it.call).collect();
    let fingerprints: Vec<&[u8]> = repetitions.iter().map(|it| &it.fingerprint.0[..]).collect();
    let deliveries: Vec<i32> = repetitions.iter().map(|it| it.deliveries).collect();
    let in_all: Vec<i32> = repetitions.iter().map(|it| it.in_all).collect();
    let delivered_at: Vec<DateTime<Utc>> =
        repetitions.iter().map(|it| it.last_delivered_at).collect();
    sqlx::query!(
        r#"
        update events set
            -- a sum that an int has no room for stays at its maximum
            delivery_count = greatest(
                least(delivery_count::bigint + repeated.deliveries, 2147483647)::int,
                repeated.in_all
            ),
            last_delivered_at = greatest(events.last_delivered_at, repeated.last_delivered_at)
        from unnest($1::bigint[], $2::bytea[], $3::int[], $4::int[], $5::timestamptz[])
            as repeated (call, fingerprint, deliveries, in_all, last_delivered_at)
        where events.call = repeated.call and events.fingerprint = repeated.fingerprint
        "#,
        &calls,
        &fingerprints as &[&[u8]],
        &deliveries,
        &in_all,
        &delivered_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

//! The table `events`: a row, the history of a call, and the amendments that
//! a late event brings to those after it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::{PgConnection, PgExecutor, types::Json};
use uuid::Uuid;

use super::{
    Error,
    bucket::Buckets,
    codec::{Row, count, fingerprint, key},
};
use crate::call::{
    CallError, CallKey, CallSid, ClientId, Disposition, Event, EventType, Fingerprint, Outcome,
    Position, Status, event_id,
};

/// An event as it is stored, as far as the fold is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The event.
    pub event: Event,
    /// What is stored of it that follows from it and its call.
    pub derived: Derived,
    /// When it was last delivered.
    pub last_delivered_at: DateTime<Utc>,
}

/// What is stored of an event that follows from it and its call, as another
/// release may have seen it: one that did not know its type yet ranked it
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Its id.
    pub event_id: Uuid,
    /// When it counts as having happened.
    pub effective_at: DateTime<Utc>,
    /// The rank of the status that it says.
    pub rank: i16,
    /// What it did to the call.
    pub outcome: Outcome,
}

impl Derived {
    /// What is to be stored of an event that did this.
    pub(super) fn of(key: &CallKey, event: &Event, outcome: Outcome) -> Self {
        let Position { effective_at, rank, fingerprint } = event.position();
        Self { event_id: event_id(key, fingerprint), effective_at, rank: rank.get(), outcome }
    }
}

/// The place of an event in a history, which is in the order of what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When the event counts as having happened.
    pub effective_at: DateTime<Utc>,
    /// The rank of the status that it says.
    pub rank: i16,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

/// An event as a call's history shows it.
#[derive(Debug)]
pub struct HistoryEvent {
    /// The event and what it did.
    pub stored: StoredEvent,
    /// How often it was delivered.
    pub delivery_count: u32,
    /// The endpoint that took its first delivery.
    pub endpoint: String,
    /// The errors that it carries.
    pub errors: Vec<CallError>,
    /// The body of its first delivery, where it was asked for.
    pub payload: Option<Box<RawValue>>,
}

impl HistoryEvent {
    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        let StoredEvent { event, derived, .. } = &self.stored;
        let Derived { effective_at, rank, .. } = *derived;
        Place { effective_at, rank, fingerprint: event.fingerprint }
    }
}

/// An error of a call, with the event that told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldError {
    /// The event.
    pub event_id: Uuid,
    /// What it told.
    pub error: CallError,
}

/// A row of `events`, as far as the fold is concerned.
struct FoldRow {
    project_id: String,
    call_id: String,
    fingerprint: Vec<u8>,
    event_id: Uuid,
    event_type: String,
    rank: i16,
    occurred_at: Option<DateTime<Utc>>,
    received_at: DateTime<Utc>,
    effective_at: DateTime<Utc>,
    call_sid: Option<String>,
    client_id: Option<String>,
    provider_status: Option<String>,
    has_errors: bool,
    disposition: Disposition,
    reason: String,
    from_status: Option<Status>,
    to_status: Option<Status>,
    attempt: Option<i32>,
    last_delivered_at: DateTime<Utc>,
}

impl FoldRow {
    fn read(self) -> Result<(CallKey, StoredEvent), Error> {
        let key = key("events", self.project_id, self.call_id)?;
        let at = Row { table: "events", key: &key };
        let call_sid = self.call_sid.map(CallSid::new).transpose();
        let client_id = self.client_id.map(ClientId::new).transpose();
        let event = Event {
            fingerprint: at.read("fingerprint", fingerprint(&self.fingerprint))?,
            event_type: EventType::of(&self.event_type),
            occurred_at: self.occurred_at,
            received_at: self.received_at,
            call_sid: at.read("call_sid", call_sid)?,
            client_id: at.read("client_id", client_id)?,
            provider_status: self.provider_status,
            has_errors: self.has_errors,
        };
        let outcome = Outcome {
            disposition: self.disposition,
            from_status: self.from_status,
            to_status: self.to_status,
            attempt: at.read("attempt", self.attempt.map(count).transpose())?,
            reason: self.reason,
        };
        let derived = Derived {
            event_id: self.event_id,
            effective_at: self.effective_at,
            rank: self.rank,
            outcome,
        };
        Ok((key, StoredEvent { event, derived, last_delivered_at: self.last_delivered_at }))
    }
}

/// A row of `events`, as a history shows it.
pub(super) struct HistoryRow {
    pub(super) project_id: String,
    pub(super) call_id: String,
    pub(super) fingerprint: Vec<u8>,
    pub(super) event_id: Uuid,
    pub(super) event_type: String,
    pub(super) rank: i16,
    pub(super) occurred_at: Option<DateTime<Utc>>,
    pub(super) received_at: DateTime<Utc>,
    pub(super) effective_at: DateTime<Utc>,
    pub(super) call_sid: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) provider_status: Option<String>,
    pub(super) errors: Option<Json<Vec<CallError>>>,
    pub(super) disposition: Disposition,
    pub(super) reason: String,
    pub(super) from_status: Option<Status>,
    pub(super) to_status: Option<Status>,
    pub(super) attempt: Option<i32>,
    pub(super) delivery_count: i32,
    pub(super) last_delivered_at: DateTime<Utc>,
    pub(super) endpoint: String,
    pub(super) payload: Option<String>,
}

impl HistoryRow {
    pub(super) fn read(self) -> Result<(CallKey, HistoryEvent), Error> {
        let errors = self.errors.map_or_else(Vec::new, |errors| errors.0);
        let (key, stored) = FoldRow {
            project_id: self.project_id,
            call_id: self.call_id,
            fingerprint: self.fingerprint,
            event_id: self.event_id,
            event_type: self.event_type,
            rank: self.rank,
            occurred_at: self.occurred_at,
            received_at: self.received_at,
            effective_at: self.effective_at,
            call_sid: self.call_sid,
            client_id: self.client_id,
            provider_status: self.provider_status,
            has_errors: !errors.is_empty(),
            disposition: self.disposition,
            reason: self.reason,
            from_status: self.from_status,
            to_status: self.to_status,
            attempt: self.attempt,
            last_delivered_at: self.last_delivered_at,
        }
        .read()?;
        let at = Row { table: "events", key: &key };
        let payload = self.payload.map(RawValue::from_string).transpose();
        let event = HistoryEvent {
            stored,
            delivery_count: at.read("delivery_count", count(self.delivery_count))?,
            endpoint: self.endpoint,
            errors,
            payload: at.read("payload", payload)?,
        };
        Ok((key, event))
    }
}

/// All events of these calls.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub async fn of_calls(
    executor: impl PgExecutor<'_>,
    bucket: i32,
    keys: &[&CallKey],
) -> Result<HashMap<CallKey, Vec<StoredEvent>>, Error> {
    let (call_ids, project_ids) = columns(keys);
    let rows = sqlx::query_as!(
        FoldRow,
        r#"
        select events.project_id, events.call_id, fingerprint, event_id, event_type, rank,
            occurred_at, received_at, effective_at, call_sid, client_id, provider_status,
            errors is not null as "has_errors!", disposition as "disposition: Disposition", reason,
            from_status as "from_status: Status", to_status as "to_status: Status", attempt,
            last_delivered_at
        from unnest($2::text[], $3::text[]) as wanted (call_id, project_id)
        join events using (call_id, project_id)
        where bucket = $1
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
    )
    .fetch_all(executor)
    .await?;
    let mut events: HashMap<CallKey, Vec<StoredEvent>> = HashMap::new();
    for row in rows {
        let (key, event) = row.read()?;
        events.entry(key).or_default().push(event);
    }
    Ok(events)
}

/// The two columns of call keys.
pub(super) fn columns<'k>(keys: &[&'k CallKey]) -> (Vec<&'k str>, Vec<&'k str>) {
    keys.iter().map(|key| (key.call_id.as_str(), key.project_id.as_str())).unzip()
}

/// What turned out to follow from an event, now that its call was folded again.
pub(super) type Amendment<'a> = (&'a CallKey, Fingerprint, &'a Derived);

/// Corrects what follows from events.
///
/// # Errors
///
/// Where the database refuses.
pub(super) async fn amend(
    conn: &mut PgConnection,
    bucket: i32,
    amendments: &[Amendment<'_>],
) -> Result<(), Error> {
    if amendments.is_empty() {
        return Ok(());
    }
    let keys: Vec<&CallKey> = amendments.iter().map(|(key, ..)| *key).collect();
    let (call_ids, project_ids) = columns(&keys);
    let fingerprints: Vec<&[u8]> = amendments.iter().map(|(_, it, _)| &it.0[..]).collect();
    let derived = || amendments.iter().map(|(.., derived)| *derived);
    let event_ids: Vec<Uuid> = derived().map(|it| it.event_id).collect();
    let ranks: Vec<i16> = derived().map(|it| it.rank).collect();
    let effective_at: Vec<DateTime<Utc>> = derived().map(|it| it.effective_at).collect();
    let outcomes: Vec<&Outcome> = derived().map(|it| &it.outcome).collect();
    let dispositions: Vec<&str> = outcomes.iter().map(|it| it.disposition.as_str()).collect();
    let reasons: Vec<&str> = outcomes.iter().map(|it| it.reason.as_str()).collect();
    let from: Vec<Option<&str>> =
        outcomes.iter().map(|it| it.from_status.map(Status::as_str)).collect();
    let to: Vec<Option<&str>> =
        outcomes.iter().map(|it| it.to_status.map(Status::as_str)).collect();
    let attempts: Vec<Option<i32>> = outcomes.iter().map(|it| it.attempt.map(as_int)).collect();
    sqlx::query!(
        r#"
        update events set
            event_id = amended.event_id,
            rank = amended.rank,
            effective_at = amended.effective_at,
            disposition = amended.disposition::event_disposition,
            reason = amended.reason,
            from_status = amended.from_status::call_status,
            to_status = amended.to_status::call_status,
            attempt = amended.attempt
        from unnest(
            $2::text[], $3::text[], $4::bytea[], $5::uuid[], $6::smallint[], $7::timestamptz[],
            $8::text[], $9::text[], $10::text[], $11::text[], $12::int[]
        ) as amended (
            call_id, project_id, fingerprint, event_id, rank, effective_at, disposition, reason,
            from_status, to_status, attempt
        )
        where events.bucket = $1
            and events.call_id = amended.call_id
            and events.project_id = amended.project_id
            and events.fingerprint = amended.fingerprint
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
        &fingerprints as &[&[u8]],
        &event_ids,
        &ranks,
        &effective_at,
        &dispositions as &[&str],
        &reasons as &[&str],
        &from as &[Option<&str>],
        &to as &[Option<&str>],
        &attempts as &[Option<i32>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A count as Postgres keeps it.
pub(super) fn as_int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// An event that was delivered again.
pub(super) struct Repetition<'a> {
    pub(super) key: &'a CallKey,
    pub(super) fingerprint: Fingerprint,
    pub(super) deliveries: i32,
    pub(super) in_all: i32,
    pub(super) last_delivered_at: DateTime<Utc>,
}

/// Counts repeated deliveries. Where another store has counted, the greater
/// number stands: so whoever brings its count twice changes nothing.
///
/// # Errors
///
/// Where the database refuses.
pub(super) async fn count_repetitions(
    conn: &mut PgConnection,
    bucket: i32,
    repetitions: &[Repetition<'_>],
) -> Result<(), Error> {
    if repetitions.is_empty() {
        return Ok(());
    }
    let keys: Vec<&CallKey> = repetitions.iter().map(|it| it.key).collect();
    let (call_ids, project_ids) = columns(&keys);
    let fingerprints: Vec<&[u8]> = repetitions.iter().map(|it| &it.fingerprint.0[..]).collect();
    let deliveries: Vec<i32> = repetitions.iter().map(|it| it.deliveries).collect();
    let in_all: Vec<i32> = repetitions.iter().map(|it| it.in_all).collect();
    let delivered_at: Vec<DateTime<Utc>> =
        repetitions.iter().map(|it| it.last_delivered_at).collect();
    sqlx::query!(
        r#"
        update events set
            delivery_count = greatest(delivery_count + repeated.deliveries, repeated.in_all),
            last_delivered_at = greatest(events.last_delivered_at, repeated.last_delivered_at)
        from unnest($2::text[], $3::text[], $4::bytea[], $5::int[], $6::int[], $7::timestamptz[])
            as repeated (call_id, project_id, fingerprint, deliveries, in_all, last_delivered_at)
        where events.bucket = $1
            and events.call_id = repeated.call_id
            and events.project_id = repeated.project_id
            and events.fingerprint = repeated.fingerprint
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
        &fingerprints as &[&[u8]],
        &deliveries,
        &in_all,
        &delivered_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The events of a call in fold order, at most `limit`, those after `after`; and
/// with their payloads, where it is said how many bytes these may have together.
/// The first has its payload in any case, and from the one on that would have
/// too much none has.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub async fn history(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    key: &CallKey,
    after: Option<Place>,
    limit: u16,
    payload_bytes: Option<u32>,
) -> Result<Vec<HistoryEvent>, Error> {
    let rows = sqlx::query_as!(
        HistoryRow,
        r#"
        select project_id, call_id, fingerprint, event_id, event_type, rank, occurred_at,
            received_at, effective_at, call_sid, client_id, provider_status,
            errors as "errors: Json<Vec<CallError>>",
            disposition as "disposition: Disposition", reason,
            from_status as "from_status: Status", to_status as "to_status: Status", attempt,
            delivery_count, last_delivered_at, endpoint,
            case
                when row_number() over shown = 1 and $7::bigint is not null
                    or sum(octet_length(case when $7 is not null then payload::text end)) over shown <= $7
                then payload::text
            end as payload
        from events
        where bucket = $1 and call_id = $2 and project_id = $3
            and ($4::timestamptz is null or (effective_at, rank, fingerprint) > ($4, $5, $6))
        window shown as (order by effective_at, rank, fingerprint rows unbounded preceding)
        order by effective_at, rank, fingerprint
        limit $8
        "#,
        buckets.of(key),
        key.call_id.as_str(),
        key.project_id.as_str(),
        after.map(|place| place.effective_at),
        after.map_or(0, |place| place.rank),
        after.map_or_else(Vec::new, |place| place.fingerprint.0.to_vec()),
        payload_bytes.map(i64::from),
        i64::from(limit),
    )
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(|row| Ok(row.read()?.1)).collect()
}

/// The first errors that the events of some calls told, in fold order, at most
/// `limit` of each; of the events that were received by the time beside the call.
/// The answers are in the order of the calls.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub async fn errors(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    asked: &[(&CallKey, DateTime<Utc>)],
    limit: u16,
) -> Result<Vec<Vec<ToldError>>, Error> {
    let mut told: Vec<Vec<ToldError>> = asked.iter().map(|_| Vec::new()).collect();
    if asked.is_empty() {
        return Ok(told);
    }
    let keys: Vec<&CallKey> = asked.iter().map(|(key, _)| *key).collect();
    let of_bucket: Vec<i32> = keys.iter().map(|key| buckets.of(key)).collect();
    let (call_ids, project_ids) = columns(&keys);
    let received_by: Vec<DateTime<Utc>> = asked.iter().map(|(_, at)| *at).collect();
    let rows = sqlx::query!(
        r#"
        select asked.place as "place!", event_id as "event_id!",
            error as "error!: Json<CallError>"
        from unnest($1::int[], $2::text[], $3::text[], $4::timestamptz[]) with ordinality
            as asked (bucket, call_id, project_id, received_by, place)
        cross join lateral (
            select event_id, error
            from (
                select event_id, errors
                from events
                where bucket = asked.bucket and call_id = asked.call_id
                    and project_id = asked.project_id
                    and errors is not null and received_at <= asked.received_by
                order by effective_at, rank, fingerprint
                -- each tells one at least
                limit $5
            ) as telling
            -- expanded one after the other, in their order, until there are enough
            cross join lateral jsonb_array_elements(errors) as error
            limit $5
        ) as told
        "#,
        &of_bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
        &received_by,
        i64::from(limit),
    )
    .fetch_all(executor)
    .await?;
    for row in rows {
        let place = usize::try_from(row.place - 1).ok();
        if let Some(told) = place.and_then(|place| told.get_mut(place)) {
            told.push(ToldError { event_id: row.event_id, error: row.error.0 });
        }
    }
    Ok(told)
}

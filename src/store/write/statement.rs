//! The one statement that writes a batch, and its rows.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{
    Encode, PgConnection, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, types::Oid},
    types::Json,
};

use super::change::{Arrival, Change, Effect, Origin};
use crate::{
    call::{
        Attempt, Call, CallError, CallKey, CallSid, ClientId, Delivery, Direction, EventType,
        Status, TimeProblem,
    },
    store::{
        Error,
        calls::partition::ListPartition,
        codec::{as_int, by_status_id},
    },
};

/// The type `json` (`pg_type.dat`).
const JSON: Oid = Oid(114);

/// Writes the calls that are still in the version that they were decided on, and the
/// new events of those calls; notes which they are. It is rolled back if something was
/// erased since it was looked up what is erased.
#[expect(clippy::too_many_lines, reason = "one statement")]
pub(super) async fn write<'a>(
    conn: &mut PgConnection,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
    known_erasures: i64,
) -> Result<(), Error> {
    let Rows { new_calls, known_calls, events } = Rows::of(changes.values());
    let count = i64::try_from(new_calls.len() + known_calls.len()).unwrap_or(i64::MAX);
    let row = sqlx::query!(
        r#"
        with
        -- a call that another writer inserted first stays as it is
        inserted as (
            insert into calls (
                id, call_id, project_id, version, direction, status, list_partition, attempts,
                client_id, provider_status, has_errors, event_count, anomaly_count,
                microseconds_in_status, status_since, is_status_since_reported, first_event_at,
                last_event_at, last_event_rank, last_event_fingerprint, updated_at,
                last_delivered_at, statuses_seen, total_microseconds, attempt_counts, durations
            )
            select id, call_id, project_id, version, direction::call_direction, status,
                list_partition, attempts, client_id, provider_status, has_errors, event_count,
                anomaly_count, microseconds_in_status, status_since, is_status_since_reported,
                first_event_at, last_event_at, last_event_rank, last_event_fingerprint, updated_at,
                last_delivered_at, statuses_seen, total_microseconds, attempt_counts, durations
            from unnest($1::call_row[])
            on conflict (call_id, project_id) do nothing
            returning id
        ),
        -- compare and swap: a call that another writer changed stays as it is
        updated as (
            update calls set
                version = changed.version,
                direction = changed.direction::call_direction,
                status = changed.status,
                list_partition = changed.list_partition,
                attempts = changed.attempts,
                client_id = changed.client_id,
                provider_status = changed.provider_status,
                has_errors = changed.has_errors,
                event_count = changed.event_count,
                anomaly_count = changed.anomaly_count,
                microseconds_in_status = changed.microseconds_in_status,
                status_since = changed.status_since,
                is_status_since_reported = changed.is_status_since_reported,
                first_event_at = changed.first_event_at,
                last_event_at = changed.last_event_at,
                last_event_rank = changed.last_event_rank,
                last_event_fingerprint = changed.last_event_fingerprint,
                updated_at = changed.updated_at,
                last_delivered_at = changed.last_delivered_at,
                statuses_seen = changed.statuses_seen,
                total_microseconds = changed.total_microseconds,
                attempt_counts = changed.attempt_counts,
                durations = changed.durations
            from unnest($2::call_row[]) as changed
            where calls.id = changed.id and calls.version = changed.version - 1
            returning calls.id
        ),
        written as (select id from inserted union all select id from updated),
        -- an event is stored only together with its effect
        accepted as (
            select *
            from unnest($3::event_row[])
            -- not a join, which would be planned by an unknown number of rows
            where (call in (select id from written)) is true
        ),
        -- after the calls and before the events: a writer that holds this lock waits for no other
        feed_lock as (
            select erasures
            from feed
            where (select count(*) from accepted) > 0
            for no key update
        ),
        stored as (
            insert into events (
                call, position, fingerprint, event_type, unrecognized_type, occurred_at,
                time_problem, received_at, effective_at, disposition, reason, reason_status,
                reason_attempt, from_status, to_status, attempt, call_sid, repeats_call_sid,
                moves_call, changes_client, client_id, provider_status, errors, endpoint,
                delivery_count, last_delivered_at, payload, call_direction, call_status,
                call_attempt_count, call_has_errors, call_updated_at
            )
            select call, nextval('feed_positions'), fingerprint,
                event_type, unrecognized_type, occurred_at, time_problem, received_at,
                coalesce(occurred_at, received_at), disposition::event_disposition, reason,
                reason_status, reason_attempt, from_status, to_status, attempt, call_sid,
                repeats_call_sid, moves_call, changes_client, client_id, provider_status, errors,
                endpoint, delivery_count, last_delivered_at, payload, call_direction::call_direction,
                call_status, call_attempt_count, call_has_errors, call_updated_at
            from feed_lock
            cross join accepted
        )
        select count(*) as "written!",
            -- seldom, so that the result is one short row
            case when count(*) < $4 then array_agg(id) end as ids,
            -- once for a batch, and not for repetitions alone; sent with the commit
            case when count(*) > 0 and cardinality($3) > 0
                then (select pg_notify('callstate_stored', '')::text)
            end as notified,
            -- the lock gives the row as the last erasure left it
            (
                select case when erasures <> $5 then callstate_erasure_conflict() end
                from feed_lock
            ) as erasure_conflict
        from written
        "#,
        &new_calls as &[CallRow<'_>],
        &known_calls as &[CallRow<'_>],
        &events as &[EventRow<'_>],
        count,
        known_erasures,
    )
    .fetch_one(conn)
    .await?;
    let are_all_written = row.written == count;
    let written: HashSet<i64> = row.ids.into_iter().flatten().collect();
    for change in changes.values_mut() {
        change.is_written =
            change.call.is_some() && (are_all_written || written.contains(&change.id));
    }
    Ok(())
}

/// The rows of a batch, in the order of the calls' keys, so that writers lock calls
/// in one order.
struct Rows<'c> {
    new_calls: Vec<CallRow<'c>>,
    known_calls: Vec<CallRow<'c>>,
    events: Vec<EventRow<'c>>,
}

impl<'c> Rows<'c> {
    fn of<'a: 'c>(changes: impl Iterator<Item = &'c Change<'a>>) -> Self {
        let mut rows = Self { new_calls: Vec::new(), known_calls: Vec::new(), events: Vec::new() };
        for change in changes {
            let (Some(call), Some(last_delivered_at)) = (&change.call, change.last_delivered_at)
            else {
                continue;
            };
            let version = change.origin.next_version();
            let row = CallRow::of(change.id, change.key, version, call, last_delivered_at);
            match change.origin {
                Origin::Unknown | Origin::Absent => rows.new_calls.push(row),
                Origin::Stored(_) => rows.known_calls.push(row),
            }
            let events = change.new_events();
            rows.events.extend(events.map(|(it, effect)| EventRow::of(change.id, it, effect)));
        }
        // In the order of their numbers, which is that in which every writer locks them.
        rows.known_calls.sort_unstable_by_key(|row| row.id);
        rows
    }
}

/// A row of the Postgres type `call_row`, field by field.
#[derive(Encode)]
pub(in crate::store) struct CallRow<'a> {
    id: i64,
    call_id: &'a str,
    project_id: &'a str,
    version: i32,
    direction: Option<&'static str>,
    status: i16,
    list_partition: i16,
    attempts: Json<&'a [Attempt]>,
    client_id: Option<&'a str>,
    provider_status: Option<&'a str>,
    has_errors: bool,
    event_count: i32,
    anomaly_count: i32,
    microseconds_in_status: Vec<Option<i64>>,
    status_since: Option<DateTime<Utc>>,
    is_status_since_reported: bool,
    first_event_at: DateTime<Utc>,
    last_event_at: DateTime<Utc>,
    last_event_rank: i16,
    last_event_fingerprint: &'a [u8],
    updated_at: DateTime<Utc>,
    last_delivered_at: DateTime<Utc>,
    statuses_seen: Option<i64>,
    total_microseconds: Option<i64>,
    attempt_counts: Option<Vec<i32>>,
    durations: Option<Vec<Option<i64>>>,
}

impl<'a> CallRow<'a> {
    pub(in crate::store) fn of(
        id: i64,
        key: &'a CallKey,
        version: i32,
        call: &'a Call,
        last_delivered_at: DateTime<Utc>,
    ) -> Self {
        let times = call.microseconds_in_status.iter();
        let times = by_status_id(times.map(|(status, time)| (*status, Some(*time))), &None);
        // What reports count is null until the call has ended.
        let total = call.ended_at().map(|ended_at| ended_at - call.first_event_at);
        let mut attempt_counts: BTreeMap<Status, i32> = BTreeMap::new();
        for attempt in &call.attempts {
            *attempt_counts.entry(attempt.status).or_default() += 1;
        }
        let seen = call.attempts.iter().flat_map(|attempt| &attempt.statuses);
        let statuses_seen = seen.fold(0, |mask, status| mask | 1 << status.id());
        Self {
            id,
            call_id: key.call_id.as_str(),
            project_id: key.project_id.as_str(),
            version,
            direction: call.direction.map(Direction::as_str),
            status: call.status.id(),
            list_partition: ListPartition::of(call).number(),
            attempts: Json(&call.attempts),
            client_id: call.client_id.as_ref().map(ClientId::as_str),
            provider_status: call.provider_status.as_deref(),
            has_errors: call.has_errors,
            event_count: as_int(call.event_count),
            anomaly_count: as_int(call.anomaly_count),
            durations: total.map(|_| times.clone()),
            microseconds_in_status: times,
            status_since: call.status_since,
            is_status_since_reported: call.is_status_since_reported,
            first_event_at: call.first_event_at,
            last_event_at: call.last.effective_at,
            last_event_rank: call.last.rank.get(),
            last_event_fingerprint: &call.last.fingerprint.0,
            updated_at: call.updated_at,
            last_delivered_at,
            statuses_seen: total.map(|_| statuses_seen),
            total_microseconds: total.map(|it| it.num_microseconds().unwrap_or(i64::MAX)),
            attempt_counts: total.map(|_| by_status_id(attempt_counts, &0)),
        }
    }
}

/// A row of the Postgres type `event_row`, field by field.
#[derive(Encode)]
#[expect(clippy::struct_excessive_bools, reason = "they are the columns of a row")]
struct EventRow<'a> {
    call: i64,
    fingerprint: &'a [u8],
    event_type: i16,
    unrecognized_type: Option<&'a str>,
    occurred_at: Option<DateTime<Utc>>,
    time_problem: Option<i16>,
    received_at: DateTime<Utc>,
    disposition: &'static str,
    reason: i16,
    reason_status: Option<i16>,
    reason_attempt: Option<i32>,
    from_status: Option<i16>,
    to_status: Option<i16>,
    attempt: Option<i32>,
    call_sid: Option<&'a str>,
    repeats_call_sid: bool,
    moves_call: bool,
    changes_client: bool,
    client_id: Option<&'a str>,
    provider_status: Option<&'a str>,
    errors: Option<Json<&'a [CallError]>>,
    endpoint: &'a str,
    delivery_count: i32,
    last_delivered_at: DateTime<Utc>,
    payload: AsReceived<'a>,
    call_direction: Option<&'static str>,
    call_status: i16,
    call_attempt_count: i32,
    call_has_errors: bool,
    call_updated_at: Option<DateTime<Utc>>,
}

/// The error that an ERROR without a list of errors counts as.
static UNSPECIFIED_ERROR: [CallError; 1] =
    [CallError { code: None, message: None, phase: None, location: None, timestamp: None }];

/// The errors of a delivery as they are stored.
pub(super) fn stored_errors(delivery: &Delivery) -> Option<&[CallError]> {
    match delivery.errors.as_slice() {
        [] if delivery.event.status() == Status::Error => Some(&UNSPECIFIED_ERROR),
        [] => None,
        errors => Some(errors),
    }
}

impl<'a> EventRow<'a> {
    fn of(call: i64, arrival: &Arrival<'a>, effect: &Effect) -> Self {
        let delivery = arrival.delivery;
        let event = &delivery.event;
        let outcome = effect.outcome;
        Self {
            call,
            fingerprint: &event.fingerprint.0,
            event_type: event.event_type.id(),
            unrecognized_type: unrecognized_name(&event.event_type),
            occurred_at: event.occurred_at,
            time_problem: delivery.time_problem.map(TimeProblem::id),
            received_at: event.received_at,
            disposition: outcome.disposition.as_str(),
            reason: outcome.reason.code.id(),
            reason_status: outcome.reason.status.map(Status::id),
            reason_attempt: outcome.reason.attempt.map(as_int),
            from_status: outcome.from_status.map(Status::id),
            to_status: outcome.to_status.map(Status::id),
            attempt: outcome.attempt.map(as_int),
            call_sid: event.call_sid.as_ref().map(CallSid::as_str),
            repeats_call_sid: effect.repeats_call_sid,
            moves_call: effect.moves_call,
            changes_client: effect.changes_client,
            client_id: event.client_id.as_ref().map(ClientId::as_str),
            provider_status: event.provider_status.as_deref(),
            errors: stored_errors(delivery).map(Json),
            endpoint: &delivery.endpoint,
            delivery_count: arrival.deliveries.max(arrival.in_all),
            last_delivered_at: arrival.last_delivered_at,
            payload: AsReceived(&delivery.payload),
            call_direction: effect.direction.map(Direction::as_str),
            call_status: effect.status.id(),
            call_attempt_count: i32::try_from(effect.attempt_count).unwrap_or(i32::MAX),
            call_has_errors: effect.has_errors,
            call_updated_at: Some(effect.updated_at).filter(|at| *at != event.received_at),
        }
    }
}

/// JSON, byte for byte.
struct AsReceived<'a>(&'a str);

impl Type<Postgres> for AsReceived<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(JSON)
    }
}

impl<'q> Encode<'q, Postgres> for AsReceived<'_> {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <&str as Encode<'q, Postgres>>::encode_by_ref(&self.0, buf)
    }
}

/// The name of an event type, where it is unrecognized.
pub(super) fn unrecognized_name(event_type: &EventType) -> Option<&str> {
    match event_type {
        EventType::Known(_) => None,
        EventType::Unrecognized(name) => Some(name),
    }
}

/// Names the Postgres type of a row.
macro_rules! composite {
    ($row:ident, $name:literal) => {
        impl sqlx::Type<sqlx::Postgres> for $row<'_> {
            fn type_info() -> sqlx::postgres::PgTypeInfo {
                sqlx::postgres::PgTypeInfo::with_name($name)
            }
        }

        impl sqlx::postgres::PgHasArrayType for $row<'_> {
            fn array_type_info() -> sqlx::postgres::PgTypeInfo {
                sqlx::postgres::PgTypeInfo::array_of($name)
            }
        }
    };
}
pub(super) use composite;

composite!(CallRow, "call_row");
composite!(EventRow, "event_row");

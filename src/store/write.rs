//! The one statement that writes a batch, and the rows that it takes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, types::Oid},
    types::Json,
};
use uuid::Uuid;

use super::{
    Error,
    change::{Apart, Arrival, Change, Standing},
    closed::Closed,
    codec::key,
    connection::Line,
    epoch::Epoch,
    events::as_int,
};
use crate::call::{
    Attempt, Call, CallError, CallKey, CallSid, ClientId, Direction, Outcome, Status,
};

/// The type `json` (`pg_type.dat`).
const JSON: Oid = Oid(114);

/// Writes the calls that are still in the version that was looked at, and the
/// new events of those calls; notes which they are. The statement is put together
/// before the connection is waited for.
pub(super) async fn write<'a>(
    line: &mut impl Line,
    epoch: Epoch,
    bucket: i32,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    let (calls, events) = rows(changes.values());
    let count = i64::try_from(calls.len()).unwrap_or(i64::MAX);
    // The calls come in key order and are taken in that order, so that writers
    // never wait for each other in a circle.
    let statement = sqlx::query!(
        r#"
        with
        -- compare and swap: a call that another writer changed since it was looked at stays as it is
        written as (
            insert into calls as stored (
                bucket, call_id, project_id, version, direction, status, attempts_before,
                attempts, client_id, provider_status, has_errors, event_count, anomaly_count, microseconds_in_status,
                status_since, first_event_at, last_event_at, last_event_rank,
                last_event_fingerprint, ended_at, updated_at, last_delivered_at, closed_shape,
                closed_stays
            )
            select $1, call_id, project_id, version, direction::call_direction,
                status::call_status, attempts_before, attempts, client_id, provider_status, has_errors,
                event_count, anomaly_count, microseconds_in_status, status_since,
                first_event_at, last_event_at, last_event_rank, last_event_fingerprint, ended_at,
                updated_at, last_delivered_at, closed_shape, closed_stays
            from unnest($2::call_to_store[])
            -- an update would join, and a plan made while the table was empty would scan it for ever
            on conflict (bucket, call_id, project_id) do update set
                version = excluded.version,
                direction = excluded.direction,
                status = excluded.status,
                -- what stays as it is is not written again, however long
                attempts_before = case
                    when excluded.attempts_before is null then stored.attempts_before
                    else nullif(excluded.attempts_before, '[]')
                end,
                attempts = excluded.attempts,
                client_id = excluded.client_id,
                provider_status = excluded.provider_status,
                has_errors = excluded.has_errors,
                event_count = excluded.event_count,
                anomaly_count = excluded.anomaly_count,
                microseconds_in_status = excluded.microseconds_in_status,
                status_since = excluded.status_since,
                first_event_at = excluded.first_event_at,
                last_event_at = excluded.last_event_at,
                last_event_rank = excluded.last_event_rank,
                last_event_fingerprint = excluded.last_event_fingerprint,
                ended_at = excluded.ended_at,
                updated_at = excluded.updated_at,
                last_delivered_at = excluded.last_delivered_at,
                closed_shape = excluded.closed_shape,
                closed_stays = excluded.closed_stays,
                moved_in = case
                    when excluded.first_event_at < stored.first_event_at
                        then (select pg_current_xact_id()::text::bigint + $4)
                    else stored.moved_in
                end
            where stored.version = excluded.version - 1
            returning stored.call_id, stored.project_id
        ),
        -- an event goes in only with what it did
        recorded as (
            insert into events (
                bucket, call_id, project_id, fingerprint, event_id, event_type, rank,
                occurred_at, received_at, effective_at, disposition, reason, from_status,
                to_status, attempt, call_sid, repeats_dial, client_id, provider_status, errors,
                endpoint, delivery_count, last_delivered_at, payload, transaction, place,
                call_direction, call_status, call_attempt_count, call_has_errors, call_updated_at
            )
            select $1, call_id, project_id, fingerprint, event_id, event_type, rank, occurred_at,
                received_at, coalesce(occurred_at, received_at),
                disposition::event_disposition, reason, from_status::call_status,
                to_status::call_status, attempt, call_sid, repeats_dial, client_id,
                provider_status, errors, endpoint, delivery_count, last_delivered_at, payload,
                (select pg_current_xact_id()::text::bigint + $4), place,
                call_direction::call_direction, call_status::call_status, call_attempt_count,
                call_has_errors, call_updated_at
            from unnest($3::new_event[])
            -- not a join, which would be planned by the size of a batch that is not known
            where ((call_id, project_id) in (select call_id, project_id from written)) is true
        )
        select count(*) as "written!",
            -- seldom, so that the answer to a batch is one short row
            case when count(*) < $5 then array_agg(call_id) end as "call_ids: Vec<String>",
            case when count(*) < $5 then array_agg(project_id) end as "project_ids: Vec<String>",
            -- once, and not for repetitions alone; heard when it is committed
            case when count(*) > 0 and cardinality($3) > 0
                then (select pg_notify('callstate_stored', '')::text)
            end as notified
        from written
        "#,
        bucket,
        &calls as &[CallToStore<'_>],
        &events as &[EventToWrite<'_>],
        epoch.transaction_offset,
        count,
    );
    let row = statement.fetch_one(line.connection().await?).await?;
    let some = row.project_ids.into_iter().flatten().zip(row.call_ids.into_iter().flatten());
    note_written(changes, row.written == count, some)
}

/// Notes which calls were written: all that there are, or some, by project and id.
fn note_written<'a>(
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
    are_all: bool,
    some: impl Iterator<Item = (String, String)>,
) -> Result<(), Error> {
    for change in changes.values_mut() {
        change.is_written = are_all && change.call.is_some();
    }
    for (project_id, call_id) in some {
        if let Some(change) = changes.get_mut(&key("calls", project_id, call_id)?) {
            change.is_written = true;
        }
    }
    Ok(())
}

/// The calls as they are to be, in the order of their keys, and their new events.
fn rows<'c, 'a: 'c>(
    changes: impl Iterator<Item = &'c Change<'a>>,
) -> (Vec<CallToStore<'c>>, Vec<EventToWrite<'c>>) {
    let (mut calls, mut events) = (Vec::new(), Vec::new());
    let mut places = 0..;
    for change in changes {
        let (Some(call), Some(last_delivered_at)) = (&change.call, change.last_delivered_at) else {
            continue;
        };
        let (version, apart) = (change.version + 1, change.apart(call));
        calls.push(CallToStore::of(change.key, version, call, apart, last_delivered_at));
        let told = change.told().zip(&mut places);
        events.extend(told.map(|(told, place)| EventToWrite::of(told, place)));
    }
    (calls, events)
}

/// A row of the Postgres type `call_to_store`, field by field.
#[derive(Encode)]
struct CallToStore<'a> {
    call_id: &'a str,
    project_id: &'a str,
    version: i64,
    direction: Option<&'static str>,
    status: &'static str,
    attempts_before: Option<Json<&'a [Attempt]>>,
    attempts: Json<&'a [Attempt]>,
    client_id: Option<&'a str>,
    provider_status: Option<&'a str>,
    has_errors: bool,
    event_count: i32,
    anomaly_count: i32,
    microseconds_in_status: Json<&'a BTreeMap<Status, i64>>,
    status_since: Option<DateTime<Utc>>,
    first_event_at: DateTime<Utc>,
    last_event_at: DateTime<Utc>,
    last_event_rank: i16,
    last_event_fingerprint: &'a [u8],
    ended_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
    last_delivered_at: DateTime<Utc>,
    closed_shape: Option<String>,
    closed_stays: Option<Vec<i64>>,
}

impl<'a> CallToStore<'a> {
    fn of(
        key: &'a CallKey,
        version: i64,
        call: &'a Call,
        apart: Apart,
        last_delivered_at: DateTime<Utc>,
    ) -> Self {
        let (before, attempts) = call.attempts.split_at(apart.attempts);
        let (closed_shape, closed_stays) =
            Closed::of(call).map(|Closed { shape, stays }| (shape, stays)).unzip();
        Self {
            call_id: key.call_id.as_str(),
            project_id: key.project_id.as_str(),
            version,
            direction: call.direction.map(Direction::as_str),
            status: call.status.as_str(),
            attempts_before: apart.is_changed.then_some(Json(before)),
            attempts: Json(attempts),
            client_id: call.client_id.as_ref().map(ClientId::as_str),
            provider_status: call.provider_status.as_deref(),
            has_errors: call.has_errors,
            event_count: as_int(call.event_count),
            anomaly_count: as_int(call.anomaly_count),
            microseconds_in_status: Json(&call.microseconds_in_status),
            status_since: call.status_since,
            first_event_at: call.first_event_at,
            last_event_at: call.last.effective_at,
            last_event_rank: call.last.rank.get(),
            last_event_fingerprint: &call.last.fingerprint.0,
            ended_at: call.ended_at,
            updated_at: call.updated_at,
            last_delivered_at,
            closed_shape,
            closed_stays,
        }
    }
}

/// A row of the Postgres type `new_event`, field by field.
#[derive(Encode)]
struct EventToWrite<'a> {
    call_id: &'a str,
    project_id: &'a str,
    fingerprint: &'a [u8],
    event_id: Uuid,
    event_type: &'a str,
    rank: i16,
    occurred_at: Option<DateTime<Utc>>,
    received_at: DateTime<Utc>,
    disposition: &'static str,
    reason: &'a str,
    from_status: Option<&'static str>,
    to_status: Option<&'static str>,
    attempt: Option<i32>,
    call_sid: Option<&'a str>,
    repeats_dial: bool,
    client_id: Option<&'a str>,
    provider_status: Option<&'a str>,
    errors: Option<Json<&'a [CallError]>>,
    endpoint: &'a str,
    delivery_count: i32,
    last_delivered_at: DateTime<Utc>,
    payload: AsReceived<'a>,
    place: i32,
    call_direction: Option<&'static str>,
    call_status: &'static str,
    call_attempt_count: i32,
    call_has_errors: bool,
    call_updated_at: Option<DateTime<Utc>>,
}

impl<'a> EventToWrite<'a> {
    fn of(told: (&Arrival<'a>, &'a Outcome, &Standing), place: i32) -> Self {
        let (arrival, outcome, call) = told;
        let delivery = arrival.delivery;
        let event = &delivery.event;
        Self {
            call_id: delivery.key.call_id.as_str(),
            project_id: delivery.key.project_id.as_str(),
            fingerprint: &event.fingerprint.0,
            event_id: delivery.event_id,
            event_type: event.event_type.as_str(),
            rank: event.status().rank().get(),
            occurred_at: event.occurred_at,
            received_at: event.received_at,
            disposition: outcome.disposition.as_str(),
            reason: &outcome.reason,
            from_status: outcome.from_status.map(Status::as_str),
            to_status: outcome.to_status.map(Status::as_str),
            attempt: outcome.attempt.map(as_int),
            call_sid: event.call_sid.as_ref().map(CallSid::as_str),
            repeats_dial: call.repeats_dial,
            client_id: event.client_id.as_ref().map(ClientId::as_str),
            provider_status: event.provider_status.as_deref(),
            errors: event.has_errors.then_some(Json(&delivery.errors)),
            endpoint: &delivery.endpoint,
            delivery_count: arrival.deliveries.max(arrival.in_all),
            last_delivered_at: arrival.last_delivered_at,
            payload: AsReceived(&delivery.payload),
            place,
            call_direction: call.direction.map(Direction::as_str),
            call_status: call.status.as_str(),
            call_attempt_count: i32::try_from(call.attempt_count).unwrap_or(i32::MAX),
            call_has_errors: call.has_errors,
            call_updated_at: Some(call.updated_at).filter(|at| *at != event.received_at),
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

/// Names the Postgres type of a row.
macro_rules! composite {
    ($row:ident, $name:literal) => {
        impl Type<Postgres> for $row<'_> {
            fn type_info() -> PgTypeInfo {
                PgTypeInfo::with_name($name)
            }
        }

        impl PgHasArrayType for $row<'_> {
            fn array_type_info() -> PgTypeInfo {
                PgTypeInfo::array_of($name)
            }
        }
    };
}

composite!(CallToStore, "call_to_store");
composite!(EventToWrite, "new_event");

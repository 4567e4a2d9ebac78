//! The one statement that writes a batch, and the columns that it takes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Error,
    change::{Arrival, Change},
    codec::key,
    events::as_int,
};
use crate::call::{Call, CallKey, Direction, Outcome, Status};

/// Writes the calls that are still in the version that was read, and the new
/// events of those calls; notes which they are.
#[expect(clippy::too_many_lines, reason = "one statement with a column for each of the tables'")]
pub(super) async fn write<'a>(
    conn: &mut PgConnection,
    bucket: i32,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    let mut calls = CallColumns::default();
    let mut events = EventColumns::default();
    for change in changes.values() {
        let (Some(call), Some(last_delivered_at)) = (&change.call, change.last_delivered_at) else {
            continue;
        };
        calls.push(change.key, change.version + 1, call, last_delivered_at);
        for (arrival, outcome) in change.new.iter().zip(&change.outcomes) {
            events.push(arrival, outcome);
        }
    }
    let written = sqlx::query!(
        r#"
        with
        -- compare and swap: a call that another writer changed since it was read stays as it is
        written as (
            insert into calls as stored (
                bucket, call_id, project_id, version, direction, status, attempts, client_id,
                provider_status, has_errors, event_count, anomaly_count, microseconds_in_status,
                status_since, first_event_at, last_event_at, last_event_rank,
                last_event_fingerprint, ended_at, updated_at, last_delivered_at
            )
            select $1, call_id, project_id, version, direction::call_direction,
                status::call_status, attempts::jsonb, client_id, provider_status, has_errors,
                event_count, anomaly_count, microseconds_in_status::jsonb, status_since,
                first_event_at, last_event_at, last_event_rank, last_event_fingerprint, ended_at,
                updated_at, last_delivered_at
            from unnest(
                $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::boolean[], $11::int[], $12::int[], $13::text[],
                $14::timestamptz[], $15::timestamptz[], $16::timestamptz[], $17::smallint[],
                $18::bytea[], $19::timestamptz[], $20::timestamptz[], $21::timestamptz[]
            ) as folded (
                call_id, project_id, version, direction, status, attempts, client_id,
                provider_status, has_errors, event_count, anomaly_count, microseconds_in_status,
                status_since, first_event_at, last_event_at, last_event_rank,
                last_event_fingerprint, ended_at, updated_at, last_delivered_at
            )
            -- key order, so that writers never wait for each other in a circle
            order by call_id collate "C", project_id collate "C"
            on conflict (bucket, call_id, project_id) do update set
                version = excluded.version,
                direction = excluded.direction,
                status = excluded.status,
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
                last_delivered_at = excluded.last_delivered_at
            where stored.version = excluded.version - 1
            returning stored.call_id, stored.project_id
        ),
        -- an event goes in only with what it did
        recorded as (
            insert into events (
                bucket, call_id, project_id, fingerprint, event_id, event_type, rank,
                occurred_at, received_at, effective_at, disposition, reason, from_status,
                to_status, attempt, call_sid, client_id, provider_status, errors, endpoint,
                delivery_count, last_delivered_at, payload
            )
            select $1, call_id, project_id, fingerprint, event_id, event_type, rank, occurred_at,
                received_at, effective_at, disposition::event_disposition, reason,
                from_status::call_status, to_status::call_status, attempt, call_sid, client_id,
                provider_status, errors::jsonb, endpoint, delivery_count, last_delivered_at,
                payload::json
            from unnest(
                $22::text[], $23::text[], $24::bytea[], $25::uuid[], $26::text[], $27::smallint[],
                $28::timestamptz[], $29::timestamptz[], $30::timestamptz[], $31::text[],
                $32::text[], $33::text[], $34::text[], $35::int[], $36::text[], $37::text[],
                $38::text[], $39::text[], $40::text[], $41::int[], $42::timestamptz[], $43::text[]
            ) as arrived (
                call_id, project_id, fingerprint, event_id, event_type, rank, occurred_at,
                received_at, effective_at, disposition, reason, from_status, to_status, attempt,
                call_sid, client_id, provider_status, errors, endpoint, delivery_count,
                last_delivered_at, payload
            )
            -- not a join, which would be planned by the size of a batch that is not known
            where ((call_id, project_id) in (select call_id, project_id from written)) is true
        )
        select project_id, call_id from written
        "#,
        bucket,
        &calls.call_id as &[&str],
        &calls.project_id as &[&str],
        &calls.version,
        &calls.direction as &[Option<&str>],
        &calls.status as &[&str],
        &calls.attempts,
        &calls.client_id as &[Option<&str>],
        &calls.provider_status as &[Option<&str>],
        &calls.has_errors,
        &calls.event_count,
        &calls.anomaly_count,
        &calls.microseconds_in_status,
        &calls.status_since as &[Option<DateTime<Utc>>],
        &calls.first_event_at,
        &calls.last_event_at,
        &calls.last_event_rank,
        &calls.last_event_fingerprint as &[&[u8]],
        &calls.ended_at as &[Option<DateTime<Utc>>],
        &calls.updated_at,
        &calls.last_delivered_at,
        &events.call_id as &[&str],
        &events.project_id as &[&str],
        &events.fingerprint as &[&[u8]],
        &events.event_id,
        &events.event_type as &[&str],
        &events.rank,
        &events.occurred_at as &[Option<DateTime<Utc>>],
        &events.received_at,
        &events.effective_at,
        &events.disposition as &[&str],
        &events.reason as &[&str],
        &events.from_status as &[Option<&str>],
        &events.to_status as &[Option<&str>],
        &events.attempt as &[Option<i32>],
        &events.call_sid as &[Option<&str>],
        &events.client_id as &[Option<&str>],
        &events.provider_status as &[Option<&str>],
        &events.errors as &[Option<String>],
        &events.endpoint as &[&str],
        &events.delivery_count,
        &events.last_delivered_at,
        &events.payload as &[&str],
    )
    .fetch_all(conn)
    .await?;
    for row in written {
        let key = key("calls", row.project_id, row.call_id)?;
        if let Some(change) = changes.get_mut(&key) {
            change.is_written = true;
        }
    }
    Ok(())
}

/// The calls of a batch, column by column.
#[derive(Default)]
struct CallColumns<'a> {
    call_id: Vec<&'a str>,
    project_id: Vec<&'a str>,
    version: Vec<i64>,
    direction: Vec<Option<&'static str>>,
    status: Vec<&'static str>,
    attempts: Vec<String>,
    client_id: Vec<Option<&'a str>>,
    provider_status: Vec<Option<&'a str>>,
    has_errors: Vec<bool>,
    event_count: Vec<i32>,
    anomaly_count: Vec<i32>,
    microseconds_in_status: Vec<String>,
    status_since: Vec<Option<DateTime<Utc>>>,
    first_event_at: Vec<DateTime<Utc>>,
    last_event_at: Vec<DateTime<Utc>>,
    last_event_rank: Vec<i16>,
    last_event_fingerprint: Vec<&'a [u8]>,
    ended_at: Vec<Option<DateTime<Utc>>>,
    updated_at: Vec<DateTime<Utc>>,
    last_delivered_at: Vec<DateTime<Utc>>,
}

impl<'a> CallColumns<'a> {
    fn push(
        &mut self,
        key: &'a CallKey,
        version: i64,
        call: &'a Call,
        delivered_at: DateTime<Utc>,
    ) {
        self.call_id.push(key.call_id.as_str());
        self.project_id.push(key.project_id.as_str());
        self.version.push(version);
        self.direction.push(call.direction.map(Direction::as_str));
        self.status.push(call.status.as_str());
        self.attempts.push(json(&call.attempts));
        self.client_id.push(call.client_id.as_ref().map(super::super::call::id::ClientId::as_str));
        self.provider_status.push(call.provider_status.as_deref());
        self.has_errors.push(call.has_errors);
        self.event_count.push(as_int(call.event_count));
        self.anomaly_count.push(as_int(call.anomaly_count));
        self.microseconds_in_status.push(json(&call.microseconds_in_status));
        self.status_since.push(call.status_since);
        self.first_event_at.push(call.first_event_at);
        self.last_event_at.push(call.last.effective_at);
        self.last_event_rank.push(call.last.rank.get());
        self.last_event_fingerprint.push(&call.last.fingerprint.0);
        self.ended_at.push(call.ended_at);
        self.updated_at.push(call.updated_at);
        self.last_delivered_at.push(delivered_at);
    }
}

/// The new events of a batch, column by column.
#[derive(Default)]
struct EventColumns<'a> {
    call_id: Vec<&'a str>,
    project_id: Vec<&'a str>,
    fingerprint: Vec<&'a [u8]>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'a str>,
    rank: Vec<i16>,
    occurred_at: Vec<Option<DateTime<Utc>>>,
    received_at: Vec<DateTime<Utc>>,
    effective_at: Vec<DateTime<Utc>>,
    disposition: Vec<&'static str>,
    reason: Vec<&'a str>,
    from_status: Vec<Option<&'static str>>,
    to_status: Vec<Option<&'static str>>,
    attempt: Vec<Option<i32>>,
    call_sid: Vec<Option<&'a str>>,
    client_id: Vec<Option<&'a str>>,
    provider_status: Vec<Option<&'a str>>,
    errors: Vec<Option<String>>,
    endpoint: Vec<&'a str>,
    delivery_count: Vec<i32>,
    last_delivered_at: Vec<DateTime<Utc>>,
    payload: Vec<&'a str>,
}

impl<'a> EventColumns<'a> {
    fn push(&mut self, arrival: &Arrival<'a>, outcome: &'a Outcome) {
        let delivery = arrival.delivery;
        let event = &delivery.event;
        self.call_id.push(delivery.key.call_id.as_str());
        self.project_id.push(delivery.key.project_id.as_str());
        self.fingerprint.push(&event.fingerprint.0);
        self.event_id.push(delivery.event_id);
        self.event_type.push(event.event_type.as_str());
        self.rank.push(event.status().rank().get());
        self.occurred_at.push(event.occurred_at);
        self.received_at.push(event.received_at);
        self.effective_at.push(event.effective_at());
        self.disposition.push(outcome.disposition.as_str());
        self.reason.push(&outcome.reason);
        self.from_status.push(outcome.from_status.map(Status::as_str));
        self.to_status.push(outcome.to_status.map(Status::as_str));
        self.attempt.push(outcome.attempt.map(as_int));
        self.call_sid.push(event.call_sid.as_ref().map(super::super::call::id::CallSid::as_str));
        self.client_id.push(event.client_id.as_ref().map(super::super::call::id::ClientId::as_str));
        self.provider_status.push(event.provider_status.as_deref());
        self.errors.push(event.has_errors.then(|| json(&delivery.errors)));
        self.endpoint.push(&delivery.endpoint);
        self.delivery_count.push(arrival.deliveries);
        self.last_delivered_at.push(arrival.last_delivered_at);
        self.payload.push(&delivery.payload);
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("domain types have string keys and finite numbers")
}

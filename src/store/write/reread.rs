//! Reading stored payloads again, for `rebuild --from-payloads`.
//!
//! The columns of an event that were read from its payload are corrected in place, and
//! its call is folded again. The fingerprint, the position, the receipts and the payload
//! of an event stay. Payloads never change, so they are read without a lock; only calls
//! that have an event to correct are locked.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection, types::Json};

use super::{
    refold::{MAX_TRIES, lock_calls, refold_locked},
    statement::{stored_errors, unrecognized_name},
};
use crate::{
    call::{CallError, CallKey, CallSid, ClientId, Delivery, Event, Fingerprint, TimeProblem},
    store::{
        Error,
        calls::row::CallName,
        codec::fingerprint,
        error::Class,
        events::{
            history::HistoryEvent,
            row::{EventRow, StoredEvent, select_events},
        },
    },
};

/// The most events of a page.
const MAX_EVENTS: i64 = 1000;

/// The most bytes of payloads on a page, unless its first event has more.
const MAX_PAYLOAD_BYTES: i64 = 8 << 20;

/// A stored payload and the circumstances of its first delivery.
#[derive(Debug, Clone, Copy)]
pub struct StoredPayload<'a> {
    /// The call of the event.
    pub key: &'a CallKey,
    /// The endpoint that received it.
    pub endpoint: &'a str,
    /// When it was received.
    pub received_at: DateTime<Utc>,
    /// The body.
    pub body: &'a str,
}

/// The primary key of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventKey {
    call: i64,
    /// As it is stored; it may be invalid.
    fingerprint: Vec<u8>,
}

/// An event that was left as it is.
#[derive(Debug)]
pub struct LeftEvent {
    /// The call; `None` where its row is missing or invalid.
    pub call: Option<CallKey>,
    /// The event; `None` where its fingerprint is invalid.
    pub event: Option<Fingerprint>,
    /// Why, in one clause.
    pub problem: String,
}

/// The result of reading a page of payloads again.
#[derive(Debug, Default)]
pub struct RereadPage {
    /// The number of events that were read.
    pub events: usize,
    /// The number of events that were corrected.
    pub corrected: usize,
    /// The events that were left as they are.
    pub left: Vec<LeftEvent>,
    /// The last event of the page; `None` where there are no more.
    pub last: Option<EventKey>,
}

/// Reads the payloads of a page of events again, those after `after`, and commits what
/// differs from the stored columns.
///
/// # Errors
///
/// Fails if a query fails, or an event of a call to be folded again is invalid.
pub async fn reread(
    conn: &mut PgConnection,
    after: Option<&EventKey>,
    read: impl Fn(StoredPayload<'_>) -> Result<Delivery, String>,
) -> Result<RereadPage, Error> {
    let mut page = RereadPage::default();
    let mut corrections: BTreeMap<i64, (CallKey, Vec<Delivery>)> = BTreeMap::new();
    for row in next_events(conn, after).await? {
        page.events += 1;
        let (call, event) = (row.call, fingerprint(&row.fingerprint).ok());
        page.last = Some(EventKey { call, fingerprint: row.fingerprint.clone() });
        let key = row.key();
        let name = key.as_ref().ok().cloned();
        match key.map_err(|error| error.to_string()).and_then(|key| correction(row, &key, &read)) {
            Ok(None) => {}
            Ok(Some(delivery)) => {
                page.corrected += 1;
                let key = delivery.key.clone();
                corrections.entry(call).or_insert_with(|| (key, Vec::new())).1.push(delivery);
            }
            Err(problem) => page.left.push(LeftEvent { call: name, event, problem }),
        }
    }
    if !corrections.is_empty() {
        correct(conn, &corrections).await?;
    }
    Ok(page)
}

/// The delivery that the payload of an event gives, if the event is to be corrected; or
/// why it is left as it is.
fn correction(
    row: EventRow,
    key: &CallKey,
    read: &impl Fn(StoredPayload<'_>) -> Result<Delivery, String>,
) -> Result<Option<Delivery>, String> {
    let HistoryEvent { stored, endpoint, time_problem, errors, payload, .. } =
        row.history(key.clone()).map_err(|error| error.to_string())?;
    let StoredEvent { event, .. } = stored;
    let payload = payload.and_then(|payload| payload.body).ok_or("its payload was removed")?;
    let circumstances = StoredPayload {
        key,
        endpoint: &endpoint,
        received_at: event.received_at,
        body: payload.get(),
    };
    let mut delivery = read(circumstances)?;
    if delivery.key != *key {
        return Err(format!("its payload names the call {}", delivery.key));
    }
    let errors_are_as_stored = stored_errors(&delivery).unwrap_or_default() == errors;
    // Whatever the payload gives, it stays the same event; its errors are compared as a list.
    let Event { fingerprint, has_errors, .. } = event;
    delivery.event = Event { fingerprint, has_errors, ..delivery.event };
    let is_as_stored =
        errors_are_as_stored && delivery.event == event && delivery.time_problem == time_problem;
    Ok((!is_as_stored).then_some(delivery))
}

/// The events after one, in the order of the primary key.
async fn next_events(
    conn: &mut PgConnection,
    after: Option<&EventKey>,
) -> Result<Vec<EventRow>, Error> {
    let rows = select_events!(
        names "calls.call_id, calls.project_id",
        payloads up to "$3",
        "
        from events
        left join calls on calls.id = events.call
        where (events.call, events.fingerprint) > ($1, $2)
        window page as (order by events.call, events.fingerprint rows unbounded preceding)
        order by events.call, events.fingerprint
        limit $4
        ",
        after.map_or(i64::MIN, |event| event.call),
        after.map_or(&[][..], |event| &event.fingerprint),
        MAX_PAYLOAD_BYTES,
        MAX_EVENTS,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().take_while(|row| row.is_within_limit).collect())
}

/// Corrects events and folds their calls again.
async fn correct(
    conn: &mut PgConnection,
    corrections: &BTreeMap<i64, (CallKey, Vec<Delivery>)>,
) -> Result<(), Error> {
    for _ in 0..MAX_TRIES {
        match try_correct(conn, corrections).await {
            Err(error) if error.class() == Class::RolledBack => {}
            result => return result,
        }
    }
    Err(Error::Contended { rounds: MAX_TRIES })
}

async fn try_correct(
    conn: &mut PgConnection,
    corrections: &BTreeMap<i64, (CallKey, Vec<Delivery>)>,
) -> Result<(), Error> {
    let calls: Vec<CallName> =
        corrections.iter().map(|(id, (key, _))| CallName { id: *id, key: key.clone() }).collect();
    let mut tx = conn.begin().await?;
    let versions = lock_calls(&mut tx, &calls).await?;
    update_events(&mut tx, corrections).await?;
    refold_locked(&mut tx, &calls, &versions).await?;
    tx.commit().await?;
    Ok(())
}

/// Writes the columns that are read from payloads; those that follow from the events of
/// the call are written by its fold.
async fn update_events(
    tx: &mut PgConnection,
    corrections: &BTreeMap<i64, (CallKey, Vec<Delivery>)>,
) -> Result<(), Error> {
    let events: Vec<(i64, &Delivery)> = corrections
        .iter()
        .flat_map(|(id, (_, deliveries))| deliveries.iter().map(|delivery| (*id, delivery)))
        .collect();
    let calls: Vec<i64> = events.iter().map(|(call, _)| *call).collect();
    let of_events = || events.iter().map(|(_, delivery)| &delivery.event);
    let fingerprints: Vec<&[u8]> = of_events().map(|event| &event.fingerprint.0[..]).collect();
    let event_types: Vec<i16> = of_events().map(|event| event.event_type.id()).collect();
    let unrecognized_types: Vec<Option<&str>> =
        of_events().map(|event| unrecognized_name(&event.event_type)).collect();
    let occurred_at: Vec<Option<DateTime<Utc>>> =
        of_events().map(|event| event.occurred_at).collect();
    let call_sids: Vec<Option<&str>> =
        of_events().map(|event| event.call_sid.as_ref().map(CallSid::as_str)).collect();
    let client_ids: Vec<Option<&str>> =
        of_events().map(|event| event.client_id.as_ref().map(ClientId::as_str)).collect();
    let provider_statuses: Vec<Option<&str>> =
        of_events().map(|event| event.provider_status.as_deref()).collect();
    let time_problems: Vec<Option<i16>> =
        events.iter().map(|(_, it)| it.time_problem.map(TimeProblem::id)).collect();
    let errors: Vec<Option<Json<&[CallError]>>> =
        events.iter().map(|(_, delivery)| stored_errors(delivery).map(Json)).collect();
    // The first event with a call_sid may get another one: all events of its call are then
    // found by their call_sid, whether they repeat one or not.
    sqlx::query!(
        r#"
        update events set repeats_call_sid = false
        where repeats_call_sid
            and call in (
                select corrected.call
                from unnest($1::bigint[], $2::bytea[], $3::text[])
                    as corrected (call, fingerprint, call_sid)
                join events using (call, fingerprint)
                where corrected.call_sid is distinct from events.call_sid
            )
        "#,
        &calls,
        &fingerprints as &[&[u8]],
        &call_sids as &[Option<&str>],
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        r#"
        update events set
            event_type = corrected.event_type,
            unrecognized_type = corrected.unrecognized_type,
            occurred_at = corrected.occurred_at,
            time_problem = corrected.time_problem,
            call_sid = corrected.call_sid,
            client_id = corrected.client_id,
            -- so that its call is also found by the client that the payload names
            changes_client = changes_client or corrected.client_id is distinct from events.client_id,
            provider_status = corrected.provider_status,
            errors = corrected.errors
        from unnest(
            $1::bigint[], $2::bytea[], $3::smallint[], $4::text[], $5::timestamptz[],
            $6::smallint[], $7::text[], $8::text[], $9::text[], $10::jsonb[]
        ) as corrected (
            call, fingerprint, event_type, unrecognized_type, occurred_at, time_problem,
            call_sid, client_id, provider_status, errors
        )
        where events.call = corrected.call and events.fingerprint = corrected.fingerprint
        "#,
        &calls,
        &fingerprints as &[&[u8]],
        &event_types,
        &unrecognized_types as &[Option<&str>],
        &occurred_at as &[Option<DateTime<Utc>>],
        &time_problems as &[Option<i16>],
        &call_sids as &[Option<&str>],
        &client_ids as &[Option<&str>],
        &provider_statuses as &[Option<&str>],
        &errors as &[Option<Json<&[CallError]>>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

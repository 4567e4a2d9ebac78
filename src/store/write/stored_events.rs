//! Changes of stored events: amended outcomes, and further deliveries.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Encode, PgConnection};

use super::{
    change::{Arrival, Change},
    statement::{composite, unrecognized_name},
};
use crate::{
    call::{EventType, Fingerprint, Status},
    store::{Error, codec::as_int, events::row::Derived},
};

/// A row of the Postgres type `amended_event`, field by field.
#[derive(Encode, Serialize)]
pub(in crate::store) struct AmendedEvent<'a> {
    call: i64,
    fingerprint: &'a [u8],
    event_type: i16,
    unrecognized_type: Option<&'a str>,
    effective_at: DateTime<Utc>,
    disposition: &'static str,
    reason: i16,
    reason_status: Option<i16>,
    reason_attempt: Option<i32>,
    from_status: Option<i16>,
    to_status: Option<i16>,
    attempt: Option<i32>,
}

impl<'a> AmendedEvent<'a> {
    pub(in crate::store) fn of(
        call: i64,
        fingerprint: &'a Fingerprint,
        name: &'a EventType,
        derived: Derived,
    ) -> Self {
        let Derived { event_type, effective_at, outcome } = derived;
        Self {
            call,
            fingerprint: &fingerprint.0,
            event_type,
            unrecognized_type: unrecognized_name(name),
            effective_at,
            disposition: outcome.disposition.as_str(),
            reason: outcome.reason.code.id(),
            reason_status: outcome.reason.status.map(Status::id),
            reason_attempt: outcome.reason.attempt.map(as_int),
            from_status: outcome.from_status.map(Status::id),
            to_status: outcome.to_status.map(Status::id),
            attempt: outcome.attempt.map(as_int),
        }
    }
}

/// A row of the Postgres type `repeated_event`, field by field.
#[derive(Encode)]
struct RepeatedEvent<'a> {
    call: i64,
    fingerprint: &'a [u8],
    deliveries: i32,
    in_all: i32,
    last_delivered_at: DateTime<Utc>,
}

composite!(AmendedEvent, "amended_event");
composite!(RepeatedEvent, "repeated_event");

/// Stores the new outcomes of stored events, and counts their further deliveries.
pub(super) async fn update_stored_events<'c, 'a: 'c>(
    conn: &mut PgConnection,
    changes: impl Iterator<Item = &'c Change<'a>> + Clone,
) -> Result<(), Error> {
    let amended: Vec<AmendedEvent<'_>> = changes
        .clone()
        .flat_map(|change| {
            change
                .amended
                .iter()
                .map(|it| AmendedEvent::of(change.id, &it.fingerprint, &it.event_type, it.derived))
        })
        .collect();
    if !amended.is_empty() {
        amend(conn, &amended).await?;
    }
    let repeated: Vec<RepeatedEvent<'_>> = changes
        .flat_map(|change| {
            change.repeated.iter().map(|arrival: &Arrival<'_>| RepeatedEvent {
                call: change.id,
                fingerprint: &arrival.delivery.event.fingerprint.0,
                deliveries: arrival.deliveries,
                in_all: arrival.in_all,
                last_delivered_at: arrival.last_delivered_at,
            })
        })
        .collect();
    if !repeated.is_empty() {
        count_repetitions(conn, &repeated).await?;
    }
    Ok(())
}

async fn amend(conn: &mut PgConnection, amended: &[AmendedEvent<'_>]) -> Result<(), Error> {
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
        from unnest($1::amended_event[]) as amended
        where events.call = amended.call and events.fingerprint = amended.fingerprint
        "#,
        amended as &[AmendedEvent<'_>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts repeated deliveries. Where another store has counted, the greater number is
/// stored, so that importing its count twice changes nothing.
async fn count_repetitions(
    conn: &mut PgConnection,
    repeated: &[RepeatedEvent<'_>],
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        update events set
            -- a sum beyond the range of an int is stored as its maximum
            delivery_count = greatest(
                least(delivery_count::bigint + repeated.deliveries, 2147483647)::int,
                repeated.in_all
            ),
            last_delivered_at = greatest(events.last_delivered_at, repeated.last_delivered_at)
        from unnest($1::repeated_event[]) as repeated
        where events.call = repeated.call and events.fingerprint = repeated.fingerprint
        "#,
        repeated as &[RepeatedEvent<'_>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

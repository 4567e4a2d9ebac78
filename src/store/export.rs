//! What leaves the store as a whole: every call, event or delivery of a range,
//! as a stream.
//!
//! What always holds: all that is read in one [`snapshot`] is of one moment,
//! whatever is written meanwhile; rows come one by one as the reader takes them,
//! call by call in key order, and the events of a call in the order of its
//! history. So the same store gives the same rows in the same order, and no
//! more than a row of them is held here.
//!
//! Deliberately absent: an index for the ranges. A range reads what it must;
//! deliveries would pay for the index each time.

use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt as _};
use sqlx::{Connection as _, PgConnection, Postgres, Transaction, types::Json};
use uuid::Uuid;

use super::{
    Error,
    calls::{CallRow, StoredCall},
    codec::{Row, count, key},
    events::{HistoryEvent, HistoryRow, ToldError},
};
use crate::{
    access::Projects,
    call::{CallError, CallKey, Direction, Disposition, Status},
};

/// Which rows are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// From when on; this moment included.
    pub from: Option<DateTime<Utc>>,
    /// Until when; this moment not included.
    pub to: Option<DateTime<Utc>>,
    /// Of which projects.
    pub projects: Projects,
}

impl Selection {
    /// Whether it is every row.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.projects == Projects::All
    }
}

/// A call with its first errors.
#[derive(Debug)]
pub struct ExportedCall {
    /// The call.
    pub stored: StoredCall,
    /// The first errors that its events told, in fold order.
    pub errors: Vec<ToldError>,
}

/// An event as it was delivered: all that makes it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedDelivery {
    /// The call.
    pub key: CallKey,
    /// The endpoint that took its first delivery.
    pub endpoint: String,
    /// When its first delivery came.
    pub received_at: DateTime<Utc>,
    /// When it happened, where its `Time:` line could be believed.
    pub occurred_at: Option<DateTime<Utc>>,
    /// How often it was delivered.
    pub delivery_count: u32,
    /// When it was last delivered.
    pub last_delivered_at: DateTime<Utc>,
    /// The body of its first delivery, exactly as it came.
    pub payload: String,
}

/// Begins to read of one moment, over a connection that is not set to anything.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn snapshot<'c>(
    conn: &'c mut PgConnection,
    selection: &Selection,
) -> Result<Transaction<'c, Postgres>, Error> {
    let mut tx = conn.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read, read only")
        .execute(&mut *tx)
        .await?;
    // For a range the planner may weigh a scan and a sort against the key's index. Of everything
    // there is nothing to weigh: a sort would put all of it into files before the first row comes.
    sqlx::query!(
        r#"
        select set_config('plan_cache_mode', 'force_custom_plan', true) as plan,
            set_config('jit', 'off', true) as jit,
            set_config('enable_sort', case when $1 then 'off' else 'on' end, true) as sort
        "#,
        selection.is_all(),
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok(tx)
}

/// How many events there are, roughly: what the planner believes.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn estimate_events(conn: &mut PgConnection) -> Result<u64, Error> {
    let events = sqlx::query_scalar!(
        r#"
        select greatest(reltuples, 0)::bigint as "events!"
        from pg_class
        where oid = 'events'::regclass
        "#
    )
    .fetch_one(conn)
    .await?;
    Ok(events.unsigned_abs())
}

/// An error of a call, as the statement makes it.
#[derive(Debug, serde::Deserialize)]
struct ErrorRow {
    event_id: Uuid,
    #[serde(flatten)]
    error: CallError,
}

/// The calls of a bucket whose first event happened within the range, each with
/// at most `max_errors` of its errors.
///
/// # Errors
///
/// Each item where the database cannot be asked, or a row cannot be.
pub fn calls<'c>(
    conn: &'c mut PgConnection,
    bucket: i32,
    selection: &Selection,
    max_errors: u16,
) -> impl Stream<Item = Result<ExportedCall, Error>> + Unpin + use<'c> {
    sqlx::query!(
        r#"
        select project_id, call_id, version, direction as "direction: Direction",
            status as "status: Status",
            callstate_attempts(attempts_before, attempts)::text as "attempts!", client_id,
            provider_status, has_errors, event_count, anomaly_count,
            microseconds_in_status::text as "microseconds_in_status!", status_since,
            first_event_at, last_event_at, last_event_rank, last_event_fingerprint, ended_at,
            updated_at, last_delivered_at,
            case when has_errors then (
                select jsonb_agg(jsonb_build_object('event_id', event_id) || error)
                from (
                    select event_id, error
                    from (
                        select event_id, errors
                        from (
                            select event_id, errors, effective_at, rank, fingerprint
                            from events
                            where events.bucket = calls.bucket and events.call_id = calls.call_id
                                and events.project_id = calls.project_id and errors is not null
                            -- looked up by the call: an index in the order of time would be read
                            -- through for each
                            offset 0
                        ) as of_call
                        order by effective_at, rank, fingerprint
                        -- each tells one at least
                        limit $5
                    ) as telling
                    -- expanded one after the other, in their order, until there are enough
                    cross join lateral jsonb_array_elements(errors) as error
                    limit $5
                ) as told
            ) end as "errors: Json<Vec<ErrorRow>>"
        from calls
        where bucket = $1
            and ($2::timestamptz is null or first_event_at >= $2)
            and ($3::timestamptz is null or first_event_at < $3)
            and ($4::text[] is null or project_id = any($4))
        order by call_id, project_id
        "#,
        bucket,
        selection.from,
        selection.to,
        selection.projects.ids() as Option<Vec<&str>>,
        i64::from(max_errors),
    )
    .fetch(conn)
    .map(|row| {
        let row = row?;
        let errors = row.errors.map_or_else(Vec::new, |errors| errors.0);
        let stored = CallRow {
            project_id: row.project_id,
            call_id: row.call_id,
            version: row.version,
            direction: row.direction,
            status: row.status,
            attempts: row.attempts,
            client_id: row.client_id,
            provider_status: row.provider_status,
            has_errors: row.has_errors,
            event_count: row.event_count,
            anomaly_count: row.anomaly_count,
            microseconds_in_status: row.microseconds_in_status,
            status_since: row.status_since,
            first_event_at: row.first_event_at,
            last_event_at: row.last_event_at,
            last_event_rank: row.last_event_rank,
            last_event_fingerprint: row.last_event_fingerprint,
            ended_at: row.ended_at,
            updated_at: row.updated_at,
            last_delivered_at: row.last_delivered_at,
        };
        let told = |ErrorRow { event_id, error }| ToldError { event_id, error };
        Ok(ExportedCall {
            stored: stored.try_into()?,
            errors: errors.into_iter().map(told).collect(),
        })
    })
}

/// The events of a bucket that were first received within the range, without
/// their payloads.
///
/// # Errors
///
/// Each item where the database cannot be asked, or a row cannot be.
pub fn events<'c>(
    conn: &'c mut PgConnection,
    bucket: i32,
    selection: &Selection,
) -> impl Stream<Item = Result<(CallKey, HistoryEvent), Error>> + Unpin + use<'c> {
    sqlx::query_as!(
        HistoryRow,
        r#"
        select project_id, call_id, fingerprint, event_id, event_type, rank, occurred_at,
            received_at, effective_at, call_sid, client_id, provider_status,
            errors as "errors: Json<Vec<CallError>>",
            disposition as "disposition: Disposition", reason,
            from_status as "from_status: Status", to_status as "to_status: Status", attempt,
            delivery_count, last_delivered_at, endpoint, null as payload
        from events
        where bucket = $1
            and ($2::timestamptz is null or received_at >= $2)
            and ($3::timestamptz is null or received_at < $3)
            and ($4::text[] is null or project_id = any($4))
        order by call_id, project_id, effective_at, rank, fingerprint
        "#,
        bucket,
        selection.from,
        selection.to,
        selection.projects.ids() as Option<Vec<&str>>,
    )
    .fetch(conn)
    .map(|row| row?.read())
}

/// The same events, each as it was delivered.
///
/// # Errors
///
/// As [`events`].
pub fn deliveries<'c>(
    conn: &'c mut PgConnection,
    bucket: i32,
    selection: &Selection,
) -> impl Stream<Item = Result<ExportedDelivery, Error>> + Unpin + use<'c> {
    sqlx::query!(
        r#"
        select project_id, call_id, endpoint, received_at, occurred_at, delivery_count,
            last_delivered_at, payload::text as "payload!"
        from events
        where bucket = $1
            and ($2::timestamptz is null or received_at >= $2)
            and ($3::timestamptz is null or received_at < $3)
            and ($4::text[] is null or project_id = any($4))
        order by call_id, project_id, effective_at, rank, fingerprint
        "#,
        bucket,
        selection.from,
        selection.to,
        selection.projects.ids() as Option<Vec<&str>>,
    )
    .fetch(conn)
    .map(|row| {
        let row = row?;
        let key = key("events", row.project_id, row.call_id)?;
        let at = Row { table: "events", key: &key };
        Ok(ExportedDelivery {
            delivery_count: at.read("delivery_count", count(row.delivery_count))?,
            endpoint: row.endpoint,
            received_at: row.received_at,
            occurred_at: row.occurred_at,
            last_delivered_at: row.last_delivered_at,
            payload: row.payload,
            key,
        })
    })
}

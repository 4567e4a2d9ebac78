//! Whole ranges of calls, events and deliveries, as streams.
//!
//! What always holds: what is read in one [`snapshot`] is of one moment; rows are
//! read one by one as the reader takes them, call by call in key order, and the
//! events of a call in the order of its history. So the same store gives the same
//! rows in the same order, and one row is held at a time.
//!
//! Deliberately absent: an index for the ranges, which each delivery would pay for.

use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt as _};
use sqlx::{Connection as _, PgConnection, Postgres, Transaction, types::Json};

use super::{
    Error,
    calls::{StoredCall, row::CallRow},
    codec::{Row, count, fingerprint, key},
    events::{
        history::{HistoryEvent, ReportedError},
        row::{name_of, select_events},
    },
};
use crate::{
    access::Projects,
    call::{CallError, CallKey, event_id},
};

/// Which rows are exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The least time, inclusive.
    pub from: Option<DateTime<Utc>>,
    /// The greatest time, exclusive.
    pub to: Option<DateTime<Utc>>,
    /// The projects.
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
    /// The first errors of its events, in fold order.
    pub errors: Vec<ReportedError>,
}

/// An event as it was delivered: all that is needed to store it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedDelivery {
    /// The call.
    pub key: CallKey,
    /// The endpoint that received its first delivery.
    pub endpoint: String,
    /// When its first delivery was received.
    pub received_at: DateTime<Utc>,
    /// When it happened by the provider's clock.
    pub occurred_at: Option<DateTime<Utc>>,
    /// The number of its deliveries.
    pub delivery_count: u32,
    /// When its last delivery was received.
    pub last_delivered_at: DateTime<Utc>,
    /// The body of its first delivery, exactly as received.
    pub payload: String,
}

/// Begins a transaction that reads one snapshot, over a connection with default settings.
pub async fn snapshot<'c>(
    conn: &'c mut PgConnection,
    selection: &Selection,
) -> Result<Transaction<'c, Postgres>, Error> {
    let mut tx = conn.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read, read only")
        .execute(&mut *tx)
        .await?;
    // For a range the planner may choose between the key's index and a scan with a sort. For all
    // rows a sort would write everything into files before the first row.
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

/// About how many events there are: the planner's estimate.
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
    /// In hexadecimal.
    fingerprint: String,
    #[serde(flatten)]
    error: CallError,
}

/// The calls whose first event happened within the range, each with at most
/// `max_errors` of its errors.
pub fn calls<'c>(
    conn: &'c mut PgConnection,
    selection: &Selection,
    max_errors: u16,
) -> impl Stream<Item = Result<ExportedCall, Error>> + Unpin + use<'c> {
    sqlx::query!(
        r#"
        select id, project_id, call_id, version, direction::text, status,
            attempts::text as "attempts!", client_id, provider_status, has_errors, event_count,
            anomaly_count, microseconds_in_status as "microseconds_in_status: Vec<Option<i64>>",
            status_since, is_status_since_reported, first_event_at, last_event_at, last_event_rank,
            last_event_fingerprint, updated_at, last_delivered_at,
            case when has_errors then (
                select jsonb_agg(
                    jsonb_build_object('fingerprint', encode(fingerprint, 'hex')) || error
                )
                from (
                    select fingerprint, error
                    from (
                        select fingerprint, errors
                        from (
                            select fingerprint, errors, effective_at, event_type
                            from events
                            where events.call = calls.id and errors is not null
                            -- found by the call: an index in the order of time would be read
                            -- through for each
                            offset 0
                        ) as of_call
                        left join event_type_spec on event_type_spec.id = of_call.event_type
                        left join status_spec on status_spec.id = event_type_spec.status
                        order by effective_at, status_spec.rank nulls first, fingerprint
                        -- each has one error at least
                        limit $4
                    ) as carriers
                    -- expanded one after the other, in their order, until there are enough
                    cross join lateral jsonb_array_elements(errors) as error
                    limit $4
                ) as carried
            ) end as "errors: Json<Vec<ErrorRow>>"
        from calls
        where ($1::timestamptz is null or first_event_at >= $1)
            and ($2::timestamptz is null or first_event_at < $2)
            and ($3::text[] is null or project_id = any($3))
        order by call_id, project_id
        "#,
        selection.from,
        selection.to,
        selection.projects.ids() as Option<Vec<&str>>,
        i64::from(max_errors),
    )
    .fetch(conn)
    .map(|row| {
        let row = row?;
        let errors = row.errors.map_or_else(Vec::new, |errors| errors.0);
        let stored = StoredCall::try_from(CallRow {
            id: row.id,
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
            is_status_since_reported: row.is_status_since_reported,
            first_event_at: row.first_event_at,
            last_event_at: row.last_event_at,
            last_event_rank: row.last_event_rank,
            last_event_fingerprint: row.last_event_fingerprint,
            updated_at: row.updated_at,
            last_delivered_at: row.last_delivered_at,
        })?;
        let errors = errors.into_iter().map(|row| {
            let bytes = hex(&row.fingerprint);
            let at = Row { table: "events", key: &stored.key };
            let fingerprint = at.read("fingerprint", fingerprint(&bytes))?;
            Ok(ReportedError { event_id: event_id(&stored.key, fingerprint), error: row.error })
        });
        let errors = errors.collect::<Result<_, Error>>()?;
        Ok(ExportedCall { stored, errors })
    })
}

/// The bytes of hexadecimal text, as far as it is that.
fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().as_chunks::<2>().0.iter();
    pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The events whose first delivery was received within the range, without their
/// payloads.
pub fn events<'c>(
    conn: &'c mut PgConnection,
    selection: &Selection,
) -> impl Stream<Item = Result<HistoryEvent, Error>> + Unpin + use<'c> {
    select_events!(
        names "calls.call_id as \"call_id?\", calls.project_id as \"project_id?\"",
        "
        from calls
        join events on events.call = calls.id
        left join event_type_spec on event_type_spec.id = events.event_type
        left join status_spec on status_spec.id = event_type_spec.status
        where ($1::timestamptz is null or received_at >= $1)
            and ($2::timestamptz is null or received_at < $2)
            and ($3::text[] is null or project_id = any($3))
        order by calls.call_id, project_id, effective_at, status_spec.rank nulls first, fingerprint
        ",
        selection.from,
        selection.to,
        selection.projects.ids() as Option<Vec<&str>>,
    )
    .fetch(conn)
    .map(|row| {
        let row = row?;
        let key = row.key()?;
        row.history(key)
    })
}

/// The same events, each as it was delivered. An event without a payload, which
/// retention removed, is left out.
pub fn deliveries<'c>(
    conn: &'c mut PgConnection,
    selection: &Selection,
) -> impl Stream<Item = Result<ExportedDelivery, Error>> + Unpin + use<'c> {
    sqlx::query!(
        r#"
        select project_id, calls.call_id, call, fingerprint, endpoint, received_at, occurred_at,
            delivery_count, events.last_delivered_at, payload::text as "payload!"
        from calls
        join events on events.call = calls.id
        left join event_type_spec on event_type_spec.id = events.event_type
        left join status_spec on status_spec.id = event_type_spec.status
        where ($1::timestamptz is null or received_at >= $1)
            and ($2::timestamptz is null or received_at < $2)
            and ($3::text[] is null or project_id = any($3))
            and payload is not null
        order by calls.call_id, project_id, effective_at, status_spec.rank nulls first, fingerprint
        "#,
        selection.from,
        selection.to,
        selection.projects.ids() as Option<Vec<&str>>,
    )
    .fetch(conn)
    .map(|row| {
        let row = row?;
        let name = name_of(row.call, &row.fingerprint);
        let at = Row { table: "events", key: &name };
        Ok(ExportedDelivery {
            delivery_count: at.read("delivery_count", count(row.delivery_count))?,
            endpoint: row.endpoint,
            received_at: row.received_at,
            occurred_at: row.occurred_at,
            last_delivered_at: row.last_delivered_at,
            payload: row.payload,
            key: key("calls", row.project_id, row.call_id)?,
        })
    })
}

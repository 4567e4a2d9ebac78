//! Figures of the present state of the store, for metrics. Each is read from an index or
//! from few rows, so that this may be done every few seconds.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Error, MIGRATOR, codec, events::feed};
use crate::call::Status;

/// The most events that are read to find when each endpoint last received one.
const MAX_EVENTS: i64 = 100_000;

/// The state of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauges {
    /// The number of live calls in each status.
    pub live_calls: BTreeMap<Status, i64>,
    /// The number of live calls that received nothing for a while.
    pub stalled_calls: i64,
    /// The number of entries of the quarantine.
    pub quarantine_entries: i64,
    /// When the first event of all happened.
    pub oldest_event_at: Option<DateTime<Utc>>,
    /// When the first event that has its payload was received.
    pub oldest_payload_at: Option<DateTime<Utc>>,
    /// The last position of the feed.
    pub feed_position: i64,
    /// The number of migrations of this program that were not applied.
    pub pending_migrations: i64,
    /// The size of the database in bytes.
    pub database_bytes: i64,
}

/// The state of the store. Live calls are stalled that received nothing since a time.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn read(conn: &mut PgConnection, stalled_since: DateTime<Utc>) -> Result<Gauges, Error> {
    let versions: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    let row = sqlx::query!(
        r#"
        select
            (select count(*) from quarantine) as "quarantine_entries!",
            (
                select effective_at from events order by effective_at limit 1
            ) as oldest_event_at,
            (
                select received_at
                from events
                where position > (select payload_position from retention)
                    and payload is not null
                order by position
                limit 1
            ) as oldest_payload_at,
            (
                select count(*)
                from unnest($1::bigint[]) as known (version)
                where known.version not in (select version from _sqlx_migrations where success)
            ) as "pending_migrations!",
            pg_database_size(current_database()) as "database_bytes!"
        "#,
        &versions,
    )
    .fetch_one(&mut *conn)
    .await?;
    let live = sqlx::query!(
        r#"
        select status, count(*) as "calls!",
            count(*) filter (where last_delivered_at <= $1) as "stalled!"
        from calls
        -- the partitions of live calls
        where list_partition < 16
        group by status
        "#,
        stalled_since,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut live_calls = BTreeMap::new();
    let mut stalled_calls = 0;
    for row in live {
        // One that this program does not know is counted by one that does.
        if let Ok(status) = codec::status(row.status) {
            live_calls.insert(status, row.calls);
        }
        stalled_calls += row.stalled;
    }
    Ok(Gauges {
        live_calls,
        stalled_calls,
        quarantine_entries: row.quarantine_entries,
        oldest_event_at: row.oldest_event_at,
        oldest_payload_at: row.oldest_payload_at,
        feed_position: feed::head(conn).await?.last.position,
        pending_migrations: row.pending_migrations,
        database_bytes: row.database_bytes,
    })
}

/// When each endpoint received its last event, of the events after a position of the feed;
/// of the last 100,000 if there are more.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn last_receipts(
    conn: &mut PgConnection,
    after: i64,
) -> Result<Vec<(String, DateTime<Utc>)>, Error> {
    let rows = sqlx::query!(
        r#"
        select endpoint as "endpoint!", max(received_at) as "received_at!"
        from (
            select endpoint, received_at
            from events
            where position > $1
            order by position desc
            limit $2
        ) as latest
        group by endpoint
        "#,
        after,
        MAX_EVENTS,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.endpoint, row.received_at)).collect())
}

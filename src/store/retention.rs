//! Retention: removing payloads and calls that are old.
//!
//! Payloads are removed in the order of the feed, so that where the work goes on is one
//! number ([`remove_next_payloads`]). Calls are found in the order of their first events,
//! by the index of events in time. Neither needs an index of its own.
//!
//! What always holds: a call is pruned with all its events or not at all; a batch waits
//! for no other transaction, and holds the lock of the table `retention`, so that several
//! instances do not do the same work. A writer that has a pruned call in its cache finds
//! that its version is gone, and decides again.
//!
//! Deliberately absent: when this is done, and how old is old.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Connection as _, PgConnection, PgExecutor};

use super::Error;

/// The most events that a batch examines.
pub const BATCH: i64 = 1000;

/// The most characters of a free text of an error whose payload is removed.
const MAX_ERROR_TEXT: i32 = 200;

/// An event that is received this much later than now was received by a wrong clock, and
/// does not hold up the removal of payloads that follow it.
const FUTURE: TimeDelta = TimeDelta::days(1);

/// A batch of events whose payloads were examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadBatch {
    /// The number of events that were examined.
    pub examined: u64,
    /// The number of payloads that were removed, or would be.
    pub removed: u64,
    /// The position in the feed up to which the events were examined.
    pub position: i64,
    /// Whether there may be more to do.
    pub has_more: bool,
}

/// A batch of events whose calls were examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallBatch {
    /// The number of events that were examined.
    pub examined: u64,
    /// The number of calls that were pruned, or would be.
    pub calls: u64,
    /// The number of their events.
    pub events: u64,
    /// The time up to which events were examined; `None` at the end.
    pub last: Option<DateTime<Utc>>,
}

/// What is done with old rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// They are removed.
    Remove,
    /// They are counted.
    Count,
}

/// An event as far as its payload is concerned.
struct Examined {
    position: i64,
    has_payload: bool,
    received_at: DateTime<Utc>,
}

/// Removes payloads that were received before a time, of the next batch of the feed. The
/// batch after it begins where the first payload is left. `None` while another session
/// prunes.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn remove_next_payloads(
    conn: &mut PgConnection,
    received_before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Option<PayloadBatch>, Error> {
    let mut tx = conn.begin().await?;
    let Some(after) = try_lock(&mut tx).await? else {
        return Ok(None);
    };
    let events = examine(&mut tx, after).await?;
    let future = now.checked_add_signed(FUTURE).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let old = old_payloads(&events, received_before);
    // An import may have stored old events after newer ones, so the whole batch is examined
    // again until none of its payloads is left.
    let passed: Vec<&Examined> = events
        .iter()
        .take_while(|event| {
            !event.has_payload || event.received_at < received_before || event.received_at > future
        })
        .collect();
    let removed = remove_payloads(&mut tx, &old, now).await?;
    // An event that another transaction has locked is left for the next batch.
    let left = old.iter().find(|position| !removed.contains(position));
    let last = passed.last().map_or(after, |event| event.position);
    let position = left.map_or(last, |left| last.min(left - 1));
    sqlx::query!("update retention set payload_position = $1", position).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Some(PayloadBatch {
        examined: passed.len() as u64,
        removed: removed.len() as u64,
        position,
        has_more: left.is_none() && passed.len() as u64 == BATCH.unsigned_abs(),
    }))
}

/// Removes or counts payloads that were received before a time, of the batch of events
/// after a position of the feed, whatever was examined before.
#[tracing::instrument(level = "debug", skip_all, fields(after))]
pub async fn remove_payloads_after(
    conn: &mut PgConnection,
    after: i64,
    received_before: DateTime<Utc>,
    now: DateTime<Utc>,
    purpose: Purpose,
) -> Result<PayloadBatch, Error> {
    let mut tx = conn.begin().await?;
    if purpose == Purpose::Remove {
        lock(&mut tx).await?;
    }
    let events = examine(&mut tx, after).await?;
    let old = old_payloads(&events, received_before);
    let removed = match purpose {
        Purpose::Remove => remove_payloads(&mut tx, &old, now).await?.len(),
        Purpose::Count => old.len(),
    };
    tx.commit().await?;
    Ok(PayloadBatch {
        examined: events.len() as u64,
        removed: removed as u64,
        position: events.last().map_or(after, |event| event.position),
        has_more: events.len() as u64 == BATCH.unsigned_abs(),
    })
}

/// Prunes the calls that ended before a time and of which nothing was received since, of
/// the batch of events that happened after a time. `None` while another session prunes.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn prune_next_calls(
    conn: &mut PgConnection,
    after: Option<DateTime<Utc>>,
    before: DateTime<Utc>,
) -> Result<Option<CallBatch>, Error> {
    let mut tx = conn.begin().await?;
    if try_lock(&mut tx).await?.is_none() {
        return Ok(None);
    }
    let batch = prune_batch(&mut tx, after, before, Purpose::Remove).await?;
    tx.commit().await?;
    Ok(Some(batch))
}

/// As [`prune_next_calls`], but waits for another session that prunes, or only counts.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn prune_calls_after(
    conn: &mut PgConnection,
    after: Option<DateTime<Utc>>,
    before: DateTime<Utc>,
    purpose: Purpose,
) -> Result<CallBatch, Error> {
    let mut tx = conn.begin().await?;
    if purpose == Purpose::Remove {
        lock(&mut tx).await?;
    }
    let batch = prune_batch(&mut tx, after, before, purpose).await?;
    tx.commit().await?;
    Ok(batch)
}

/// Locks retention, and returns the position up to which payloads were examined; `None`
/// where another session has the lock. The commit need not be on disk when it is reported:
/// what a crash undoes is done again.
async fn try_lock(conn: &mut PgConnection) -> Result<Option<i64>, Error> {
    let position = sqlx::query_scalar!(
        r#"
        select payload_position
        from retention
        -- evaluated before the lock
        where set_config('synchronous_commit', 'off', true) is not null
        for update skip locked
        "#
    )
    .fetch_optional(conn)
    .await?;
    Ok(position)
}

/// As [`try_lock`], but waits.
async fn lock(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("select payload_position from retention for update").fetch_one(conn).await?;
    Ok(())
}

/// The events after a position, in the order of the feed.
async fn examine(conn: &mut PgConnection, after: i64) -> Result<Vec<Examined>, Error> {
    let events = sqlx::query_as!(
        Examined,
        r#"
        select position, payload is not null as "has_payload!", received_at
        from events
        where position > $1
        order by position
        limit $2
        "#,
        after,
        BATCH,
    )
    .fetch_all(conn)
    .await?;
    Ok(events)
}

/// The positions of the events whose payloads are to be removed.
fn old_payloads(events: &[Examined], received_before: DateTime<Utc>) -> Vec<i64> {
    let old = events.iter().filter(|it| it.has_payload && it.received_at < received_before);
    old.map(|event| event.position).collect()
}

/// Removes the payloads of events and cuts the texts of their errors, except of events
/// that another transaction has locked; returns their positions.
async fn remove_payloads(
    conn: &mut PgConnection,
    positions: &[i64],
    now: DateTime<Utc>,
) -> Result<Vec<i64>, Error> {
    if positions.is_empty() {
        return Ok(Vec::new());
    }
    let removed = sqlx::query_scalar!(
        r#"
        with
        free as (
            select position
            from events
            where position = any($1)
            order by position
            for no key update skip locked
        )
        update events set
            payload = null,
            payload_removed_at = $2,
            errors = case
                -- most are short as they are
                when octet_length(errors::text) > $3 then (
                    select jsonb_agg(
                        coalesce(
                            (
                                select jsonb_object_agg(
                                    key,
                                    case
                                        when key in ('message', 'where')
                                            and jsonb_typeof(value) = 'string'
                                        then to_jsonb(left(value #>> '{}', $3))
                                        else value
                                    end
                                )
                                from jsonb_each(error)
                            ),
                            '{}'
                        )
                        order by number
                    )
                    from jsonb_array_elements(errors) with ordinality as carried (error, number)
                )
                else errors
            end
        where position in (select position from free)
        returning position
        "#,
        positions,
        now,
        MAX_ERROR_TEXT,
    )
    .fetch_all(conn)
    .await?;
    Ok(removed)
}

/// Prunes or counts the calls of a batch of events.
async fn prune_batch(
    conn: &mut PgConnection,
    after: Option<DateTime<Utc>>,
    before: DateTime<Utc>,
    purpose: Purpose,
) -> Result<CallBatch, Error> {
    let page = sqlx::query!(
        r#"
        with
        page as (
            select call, effective_at
            from events
            where effective_at > coalesce($1::timestamptz, '-infinity') and effective_at < $2
            order by effective_at
            -- so that the next page may begin after the last time of this one
            fetch first ($3) rows with ties
        )
        select count(*) as "examined!", max(effective_at) as last,
            array(
                select old.id
                from (select distinct call from page) as calls_of_page
                cross join lateral (
                    select id
                    from calls
                    -- the first partition of calls that have ended is 16
                    where id = calls_of_page.call and list_partition >= 16
                        and last_event_at < $2 and last_delivered_at < $2 and status_since < $2
                    -- one index lookup each, whatever the statistics say
                    offset 0
                ) as old
                order by old.id
            ) as "old!: Vec<i64>"
        from page
        "#,
        after,
        before,
        BATCH,
    )
    .fetch_one(&mut *conn)
    .await?;
    let (calls, events) = match purpose {
        Purpose::Remove => delete_calls(conn, &page.old, before).await?,
        Purpose::Count => (page.old.len() as u64, 0),
    };
    Ok(CallBatch { examined: page.examined.unsigned_abs(), calls, events, last: page.last })
}

/// Deletes these calls with their events, except those that another transaction has locked
/// or that are not old any more; returns the numbers of calls and events.
async fn delete_calls(
    conn: &mut PgConnection,
    ids: &[i64],
    before: DateTime<Utc>,
) -> Result<(u64, u64), Error> {
    if ids.is_empty() {
        return Ok((0, 0));
    }
    // Locked first: a writer that stores an event of a call locks the call, so that the next
    // statement sees all events that there will be.
    let old = sqlx::query_scalar!(
        r#"
        select id
        from calls
        where id = any($1) and list_partition >= 16
            and last_event_at < $2 and last_delivered_at < $2 and status_since < $2
        order by id
        for update skip locked
        "#,
        ids,
        before,
    )
    .fetch_all(&mut *conn)
    .await?;
    let events =
        sqlx::query!("delete from events where call = any($1)", &old).execute(&mut *conn).await?;
    let calls =
        sqlx::query!("delete from calls where id = any($1)", &old).execute(&mut *conn).await?;
    Ok((calls.rows_affected(), events.rows_affected()))
}

/// About how many events there are: the planner's estimate.
pub async fn estimate(executor: impl PgExecutor<'_>) -> Result<u64, Error> {
    let events = sqlx::query_scalar!(
        r#"
        select greatest(reltuples, 0)::bigint as "events!"
        from pg_class
        where oid = 'events'::regclass
        "#
    )
    .fetch_one(executor)
    .await?;
    Ok(events.unsigned_abs())
}

//! How long calls were in each status.

use sqlx::PgConnection;

use super::{Asked, Cell, count};
use crate::{call::Direction, store::Error};

/// How long calls were in a status.
#[derive(Debug)]
pub struct Stay {
    /// When the calls began, and of whom.
    pub cell: Cell,
    /// The status, or `total` for the time from the first event to the end.
    pub status: String,
    /// How many calls.
    pub count: u64,
    /// How long on average, in seconds.
    pub mean: f64,
    /// How long half of them at most.
    pub p50: Percentile,
    /// How long nine in ten of them at most.
    pub p90: Percentile,
    /// How long all but one in a hundred of them at most.
    pub p99: Percentile,
}

/// The two of the sorted values between which a percentile lies, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Percentile {
    /// The one before it.
    pub before: f64,
    /// The one after it, or the same.
    pub after: f64,
}

/// The durations of the calls that began in the span.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn durations(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Stay>, Error> {
    let rows = sqlx::query!(
        r#"
        with
        -- the provider's times are whole seconds, so equal stays are many: they are counted before
        -- they are sorted
        counted as materialized (
            select width_bucket(first_event_at, $1::timestamptz[]) as bucket,
                case when $2 then project_id end as project_id,
                case when $3 then direction end as direction,
                unnest(stays) as stay, count(*)::int as calls
            from reported_calls
            where first_event_at >= $4 and first_event_at < $5
                and ($6::text[] is null or project_id = any($6))
                and ($7::text is null or direction = $7::text::call_direction)
            group by 1, 2, 3, 4
        ),
        -- as callstate_stays puts them together
        told as (
            select bucket, project_id, direction, calls, stay & 15 as status,
                (stay >> 4) / 1e6::float8 as seconds
            from counted
        ),
        -- a value is at the sorted places below last, as far as those of the value before it
        placed as (
            select bucket, project_id, direction, status, seconds, calls,
                sum(calls) over (
                    partition by bucket, project_id, direction, status order by seconds
                ) as last,
                sum(calls) over (partition by bucket, project_id, direction, status) - 1 as most
            from told
        )
        select bucket as "bucket!", project_id, direction as "direction: Direction",
            (array['total', 'PENDING', 'REQUESTED', 'CONNECTING', 'CALLING', 'CLOSING', 'ERROR',
                'NO_RESPONSE', 'BUSY', 'UNREACHABLE'])[status + 1] as "status!",
            sum(calls) as "count!",
            sum(calls * seconds) / sum(calls) as "mean!",
            min(seconds) filter (where last > floor(0.5 * most::float8)) as "p50_before!",
            min(seconds) filter (where last > ceil(0.5 * most::float8)) as "p50_after!",
            min(seconds) filter (where last > floor(0.9::float8 * most)) as "p90_before!",
            min(seconds) filter (where last > ceil(0.9::float8 * most)) as "p90_after!",
            min(seconds) filter (where last > floor(0.99::float8 * most)) as "p99_before!",
            min(seconds) filter (where last > ceil(0.99::float8 * most)) as "p99_after!"
        from placed
        group by bucket, project_id, direction, status
        "#,
        asked.starts,
        asked.by_project,
        asked.by_direction,
        asked.from,
        asked.to,
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
    )
    .fetch_all(conn)
    .await?;
    let stays = rows.into_iter().map(|row| Stay {
        cell: Cell::of(row.bucket, row.project_id, row.direction),
        status: row.status,
        count: count(row.count),
        mean: row.mean,
        p50: Percentile { before: row.p50_before, after: row.p50_after },
        p90: Percentile { before: row.p90_before, after: row.p90_after },
        p99: Percentile { before: row.p99_before, after: row.p99_after },
    });
    Ok(stays.collect())
}

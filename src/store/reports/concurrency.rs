//! How many calls were in CALLING at once.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Asked, Cell, Group, count};
use crate::{call::Direction, store::Error};

/// What the calls that came to CALLING in a bucket, or left it, make of the
/// number of those in it.
#[derive(Debug)]
pub struct Sweep {
    /// When, and of whom.
    pub cell: Cell,
    /// When the number changed first.
    pub first_at: DateTime<Utc>,
    /// How many more they were after the last change than before the first.
    pub change: i64,
    /// How many more they were at most, after a change, than before the first change of the span.
    pub peak: i64,
    /// The changes, each times the seconds from the beginning of the span to it.
    pub moment: f64,
}

/// The calls that were turned away.
#[derive(Debug)]
pub struct TurnedAway {
    /// When they began, and of whom.
    pub cell: Cell,
    /// How many.
    pub calls: u64,
}

/// How many calls of a group are in CALLING.
#[derive(Debug)]
pub struct Standing {
    /// Of whom.
    pub group: Group,
    /// How many.
    pub calling: i64,
}

/// Goes through the changes in the span, in the order of time. What comes and
/// leaves at the same moment cancels out.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn sweep(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Sweep>, Error> {
    let rows = sqlx::query!(
        r#"
        with
        moments as (
            select case when $2 then project_id end as project_id,
                case when $3 then direction end as direction,
                at, sum(change)::int as change
            from reporting.calling_changes
            where at >= $4 and at < $5
                and ($6::text[] is null or project_id = any($6))
                and ($7::text is null or direction = $7::text::call_direction)
            group by 1, 2, 3
        ),
        swept as (
            select project_id, direction, at, change,
                sum(change) over (partition by project_id, direction order by at) as calling,
                width_bucket(at, $1::timestamptz[]) as bucket
            from moments
            where change <> 0
        )
        select bucket as "bucket!", project_id, direction as "direction: Direction",
            min(at) as "first_at!", sum(change)::bigint as "change!",
            max(calling)::bigint as "peak!",
            sum(change * date_part('epoch', at - $4)) as "moment!"
        from swept
        group by 1, 2, 3
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
    let sweeps = rows.into_iter().map(|row| Sweep {
        cell: Cell::of(row.bucket, row.project_id, row.direction),
        first_at: row.first_at,
        change: row.change,
        peak: row.peak,
        moment: row.moment,
    });
    Ok(sweeps.collect())
}

/// How many calls are in CALLING at the end of the span: those that are now, less
/// what came after it. So nothing is asked of the time before the span.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn standing(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Standing>, Error> {
    let rows = sqlx::query!(
        r#"
        select case when $1 then project_id end as project_id,
            case when $2 then direction end as "direction: Direction",
            sum(calling)::bigint as "calling!"
        from (
            select project_id, direction, count(*) as calling
            from reported_calls
            where status = 'CALLING'
            group by project_id, direction
            union all
            select project_id, direction, -sum(change)
            from reporting.calling_changes
            where at >= $3
            group by project_id, direction
        ) as now_and_since
        where ($4::text[] is null or project_id = any($4))
            and ($5::text is null or direction = $5::text::call_direction)
        group by 1, 2
        "#,
        asked.by_project,
        asked.by_direction,
        asked.to,
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
    )
    .fetch_all(conn)
    .await?;
    let standing = rows.into_iter().map(|row| Standing {
        group: Group { project_id: row.project_id, direction: row.direction },
        calling: row.calling,
    });
    Ok(standing.collect())
}

/// The calls that began in the span and that the limit of concurrent calls turned
/// away.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn turned_away(
    conn: &mut PgConnection,
    asked: &Asked<'_>,
) -> Result<Vec<TurnedAway>, Error> {
    let rows = sqlx::query!(
        r#"
        select width_bucket(first_event_at, $1::timestamptz[]) as "bucket!",
            case when $2 then project_id end as project_id,
            case when $3 then direction end as "direction: Direction", count(*) as "calls!"
        from reported_calls
        where status = 'CONCURRENCY_LIMIT_EXCEEDED'
            and first_event_at >= $4 and first_event_at < $5
            and ($6::text[] is null or project_id = any($6))
            and ($7::text is null or direction = $7::text::call_direction)
        group by 1, 2, 3
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
    let turned_away = rows.into_iter().map(|row| TurnedAway {
        cell: Cell::of(row.bucket, row.project_id, row.direction),
        calls: count(row.calls),
    });
    Ok(turned_away.collect())
}

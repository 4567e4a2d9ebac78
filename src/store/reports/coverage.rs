//! Which types of events come, and which calls went without.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Asked, count};
use crate::{call::Direction, store::Error};

/// What is asked about: a type of events, in a project and a bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The place of the bucket among the starts, from 0.
    pub bucket: usize,
    /// The project.
    pub project_id: String,
    /// What the provider calls the type.
    pub event_type: String,
}

/// The events of a type.
#[derive(Debug)]
pub struct Seen {
    /// Which.
    pub kind: Kind,
    /// How many happened.
    pub events: u64,
    /// When the first of them happened.
    pub first_seen_at: DateTime<Utc>,
    /// When the last of them happened.
    pub last_seen_at: DateTime<Utc>,
}

/// The calls that went without a type of events.
#[derive(Debug)]
pub struct Skipped {
    /// Which.
    pub kind: Kind,
    /// How many calls came to a status beyond it, none of whose attempts was told of it. None where
    /// the way leads by nothing of it.
    pub calls: u64,
}

impl Kind {
    fn of(bucket: i32, project_id: String, event_type: String) -> Self {
        let bucket = usize::try_from(bucket).unwrap_or(0).saturating_sub(1);
        Self { bucket, project_id, event_type }
    }
}

/// The events that happened in the span, those of unknown types too.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn seen(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Seen>, Error> {
    let rows = sqlx::query!(
        r#"
        select width_bucket(effective_at, $1::timestamptz[]) as "bucket!",
            project_id as "project_id!", event_type as "event_type!", count(*) as "events!",
            min(effective_at) as "first_seen_at!", max(effective_at) as "last_seen_at!"
        from reporting.events
        where effective_at >= $2 and effective_at < $3
            and ($4::text[] is null or project_id = any($4))
            and ($5::text is null or direction = $5::text::call_direction)
        group by 1, 2, 3
        "#,
        asked.starts,
        asked.from,
        asked.to,
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
    )
    .fetch_all(conn)
    .await?;
    let seen = rows.into_iter().map(|row| Seen {
        kind: Kind::of(row.bucket, row.project_id, row.event_type),
        events: count(row.events),
        first_seen_at: row.first_seen_at,
        last_seen_at: row.last_seen_at,
    });
    Ok(seen.collect())
}

/// The calls that began in the span and went without: of each project and bucket
/// with calls, every type of their directions.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn skipped(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Skipped>, Error> {
    let rows = sqlx::query!(
        r#"
        with
        -- far fewer than calls, and all that it depends on
        shapes as materialized (
            select width_bucket(first_event_at, $1::timestamptz[]) as bucket, project_id,
                direction, status, shape, count(*) as calls
            from reported_calls
            where first_event_at >= $2 and first_event_at < $3
                and ($4::text[] is null or project_id = any($4))
                and ($5::text is null or direction = $5::text::call_direction)
            group by 1, 2, 3, 4, 5
        ),
        told as (
            select bucket, project_id, direction, status, shape::jsonb -> 1 as told_statuses, calls
            from shapes
        )
        select bucket as "bucket!", project_id as "project_id!",
            known.event_type as "event_type!",
            coalesce(
                sum(told.calls) filter (
                    where not told_statuses ? known.status::text
                        and (
                            told.status = any(known.leads_to)
                            or told_statuses ?| known.leads_to::text[]
                        )
                ),
                0
            )::bigint as "calls!"
        from told
        join reporting.event_types as known using (direction)
        group by 1, 2, 3
        "#,
        asked.starts,
        asked.from,
        asked.to,
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
    )
    .fetch_all(conn)
    .await?;
    let skipped = rows.into_iter().map(|row| Skipped {
        kind: Kind::of(row.bucket, row.project_id, row.event_type),
        calls: count(row.calls),
    });
    Ok(skipped.collect())
}

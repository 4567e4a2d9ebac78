//! Which types of events come, and which calls went without.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Asked, count, place};
use crate::{
    call::{Direction, KnownEvent},
    store::Error,
};

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
    /// The place among the starts of the bucket in which they began, from 0.
    pub bucket: usize,
    /// Their project.
    pub project_id: String,
    /// What the provider calls the type; `None` for the calls that went without none.
    pub event_type: Option<String>,
    /// How many calls came to a status beyond it, none of whose attempts was told of it.
    pub calls: u64,
}

/// The events that happened in the span: unless a direction is asked for, those of
/// unknown types too.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn seen(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Seen>, Error> {
    let types = asked.direction.map(types_of);
    let rows = sqlx::query!(
        r#"
        with
        counted as (
            select case when $4::interval is null then $2 else date_bin($4, effective_at, $5) end as bin,
                project_id, event_type, count(*) as events,
                min(effective_at) as first_seen_at, max(effective_at) as last_seen_at
            from reporting.events
            where effective_at >= $2 and effective_at < $3
                and ($6::text[] is null or project_id = any($6))
                and ($7::text[] is null or event_type = any($7))
            group by 1, 2, 3
        )
        select width_bucket(bin, $1::timestamptz[]) as "bucket!", project_id as "project_id!",
            event_type as "event_type!", sum(events)::bigint as "events!",
            min(first_seen_at) as "first_seen_at!", max(last_seen_at) as "last_seen_at!"
        from counted
        group by 1, 2, 3
        "#,
        asked.starts,
        asked.from,
        asked.to,
        asked.bin(),
        asked.starts[0],
        asked.projects.as_deref() as Option<&[&str]>,
        types.as_deref() as Option<&[&str]>,
    )
    .fetch_all(conn)
    .await?;
    let seen = rows.into_iter().map(|row| Seen {
        kind: Kind {
            bucket: place(row.bucket),
            project_id: row.project_id,
            event_type: row.event_type,
        },
        events: count(row.events),
        first_seen_at: row.first_seen_at,
        last_seen_at: row.last_seen_at,
    });
    Ok(seen.collect())
}

/// The calls that began in the span, by the types that they went without. Those
/// without a direction are on no way, and so are left out.
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
            select case when $4::interval is null then $2 else date_bin($4, first_event_at, $5) end as bin,
                project_id, direction, status, shape, count(*) as calls
            from reported_calls
            where first_event_at >= $2 and first_event_at < $3
                and ($6::text[] is null or project_id = any($6))
                and ($7::text is null or direction = $7::text::call_direction)
            group by 1, 2, 3, 4, 5
        ),
        -- far fewer still: what calls differ in, whenever they began and of whatever project
        kinds as (
            select direction, status, shape, shape::jsonb -> 1 as told_statuses
            from shapes
            group by 1, 2, 3
        ),
        skipping as materialized (
            select direction, status, shape,
                array(
                    select known.event_type
                    from reporting.event_types as known
                    where known.direction = kinds.direction
                        and not told_statuses ? known.status::text
                        and (
                            kinds.status = any(known.leads_to)
                            or told_statuses ?| known.leads_to::text[]
                        )
                ) as skipped
            from kinds
        )
        select width_bucket(bin, $1::timestamptz[]) as "bucket!", project_id as "project_id!",
            event_type as "event_type?", sum(calls)::bigint as "calls!"
        from shapes
        join skipping using (direction, status, shape)
        left join lateral unnest(skipped) as event_type on true
        group by 1, 2, 3
        "#,
        asked.starts,
        asked.from,
        asked.to,
        asked.bin(),
        asked.starts[0],
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
    )
    .fetch_all(conn)
    .await?;
    let skipped = rows.into_iter().map(|row| Skipped {
        bucket: place(row.bucket),
        project_id: row.project_id,
        event_type: row.event_type,
        calls: count(row.calls),
    });
    Ok(skipped.collect())
}

/// What the provider calls the types of events of a direction. Unlike the direction, the type is in
/// the index.
fn types_of(direction: Direction) -> Vec<&'static str> {
    let known = KnownEvent::ALL.iter().filter(|known| known.direction() == direction);
    known.map(|known| known.as_str()).collect()
}

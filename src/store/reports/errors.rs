//! What went wrong in calls.

use sqlx::PgConnection;

use super::{Asked, Cell, count};
use crate::{call::Direction, store::Error};

/// Errors of one kind.
#[derive(Debug)]
pub struct Errors {
    /// When their calls began, and of whom.
    pub cell: Cell,
    /// The provider's code.
    pub code: Option<String>,
    /// The phase of the call.
    pub phase: Option<String>,
    /// How many errors.
    pub errors: u64,
    /// In how many calls.
    pub calls: u64,
}

/// The errors of the calls that began in the span.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn errors(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Errors>, Error> {
    let rows = sqlx::query!(
        r#"
        -- planned to be counted whole: a plan that finds the first rows sooner takes longer
        with counted as materialized (
            select width_bucket(first_event_at, $1::timestamptz[]) as bucket,
                case when $2 then project_id end as project_id,
                case when $3 then direction end as direction, code, phase,
                sum(errors)::bigint as errors, count(*) as calls
            from reported_errors
            where first_event_at >= $4 and first_event_at < $5
                and ($6::text[] is null or project_id = any($6))
                and ($7::text is null or direction = $7::text::call_direction)
            group by 1, 2, 3, 4, 5
        )
        select bucket as "bucket!", project_id, direction as "direction: Direction", code, phase,
            errors as "errors!", calls as "calls!"
        from counted
        limit $8
        "#,
        asked.starts,
        asked.by_project,
        asked.by_direction,
        asked.from,
        asked.to,
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
        asked.limit(1),
    )
    .fetch_all(conn)
    .await?;
    let errors = rows.into_iter().map(|row| Errors {
        cell: Cell::of(row.bucket, row.project_id, row.direction),
        code: row.code,
        phase: row.phase,
        errors: count(row.errors),
        calls: count(row.calls),
    });
    Ok(errors.collect())
}

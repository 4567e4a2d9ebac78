//! What became of calls, and of their attempts.

use sqlx::PgConnection;

use super::{Asked, Cell, count};
use crate::{
    call::{Direction, Status},
    store::Error,
};

/// How many outcomes a cell may have: one for each status of calls and of attempts, and that of
/// calls that completed with errors.
const ALIKE_IN_CELL: usize = 2 * Status::ALL.len() + 1;

/// How many calls or attempts stand alike.
#[derive(Debug)]
pub struct Outcome {
    /// When they began, and of whom.
    pub cell: Cell,
    /// Whether attempts are counted rather than calls.
    pub of_attempts: bool,
    /// Where they stand.
    pub status: Status,
    /// Whether the calls completed with errors.
    pub completed_with_errors: bool,
    /// How many.
    pub count: u64,
}

/// The calls that began in the span, and their attempts, by where they stand.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn outcomes(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Outcome>, Error> {
    let rows = sqlx::query!(
        r#"
        with
        -- far fewer than calls, and all that is told of them
        shapes as materialized (
            select case when $8::interval is null then $4 else date_bin($8, first_event_at, $9) end as bin,
                case when $2 then project_id end as project_id,
                case when $3 then direction end as direction,
                status, has_errors, shape, count(*) as calls
            from reported_calls
            where first_event_at >= $4 and first_event_at < $5
                and ($6::text[] is null or project_id = any($6))
                and ($7::text is null or direction = $7::text::call_direction)
            group by 1, 2, 3, 4, 5, 6
        )
        select width_bucket(bin, $1::timestamptz[]) as "bucket!", project_id, direction as "direction: Direction",
            false as "of_attempts!", status as "status!: Status",
            status = 'COMPLETED' and has_errors as "completed_with_errors!",
            sum(calls)::bigint as "count!"
        from shapes
        group by 1, 2, 3, 4, 5, 6
        union all
        select width_bucket(bin, $1), project_id, direction, true, attempt.status::call_status, false,
            sum(calls)::bigint
        from shapes
        cross join lateral jsonb_array_elements_text(shape::jsonb -> 0) as attempt (status)
        group by 1, 2, 3, 4, 5, 6
        limit $10
        "#,
        asked.starts,
        asked.by_project,
        asked.by_direction,
        asked.from,
        asked.to,
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
        asked.bin(),
        asked.starts[0],
        asked.limit(ALIKE_IN_CELL),
    )
    .fetch_all(conn)
    .await?;
    let outcomes = rows.into_iter().map(|row| Outcome {
        cell: Cell::of(row.bucket, row.project_id, row.direction),
        of_attempts: row.of_attempts,
        status: row.status,
        completed_with_errors: row.completed_with_errors,
        count: count(row.count),
    });
    Ok(outcomes.collect())
}

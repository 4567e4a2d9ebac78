//! The outcomes of calls and of their attempts.

use sqlx::PgConnection;

use super::{Cell, ReportQuery, StatusName, count};
use crate::{
    call::{Direction, Status},
    store::Error,
};

/// The most rows of a cell: one for each status of calls and of attempts, and the completed
/// calls with errors.
const ROWS_IN_CELL: usize = 2 * Status::ALL.len() + 1;

/// Calls or attempts with one outcome.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a status and its calls")]
pub struct OutcomeCount {
    /// The bucket and group.
    pub cell: Cell,
    /// Whether attempts are counted rather than calls.
    pub of_attempts: bool,
    /// The status.
    pub status: StatusName,
    /// Whether calls in the status have ended.
    pub is_terminal: bool,
    /// Whether calls in the status are completed.
    pub is_completed: bool,
    /// Whether the calls are completed and have errors.
    pub completed_with_errors: bool,
    /// The number.
    pub count: u64,
}

/// The calls that began in the span, and their attempts, by status.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn outcomes(
    conn: &mut PgConnection,
    query: &ReportQuery<'_>,
) -> Result<Vec<OutcomeCount>, Error> {
    let rows = sqlx::query!(
        r#"
        with
        -- far fewer rows than calls, with all that is counted of them
        counted as materialized (
            select case when $8::interval is null then $4 else date_bin($8, first_event_at, $9) end as bin,
                case when $2 then project_id end as project_id,
                case when $3 then direction end as direction,
                status, has_errors, attempt_counts, count(*) as calls
            from reported_calls
            where first_event_at >= $4 and first_event_at < $5
                and ($6::text[] is null or project_id = any($6))
                and ($7::text is null or direction = $7::text::call_direction)
            group by 1, 2, 3, 4, 5, 6
        ),
        by_status as (
            select width_bucket(bin, $1::timestamptz[]) as bucket, project_id, direction,
                false as of_attempts, status, has_errors, sum(calls)::bigint as count
            from counted
            group by 1, 2, 3, 4, 5, 6
            union all
            select width_bucket(bin, $1), project_id, direction, true, id::smallint, false,
                sum(calls * attempts)::bigint
            from counted
            cross join lateral unnest(attempt_counts) with ordinality as in_status (attempts, id)
            where attempts > 0
            group by 1, 2, 3, 4, 5, 6
        )
        select bucket as "bucket!", project_id, direction::text as direction,
            of_attempts as "of_attempts!", by_status.status as "id!", has_errors as "has_errors!",
            count as "count!", status_spec.status as "name?", status_spec.terminal as "terminal?",
            status_spec.is_completed as "is_completed?"
        from by_status
        left join status_spec on status_spec.id = by_status.status
        limit $10
        "#,
        query.starts,
        query.by_project,
        query.by_direction,
        query.from,
        query.to,
        query.projects.as_deref() as Option<&[&str]>,
        query.direction.map(Direction::as_str),
        query.bin(),
        query.starts[0],
        query.limit(ROWS_IN_CELL),
    )
    .fetch_all(conn)
    .await?;
    let at = super::row("reported_calls");
    rows.into_iter()
        .map(|row| {
            let is_completed = row.is_completed.unwrap_or_default();
            Ok(OutcomeCount {
                cell: Cell::read(&at, row.bucket, row.project_id, row.direction.as_deref())?,
                of_attempts: row.of_attempts,
                status: StatusName::read(&at, row.id, row.name)?,
                is_terminal: row.terminal.unwrap_or_default(),
                is_completed,
                completed_with_errors: is_completed && row.has_errors,
                count: count(row.count),
            })
        })
        .collect()
}

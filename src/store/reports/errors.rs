//! The errors of calls.

use sqlx::PgConnection;

use super::{Cell, ReportQuery, count};
use crate::{call::Direction, store::Error};

/// The errors of one code and phase.
#[derive(Debug)]
pub struct ErrorCount {
    /// The bucket and group of the calls.
    pub cell: Cell,
    /// The provider's code.
    pub code: Option<String>,
    /// The phase of the call.
    pub phase: Option<String>,
    /// The number of errors.
    pub errors: u64,
    /// The number of calls that have them.
    pub calls: u64,
}

/// The errors of the calls that began in the span.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn errors(
    conn: &mut PgConnection,
    query: &ReportQuery<'_>,
) -> Result<Vec<ErrorCount>, Error> {
    let rows = sqlx::query!(
        r#"
        -- counted as a whole: a plan that returns the first rows sooner takes longer
        with counted as materialized (
            select width_bucket(first_event_at, $1::timestamptz[]) as bucket,
                case when $2 then project_id end as project_id,
                case when $3 then direction::text end as direction, code, phase,
                sum(errors)::bigint as errors, count(*) as calls
            from reported_errors
            where first_event_at >= $4 and first_event_at < $5
                and ($6::text[] is null or project_id = any($6))
                and ($7::text is null or direction = $7::text::call_direction)
            group by 1, 2, 3, 4, 5
        )
        select bucket as "bucket!", project_id, direction, code, phase, errors as "errors!",
            calls as "calls!"
        from counted
        limit $8
        "#,
        query.starts,
        query.by_project,
        query.by_direction,
        query.from,
        query.to,
        query.projects.as_deref() as Option<&[&str]>,
        query.direction.map(Direction::as_str),
        query.limit(1),
    )
    .fetch_all(conn)
    .await?;
    let at = super::row("reported_errors");
    rows.into_iter()
        .map(|row| {
            Ok(ErrorCount {
                cell: Cell::read(&at, row.bucket, row.project_id, row.direction.as_deref())?,
                code: row.code,
                phase: row.phase,
                errors: count(row.errors),
                calls: count(row.calls),
            })
        })
        .collect()
}

//! Time zones, and the hours, days, weeks and months of one.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use crate::store::Error;

/// The IANA names of the time zones that the database has. Some old names are missing
/// that it reads as the abbreviation of an offset, such as CET.
pub async fn time_zones(executor: impl PgExecutor<'_>) -> Result<BTreeSet<String>, Error> {
    let names = sqlx::query_scalar!(
        r#"
        select name as "name!"
        from pg_timezone_names
        where name in ('UTC', 'GMT')
            or (
                name !~ '^(posix|right)/|^(localtime|posixrules|Factory)$'
                and upper(name) not in (select abbrev from pg_timezone_abbrevs)
            )
        "#
    )
    .fetch_all(executor)
    .await?;
    Ok(names.into_iter().collect())
}

/// The starts of the buckets that overlap the span between two times, in order; the
/// first may be before it.
///
/// # Errors
///
/// Fails if the database has no such time zone.
pub async fn starts(
    executor: impl PgExecutor<'_>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    bucket: &str,
    time_zone: &str,
) -> Result<Vec<DateTime<Utc>>, Error> {
    let starts = sqlx::query_scalar!(
        r#"
        select bucket_start as "bucket_start!"
        from reporting.buckets($1, $2, $3, $4)
        order by bucket_start
        "#,
        from,
        to,
        bucket,
        time_zone,
    )
    .fetch_all(executor)
    .await?;
    Ok(starts)
}

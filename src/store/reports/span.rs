//! Time zones, and where the hours, days and weeks of one begin.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use crate::store::Error;

/// The names by which the database knows time zones: those of IANA. Some old ones
/// are missing that it takes for the abbreviation of an offset, such as CET.
///
/// # Errors
///
/// Where the database cannot be asked.
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

/// Where the buckets begin that have a part between two times, in order; the
/// first may begin before.
///
/// # Errors
///
/// Where the database cannot be asked, or knows no such time zone.
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

//! Figures over many calls: what the reports show.
//!
//! | module | owns |
//! | --- | --- |
//! | [`span`] | time zones, and the buckets of a span |
//! | [`outcomes`] | the outcomes of calls and of their attempts |
//! | [`durations`] | how long calls were in each status |
//! | [`concurrency`] | how many calls were in CALLING at once |
//! | [`errors`] | the errors of calls |
//! | [`coverage`] | which event types occur |
//!
//! What always holds: the views in the schema `reporting` give the same figures, as
//! tests ensure, though reports count from narrower views or from an index; and a
//! report is computed from one snapshot of the database.
//!
//! Deliberately absent: empty buckets and groups, which the caller fills in, and the
//! current time.

pub mod concurrency;
pub mod coverage;
pub mod durations;
pub mod errors;
pub mod outcomes;
pub mod span;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Postgres, Transaction, postgres::types::PgInterval};

use super::{Error, codec::Row, connection};
use crate::call::Direction;

/// The parameters of every report.
#[derive(Debug, Clone)]
pub struct ReportQuery<'a> {
    /// The least time, inclusive.
    pub from: DateTime<Utc>,
    /// The greatest, exclusive.
    pub to: DateTime<Utc>,
    /// The start of each bucket, in order; the first not after `from`.
    pub starts: &'a [DateTime<Utc>],
    /// The projects; `None` for all.
    pub projects: Option<Vec<&'a str>>,
    /// The direction; `None` for both.
    pub direction: Option<Direction>,
    /// Whether figures are grouped by project.
    pub by_project: bool,
    /// Whether figures are grouped by direction.
    pub by_direction: bool,
    /// The most rows that the report may have. A few more are read to detect that it has too many.
    pub max_rows: usize,
}

/// The bucket and group of a figure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The index of the bucket among the starts, from 0.
    pub bucket: usize,
    /// The project and direction.
    pub group: Group,
}

/// What figures are grouped by; `None` where they are not, or where a call has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The project.
    pub project_id: Option<String>,
    /// The direction.
    pub direction: Option<Direction>,
}

impl Cell {
    /// The cell of a row: `bucket` is its number, from 1.
    fn read(
        at: &Row<'_>,
        bucket: i32,
        project_id: Option<String>,
        direction: Option<&str>,
    ) -> Result<Self, Error> {
        let direction = at.parse("direction", direction)?;
        Ok(Self { bucket: index(bucket), group: Group { project_id, direction } })
    }
}

/// A status by its number and its name, as the table of statuses has it. Ordered by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatusName {
    /// The number.
    pub id: i16,
    /// The name.
    pub name: String,
}

impl StatusName {
    /// The status of a row, if the table has it.
    fn read(at: &Row<'_>, id: i16, name: Option<String>) -> Result<Self, Error> {
        let name = name.ok_or_else(|| format!("{id} is not the id of a status"));
        Ok(Self { id, name: at.read("status", name)? })
    }
}

/// A row of a view, for errors.
fn row(view: &'static str) -> Row<'static> {
    Row { table: view, key: &"a row" }
}

impl ReportQuery<'_> {
    /// The most rows of a statement of which so many make one row of the report, plus one.
    fn limit(&self, of_row: usize) -> i64 {
        i64::try_from(self.max_rows.saturating_mul(of_row)).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// The longest time of which all buckets but the last are multiples; `None` with one bucket.
    ///
    /// Postgres finds the multiple of a time by a division (`date_bin`), and its bucket by a search
    /// (`width_bucket`). So millions of calls are counted by the former, and the counts by the latter.
    fn bin(&self) -> Option<PgInterval> {
        let lengths = self.starts.windows(2).map(|pair| pair[1] - pair[0]);
        let microseconds = lengths.filter_map(|length| length.num_microseconds());
        let microseconds = microseconds.reduce(greatest_common_divisor)?;
        Some(PgInterval { months: 0, days: 0, microseconds })
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The index of a bucket among the starts, from 0, for its number, from 1.
fn index(bucket: impl TryInto<usize>) -> usize {
    bucket.try_into().unwrap_or(0).saturating_sub(1)
}

/// Begins a transaction on one snapshot of the database, each statement for at most so long.
pub async fn begin(
    pool: &PgPool,
    timeout: Duration,
) -> Result<Transaction<'static, Postgres>, Error> {
    let mut tx = pool.begin().await?;
    connection::for_reporting(&mut tx, timeout, None).await?;
    Ok(tx)
}

/// A second transaction on the same snapshot, so that two things can be counted at a time; `None`
/// where no connection is free: waiting for one while holding another might never end.
pub async fn beside(
    pool: &PgPool,
    first: &mut PgConnection,
    timeout: Duration,
) -> Result<Option<Transaction<'static, Postgres>>, Error> {
    if pool.num_idle() == 0 && pool.size() >= pool.options().get_max_connections() {
        return Ok(None);
    }
    let snapshot = sqlx::query_scalar!(r#"select pg_export_snapshot() as "snapshot!""#)
        .fetch_one(first)
        .await?;
    let mut tx = match pool.begin().await {
        // Another task took it.
        Err(sqlx::Error::PoolTimedOut) => return Ok(None),
        begun => begun?,
    };
    connection::for_reporting(&mut tx, timeout, Some(&snapshot)).await?;
    Ok(Some(tx))
}

/// A count, which is never negative.
fn count(number: i64) -> u64 {
    number.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn bin(hours: &[i64]) -> Option<i64> {
        let starts: Vec<_> =
            hours.iter().map(|hours| DateTime::UNIX_EPOCH + TimeDelta::hours(*hours)).collect();
        let (from, to) = (starts[0], starts[0] + TimeDelta::days(9));
        let query = ReportQuery {
            from,
            to,
            starts: &starts,
            projects: None,
            direction: None,
            by_project: false,
            by_direction: false,
            max_rows: 1,
        };
        query.bin().map(|bin| bin.microseconds / 3_600_000_000)
    }

    #[test]
    fn the_bin_is_the_longest_time_that_divides_all_buckets() {
        assert_eq!(bin(&[0, 24, 48, 72]), Some(24));
        // Clocks change.
        assert_eq!(bin(&[0, 24, 47, 71]), Some(1));
        assert_eq!(bin(&[0, 25]), Some(25));
        assert_eq!(bin(&[0]), None);
    }
}

//! Figures over many calls: what the reports show.
//!
//! | file | holds |
//! | --- | --- |
//! | [`span`] | time zones, and where the buckets of a span begin |
//! | [`outcomes`] | what became of calls, and of their attempts |
//! | [`durations`] | how long calls were in each status |
//! | [`concurrency`] | how many calls were in CALLING at once |
//! | [`errors`] | what went wrong |
//! | [`coverage`] | which types of events come |
//!
//! What always holds: whoever asks the views in the schema `reporting` in SQL
//! finds the same figures, to which tests hold both, as what is counted here is
//! counted from narrower views or from an index; and a report is computed from
//! one snapshot of the database, whatever comes meanwhile.
//!
//! Deliberately absent: buckets and groups of which there is nothing, which who
//! asks fills in, and time.

pub mod concurrency;
pub mod coverage;
pub mod durations;
pub mod errors;
pub mod outcomes;
pub mod span;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Postgres, Transaction, postgres::types::PgInterval};

use super::{Error, connection};
use crate::call::Direction;

/// What is asked of every report.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// The least time, inclusive.
    pub from: DateTime<Utc>,
    /// The greatest, exclusive.
    pub to: DateTime<Utc>,
    /// Where the buckets begin, in order; the first not after `from`.
    pub starts: &'a [DateTime<Utc>],
    /// The projects that are looked at; `None` for all.
    pub projects: Option<Vec<&'a str>>,
    /// The direction that is looked at; `None` for both.
    pub direction: Option<Direction>,
    /// Whether each project is shown for itself.
    pub by_project: bool,
    /// Whether each direction is shown for itself.
    pub by_direction: bool,
    /// How many rows the report may have. Of more, no more is read than shows it.
    pub max_rows: usize,
}

/// What a figure is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The place of the bucket among the starts, from 0.
    pub bucket: usize,
    /// The project and direction.
    pub group: Group,
}

/// What figures are grouped by; `None` where they are not, or where a call has
/// none.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The project.
    pub project_id: Option<String>,
    /// The direction.
    pub direction: Option<Direction>,
}

impl Cell {
    /// The cell of a row: `bucket` is its number, from 1.
    fn of(bucket: i32, project_id: Option<String>, direction: Option<Direction>) -> Self {
        Self { bucket: place(bucket), group: Group { project_id, direction } }
    }
}

impl Asked<'_> {
    /// How many rows of a statement show that the report has too many, where so many make one of its.
    fn limit(&self, of_row: usize) -> i64 {
        i64::try_from(self.max_rows.saturating_mul(of_row)).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// The longest time of which all buckets but the last are whole multiples; `None` where there is but one bucket.
    ///
    /// Postgres tells to which multiple a time belongs by a division (`date_bin`), to which bucket by looking through
    /// all of them (`width_bucket`). So millions are counted by the former, and what comes of it by the latter.
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

/// The place of a bucket among the starts, from 0, for its number, from 1.
fn place(bucket: impl TryInto<usize>) -> usize {
    bucket.try_into().unwrap_or(0).saturating_sub(1)
}

/// Begins to look at one snapshot of the database, for at most so long.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn begin(
    pool: &PgPool,
    timeout: Duration,
) -> Result<Transaction<'static, Postgres>, Error> {
    let mut tx = pool.begin().await?;
    connection::for_reporting(&mut tx, timeout, None).await?;
    Ok(tx)
}

/// A second look at the same snapshot, so that two things can be counted at a time; none
/// where no connection is free: who waited for one while holding another might wait for ever.
///
/// # Errors
///
/// Where the database cannot be asked.
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
        // Another was sooner.
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
        let asked = Asked {
            from,
            to,
            starts: &starts,
            projects: None,
            direction: None,
            by_project: false,
            by_direction: false,
            max_rows: 1,
        };
        asked.bin().map(|bin| bin.microseconds / 3_600_000_000)
    }

    #[test]
    fn buckets_are_told_apart_by_the_longest_time_that_divides_them() {
        assert_eq!(bin(&[0, 24, 48, 72]), Some(24));
        // The clocks go forward, or back.
        assert_eq!(bin(&[0, 24, 47, 71]), Some(1));
        assert_eq!(bin(&[0, 25]), Some(25));
        assert_eq!(bin(&[0]), None);
    }
}

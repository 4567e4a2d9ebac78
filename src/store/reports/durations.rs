//! How long calls were in each status.

use std::collections::{BTreeMap, HashMap};

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::{Cell, ReportQuery, StatusName};
use crate::{call::Direction, store::Error};

/// The durations of calls in a status.
#[derive(Debug)]
pub struct Durations {
    /// The bucket and group.
    pub cell: Cell,
    /// The status; `None` for the time from the first event to the end.
    pub status: Option<StatusName>,
    /// The number of calls.
    pub count: u64,
    /// The mean, in seconds.
    pub mean: f64,
    /// The median.
    pub p50: Percentile,
    /// The 90th percentile.
    pub p90: Percentile,
    /// The 99th percentile.
    pub p99: Percentile,
}

/// The two values in order between which a percentile lies, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Percentile {
    /// The one before it.
    pub before: f64,
    /// The one after it, or the same.
    pub after: f64,
}

/// The durations of the calls that began in the span.
///
/// They are counted here, as the database returns them: the provider's times are whole
/// seconds, so many are equal, and only the number of each is held.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn durations(
    conn: &mut PgConnection,
    query: &ReportQuery<'_>,
) -> Result<Vec<Durations>, Error> {
    let names: HashMap<i16, String> = sqlx::query!("select id, status from status_spec")
        .fetch_all(&mut *conn)
        .await?
        .into_iter()
        .map(|row| (row.id, row.status))
        .collect();
    let mut calls = sqlx::query!(
        r#"
        select width_bucket(first_event_at, $1::timestamptz[]) as "bucket!",
            case when $2 then project_id end as project_id,
            case when $3 then direction::text end as direction, total_microseconds,
            durations as "durations!: Vec<Option<i64>>"
        from reported_calls
        where first_event_at >= $4 and first_event_at < $5
            and ($6::text[] is null or project_id = any($6))
            and ($7::text is null or direction = $7::text::call_direction)
        "#,
        query.starts,
        query.by_project,
        query.by_direction,
        query.from,
        query.to,
        query.projects.as_deref() as Option<&[&str]>,
        query.direction.map(Direction::as_str),
    )
    .fetch(conn);

    let at = super::row("reported_calls");
    // By status id; 0 is the time from the first event to the end.
    let mut counted: BTreeMap<Cell, Vec<Counted>> = BTreeMap::new();
    while let Some(call) = calls.try_next().await? {
        if counted.len() > query.max_rows {
            break;
        }
        let cell = Cell::read(&at, call.bucket, call.project_id, call.direction.as_deref())?;
        let counted = counted.entry(cell).or_default();
        counted.resize_with(counted.len().max(call.durations.len() + 1), Counted::default);
        let times = [call.total_microseconds].into_iter().chain(call.durations);
        for (counted, microseconds) in counted.iter_mut().zip(times) {
            if let Some(microseconds) = microseconds {
                *counted.entry(microseconds).or_default() += 1;
            }
        }
    }
    let of_cells = counted.into_iter().flat_map(|(cell, counted)| {
        let of_ids = (0_i16..).zip(counted).filter(|(_, counted)| !counted.is_empty());
        of_ids.map(move |(id, counted)| (cell.clone(), id, counted))
    });
    of_cells
        .map(|(cell, id, counted)| {
            let status = match id {
                0 => None,
                id => Some(StatusName::read(&at, id, names.get(&id).cloned())?),
            };
            Ok(Durations::of(cell, status, counted))
        })
        .collect()
}

/// The number of each duration, in microseconds.
type Counted = HashMap<i64, u64>;

impl Durations {
    #[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
    fn of(cell: Cell, status: Option<StatusName>, counted: Counted) -> Self {
        let mut counted: Vec<(i64, u64)> = counted.into_iter().collect();
        counted.sort_unstable();
        let count: u64 = counted.iter().map(|(_, calls)| calls).sum();
        let sum: f64 = counted.iter().map(|(it, calls)| seconds(*it) * *calls as f64).sum();
        let percentile = |at: f64| {
            let index = at * (count - 1) as f64;
            Percentile {
                before: sorted_at(&counted, index.floor()),
                after: sorted_at(&counted, index.ceil()),
            }
        };
        Self {
            status,
            count,
            mean: sum / count as f64,
            p50: percentile(0.5),
            p90: percentile(0.9),
            p99: percentile(0.99),
            cell,
        }
    }
}

/// The value at an index of all values in order; in seconds.
#[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
fn sorted_at(counted: &[(i64, u64)], index: f64) -> f64 {
    let mut before = 0;
    let found = counted.iter().find(|(_, calls)| {
        before += calls;
        before as f64 > index
    });
    found.map_or(0.0, |(microseconds, _)| seconds(*microseconds))
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53 microseconds, 285 years, it is exact")]
fn seconds(microseconds: i64) -> f64 {
    microseconds as f64 / 1e6
}

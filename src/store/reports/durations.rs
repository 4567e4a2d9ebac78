//! How long calls were in each status.

use std::collections::{BTreeMap, HashMap};

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::{Asked, Cell};
use crate::{call::Direction, store::Error};

/// How long calls were in a status.
#[derive(Debug)]
pub struct Stay {
    /// When the calls began, and of whom.
    pub cell: Cell,
    /// The status, or `total` for the time from the first event to the end.
    pub status: &'static str,
    /// How many calls.
    pub count: u64,
    /// How long on average, in seconds.
    pub mean: f64,
    /// How long half of them at most.
    pub p50: Percentile,
    /// How long nine in ten of them at most.
    pub p90: Percentile,
    /// How long all but one in a hundred of them at most.
    pub p99: Percentile,
}

/// The two of the sorted values between which a percentile lies, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Percentile {
    /// The one before it.
    pub before: f64,
    /// The one after it, or the same.
    pub after: f64,
}

/// The durations of the calls that began in the span.
///
/// They are counted here, as the database gives them: the provider's times are
/// whole seconds, so equal ones are many, and no more is held of them than how
/// often each came.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn durations(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Stay>, Error> {
    let mut calls = sqlx::query!(
        r#"
        select width_bucket(first_event_at, $1::timestamptz[]) as "bucket!",
            case when $2 then project_id end as project_id,
            case when $3 then direction end as "direction: Direction", stays as "stays!"
        from reported_calls
        where first_event_at >= $4 and first_event_at < $5
            and ($6::text[] is null or project_id = any($6))
            and ($7::text is null or direction = $7::text::call_direction)
        "#,
        asked.starts,
        asked.by_project,
        asked.by_direction,
        asked.from,
        asked.to,
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
    )
    .fetch(conn);

    let mut counted: BTreeMap<Cell, [Counted; STATUSES.len()]> = BTreeMap::new();
    while let Some(call) = calls.try_next().await? {
        if call.stays.is_empty() {
            continue;
        }
        if counted.len() > asked.max_rows {
            break;
        }
        let cell = Cell::of(call.bucket, call.project_id, call.direction);
        let counted = counted.entry(cell).or_default();
        for stay in call.stays {
            let (status, microseconds) = taken_apart(stay);
            *counted[status].entry(microseconds).or_default() += 1;
        }
    }
    let stays = counted.into_iter().flat_map(|(cell, counted)| {
        let of_statuses = STATUSES.into_iter().zip(counted);
        let told = of_statuses.filter(|(_, counted)| !counted.is_empty());
        told.map(move |(status, counted)| Stay::of(cell.clone(), status, counted))
    });
    Ok(stays.collect())
}

/// How often each duration came, in microseconds.
type Counted = HashMap<i64, u64>;

/// What durations are of, by the number that `callstate_stays` gives it.
const STATUSES: [&str; 10] = [
    "total",
    "PENDING",
    "REQUESTED",
    "CONNECTING",
    "CALLING",
    "CLOSING",
    "ERROR",
    "NO_RESPONSE",
    "BUSY",
    "UNREACHABLE",
];

/// A stay as `callstate_stays` puts it together.
fn taken_apart(stay: i64) -> (usize, i64) {
    (usize::try_from(stay & 15).unwrap_or_default(), stay >> 4)
}

impl Stay {
    #[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
    fn of(cell: Cell, status: &'static str, counted: Counted) -> Self {
        let mut counted: Vec<(i64, u64)> = counted.into_iter().collect();
        counted.sort_unstable();
        let count: u64 = counted.iter().map(|(_, calls)| calls).sum();
        let sum: f64 = counted.iter().map(|(it, calls)| seconds(*it) * *calls as f64).sum();
        let percentile = |at: f64| {
            let place = at * (count - 1) as f64;
            Percentile {
                before: sorted_at(&counted, place.floor()),
                after: sorted_at(&counted, place.ceil()),
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

/// The value at a place, from 0, were all of them sorted; in seconds.
#[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
fn sorted_at(counted: &[(i64, u64)], place: f64) -> f64 {
    let mut before = 0;
    let found = counted.iter().find(|(_, calls)| {
        before += calls;
        before as f64 > place
    });
    found.map_or(0.0, |(microseconds, _)| seconds(*microseconds))
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53 microseconds, 285 years, it is exact")]
fn seconds(microseconds: i64) -> f64 {
    microseconds as f64 / 1e6
}

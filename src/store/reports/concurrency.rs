//! How many calls were in CALLING at once.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt as _;
use sqlx::{PgConnection, postgres::types::PgInterval};

use super::{Asked, Cell, Group, count};
use crate::{call::Direction, store::Error};

/// In how many pieces a span is gone through at most, unless they are shorter than
/// [`SHORTEST_PIECE`].
const MAX_PIECES: i32 = 2_000;

/// The length of a piece at least.
const SHORTEST_PIECE: TimeDelta = TimeDelta::hours(1);

/// What the calls that came to CALLING in a bucket, or left it, make of the
/// number of those in it.
#[derive(Debug)]
pub struct Sweep {
    /// When, and of whom.
    pub cell: Cell,
    /// When the number changed first.
    pub first_at: DateTime<Utc>,
    /// How many more they were after the last change than before the first.
    pub change: i64,
    /// How many more they were at most, after a change, than before the first change of the span.
    pub peak: i64,
    /// The changes, each times the seconds from the beginning of the span to it.
    pub moment: f64,
}

/// The calls that were turned away.
#[derive(Debug)]
pub struct TurnedAway {
    /// When they began, and of whom.
    pub cell: Cell,
    /// How many.
    pub calls: u64,
}

/// How many calls of a group are in CALLING, if any are.
#[derive(Debug)]
pub struct Standing {
    /// Of whom.
    pub group: Group,
    /// How many.
    pub calling: i64,
}

/// Goes through the changes in the span, in the order of time. What comes and
/// leaves at the same moment cancels out.
///
/// The database gives the moments of a piece of the span after the other, so no
/// more is held at a time; going through them takes a fraction here of what it
/// takes there.
///
/// # Errors
///
/// Where the database cannot be asked.
///
/// # Panics
///
/// Where the database gives a piece after a later one, which it does not.
pub async fn sweep(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Sweep>, Error> {
    let mut pieces = sqlx::query!(
        r#"
        select begins as "begins!", project_id, direction as "direction: Direction", change as "change!",
            moments as "moments!"
        from generate_series($1::timestamptz, $2::timestamptz, $3::interval) as begins
        cross join lateral (
            select case when $4 then project_id end as project_id,
                case when $5 then direction end as direction, change, array_agg(at) as moments
            from reporting.calling_changes
            where at >= begins and at < least(begins + $3::interval, $2::timestamptz)
                and ($6::text[] is null or project_id = any($6))
                and ($7::text is null or direction = $7::text::call_direction)
            group by 1, 2, 3
        ) as changes
        where change <> 0
        "#,
        asked.from,
        asked.to,
        length_of_piece(asked.to - asked.from),
        asked.by_project,
        asked.by_direction,
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
    )
    .fetch(conn);

    let mut courses: BTreeMap<Group, Course> = BTreeMap::new();
    let mut piece = asked.from;
    while let Some(row) = pieces.try_next().await? {
        // As the series goes on, so do they: to be sorted, all would have to be there first.
        assert!(piece <= row.begins, "the pieces of a span came out of order");
        if piece < row.begins {
            piece = row.begins;
            for course in courses.values_mut() {
                course.advance(asked);
            }
            if courses.values().map(|course| course.sweeps.len()).sum::<usize>() > asked.max_rows {
                break;
            }
        }
        let group = Group { project_id: row.project_id, direction: row.direction };
        let course = courses.entry(group).or_insert_with_key(Course::of);
        let change = i64::from(row.change);
        course.changes.extend(row.moments.into_iter().map(|at| (at, change)));
    }
    for course in courses.values_mut() {
        course.advance(asked);
    }
    Ok(courses.into_values().flat_map(|course| course.sweeps).collect())
}

/// The length of the pieces in which a span is gone through.
fn length_of_piece(span: TimeDelta) -> PgInterval {
    let length = (span / MAX_PIECES).max(SHORTEST_PIECE);
    PgInterval { months: 0, days: 0, microseconds: length.num_microseconds().unwrap_or(i64::MAX) }
}

/// How the number of calls of a group changes in the course of a span.
#[derive(Debug)]
struct Course {
    group: Group,
    /// What is to be gone through next, which comes after all that was.
    changes: Vec<(DateTime<Utc>, i64)>,
    /// How many more they are than before the first change.
    level: i64,
    /// What was gone through, a bucket after the other.
    sweeps: Vec<Sweep>,
}

impl Course {
    fn of(group: &Group) -> Self {
        Self { group: group.clone(), changes: Vec::new(), level: 0, sweeps: Vec::new() }
    }

    fn advance(&mut self, asked: &Asked<'_>) {
        // A few runs that are in order, one for each kind of change: merged rather than sorted.
        self.changes.sort();
        let mut changes = std::mem::take(&mut self.changes);
        for moment in changes.chunk_by(|one, other| one.0 == other.0) {
            let at = moment[0].0;
            let change: i64 = moment.iter().map(|(_, change)| change).sum();
            if change != 0 {
                self.step(asked, at, change);
            }
        }
        changes.clear();
        self.changes = changes;
    }

    #[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
    fn step(&mut self, asked: &Asked<'_>, at: DateTime<Utc>, change: i64) {
        self.level += change;
        let level = self.level;
        let moment = change as f64 * (at - asked.from).as_seconds_f64();
        // The buckets of the last sweep and after it: nearly always it is the first of these.
        let known = self.sweeps.last().map_or(0, |sweep| sweep.cell.bucket);
        let bucket =
            known + asked.starts[known + 1..].iter().take_while(|start| **start <= at).count();
        match self.sweeps.last_mut().filter(|sweep| sweep.cell.bucket == bucket) {
            Some(sweep) => {
                sweep.change += change;
                sweep.peak = sweep.peak.max(level);
                sweep.moment += moment;
            }
            None => self.sweeps.push(Sweep {
                cell: Cell { bucket, group: self.group.clone() },
                first_at: at,
                change,
                peak: level,
                moment,
            }),
        }
    }
}

/// How many calls are in CALLING at the end of the span: those that are now, less
/// what came after it. So nothing is asked of the time before the span.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn standing(conn: &mut PgConnection, asked: &Asked<'_>) -> Result<Vec<Standing>, Error> {
    let rows = sqlx::query!(
        r#"
        select project_id, direction as "direction: Direction", sum(calling)::bigint as "calling!"
        from (
            select case when $1 then project_id end as project_id,
                case when $2 then direction end as direction, count(*) as calling
            from reported_calls
            where status = 'CALLING'
                and ($4::text[] is null or project_id = any($4))
                and ($5::text is null or direction = $5::text::call_direction)
            group by 1, 2
            union all
            select case when $1 then project_id end, case when $2 then direction end, -sum(change)
            from reporting.calling_changes
            where at >= $3
                and ($4::text[] is null or project_id = any($4))
                and ($5::text is null or direction = $5::text::call_direction)
            group by 1, 2
        ) as now_and_since
        group by 1, 2
        having sum(calling) <> 0
        limit $6
        "#,
        asked.by_project,
        asked.by_direction,
        asked.to,
        asked.projects.as_deref() as Option<&[&str]>,
        asked.direction.map(Direction::as_str),
        asked.limit(1),
    )
    .fetch_all(conn)
    .await?;
    let standing = rows.into_iter().map(|row| Standing {
        group: Group { project_id: row.project_id, direction: row.direction },
        calling: row.calling,
    });
    Ok(standing.collect())
}

/// The calls that began in the span and that the limit of concurrent calls turned
/// away.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn turned_away(
    conn: &mut PgConnection,
    asked: &Asked<'_>,
) -> Result<Vec<TurnedAway>, Error> {
    let rows = sqlx::query!(
        r#"
        select width_bucket(first_event_at, $1::timestamptz[]) as "bucket!",
            case when $2 then project_id end as project_id,
            case when $3 then direction end as "direction: Direction", count(*) as "calls!"
        from reported_calls
        where status = 'CONCURRENCY_LIMIT_EXCEEDED'
            and first_event_at >= $4 and first_event_at < $5
            and ($6::text[] is null or project_id = any($6))
            and ($7::text is null or direction = $7::text::call_direction)
        group by 1, 2, 3
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
    let turned_away = rows.into_iter().map(|row| TurnedAway {
        cell: Cell::of(row.bucket, row.project_id, row.direction),
        calls: count(row.calls),
    });
    Ok(turned_away.collect())
}

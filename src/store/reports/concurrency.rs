//! How many calls were in conversation (CALLING) at once.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt as _;
use sqlx::{PgConnection, postgres::types::PgInterval};

use super::{Cell, Group, ReportQuery, count};
use crate::{call::Direction, store::Error};

/// The most pieces that a span is read in, unless they are shorter than [`SHORTEST_PIECE`].
const MAX_PIECES: i32 = 2_000;

/// The least length of a piece.
const SHORTEST_PIECE: TimeDelta = TimeDelta::hours(1);

/// How the number of calls in conversation changes within a bucket.
#[derive(Debug)]
pub struct Sweep {
    /// The bucket and group.
    pub cell: Cell,
    /// The time of the first change.
    pub first_at: DateTime<Utc>,
    /// The sum of the changes.
    pub change: i64,
    /// The greatest sum of changes since the start of the span, after a change in the bucket.
    pub peak: i64,
    /// The sum of the changes, each times the seconds from the start of the span to it.
    pub moment: f64,
}

/// Calls that the limit of concurrent calls turned away.
#[derive(Debug)]
pub struct TurnedAway {
    /// The bucket and group.
    pub cell: Cell,
    /// The number.
    pub calls: u64,
}

/// The calls of a group that are in conversation, at least one.
#[derive(Debug)]
pub struct InConversation {
    /// The group.
    pub group: Group,
    /// The number.
    pub calls: i64,
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
/// Fails if the query fails, or its rows are out of order.
pub async fn sweep(conn: &mut PgConnection, query: &ReportQuery<'_>) -> Result<Vec<Sweep>, Error> {
    let mut pieces = sqlx::query!(
        r#"
        select begins as "begins!", project_id, direction, change as "change!",
            moments as "moments!"
        from generate_series($1::timestamptz, $2::timestamptz, $3::interval) as begins
        cross join lateral (
            select case when $4 then project_id end as project_id,
                case when $5 then direction::text end as direction, change, array_agg(at) as moments
            from reporting.calling_changes
            where at >= begins and at < least(begins + $3::interval, $2::timestamptz)
                and ($6::text[] is null or project_id = any($6))
                and ($7::text is null or direction = $7::text::call_direction)
            group by 1, 2, 3
        ) as changes
        where change <> 0
        "#,
        query.from,
        query.to,
        length_of_piece(query.to - query.from),
        query.by_project,
        query.by_direction,
        query.projects.as_deref() as Option<&[&str]>,
        query.direction.map(Direction::as_str),
    )
    .fetch(conn);

    let at = super::row("reporting.calling_changes");
    let mut courses: BTreeMap<Group, Course> = BTreeMap::new();
    let mut piece = query.from;
    while let Some(row) = pieces.try_next().await? {
        // They follow the series: a sort would collect all of them first.
        if row.begins < piece {
            return Err(at.corrupt("at", "the pieces of the span are out of order"));
        }
        if piece < row.begins {
            piece = row.begins;
            for course in courses.values_mut() {
                course.advance(query);
            }
            if courses.values().map(|course| course.sweeps.len()).sum::<usize>() > query.max_rows {
                break;
            }
        }
        let direction = at.parse("direction", row.direction.as_deref())?;
        let group = Group { project_id: row.project_id, direction };
        let course = courses.entry(group).or_insert_with_key(Course::of);
        let change = i64::from(row.change);
        course.changes.extend(row.moments.into_iter().map(|at| (at, change)));
    }
    for course in courses.values_mut() {
        course.advance(query);
    }
    Ok(courses.into_values().flat_map(|course| course.sweeps).collect())
}

/// The length of the pieces that a span is read in.
fn length_of_piece(span: TimeDelta) -> PgInterval {
    let length = (span / MAX_PIECES).max(SHORTEST_PIECE);
    PgInterval { months: 0, days: 0, microseconds: length.num_microseconds().unwrap_or(i64::MAX) }
}

/// How the number of calls of a group changes during a span.
#[derive(Debug)]
struct Course {
    group: Group,
    /// The next changes, which are later than all previous ones.
    changes: Vec<(DateTime<Utc>, i64)>,
    /// The sum of all changes until now.
    level: i64,
    /// The buckets until now.
    sweeps: Vec<Sweep>,
}

impl Course {
    fn of(group: &Group) -> Self {
        Self { group: group.clone(), changes: Vec::new(), level: 0, sweeps: Vec::new() }
    }

    fn advance(&mut self, query: &ReportQuery<'_>) {
        // A few sorted runs, one for each kind of change, which the sort merges.
        self.changes.sort();
        let mut changes = std::mem::take(&mut self.changes);
        for moment in changes.chunk_by(|one, other| one.0 == other.0) {
            let at = moment[0].0;
            let change: i64 = moment.iter().map(|(_, change)| change).sum();
            if change != 0 {
                self.step(query, at, change);
            }
        }
        changes.clear();
        self.changes = changes;
    }

    #[expect(clippy::cast_precision_loss, reason = "a count below 2^53 is exact")]
    fn step(&mut self, query: &ReportQuery<'_>, at: DateTime<Utc>, change: i64) {
        self.level += change;
        let level = self.level;
        let moment = change as f64 * (at - query.from).as_seconds_f64();
        // The buckets of the last sweep and after it: nearly always it is the first of these.
        let known = self.sweeps.last().map_or(0, |sweep| sweep.cell.bucket);
        let bucket =
            known + query.starts[known + 1..].iter().take_while(|start| **start <= at).count();
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

/// The calls in conversation at the end of the span: those that are now, less the changes
/// since. So nothing before the span is read.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn in_conversation(
    conn: &mut PgConnection,
    query: &ReportQuery<'_>,
) -> Result<Vec<InConversation>, Error> {
    let rows = sqlx::query!(
        r#"
        select project_id, direction, sum(calls)::bigint as "calls!"
        from (
            select case when $1 then project_id end as project_id,
                case when $2 then direction::text end as direction, count(*) as calls
            from reported_calls
            join status_spec on status_spec.id = reported_calls.status
            where status_spec.is_in_conversation
                and ($4::text[] is null or project_id = any($4))
                and ($5::text is null or direction = $5::text::call_direction)
            group by 1, 2
            union all
            select case when $1 then project_id end, case when $2 then direction::text end,
                -sum(change)
            from reporting.calling_changes
            where at >= $3
                and ($4::text[] is null or project_id = any($4))
                and ($5::text is null or direction = $5::text::call_direction)
            group by 1, 2
        ) as now_and_since
        group by 1, 2
        having sum(calls) <> 0
        limit $6
        "#,
        query.by_project,
        query.by_direction,
        query.to,
        query.projects.as_deref() as Option<&[&str]>,
        query.direction.map(Direction::as_str),
        query.limit(1),
    )
    .fetch_all(conn)
    .await?;
    let at = super::row("reporting.calling_changes");
    rows.into_iter()
        .map(|row| {
            let direction = at.parse("direction", row.direction.as_deref())?;
            let group = Group { project_id: row.project_id, direction };
            Ok(InConversation { group, calls: row.calls })
        })
        .collect()
}

/// The calls that began in the span and were turned away.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn turned_away(
    conn: &mut PgConnection,
    query: &ReportQuery<'_>,
) -> Result<Vec<TurnedAway>, Error> {
    let rows = sqlx::query!(
        r#"
        select width_bucket(first_event_at, $1::timestamptz[]) as "bucket!",
            case when $2 then project_id end as project_id,
            case when $3 then direction::text end as direction, count(*) as "calls!"
        from reported_calls
        where status = any(array(select id from status_spec where is_turned_away))
            and first_event_at >= $4 and first_event_at < $5
            and ($6::text[] is null or project_id = any($6))
            and ($7::text is null or direction = $7::text::call_direction)
        group by 1, 2, 3
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
    let at = super::row("reported_calls");
    rows.into_iter()
        .map(|row| {
            Ok(TurnedAway {
                cell: Cell::read(&at, row.bucket, row.project_id, row.direction.as_deref())?,
                calls: count(row.calls),
            })
        })
        .collect()
}

//! Which event types occur, and which calls skipped them.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::atomic::{AtomicUsize, Ordering},
};

use chrono::{DateTime, Utc};
use futures_util::{TryStreamExt as _, future::try_join};
use sqlx::PgConnection;

use super::{ReportQuery, count, index};
use crate::{
    call::{Direction, KnownEvent},
    store::{Error, connection},
};

/// The number of parts in which the events of a span are counted: so many that two connections
/// finish together, so few that a query for each costs nothing beside.
const PARTS: usize = 12;

/// Which event types occur.
#[derive(Debug, Default)]
pub struct Coverage {
    /// The projects that have events or calls.
    pub projects: BTreeSet<String>,
    /// The events that happened in the span, of any type.
    pub seen: BTreeMap<Kind, Seen>,
    /// The calls that began in the span and reached a status beyond the type, while none of
    /// their attempts reported it. Calls without a direction are left out.
    pub skipped: BTreeMap<Kind, u64>,
}

/// An event type in a project and a bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The index of the bucket among the starts, from 0.
    pub bucket: usize,
    /// The project.
    pub project_id: String,
    /// The provider's name of the type.
    pub event_type: String,
}

/// The events of a type.
#[derive(Debug)]
pub struct Seen {
    /// The number.
    pub events: u64,
    /// When the first of them happened.
    pub first_seen_at: DateTime<Utc>,
    /// When the last of them happened.
    pub last_seen_at: DateTime<Utc>,
}

/// A part of the span that lies in one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// The index of the bucket among the starts, from 0.
    bucket: usize,
    /// Inclusive.
    begins: DateTime<Utc>,
    /// Exclusive.
    ends: DateTime<Utc>,
}

/// Which event types occur in the span, and which calls that began in it skipped them.
///
/// Events are counted part by part, and each connection takes the next part when it has finished
/// one: two take half as long as one, however unevenly events are distributed. Postgres does not
/// share this work among workers of its own, as it cannot know how few buckets there are. `beside`
/// must read the same snapshot.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn coverage(
    conn: &mut PgConnection,
    beside: Option<&mut PgConnection>,
    query: &ReportQuery<'_>,
) -> Result<Coverage, Error> {
    let pieces = pieces(query);
    let parts =
        Parts { parts: pieces.chunks(pieces.len().div_ceil(PARTS)).collect(), taken: 0.into() };
    let calls_and_events = async {
        let mut coverage = Coverage::default();
        coverage.add_skipped(conn, query).await?;
        coverage.add_parts(conn, query, &parts).await?;
        Ok(coverage)
    };
    let Some(beside) = beside else {
        return calls_and_events.await;
    };
    let events = async {
        let mut coverage = Coverage::default();
        coverage.add_parts(beside, query, &parts).await?;
        Ok(coverage)
    };
    let (mut coverage, events) = try_join(calls_and_events, events).await?;
    coverage.projects.extend(events.projects);
    for (kind, seen) in events.seen {
        coverage.add_seen(kind, seen);
    }
    Ok(coverage)
}

/// The parts that are still to be counted.
#[derive(Debug)]
struct Parts<'a> {
    parts: Vec<&'a [Piece]>,
    taken: AtomicUsize,
}

impl<'a> Parts<'a> {
    fn take(&self) -> Option<&'a [Piece]> {
        self.parts.get(self.taken.fetch_add(1, Ordering::Relaxed)).copied()
    }
}

/// The span, cut where buckets and parts begin.
fn pieces(query: &ReportQuery<'_>) -> Vec<Piece> {
    let length = (query.to - query.from) / i32::try_from(PARTS).unwrap_or(i32::MAX);
    let parts = (1..).take(PARTS - 1).map(|part| query.from + length * part);
    let buckets = query.starts.iter().copied().filter(|start| *start > query.from);
    let mut cuts: Vec<_> = [query.from, query.to].into_iter().chain(parts).chain(buckets).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let piece = |cuts: &[DateTime<Utc>]| {
        let bucket = query.starts.partition_point(|start| *start <= cuts[0]).saturating_sub(1);
        Piece { bucket, begins: cuts[0], ends: cuts[1] }
    };
    cuts.windows(2).map(piece).collect()
}

impl Coverage {
    async fn add_parts(
        &mut self,
        conn: &mut PgConnection,
        query: &ReportQuery<'_>,
        parts: &Parts<'_>,
    ) -> Result<(), Error> {
        while let Some(pieces) = parts.take() {
            self.add_events(conn, query, pieces).await?;
        }
        Ok(())
    }

    async fn add_events(
        &mut self,
        conn: &mut PgConnection,
        query: &ReportQuery<'_>,
        pieces: &[Piece],
    ) -> Result<(), Error> {
        let types = query.direction.map(types_of);
        let begins: Vec<_> = pieces.iter().map(|piece| piece.begins).collect();
        let ends: Vec<_> = pieces.iter().map(|piece| piece.ends).collect();
        let mut rows = sqlx::query!(
            r#"
            -- piece by piece, so that the time of an event needs no further comparison
            select number as "number!", project_id as "project_id!",
                event_type as "event_type!", events as "events!", first_seen_at as "first_seen_at!", last_seen_at as "last_seen_at!"
            from unnest($1::timestamptz[], $2::timestamptz[])
                with ordinality as pieces (begins, ends, number)
            cross join lateral (
                select project_id, known.event_type, count(*) as events,
                    min(effective_at) as first_seen_at, max(effective_at) as last_seen_at
                from events
                join calls on calls.id = events.call
                join event_type_spec as known on known.id = events.event_type
                where effective_at >= begins and effective_at < ends
                    and ($3::text[] is null or project_id = any($3))
                    and ($4::smallint[] is null or events.event_type = any($4))
                group by 1, 2
                union all
                -- few, and read from an index of their own
                select project_id, unrecognized_type, count(*), min(effective_at), max(effective_at)
                from events
                join calls on calls.id = events.call
                where effective_at >= begins and effective_at < ends
                    and ($3::text[] is null or project_id = any($3))
                    and $4::smallint[] is null
                    and events.event_type = 0
                group by 1, 2
            ) as seen
            "#,
            &begins,
            &ends,
            query.projects.as_deref() as Option<&[&str]>,
            types.as_deref() as Option<&[i16]>,
        )
        .fetch(conn);
        while self.seen.len() <= query.max_rows
            && let Some(row) = rows.try_next().await?
        {
            self.projects.insert(row.project_id.clone());
            let kind = Kind {
                bucket: pieces[index(row.number)].bucket,
                project_id: row.project_id,
                event_type: row.event_type,
            };
            self.add_seen(
                kind,
                Seen {
                    events: count(row.events),
                    first_seen_at: row.first_seen_at,
                    last_seen_at: row.last_seen_at,
                },
            );
        }
        Ok(())
    }

    fn add_seen(&mut self, kind: Kind, seen: Seen) {
        match self.seen.entry(kind) {
            Entry::Vacant(entry) => {
                entry.insert(seen);
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                known.events += seen.events;
                known.first_seen_at = known.first_seen_at.min(seen.first_seen_at);
                known.last_seen_at = known.last_seen_at.max(seen.last_seen_at);
            }
        }
    }

    async fn add_skipped(
        &mut self,
        conn: &mut PgConnection,
        query: &ReportQuery<'_>,
    ) -> Result<(), Error> {
        connection::for_hashing(conn).await?;
        let rows = sqlx::query!(
            r#"
            with
            -- far fewer rows than calls, with all that decides which types a call skipped
            counted as materialized (
                select project_id, direction, status, statuses_seen,
                    array_agg(first_event_at) as moments
                from reported_calls
                where first_event_at >= $2 and first_event_at < $3
                    and ($4::text[] is null or project_id = any($4))
                    and ($5::text is null or direction = $5::text::call_direction)
                group by project_id, direction, status, statuses_seen
            ),
            skipping as (
                select project_id, moments,
                    array(
                        select known.event_type
                        from event_type_spec as known
                        where known.direction = counted.direction
                            and statuses_seen & (1::bigint << known.status) = 0
                            and exists (
                                select
                                from unnest(known.leads_to) as reached (status)
                                where reached.status = counted.status
                                    or statuses_seen & (1::bigint << reached.status) <> 0
                            )
                    ) as skipped
                from counted
            )
            -- the moments are read only where something was skipped
            select project_id as "project_id!", event_type as "event_type?",
                width_bucket(moment, $1::timestamptz[]) as "bucket?", count(*) as "calls!"
            from skipping
            left join (
                lateral unnest(skipped) as event_type cross join lateral unnest(moments) as moment
            ) on true
            group by 1, 2, 3
            limit $6
            "#,
            query.starts,
            query.from,
            query.to,
            query.projects.as_deref() as Option<&[&str]>,
            query.direction.map(Direction::as_str),
            // a project has one more, for the calls that skipped nothing
            query.limit(2),
        )
        .fetch_all(conn)
        .await?;
        for row in rows {
            self.projects.insert(row.project_id.clone());
            if let (Some(event_type), Some(bucket)) = (row.event_type, row.bucket) {
                let kind = Kind { bucket: index(bucket), project_id: row.project_id, event_type };
                self.skipped.insert(kind, count(row.calls));
            }
        }
        Ok(())
    }
}

/// The ids of the event types of a direction. The direction itself is not in the index.
fn types_of(direction: Direction) -> Vec<i16> {
    let known = KnownEvent::ALL.iter().filter(|known| known.direction() == direction);
    known.map(|known| known.id()).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn the_pieces_cover_the_span_and_each_is_within_one_bucket() {
        let at = |hours| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        for starts in [vec![at(5)], vec![at(0), at(24), at(47), at(71)], (0..90).map(at).collect()]
        {
            let query = ReportQuery {
                from: at(5),
                to: at(90),
                starts: &starts,
                projects: None,
                direction: None,
                by_project: true,
                by_direction: false,
                max_rows: 1,
            };
            let pieces = pieces(&query);
            assert!(pieces.len() >= PARTS);
            assert_eq!((pieces[0].begins, pieces[pieces.len() - 1].ends), (at(5), at(90)));
            assert!(pieces.windows(2).all(|pair| pair[0].ends == pair[1].begins));
            for piece in pieces {
                assert!(piece.begins < piece.ends);
                assert!(starts[piece.bucket] <= piece.begins);
                assert!(starts.get(piece.bucket + 1).is_none_or(|next| piece.ends <= *next));
            }
        }
    }
}

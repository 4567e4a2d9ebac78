//! Which types of events come, and which calls went without.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::atomic::{AtomicUsize, Ordering},
};

use chrono::{DateTime, Utc};
use futures_util::{TryStreamExt as _, future::try_join};
use sqlx::PgConnection;

use super::{Asked, count, place};
use crate::{
    call::{Direction, KnownEvent},
    store::{Error, connection},
};

/// In how many parts the events of a span are counted: so many that two connections
/// come to their ends together, so few that asking for each costs nothing beside.
const PARTS: usize = 12;

/// Which types of events come.
#[derive(Debug, Default)]
pub struct Coverage {
    /// The projects that events of any type, or calls, are of.
    pub projects: BTreeSet<String>,
    /// The events that happened in the span, of types that are known.
    pub seen: BTreeMap<Kind, Seen>,
    /// How many of the calls that began in the span came to a status beyond the type, none of
    /// whose attempts was told of it. Those without a direction are on no way, and so are left out.
    pub skipped: BTreeMap<Kind, u64>,
}

/// What is asked about: a type of events, in a project and a bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The place of the bucket among the starts, from 0.
    pub bucket: usize,
    /// The project.
    pub project_id: String,
    /// What the provider calls the type.
    pub event_type: String,
}

/// The events of a type.
#[derive(Debug)]
pub struct Seen {
    /// How many happened.
    pub events: u64,
    /// When the first of them happened.
    pub first_seen_at: DateTime<Utc>,
    /// When the last of them happened.
    pub last_seen_at: DateTime<Utc>,
}

/// A part of the span that lies in one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// The place of the bucket among the starts, from 0.
    bucket: usize,
    /// Inclusive.
    begins: DateTime<Utc>,
    /// Exclusive.
    ends: DateTime<Utc>,
}

/// Which types of events came in the span, and which calls that began in it went without.
///
/// Events are counted part by part, and each connection takes the next part when it is
/// done with its last: two take half as long as one, however unevenly events come. Postgres
/// does not share this work among processes of its own, as it cannot know how few buckets
/// there are. `beside` is to look at the same snapshot.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn coverage(
    conn: &mut PgConnection,
    beside: Option<&mut PgConnection>,
    asked: &Asked<'_>,
) -> Result<Coverage, Error> {
    let pieces = pieces(asked);
    let parts =
        Parts { parts: pieces.chunks(pieces.len().div_ceil(PARTS)).collect(), taken: 0.into() };
    let calls_and_events = async {
        let mut coverage = Coverage::default();
        coverage.add_skipped(conn, asked).await?;
        coverage.add_parts(conn, asked, &parts).await?;
        Ok(coverage)
    };
    let Some(beside) = beside else {
        return calls_and_events.await;
    };
    let events = async {
        let mut coverage = Coverage::default();
        coverage.add_parts(beside, asked, &parts).await?;
        Ok(coverage)
    };
    let (mut coverage, events) = try_join(calls_and_events, events).await?;
    coverage.projects.extend(events.projects);
    for (kind, seen) in events.seen {
        coverage.add_seen(kind, seen);
    }
    Ok(coverage)
}

/// What is left to be counted.
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

/// The span, cut where buckets begin, and where its parts do.
fn pieces(asked: &Asked<'_>) -> Vec<Piece> {
    let length = (asked.to - asked.from) / i32::try_from(PARTS).unwrap_or(i32::MAX);
    let parts = (1..).take(PARTS - 1).map(|part| asked.from + length * part);
    let buckets = asked.starts.iter().copied().filter(|start| *start > asked.from);
    let mut cuts: Vec<_> = [asked.from, asked.to].into_iter().chain(parts).chain(buckets).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let piece = |cuts: &[DateTime<Utc>]| {
        let bucket = asked.starts.partition_point(|start| *start <= cuts[0]).saturating_sub(1);
        Piece { bucket, begins: cuts[0], ends: cuts[1] }
    };
    cuts.windows(2).map(piece).collect()
}

impl Coverage {
    async fn add_parts(
        &mut self,
        conn: &mut PgConnection,
        asked: &Asked<'_>,
        parts: &Parts<'_>,
    ) -> Result<(), Error> {
        while let Some(pieces) = parts.take() {
            self.add_events(conn, asked, pieces).await?;
        }
        Ok(())
    }

    async fn add_events(
        &mut self,
        conn: &mut PgConnection,
        asked: &Asked<'_>,
        pieces: &[Piece],
    ) -> Result<(), Error> {
        let types = asked.direction.map(types_of);
        let begins: Vec<_> = pieces.iter().map(|piece| piece.begins).collect();
        let ends: Vec<_> = pieces.iter().map(|piece| piece.ends).collect();
        let mut rows = sqlx::query!(
            r#"
            -- piece by piece, so that nothing needs to be told of each event's time
            select place as "place!", project_id as "project_id!", event_type as "event_type!",
                events as "events!", first_seen_at as "first_seen_at!", last_seen_at as "last_seen_at!"
            from unnest($1::timestamptz[], $2::timestamptz[])
                with ordinality as pieces (begins, ends, place)
            cross join lateral (
                select project_id, event_type, count(*) as events,
                    min(effective_at) as first_seen_at, max(effective_at) as last_seen_at
                from reporting.events
                where effective_at >= begins and effective_at < ends
                    and ($3::text[] is null or project_id = any($3))
                    and ($4::text[] is null or event_type = any($4))
                group by project_id, event_type
            ) as seen
            "#,
            &begins,
            &ends,
            asked.projects.as_deref() as Option<&[&str]>,
            types.as_deref() as Option<&[&str]>,
        )
        .fetch(conn);
        while self.seen.len() <= asked.max_rows
            && let Some(row) = rows.try_next().await?
        {
            self.projects.insert(row.project_id.clone());
            if row.event_type.parse::<KnownEvent>().is_err() {
                continue;
            }
            let kind = Kind {
                bucket: pieces[place(row.place)].bucket,
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
        asked: &Asked<'_>,
    ) -> Result<(), Error> {
        connection::for_hashing(conn).await?;
        let rows = sqlx::query!(
            r#"
            with
            -- far fewer than calls, and all that it depends on
            shapes as materialized (
                select project_id, direction, status, shape::jsonb -> 1 as told_statuses,
                    array_agg(first_event_at) as moments
                from reported_calls
                where first_event_at >= $2 and first_event_at < $3
                    and ($4::text[] is null or project_id = any($4))
                    and ($5::text is null or direction = $5::text::call_direction)
                group by project_id, direction, status, shape
            ),
            skipping as (
                select project_id, moments,
                    array(
                        select known.event_type
                        from reporting.event_types as known
                        where known.direction = shapes.direction
                            and not told_statuses ? known.status::text
                            and (
                                shapes.status = any(known.leads_to)
                                or told_statuses ?| known.leads_to::text[]
                            )
                    ) as skipped
                from shapes
            )
            -- moments are looked at only where something was skipped
            select project_id as "project_id!", event_type as "event_type?",
                width_bucket(moment, $1::timestamptz[]) as "bucket?", count(*) as "calls!"
            from skipping
            left join (
                lateral unnest(skipped) as event_type cross join lateral unnest(moments) as moment
            ) on true
            group by 1, 2, 3
            limit $6
            "#,
            asked.starts,
            asked.from,
            asked.to,
            asked.projects.as_deref() as Option<&[&str]>,
            asked.direction.map(Direction::as_str),
            // a project has one more, for the calls that skipped nothing
            asked.limit(2),
        )
        .fetch_all(conn)
        .await?;
        for row in rows {
            self.projects.insert(row.project_id.clone());
            if let (Some(event_type), Some(bucket)) = (row.event_type, row.bucket) {
                let kind = Kind { bucket: place(bucket), project_id: row.project_id, event_type };
                self.skipped.insert(kind, count(row.calls));
            }
        }
        Ok(())
    }
}

/// What the provider calls the types of events of a direction. Unlike the direction, the type is in
/// the index.
fn types_of(direction: Direction) -> Vec<&'static str> {
    let known = KnownEvent::ALL.iter().filter(|known| known.direction() == direction);
    known.map(|known| known.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn the_pieces_of_a_span_leave_nothing_out_and_each_lies_in_one_bucket() {
        let at = |hours| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        for starts in [vec![at(5)], vec![at(0), at(24), at(47), at(71)], (0..90).map(at).collect()]
        {
            let asked = Asked {
                from: at(5),
                to: at(90),
                starts: &starts,
                projects: None,
                direction: None,
                by_project: true,
                by_direction: false,
                max_rows: 1,
            };
            let pieces = pieces(&asked);
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

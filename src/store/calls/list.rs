//! Lists of calls: filtered, newest first, page by page.
//!
//! A list is in the order of `first_event_at`, and of calls that began at the same
//! time in the order of their numbers; both descending. It is read from one index
//! that the filter chooses ([`Filter`]). Each index begins with the
//! [`ListPartition`] of a call, and each partition
//! is in the order of the list: the first entries of each partition that the filter
//! selects are merged, and only the rows of the page are read.
//!
//! What always holds: a call that is in the list when its first page is read, and
//! while the list is read, is listed once. `first_event_at` only decreases, when a
//! late event happened before all others. So no call is passed over; and a call
//! that was moved by an event stored after the list [began](ListStart) is listed at
//! its former position.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};

use super::{
    filter::{Filter, Source},
    partition::ListPartition,
    row::{CallRow, StoredCall, select_calls},
};
use crate::{
    access::Projects,
    call::{CallId, CallSid, ClientId, ProjectId},
    store::{Error, events::feed},
};

/// The age beyond which a list is read on as one that starts now. The calls that
/// moved since the start are searched for on each page.
const MAX_AGE: TimeDelta = TimeDelta::days(1);

/// The least partition of calls that have ended: the predicate of `calls_of_project`.
const FIRST_ENDED_PARTITION: i16 = 16;

/// The position of a call in any list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPosition {
    /// When its first event happened.
    pub first_event_at: DateTime<Utc>,
    /// The number of the call.
    pub id: i64,
}

/// When a list started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListStart {
    /// The time.
    pub at: DateTime<Utc>,
    /// The last position of the change feed.
    pub feed_position: i64,
}

impl ListStart {
    /// A list that starts now.
    pub async fn now(pool: &PgPool, now: DateTime<Utc>) -> Result<Self, Error> {
        Ok(Self { at: now, feed_position: feed::head(pool).await?.last.position })
    }

    /// The same start, or now if it was too long ago.
    pub async fn unless_too_old(self, pool: &PgPool, now: DateTime<Utc>) -> Result<Self, Error> {
        if self.at < now - MAX_AGE { Self::now(pool, now).await } else { Ok(self) }
    }
}

/// The parameters that all statements share.
struct Parameters<'a> {
    /// At this time or later.
    from: Option<DateTime<Utc>>,
    /// Before this position.
    until: Option<DateTime<Utc>>,
    until_id: i64,
    statuses: Option<Vec<i16>>,
    delivered_by: Option<DateTime<Utc>>,
    projects: Option<Vec<&'a str>>,
    client_id: Option<&'a str>,
    call_sid: Option<&'a str>,
    limit: i64,
}

/// Reads a page. `$source` are rows that lead to calls, and `$condition` selects the
/// calls of one of them. `$first_event_at` is the time by which a call is listed. Calls
/// that an event after `$feed_position` moved are left out.
macro_rules! list {
    (
        $conn:ident, $parameters:ident, $source:literal, $condition:literal,
        $first_event_at:literal, $partitions:expr, $feed_position:expr $(, $argument:expr)*
    ) => {
        select_calls!(
            "
            from (
                select newest.id, newest.first_event_at
                from " $source "
                cross join lateral (
                    select id, " $first_event_at " as first_event_at
                    from calls
                    where " $condition "
                        and (" $first_event_at ", id) < (coalesce($3::timestamptz, 'infinity'), $4)
                        and " $first_event_at " >= coalesce($2::timestamptz, '-infinity')
                        and ($5::smallint[] is null or status = any($5))
                        and ($6::timestamptz is null or last_delivered_at <= $6)
                        and ($9::text[] is null or project_id = any($9))
                        and ($10::text is null or client_id = $10)
                        and (
                            $11::text is null
                            or attempts @> jsonb_build_array(jsonb_build_object('call_sid', $11))
                        )
                        and (
                            id in (select call from events where moves_call and position > $7)
                        ) is not true
                    order by first_event_at desc, id desc
                    limit $8
                ) as newest
                order by newest.first_event_at desc, newest.id desc
                limit $8
            ) as page
            join calls on calls.id = page.id
            order by page.first_event_at desc, page.id desc
            ",
            $partitions,
            $parameters.from,
            $parameters.until,
            $parameters.until_id,
            $parameters.statuses.as_deref() as Option<&[i16]>,
            $parameters.delivered_by,
            $feed_position,
            $parameters.limit,
            $parameters.projects.as_deref() as Option<&[&str]>,
            $parameters.client_id,
            $parameters.call_sid,
            $($argument),*
        )
        .fetch_all(&mut *$conn)
        .await?
    };
}

/// The calls of a list after a position, or the first ones, at most `limit`, each with
/// its position.
#[tracing::instrument(level = "debug", skip_all, fields(limit))]
pub async fn page(
    pool: &PgPool,
    filter: &Filter,
    start: ListStart,
    after: Option<ListPosition>,
    limit: u16,
) -> Result<Vec<(ListPosition, StoredCall)>, Error> {
    let partitions: Vec<i16> = filter.partitions().map(ListPartition::number).collect();
    if partitions.is_empty() || filter.projects == Projects::Only(BTreeSet::new()) {
        return Ok(Vec::new());
    }
    // A call that began at the end of the filter is not listed, whatever its number.
    let is_within =
        |position: &ListPosition| filter.until().is_none_or(|end| position.first_event_at < end);
    let after = after.filter(is_within);
    let parameters = Parameters {
        from: filter.from,
        until: after.map(|position| position.first_event_at).or(filter.until()),
        until_id: after.map_or(i64::MIN, |position| position.id),
        statuses: filter.statuses(),
        delivered_by: filter.delivered_by,
        projects: filter.projects.ids(),
        client_id: filter.client_id.as_ref().map(ClientId::as_str),
        call_sid: filter.call_sid.as_ref().map(CallSid::as_str),
        limit: i64::from(limit),
    };
    // One snapshot, so that a call that changes its partition is not missed in between.
    let mut tx = pool.begin_with("begin isolation level repeatable read, read only").await?;
    let moved = moved(&mut tx, start).await?;
    let mut rows = unmoved(&mut tx, filter, &parameters, &partitions, start).await?;
    if !moved.is_empty() {
        let (ids, times): (Vec<i64>, Vec<DateTime<Utc>>) =
            moved.iter().map(|(id, at)| (*id, *at)).unzip();
        let call_ids: Option<Vec<&str>> =
            filter.call_ids.as_ref().map(|ids| ids.iter().map(CallId::as_str).collect());
        rows.extend(list!(
            tx,
            parameters,
            "unnest($12::bigint[], $13::timestamptz[]) as moved (id, first_event_at)",
            "id = moved.id
                and list_partition = any($1)
                and ($14::text[] is null or call_id = any($14))",
            "moved.first_event_at",
            &partitions,
            i64::MAX,
            &ids,
            &times,
            call_ids.as_deref() as Option<&[&str]>
        ));
    }
    let mut listed = BTreeMap::new();
    for row in rows {
        let stored = StoredCall::try_from(row)?;
        let first_event_at = moved.get(&stored.id).copied().unwrap_or(stored.call.first_event_at);
        listed.insert(ListPosition { first_event_at, id: stored.id }, stored);
    }
    Ok(listed.into_iter().rev().take(usize::from(limit)).collect())
}

/// The calls of a list that have not moved since it started.
async fn unmoved(
    conn: &mut PgConnection,
    filter: &Filter,
    parameters: &Parameters<'_>,
    partitions: &[i16],
    start: ListStart,
) -> Result<Vec<CallRow>, Error> {
    let rows = match filter.source() {
        // Few, each found by the unique index.
        Source::CallIds(call_ids) => {
            let call_ids: Vec<&str> = call_ids.iter().map(CallId::as_str).collect();
            list!(
                conn,
                parameters,
                "unnest($12::text[]) as wanted (call_id)",
                "call_id = wanted.call_id and list_partition = any($1)",
                "first_event_at",
                partitions,
                start.feed_position,
                &call_ids as &[&str]
            )
        }
        // Few. An event may have a call_sid that no attempt of its call has.
        Source::CallSid(call_sid) => list!(
            conn,
            parameters,
            "(
                select distinct call
                from (
                    select call
                    from events
                    where call_sid = $12 and not repeats_call_sid
                    -- not from the index that is in the order of calls
                    offset 0
                ) as events
            ) as dialed",
            "id = dialed.call and list_partition = any($1)",
            "first_event_at",
            partitions,
            start.feed_position,
            call_sid.as_str()
        ),
        Source::Client(client_id) => list!(
            conn,
            parameters,
            "unnest($1::smallint[]) as source (list_partition)",
            "list_partition = source.list_partition and client_id = $12",
            "first_event_at",
            partitions,
            start.feed_position,
            client_id.as_str()
        ),
        Source::Projects(projects) => {
            let projects: Vec<&str> = projects.iter().map(ProjectId::as_str).collect();
            let is_live = |partition: &i16| *partition < FIRST_ENDED_PARTITION;
            let (live, ended): (Vec<i16>, Vec<i16>) = partitions.iter().copied().partition(is_live);
            let mut rows = list!(
                conn,
                parameters,
                "unnest($1::smallint[]) as source (list_partition)
                cross join unnest($12::text[]) as wanted (project_id)",
                "list_partition >= 16
                    and list_partition = source.list_partition
                    and project_id = wanted.project_id",
                "first_event_at",
                &ended,
                start.feed_position,
                &projects as &[&str]
            );
            // Live calls are few, and found by the index of all projects.
            rows.extend(list!(
                conn,
                parameters,
                "unnest($1::smallint[]) as source (list_partition)
                cross join unnest($12::text[]) as wanted (project_id)",
                "list_partition = source.list_partition and project_id = wanted.project_id",
                "first_event_at",
                &live,
                start.feed_position,
                &projects as &[&str]
            ));
            rows
        }
        Source::All => list!(
            conn,
            parameters,
            "unnest($1::smallint[]) as source (list_partition)",
            "list_partition = source.list_partition",
            "first_event_at",
            partitions,
            start.feed_position
        ),
    };
    Ok(rows)
}

/// The calls that have moved since a list started, with their former `first_event_at`.
/// They are few: [`MAX_AGE`] bounds the search. A call that is newer than the list is
/// left out, as it need not be listed.
async fn moved(
    conn: &mut PgConnection,
    start: ListStart,
) -> Result<BTreeMap<i64, DateTime<Utc>>, Error> {
    let rows = sqlx::query!(
        r#"
        select moved.call as "call!", former.first_event_at as "first_event_at!"
        from (
            select distinct call
            from (
                select call
                from events
                where moves_call and position > $1
                -- not from the index that is in the order of calls
                offset 0
            ) as events
        ) as moved
        cross join lateral (
            select min(effective_at) as first_event_at
            from events
            where events.call = moved.call and position <= $1
        ) as former
        where former.first_event_at is not null
        "#,
        start.feed_position,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.call, row.first_event_at)).collect())
}

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

/// The parameters of the statements.
#[derive(Clone)]
struct Parameters<'a> {
    /// The partitions that are merged.
    partitions: Vec<i16>,
    /// At this time or later.
    from: Option<DateTime<Utc>>,
    /// Before this position.
    until: Option<DateTime<Utc>>,
    until_id: i64,
    statuses: Option<Vec<i16>>,
    delivered_by: Option<DateTime<Utc>>,
    /// Calls moved by events after this are listed at their former position.
    feed_position: i64,
    projects: Option<Vec<&'a str>>,
    limit: i64,
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
        partitions,
        from: filter.from,
        until: after.map(|position| position.first_event_at).or(filter.until()),
        until_id: after.map_or(i64::MIN, |position| position.id),
        statuses: filter.statuses(),
        delivered_by: filter.delivered_by,
        feed_position: start.feed_position,
        projects: filter.projects.ids(),
        limit: i64::from(limit),
    };
    // One snapshot, so that a call that changes its partition is not missed in between.
    let mut tx = pool.begin_with("begin isolation level repeatable read, read only").await?;
    let rows = match filter.source() {
        Source::CallIds(call_ids) => of_call_ids(&mut tx, &parameters, filter, call_ids).await?,
        Source::CallSid(call_sid) => of_call_sid(&mut tx, &parameters, filter, call_sid).await?,
        Source::Client(client_id) => of_client(&mut tx, &parameters, client_id).await?,
        Source::Projects(projects) => of_projects(&mut tx, &parameters, projects).await?,
        Source::All => of_all(&mut tx, &parameters).await?,
    };
    let mut listed = BTreeMap::new();
    for row in rows {
        let stored = StoredCall::try_from(row)?;
        let first_event_at = stored.call.first_event_at;
        listed.insert(ListPosition { first_event_at, id: stored.id }, stored);
    }
    for (first_event_at, row) in moved(&mut tx, &parameters, filter).await? {
        let stored = StoredCall::try_from(row)?;
        listed.insert(ListPosition { first_event_at, id: stored.id }, stored);
    }
    Ok(listed.into_iter().rev().take(usize::from(limit)).collect())
}

/// Merges the partitions of an index: `$sources` are what is merged, each row with a
/// `list_partition`, and `$condition` selects the calls of one.
macro_rules! merge_partitions {
    ($sources:literal, $condition:literal, $parameters:ident, $($narrowed:expr),*) => {
        select_calls!(
            "
            from (
                select newest.id
                from " $sources "
                cross join lateral (
                    select id, first_event_at
                    from calls
                    where " $condition "
                        and list_partition = source.list_partition
                        and (first_event_at, id) < (coalesce($3::timestamptz, 'infinity'), $4)
                        and first_event_at >= coalesce($2::timestamptz, '-infinity')
                        and ($5::smallint[] is null or status = any($5))
                        and ($6::timestamptz is null or last_delivered_at <= $6)
                        and (
                            id in (
                                select call from events where moves_call and position > $7
                            )
                        ) is not true
                    order by first_event_at desc, id desc
                    limit $8
                ) as newest
                order by newest.first_event_at desc, newest.id desc
                limit $8
            ) as page
            cross join lateral (
                select *
                from calls
                where id = page.id
                -- one index lookup each, whatever the statistics say
                offset 0
            ) as calls
            ",
            &$parameters.partitions,
            $parameters.from,
            $parameters.until,
            $parameters.until_id,
            $parameters.statuses.as_deref() as Option<&[i16]>,
            $parameters.delivered_by,
            $parameters.feed_position,
            $parameters.limit,
            $($narrowed),*
        )
    };
}

/// Calls of all projects.
async fn of_all(
    conn: &mut PgConnection,
    parameters: &Parameters<'_>,
) -> sqlx::Result<Vec<CallRow>> {
    merge_partitions!(
        "unnest($1::smallint[]) as source (list_partition)",
        "($9::text[] is null or project_id = any($9))",
        parameters,
        parameters.projects.as_deref() as Option<&[&str]>
    )
    .fetch_all(&mut *conn)
    .await
}

/// Calls of these projects. Live calls are few, and found by the index of all projects.
async fn of_projects(
    conn: &mut PgConnection,
    parameters: &Parameters<'_>,
    projects: &BTreeSet<ProjectId>,
) -> sqlx::Result<Vec<CallRow>> {
    let projects: Vec<&str> = projects.iter().map(ProjectId::as_str).collect();
    let is_live = |partition: &i16| *partition < FIRST_ENDED_PARTITION;
    let (live, ended) = parameters.partitions.iter().copied().partition(is_live);
    let parameters = |partitions: Vec<i16>| Parameters { partitions, ..parameters.clone() };
    let (live, ended) = (parameters(live), parameters(ended));
    let mut rows = Vec::new();
    if !ended.partitions.is_empty() {
        rows = merge_partitions!(
            "unnest($1::smallint[]) as source (list_partition)
             cross join unnest($9::text[]) as wanted (project_id)",
            "list_partition >= 16 and project_id = wanted.project_id",
            ended,
            &projects as &[&str]
        )
        .fetch_all(&mut *conn)
        .await?;
    }
    if !live.partitions.is_empty() {
        rows.extend(
            merge_partitions!(
                "unnest($1::smallint[]) as source (list_partition)
                 cross join unnest($9::text[]) as wanted (project_id)",
                "project_id = wanted.project_id",
                live,
                &projects as &[&str]
            )
            .fetch_all(&mut *conn)
            .await?,
        );
    }
    Ok(rows)
}

/// Calls of a client.
async fn of_client(
    conn: &mut PgConnection,
    parameters: &Parameters<'_>,
    client_id: &ClientId,
) -> sqlx::Result<Vec<CallRow>> {
    merge_partitions!(
        "unnest($1::smallint[]) as source (list_partition)",
        "client_id = $9 and ($10::text[] is null or project_id = any($10))",
        parameters,
        client_id.as_str(),
        parameters.projects.as_deref() as Option<&[&str]>
    )
    .fetch_all(&mut *conn)
    .await
}

/// Calls of a `call_sid`: few.
async fn of_call_sid(
    conn: &mut PgConnection,
    parameters: &Parameters<'_>,
    filter: &Filter,
    call_sid: &CallSid,
) -> sqlx::Result<Vec<CallRow>> {
    select_calls!(
        "
        from (
            select distinct call
            from (
                select call
                from events
                where call_sid = $9 and not repeats_call_sid
                -- not from the index that is in the order of calls
                offset 0
            ) as events
        ) as dialed
        cross join lateral (
            select *
            from calls
            where id = dialed.call
            -- one index lookup each, whatever the statistics say
            offset 0
        ) as calls
        where list_partition = any($1)
            and (first_event_at, id) < (coalesce($3::timestamptz, 'infinity'), $4)
            and first_event_at >= coalesce($2::timestamptz, '-infinity')
            and ($5::smallint[] is null or status = any($5))
            and ($6::timestamptz is null or last_delivered_at <= $6)
            and (
                id in (select call from events where moves_call and position > $7)
            ) is not true
            and ($10::text is null or client_id = $10)
            and ($11::text[] is null or project_id = any($11))
            -- an event may have a call_sid that no attempt of its call has
            and attempts @> jsonb_build_array(jsonb_build_object('call_sid', $9))
        order by first_event_at desc, id desc
        limit $8
        ",
        &parameters.partitions,
        parameters.from,
        parameters.until,
        parameters.until_id,
        parameters.statuses.as_deref() as Option<&[i16]>,
        parameters.delivered_by,
        parameters.feed_position,
        parameters.limit,
        call_sid.as_str(),
        filter.client_id.as_ref().map(ClientId::as_str),
        parameters.projects.as_deref() as Option<&[&str]>,
    )
    .fetch_all(&mut *conn)
    .await
}

/// Calls by their ids: few, each found by the unique index.
async fn of_call_ids(
    conn: &mut PgConnection,
    parameters: &Parameters<'_>,
    filter: &Filter,
    call_ids: &BTreeSet<CallId>,
) -> sqlx::Result<Vec<CallRow>> {
    let call_ids: Vec<&str> = call_ids.iter().map(CallId::as_str).collect();
    select_calls!(
        "
        from unnest($9::text[]) as wanted (call_id)
        cross join lateral (
            select *
            from calls
            where call_id = wanted.call_id
                and ($10::text[] is null or project_id = any($10))
            -- one index lookup each, whatever the statistics say
            offset 0
        ) as calls
        where list_partition = any($1)
            and (first_event_at, id) < (coalesce($3::timestamptz, 'infinity'), $4)
            and first_event_at >= coalesce($2::timestamptz, '-infinity')
            and ($5::smallint[] is null or status = any($5))
            and ($6::timestamptz is null or last_delivered_at <= $6)
            and (
                id in (select call from events where moves_call and position > $7)
            ) is not true
            and ($11::text is null or client_id = $11)
            and (
                $12::text is null
                or attempts @> jsonb_build_array(jsonb_build_object('call_sid', $12))
            )
        order by first_event_at desc, id desc
        limit $8
        ",
        &parameters.partitions,
        parameters.from,
        parameters.until,
        parameters.until_id,
        parameters.statuses.as_deref() as Option<&[i16]>,
        parameters.delivered_by,
        parameters.feed_position,
        parameters.limit,
        &call_ids as &[&str],
        parameters.projects.as_deref() as Option<&[&str]>,
        filter.client_id.as_ref().map(ClientId::as_str),
        filter.call_sid.as_ref().map(CallSid::as_str),
    )
    .fetch_all(&mut *conn)
    .await
}

/// The calls of a list that have moved since it started, with their former
/// `first_event_at`. They are few: [`MAX_AGE`] bounds the search.
async fn moved(
    conn: &mut PgConnection,
    parameters: &Parameters<'_>,
    filter: &Filter,
) -> Result<Vec<(DateTime<Utc>, CallRow)>, Error> {
    let former: BTreeMap<i64, DateTime<Utc>> = sqlx::query!(
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
        -- a call that is newer than the list need not be in it
        where former.first_event_at is not null
        "#,
        parameters.feed_position,
    )
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .map(|row| (row.call, row.first_event_at))
    .collect();
    if former.is_empty() {
        return Ok(Vec::new());
    }
    let until = (parameters.until.unwrap_or(DateTime::<Utc>::MAX_UTC), parameters.until_id);
    let from = parameters.from.unwrap_or(DateTime::<Utc>::MIN_UTC);
    let mut listed: Vec<(DateTime<Utc>, i64)> = former
        .iter()
        .map(|(id, at)| (*at, *id))
        .filter(|position| position.0 >= from && *position < until)
        .collect();
    listed.sort_unstable_by(|a, b| b.cmp(a));
    let listed: Vec<i64> = listed.into_iter().map(|(_, id)| id).collect();
    let call_ids: Option<Vec<&str>> =
        filter.call_ids.as_ref().map(|ids| ids.iter().map(CallId::as_str).collect());
    let rows = select_calls!(
        "
        from unnest($1::bigint[]) with ordinality as listed (id, number)
        cross join lateral (
            select *
            from calls
            where id = listed.id
            -- one index lookup each, whatever the statistics say
            offset 0
        ) as calls
        where list_partition = any($2)
            and ($9::text[] is null or call_id = any($9))
            and ($3::smallint[] is null or status = any($3))
            and ($4::timestamptz is null or last_delivered_at <= $4)
            and ($5::text[] is null or project_id = any($5))
            and ($6::text is null or client_id = $6)
            and (
                $7::text is null
                or attempts @> jsonb_build_array(jsonb_build_object('call_sid', $7))
            )
        order by listed.number
        limit $8
        ",
        &listed,
        &parameters.partitions,
        parameters.statuses.as_deref() as Option<&[i16]>,
        parameters.delivered_by,
        parameters.projects.as_deref() as Option<&[&str]>,
        filter.client_id.as_ref().map(ClientId::as_str),
        filter.call_sid.as_ref().map(CallSid::as_str),
        parameters.limit,
        call_ids.as_deref() as Option<&[&str]>,
    )
    .fetch_all(&mut *conn)
    .await?;
    Ok(rows.into_iter().filter_map(|row| Some((*former.get(&row.id)?, row))).collect())
}

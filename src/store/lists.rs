//! Lists of calls: filtered, newest first, page by page.
//!
//! A list is in the order of `first_event_at`, and of calls that began at the
//! same time in the order of their keys; both descending. It is read from one
//! index that the filter chooses ([`Filter`]), in each of which the calls stand
//! on shelves ([`super::shelf`]): a shelf is in the order of the list, so the
//! shelves that a filter leaves are merged, and no more is read of each than is
//! shown. Only the calls of some projects that are under way are picked out of those
//! of all projects.
//!
//! What always holds: a call that is in the list when its first page is read,
//! and as long as the list is read, comes once. The place of a call only ever
//! moves back, when an event comes late that happened before all that it had. So
//! none is passed over; and lest one come again, a call that was moved by a
//! transaction that was not over when the list was [begun](Beginning) is listed
//! where it stood then.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::{
    Error,
    bucket::Buckets,
    calls::{CallRow, MovedRow, StoredCall, select_calls},
    filter::Source,
    shelf::{self, Shelf},
};
use crate::{
    access::Projects,
    call::{CallKey, CallSid, ClientId, Direction, ProjectId, Status},
};

pub use super::filter::Filter;

/// How long ago a list may have been begun; the rest of an older one is read as a
/// list that begins now. So much has to be looked through for calls that have
/// moved since.
const MAX_AGE: TimeDelta = TimeDelta::days(1);

/// How many transactions under way are told apart. Those that began after more than
/// that pass for not begun.
pub const MAX_RUNNING: u8 = 100;

/// The place of a call in any list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When its first event happened.
    pub first_event_at: DateTime<Utc>,
    /// The call.
    pub key: CallKey,
}

/// When a list was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The time.
    pub at: DateTime<Utc>,
    /// The first transaction that had not begun, counted as in the table `events`.
    pub next: i64,
    /// Those before it that were under way, at most [`MAX_RUNNING`].
    pub running: Vec<i64>,
}

impl Beginning {
    /// A list that begins now.
    ///
    /// # Errors
    ///
    /// Where the database cannot be asked.
    pub async fn now(pool: &PgPool, now: DateTime<Utc>) -> Result<Self, Error> {
        let row = sqlx::query!(
            r#"
            select
                pg_snapshot_xmax(snapshot)::text::bigint + transaction_offset as "next!",
                array(
                    select transaction::text::bigint + transaction_offset
                    from pg_snapshot_xip(snapshot) as transaction
                    -- what is under way since before the epoch stores nothing in it
                    where transaction::text::bigint + transaction_offset >= begins_at
                    order by 1
                ) as "running!"
            from pg_current_snapshot() as snapshot
            cross join (
                select coalesce(max(transaction_offset), 0) as transaction_offset,
                    coalesce(max(begins_at), 0) as begins_at
                from (select * from stream_epochs order by epoch desc limit 1) as latest
            ) as epoch
            "#
        )
        .fetch_one(pool)
        .await?;
        let mut beginning = Self { at: now, next: row.next, running: row.running };
        if let Some(next) = beginning.running.get(usize::from(MAX_RUNNING)) {
            beginning.next = *next;
            beginning.running.truncate(MAX_RUNNING.into());
        }
        Ok(beginning)
    }

    /// The same, or now, if that was too long ago.
    ///
    /// # Errors
    ///
    /// Where the database cannot be asked.
    pub async fn unless_too_old(self, pool: &PgPool, now: DateTime<Utc>) -> Result<Self, Error> {
        if self.at < now - MAX_AGE { Self::now(pool, now).await } else { Ok(self) }
    }

    /// The first transaction that was not over.
    fn horizon(&self) -> i64 {
        self.running.iter().copied().min().unwrap_or(self.next)
    }
}

/// What each statement is asked with.
struct Asked<'a> {
    buckets: Vec<i32>,
    /// Of each shelf that there is; null where it is not wanted.
    outcomes: Vec<Option<&'static str>>,
    marks: Vec<Option<i16>>,
    /// In it and after it.
    from: Option<DateTime<Utc>>,
    /// Before this place.
    until: Option<DateTime<Utc>>,
    call_id: &'a str,
    project_id: &'a str,
    statuses: Option<Vec<&'static str>>,
    delivered_by: Option<DateTime<Utc>>,
    /// Moved by none of these transactions: this and later ones, and those.
    next: i64,
    running: &'a [i64],
    limit: i64,
}

/// The calls of a list after a place, or the first ones, at most `limit`, each with
/// the place where it is listed.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub async fn page(
    pool: &PgPool,
    buckets: Buckets,
    filter: &Filter,
    beginning: &Beginning,
    after: Option<&Place>,
    limit: u16,
) -> Result<Vec<(Place, StoredCall)>, Error> {
    // Each in its place, as a statement has them.
    let wanted: BTreeSet<Shelf> = filter.shelves().collect();
    let shelves: Vec<Option<Shelf>> =
        shelf::all().map(|shelf| wanted.contains(&shelf).then_some(shelf)).collect();
    if wanted.is_empty() || filter.projects == Projects::Only(BTreeSet::new()) {
        return Ok(Vec::new());
    }
    // What began at the end of the filter is not listed, whatever its key.
    let ends_first = |place: &&Place| filter.until().is_none_or(|end| place.first_event_at < end);
    let after = after.filter(ends_first);
    let asked = Asked {
        buckets: buckets.all(),
        outcomes: shelves.iter().map(|it| it.map(|shelf| shelf.outcome.as_str())).collect(),
        marks: shelves.iter().map(|it| it.map(Shelf::marks)).collect(),
        from: filter.from,
        until: after.map(|place| place.first_event_at).or(filter.until()),
        call_id: after.map_or("", |place| place.key.call_id.as_str()),
        project_id: after.map_or("", |place| place.key.project_id.as_str()),
        statuses: filter.statuses(),
        delivered_by: filter.delivered_by,
        next: beginning.next,
        running: &beginning.running,
        limit: i64::from(limit),
    };
    let rows = match filter.source() {
        Source::Dial(call_sid) => of_dial(pool, &asked, filter, call_sid).await?,
        Source::Client(client_id) => of_client(pool, &asked, filter, client_id).await?,
        Source::Projects(projects) => of_projects(pool, &asked, projects).await?,
        Source::All => of_all(pool, &asked, filter).await?,
    };
    let mut listed = BTreeMap::new();
    for row in rows {
        let stored = StoredCall::try_from(row)?;
        let first_event_at = stored.call.first_event_at;
        listed.insert(Place { first_event_at, key: stored.key.clone() }, stored);
    }
    // Read after the others: what moves in between was listed where it stood, and is found there
    // again.
    for row in moved(pool, &asked, beginning.horizon(), filter).await? {
        let (stood_at, row) = row.split();
        let stored = StoredCall::try_from(row)?;
        listed.insert(Place { first_event_at: stood_at, key: stored.key.clone() }, stored);
    }
    Ok(listed.into_iter().rev().take(usize::from(limit)).collect())
}

/// Merges the shelves of an index: `$of` names the index by its columns, `$ended`
/// by its condition, and `$from` what is merged for each of.
///
/// A statement has an arm for each shelf that there is, in the order of
/// [`shelf::all`]: first those of calls that have not ended, for which a
/// condition of the index does not hold. One that the filter does not leave is
/// null, and not looked at.
macro_rules! merge_shelves {
    ($from:literal, $of:literal, $ended:literal, $asked:ident, $($narrowed:expr),+) => {
        merge_shelves!(@ [
            "1" "" "2" "" "3" "" "4" "" "5" "" "6" "" "7" "" "8" "" "9" "" "10" "" "11" "" "12" ""
            "13" $ended "14" $ended "15" $ended "16" $ended "17" $ended "18" $ended "19" $ended
            "20" $ended "21" $ended "22" $ended "23" $ended "24" $ended "25" $ended "26" $ended
            "27" $ended "28" $ended "29" $ended "30" $ended "31" $ended "32" $ended "33" $ended
            "34" $ended "35" $ended "36" $ended "37" $ended "38" $ended "39" $ended "40" $ended
            "41" $ended "42" $ended "43" $ended "44" $ended "45" $ended "46" $ended "47" $ended
            "48" $ended "49" $ended "50" $ended "51" $ended "52" $ended "53" $ended "54" $ended
            "55" $ended "56" $ended
        ], $from, $of, $asked, $($narrowed),+)
    };
    (
        @ [$($shelf:literal $condition:literal)+],
        $from:literal, $of:literal, $asked:ident, $($narrowed:expr),+
    ) => {
        select_calls!(
            "from " $from " cross join lateral ("
            $("(
                select * from calls
                where bucket = wanted_bucket and " $of $condition "
                    and outcome = ($2::text[])[" $shelf "]::call_status
                    and marks = ($3::smallint[])[" $shelf "]
                    and (first_event_at, call_id, project_id)
                        < (coalesce($5::timestamptz, 'infinity'), $6::text, $7::text)
                    and first_event_at >= coalesce($4::timestamptz, '-infinity')
                    and ($8::text[] is null or status::text = any($8))
                    and ($9::timestamptz is null or last_delivered_at <= $9)
                    and (moved_in is null or moved_in < $10 and moved_in <> all($11::bigint[]))
                order by first_event_at desc, call_id desc, project_id desc
            )
            ")"union all"+
            "
                order by first_event_at desc, call_id desc, project_id desc
                limit $12
            ) as calls
            order by calls.first_event_at desc, calls.call_id desc, calls.project_id desc
            limit $12
            ",
            &$asked.buckets,
            &$asked.outcomes as &[Option<&str>],
            &$asked.marks as &[Option<i16>],
            $asked.from,
            $asked.until,
            $asked.call_id,
            $asked.project_id,
            $asked.statuses.as_deref() as Option<&[&str]>,
            $asked.delivered_by,
            $asked.next,
            $asked.running,
            $asked.limit,
            $($narrowed),+
        )
    };
}

/// Calls of all projects.
async fn of_all(pool: &PgPool, asked: &Asked<'_>, filter: &Filter) -> sqlx::Result<Vec<CallRow>> {
    let projects = filter.projects.ids();
    merge_shelves!(
        "unnest($1::int[]) as wanted_bucket",
        "($13::text[] is null or project_id = any($13))",
        "",
        asked,
        projects as Option<Vec<&str>>
    )
    .fetch_all(pool)
    .await
}

/// Calls of these projects.
async fn of_projects(
    pool: &PgPool,
    asked: &Asked<'_>,
    projects: &BTreeSet<ProjectId>,
) -> sqlx::Result<Vec<CallRow>> {
    let projects: Vec<&str> = projects.iter().map(ProjectId::as_str).collect();
    merge_shelves!(
        "unnest($1::int[]) as wanted_bucket cross join unnest($13::text[]) as wanted_project",
        "project_id = wanted_project",
        " and outcome >= 'ERROR'",
        asked,
        &projects as &[&str]
    )
    .fetch_all(pool)
    .await
}

/// Calls of a party.
async fn of_client(
    pool: &PgPool,
    asked: &Asked<'_>,
    filter: &Filter,
    client_id: &ClientId,
) -> sqlx::Result<Vec<CallRow>> {
    let projects = filter.projects.ids();
    merge_shelves!(
        "unnest($1::int[]) as wanted_bucket",
        "md5(client_id) = md5($13) and client_id = $13 and ($14::text[] is null or project_id = any($14))",
        "",
        asked,
        client_id.as_str(),
        projects as Option<Vec<&str>>
    )
    .fetch_all(pool)
    .await
}

/// Picks calls out of few, which come from `$from`, as `$row` with `$more` columns.
macro_rules! pick {
    ($row:ident: $more:literal, $from:literal, $of:literal, $order:literal, $asked:ident, $filter:ident, $($narrowed:expr),+) => {
        select_calls!(
            $row: $more,
            $from "
            where exists (
                    select from unnest($2::text[], $3::smallint[]) as shelf (outcome, marks)
                    where shelf.outcome = calls.outcome::text and shelf.marks = calls.marks
                )
                and ($8::text[] is null or calls.status::text = any($8))
                and ($9::timestamptz is null or calls.last_delivered_at <= $9)
                and calls.first_event_at >= coalesce($4::timestamptz, '-infinity')
                and ($13::text[] is null or calls.project_id = any($13))
                and ($14::text is null or calls.client_id = $14)
                and (" $order ", calls.call_id, calls.project_id)
                    < (coalesce($5::timestamptz, 'infinity'), $6::text, $7::text)
                and " $of "
            order by " $order " desc, calls.call_id desc, calls.project_id desc
            limit $12
            ",
            &$asked.buckets,
            &$asked.outcomes as &[Option<&str>],
            &$asked.marks as &[Option<i16>],
            $asked.from,
            $asked.until,
            $asked.call_id,
            $asked.project_id,
            $asked.statuses.as_deref() as Option<&[&str]>,
            $asked.delivered_by,
            $asked.next,
            $asked.running,
            $asked.limit,
            $filter.projects.ids() as Option<Vec<&str>>,
            $filter.client_id.as_ref().map(ClientId::as_str),
            $($narrowed),+
        )
    };
}

/// Calls of a dial.
async fn of_dial(
    pool: &PgPool,
    asked: &Asked<'_>,
    filter: &Filter,
    call_sid: &CallSid,
) -> sqlx::Result<Vec<CallRow>> {
    pick!(
        CallRow: "",
        "
        from (
            select distinct bucket, call_id, project_id
            from events
            where bucket = any($1) and call_sid = $15 and not repeats_dial
        ) as dialled
        cross join lateral (
            select *
            from calls
            where bucket = dialled.bucket and call_id = dialled.call_id
                and project_id = dialled.project_id
            -- looked up one by one, whatever the statistics say
            offset 0
        ) as calls
        ",
        "
        -- an event may be about a dial that is none of the call's
        callstate_attempts(attempts_before, attempts)
            @> jsonb_build_array(jsonb_build_object('call_sid', $15))
        and (moved_in is null or moved_in < $10 and moved_in <> all($11::bigint[]))
        ",
        "calls.first_event_at",
        asked,
        filter,
        call_sid.as_str()
    )
    .fetch_all(pool)
    .await
}

/// Calls that have moved since, by where they stood: no more than a page of them.
/// All that have are looked at, which [`MAX_AGE`] bounds: a bound by number would
/// pass some over.
async fn moved(
    pool: &PgPool,
    asked: &Asked<'_>,
    horizon: i64,
    filter: &Filter,
) -> sqlx::Result<Vec<MovedRow>> {
    let call_sid = filter.call_sid.as_ref().map(CallSid::as_str);
    pick!(
        MovedRow: r#", stood.first_event_at as "stood_at!" "#,
        "
        from (
            select *
            from calls
            where bucket = any($1) and moved_in >= $16
                and (moved_in >= $10 or moved_in = any($11::bigint[]))
            -- the few first, whatever the statistics say
            offset 0
        ) as calls
        cross join lateral (
            select coalesce(min(effective_at), calls.first_event_at) as first_event_at
            from events
            where bucket = calls.bucket and call_id = calls.call_id
                and project_id = calls.project_id
                and transaction < $10 and transaction <> all($11::bigint[])
        ) as stood
        ",
        "
        (
            $15::text is null
            or callstate_attempts(attempts_before, attempts)
                @> jsonb_build_array(jsonb_build_object('call_sid', $15))
        )
        ",
        "stood.first_event_at",
        asked,
        filter,
        call_sid,
        horizon
    )
    .fetch_all(pool)
    .await
}

//! The order in which events were stored, and reading on in it.
//!
//! An event's place in that order is the transaction that stored it and its
//! place within: a [`Bookmark`]. Transactions commit in another order than they
//! begin, so one may read only up to the [horizon](View::settled): what lies
//! before it is there or never will be, and nothing appears in front of a
//! bookmark any more. Who only wants to know which calls have ended need not
//! wait for the horizon ([`ended_calls`]).
//!
//! Postgres counts transactions anew where a dump is restored, and takes numbers
//! again after a failover that lost some; a bookmark of another
//! [epoch](mod@epoch) leads to what came since and never past it. It takes them
//! again after a crash too, those that were not on disk; so a bookmark is never set
//! further than something is stored.

use std::{io, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{
    PgConnection, PgExecutor, PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use uuid::Uuid;

use super::{
    Error,
    bucket::Buckets,
    codec::{Row, count, key},
    connection::for_reading_on,
    epoch::{self, History},
};
use crate::call::{CallId, CallKey, Direction, Disposition, Status};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one is kept that nobody uses.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// What the write statement notifies: that there is something to read.
const CHANNEL: &str = "callstate_stored";

/// A place in the order in which events were stored. Only those of one epoch have
/// an order: [`resume`] says where one of another leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bookmark {
    /// The epoch in which it was set.
    pub epoch: epoch::Name,
    /// The transaction.
    pub transaction: i64,
    /// The place within the transaction.
    pub place: i32,
}

impl Bookmark {
    /// The place behind a transaction.
    fn behind(epoch: epoch::Name, transaction: i64) -> Self {
        Self { epoch, transaction, place: i32::MAX }
    }
}

/// What is told of an event: it, and its call as it stood once it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it stands.
    pub at: Bookmark,
    /// The call.
    pub key: CallKey,
    /// Who dialled, as far as was known.
    pub direction: Option<Direction>,
    /// Where the call stood.
    pub status: Status,
    /// How many attempts it had.
    pub attempt_count: u32,
    /// Whether any of its events had carried errors.
    pub has_errors: bool,
    /// The event.
    pub event_id: Uuid,
    /// What the provider calls it.
    pub event_type: String,
    /// What it did.
    pub disposition: Disposition,
    /// When the newest event of the call had been received.
    pub updated_at: DateTime<Utc>,
}

/// Which transactions are over, at one moment.
#[derive(Debug, Clone)]
pub struct View {
    epoch: epoch::Name,
    /// The last transaction before the horizon, the first that is under way, that
    /// stored an event.
    settled: i64,
    /// The first that had not begun.
    next: i64,
    /// Those before it that are under way.
    running: Vec<i64>,
    /// Whether events beyond the horizon are committed, so that reading on is
    /// worth while as soon as it moves.
    pub is_held: bool,
}

impl View {
    /// How far may be read: what lies before is there or never will be. It is behind
    /// an event, not at the horizon: a number that nothing is stored with may come
    /// again after a crash of the server.
    #[must_use]
    pub fn settled(&self) -> Bookmark {
        Bookmark::behind(self.epoch, self.settled)
    }

    /// Whether a bookmark can have been set by now.
    #[must_use]
    pub fn is_behind(&self, bookmark: Bookmark) -> bool {
        bookmark.transaction < self.next
    }
}

/// Where to read on from a bookmark that may be of another epoch. There must have
/// been an [epoch](mod@epoch).
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn resume(executor: impl PgExecutor<'_>, bookmark: Bookmark) -> Result<Bookmark, Error> {
    let history = History::read(executor).await?;
    let present = history.present().ok_or(sqlx::Error::RowNotFound)?;
    let moved = Bookmark { epoch: present, ..bookmark };
    // What its epoch had beyond is lost; what has these numbers now is new to its bearer.
    let parting = history.parts_from(bookmark.epoch);
    let end = parting.map(|begins_at| Bookmark::behind(present, begins_at - 1));
    Ok(end.map_or(moved, |end| moved.min(end)))
}

/// Which transactions are over. There must have been an [epoch](mod@epoch).
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn view(executor: impl PgExecutor<'_>, buckets: Buckets) -> Result<View, Error> {
    let view = sqlx::query!(
        r#"
        select epoch, begun_at, next as "next!", running as "running!",
            (
                select coalesce(max(stored.transaction), 0)
                from unnest($1::int[]) as buckets (bucket)
                cross join lateral (
                    select transaction
                    from events
                    where events.bucket = buckets.bucket and transaction < horizon
                    order by transaction desc
                    limit 1
                ) as stored
            ) as "settled!",
            exists (
                select
                from unnest($1::int[]) as buckets (bucket)
                cross join lateral (
                    select
                    from events
                    where events.bucket = buckets.bucket and transaction >= horizon
                    limit 1
                ) as beyond
            ) as "is_held!"
        from (
            select epoch, begun_at,
                -- whatever is under way since before the epoch stores nothing in it
                greatest(pg_snapshot_xmin(snapshot)::text::bigint + transaction_offset, begins_at)
                    as horizon,
                pg_snapshot_xmax(snapshot)::text::bigint + transaction_offset as next,
                array(
                    select transaction::text::bigint + transaction_offset
                    from pg_snapshot_xip(snapshot) as transaction
                ) as running
            from stream_epochs
            cross join pg_current_snapshot() as snapshot
            order by epoch desc
            limit 1
        ) as present
        "#,
        &buckets.all(),
    )
    .fetch_one(executor)
    .await?;
    Ok(View {
        epoch: epoch::Name { number: view.epoch, begun_at: view.begun_at },
        settled: view.settled,
        next: view.next,
        running: view.running,
        is_held: view.is_held,
    })
}

/// A row of `events`, as far as a stream is concerned.
struct MessageRow {
    transaction: i64,
    place: i32,
    call_id: String,
    project_id: String,
    event_id: Uuid,
    event_type: String,
    disposition: Disposition,
    received_at: DateTime<Utc>,
    call_direction: Option<Direction>,
    call_status: Option<Status>,
    call_attempt_count: Option<i32>,
    call_has_errors: Option<bool>,
    call_updated_at: Option<DateTime<Utc>>,
}

impl MessageRow {
    fn at(&self, epoch: epoch::Name) -> Bookmark {
        Bookmark { epoch, transaction: self.transaction, place: self.place }
    }

    fn read(self, epoch: epoch::Name) -> Result<Message, Error> {
        let bookmark = self.at(epoch);
        let key = key("events", self.project_id, self.call_id)?;
        let at = Row { table: "events", key: &key };
        let missing = |column| at.corrupt(column, "is null");
        let attempts =
            self.call_attempt_count.ok_or_else(|| missing("call_attempt_count")).map(count)?;
        Ok(Message {
            at: bookmark,
            direction: self.call_direction,
            status: self.call_status.ok_or_else(|| missing("call_status"))?,
            attempt_count: at.read("call_attempt_count", attempts)?,
            has_errors: self.call_has_errors.ok_or_else(|| missing("call_has_errors"))?,
            event_id: self.event_id,
            event_type: self.event_type,
            disposition: self.disposition,
            updated_at: self.call_updated_at.unwrap_or(self.received_at),
            key,
        })
    }
}

/// What was read on from a bookmark.
#[derive(Debug)]
pub struct Stretch {
    /// In order. A row that cannot be is an error of its own, since the others are
    /// to be told all the same.
    pub messages: Vec<Result<Message, Error>>,
    /// Up to where it was read, whether what is there can be told or not.
    pub last: Bookmark,
}

/// What was stored after one bookmark and up to another of the same epoch, the
/// first `limit`; of one id only, where it is given. It wants one of the
/// [`connections`] for that.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn messages(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    after: Bookmark,
    up_to: Bookmark,
    of_call: Option<&CallId>,
    limit: u16,
) -> Result<Stretch, Error> {
    let rows = match of_call {
        None => all(executor, buckets, after, up_to, limit).await?,
        Some(call_id) => of_id(executor, buckets, call_id, after, up_to, limit).await?,
    };
    let is_cut = rows.len() >= limit.into();
    let last = rows.last().filter(|_| is_cut).map_or(up_to, |row| row.at(up_to.epoch));
    Ok(Stretch { messages: rows.into_iter().map(|row| row.read(up_to.epoch)).collect(), last })
}

async fn all(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    after: Bookmark,
    up_to: Bookmark,
    limit: u16,
) -> Result<Vec<MessageRow>, Error> {
    let rows = sqlx::query_as!(
        MessageRow,
        r#"
        select stored.transaction, place, call_id, project_id, event_id, event_type,
            disposition as "disposition: Disposition", received_at,
            call_direction as "call_direction: Direction", call_status as "call_status: Status",
            call_attempt_count, call_has_errors, call_updated_at
        from unnest($1::int[]) as buckets (bucket)
        cross join lateral (
            select events.transaction, place, call_id, project_id, event_id, event_type,
                disposition, received_at, call_direction, call_status, call_attempt_count,
                call_has_errors, call_updated_at
            from events
            -- the first two for the index, the others within the transactions at both ends
            where events.bucket = buckets.bucket
                and events.transaction between $2 and $4
                and (events.transaction, place) > ($2, $3)
                and (events.transaction, place) <= ($4, $5)
            order by events.transaction, place
            limit $6
        ) as stored
        order by stored.transaction, place
        limit $6
        "#,
        &buckets.all(),
        after.transaction,
        after.place,
        up_to.transaction,
        up_to.place,
        i64::from(limit),
    )
    .fetch_all(executor)
    .await?;
    Ok(rows)
}

async fn of_id(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    call_id: &CallId,
    after: Bookmark,
    up_to: Bookmark,
    limit: u16,
) -> Result<Vec<MessageRow>, Error> {
    let rows = sqlx::query_as!(
        MessageRow,
        r#"
        select transaction, place, call_id, project_id, event_id, event_type,
            disposition as "disposition: Disposition", received_at,
            call_direction as "call_direction: Direction", call_status as "call_status: Status",
            call_attempt_count, call_has_errors, call_updated_at
        from (
            select *
            from events
            where bucket = any($1) and call_id = $2
            -- found by their key: a call has few events, a stream many
            offset 0
        ) as events
        where (transaction, place) > ($3, $4) and (transaction, place) <= ($5, $6)
            and transaction > 0
        order by transaction, place
        limit $7
        "#,
        &buckets.all(),
        call_id.as_str(),
        after.transaction,
        after.place,
        up_to.transaction,
        up_to.place,
        i64::from(limit),
    )
    .fetch_all(executor)
    .await?;
    Ok(rows)
}

/// The ids of calls that were brought to a terminal status by what was committed
/// since a view, or is beyond the horizon still.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub async fn ended_calls(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    since: &View,
) -> Result<Vec<CallId>, Error> {
    let terminal: Vec<&str> =
        Status::ALL.iter().filter(|it| it.is_terminal()).map(|it| it.as_str()).collect();
    let ids = sqlx::query_scalar!(
        r#"
        select distinct call_id as "call_id!"
        from unnest($1::int[]) as buckets (bucket)
        cross join lateral (
            select call_id
            from events
            where events.bucket = buckets.bucket and transaction >= $2
                and call_status = any($4::text[]::call_status[])
            union all
            -- those that were under way
            select call_id
            from events
            where events.bucket = buckets.bucket and transaction = any($3)
                and call_status = any($4::text[]::call_status[])
        ) as ended
        "#,
        &buckets.all(),
        since.next,
        &since.running,
        &terminal as &[&str],
    )
    .fetch_all(executor)
    .await?;
    ids.into_iter()
        .map(|call_id| {
            let row = format!("call {call_id}");
            CallId::new(call_id).map_err(|problem| Error::Corrupt {
                table: "events",
                column: "call_id",
                row,
                problem: problem.to_string(),
            })
        })
        .collect()
}

/// Connections to read on by: so many, each when it is needed.
#[must_use]
pub fn connections(options: &PgConnectOptions, most: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(CONNECT_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(for_reading_on(connection)))
        .connect_lazy_with(options.clone())
}

/// A connection that hears of what is stored, by any instance.
#[derive(Debug)]
pub struct Listener {
    /// It is what a [`PgListener`] wants its one connection from.
    pool: PgPool,
    listener: PgListener,
}

impl Listener {
    /// Connects and listens.
    ///
    /// # Errors
    ///
    /// Where the database refuses.
    pub async fn connect(options: &PgConnectOptions) -> Result<Self, Error> {
        let pool = connections(options, 1);
        let mut listener = PgListener::connect_with(&pool).await?;
        // What a lost connection missed is for its owner to look up.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(Self { pool, listener })
    }

    /// Waits until there may be something to read. Others may be waited for
    /// besides.
    ///
    /// # Errors
    ///
    /// Where the connection is lost.
    pub async fn hint(&mut self) -> Result<(), Error> {
        match self.listener.try_recv().await? {
            Some(_) => Ok(()),
            None => Err(sqlx::Error::Io(io::ErrorKind::ConnectionAborted.into()).into()),
        }
    }

    /// Forgets what it heard until now, as that is about to be read.
    pub fn forget_hints(&mut self) {
        while self.listener.next_buffered().is_some() {}
    }

    /// The connection, to ask by.
    ///
    /// # Errors
    ///
    /// Where it is lost.
    pub async fn connection(&mut self) -> Result<&mut PgConnection, Error> {
        Ok(sqlx::Acquire::acquire(&mut self.listener).await?)
    }

    /// Ends it in order.
    pub async fn close(self) {
        drop(self.listener);
        self.pool.close().await;
    }
}

//! The change feed: events in the order of their commits.
//!
//! The write statement numbers events under the lock of the one row of `feed` and
//! holds the lock to the commit. So positions become visible in order, and a reader
//! that has read up to `n` misses nothing by reading on from there. A transaction that
//! is rolled back and a deletion leave gaps; no position is used twice.

use std::{fmt, io, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{
    PgConnection, PgExecutor, PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use uuid::Uuid;

use super::row::select_events;
use crate::{
    call::{CallId, CallKey, Direction, Disposition, Status},
    store::{Error, codec::key, connection::for_reading_on},
};

/// How long establishing a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// The channel that the write statement notifies.
const CHANNEL: &str = "callstate_stored";

/// A position in a feed. Only positions of one feed have an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedPosition {
    /// The feed.
    pub feed_id: i64,
    /// The position of an event, 0 before the first.
    pub position: i64,
}

impl fmt::Display for FeedPosition {
    /// As clients see it: the feed in hexadecimal and the number of the event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.feed_id, self.position)
    }
}

impl FromStr for FeedPosition {
    type Err = InvalidPosition;

    /// Reads a position exactly as it is written.
    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let read = || {
            let (feed_id, position) = text.split_once('-')?;
            let feed_id = i64::from_str_radix(feed_id, 16).ok()?;
            Some(Self { feed_id, position: position.parse().ok()? })
        };
        read().filter(|read| read.position >= 0 && read.to_string() == text).ok_or(InvalidPosition)
    }
}

/// The text is not a position of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position of the change feed, such as 1f0c53a8d2e4-872")]
pub struct InvalidPosition;

/// Why a feed cannot be continued from a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discontinuity {
    /// The position belongs to another feed: the database was restored from a copy
    /// and marked as such, or it is another database.
    OtherFeed,
    /// The position is beyond the end of the feed: the database lost events.
    BeyondHead,
}

/// The end of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedHead {
    /// The position of the last event that is committed.
    pub last: FeedPosition,
    /// The last position that a writer has taken, even if its event was not committed or
    /// was deleted.
    pub last_used: i64,
}

impl FeedHead {
    /// Whether the feed cannot be continued from a position, and why.
    #[must_use]
    pub fn discontinuity(self, position: FeedPosition) -> Option<Discontinuity> {
        if position.feed_id != self.last.feed_id {
            Some(Discontinuity::OtherFeed)
        } else if position.position > self.last_used {
            Some(Discontinuity::BeyondHead)
        } else {
            None
        }
    }
}

/// The end of the feed.
#[tracing::instrument(level = "trace", skip_all)]
pub async fn head(executor: impl PgExecutor<'_>) -> Result<FeedHead, Error> {
    let row = sqlx::query!(
        r#"
        select feed_id as "feed_id!", position as "position!", last_used as "last_used!"
        from feed_head
        "#
    )
    .fetch_one(executor)
    .await?;
    let last = FeedPosition { feed_id: row.feed_id, position: row.position };
    Ok(FeedHead { last, last_used: row.last_used })
}

/// Gives the feed a new identity, after the database was restored from a copy that
/// lacks events which readers may have seen, and notifies the readers.
pub async fn renew(conn: &mut PgConnection) -> Result<FeedPosition, Error> {
    sqlx::query!(
        r#"
        with renewed as (
            update feed
            set feed_id = (
                'x' || left(replace(gen_random_uuid()::text, '-', ''), 12)
            )::bit(48)::bigint
            returning feed_id
        )
        select pg_notify('callstate_stored', '')::text as notified from renewed
        "#
    )
    .fetch_one(&mut *conn)
    .await?;
    Ok(head(conn).await?.last)
}

/// An event in the feed, with its call after it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEvent {
    /// Its position.
    pub position: i64,
    /// The call.
    pub key: CallKey,
    /// The direction of the call.
    pub direction: Option<Direction>,
    /// The status of the call.
    pub status: Status,
    /// The number of attempts of the call.
    pub attempt_count: u32,
    /// Whether the call had errors.
    pub has_errors: bool,
    /// The event.
    pub event_id: Uuid,
    /// The provider's name of its type.
    pub event_type: String,
    /// What the state machine did with it.
    pub disposition: Disposition,
    /// When the newest event of the call had been received.
    pub updated_at: DateTime<Utc>,
}

/// The erasure of a call in the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasedCall {
    /// Its position.
    pub position: i64,
    /// The call.
    pub key: CallKey,
}

/// What the feed contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedItem {
    /// An event that was stored.
    Event(FeedEvent),
    /// A call that was erased.
    Erased(ErasedCall),
}

impl FeedItem {
    /// Its position.
    #[must_use]
    pub fn position(&self) -> i64 {
        match self {
            Self::Event(event) => event.position,
            Self::Erased(erased) => erased.position,
        }
    }

    /// The call.
    #[must_use]
    pub fn key(&self) -> &CallKey {
        match self {
            Self::Event(event) => &event.key,
            Self::Erased(erased) => &erased.key,
        }
    }
}

/// A part of the feed.
#[derive(Debug)]
pub struct FeedPage {
    /// In order. An invalid row is an error of its own, so that it hides no other.
    pub items: Vec<Result<FeedItem, Error>>,
    /// The position up to which the feed was read.
    pub last: i64,
}

/// The events and erasures after one position and up to another, the first `limit` of
/// each; of the calls of one id only, where it is given.
#[tracing::instrument(level = "trace", skip_all)]
pub async fn page(
    conn: &mut PgConnection,
    after: i64,
    up_to: i64,
    of_call: Option<&CallId>,
    limit: u16,
) -> Result<FeedPage, Error> {
    let rows = match of_call {
        None => {
            let rows = select_events!(
                names "calls.call_id as \"call_id?\", calls.project_id as \"project_id?\"",
                "
                from events
                left join calls on calls.id = events.call
                where position > $1 and position <= $2
                order by position
                limit $3
                ",
                after,
                up_to,
                i64::from(limit),
            );
            rows.fetch_all(&mut *conn).await?
        }
        Some(call_id) => {
            let rows = select_events!(
                names "calls.call_id as \"call_id?\", calls.project_id as \"project_id?\"",
                "
                from calls
                cross join lateral (
                    select position
                    from events
                    where call = calls.id
                    -- found by their key: a call has few events, the feed many
                    offset 0
                ) as of_call
                join events on events.position = of_call.position
                where calls.call_id = $1 and events.position > $2 and events.position <= $3
                order by events.position
                limit $4
                ",
                call_id.as_str(),
                after,
                up_to,
                i64::from(limit),
            );
            rows.fetch_all(&mut *conn).await?
        }
    };
    let is_cut = rows.len() >= limit.into();
    let last = rows.last().filter(|_| is_cut).map_or(up_to, |row| row.position);
    // What is committed up to `up_to` was committed before the first query.
    let Erasures { calls, last } = erasures(conn, after, last, of_call, limit).await?;
    let events = rows.into_iter().take_while(|row| row.position <= last).map(|row| {
        let event = row.key().and_then(|key| row.feed(key));
        (row.position, event.map(FeedItem::Event))
    });
    let erased = calls.into_iter().map(|it| (it.position, Ok(FeedItem::Erased(it))));
    Ok(FeedPage { items: in_order(events.chain(erased)), last })
}

/// Items in the order of their positions.
pub(super) fn in_order<T>(items: impl Iterator<Item = (i64, T)>) -> Vec<T> {
    let mut items: Vec<(i64, T)> = items.collect();
    items.sort_by_key(|(position, _)| *position);
    items.into_iter().map(|(_, item)| item).collect()
}

/// Erasures of a part of the feed.
pub(super) struct Erasures {
    /// The calls, in order.
    pub(super) calls: Vec<ErasedCall>,
    /// The position up to which all are there.
    pub(super) last: i64,
}

/// The erasures after one position and up to another, the first `limit`; of the calls of
/// one id only, where it is given.
pub(super) async fn erasures(
    executor: impl PgExecutor<'_>,
    after: i64,
    up_to: i64,
    of_call: Option<&CallId>,
    limit: u16,
) -> Result<Erasures, Error> {
    let rows = sqlx::query!(
        r#"
        select position, call_id, project_id
        from erased_calls
        where position > $1 and position <= $2 and ($3::text is null or call_id = $3)
        order by position
        limit $4
        "#,
        after,
        up_to,
        of_call.map(CallId::as_str),
        i64::from(limit),
    )
    .fetch_all(executor)
    .await?;
    let calls = rows
        .into_iter()
        .map(|row| {
            let key = key("erased_calls", row.project_id, row.call_id)?;
            Ok(ErasedCall { position: row.position, key })
        })
        .collect::<Result<Vec<ErasedCall>, Error>>()?;
    let is_cut = calls.len() >= limit.into();
    let last = calls.last().filter(|_| is_cut).map_or(up_to, |it| it.position);
    Ok(Erasures { calls, last })
}

/// Connections for reading the feed: at most so many, each opened when it is needed.
#[must_use]
pub fn connections(options: &PgConnectOptions, most: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(CONNECT_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(for_reading_on(connection)))
        .connect_lazy_with(options.clone())
}

/// A connection that is notified when any instance stores events.
#[derive(Debug)]
pub struct FeedListener {
    /// A [`PgListener`] takes its one connection from a pool.
    pool: PgPool,
    listener: PgListener,
}

impl FeedListener {
    /// Connects and listens.
    pub async fn connect(options: &PgConnectOptions) -> Result<Self, Error> {
        let pool = connections(options, 1);
        let mut listener = PgListener::connect_with(&pool).await?;
        // After a lost connection the owner reads the feed anew.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(Self { pool, listener })
    }

    /// Waits until there may be something to read.
    pub async fn notified(&mut self) -> Result<(), Error> {
        match self.listener.try_recv().await? {
            Some(_) => Ok(()),
            None => Err(sqlx::Error::Io(io::ErrorKind::ConnectionAborted.into()).into()),
        }
    }

    /// Discards the notifications received until now, as the feed is about to be read.
    pub fn discard_notifications(&mut self) {
        while self.listener.next_buffered().is_some() {}
    }

    /// The connection, for queries.
    pub async fn connection(&mut self) -> Result<&mut PgConnection, Error> {
        Ok(sqlx::Acquire::acquire(&mut self.listener).await?)
    }

    /// Closes the connection.
    pub async fn close(self) {
        drop(self.listener);
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_reads_as_it_was_written(feed_id in 0i64.., position in 0i64..) {
            let at = FeedPosition { feed_id, position };
            prop_assert_eq!(at.to_string().parse(), Ok(at));
        }
    }

    #[test]
    fn a_position_is_written_in_one_way() {
        assert!("1f-2".parse::<FeedPosition>().is_ok());
        for wrong in [
            "",
            "1f",
            "1f-",
            "-2",
            "+1f-2",
            "01f-2",
            "1F-2",
            "1f--2",
            " 1f-2",
            "1f-2 ",
            "1f-02",
            "1f-+2",
            "1f-2-3",
            "1f-9223372036854775808",
            "ffffffffffffffff-2",
            "1-x",
        ] {
            assert_eq!(wrong.parse::<FeedPosition>(), Err(InvalidPosition), "{wrong:?}");
        }
    }
}

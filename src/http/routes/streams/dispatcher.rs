//! The dispatcher: reads the change feed once for all streams and waits of this
//! instance.
//!
//! A notification of Postgres is a hint to read, with a slow poll as a fallback.
//! However many notifications are received meanwhile, the feed is read once. While
//! there is no subscription and no wait, it reads nothing, and closes its connection
//! after a while. Where it loses the connection, streams stay open and it goes on from
//! its position. Where it panics, they end, and it starts anew.

use std::{convert::Infallible, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    http::routes::streams::{
        Inner, Publication, Streams,
        page::{EndReason, Page},
    },
    log_limit,
    store::{
        self,
        events::feed::{self, FeedHead, FeedItem, FeedListener, FeedPosition},
    },
};

/// The most events of a page.
pub(crate) const PAGE: u16 = 512;

/// The least time between two reads: a lone notification is followed at once, and under
/// load the events of this time are read together.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// The pause between full pages, so that subscriptions keep up.
const PAGE_PAUSE: Duration = Duration::from_millis(5);

/// The longest time between two reads while there are subscriptions or waits.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long the connection is kept while nobody needs it.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// How long the database may take for one statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it waits before it connects again, at first and at most.
const BACKOFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// How long closing a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Dispatcher {
    streams: Streams,
    options: PgConnectOptions,
}

impl Dispatcher {
    pub(crate) fn new(streams: Streams, options: PgConnectOptions) -> Self {
        Self { streams, options }
    }

    /// Dispatches until `stop`, then ends all streams.
    pub(crate) async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::select! {
            never = self.keep_running() => match never {},
            () = stop => {}
        }
        self.streams.0.stopping.send_replace(true);
        // Subscriptions that catch up end now, and read no more.
        let _ = timeout(CLOSE_TIMEOUT, self.streams.0.reading.close()).await;
    }

    /// Connects whenever it is needed, and again where that fails.
    async fn keep_running(&self) -> Infallible {
        let [first_pause, longest_pause] = BACKOFF;
        let mut pause = first_pause;
        loop {
            if !self.is_needed() {
                self.streams.0.demand.notified().await;
                continue;
            }
            let started = Instant::now();
            match self.catch_panic(Box::pin(self.dispatch())).await {
                // The panic is in the log.
                Ok(()) | Err(store::Error::Panicked) => {}
                Err(error) => {
                    if log_limit::admits("streams_lost_database", "") {
                        tracing::warn!(%error, "the streams lost the database");
                    }
                }
            }
            if started.elapsed() > longest_pause {
                pause = first_pause;
            }
            sleep(pause).await;
            pause = (2 * pause).min(longest_pause);
        }
    }

    /// Runs something. Where it panics, all streams end: it is unknown which events of
    /// the next page were published, and clients resume from their position.
    pub(crate) async fn catch_panic(
        &self,
        work: impl Future<Output = Result<(), store::Error>>,
    ) -> Result<(), store::Error> {
        AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_panic| {
            let Inner { position, published, .. } = &*self.streams.0;
            position.send_modify(|position| {
                *position = None;
                // Fails where there is no subscription.
                let _ = published.send(Publication::EndReason(EndReason::Unavailable));
            });
            Err(store::Error::Panicked)
        })
    }

    /// Whether there is a subscription or a wait. If not, it forgets its position, and the
    /// next one that is added wakes it.
    fn is_needed(&self) -> bool {
        let Inner { position, published, waits, .. } = &*self.streams.0;
        let mut is_needed = true;
        position.send_if_modified(|position| {
            // A subscription that is added now waits for this lock, or was counted.
            let is_waited_for = waits.watch_if_any();
            is_needed = is_waited_for || published.receiver_count() > 0;
            !is_needed && position.take().is_some()
        });
        is_needed
    }

    /// Reads and publishes until nobody has needed it for a while.
    async fn dispatch(&self) -> Result<(), store::Error> {
        let mut listener = in_time(FeedListener::connect(&self.options)).await?;
        let result = self.dispatch_over(&mut listener).await;
        // A lost connection need not be closed in order.
        let _ = timeout(CLOSE_TIMEOUT, listener.close()).await;
        result
    }

    async fn dispatch_over(&self, listener: &mut FeedListener) -> Result<(), store::Error> {
        loop {
            listener.discard_notifications();
            let started = Instant::now();
            if self.is_needed() && self.read(listener.connection().await?).await? {
                sleep(PAGE_PAUSE).await;
                continue;
            }
            sleep_until(started + READ_INTERVAL).await;
            if !self.wait(listener).await? {
                return Ok(());
            }
        }
    }

    /// Waits until the feed should be read again; false if nobody needed it for a while.
    async fn wait(&self, listener: &mut FeedListener) -> Result<bool, store::Error> {
        let demand = &self.streams.0.demand;
        if self.is_needed() {
            tokio::select! {
                notified = listener.notified() => notified?,
                () = demand.notified() => {}
                () = sleep(POLL_INTERVAL) => {}
            }
            return Ok(true);
        }
        let mut idle = pin!(sleep(IDLE_TIMEOUT));
        loop {
            tokio::select! {
                notified = listener.notified() => notified?,
                () = demand.notified() => return Ok(true),
                () = &mut idle => return Ok(false),
            }
        }
    }

    /// Reads and publishes a page; true if there is another one.
    async fn read(&self, connection: &mut PgConnection) -> Result<bool, store::Error> {
        let head = in_time(feed::head(&mut *connection)).await?;
        let position = *self.streams.0.position.borrow();
        let Some(after) = position else {
            self.publish(Vec::new(), head.last);
            // Calls that ended before this may be waited for.
            self.streams.0.waits.wake_all();
            return Ok(false);
        };
        if head.discontinuity(after).is_some() {
            tracing::warn!(?after, ?head, "the change feed was reset");
            self.reset(head);
            self.streams.0.waits.wake_all();
            return Ok(false);
        }
        let head = head.last;
        // The last events may have been deleted.
        if after.position >= head.position {
            return Ok(false);
        }
        let reading = feed::page(connection, after.position, head.position, None, PAGE);
        let page = in_time(reading).await?;
        let last = FeedPosition { position: page.last, ..head };
        let items = valid(page.items);
        // A wait for an erased call finds that there is none.
        let ended = items.iter().filter(|item| match item {
            FeedItem::Event(event) => event.status.is_terminal(),
            FeedItem::Erased(_) => true,
        });
        self.streams.0.waits.wake(ended.map(|item| &item.key().call_id));
        self.publish(items, last);
        Ok(last != head)
    }

    /// Publishes events to all subscriptions, which have everything up to `last` then.
    fn publish(&self, items: Vec<FeedItem>, last: FeedPosition) {
        let page = (!items.is_empty()).then(|| Arc::new(Page::of(items, last)));
        self.streams.0.position.send_modify(|position| {
            *position = Some(last);
            if let Some(page) = page {
                // Fails where the last subscription was just dropped.
                let _ = self.streams.0.published.send(Publication::Page(page));
            }
        });
    }

    /// Publishes that the feed was reset.
    fn reset(&self, head: FeedHead) {
        self.streams.0.position.send_modify(|position| {
            *position = Some(head.last);
            let _ = self.streams.0.published.send(Publication::Reset(head));
        });
    }
}

/// The valid events; the others are logged.
pub(crate) fn valid(read: Vec<Result<FeedItem, store::Error>>) -> Vec<FeedItem> {
    let valid = read.into_iter().filter_map(|event| {
        event
            .inspect_err(|error| {
                if log_limit::admits("event_missing_in_streams", "") {
                    tracing::error!(%error, "an event is missing in streams");
                }
            })
            .ok()
    });
    valid.collect()
}

/// The result of a query, if it is there in time.
pub(crate) async fn in_time<T>(
    query: impl Future<Output = Result<T, store::Error>>,
) -> Result<T, store::Error> {
    timeout(STATEMENT_TIMEOUT, query)
        .await
        .unwrap_or(Err(store::Error::TimedOut(STATEMENT_TIMEOUT)))
}

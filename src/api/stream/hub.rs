//! The hub: the one connection that hears of what is stored, by any instance, and
//! tells all who listen or wait here.
//!
//! `NOTIFY` is a hint to look, with a slow poll behind it. A look reads what was
//! stored since the last one, once for all who listen, however many hints came
//! meanwhile. While nobody listens or waits it asks nothing, and soon lets go of
//! its connection. Where it loses that, streams stay open, and it reads on from where
//! it was. Where it panics, they end, and it begins anew.

use std::{
    convert::Infallible, future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Inner, Streams,
    page::{End, Page},
};
use crate::store::{
    self, Buckets,
    epoch::epoch,
    stream::{self, Bookmark, Listener, Message, Stretch, View},
};

/// The most messages of a page.
pub(super) const PAGE: u16 = 512;

/// How far apart looks are at least: a hint that comes alone is followed at once,
/// under load what comes in between is read together.
const PACE: Duration = Duration::from_millis(20);

/// How long it waits between full pages, so that those who listen keep up.
const BREATH: Duration = Duration::from_millis(5);

/// How far apart looks are at most while somebody listens or waits.
const POLL: Duration = Duration::from_secs(2);

/// The same while events are committed that the horizon holds back: the end of
/// the transaction that holds it is no event, and gives no hint.
const SOON: Duration = Duration::from_millis(100);

/// How long the connection is kept for nobody.
const IDLE: Duration = Duration::from_mins(1);

/// How long the database may take for one statement.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long it waits before it connects again, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];

/// How long an end in order may take.
const END: Duration = Duration::from_secs(1);

/// What a look has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing.
    Nothing,
    /// What the horizon holds back.
    Held,
    /// Another page, which may be read.
    Page,
}

pub(super) struct Hub {
    streams: Streams,
    options: PgConnectOptions,
    buckets: Buckets,
}

impl Hub {
    pub(super) fn new(streams: Streams, options: PgConnectOptions, buckets: Buckets) -> Self {
        Self { streams, options, buckets }
    }

    /// Tells until `stop`; then that it stops.
    pub(super) async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::select! {
            never = self.keep() => match never {},
            () = stop => {}
        }
        self.streams.0.stopping.send_replace(true);
        // Who reads up will be told, and reads no more.
        let _ = timeout(END, self.streams.0.reading.close()).await;
    }

    /// Connects whenever somebody is there, and again where that fails.
    async fn keep(&self) -> Infallible {
        let [first_pause, longest_pause] = PAUSES;
        let mut pause = first_pause;
        loop {
            if !self.is_wanted() {
                self.streams.0.demand.notified().await;
                continue;
            }
            let begun = Instant::now();
            match self.outlive(Box::pin(self.listen())).await {
                Ok(()) => continue,
                // The log was told where.
                Err(store::Error::Panicked) => {}
                Err(error) => tracing::warn!(%error, "the streams have lost the database"),
            }
            if begun.elapsed() > longest_pause {
                pause = first_pause;
            }
            sleep(pause).await;
            pause = (2 * pause).min(longest_pause);
        }
    }

    /// Does something. Where it panics, all streams end: nobody knows what of the
    /// next page was told, and whoever comes back reads up to behind it.
    pub(super) async fn outlive(
        &self,
        work: impl Future<Output = Result<(), store::Error>>,
    ) -> Result<(), store::Error> {
        AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_panic| {
            let Inner { tip, pages, .. } = &*self.streams.0;
            tip.send_modify(|tip| {
                *tip = None;
                // Fails where nobody listens.
                let _ = pages.send(Err(End::Unavailable));
            });
            Err(store::Error::Panicked)
        })
    }

    /// Whether anybody listens or waits. If not, whoever comes next wakes the hub,
    /// as it then neither has a place nor watches.
    fn is_wanted(&self) -> bool {
        let is_followed = self.keeps_place();
        let is_waited_for = self.streams.0.waits.watch_if_any();
        is_followed || is_waited_for
    }

    /// Looks and tells until nobody has been there for a while.
    async fn listen(&self) -> Result<(), store::Error> {
        let mut listener = in_time(Listener::connect(&self.options)).await?;
        let result = self.listen_over(&mut listener).await;
        // Where the connection is lost, it need not end in order.
        let _ = timeout(END, listener.close()).await;
        result
    }

    async fn listen_over(&self, listener: &mut Listener) -> Result<(), store::Error> {
        self.find_place(listener).await?;
        let mut watched = None;
        loop {
            listener.forget_hints();
            let looked_at = Instant::now();
            let at_most = match self.look(listener, &mut watched).await? {
                Left::Page => {
                    sleep(BREATH).await;
                    continue;
                }
                Left::Held => SOON,
                Left::Nothing => POLL,
            };
            sleep_until(looked_at + PACE).await;
            if !self.next_look(listener, at_most).await? {
                return Ok(());
            }
        }
    }

    /// Finds where it was, should the database have moved since.
    async fn find_place(&self, listener: &mut Listener) -> Result<(), store::Error> {
        let connection = listener.connection().await?;
        in_time(epoch(connection)).await?;
        let tip = *self.streams.0.tip.borrow();
        if let Some(tip) = tip {
            let moved = in_time(stream::resume(connection, tip)).await?;
            self.streams.0.tip.send_if_modified(|tip| tip.replace(moved) != Some(moved));
        }
        Ok(())
    }

    /// Waits until it should look again, `at_most` so long; false if nobody came
    /// for a while.
    async fn next_look(
        &self,
        listener: &mut Listener,
        at_most: Duration,
    ) -> Result<bool, store::Error> {
        let demand = &self.streams.0.demand;
        if self.is_wanted() {
            tokio::select! {
                hint = listener.hint() => hint?,
                () = demand.notified() => {}
                () = sleep(at_most) => {}
            }
            return Ok(true);
        }
        let mut idle = pin!(sleep(IDLE));
        loop {
            tokio::select! {
                hint = listener.hint() => hint?,
                () = demand.notified() => return Ok(true),
                () = &mut idle => return Ok(false),
            }
        }
    }

    /// Tells those who wait which calls have ended, and those who listen what was
    /// stored: a page of it, so that a long way to the horizon keeps nobody waiting.
    async fn look(
        &self,
        listener: &mut Listener,
        watched: &mut Option<View>,
    ) -> Result<Left, store::Error> {
        let is_followed = self.keeps_place();
        let is_waited_for = self.streams.0.waits.watch_if_any();
        if !is_waited_for {
            *watched = None;
        }
        if !is_followed && !is_waited_for {
            return Ok(Left::Nothing);
        }
        let connection = listener.connection().await?;
        let view = in_time(stream::view(&mut *connection, self.buckets)).await?;
        if is_waited_for {
            match watched.replace(view.clone()) {
                Some(since) => {
                    let ended = stream::ended_calls(&mut *connection, self.buckets, &since);
                    self.streams.0.waits.wake(&in_time(ended).await?);
                }
                // What ended before was heard by nobody.
                None => self.streams.0.waits.wake_all(),
            }
        }
        if !is_followed {
            return Ok(Left::Nothing);
        }
        let is_told = self.tell(connection, view.settled()).await?;
        Ok(match (is_told, view.is_held) {
            (false, _) => Left::Page,
            (true, true) => Left::Held,
            (true, false) => Left::Nothing,
        })
    }

    /// Whether somebody listens; else forgets where it was.
    fn keeps_place(&self) -> bool {
        let Inner { tip, pages, .. } = &*self.streams.0;
        let mut is_followed = true;
        tip.send_if_modified(|tip| {
            // Who comes now waits for this lock, or was counted.
            is_followed = pages.receiver_count() > 0;
            !is_followed && tip.take().is_some()
        });
        is_followed
    }

    /// Tells a page of what was stored up to a place; gives whether that was all.
    async fn tell(
        &self,
        connection: &mut PgConnection,
        up_to: Bookmark,
    ) -> Result<bool, store::Error> {
        let tip = *self.streams.0.tip.borrow();
        let Some(after) = tip else {
            self.publish(Vec::new(), up_to);
            return Ok(true);
        };
        if after >= up_to {
            return Ok(true);
        }
        let read = stream::messages(connection, self.buckets, after, up_to, None, PAGE);
        let Stretch { messages, last } = in_time(read).await?;
        self.publish(readable(messages), last);
        Ok(last == up_to)
    }

    /// Sends messages to all who listen, which are all up to `last`.
    fn publish(&self, messages: Vec<Message>, last: Bookmark) {
        let page = (!messages.is_empty()).then(|| Arc::new(Page::of(messages, last)));
        self.streams.0.tip.send_modify(|tip| {
            *tip = Some(last);
            if let Some(page) = page {
                // Fails where the last one has just gone.
                let _ = self.streams.0.pages.send(Ok(page));
            }
        });
    }
}

/// Those that can be read; the log is told of the others.
pub(super) fn readable(read: Vec<Result<Message, store::Error>>) -> Vec<Message> {
    let readable = read.into_iter().filter_map(|message| {
        message.inspect_err(|error| tracing::error!(%error, "an event cannot be told")).ok()
    });
    readable.collect()
}

/// What the database answers, if it does in time.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, store::Error>>,
) -> Result<T, store::Error> {
    timeout(DEADLINE, answer).await.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into()))
}

//! One who listens.
//!
//! It takes its place among those whom the hub tells, then reads up from the
//! database what lies between where it left off and where the hub is, and goes on
//! with what the hub tells.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::{FutureExt as _, stream::unfold};
use sqlx::PgPool;
use tokio::{
    sync::{
        OwnedSemaphorePermit,
        broadcast::{self, error::RecvError},
        watch,
    },
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{
    Counted, Inner, Streams,
    filter::Filter,
    hub::{PAGE, in_time, readable},
    page::{End, Page, write_beginning, write_end, write_heartbeat},
    stopped,
};
use crate::{
    api::{Keyring, Problem, Service, caller::Pass},
    clock::Clock,
    store::{
        self, Buckets,
        stream::{self, Bookmark, Stretch},
    },
};

/// How often the key is looked at.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// A sign of life comes with every so many of these looks: each 15 seconds.
const CHECKS_PER_HEARTBEAT: u32 = 5;

/// Proxies would gather the answer until it is whole: this asks them not to.
const ACCEL_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// One who listens, and where it is.
pub(super) struct Listener {
    streams: Streams,
    buckets: Buckets,
    keyring: Keyring,
    clock: Clock,
    filter: Filter,
    pass: Pass,
    pages: broadcast::Receiver<Arc<Page>>,
    /// Behind which `pages` go on.
    tip: Bookmark,
    /// Up to where all was told.
    at: Bookmark,
    state: State,
    checks: Interval,
    checked: u32,
    stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
    _counted: Counted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was said yet.
    Beginning,
    /// It reads up to the tip.
    Behind,
    /// It has read up, and hears nothing of what was told meanwhile.
    ReadUp,
    /// It hears what is told.
    Live,
    /// It was told that this is the end.
    Ended,
}

impl Listener {
    /// Begins behind an id that was given before, else now: what is settled by
    /// then is not told, be the hub behind or not.
    pub(super) async fn open(
        service: &Service,
        filter: Filter,
        pass: Pass,
        last_id: Option<Bookmark>,
    ) -> Result<Self, Problem> {
        let streams = service.streams.clone();
        let place = streams.place()?;
        let (pages, tip) = streams.subscribe().await?;
        let at = match last_id {
            None => tip.max(present(&service.pool, service.buckets).await?),
            Some(last_id) => find_place(&service.pool, service.buckets, last_id).await?,
        };
        if at.epoch > tip.epoch {
            // The hub has yet to hear of it.
            return Err(Problem::unavailable("The database has just moved.", None));
        }
        let mut checks = interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            buckets: service.buckets,
            keyring: service.keyring.clone(),
            clock: service.clock.clone(),
            filter,
            pass,
            pages,
            tip,
            at,
            state: State::Beginning,
            checks,
            checked: 0,
            stopping: streams.stopping(),
            _place: place,
            _counted: Counted::in_(&streams.0.counters.listeners),
            streams,
        })
    }

    /// What it hears, as an answer that goes on.
    pub(super) fn answer(self) -> Response {
        let body = Body::from_stream(unfold(self, async |mut listener| {
            let bytes = listener.next().await?;
            Some((Ok::<_, Infallible>(bytes), listener))
        }));
        let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        (StatusCode::OK, [content_type, ACCEL_BUFFERING], body).into_response()
    }

    /// The next that it is told; `None` after the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.state {
                State::Beginning => {
                    self.state = State::Behind;
                    return Some(write_beginning(self.at));
                }
                State::Behind if self.at < self.tip => {
                    if *self.stopping.borrow() {
                        return Some(self.end(End::Stopping));
                    }
                    if self.checks.tick().now_or_never().is_some()
                        && let Some(bytes) = self.check().await
                    {
                        return Some(bytes);
                    }
                    return Some(match self.read_up().await {
                        Ok(bytes) => bytes,
                        Err(error) => {
                            tracing::warn!(%error, "a stream cannot read up");
                            self.end(End::Unavailable)
                        }
                    });
                }
                State::Behind => self.state = State::ReadUp,
                State::ReadUp | State::Live => {
                    if let Some(bytes) = self.hear().await {
                        return Some(bytes);
                    }
                }
                State::Ended => return None,
            }
        }
    }

    /// Reads a page on the way to the tip.
    async fn read_up(&mut self) -> Result<Bytes, store::Error> {
        let Stretch { messages, last } = {
            let Inner { reading, readers, .. } = &*self.streams.0;
            let _reader = readers.acquire().await.expect("nobody closes it");
            let call_id = self.filter.call_id.as_ref();
            let (after, up_to) = (self.at, self.tip);
            in_time(stream::messages(reading, self.buckets, after, up_to, call_id, PAGE)).await?
        };
        let page = Page::of(readable(messages), last);
        // Where nothing of it is listened to, how far it came is a sign of life.
        Ok(self.take(&page).unwrap_or_else(|| write_heartbeat(last)))
    }

    /// Waits for what the hub tells, or for what ends the stream.
    async fn hear(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            () = stopped(&mut self.stopping) => Some(self.end(End::Stopping)),
            _ = self.checks.tick() => self.check().await,
            page = self.pages.recv() => match page {
                Ok(page) => {
                    self.state = State::Live;
                    self.take(&page)
                }
                // So much came while it read up; that is not its fault.
                Err(RecvError::Lagged(_)) if self.state == State::ReadUp => self.fall_back().await,
                Err(RecvError::Lagged(_)) => Some(self.end(End::TooSlow)),
                Err(RecvError::Closed) => Some(self.end(End::Stopping)),
            },
        }
    }

    /// Takes its place anew and reads up once more.
    async fn fall_back(&mut self) -> Option<Bytes> {
        match self.streams.subscribe().await {
            Ok((pages, tip)) => {
                (self.pages, self.tip, self.state) = (pages, tip, State::Behind);
                None
            }
            Err(_) => Some(self.end(End::Unavailable)),
        }
    }

    /// Those of a page's messages that it listens to and was not told yet.
    fn take(&mut self, page: &Page) -> Option<Bytes> {
        let selection = page.select(self.at, &self.filter);
        self.at = self.at.max(page.last);
        self.streams.0.counters.messages.inc_by(selection.messages);
        (selection.messages > 0).then_some(selection.text)
    }

    /// Sees whether it may still listen, and gives a sign of life from time to time.
    async fn check(&mut self) -> Option<Bytes> {
        self.checked += 1;
        match self.pass.check(&self.keyring, self.clock.now()).await {
            // While the database is away nothing is told that a key might hide.
            Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => {
                Some(self.end(End::KeyRefused))
            }
            _ => {
                self.checked.is_multiple_of(CHECKS_PER_HEARTBEAT).then(|| write_heartbeat(self.at))
            }
        }
    }

    fn end(&mut self, end: End) -> Bytes {
        self.state = State::Ended;
        self.streams.0.counters.ends.with_label_values(&[end.as_str()]).inc();
        write_end(end)
    }
}

/// Up to where everything is over, which the hub may not have come to yet.
async fn present(pool: &PgPool, buckets: Buckets) -> Result<Bookmark, Problem> {
    Ok(in_time(stream::view(pool, buckets)).await?.settled())
}

/// Where to go on behind an id.
async fn find_place(
    pool: &PgPool,
    buckets: Buckets,
    last_id: Bookmark,
) -> Result<Bookmark, Problem> {
    let unknown = || Problem::bad_parameter("Last-Event-ID: is no id of this stream");
    let at = in_time(stream::resume(pool, last_id)).await?.ok_or_else(unknown)?;
    let view = in_time(stream::view(pool, buckets)).await?;
    if view.is_behind(at) { Ok(at) } else { Err(unknown()) }
}

//! One who listens.
//!
//! It takes its place among those whom the hub tells, then reads up from the
//! database what lies between where it left off and where the hub is, and goes on
//! with what the hub tells.

use std::{convert::Infallible, time::Duration};

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
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout_at},
};

use super::{
    Counted, Inner, Streams, Told,
    filter::Filter,
    hub::{PAGE, in_time, readable},
    page::{End, Page, write_beginning, write_end, write_heartbeat},
    stopped,
};
use crate::{
    api::{Keyring, Problem, Service, caller::Pass},
    clock::Clock,
    store::{
        self, Buckets, epoch,
        stream::{self, Bookmark, Stretch},
    },
};

/// How often the key is looked at.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// A sign of life comes with every so many of these looks: each 15 seconds.
const CHECKS_PER_HEARTBEAT: u32 = 5;

/// How long a stream goes on whose key cannot be looked at: longer than a database
/// takes to be started anew.
const LONGEST_UNCHECKED: Duration = Duration::from_secs(15);

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
    pages: broadcast::Receiver<Told>,
    /// Behind which `pages` go on.
    tip: Bookmark,
    /// Up to where all was told.
    at: Bookmark,
    state: State,
    checks: Interval,
    checked: u32,
    /// Until when it may listen unless its key is seen to be good.
    trusted_until: Instant,
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
            None => present(&service.pool, service.buckets).await?,
            Some(last_id) => find_place(&service.pool, service.buckets, last_id).await?,
        };
        if at.epoch != tip.epoch {
            // The hub has yet to hear of it.
            return Err(Problem::unavailable("The database has just moved.", None));
        }
        // Who begins now is told nothing twice that the hub has told.
        let at = if last_id.is_none() { at.max(tip) } else { at };
        let now = Instant::now();
        let mut checks = interval_at(now + CHECK_EVERY, CHECK_EVERY);
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
            trusted_until: now + LONGEST_UNCHECKED,
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
                Ok(Ok(page)) => {
                    self.state = State::Live;
                    match self.move_to(page.last.epoch).await {
                        Ok(()) => self.take(&page),
                        Err(end) => Some(self.end(end)),
                    }
                }
                Ok(Err(end)) => Some(self.end(end)),
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
                self.move_to(tip.epoch).await.err().map(|end| self.end(end))
            }
            Err(_) if *self.stopping.borrow() => Some(self.end(End::Stopping)),
            Err(_) => Some(self.end(End::Unavailable)),
        }
    }

    /// Finds its place in the epoch in which the hub tells, should the database have
    /// moved since.
    async fn move_to(&mut self, epoch: epoch::Name) -> Result<(), End> {
        if self.at.epoch == epoch {
            return Ok(());
        }
        let Inner { reading, readers, .. } = &*self.streams.0;
        let _reader = readers.acquire().await.expect("nobody closes it");
        let moved = in_time(stream::resume(reading, self.at)).await.map_err(|error| {
            tracing::warn!(%error, "a stream cannot find its place");
            End::Unavailable
        })?;
        if moved.epoch != epoch {
            // It has moved once more, and the hub has yet to hear of it.
            return Err(End::Unavailable);
        }
        self.at = moved;
        Ok(())
    }

    /// Those of a page's messages that it listens to and was not told yet.
    fn take(&mut self, page: &Page) -> Option<Bytes> {
        let selection = page.select(self.at, &self.filter);
        self.at = self.at.max(page.last);
        self.streams.0.counters.messages.inc_by(selection.messages);
        (selection.messages > 0).then_some(selection.text)
    }

    /// Sees whether it may still listen, and gives a sign of life from time to time.
    /// Nothing is told meanwhile.
    async fn check(&mut self) -> Option<Bytes> {
        self.checked += 1;
        let checked = tokio::select! {
            biased;
            () = stopped(&mut self.stopping) => return Some(self.end(End::Stopping)),
            checked = timeout_at(
                self.trusted_until,
                self.pass.check(&self.keyring, self.clock.now()),
            ) => checked,
        };
        match checked {
            Ok(Ok(())) => self.trusted_until = Instant::now() + LONGEST_UNCHECKED,
            Ok(Err(problem)) if problem.status() == StatusCode::UNAUTHORIZED => {
                return Some(self.end(End::KeyRefused));
            }
            // A database that is away for a moment ends no stream.
            Ok(Err(_)) if Instant::now() < self.trusted_until => {}
            Ok(Err(_)) | Err(_) => return Some(self.end(End::Unavailable)),
        }
        self.checked.is_multiple_of(CHECKS_PER_HEARTBEAT).then(|| write_heartbeat(self.at))
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
    let at = in_time(stream::resume(pool, last_id)).await?;
    let view = in_time(stream::view(pool, buckets)).await?;
    if !view.is_behind(at) {
        return Err(Problem::bad_parameter("Last-Event-ID: is no id of this stream"));
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::{future::pending, num::NonZeroU32, sync::Arc};

    use axum::{extract::FromRequestParts as _, http::Request};
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tokio::{sync::Notify, task::yield_now};

    use super::{super::hub::Hub, *};
    use crate::api::{caller::Caller, query::Query};

    const HERE: Bookmark =
        Bookmark { epoch: epoch::Name { number: 1, begun_at: None }, transaction: 7, place: 0 };

    /// Where no database is.
    fn nowhere() -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass().socket("/nowhere")
    }

    fn streams() -> Streams {
        Streams::start(&nowhere(), Buckets::new(NonZeroU32::MIN), 1, pending()).0
    }

    /// One who listens with a key or without, which is looked for in that database.
    async fn listener(streams: &Streams, key: Option<&str>, keys: PgConnectOptions) -> Listener {
        let mut request = Request::get("/stream");
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let filter = Filter::read(&mut Query::of(&parts.uri), &Caller::Anyone, None);
        Listener {
            buckets: Buckets::new(NonZeroU32::MIN),
            keyring: Keyring::start(PgPoolOptions::new().connect_lazy_with(keys), false).0,
            clock: Clock::system(),
            filter,
            pass: Pass::from_request_parts(&mut parts, &()).await.unwrap(),
            pages: streams.0.pages.subscribe(),
            tip: HERE,
            at: HERE,
            state: State::Beginning,
            checks: interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY),
            checked: 0,
            trusted_until: Instant::now() + LONGEST_UNCHECKED,
            stopping: streams.stopping(),
            _place: streams.place().unwrap(),
            _counted: Counted::in_(&streams.0.counters.listeners),
            streams: streams.clone(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_gives_a_sign_of_life_every_fifteen_seconds() {
        let mut listener = listener(&streams(), None, nowhere()).await;
        assert_eq!(listener.next().await, Some(write_beginning(HERE)));
        let begun = Instant::now();
        for number in 1..=4 {
            assert_eq!(listener.next().await, Some(write_heartbeat(HERE)));
            assert_eq!(begun.elapsed().as_secs(), 15 * number);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_key_cannot_be_looked_at_is_ended() {
        // One takes connections and never says a word.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let silent = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
        let key = format!("cs_{}", "0".repeat(64));
        for keys in [nowhere(), silent] {
            let mut listener = listener(&streams(), Some(&key), keys).await;
            assert_eq!(listener.next().await, Some(write_beginning(HERE)));
            let begun = Instant::now();
            assert_eq!(listener.next().await, Some(write_end(End::Unavailable)));
            assert_eq!(begun.elapsed().as_secs(), LONGEST_UNCHECKED.as_secs());
            assert_eq!(listener.next().await, None);
        }
    }

    #[tokio::test]
    async fn streams_end_where_the_hub_panics() {
        let streams = streams();
        let mut listener = listener(&streams, None, nowhere()).await;
        streams.0.tip.send_replace(Some(HERE));
        assert_eq!(listener.next().await, Some(write_beginning(HERE)));
        let hub = Hub::new(streams.clone(), nowhere(), Buckets::new(NonZeroU32::MIN));
        let panicking = hub.outlive(async { panic!("a mistake of ours") });
        assert!(matches!(panicking.await, Err(store::Error::Panicked)));
        assert_eq!(listener.next().await, Some(write_end(End::Unavailable)));
        assert_eq!(listener.next().await, None);
        // What comes next is told to who listens then, from where that is.
        assert_eq!(*streams.0.tip.borrow(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_at_the_stop_does_not_wait_for_the_hub() {
        let stop = Arc::new(Notify::new());
        let stopping = Arc::clone(&stop);
        let stop_once = async move { stopping.notified().await };
        let buckets = Buckets::new(NonZeroU32::MIN);
        let (streams, hearing) = Streams::start(&nowhere(), buckets, 1, stop_once);
        let coming = {
            let streams = streams.clone();
            tokio::spawn(async move { streams.subscribe().await.map(drop) })
        };
        // By now it waits.
        yield_now().await;
        stop.notify_one();
        let begun = Instant::now();
        coming.await.unwrap().unwrap_err();
        streams.subscribe().await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        hearing.finish().await;
    }
}

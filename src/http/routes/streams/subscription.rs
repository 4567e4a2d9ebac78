//! A subscription: one open stream.
//!
//! It subscribes to what the dispatcher publishes, then reads from the database what
//! lies between its position and that of the dispatcher, and goes on with what is
//! published.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::{FutureExt as _, stream::unfold};
use tokio::{
    sync::{
        OwnedSemaphorePermit,
        broadcast::{self, error::RecvError},
        watch,
    },
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout_at},
};

use crate::{
    clock::Clock,
    http::{
        ApiKeyCache, Problem, Service,
        auth::PresentedKey,
        routes::streams::{
            GaugeGuard, Inner, Publication, Streams,
            dispatcher::{PAGE, in_time, valid},
            filter::Filter,
            page::{EndReason, Page, write_beginning, write_end, write_heartbeat, write_reset},
            stopped,
        },
    },
    log_limit,
    store::{
        self,
        events::feed::{self, Discontinuity, FeedHead, FeedPosition},
    },
};

/// How often the key is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// A heartbeat is sent with every so many checks: each 15 seconds.
const CHECKS_PER_HEARTBEAT: u32 = 5;

/// How long a stream goes on whose key cannot be checked: longer than a database takes to
/// restart.
const LONGEST_UNCHECKED: Duration = Duration::from_secs(15);

/// Asks proxies not to buffer the response until it is complete.
const ACCEL_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// One open stream.
pub(crate) struct Subscription {
    streams: Streams,
    api_keys: ApiKeyCache,
    clock: Clock,
    filter: Filter,
    pass: PresentedKey,
    published: broadcast::Receiver<Publication>,
    /// The position after which `published` goes on.
    dispatched: FeedPosition,
    /// The position up to which everything was sent.
    position: FeedPosition,
    /// Why the client's position cannot be continued from; to be sent.
    reset: Option<Discontinuity>,
    state: State,
    checks: Interval,
    checked: u32,
    /// The time until which it goes on without a successful check of its key.
    trusted_until: Instant,
    stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
    _counted: GaugeGuard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent yet.
    New,
    /// It reads up to the dispatcher's position.
    CatchingUp,
    /// It has caught up, and has received nothing that was published meanwhile.
    CaughtUp,
    /// It receives what is published.
    Live,
    /// The end was sent.
    Ended,
}

impl Subscription {
    /// Starts after the client's last position, or else now: events committed by then are
    /// not sent, even if the dispatcher has yet to read them.
    pub(crate) async fn open(
        service: &Service,
        filter: Filter,
        pass: PresentedKey,
        last_id: Option<FeedPosition>,
    ) -> Result<Self, Problem> {
        let streams = service.streams.clone();
        let permit = streams.permit()?;
        let (published, dispatched) = streams.subscribe().await?;
        let head = in_time(feed::head(&service.pool)).await?;
        let reset = last_id.and_then(|last_id| head.discontinuity(last_id));
        let position = last_id.filter(|_| reset.is_none()).unwrap_or(head.last);
        let now = Instant::now();
        let mut checks = interval_at(now + CHECK_INTERVAL, CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            api_keys: service.api_keys.clone(),
            clock: service.clock.clone(),
            filter,
            pass,
            published,
            dispatched,
            position,
            reset,
            state: State::New,
            checks,
            checked: 0,
            trusted_until: now + LONGEST_UNCHECKED,
            stopping: streams.stopping(),
            _permit: permit,
            _counted: GaugeGuard::in_(&streams.0.metrics.listeners),
            streams,
        })
    }

    /// The response, whose body goes on until the stream ends.
    pub(crate) fn respond(self) -> Response {
        let body = Body::from_stream(unfold(self, async |mut subscription| {
            let bytes = subscription.next().await?;
            Some((Ok::<_, Infallible>(bytes), subscription))
        }));
        let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        (StatusCode::OK, [content_type, ACCEL_BUFFERING], body).into_response()
    }

    /// What is sent next; `None` after the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.state {
                State::New => {
                    self.state = State::CatchingUp;
                    return Some(write_beginning(self.position));
                }
                State::CatchingUp => {
                    if let Some(reason) = self.reset.take() {
                        return Some(write_reset(reason, self.position));
                    }
                    if !self.is_behind() {
                        self.state = State::CaughtUp;
                        continue;
                    }
                    if *self.stopping.borrow() {
                        return Some(self.end(EndReason::Stopping));
                    }
                    if self.checks.tick().now_or_never().is_some()
                        && let Some(bytes) = self.check().await
                    {
                        return Some(bytes);
                    }
                    return Some(match self.catch_up().await {
                        Ok(bytes) => bytes,
                        Err(error) => {
                            if log_limit::admits("stream_cannot_catch_up", "") {
                                tracing::warn!(%error, "a stream cannot catch up");
                            }
                            self.end(EndReason::Unavailable)
                        }
                    });
                }
                State::CaughtUp | State::Live => {
                    if let Some(bytes) = self.receive().await {
                        return Some(bytes);
                    }
                }
                State::Ended => return None,
            }
        }
    }

    /// Whether the dispatcher is further in the same feed.
    fn is_behind(&self) -> bool {
        self.position.feed_id == self.dispatched.feed_id
            && self.position.position < self.dispatched.position
    }

    /// Reads a page on the way to the dispatcher's position.
    async fn catch_up(&mut self) -> Result<Bytes, store::Error> {
        let page = {
            let Inner { reading, readers, .. } = &*self.streams.0;
            let _reader = readers.acquire().await.expect("the semaphore is never closed");
            let call_id = self.filter.call_id.as_ref();
            let (after, up_to) = (self.position.position, self.dispatched.position);
            in_time(async {
                let mut connection = reading.acquire().await?;
                feed::page(&mut connection, after, up_to, call_id, PAGE).await
            })
            .await?
        };
        let last = FeedPosition { position: page.last, ..self.position };
        let page = Page::of(valid(page.items), last);
        // Where the filter selects none of it, the new position is sent as a heartbeat.
        Ok(self.take(&page).unwrap_or_else(|| write_heartbeat(last)))
    }

    /// Waits for what is published, or for what ends the stream.
    async fn receive(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            () = stopped(&mut self.stopping) => Some(self.end(EndReason::Stopping)),
            _ = self.checks.tick() => self.check().await,
            published = self.published.recv() => match published {
                Ok(Publication::Page(page)) => {
                    self.state = State::Live;
                    self.take(&page)
                }
                Ok(Publication::Reset(head)) => self.follow(head),
                Ok(Publication::EndReason(end)) => Some(self.end(end)),
                // So much was published while it caught up; the client is not to blame.
                Err(RecvError::Lagged(_)) if self.state == State::CaughtUp => {
                    self.resubscribe().await
                }
                Err(RecvError::Lagged(_)) => Some(self.end(EndReason::TooSlow)),
                Err(RecvError::Closed) => Some(self.end(EndReason::Stopping)),
            },
        }
    }

    /// Goes on at the head of a feed that was reset, unless its position belongs to it.
    fn follow(&mut self, head: FeedHead) -> Option<Bytes> {
        let reason = head.discontinuity(self.position)?;
        self.position = head.last;
        Some(write_reset(reason, head.last))
    }

    /// Subscribes anew and catches up once more.
    async fn resubscribe(&mut self) -> Option<Bytes> {
        match self.streams.subscribe().await {
            Ok((published, dispatched)) => {
                (self.published, self.dispatched) = (published, dispatched);
                self.state = State::CatchingUp;
                if self.position.feed_id == dispatched.feed_id {
                    return None;
                }
                self.position = dispatched;
                Some(write_reset(Discontinuity::OtherFeed, dispatched))
            }
            Err(_) if *self.stopping.borrow() => Some(self.end(EndReason::Stopping)),
            Err(_) => Some(self.end(EndReason::Unavailable)),
        }
    }

    /// The events of a page that the filter selects and that were not sent yet.
    fn take(&mut self, page: &Page) -> Option<Bytes> {
        if page.last.feed_id != self.position.feed_id {
            return None;
        }
        let selection = page.select(self.position.position, &self.filter);
        self.position.position = self.position.position.max(page.last.position);
        self.streams.0.metrics.messages.inc_by(selection.messages);
        (selection.messages > 0).then_some(selection.text)
    }

    /// Checks its key, and sends a heartbeat from time to time.
    async fn check(&mut self) -> Option<Bytes> {
        self.checked += 1;
        let checked = tokio::select! {
            biased;
            () = stopped(&mut self.stopping) => return Some(self.end(EndReason::Stopping)),
            checked = timeout_at(
                self.trusted_until,
                self.pass.check(&self.api_keys, self.clock.now()),
            ) => checked,
        };
        match checked {
            Ok(Ok(())) => self.trusted_until = Instant::now() + LONGEST_UNCHECKED,
            Ok(Err(problem)) if problem.status() == StatusCode::UNAUTHORIZED => {
                return Some(self.end(EndReason::KeyRefused));
            }
            // A database that is away for a moment ends no stream.
            Ok(Err(_)) if Instant::now() < self.trusted_until => {}
            Ok(Err(_)) | Err(_) => return Some(self.end(EndReason::Unavailable)),
        }
        self.checked.is_multiple_of(CHECKS_PER_HEARTBEAT).then(|| write_heartbeat(self.position))
    }

    fn end(&mut self, end: EndReason) -> Bytes {
        self.state = State::Ended;
        self.streams.0.metrics.ends.with_label_values(&[end.as_str()]).inc();
        write_end(end)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use axum::{extract::FromRequestParts as _, http::Request};
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tokio::{sync::Notify, task::yield_now};

    use super::{super::dispatcher::Dispatcher, *};
    use crate::http::{auth::ApiClient, query::Query};

    const HERE: FeedPosition = FeedPosition { feed_id: 7, position: 12 };

    /// A database that does not exist.
    fn nowhere() -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass().socket("/nowhere")
    }

    fn streams() -> Streams {
        Streams::start(&nowhere(), 1, pending()).0
    }

    /// A subscription with a key or without, which is looked up in that database.
    async fn subscription(
        streams: &Streams,
        key: Option<&str>,
        keys: PgConnectOptions,
    ) -> Subscription {
        let mut request = Request::get("/stream");
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let filter = Filter::read(&mut Query::of(&parts.uri), &ApiClient::Anonymous, None);
        Subscription {
            api_keys: ApiKeyCache::start(PgPoolOptions::new().connect_lazy_with(keys), false).0,
            clock: Clock::system(),
            filter,
            pass: PresentedKey::from_request_parts(&mut parts, &()).await.unwrap(),
            published: streams.0.published.subscribe(),
            dispatched: HERE,
            position: HERE,
            reset: None,
            state: State::New,
            checks: interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL),
            checked: 0,
            trusted_until: Instant::now() + LONGEST_UNCHECKED,
            stopping: streams.stopping(),
            _permit: streams.permit().unwrap(),
            _counted: GaugeGuard::in_(&streams.0.metrics.listeners),
            streams: streams.clone(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_sends_a_heartbeat_every_fifteen_seconds() {
        let mut subscription = subscription(&streams(), None, nowhere()).await;
        assert_eq!(subscription.next().await, Some(write_beginning(HERE)));
        let started = Instant::now();
        for number in 1..=4 {
            assert_eq!(subscription.next().await, Some(write_heartbeat(HERE)));
            assert_eq!(started.elapsed().as_secs(), 15 * number);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_key_cannot_be_checked_is_ended() {
        // This one accepts connections and sends nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let silent = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
        let key = format!("cs_{}", "0".repeat(64));
        for keys in [nowhere(), silent] {
            let mut subscription = subscription(&streams(), Some(&key), keys).await;
            assert_eq!(subscription.next().await, Some(write_beginning(HERE)));
            let started = Instant::now();
            assert_eq!(subscription.next().await, Some(write_end(EndReason::Unavailable)));
            assert_eq!(started.elapsed().as_secs(), LONGEST_UNCHECKED.as_secs());
            assert_eq!(subscription.next().await, None);
        }
    }

    #[tokio::test]
    async fn a_position_that_cannot_be_continued_from_is_answered_with_a_reset() {
        let streams = streams();
        let mut opened = subscription(&streams, None, nowhere()).await;
        opened.reset = Some(Discontinuity::BeyondHead);
        assert_eq!(opened.next().await, Some(write_beginning(HERE)));
        let reset = write_reset(Discontinuity::BeyondHead, HERE);
        assert_eq!(opened.next().await, Some(reset));
    }

    #[tokio::test]
    async fn a_feed_that_is_reset_is_followed_from_its_head() {
        let streams = streams();
        let mut subscription = subscription(&streams, None, nowhere()).await;
        assert_eq!(subscription.next().await, Some(write_beginning(HERE)));
        let other = FeedPosition { feed_id: 8, position: 3 };
        for (last, reason) in [
            (other, Discontinuity::OtherFeed),
            (FeedPosition { position: 2, ..other }, Discontinuity::BeyondHead),
        ] {
            let head = FeedHead { last, last_used: last.position };
            assert!(streams.0.published.send(Publication::Reset(head)).is_ok());
            assert_eq!(subscription.next().await, Some(write_reset(reason, last)));
        }
    }

    #[tokio::test]
    async fn streams_end_where_the_dispatcher_panics() {
        let streams = streams();
        let mut subscription = subscription(&streams, None, nowhere()).await;
        streams.0.position.send_replace(Some(HERE));
        assert_eq!(subscription.next().await, Some(write_beginning(HERE)));
        let dispatcher = Dispatcher::new(streams.clone(), nowhere());
        let panicking = dispatcher.catch_panic(async { panic!("the dispatcher fails") });
        assert!(matches!(panicking.await, Err(store::Error::Panicked)));
        assert_eq!(subscription.next().await, Some(write_end(EndReason::Unavailable)));
        assert_eq!(subscription.next().await, None);
        // The next subscription starts at the head.
        assert_eq!(*streams.0.position.borrow(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscription_during_the_stop_does_not_wait_for_the_dispatcher() {
        let stop = Arc::new(Notify::new());
        let stopping = Arc::clone(&stop);
        let stop_once = async move { stopping.notified().await };
        let (streams, dispatching) = Streams::start(&nowhere(), 1, stop_once);
        let opening = {
            let streams = streams.clone();
            tokio::spawn(async move { streams.subscribe().await.map(drop) })
        };
        // By now it waits.
        yield_now().await;
        stop.notify_one();
        let started = Instant::now();
        opening.await.unwrap().unwrap_err();
        streams.subscribe().await.unwrap_err();
        assert_eq!(started.elapsed(), Duration::ZERO);
        dispatching.finish().await;
    }
}

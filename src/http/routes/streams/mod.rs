//! `GET /stream`, `GET /calls/{call_id}/stream`: events as they are stored, by any
//! instance, as [Server-DeliverySchema Events]; and waiting for a call to end.
//!
//! | module | owns |
//! | --- | --- |
//! | `dispatcher` | reading the change feed, once for all streams and waits of the instance |
//! | `page` | a page of the feed as Server-DeliverySchema Events, written once for all streams |
//! | `filter` | which events a stream selects |
//! | `subscription` | one open stream: catches up from its position, then receives pages |
//! | `wait` | requests that wait for a call to end |
//!
//! What always holds: a message for each event that is stored, none left out, none sent
//! twice, in the order of commits, which is the same at every instance; a client that
//! resumes with `Last-Event-ID` gets what follows it, or `event: reset` where that
//! position is not one of this feed. Memory is bounded by the pages that are kept for
//! slow clients; a client that falls behind them gets a last message and is
//! disconnected. A stream that the service ends says why.
//!
//! Deliberately absent: SQL. A late event may change the disposition of earlier ones;
//! that is no event of its own.
//!
//! [Server-DeliverySchema Events]: https://html.spec.whatwg.org/multipage/server-sent-events.html

mod dispatcher;
pub(crate) mod filter;
pub(crate) mod page;
mod subscription;
mod wait;

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, Uri},
    response::Response,
};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, core::Collector};
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch},
    task::JoinHandle,
    time::timeout,
};
use utoipa::{
    IntoParams, IntoResponses,
    openapi::{
        ObjectBuilder, Type,
        path::{Parameter, ParameterIn},
    },
};

use crate::{
    call::{CallId, ProjectId},
    http::{
        Problem, Shared,
        auth::{ApiClient, PresentedKey},
        openapi::answers::{BadParameter, Responses, problems},
        query::{CallIdInPath, Query, parameter},
        routes::calls::{get::at_most_one, reader},
    },
    store::{
        calls::find::CallQuery,
        events::feed::{self, FeedHead, FeedPosition},
    },
};
use dispatcher::Dispatcher;
use filter::{Filter, FilterParameters};
use page::{EndReason, Page};
use subscription::Subscription;
use wait::Waits;
pub(crate) use wait::{WaitParameter, find_ended, read_wait};

/// The number of pages that are kept for slow clients. The dispatcher publishes at most
/// fifty a second: five seconds' worth, and more where there are fewer.
const MAX_PAGES: usize = 256;

/// The number of subscriptions that catch up at once, over connections of their own.
const READERS: u32 = 2;

/// The number of waits that snapshot up their call at once, so that other requests still
/// find room when all of them do.
const LOOKERS: usize = reader::MAX_WAITING / 4;

/// How long the dispatcher may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(5);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What the dispatcher publishes to all subscriptions.
#[derive(Debug, Clone)]
enum Publication {
    /// Events.
    Page(Arc<Page>),
    /// The feed was reset; this is its end.
    Reset(FeedHead),
    /// All streams end.
    EndReason(EndReason),
}

/// The streams of this instance.
#[derive(Debug, Clone)]
pub struct Streams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What the dispatcher publishes. Its receivers are the subscriptions.
    published: broadcast::Sender<Publication>,
    /// The position up to which everything was published; `None` while the dispatcher is
    /// not needed. It changes together with what is published, under its lock.
    position: watch::Sender<Option<FeedPosition>>,
    waits: Waits,
    /// Wakes the dispatcher.
    demand: Notify,
    /// A permit for each stream or wait that may still be added.
    permits: Arc<Semaphore>,
    /// Connections for catching up, and a permit for each.
    reading: PgPool,
    readers: Semaphore,
    lookers: Semaphore,
    stopping: watch::Sender<bool>,
    metrics: Metrics,
}

/// The running dispatcher of [`Streams`].
#[derive(Debug)]
pub struct DispatcherTask(JoinHandle<()>);

impl DispatcherTask {
    /// Waits until it has ended, which it does when it is to stop.
    pub async fn finish(self) {
        if let Err(panicked) = self.0.await {
            tracing::error!("the dispatcher of the streams ended: {panicked}");
        }
    }
}

impl Streams {
    /// The position up to which everything was published; `None` while there is neither a
    /// stream nor a wait.
    pub(crate) fn position(&self) -> Option<i64> {
        self.0.position.borrow().map(|position| position.position)
    }

    /// Starts the dispatcher, for at most so many streams and waits, until `stop`. It
    /// connects to the database when it is first needed.
    #[must_use]
    pub fn start(
        options: &PgConnectOptions,
        max_listeners: usize,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> (Self, DispatcherTask) {
        let streams = Self(Arc::new(Inner {
            published: broadcast::Sender::new(MAX_PAGES),
            position: watch::Sender::new(None),
            waits: Waits::default(),
            demand: Notify::new(),
            permits: Arc::new(Semaphore::new(max_listeners.min(Semaphore::MAX_PERMITS))),
            reading: feed::connections(options, READERS),
            readers: Semaphore::new(READERS as usize),
            lookers: Semaphore::new(LOOKERS),
            stopping: watch::Sender::new(false),
            metrics: Metrics::default(),
        }));
        let dispatcher = Dispatcher::new(streams.clone(), options.clone());
        (streams, DispatcherTask(tokio::spawn(dispatcher.run(stop))))
    }

    /// Its metrics, to be registered.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let Metrics { listeners, waits, messages, ends } = &self.0.metrics;
        vec![
            Box::new(listeners.clone()),
            Box::new(waits.clone()),
            Box::new(messages.clone()),
            Box::new(ends.clone()),
        ]
    }

    /// A permit for a stream or a wait.
    fn permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.0.permits).try_acquire_owned().map_err(|_| {
            Problem::unavailable("The limit of open streams and waits is reached.", None)
        })
    }

    /// A receiver of what is published from now on, and the position after which it goes on.
    async fn subscribe(&self) -> Result<(broadcast::Receiver<Publication>, FeedPosition), Problem> {
        let mut positions = self.0.position.subscribe();
        let (published, position) = {
            // While this is held nothing is published, and the dispatcher keeps its position.
            let position = positions.borrow_and_update();
            (self.0.published.subscribe(), *position)
        };
        if let Some(position) = position {
            return Ok((published, position));
        }
        self.0.demand.notify_one();
        let mut stopping = self.stopping();
        let started = tokio::select! {
            biased;
            () = stopped(&mut stopping) => {
                return Err(Problem::unavailable("The service is stopping.", None));
            }
            started = timeout(START_TIMEOUT, positions.wait_for(Option::is_some)) => started,
        };
        let position = started.ok().and_then(Result::ok).and_then(|position| *position);
        let position = position.ok_or_else(|| {
            let cause = format!("the dispatcher did not start within {START_TIMEOUT:?}");
            Problem::unavailable("The database is away.", Some(cause))
        })?;
        Ok((published, position))
    }

    /// Becomes true when the service stops.
    fn stopping(&self) -> watch::Receiver<bool> {
        self.0.stopping.subscribe()
    }
}

/// Waits until it stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender lives as long as the streams.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// The metrics of the streams.
#[derive(Debug, Clone)]
struct Metrics {
    listeners: IntGauge,
    waits: IntGauge,
    messages: IntCounter,
    ends: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let gauge = |name, help| IntGauge::new(name, help).expect("the name is well-formed");
        let ends =
            Opts::new("callstate_stream_ends_total", "Streams that the service ended, by reason.");
        let ends = IntCounterVec::new(ends, &["reason"]).expect("the names are well-formed");
        for end in EndReason::ALL {
            ends.with_label_values(&[end.as_str()]);
        }
        Self {
            listeners: gauge("callstate_stream_listeners", "Streams that are open."),
            waits: gauge("callstate_call_waits", "Requests that wait for a call to end."),
            messages: IntCounter::new(
                "callstate_stream_messages_total",
                "Messages sent to streams, one for each stream and event.",
            )
            .expect("the name is well-formed"),
            ends,
        }
    }
}

/// Counts one more while it lives.
#[derive(Debug)]
struct GaugeGuard(IntGauge);

impl GaugeGuard {
    fn in_(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The header `Last-Event-ID`.
pub(crate) struct LastEventId;

impl IntoParams for LastEventId {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = "The id of the last message that was received: the stream goes on after it. \
                       Without one it begins now.";
        let id = ObjectBuilder::new().schema_type(Type::String).examples(["1f0c53a8d2e4-872"]);
        vec![parameter("Last-Event-ID", ParameterIn::Header, meaning, id)]
    }
}

/// An example of a stream.
const EXAMPLE: &str = "retry: 1000\n:\nid: 1f0c53a8d2e4-871\n\n\
    event: call\nid: 1f0c53a8d2e4-872\ndata: \
    {\"call_id\":\"call-1\",\"project_id\":\"demo\",\"direction\":\"outbound\",\"status\":\"BUSY\",\
    \"terminal\":true,\"attempt_count\":1,\"has_errors\":false,\
    \"event_id\":\"e8d03a13-0464-8de5-882b-0be019b4c8d7\",\"event_type\":\"OUTBOUND_CALL_BUSY\",\
    \"disposition\":\"advanced\",\"updated_at\":\"2026-05-12T10:24:20.512034Z\"}\n\n";

/// Events as they are stored
///
/// Server-DeliverySchema Events: `event: call` for each event that is stored, by any instance, with its call
/// after it: a `StreamMessage`; `event: erased` for each call that is erased: a `StreamErasure`. None is left out and none sent twice, in the order of commits. Where
/// `Last-Event-ID` is not a position of this feed, because the database was restored or lost events,
/// the stream begins with `event: reset`, as `{"reason": "other_feed", "head": "1f0c53a8d2e4-872"}`
/// (or `beyond_head`), and goes on from `head`. A stream that the service ends says why in a last
/// `event: end`, as `{"reason": "stopping"}`: `too_slow`, `key_refused`, `stopping` or `unavailable`.
#[utoipa::path(
    get,
    path = "/stream",
    operation_id = "listen",
    tag = "calls",
    params(FilterParameters, LastEventId),
    responses(
        (status = 200, description = "A stream that stays open.", body = String,
         content_type = "text/event-stream", example = json!(EXAMPLE)),
        BadParameter,
    ),
    security((), ("api_key" = [])),
)]
pub(crate) async fn all(
    State(service): State<Shared>,
    caller: ApiClient,
    pass: PresentedKey,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut query = Query::of(&uri);
    let filter = Filter::read(&mut query, &caller, None);
    let last_id = read_last_id(&mut query, &headers);
    query.finish()?;
    Ok(Subscription::open(&service, filter, pass, last_id).await?.respond())
}

/// The events of one call as they are stored
///
/// As `GET /stream`, of one call. The call need not exist yet: its stream is silent until it does.
#[utoipa::path(
    get,
    path = "/calls/{call_id}/stream",
    operation_id = "listen_to_call",
    tag = "calls",
    params(CallIdInPath, FilterParameters, LastEventId),
    responses(
        (status = 200, description = "A stream that stays open.", body = String,
         content_type = "text/event-stream", example = json!(EXAMPLE)),
        NoOneCall,
    ),
    security((), ("api_key" = [])),
)]
pub(crate) async fn of_call(
    State(service): State<Shared>,
    caller: ApiClient,
    pass: PresentedKey,
    CallIdInPath(call_id): CallIdInPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut query = Query::of(&uri);
    let filter = Filter::read(&mut query, &caller, Some(call_id.clone()));
    let last_id = read_last_id(&mut query, &headers);
    query.finish()?;
    let query = CallQuery { call_id: call_id.clone(), projects: filter.projects.clone() };
    let found = service.calls.find(query).await?;
    at_most_one(found, &call_id, |stored| &stored.key.project_id)?;
    Ok(Subscription::open(&service, filter, pass, last_id).await?.respond())
}

/// The call is ambiguous, or a parameter is invalid.
pub(crate) struct NoOneCall;

impl IntoResponses for NoOneCall {
    fn responses() -> Responses {
        let call_id = CallId::new("call-1").expect("it is short");
        let projects = ["p-1", "p-2"].map(|id| ProjectId::new(id).expect("it is short"));
        let ambiguous = at_most_one(projects.into(), &call_id, |project_id| project_id).err();
        let bad = Problem::bad_parameter("colour: is no parameter here");
        problems(ambiguous.into_iter().chain([bad]))
    }
}

/// The position after which a client resumes.
fn read_last_id(query: &mut Query, headers: &HeaderMap) -> Option<FeedPosition> {
    let given = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty())?;
    let read = given.to_str().ok().and_then(|id| id.parse().ok());
    if read.is_none() {
        query.fault("Last-Event-ID", "is not an id of a stream");
    }
    read
}

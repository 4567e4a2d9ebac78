//! `GET /stream`, `GET /calls/{call_id}/stream`: events as they are stored, by
//! any instance, as [Server-Sent Events]; and waiting for a call to end.
//!
//! | file | holds |
//! | --- | --- |
//! | `hub` | the one connection that hears of what is stored, and tells all here |
//! | `page` | what was stored together, written once for all who listen |
//! | `filter` | which of it somebody listens to |
//! | `listener` | one who listens: reads up from where it was, then hears the hub |
//! | `wait` | those who wait for a call to end |
//!
//! What always holds: a message for each event that was stored, none left out and
//! none told twice, in one order that every instance keeps, however transactions
//! commit; who comes back with `Last-Event-ID` goes on behind it. Memory is bounded
//! by the pages that are kept for who reads slowly; who falls behind them is told
//! so and let go. A stream that is ended by us says why.
//!
//! Deliberately absent: SQL. What follows from a late event for those after it is
//! no event: a stream tells each once, as its call stood when it was stored.
//!
//! [Server-Sent Events]: https://html.spec.whatwg.org/multipage/server-sent-events.html

mod filter;
mod hub;
mod listener;
pub(super) mod page;
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

use super::{
    Problem, Shared,
    caller::{Caller, Pass},
    calls::at_most_one,
    lookup,
    openapi::answers::{Answers, BadParameter, problems},
    query::{CallIdInPath, Query, parameter},
};
use crate::{
    call::{CallId, ProjectId},
    store::{
        Buckets,
        calls::Wanted,
        stream::{self, Bookmark},
    },
};
use filter::{Filter, Filtering};
use hub::Hub;
use listener::Listener;
use page::{End, Page, read_id};
use wait::Waits;
pub(super) use wait::{Waiting, find_ended, read_wait};

/// How many pages are kept for who reads slowly. The hub sends fifty a second at
/// most: five seconds' worth, and more where less comes.
const MAX_PAGES: usize = 256;

/// How many listeners read up at once, over connections that only they have.
const READERS: u32 = 2;

/// How many of those who wait look for their call at once; so that questions
/// still find room when all of them do.
const LOOKERS: usize = lookup::MAX_WAITING / 4;

/// How long the hub may take to begin.
const PATIENCE: Duration = Duration::from_secs(5);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What all who listen are told: a page, or why their streams end.
type Told = Result<Arc<Page>, End>;

/// Where to listen and to wait.
#[derive(Debug, Clone)]
pub struct Streams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What is told. Who holds a receiver listens, and the hub reads for it.
    pages: broadcast::Sender<Told>,
    /// Up to where all was told; `None` while nobody listens. It changes together
    /// with what is sent, under its lock.
    tip: watch::Sender<Option<Bookmark>>,
    waits: Waits,
    /// Wakes the hub: somebody came.
    demand: Notify,
    /// One for each who may listen or wait.
    places: Arc<Semaphore>,
    /// Connections to read up by, and a turn for each.
    reading: PgPool,
    readers: Semaphore,
    lookers: Semaphore,
    stopping: watch::Sender<bool>,
    counters: Counters,
}

/// The hub behind [`Streams`].
#[derive(Debug)]
pub struct Hearing(JoinHandle<()>);

impl Hearing {
    /// Waits until it has ended, as it does when it is to stop.
    pub async fn finish(self) {
        if let Err(panicked) = self.0.await {
            tracing::error!("the hub of the streams ended: {panicked}");
        }
    }
}

impl Streams {
    /// Begins to tell those who will come, so many at once, until `stop`. Nobody
    /// connects to the database before somebody comes.
    #[must_use]
    pub fn start(
        options: &PgConnectOptions,
        buckets: Buckets,
        max_listeners: usize,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> (Self, Hearing) {
        let streams = Self(Arc::new(Inner {
            pages: broadcast::Sender::new(MAX_PAGES),
            tip: watch::Sender::new(None),
            waits: Waits::default(),
            demand: Notify::new(),
            places: Arc::new(Semaphore::new(max_listeners.min(Semaphore::MAX_PERMITS))),
            reading: stream::connections(options, READERS),
            readers: Semaphore::new(READERS as usize),
            lookers: Semaphore::new(LOOKERS),
            stopping: watch::Sender::new(false),
            counters: Counters::default(),
        }));
        let hub = Hub::new(streams.clone(), options.clone(), buckets);
        (streams, Hearing(tokio::spawn(hub.run(stop))))
    }

    /// What it counts, to be registered.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let Counters { listeners, waits, messages, ends } = &self.0.counters;
        vec![
            Box::new(listeners.clone()),
            Box::new(waits.clone()),
            Box::new(messages.clone()),
            Box::new(ends.clone()),
        ]
    }

    /// A place to listen or to wait in.
    fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.0.places)
            .try_acquire_owned()
            .map_err(|_| Problem::unavailable("As many listen and wait as may.", None))
    }

    /// What is told from here on, and where that is.
    async fn subscribe(&self) -> Result<(broadcast::Receiver<Told>, Bookmark), Problem> {
        let mut tips = self.0.tip.subscribe();
        let (pages, tip) = {
            // While this is held nothing is sent, and the hub does not forget where it is.
            let tip = tips.borrow_and_update();
            (self.0.pages.subscribe(), *tip)
        };
        if let Some(tip) = tip {
            return Ok((pages, tip));
        }
        self.0.demand.notify_one();
        let mut stopping = self.stopping();
        let begun = tokio::select! {
            biased;
            () = stopped(&mut stopping) => {
                return Err(Problem::unavailable("The service is stopping.", None));
            }
            begun = timeout(PATIENCE, tips.wait_for(Option::is_some)) => begun,
        };
        let tip = begun.ok().and_then(Result::ok).and_then(|tip| *tip);
        let tip = tip.ok_or_else(|| {
            let cause = format!("the streams did not begin within {PATIENCE:?}");
            Problem::unavailable("The database is away.", Some(cause))
        })?;
        Ok((pages, tip))
    }

    /// Tells when it stops.
    fn stopping(&self) -> watch::Receiver<bool> {
        self.0.stopping.subscribe()
    }
}

/// Waits until it stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender lives as long as the streams.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// What is counted.
#[derive(Debug, Clone)]
struct Counters {
    listeners: IntGauge,
    waits: IntGauge,
    messages: IntCounter,
    ends: IntCounterVec,
}

impl Default for Counters {
    fn default() -> Self {
        let gauge = |name, help| IntGauge::new(name, help).expect("the name is well-formed");
        let ends = Opts::new("callstate_stream_ends_total", "Streams that were ended, by why.");
        let ends = IntCounterVec::new(ends, &["reason"]).expect("the names are well-formed");
        for end in End::ALL {
            ends.with_label_values(&[end.as_str()]);
        }
        Self {
            listeners: gauge("callstate_stream_listeners", "Streams that are open."),
            waits: gauge("callstate_call_waits", "Questions that wait for their call to end."),
            messages: IntCounter::new(
                "callstate_stream_messages_total",
                "Messages that were handed to those who listen, one for each and event.",
            )
            .expect("the name is well-formed"),
            ends,
        }
    }
}

/// One more, as long as it lives.
#[derive(Debug)]
struct Counted(IntGauge);

impl Counted {
    fn in_(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The header `Last-Event-ID`.
pub(super) struct LastEventId;

impl IntoParams for LastEventId {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = "The id of the last message that was heard: the stream goes on behind it. \
                       Without one it begins now.";
        let id = ObjectBuilder::new().schema_type(Type::String).examples(["1-65199d8a01a37-872-0"]);
        vec![parameter("Last-Event-ID", ParameterIn::Header, meaning, id)]
    }
}

/// What a stream says.
const EXAMPLE: &str = "retry: 1000\n:\nid: 1-65199d8a01a37-871-2147483647\n\n\
    event: call\nid: 1-65199d8a01a37-872-0\ndata: \
    {\"call_id\":\"call-1\",\"project_id\":\"demo\",\"direction\":\"outbound\",\"status\":\"BUSY\",\
    \"terminal\":true,\"attempt_count\":1,\"has_errors\":false,\
    \"event_id\":\"e8d03a13-0464-8de5-882b-0be019b4c8d7\",\"event_type\":\"OUTBOUND_CALL_BUSY\",\
    \"disposition\":\"advanced\",\"updated_at\":\"2026-05-12T10:24:20.512034Z\"}\n\n";

/// Events as they are stored
///
/// Server-Sent Events: `event: call` for each event that is stored, by any instance, with the call as
/// it then stood: a `StreamMessage`. None is left out and none told twice; the order is the same for
/// all. A stream that the service ends says why in a last `event: end`, as `{"reason": "stopping"}`:
/// `too_slow`, `key_refused`, `stopping` or `unavailable`.
#[utoipa::path(
    get,
    path = "/stream",
    operation_id = "listen",
    tag = "calls",
    params(Filtering, LastEventId),
    responses(
        (status = 200, description = "A stream that goes on.", body = String,
         content_type = "text/event-stream", example = json!(EXAMPLE)),
        BadParameter,
    ),
    security((), ("api_key" = [])),
)]
pub(super) async fn all(
    State(service): State<Shared>,
    caller: Caller,
    pass: Pass,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut query = Query::of(&uri);
    let filter = Filter::read(&mut query, &caller, None);
    let last_id = read_last_id(&mut query, &headers);
    query.finish()?;
    Ok(Listener::open(&service, filter, pass, last_id).await?.answer())
}

/// The events of one call as they are stored
///
/// As `GET /stream`, of one call. It need not be known yet: its stream is silent until it is.
#[utoipa::path(
    get,
    path = "/calls/{call_id}/stream",
    operation_id = "listen_to_call",
    tag = "calls",
    params(CallIdInPath, Filtering, LastEventId),
    responses(
        (status = 200, description = "A stream that goes on.", body = String,
         content_type = "text/event-stream", example = json!(EXAMPLE)),
        NoOneCall,
    ),
    security((), ("api_key" = [])),
)]
pub(super) async fn of_call(
    State(service): State<Shared>,
    caller: Caller,
    pass: Pass,
    CallIdInPath(call_id): CallIdInPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut query = Query::of(&uri);
    let filter = Filter::read(&mut query, &caller, Some(call_id.clone()));
    let last_id = read_last_id(&mut query, &headers);
    query.finish()?;
    let wanted = Wanted { call_id: call_id.clone(), projects: filter.projects.clone() };
    let found = service.lookup.find(wanted).await?;
    at_most_one(found, &call_id, |stored| &stored.key.project_id)?;
    Ok(Listener::open(&service, filter, pass, last_id).await?.answer())
}

/// The call is one of several, or is not named well.
pub(super) struct NoOneCall;

impl IntoResponses for NoOneCall {
    fn responses() -> Answers {
        let call_id = CallId::new("call-1").expect("it is short");
        let projects = ["p-1", "p-2"].map(|id| ProjectId::new(id).expect("it is short"));
        let ambiguous = at_most_one(projects.into(), &call_id, |project_id| project_id).err();
        let bad = Problem::bad_parameter("colour: is no parameter here");
        problems(ambiguous.into_iter().chain([bad]))
    }
}

/// The place behind which a client goes on.
fn read_last_id(query: &mut Query, headers: &HeaderMap) -> Option<Bookmark> {
    let given = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty())?;
    let read = given.to_str().ok().and_then(read_id);
    if read.is_none() {
        query.fault("Last-Event-ID", "is no id of this stream");
    }
    read
}

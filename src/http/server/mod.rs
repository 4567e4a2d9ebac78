//! The edge of the HTTP interface: what holds for every request, whatever it
//! asks.
//!
//! | file | holds |
//! | --- | --- |
//! | `server` | connections: how many, how large, how they end |
//! | `deadlines` | how long a connection may be slow |
//! | `content_length` | lengths of bodies that no number holds |
//! | `unread` | requests that are answered before their body was read |
//! | `request_id` | `X-Request-Id` |
//! | `client` | whose request it is, behind proxies too |
//! | `origin` | what pages of others may have a browser do here |
//! | `headers` | what every answer tells a browser |
//! | `routes` | how requests are counted |
//!
//! What always holds: a request that was read is answered, within a time that is
//! bounded; its answer and its log lines have its id; nothing here is done for a
//! request that locks, or that takes longer than some atomics and a few small
//! allocations.
//!
//! Deliberately absent: TLS and limits of rates, which are a proxy's.

mod content_length;
mod deadlines;
mod forwarded;
mod listener;
mod origin;
mod request_id;
mod request_metrics;
mod response_headers;
mod unread_body;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::HttpBody as _,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, Method, Uri, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use ipnet::IpNet;
use prometheus::{IntGauge, core::Collector};
use tokio::time::timeout;
use tower_http::cors::CorsLayer;

use crate::{
    http::{
        Problem,
        body::{BodyBudget, Reservation},
        problem::{self, CauseKind},
    },
    log_limit,
};
pub(super) use forwarded::ClientAddress;
use forwarded::TrustedProxies;
pub use listener::serve;
use origin::BrowserPolicy;
use request_id::RequestIds;
pub(super) use request_id::{REQUEST_ID, RequestId};
use request_metrics::RequestMetrics;

/// The longest path with its query, in bytes; more is 414. A cursor, an id and a
/// dozen filters take a quarter.
const MAX_URL: usize = 8 * 1024;

/// How long an answer may be waited for on purpose, besides the time that any
/// may take.
pub(super) const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// The route that waits, if it is asked to.
const WAITING_ROUTE: &str = "/calls/{call_id}";

/// How long a browser may remember what another origin may ask.
const CORS_MAX_AGE: Duration = Duration::from_hours(1);

/// What the operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// The most connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// The most bytes of bodies that are held together for senders that are not yet
    /// authenticated.
    pub max_unauthenticated_bytes: usize,
    /// How long a request's headers may take to come, then its body, and how long
    /// a client may take nothing of its answer.
    pub read_timeout: Duration,
    /// How long a connection may wait for another request.
    pub idle_timeout: Duration,
    /// How long an answer may take once the request has come.
    pub answer_timeout: Duration,
    /// The names by which questions without a key are answered, besides those of
    /// the loopback; `None` for any.
    pub hosts: Option<Vec<String>>,
    /// The origins whose pages may ask, as browsers write them.
    pub cors_origins: Vec<String>,
    /// The proxies that are believed whose request it is.
    pub trusted_proxies: Vec<IpNet>,
}

/// What holds for every request.
#[derive(Debug)]
pub struct HttpServer {
    settings: HttpSettings,
    names: BrowserPolicy,
    proxies: TrustedProxies,
    request_ids: RequestIds,
    routes: RequestMetrics,
    unauthenticated: Arc<BodyBudget>,
    connections: IntGauge,
}

impl HttpServer {
    /// An edge as the operator decided.
    ///
    /// # Panics
    ///
    /// Where a CORS origin may not stand in a header.
    #[must_use]
    pub fn new(settings: HttpSettings) -> Self {
        let origins = settings.cors_origins.iter();
        let origins = origins.map(|origin| origin.parse().expect("an origin is visible ASCII"));
        Self {
            names: BrowserPolicy { hosts: settings.hosts.clone(), origins: origins.collect() },
            proxies: TrustedProxies(settings.trusted_proxies.clone()),
            request_ids: RequestIds::new(),
            routes: RequestMetrics::new(&crate::http::ROUTES),
            unauthenticated: Arc::new(BodyBudget::new(settings.max_unauthenticated_bytes)),
            connections: IntGauge::new("callstate_http_connections", "Connections that are open.")
                .expect("the name is well-formed"),
            settings,
        }
    }

    /// What it counts, to be registered.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.connections.clone()),
            Box::new(self.unauthenticated.gauge()),
            Box::new(self.routes.answers.clone()),
            Box::new(self.routes.seconds.clone()),
        ]
    }

    /// How long a body may take to come.
    pub(super) fn read_timeout(&self) -> Duration {
        self.settings.read_timeout
    }

    /// A reservation for the body of a sender that is not yet authenticated.
    pub(super) fn unauthenticated_body(&self) -> Reservation {
        self.unauthenticated.reservation()
    }

    /// Refuses a request without a key that is asked under another's name, as a
    /// browser does for a page whose name was made to point here.
    pub(super) fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        if self.names.are_meant(uri, headers) {
            return Ok(());
        }
        Err(misdirected())
    }

    /// Refuses what would change something, asks for no proof, and was sent by a
    /// page of another origin.
    pub(super) fn check_origin(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        if self.names.is_foreign(method, headers) {
            return Err(foreign_origin());
        }
        Ok(())
    }

    /// What lets pages of other origins ask, if any may.
    pub(super) fn cors(&self) -> Option<CorsLayer> {
        if self.names.origins.is_empty() {
            return None;
        }
        let layer = CorsLayer::new()
            .allow_origin(self.names.origins.clone())
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::IF_NONE_MATCH,
                HeaderName::from_static("last-event-id"),
                REQUEST_ID,
            ])
            .expose_headers([header::ETAG, header::RETRY_AFTER, REQUEST_ID])
            .max_age(CORS_MAX_AGE);
        Some(layer)
    }
}

/// The request is to a name that is not ours.
pub(super) fn misdirected() -> Problem {
    Problem::misdirected(
        "without a key, questions are answered to localhost and the names in http.hosts",
    )
}

/// What would change something comes from a page that may not.
pub(super) fn foreign_origin() -> Problem {
    Problem::foreign_origin("pages of that origin may not do this")
}

/// There is not exactly one valid `Host`.
pub(super) fn bad_host() -> Problem {
    Problem::bad_host("a request of HTTP/1.1 has one Host header: a name or an address, and a port")
}

/// The path and its query have more than [`MAX_URL`] bytes.
pub(super) fn url_too_long() -> Problem {
    Problem::url_too_long(format!("a URL has at most {MAX_URL} bytes"))
}

/// Gives a request what every one has, has it answered in time, and tells the
/// log and the counters what became of it.
pub(super) async fn handle(
    State(edge): State<Arc<HttpServer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let id = edge.request_ids.of(request.headers_mut());
    let client = ClientAddress::of(request.extensions())
        .map(|peer| edge.proxies.client(peer, request.headers()));
    if let (Some(address), Some(place)) =
        (client, request.extensions_mut().get_mut::<ClientAddress>())
    {
        *place = ClientAddress(address);
    }
    let route = edge.routes.of(request.extensions().get().map(MatchedPath::as_str));
    let (method, uri) = (request.method().clone(), request.uri().clone());

    let mut response = answer(&edge, request, next).await;

    let status = response.status();
    let cause = response.extensions().get::<problem::Cause>();
    let kind = match cause {
        Some(cause) => cause.kind,
        None if status.is_server_error() => CauseKind::Failure,
        None => CauseKind::Logged,
    };
    let cause = cause.map(|cause| cause.what.as_str());
    let (path, number) = (uri.path(), status.as_u16());
    match kind {
        CauseKind::Failure => {
            if log_limit::admits("request_failed", &format!("{number} {}", route.name())) {
                tracing::error!(%method, path, status = number, cause, request_id = %id, "a request failed");
            }
        }
        CauseKind::Refusal => {
            // The causes of refusals are texts of the program.
            let subject = format!("{number} {}", cause.unwrap_or_default());
            if log_limit::admits("request_refused", &subject) {
                let client = client.map(tracing::field::display);
                tracing::info!(%method, path, status = number, cause, request_id = %id, client, "a request was refused");
            }
        }
        CauseKind::Logged => {
            tracing::debug!(%method, path, status = number, cause, request_id = %id, "a request was answered");
        }
    }
    response_headers::secure(response.headers_mut());
    response.headers_mut().insert(REQUEST_ID, id.into_header());
    route.answered(status, begun.elapsed());
    response
}

/// The answer, or what is said where it would take too much.
async fn answer(edge: &HttpServer, request: Request, next: Next) -> Response {
    if !origin::has_valid_host(request.version(), request.headers()) {
        return bad_host().into_response();
    }
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > MAX_URL {
        return url_too_long().into_response();
    }
    let wait = if may_wait(&request) { LONGEST_WAIT } else { Duration::ZERO };
    let limit = wait
        + if request.body().is_end_stream() {
            edge.settings.answer_timeout
        } else {
            // Its handler waits for the body first, which has a time of its own.
            edge.settings.read_timeout + edge.settings.answer_timeout
        };
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let cause = format!("no answer within {limit:?}");
            Problem::unavailable("It takes too long.", Some(cause)).into_response()
        }
    }
}

/// Whether it asks to be answered when something has happened.
fn may_wait(request: &Request) -> bool {
    let matched = request.extensions().get().map(MatchedPath::as_str);
    request.uri().query().is_some() && matched == Some(WAITING_ROUTE)
}

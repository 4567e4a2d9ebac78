//! The HTTP interface: a router, and one file per endpoint with its request and
//! response.
//!
//! | module | holds |
//! | --- | --- |
//! | [`server`] | the listener, deadlines, headers, and what applies to every request |
//! | [`auth`] | API keys: the extractor and the cache |
//! | [`routes`] | the handlers, one file per resource |
//! | `problem`, `query`, `pagination`, `etag`, `body` | what handlers share |
//! | `openapi`, `docs` | the description of the interface and its page |
//!
//! Every route requires an API key where the configuration asks for one, except those named in [`router`].
//!
//! What always holds: an error is a [`Problem`] (RFC 9457), for unknown routes
//! and methods too; it says what the client can mend and nothing of the inside;
//! its cause is logged once, here at the boundary.
//!
//! Deliberately absent: SQL, and what an event does to a call.

pub mod auth;
mod body;
mod docs;
mod etag;
mod openapi;
mod pagination;
mod problem;
mod query;
pub mod routes;
pub mod server;

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::Request,
    http::Method,
    middleware,
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use sqlx::PgPool;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    clock::Clock,
    ingest::{Ingest, Quarantine, Retention},
};
pub use auth::api_key_cache::ApiKeyCache;
pub use problem::Problem;
pub use routes::{
    calls::reader::CallReader, reports::Reports, streams::Streams, webhooks::endpoints::Endpoints,
};
use routes::{
    calls::{history, list},
    health, metrics, quarantine, reports, state_machine, webhooks,
};
pub use server::HttpServer;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Service {
    /// Reads from the database.
    pub pool: PgPool,
    /// The way in for deliveries.
    pub ingest: Ingest,
    /// Where deliveries go that cannot be understood.
    pub quarantine: Quarantine,
    /// Removes what is old.
    pub retention: Arc<Retention>,
    /// How long a live call may receive nothing before it counts as stalled.
    pub stalled_after: Duration,
    /// Tells when a delivery came.
    pub clock: Clock,
    /// The endpoints that take deliveries, as they are now.
    pub endpoints: watch::Receiver<Arc<Endpoints>>,
    /// The API keys.
    pub api_keys: ApiKeyCache,
    /// What holds for every request.
    pub server: Arc<HttpServer>,
    /// Where to ask for calls.
    pub calls: CallReader,
    /// Where to listen and to wait.
    pub streams: Streams,
    /// What reports share.
    pub reports: Reports,
}

/// The templates of all routes: requests are counted by them.
const ROUTES: [&str; 26] = [
    "/webhooks",
    "/webhooks/",
    "/webhooks/{endpoint}",
    "/webhooks/{endpoint}/",
    "/state-machine",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/calls",
    "/calls/{call_id}",
    "/calls/{call_id}/history",
    "/clients/{client_id}",
    "/calls/{call_id}/stream",
    "/stream",
    "/events",
    "/reports/outcomes",
    "/reports/durations",
    "/reports/concurrency",
    "/reports/errors",
    "/reports/coverage",
    "/quarantine",
    "/quarantine/{id}",
    "/quarantine/{id}/replay",
    "/openapi.json",
    "/docs",
    "/docs/style.css",
];

/// As the handlers get it: each request has it cloned several times.
type Shared = Arc<Service>;

/// All routes.
pub fn router(service: Service) -> Router {
    let service = Arc::new(service);
    let webhook = any(webhooks::receive);
    // A delivery proves where it comes from in its own way; the others tell
    // nothing of calls.
    let open = Router::new()
        .route("/webhooks", webhook.clone())
        .route("/webhooks/", webhook.clone())
        .route("/webhooks/{endpoint}", webhook.clone())
        .route("/webhooks/{endpoint}/", webhook)
        .route("/state-machine", get(state_machine::show))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/openapi.json", get(openapi::show))
        .route("/docs", get(docs::show))
        .route("/docs/style.css", get(docs::style))
        .method_not_allowed_fallback(no_such_method);
    // The guard comes after their answer to other methods, which it guards too.
    let guarded = Router::new()
        .route("/metrics", get(metrics::show).layer(Extension(metrics::registry(&service))))
        .route("/calls", get(list::list))
        .route(
            "/calls/{call_id}",
            get(routes::calls::get::show).delete(routes::erasure::delete_call),
        )
        .route("/clients/{client_id}", delete(routes::erasure::delete_client))
        .route("/calls/{call_id}/history", get(history::show))
        .route("/calls/{call_id}/stream", get(routes::streams::of_call))
        .route("/stream", get(routes::streams::all))
        .route("/events", get(routes::events::show))
        .route("/reports/outcomes", get(reports::outcomes::show))
        .route("/reports/durations", get(reports::durations::show))
        .route("/reports/concurrency", get(reports::concurrency::show))
        .route("/reports/errors", get(reports::errors::show))
        .route("/reports/coverage", get(reports::coverage::show))
        .route("/quarantine", get(quarantine::list))
        .route("/quarantine/{id}", get(quarantine::show).delete(quarantine::delete))
        .route("/quarantine/{id}/replay", post(quarantine::replay))
        .method_not_allowed_fallback(no_such_method)
        .route_layer(middleware::from_fn_with_state(service.clone(), auth::guard));
    let server = Arc::clone(&service.server);
    // Which routes there are is no secret.
    let all = open.merge(guarded).fallback(no_such_route).with_state(service);
    with_server(all, server)
}

/// Routes, with what holds for every request around them.
fn with_server(routes: Router, server: Arc<HttpServer>) -> Router {
    let caught = routes.layer(CatchPanicLayer::custom(panicked));
    let shared = match server.cors() {
        Some(cors) => caught.layer(cors),
        None => caught,
    };
    shared.layer(middleware::from_fn_with_state(server, server::handle))
}

async fn no_such_route(request: Request) -> Problem {
    Problem::not_found(format!("there is no {}", request.uri().path()))
}

async fn no_such_method(method: Method, request: Request) -> Problem {
    Problem::method_not_allowed(format!("{} does not take {method}", request.uri().path()))
}

#[expect(clippy::needless_pass_by_value, reason = "the layer gives it so")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Problem::internal(format!("a handler panicked: {message}")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{StatusCode, header},
    };
    use tower::ServiceExt as _;

    use super::*;

    fn server(answer_timeout: Duration) -> Arc<HttpServer> {
        Arc::new(HttpServer::new(server::HttpSettings {
            max_connections: 1,
            max_unauthenticated_bytes: 1024,
            read_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            answer_timeout,
            hosts: None,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
        }))
    }

    async fn ask(routes: Router, answer_timeout: Duration) -> Response {
        let request = Request::get("/health/live")
            .header(header::HOST, "localhost")
            .body(Body::empty())
            .unwrap();
        with_server(routes, server(answer_timeout)).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_handler_that_panics_answers_with_a_problem_that_tells_nothing() {
        let routes = Router::new()
            .route("/health/live", get(async || -> &str { panic!("the secret is out") }));
        let response = ask(routes, Duration::from_mins(1)).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(response.headers().contains_key("x-request-id"));
        let body = to_bytes(response.into_body(), 1024).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }

    #[tokio::test]
    async fn a_handler_that_never_ends_is_given_up() {
        let routes = Router::new().route("/health/live", get(std::future::pending::<()>));
        let response = ask(routes, Duration::from_millis(1)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}

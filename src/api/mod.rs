//! The HTTP interface: a router, and one file per endpoint with its request and
//! response.
//!
//! | file | serves |
//! | --- | --- |
//! | [`webhooks`] | `POST /webhooks/{endpoint}` |
//! | `calls` | `GET /calls/{call_id}` |
//! | `history` | `GET /calls/{call_id}/history` |
//! | [`quarantine`] | `GET /quarantine`, `GET /quarantine/{id}`, `POST /quarantine/{id}/replay` |
//! | `state_machine` | `GET /state-machine` |
//! | `health` | `GET /health/live`, `GET /health/ready` |
//!
//! Every route stands behind the guard of [`caller`], but for those named in
//! [`router`].
//!
//! What always holds: an error is a [`Problem`] (RFC 9457), for unknown routes
//! and methods too; it says what the client can mend and nothing of the inside;
//! its cause is logged once, here at the boundary.
//!
//! Deliberately absent: SQL, and what an event does to a call.

mod body;
pub mod caller;
mod calls;
mod health;
mod history;
pub mod keyring;
mod lookup;
mod page;
mod problem;
pub mod quarantine;
mod query;
mod state_machine;
pub mod webhooks;

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::Method,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use sqlx::PgPool;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    clock::Clock,
    ingest::{Ingest, Quarantine},
    store::Buckets,
};
pub use keyring::Keyring;
pub use lookup::Lookup;
pub use problem::Problem;
use webhooks::Endpoints;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct Service {
    /// Reads from the database.
    pub pool: PgPool,
    /// How many buckets the database has.
    pub buckets: Buckets,
    /// The way in for deliveries.
    pub ingest: Ingest,
    /// Where deliveries go that cannot be understood.
    pub quarantine: Quarantine,
    /// Tells when a delivery came.
    pub clock: Clock,
    /// The endpoints that take deliveries, as they are now.
    pub endpoints: watch::Receiver<Arc<Endpoints>>,
    /// The API keys.
    pub keyring: Keyring,
    /// Where to ask for calls.
    pub lookup: Lookup,
}

/// All routes.
pub fn router(service: Service) -> Router {
    let webhook = any(webhooks::take);
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
        .method_not_allowed_fallback(no_such_method);
    // The guard comes after their answer to other methods, which it guards too.
    let guarded = Router::new()
        .route("/calls/{call_id}", get(calls::show))
        .route("/calls/{call_id}/history", get(history::show))
        .route("/quarantine", get(quarantine::list))
        .route("/quarantine/{id}", get(quarantine::show))
        .route("/quarantine/{id}/replay", post(quarantine::replay))
        .method_not_allowed_fallback(no_such_method)
        .route_layer(middleware::from_fn_with_state(service.clone(), caller::guard));
    open.merge(guarded)
        // Which routes there are is no secret.
        .fallback(no_such_route)
        .with_state(service)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(log))
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

/// Logs what went wrong inside, once for each request.
async fn log(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    match response.extensions().get::<problem::Cause>() {
        Some(problem::Cause(cause)) if response.status().is_server_error() => {
            tracing::error!(%method, path, status, cause, "a request failed");
        }
        Some(problem::Cause(cause)) => {
            tracing::info!(%method, path, status, cause, "a request was refused");
        }
        None => tracing::debug!(%method, path, status, "a request was answered"),
    }
    response
}

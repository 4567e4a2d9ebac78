//! `GET /health/live` and `GET /health/ready`.

use std::time::Duration;

use axum::{Json, extract::State, http::Uri};
use serde::Serialize;
use tokio::time::timeout;

use super::{Problem, Shared, query::Query};
use crate::store::connection::can_be_written;

/// How long the database may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
pub(super) struct Health {
    status: &'static str,
}

/// The process runs.
pub(super) async fn live(uri: Uri) -> Result<Json<Health>, Problem> {
    Query::of(&uri).finish()?;
    Ok(Json(Health { status: "live" }))
}

/// The database answers and can be written to, so that deliveries can be taken.
pub(super) async fn ready(
    State(service): State<Shared>,
    uri: Uri,
) -> Result<Json<Health>, Problem> {
    Query::of(&uri).finish()?;
    match timeout(PATIENCE, can_be_written(&service.pool)).await {
        Ok(Ok(true)) => Ok(Json(Health { status: "ready" })),
        Ok(Ok(false)) => Err(Problem::unavailable("The database cannot be written to.", None)),
        Ok(Err(error)) => {
            Err(Problem::unavailable("The database is away.", Some(error.to_string())))
        }
        Err(_) => Err(Problem::unavailable(
            "The database does not answer.",
            Some(format!("the database did not answer within {PATIENCE:?}")),
        )),
    }
}

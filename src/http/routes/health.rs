//! `GET /health/live` and `GET /health/ready`.

use std::time::Duration;

use axum::{Json, extract::State, http::Uri};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::{
    http::{Problem, Shared, openapi::answers::BadParameter, query::Query},
    store::{
        self,
        connection::{can_be_written, is_migrated},
    },
};

/// How long the database may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the service fares.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `live` or `ready`.
    status: &'static str,
}

/// Whether the process runs
///
/// It does if it answers.
#[utoipa::path(
    get,
    path = "/health/live",
    operation_id = "get_live",
    tag = "operations",
    responses(
        (status = 200, description = "It runs.", body = Health, example = json!({"status": "live"})),
        BadParameter,
    ),
)]
pub(crate) async fn live(uri: Uri) -> Result<Json<Health>, Problem> {
    Query::of(&uri).finish()?;
    Ok(Json(Health { status: "live" }))
}

/// Whether deliveries can be taken
///
/// They can if the database answers and can be written to, and all writers run.
#[utoipa::path(
    get,
    path = "/health/ready",
    operation_id = "get_ready",
    tag = "operations",
    responses(
        (status = 200, description = "They can.", body = Health, example = json!({"status": "ready"})),
        BadParameter,
    ),
)]
pub(crate) async fn ready(
    State(service): State<Shared>,
    uri: Uri,
) -> Result<Json<Health>, Problem> {
    Query::of(&uri).finish()?;
    let unready = |detail: &str| Err(Problem::unavailable(detail, Some(detail.to_owned())));
    let looked = async {
        // Both over one, so that a single connection has to be found sound.
        let mut connection = service.pool.acquire().await?;
        let is_migrated = is_migrated(&mut *connection).await?;
        Ok::<_, store::Error>((is_migrated, can_be_written(&mut *connection).await?))
    };
    match timeout(PATIENCE, looked).await {
        Ok(Ok((true, true))) if !service.ingest.is_healthy() => unready("A writer has ended."),
        Ok(Ok((true, true))) => Ok(Json(Health { status: "ready" })),
        Ok(Ok((false, _))) => unready("The database lacks the schema of this callstate."),
        Ok(Ok((true, false))) => unready("The database cannot be written to."),
        Ok(Err(error)) => {
            Err(Problem::unavailable("The database is away.", Some(error.to_string())))
        }
        Err(_) => Err(Problem::unavailable(
            "The database does not answer.",
            Some(format!("the database did not answer within {PATIENCE:?}")),
        )),
    }
}

//! `DELETE /calls/{call_id}`, `DELETE /clients/{client_id}`: erasure, for administrators.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::{Uri, request::Parts},
};
use serde::Serialize;
use utoipa::{
    IntoParams, IntoResponses, ToSchema,
    openapi::{
        Ref,
        path::{Parameter, ParameterIn},
    },
};

use crate::{
    call::{ClientId, ProjectId},
    http::{
        Problem, Service, Shared,
        auth::{ApiClient, ProjectAdmin},
        openapi::answers::{Responses, problems},
        query::{CallIdInPath, InProject, Query, parameter},
        routes::calls::get::{NoSuchCall, only_one},
        server::foreign_origin,
    },
    ingest::erasure::{self, ErasureRequest},
    store::erasure::{Erased, calls_of_id},
};

/// How much was erased.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Erasure)]
pub(crate) struct ErasureDocument {
    /// The number of calls.
    calls: u64,
    /// The number of their events.
    events: u64,
    /// The number of entries of the quarantine that named them.
    quarantine_entries: u64,
}

impl From<Erased> for ErasureDocument {
    fn from(erased: Erased) -> Self {
        let Erased { calls, events, quarantine_entries } = erased;
        Self { calls, events, quarantine_entries }
    }
}

/// The client that the path names.
pub(crate) struct ClientIdInPath(ClientId);

#[derive(serde::Deserialize)]
struct PathParameters {
    client_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for ClientIdInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refuse = |why: String| Problem::bad_parameter(format!("client_id: {why}"));
        let Path(path) = Path::<PathParameters>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| refuse(rejection.body_text()))?;
        ClientId::new(path.client_id).map(Self).map_err(|error| refuse(error.to_string()))
    }
}

impl IntoParams for ClientIdInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let client_id = Ref::from_schema_name(ClientId::name());
        vec![parameter("client_id", ParameterIn::Path, "The client.", client_id)]
    }
}

/// The parameter `project_id` of the erasure of a client.
pub(crate) struct OfProject;

impl IntoParams for OfProject {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let project_id = Ref::from_schema_name(ProjectId::name());
        vec![parameter("project_id", ParameterIn::Query, "Only in this project.", project_id)]
    }
}

/// A page of another origin may not erase.
pub(crate) struct NotErased;

impl IntoResponses for NotErased {
    fn responses() -> Responses {
        problems([ProjectAdmin::refusal(), foreign_origin()])
    }
}

/// Erase a call
///
/// Deletes the call with all its events and payloads, and the entries of the quarantine that name it.
/// It stays erased: a later delivery of it is answered `"disposition": "erased"` and not stored. The
/// erasure is in the change feed as `event: erased`. With a key that is limited to projects, calls of
/// other projects are not found.
#[utoipa::path(
    delete,
    path = "/calls/{call_id}",
    operation_id = "erase_call",
    tag = "calls",
    params(CallIdInPath, InProject),
    responses(
        (status = 200, description = "The call is erased.", body = ErasureDocument,
         example = json!({"calls": 1, "events": 6, "quarantine_entries": 0})),
        NoSuchCall,
        NotErased,
    ),
    security((), ("api_key" = ["admin"])),
)]
pub(crate) async fn delete_call(
    ProjectAdmin(client): ProjectAdmin,
    State(service): State<Shared>,
    CallIdInPath(call_id): CallIdInPath,
    uri: Uri,
) -> Result<Json<ErasureDocument>, Problem> {
    let mut query = Query::of(&uri);
    let projects = client.projects(query.take_project_id().as_ref());
    query.finish()?;
    let found = calls_of_id(&service.pool, &call_id, &projects).await?;
    let call = only_one(found, &call_id, |call| &call.project_id)?;
    let erased = erasure::of_call(&service.pool, &call, request(&service, &client)).await?;
    tracing::info!(events = erased.events, "a call was erased");
    Ok(Json(erased.into()))
}

/// Erase a client
///
/// Erases every call that an event names the client of, one after the other, as `DELETE
/// /calls/{call_id}` does. The client stays erased: later deliveries that name it are answered
/// `"disposition": "erased"`, for new calls too. If the request is interrupted, repeat it.
#[utoipa::path(
    delete,
    path = "/clients/{client_id}",
    operation_id = "erase_client",
    tag = "calls",
    params(ClientIdInPath, OfProject),
    responses(
        (status = 200, description = "The calls of the client are erased; 0 where there are none.", body = ErasureDocument,
         example = json!({"calls": 2, "events": 11, "quarantine_entries": 1})),
        crate::http::openapi::answers::BadParameter,
        NotErased,
    ),
    security((), ("api_key" = ["admin"])),
)]
pub(crate) async fn delete_client(
    ProjectAdmin(client): ProjectAdmin,
    State(service): State<Shared>,
    ClientIdInPath(client_id): ClientIdInPath,
    uri: Uri,
) -> Result<Json<ErasureDocument>, Problem> {
    let mut query = Query::of(&uri);
    let projects = client.projects(query.take_project_id().as_ref());
    query.finish()?;
    let request = request(&service, &client);
    let erased =
        erasure::of_client(&service.pool, &client_id, &projects, request, |_, _| {}).await?;
    tracing::info!(calls = erased.calls, events = erased.events, "a client was erased");
    Ok(Json(erased.into()))
}

fn request(service: &Service, client: &ApiClient) -> ErasureRequest {
    let api_key = match client {
        ApiClient::Anonymous => None,
        ApiClient::Key(record) => Some(record.id),
    };
    ErasureRequest { api_key, now: service.clock.now() }
}

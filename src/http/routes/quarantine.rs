//! `GET /quarantine`, `GET` and `DELETE /quarantine/{id}`, `POST /quarantine/{id}/replay`:
//! deliveries that could not be understood. For administrators.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, Uri, request::Parts},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{
    IntoParams, IntoResponses, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, SchemaFormat, Type,
        path::{Parameter, ParameterIn},
    },
};
use uuid::Uuid;

use crate::{
    http::{
        Problem, Shared,
        auth::Admin,
        openapi::{
            answers::{BadParameter, Responses, problems},
            example,
        },
        pagination::{
            PageParameters, cut, read_cursor, read_limit, read_time, write_cursor, write_time,
        },
        query::{Query, parameter},
        routes::webhooks::DeliveryResult,
        server::foreign_origin,
    },
    ingest::quarantine::ReplayError,
    store::quarantine::{Entry, Place, WholeEntry, by_id, newest},
};

/// The most entries on a page.
const MAX_LIMIT: u16 = 500;

/// The entries on a page, unless it is said.
const DEFAULT_LIMIT: u16 = 50;

/// A page of the quarantine, the newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuarantinePage)]
pub(crate) struct QuarantineDocument {
    /// The entries.
    quarantine: Vec<EntryDocument>,
    /// The `cursor` of the next page; null at the end.
    next_cursor: Option<String>,
}

/// An entry, but for its body.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuarantineEntry)]
pub struct EntryDocument {
    /// Identifies it: the same for each delivery of the same body to the same endpoint.
    id: Uuid,
    /// Why it was not understood.
    reason: String,
    /// The name of the endpoint that took it.
    endpoint: String,
    /// When it first came.
    first_received_at: DateTime<Utc>,
    /// When it last came.
    last_received_at: DateTime<Utc>,
    /// How often it came.
    #[schema(minimum = 1)]
    count: i64,
    /// Its length in bytes.
    #[schema(minimum = 0)]
    size: i32,
}

/// An entry with its body.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WholeQuarantineEntry)]
pub struct WholeEntryDocument {
    #[serde(flatten)]
    entry: EntryDocument,
    /// What came.
    body: String,
    /// How the body is written; absent where it is text as it came.
    #[schema(value_type = String, nullable = false, pattern = "^base64$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

impl From<Entry> for EntryDocument {
    fn from(entry: Entry) -> Self {
        let Entry { place, reason, endpoint, last_received_at, count, size } = entry;
        let Place { first_received_at, id } = place;
        Self { id, reason, endpoint, first_received_at, last_received_at, count, size }
    }
}

impl From<WholeEntry> for WholeEntryDocument {
    fn from(whole: WholeEntry) -> Self {
        let (body, encoding) = match String::from_utf8(whole.body) {
            Ok(text) => (text, None),
            Err(bytes) => (STANDARD.encode(bytes.as_bytes()), Some("base64")),
        };
        Self { entry: whole.entry.into(), body, encoding }
    }
}

/// The entry that the path names.
pub(crate) struct EntryIdInPath(Uuid);

#[derive(serde::Deserialize)]
struct PathParameters {
    id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for EntryIdInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<PathParameters>::from_request_parts(parts, state).await;
        id.ok().and_then(|Path(path)| path.id.parse().ok()).map(Self).ok_or_else(not_a_uuid)
    }
}

impl IntoParams for EntryIdInPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let uuid = ObjectBuilder::new().schema_type(Type::String);
        let uuid = uuid.format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
        // That of the example of an entry.
        let uuid = uuid.examples(["22d6f27c-bfc5-80bb-9f06-e980c1674281"]);
        vec![parameter("id", ParameterIn::Path, "The entry.", uuid)]
    }
}

/// There is no such entry.
struct NoSuchEntry;

impl IntoResponses for NoSuchEntry {
    fn responses() -> Responses {
        problems([no_such_entry(Uuid::nil()), not_a_uuid()])
    }
}

/// A page of another origin may not delete entries.
struct NotDeleted;

impl IntoResponses for NotDeleted {
    fn responses() -> Responses {
        problems(Admin::refusals().into_iter().chain([foreign_origin()]))
    }
}

/// Why an entry stays.
struct Stayed;

impl IntoResponses for Stayed {
    fn responses() -> Responses {
        let project = Problem::project_refused("endpoint default does not take project p-1");
        let reason = Problem::unusable_delivery("eventType is missing");
        problems(Admin::refusals().into_iter().chain([foreign_origin(), project, reason]))
    }
}

/// The quarantine
///
/// What was authentic and could not be understood, the newest first.
#[utoipa::path(
    get,
    path = "/quarantine",
    operation_id = "list_quarantine",
    tag = "quarantine",
    params(PageParameters::<MAX_LIMIT, DEFAULT_LIMIT>),
    responses(
        (status = 200, description = "A page of its entries.", body = QuarantineDocument,
         example = json!(example(include_str!("../openapi/examples/quarantine.json")))),
        BadParameter,
        Admin,
    ),
    security((), ("api_key" = ["admin"])),
)]
pub(crate) async fn list(
    _: Admin,
    State(service): State<Shared>,
    uri: Uri,
) -> Result<Json<QuarantineDocument>, Problem> {
    let mut query = Query::of(&uri);
    let limit = query.take("limit", |limit| read_limit(limit, MAX_LIMIT)).unwrap_or(DEFAULT_LIMIT);
    let after = query.take("cursor", read_place);
    query.finish()?;
    let mut shown = newest(&service.pool, after, limit + 1).await?;
    let next_cursor = cut(&mut shown, limit).map(|last| write_place(last.place));
    let quarantine = shown.into_iter().map(EntryDocument::from).collect();
    Ok(Json(QuarantineDocument { quarantine, next_cursor }))
}

/// One entry of the quarantine
///
/// With its body, as it came.
#[utoipa::path(
    get,
    path = "/quarantine/{id}",
    operation_id = "get_quarantine_entry",
    tag = "quarantine",
    params(EntryIdInPath),
    responses(
        (status = 200, description = "The entry.", body = WholeEntryDocument,
         example = json!(example(include_str!("../openapi/examples/entry.json")))),
        NoSuchEntry,
        Admin,
    ),
    security((), ("api_key" = ["admin"])),
)]
pub(crate) async fn show(
    _: Admin,
    State(service): State<Shared>,
    EntryIdInPath(id): EntryIdInPath,
    uri: Uri,
) -> Result<Json<WholeEntryDocument>, Problem> {
    Query::of(&uri).finish()?;
    let found = by_id(&service.pool, id).await?.ok_or_else(|| no_such_entry(id))?;
    Ok(Json(found.into()))
}

/// Takes an entry in
///
/// As if it came now, but for its time, which is when it first came. Once it is committed, the
/// entry is gone; what still cannot be understood stays.
#[utoipa::path(
    post,
    path = "/quarantine/{id}/replay",
    operation_id = "replay_quarantine_entry",
    tag = "quarantine",
    params(EntryIdInPath),
    responses(
        (status = 200, description = "The event is committed, and the entry is gone.", body = DeliveryResult,
         example = json!(example(include_str!("../openapi/examples/delivery_result.json")))),
        NoSuchEntry,
        Stayed,
    ),
    security((), ("api_key" = ["admin"])),
)]
pub(crate) async fn replay(
    _: Admin,
    State(service): State<Shared>,
    EntryIdInPath(id): EntryIdInPath,
    uri: Uri,
) -> Result<Json<DeliveryResult>, Problem> {
    Query::of(&uri).finish()?;
    let endpoints = service.endpoints.borrow().clone();
    let replayed =
        service.quarantine.replay(id, &service.ingest, |name| endpoints.for_replay(name), None);
    match replayed.await {
        Ok((key, recorded)) => {
            tracing::info!(%id, "a quarantined delivery was replayed");
            Ok(Json(DeliveryResult::new(key, recorded)))
        }
        Err(ReplayError::NotFound) => Err(no_such_entry(id)),
        Err(error @ (ReplayError::Unreadable(_) | ReplayError::Undecodable(_))) => {
            Err(Problem::unusable_delivery(error.to_string()))
        }
        Err(ReplayError::NotAccepted(why)) => Err(Problem::project_refused(why.to_string())),
        Err(ReplayError::Ingest(refused)) => Err(refused.into()),
        Err(ReplayError::Store(error)) => Err(error.into()),
    }
}

/// Deletes an entry
///
/// For good, without a replay. A later delivery of the same body is a new entry.
#[utoipa::path(
    delete,
    path = "/quarantine/{id}",
    operation_id = "delete_quarantine_entry",
    tag = "quarantine",
    params(EntryIdInPath),
    responses(
        (status = 204, description = "The entry is deleted."),
        NoSuchEntry,
        NotDeleted,
    ),
    security((), ("api_key" = ["admin"])),
)]
pub(crate) async fn delete(
    _: Admin,
    State(service): State<Shared>,
    EntryIdInPath(id): EntryIdInPath,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    Query::of(&uri).finish()?;
    if !service.quarantine.discard(id).await? {
        return Err(no_such_entry(id));
    }
    tracing::info!(%id, "an entry of the quarantine was deleted");
    Ok(StatusCode::NO_CONTENT)
}

fn no_such_entry(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no entry {id} in the quarantine"))
}

fn not_a_uuid() -> Problem {
    Problem::bad_parameter("id: must be a UUID")
}

fn write_place(place: Place) -> String {
    write_cursor(&[&write_time(place.first_received_at), place.id.as_bytes()])
}

fn read_place(cursor: &str) -> Result<Place, String> {
    read_cursor(cursor, |bytes: [u8; 24]| {
        let (at, id) = bytes.split_first_chunk::<8>()?;
        Some(Place { first_received_at: read_time(*at)?, id: Uuid::from_slice(id).ok()? })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_as_it_was_written(
            microseconds in -62_135_596_800_000_000..253_402_300_799_000_000i64,
            id: u128,
        ) {
            let place = Place {
                first_received_at: DateTime::from_timestamp_micros(microseconds).unwrap(),
                id: Uuid::from_u128(id),
            };
            prop_assert_eq!(read_place(&write_place(place)), Ok(place));
        }

        #[test]
        fn anything_else_is_refused(cursor in ".{0,48}") {
            let _ = read_place(&cursor);
        }
    }

    #[test]
    fn a_time_that_postgres_cannot_hold_is_in_no_cursor() {
        for (microseconds, is_held) in [
            (i64::MIN, false),
            (i64::MAX, false),
            (-210_863_520_000_000_001, false),
            (-210_835_000_000_000_000, true),
            (8_210_266_876_799_999_999, true),
        ] {
            let cursor = write_cursor(&[&i64::to_be_bytes(microseconds), &[0; 16]]);
            assert_eq!(read_place(&cursor).is_ok(), is_held, "{microseconds}");
        }
    }
}

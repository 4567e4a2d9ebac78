//! `GET /quarantine`, `GET /quarantine/{id}`, `POST /quarantine/{id}/replay`:
//! deliveries that could not be understood. For administrators.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::{Uri, request::Parts},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Problem, Shared,
    caller::Admin,
    page::{cut, read_cursor, read_limit, read_time, write_cursor, write_time},
    query::Query,
    webhooks::Taken,
};
use crate::{
    ingest::quarantine::Stays,
    store::quarantine::{Entry, Place, WholeEntry, by_id, newest},
};

/// The most entries on a page.
const MAX_LIMIT: u16 = 500;

/// The entries on a page, unless it is said.
const DEFAULT_LIMIT: u16 = 50;

/// A page of the quarantine, the newest first.
#[derive(Debug, Serialize)]
pub(super) struct QuarantineDocument {
    quarantine: Vec<EntryDocument>,
    next_cursor: Option<String>,
}

/// An entry, but for its body.
#[derive(Debug, Serialize)]
pub struct EntryDocument {
    id: Uuid,
    reason: String,
    endpoint: String,
    first_received_at: DateTime<Utc>,
    last_received_at: DateTime<Utc>,
    count: i64,
    size: i32,
}

/// An entry with its body.
#[derive(Debug, Serialize)]
pub struct WholeEntryDocument {
    #[serde(flatten)]
    entry: EntryDocument,
    body: String,
    /// How the body is written; absent where it is text as it came.
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
pub(super) struct EntryIdInPath(Uuid);

#[derive(serde::Deserialize)]
struct PathParameters {
    id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for EntryIdInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<PathParameters>::from_request_parts(parts, state).await;
        id.ok()
            .and_then(|Path(path)| path.id.parse().ok())
            .map(Self)
            .ok_or_else(|| Problem::bad_parameter("id: must be a UUID"))
    }
}

pub(super) async fn list(
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

pub(super) async fn show(
    _: Admin,
    State(service): State<Shared>,
    EntryIdInPath(id): EntryIdInPath,
    uri: Uri,
) -> Result<Json<WholeEntryDocument>, Problem> {
    Query::of(&uri).finish()?;
    let found = by_id(&service.pool, id).await?.ok_or_else(|| no_such_entry(id))?;
    Ok(Json(found.into()))
}

pub(super) async fn replay(
    _: Admin,
    State(service): State<Shared>,
    EntryIdInPath(id): EntryIdInPath,
    uri: Uri,
) -> Result<Json<Taken>, Problem> {
    Query::of(&uri).finish()?;
    let endpoints = service.endpoints.borrow().clone();
    let replayed = service.quarantine.replay(
        id,
        &service.ingest,
        endpoints.provider_utc_offset,
        |endpoint, project_id| endpoints.admit(endpoint, project_id),
    );
    match replayed.await {
        Ok((key, recorded)) => {
            tracing::info!(%id, "a delivery in quarantine was taken in");
            Ok(Json(Taken::new(key, recorded)))
        }
        Err(Stays::Unknown) => Err(no_such_entry(id)),
        Err(Stays::Unreadable(why)) => Err(Problem::unusable_delivery(why.to_string())),
        Err(Stays::NotTaken(why)) => Err(Problem::project_refused(why.to_string())),
        Err(Stays::Refused(refused)) => Err(refused.into()),
        Err(Stays::Store(error)) => Err(error.into()),
    }
}

fn no_such_entry(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no entry {id} in the quarantine"))
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

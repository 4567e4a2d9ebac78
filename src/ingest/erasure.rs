//! Erasing calls, all calls of a client, and what the quarantine has of them.
//!
//! What always holds: each call is erased in one transaction, with the entries of the
//! quarantine that name it. An erasure that is interrupted leaves whole calls, and is
//! completed by another one.
//!
//! The quarantine is searched by reading its bodies, as an entry may be anything.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    access::Projects,
    call::{CallKey, ClientId},
    recho::{
        encoding::decode,
        mentions::{Mentions, mentions},
    },
    store::{
        Error,
        erasure::{Erased, Kind, begin, calls_of_client, erase_call, erase_entries, refuse_client},
        quarantine::{by_id, oldest},
    },
};

/// The entries of the quarantine whose places are read at a time.
const PAGE: u16 = 500;

/// The most bytes of an entry once it is decoded; a larger one is searched as it is.
const MAX_DECODED_BYTES: usize = 64 * 1024 * 1024;

/// Who erases, and when.
#[derive(Debug, Clone, Copy)]
pub struct ErasureRequest {
    /// The API key of the request, if there is one.
    pub api_key: Option<Uuid>,
    /// The time of the request.
    pub now: DateTime<Utc>,
}

/// Erases one call.
///
/// # Errors
///
/// Fails if a query fails. Then nothing was erased.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn of_call(
    pool: &PgPool,
    call: &CallKey,
    request: ErasureRequest,
) -> Result<Erased, Error> {
    let mut conn = pool.acquire().await?;
    let audit = begin(&mut conn, Kind::Call, request.api_key, request.now).await?;
    let entries = search(&mut conn, std::slice::from_ref(call), None, &Projects::All).await?;
    let of_call = entries.of_calls.get(call).map_or(&[][..], Vec::as_slice);
    erase_call(&mut conn, call, of_call, audit, request.now).await
}

/// Erases all calls of a client in these projects, one after the other, and makes the
/// client stay erased. `progress` is called with the number of calls at first, and then
/// with what was erased until then.
///
/// # Errors
///
/// Fails if a query fails. What was erased until then stays erased; another erasure of the
/// client goes on.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn of_client(
    pool: &PgPool,
    client_id: &ClientId,
    projects: &Projects,
    request: ErasureRequest,
    mut progress: impl FnMut(usize, Erased),
) -> Result<Erased, Error> {
    let mut conn = pool.acquire().await?;
    let audit = begin(&mut conn, Kind::Client, request.api_key, request.now).await?;
    // At first, so that no call of the client is begun meanwhile.
    refuse_client(&mut conn, client_id, projects).await?;
    let calls = calls_of_client(&mut conn, client_id, projects).await?;
    let entries = search(&mut conn, &calls, Some(client_id), projects).await?;
    let mut erased = Erased::default();
    progress(calls.len(), erased);
    for call in &calls {
        let of_call = entries.of_calls.get(call).map_or(&[][..], Vec::as_slice);
        erased += erase_call(&mut conn, call, of_call, audit, request.now).await?;
        progress(calls.len(), erased);
    }
    erased += erase_entries(&mut conn, &entries.of_client, audit).await?;
    Ok(erased)
}

/// Entries of the quarantine that name calls or a client.
#[derive(Debug, Default)]
struct Entries {
    of_calls: BTreeMap<CallKey, Vec<Uuid>>,
    of_client: Vec<Uuid>,
}

/// Searches the quarantine for entries that name these calls, or a client in these projects.
async fn search(
    conn: &mut PgConnection,
    calls: &[CallKey],
    client_id: Option<&ClientId>,
    projects: &Projects,
) -> Result<Entries, Error> {
    let mut found = Entries::default();
    let mut after = None;
    loop {
        let page = oldest(&mut *conn, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(*last);
        for place in page {
            let Some(entry) = by_id(&mut *conn, place.id).await? else { continue };
            let encoding = entry.headers.get("content-encoding").and_then(|it| it.as_str());
            let decoded = decode(encoding.map(str::as_bytes), &entry.body, MAX_DECODED_BYTES);
            let named = mentions(decoded.as_deref().unwrap_or(&entry.body));
            for call in calls.iter().filter(|call| names_call(&named, call)) {
                found.of_calls.entry(call.clone()).or_default().push(place.id);
            }
            if client_id.is_some_and(|client_id| names_client(&named, client_id, projects)) {
                found.of_client.push(place.id);
            }
        }
    }
}

/// Whether a body names a call. One that names no project may be of any.
fn names_call(named: &Mentions, call: &CallKey) -> bool {
    named.call_ids.contains(call.call_id.as_str())
        && (named.project_ids.is_empty() || named.project_ids.contains(call.project_id.as_str()))
}

/// Whether a body names a client of these projects.
fn names_client(named: &Mentions, client_id: &ClientId, projects: &Projects) -> bool {
    let ids: Option<BTreeSet<&str>> = projects.ids().map(|ids| ids.into_iter().collect());
    named.client_ids.contains(client_id.as_str())
        && ids.is_none_or(|ids| {
            named.project_ids.is_empty()
                || named.project_ids.iter().any(|it| ids.contains(it.as_str()))
        })
}

//! The body of a request, read whole and within bounds.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{HeaderMap, header},
};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

/// How much beyond the limit is still read, in bytes, though nothing is kept of
/// it: a client that is cut off while it sends does not hear the answer.
const LINGER: usize = 8 * 1024 * 1024;

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is larger than the limit.
    TooLarge,
    /// It ended before its end, or was not framed as a body is.
    Broken,
    /// It did not come in time.
    TooSlow,
}

/// Reads a body of at most `limit` bytes that comes within `patience`.
///
/// # Errors
///
/// Where it is larger, or did not come whole or in time.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, Unread> {
    timeout(patience, gather(headers, body, limit)).await.unwrap_or(Err(Unread::TooSlow))
}

async fn gather(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, Unread> {
    let announced = body.size_hint().lower();
    let is_too_large = usize::try_from(announced).is_ok_and(|announced| announced > limit);
    if is_too_large && headers.contains_key(header::EXPECT) {
        // It waits for our word before it sends, and gets another.
        return Err(Unread::TooLarge);
    }
    let mut whole = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|_| Unread::Broken)?.into_data() else {
            continue; // Trailers say nothing that we ask for.
        };
        length += part.len();
        if length > limit {
            whole = Vec::new();
            if length > limit.saturating_add(LINGER) {
                break;
            }
        } else if whole.is_empty() && body.is_end_stream() {
            // Most come in one piece, which need not be copied.
            return Ok(part);
        } else {
            whole.extend_from_slice(&part);
        }
    }
    if length > limit { Err(Unread::TooLarge) } else { Ok(whole.into()) }
}

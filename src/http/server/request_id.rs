//! The id of a request, by which its answer, its log lines and what a proxy
//! before us logs are found together.
//!
//! A client may choose it; otherwise it is made up here. It is no secret and
//! proves nothing.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The header of the id, in requests and in answers.
pub(in crate::http) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over, in characters.
const LONGEST: usize = 128;

/// Gives requests their ids.
#[derive(Debug)]
pub(super) struct RequestIds {
    /// What tells this process from others.
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids unlike those of any other process.
    pub(super) fn new() -> Self {
        // The system's randomness; what is hashed does not matter.
        Self { process: RandomState::new().hash_one(0), next: AtomicU64::new(1) }
    }

    /// The id of a request: its own, if it is one, otherwise a new one, which the
    /// request then has too.
    pub(super) fn of(&self, headers: &mut HeaderMap) -> RequestId {
        match headers.get(REQUEST_ID) {
            Some(given) if is_sane(given.as_bytes()) => RequestId(given.clone()),
            _ => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let id = format!("{:016x}-{number:x}", self.process);
                let id = HeaderValue::try_from(id).expect("digits may stand in a header");
                headers.insert(REQUEST_ID, id.clone());
                RequestId(id)
            }
        }
    }
}

/// Whether an id may stand in a log line as it is.
fn is_sane(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// The id of a request: visible ASCII.
#[derive(Debug, Clone)]
pub(in crate::http) struct RequestId(HeaderValue);

impl RequestId {
    /// The id that a request was given.
    pub(in crate::http) fn in_headers(headers: &HeaderMap) -> Option<Self> {
        headers.get(REQUEST_ID).cloned().map(Self)
    }

    pub(super) fn into_header(self) -> HeaderValue {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.to_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(ids: &RequestIds, given: Option<&[u8]>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        }
        let id = ids.of(&mut headers);
        assert_eq!(headers.get(REQUEST_ID), Some(&id.clone().into_header()));
        id.to_string()
    }

    #[test]
    fn an_id_of_visible_ascii_is_taken_over() {
        let ids = RequestIds::new();
        let longest = "x".repeat(LONGEST);
        for given in ["1", "0af7651916cd43dd8448eb211c80319c", "a/b:c=d\"{}", &longest] {
            assert_eq!(id_of(&ids, Some(given.as_bytes())), given);
        }
    }

    #[test]
    fn any_other_is_replaced_by_one_of_ours() {
        let ids = RequestIds::new();
        let too_long = "x".repeat(LONGEST + 1);
        let mut made: Vec<String> = [b"", &b"a b"[..], b"a\tb", b"\xe9", too_long.as_bytes()]
            .into_iter()
            .map(|given| id_of(&ids, Some(given)))
            .collect();
        made.push(id_of(&ids, None));
        assert!(made.iter().all(|id| id.starts_with(&format!("{:016x}-", ids.process))));
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 6);
    }
}

//! Headers that every answer has, so that a browser makes no more of it than
//! was meant.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// What a page may do: load its own scripts, styles, fonts and pictures, ask us,
/// and nothing else; nobody may frame it.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'",
);

/// What anything else may do, should a browser show it as a page.
const DATA_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// What has a version to ask about may be kept by the client alone, and is asked
/// about each time.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What has none is not kept.
const KEEP_NOTHING: HeaderValue = HeaderValue::from_static("no-store");

/// What is said whatever the answer is.
const ALWAYS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // Browsers that know `frame-ancestors` do not snapshot at it.
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// Adds the headers. How long an answer may be kept is for its handler to say,
/// if it does.
pub(super) fn secure(headers: &mut HeaderMap) {
    let is_page = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|content_type| content_type.as_bytes().starts_with(b"text/html"));
    let policy = if is_page { PAGE_POLICY } else { DATA_POLICY };
    let keep = if headers.contains_key(header::ETAG) { ASK_AGAIN } else { KEEP_NOTHING };
    // These, the id of the request, and the date.
    headers.reserve(ALWAYS.len() + 4);
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.entry(header::CACHE_CONTROL).or_insert(keep);
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secured(given: &[(HeaderName, &'static str)]) -> HeaderMap {
        let given = given.iter();
        let mut headers: HeaderMap =
            given.map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        secure(&mut headers);
        headers
    }

    #[test]
    fn a_page_may_do_more_than_data_and_neither_may_be_framed() {
        let page = secured(&[(header::CONTENT_TYPE, "text/html; charset=utf-8")]);
        let data = secured(&[(header::CONTENT_TYPE, "application/json")]);
        assert_eq!(page[header::CONTENT_SECURITY_POLICY], PAGE_POLICY);
        assert_eq!(data[header::CONTENT_SECURITY_POLICY], DATA_POLICY);
        for headers in [page, data, secured(&[])] {
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'"));
            assert!(policy.ends_with("frame-ancestors 'none'"));
            assert_eq!(headers[header::X_FRAME_OPTIONS], "DENY");
        }
    }

    #[test]
    fn what_has_a_version_may_be_kept_and_asked_about() {
        assert_eq!(secured(&[])[header::CACHE_CONTROL], "no-store");
        let versioned = secured(&[(header::ETAG, "\"7\"")]);
        assert_eq!(versioned[header::CACHE_CONTROL], "private, no-cache");
        let said = secured(&[(header::CACHE_CONTROL, "max-age=60"), (header::ETAG, "\"7\"")]);
        assert_eq!(said[header::CACHE_CONTROL], "max-age=60");
    }
}

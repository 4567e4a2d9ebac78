//! Responses with a tag, so that who has one already need not be sent it again
//! ([RFC 9110, 13.1.2]).
//!
//! The tag is a hash of the answer itself, so it is strong, and the same in every
//! instance: whatever the answer is made of, another answer has another tag.
//!
//! [RFC 9110, 13.1.2]: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::http::Problem;

/// How much of the hash is in a tag, in bytes: enough that no two answers meet.
const TAG_LENGTH: usize = 16;

/// The document with its tag; only the tag, where the client has the document.
pub(crate) fn tagged(asked: &HeaderMap, document: &impl Serialize) -> Response {
    let body = match serde_json::to_vec(document) {
        Ok(body) => body,
        Err(error) => return Problem::internal(error.to_string()).into_response(),
    };
    let tag = URL_SAFE_NO_PAD.encode(&digest(&SHA256, &body).as_ref()[..TAG_LENGTH]);
    let header = HeaderValue::try_from(format!("\"{tag}\""));
    let etag = (header::ETAG, header.expect("base64 is visible ASCII"));
    let has_it = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| names(value.as_bytes(), tag.as_bytes()));
    if has_it {
        return (StatusCode::NOT_MODIFIED, [etag]).into_response();
    }
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ([etag, content_type], body).into_response()
}

/// Whether a list of tags has this one, weak or not, or is `*`.
///
/// What is behind a mistake in the list is not read: at worst the answer is sent
/// once more.
fn names(list: &[u8], tag: &[u8]) -> bool {
    let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
    let after = |list: &'_ [u8]| list.iter().position(|byte| !is_between(byte));
    let mut rest = list;
    // Elements may be empty, so there may be several commas between two tags.
    while let Some(start) = after(rest) {
        rest = &rest[start..];
        if rest.trim_ascii_end() == b"*" {
            return true;
        }
        let opaque = rest.strip_prefix(b"W/").unwrap_or(rest);
        let Some(opaque) = opaque.strip_prefix(b"\"") else { return false };
        let Some(length) = opaque.iter().position(|byte| *byte == b'"') else { return false };
        if &opaque[..length] == tag {
            return true;
        }
        rest = &opaque[length + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_a_list_be_it_weak_or_not() {
        for list in [
            "\"a\"",
            "W/\"a\"",
            "\"b\", \"a\"",
            "\"b\",W/\"a\" , \"c\"",
            ", ,\t\"a\",",
            "*",
            " * ",
            "\"b,\", \"a\"",
        ] {
            assert!(names(list.as_bytes(), b"a"), "{list}");
        }
    }

    #[test]
    fn what_is_no_such_list_names_nothing() {
        for list in ["", ",", "a", "\"a", "w/\"a\"", "\"A\"", "\"b\"", "\"x, \"a\"", "W/a", "\"\""]
        {
            assert!(!names(list.as_bytes(), b"a"), "{list}");
        }
    }
}

//! The fingerprint: two deliveries with the same one are the same event.
//!
//! The provider sends no event id, so an event is identified by its content: the
//! SHA-256 of the canonical JSON of `{projectId, eventType, body}`. A retry has
//! the same fingerprint, and so have the copies that several endpoints of a
//! project receive: they differ in `webhookEndpoint` and `authConfig` only.
//!
//! The canonical form is that of [RFC 8785] with keys sorted by code point: no
//! white space, strings with the fewest escapes, numbers as ECMAScript writes
//! them. A value that has no such form is used as it is written, without its
//! white space: a string with a lone surrogate, an object that has a key twice, a
//! number that a double does not hold exactly.
//!
//! The members are used as they are sent: a `projectId` with other white space or
//! in another case is another fingerprint.
//!
//! [RFC 8785]: https://www.rfc-editor.org/rfc/rfc8785

use ring::digest::{SHA256, digest};
use uuid::Uuid;

use super::json::{Json, Text};
use crate::call::Fingerprint;

/// The members of the envelope that the fingerprint covers, in canonical order.
const MEMBERS: [&str; 3] = ["body", "eventType", "projectId"];

/// The number of decimal digits that every double preserves: `DBL_DIG` of C.
const EXACT_DIGITS: usize = 15;

/// The fingerprint of an envelope.
#[must_use]
pub fn fingerprint(envelope: &Json<'_>) -> Fingerprint {
    let mut text = Vec::with_capacity(1024);
    text.push(b'{');
    for (name, value) in
        MEMBERS.iter().filter_map(|name| envelope.get(name).map(|value| (name, value)))
    {
        if text.len() > 1 {
            text.push(b',');
        }
        text.push(b'"');
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"\":");
        write_canonical(value, &mut text);
    }
    text.push(b'}');
    Fingerprint(sha256(&text))
}

/// A UUID of version 8 from the first 16 bytes of a hash.
pub(crate) fn uuid_of(hash: &[u8]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Uuid::new_v8(bytes)
}

fn sha256(text: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text).as_ref());
    hash
}

fn write_canonical(json: &Json<'_>, out: &mut Vec<u8>) {
    match json {
        Json::Null | Json::Bool(_) => write_as_written(json, out),
        Json::Number(text) => match canonical_number(text) {
            Some(number) => out.extend_from_slice(number.as_bytes()),
            None => out.extend_from_slice(text.as_bytes()),
        },
        Json::String(text) => write_canonical_string(*text, out),
        Json::Array(items) => {
            write_list(*b"[]", items, out, write_canonical);
        }
        Json::Object(members) => match sorted(members) {
            Some(sorted) => write_list(*b"{}", &sorted, out, |(key, value), out| {
                write_canonical_string(*key, out);
                out.push(b':');
                write_canonical(value, out);
            }),
            None => write_as_written(json, out),
        },
    }
}

/// The members sorted by key; `None` where a key occurs twice or has no canonical
/// form.
fn sorted<'j, 'a>(members: &'j [(Text<'a>, Json<'a>)]) -> Option<Vec<(Text<'a>, &'j Json<'a>)>> {
    let mut keyed = Vec::with_capacity(members.len());
    for (key, value) in members {
        let decoded = key.decode();
        if !decoded.is_exact {
            return None;
        }
        keyed.push((decoded.text, *key, value));
    }
    keyed.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    if keyed.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return None;
    }
    Some(keyed.into_iter().map(|(_, key, value)| (key, value)).collect())
}

fn write_canonical_string(text: Text<'_>, out: &mut Vec<u8>) {
    let decoded = text.decode();
    if decoded.is_exact {
        // serde_json writes strings as RFC 8785 requires.
        serde_json::to_writer(out, &decoded.text).expect("a string can be written to memory");
    } else {
        write_quoted(text, out);
    }
}

/// The number as ECMAScript writes it; `None` where a double does not distinguish
/// it from every other number with as many digits.
fn canonical_number(text: &str) -> Option<String> {
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let significant = digits.trim_start_matches('0').len();
    let value: f64 = text.parse().ok()?;
    if significant > EXACT_DIGITS || !value.is_finite() || (value == 0.0 && significant > 0) {
        return None;
    }
    // Subnormal doubles preserve fewer digits.
    if value != 0.0 && !value.is_normal() {
        return None;
    }
    let magnitude = value.abs();
    Some(if value == 0.0 {
        "0".to_owned()
    } else if (1e-6..1e21).contains(&magnitude) {
        format!("{value}")
    } else {
        let scientific = format!("{value:e}");
        if magnitude < 1.0 { scientific } else { scientific.replace('e', "e+") }
    })
}

fn write_as_written(json: &Json<'_>, out: &mut Vec<u8>) {
    match json {
        Json::Null => out.extend_from_slice(b"null"),
        Json::Bool(true) => out.extend_from_slice(b"true"),
        Json::Bool(false) => out.extend_from_slice(b"false"),
        Json::Number(text) => out.extend_from_slice(text.as_bytes()),
        Json::String(text) => write_quoted(*text, out),
        Json::Array(items) => {
            write_list(*b"[]", items, out, write_as_written);
        }
        Json::Object(members) => write_list(*b"{}", members, out, |(key, value), out| {
            write_quoted(*key, out);
            out.push(b':');
            write_as_written(value, out);
        }),
    }
}

fn write_quoted(text: Text<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(text.raw.as_bytes());
    out.push(b'"');
}

fn write_list<T>(
    brackets: [u8; 2],
    items: &[T],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&T, &mut Vec<u8>),
) {
    out.push(brackets[0]);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(brackets[1]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recho::json::parse;

    fn canonical(text: &str) -> String {
        let mut out = Vec::new();
        write_canonical(&parse(text.as_bytes()).unwrap().0, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn keys_are_sorted_and_white_space_and_needless_escapes_are_removed() {
        assert_eq!(
            canonical("{ \"b\" : [ 1 , true , null ] ,\n \"\\u0061\": \"\\u00e9\\/\\n\\u0000\" }"),
            r#"{"a":"é/\n\u0000","b":[1,true,null]}"#,
        );
    }

    #[test]
    fn numbers_are_written_as_ecmascript_does() {
        for (written, canonical_form) in [
            ("1", "1"),
            ("1.0", "1"),
            ("10e-1", "1"),
            ("-0.0", "0"),
            ("1e2", "100"),
            ("0.000001", "0.000001"),
            ("1e-7", "1e-7"),
            ("1e21", "1e+21"),
            ("-1.5E300", "-1.5e+300"),
            ("123456789012345", "123456789012345"),
        ] {
            assert_eq!(canonical(written), canonical_form, "{written}");
        }
    }

    #[test]
    fn a_value_without_a_canonical_form_is_used_as_written_without_its_white_space() {
        for (written, used) in [
            ("1e400", "1e400"),
            ("1E-400", "1E-400"),
            ("10000000000000001", "10000000000000001"),
            ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
            (r#""\ud800 \u0061""#, r#""\ud800 \u0061""#),
            ("{\"b\": 1.0, \"a\": [1.0], \"b\": 2}", r#"{"b":1.0,"a":[1.0],"b":2}"#),
            (r#"{"\ud800": 1.0}"#, r#"{"\ud800":1.0}"#),
        ] {
            assert_eq!(canonical(written), used, "{written}");
        }
    }

    #[test]
    fn only_project_event_type_and_body_count() {
        let of = |text: &str| fingerprint(&parse(text.as_bytes()).unwrap().0);
        let one = of(r#"{"projectId":"p","eventType":"T","body":{"a":1},"authConfig":1}"#);
        assert_eq!(
            one,
            of(r#"{"webhookEndpoint":2,"body":{"a":1.0},"eventType":"T","projectId":"p"}"#)
        );
        assert_ne!(one, of(r#"{"projectId":"p","eventType":"T","body":{"a":2}}"#));
        assert_ne!(one, of(r#"{"eventType":"T","body":{"a":1}}"#));
        assert_ne!(
            of(r#"{"projectId":null,"eventType":"T"}"#),
            of(r#"{"eventType":"T"}"#),
            "a missing member is left out, null is not",
        );
        // printf '{"body":{"a":1},"eventType":"T","projectId":"p"}' | sha256sum
        assert_eq!(
            one.to_string(),
            "61e58626b50ef0a2f7db9585bf9968b005a528db4f5870a3de8de0acaddb6c90",
        );
    }
}

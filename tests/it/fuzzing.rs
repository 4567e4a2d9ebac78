//! The properties of the fuzzer, on generated bodies, headers and requests.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

use crate::support::delivery::{fixture, fixtures};

#[path = "../../fuzz/properties.rs"]
mod properties;

/// A sample of which some bytes are replaced.
fn damaged_sample() -> impl Strategy<Value = Vec<u8>> {
    (select(fixtures()), any::<prop::sample::Index>(), 0..24usize, vec(any::<u8>(), 0..24))
        .prop_map(|(name, at, cut, put)| {
            let mut body = fixture(&name);
            let at = at.index(body.len());
            let end = body.len().min(at + cut);
            body.splice(at..end, put);
            body
        })
}

/// Any JSON value.
pub(crate) fn odd_value() -> impl Strategy<Value = String> {
    let texts = [
        "null",
        "true",
        "5",
        "-0.0",
        "1e400",
        "1E-999",
        "123456789012345678901234567890",
        "\"\"",
        "\" NaN \"",
        "[]",
        "{}",
        "\"x\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "\"\\u0085\"",
        "\"Time: 9999-99-99 99:99:99\"",
        "{\"a\":1,\"a\":2}",
        "\"OUTBOUND_CALL_BUSY\"",
    ];
    // Mostly usable, so that not every delivery fails at its first field.
    prop_oneof![
        12 => Just("\"x\"".to_owned()),
        6 => select(texts.to_vec()).prop_map(str::to_owned),
        1 => (1..520usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
        1 => (250..301usize).prop_map(|length| format!("\"{}\"", "é".repeat(length))),
        2 => any::<String>().prop_map(|text| Value::from(text).to_string()),
    ]
}

/// A delivery with any value in any field.
pub(crate) fn odd_delivery() -> impl Strategy<Value = String> {
    let field = |name: &'static str| {
        prop::option::weighted(0.9, odd_value()).prop_map(move |value| value.map(|it| (name, it)))
    };
    let object = |members: Vec<Option<(&'static str, String)>>| {
        let members = members.into_iter().flatten();
        let members = members.map(|(name, value)| format!("\"{name}\": {value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
    };
    let error = ["code", "message", "timestamp", "where", "phase", "stacktrace"].map(field);
    let data = ["callId", "callId", "callStatus", "callSid", "clientId"].map(field);
    let inner = ["subject", "text", "callId"].map(field);
    let envelope = ["projectId", "eventType", "callId", "authConfig", "webhookEndpoint"].map(field);
    (Vec::from(error), Vec::from(data), Vec::from(inner), Vec::from(envelope)).prop_map(
        move |(error, data, mut inner, mut envelope)| {
            inner.push(Some(("data", object(data))));
            inner.push(Some(("errors", format!("[{}]", object(error)))));
            envelope.push(Some(("body", object(inner))));
            object(envelope)
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_rejected(body in vec(any::<u8>(), 0..200)) {
        properties::wire_format(&body);
    }

    #[test]
    fn a_damaged_sample_is_read_or_rejected(body in damaged_sample()) {
        properties::wire_format(&body);
    }

    #[test]
    fn a_delivery_with_odd_values_is_read_or_rejected(body in odd_delivery()) {
        properties::wire_format(body.as_bytes());
    }

    #[test]
    fn random_headers_are_not_accepted(data in vec(any::<u8>(), 0..200)) {
        properties::authentication(&data);
    }

    #[test]
    fn plausible_headers_are_not_accepted(
        data in "([Bb]earer[ \t]{0,3}tok[en]{1,3}|)\n(177858[0-9]{4}|[-+0-9]{0,20})\n[A-Za-z0-9+/]{340,344}={0,2}\n.{0,20}",
    ) {
        properties::authentication(data.as_bytes());
    }

    #[test]
    fn any_request_is_answered(data in vec(any::<u8>(), 1..64)) {
        properties::question(&data);
    }

    #[test]
    fn a_plausible_request_is_answered(
        route in any::<u8>(),
        rest in "((limit|cursor|include|project_id)=[-A-Za-z0-9_%&+]{0,60}|%[0-9a-f]{2}|[/?&=.]){0,6}",
    ) {
        properties::question(&[&[route], rest.as_bytes()].concat());
    }

    #[test]
    fn any_cursor_of_the_right_length_is_accepted_or_rejected(bytes in vec(any::<u8>(), 42)) {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

        properties::question(&[&[3], URL_SAFE_NO_PAD.encode(&bytes).as_bytes()].concat());
        properties::question(&[&[5], URL_SAFE_NO_PAD.encode(&bytes[..24]).as_bytes()].concat());
    }
}

//! The members of a delivery's body and their meaning.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::{
    fingerprint::fingerprint,
    identifier,
    json::{self, Json, Text},
    read_error::{FieldError, FieldProblem, ReadError, Shape},
    time::TimeReading,
    time_zone::ProviderTimeZone,
};
use crate::call::{
    CallError, CallId, CallKey, CallSid, ClientId, Delivery, Event, EventType, ProjectId, Receipts,
    event_id, id,
};

/// The most errors of an event that are read; the payload keeps all. A body of
/// the largest size has room for half a million, each of which would take sixty
/// times the space that it has there.
const MAX_ERRORS: usize = 1000;

/// The most characters that are read of each text of an error; the payload keeps
/// all.
const MAX_ERROR_TEXT: usize = 4000;

/// The circumstances under which a body was received.
#[derive(Debug, Clone, Copy)]
pub struct Receipt<'a> {
    /// The name of the endpoint that received it.
    pub endpoint: &'a str,
    /// When it was received, to the microsecond.
    pub received_at: DateTime<Utc>,
    /// The time zone of a `Time:` line that names none.
    pub time_zone: ProviderTimeZone,
    /// The project of a delivery that names none.
    pub default_project: &'a ProjectId,
}

/// A delivery that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The delivery.
    pub delivery: Delivery,
    /// What was read from its `Time:` line; the delivery has the result.
    pub time: TimeReading,
}

/// Reads one delivery.
///
/// # Errors
///
/// Fails if the body is not a JSON object, or has no usable `eventType`, call id
/// or project id; every such field is listed.
pub fn read(body: &[u8], receipt: Receipt<'_>) -> Result<Reading, ReadError> {
    let (envelope, payload) = json::parse(body)?;
    let shape = Shape::of(&envelope);
    if shape != Shape::Object {
        return Err(ReadError::NotAnObject(shape));
    }
    let inner = envelope.get("body").unwrap_or(&Json::Null);
    let data = inner.get("data").unwrap_or(&Json::Null);

    let mut errors = Vec::new();
    let event_type = read_event_type(&envelope, &mut errors);
    let call_id = read_call_id(&envelope, inner, data, &mut errors);
    let project_id = read_project_id(&envelope, receipt.default_project, &mut errors);
    let (Some(event_type), Some(call_id), Some(project_id)) = (event_type, call_id, project_id)
    else {
        return Err(ReadError::Fields(errors));
    };

    let time = match inner.get("text") {
        Some(Json::String(text)) => {
            TimeReading::of_text(&text.decode().text, receipt.time_zone, receipt.received_at)
        }
        Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_))
        | None => TimeReading::Missing,
    };
    let key = CallKey { call_id, project_id };
    let fingerprint = fingerprint(&envelope);
    let errors = read_errors(inner);
    let delivery = Delivery {
        event_id: event_id(&key, fingerprint),
        key,
        event: Event {
            fingerprint,
            event_type,
            occurred_at: time.occurred_at(),
            received_at: receipt.received_at,
            call_sid: optional_identifier(data, "callSid").and_then(|text| CallSid::new(text).ok()),
            client_id: optional_identifier(data, "clientId")
                .and_then(|text| ClientId::new(text).ok()),
            // Validated like an identifier, so that it is short and can be stored.
            provider_status: optional(data, "callStatus").filter(|text| id::check(text).is_ok()),
            has_errors: !errors.is_empty(),
        },
        errors,
        endpoint: receipt.endpoint.to_owned(),
        // The text that was parsed: the body, exactly, but for a byte order mark.
        payload: payload.to_owned(),
        time_problem: time.problem(),
        receipts: Receipts::Once,
    };
    Ok(Reading { delivery, time })
}

fn read_event_type(envelope: &Json<'_>, errors: &mut Vec<FieldError>) -> Option<EventType> {
    let read = match present(envelope, "eventType") {
        None => Err(FieldProblem::Missing),
        // An event type is stored and displayed like an identifier.
        Some(Json::String(text)) => exact(*text).and_then(|name| {
            id::check(&name).map_err(FieldProblem::Invalid)?;
            Ok(EventType::of(&name))
        }),
        Some(
            other @ (Json::Null
            | Json::Bool(_)
            | Json::Number(_)
            | Json::Array(_)
            | Json::Object(_)),
        ) => Err(FieldProblem::NotAString(Shape::of(other))),
    };
    usable("eventType", read, errors)
}

/// The call id from the first of three fields that has a value.
fn read_call_id(
    envelope: &Json<'_>,
    inner: &Json<'_>,
    data: &Json<'_>,
    errors: &mut Vec<FieldError>,
) -> Option<CallId> {
    const FIELDS: [&str; 3] = ["body.data.callId", "body.callId", "callId"];
    let mut placeholder = None;
    for (field, parent) in FIELDS.into_iter().zip([data, inner, envelope]) {
        match present(parent, "callId").map(identifier) {
            None => {}
            Some(Err(problem @ FieldProblem::Placeholder(_))) => {
                placeholder = placeholder.or(Some((field, problem)));
            }
            Some(read) => {
                let read = read.and_then(|text| CallId::new(text).map_err(FieldProblem::Invalid));
                return usable(field, read, errors);
            }
        }
    }
    let (field, problem) = placeholder.unwrap_or((FIELDS[0], FieldProblem::Missing));
    errors.push(FieldError { field, problem });
    // A parent of another type explains why the field is not there.
    for (field, parent) in [("body", inner), ("body.data", data)] {
        let shape = Shape::of(parent);
        if !matches!(shape, Shape::Null | Shape::Object) {
            errors.push(FieldError { field, problem: FieldProblem::NotAnObject(shape) });
        }
    }
    None
}

fn read_project_id(
    envelope: &Json<'_>,
    default: &ProjectId,
    errors: &mut Vec<FieldError>,
) -> Option<ProjectId> {
    let read = match present(envelope, "projectId").map(identifier) {
        None | Some(Err(FieldProblem::Placeholder(_))) => return Some(default.clone()),
        Some(read) => {
            read.and_then(|text| identifier::project_id(&text).map_err(FieldProblem::Invalid))
        }
    };
    usable("projectId", read, errors)
}

/// The field if it is usable; else its problem is added to the errors.
fn usable<T>(
    field: &'static str,
    read: Result<T, FieldProblem>,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    read.map_err(|problem| errors.push(FieldError { field, problem })).ok()
}

/// The member, if it is there and not null.
fn present<'j, 'a>(json: &'j Json<'a>, name: &str) -> Option<&'j Json<'a>> {
    json.get(name).filter(|value| **value != Json::Null)
}

/// A string or the text of a number, without white space around it.
fn identifier<'a>(json: &Json<'a>) -> Result<Cow<'a, str>, FieldProblem> {
    match json {
        Json::String(text) => {
            let decoded = text.decode();
            if !decoded.is_exact {
                return Err(FieldProblem::LoneSurrogate);
            }
            if let Some(word) = identifier::placeholder(&decoded.text) {
                return Err(FieldProblem::Placeholder(word));
            }
            Ok(match decoded.text {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
            })
        }
        Json::Number(number) => Ok(Cow::Borrowed(number)),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => {
            Err(FieldProblem::NotAnIdentifier(Shape::of(json)))
        }
    }
}

/// The member, if it is a string that is an identifier.
fn optional_identifier<'a>(json: &Json<'a>, name: &str) -> Option<Cow<'a, str>> {
    match json.get(name)? {
        text @ Json::String(_) => identifier(text).ok(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// The member, if it is a string without lone surrogates.
fn optional(json: &Json<'_>, name: &str) -> Option<String> {
    match json.get(name)? {
        Json::String(text) => exact(*text).ok(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn exact(text: Text<'_>) -> Result<String, FieldProblem> {
    let decoded = text.decode();
    if decoded.is_exact { Ok(decoded.text.into_owned()) } else { Err(FieldProblem::LoneSurrogate) }
}

fn read_errors(inner: &Json<'_>) -> Vec<CallError> {
    match inner.get("errors") {
        Some(Json::Array(errors)) => errors.iter().take(MAX_ERRORS).map(read_error).collect(),
        Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_))
        | None => Vec::new(),
    }
}

fn read_error(error: &Json<'_>) -> CallError {
    let member = |name| error.get(name).and_then(error_text);
    CallError {
        code: member("code"),
        // An error that is a bare string is its own message.
        message: member("message").or_else(|| error_text(error)),
        phase: member("phase"),
        location: member("where"),
        timestamp: member("timestamp"),
    }
}

/// The start of a string or number, as text that Postgres can hold: NUL and lone
/// surrogates become U+FFFD.
fn error_text(json: &Json<'_>) -> Option<String> {
    match json {
        Json::String(text) => Some(shorten(&text.decode().text).replace('\0', "\u{fffd}")),
        Json::Number(number) => Some(shorten(number).to_owned()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// The first [`MAX_ERROR_TEXT`] characters.
fn shorten(text: &str) -> &str {
    text.char_indices().nth(MAX_ERROR_TEXT).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::call::TimeProblem;

    fn read_bytes(body: &[u8]) -> Result<Reading, ReadError> {
        let receipt = Receipt {
            endpoint: "production",
            received_at: "2026-05-12T12:00:00Z".parse().unwrap(),
            time_zone: ProviderTimeZone::UTC,
            default_project: &ProjectId::new("acme").unwrap(),
        };
        read(body, receipt)
    }

    fn read_json(body: &serde_json::Value) -> Result<Delivery, ReadError> {
        read_bytes(body.to_string().as_bytes()).map(|reading| reading.delivery)
    }

    fn reason(body: &[u8]) -> String {
        read_bytes(body).unwrap_err().to_string()
    }

    /// The errors of a delivery that carries these.
    fn errors_of(errors: &serde_json::Value) -> Vec<CallError> {
        let body = json!({
            "eventType": "OUTBOUND_CALL_ERROR", "callId": "c", "body": {"errors": errors},
        });
        read_json(&body).unwrap().errors
    }

    #[test]
    fn an_unusable_call_id_is_reported_with_its_path() {
        for (body, error) in [
            (json!({}), "body.data.callId is missing"),
            (json!({"callId": true}), "callId must be a string or a number, not a boolean"),
            (
                json!({"body": {"data": {"callId": []}}, "callId": "c"}),
                "body.data.callId must be a string or a number, not an array",
            ),
            (json!({"body": {"callId": " "}}), "body.callId is missing: it is blank"),
            (json!({"callId": "Undefined"}), "callId is missing: it is \"undefined\""),
            (
                json!({"body": {"data": {"callId": "null"}, "callId": ""}, "callId": null}),
                "body.data.callId is missing: it is \"null\"",
            ),
            (json!({"callId": "a\nb"}), "callId must not contain control characters"),
            (
                json!({"body": "{\"data\": {\"callId\": \"c\"}}"}),
                "body.data.callId is missing; body must be an object, not a string",
            ),
            (
                json!({"body": {"data": [{"callId": "c"}]}}),
                "body.data.callId is missing; body.data must be an object, not an array",
            ),
        ] {
            let mut body = body;
            body["eventType"] = "OUTBOUND_CALL_BUSY".into();
            assert_eq!(read_json(&body).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn every_missing_or_unusable_field_is_listed() {
        assert_eq!(reason(b"{}"), "eventType is missing; body.data.callId is missing");
        assert_eq!(
            reason(br#"{"eventType": 5, "callId": "NaN", "projectId": {}}"#),
            "eventType must be a string, not a number; callId is missing: it is \"nan\"; \
             projectId must be a string or a number, not an object",
        );
        assert_eq!(
            reason(br#"{"eventType": "", "callId": "\ud800", "projectId": "a\u0000b"}"#),
            "eventType must not be empty; callId must not contain a lone surrogate; \
             projectId must not contain control characters",
        );
    }

    #[test]
    fn a_body_of_another_shape_is_named() {
        for (body, error) in [
            (&b"[{}]"[..], "the body is an array; one delivery per request is expected"),
            (b"\"{}\"", "the body is a string; an object is expected"),
            (b"1", "the body is a number; an object is expected"),
            (b"false", "the body is a boolean; an object is expected"),
            (b"null", "the body is null; an object is expected"),
            (b" ", "the body is empty"),
        ] {
            assert_eq!(reason(body), error);
        }
        assert!(reason(b"{").starts_with("the body is not JSON: "));
        assert!(reason(b"\xff").starts_with("the body is not UTF-8: "));
    }

    #[test]
    fn the_call_id_is_read_from_the_first_field_that_has_a_value() {
        for (body, call_id) in [
            (json!({"body": {"data": {"callId": " a "}, "callId": "b"}, "callId": "c"}), "a"),
            (json!({"body": {"data": {"callId": null}, "callId": "b"}, "callId": "c"}), "b"),
            (json!({"body": {"data": {"callId": "none"}, "callId": ""}, "callId": "c"}), "c"),
            (json!({"body": "text", "callId": 17}), "17"),
        ] {
            let mut body = body;
            body["eventType"] = "OUTBOUND_CALL_BUSY".into();
            assert_eq!(read_json(&body).unwrap().key.call_id.as_str(), call_id);
        }
    }

    #[test]
    fn a_delivery_without_a_project_is_of_the_default_project() {
        for project in [json!(null), json!(""), json!(" "), json!("undefined"), json!("NONE")] {
            let body = json!({"eventType": "x", "callId": "c", "projectId": project});
            assert_eq!(read_json(&body).unwrap().key.project_id.as_str(), "acme");
        }
        let body = json!({"eventType": "x", "callId": "c"});
        assert_eq!(read_json(&body).unwrap().key.project_id.as_str(), "acme");
        let body = json!({"eventType": "x", "callId": "c", "projectId": 5});
        assert_eq!(read_json(&body).unwrap().key.project_id.as_str(), "5");
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_payload() {
        let body = br#"{"eventType": "x", "callId": "c"}"#;
        let marked = [b"\xef\xbb\xbf", &body[..]].concat();
        let (plain, marked) = (read_bytes(body).unwrap(), read_bytes(&marked).unwrap());
        assert_eq!(plain, marked);
        assert_eq!(marked.delivery.payload.as_bytes(), body);
    }

    #[test]
    fn the_time_and_its_problem_are_handed_on() {
        for (text, time, problem) in [
            (json!("Time: 2026-05-12 10:24:00"), "read", None),
            (json!("callId: c"), "missing", None),
            (json!(5), "missing", None),
            (json!(null), "missing", None),
            (json!("Time: soon \u{1f4de}"), "unreadable", Some(TimeProblem::Unreadable)),
            (json!("Time: 0"), "implausible", Some(TimeProblem::Implausible)),
        ] {
            let body = json!({"eventType": "x", "callId": "c", "body": {"text": text}});
            let Reading { delivery, time: read } = read_bytes(body.to_string().as_bytes()).unwrap();
            assert_eq!(read.as_str(), time, "{text}");
            assert_eq!(delivery.time_problem, problem, "{text}");
            assert_eq!(delivery.event.occurred_at, read.occurred_at(), "{text}");
            assert_eq!(read.occurred_at().is_some(), time == "read", "{text}");
        }
    }

    #[test]
    fn of_each_text_of_an_error_the_start_is_kept() {
        let (longest, longer) = ("ü".repeat(MAX_ERROR_TEXT), "ü".repeat(MAX_ERROR_TEXT + 1));
        for members in [
            ["code", "message", "phase", "where", "timestamp"].as_slice(),
            // An error that is a bare string is its own message.
            &[],
        ] {
            for text in [&longest, &longer] {
                let error = match members {
                    [] => json!(text),
                    members => members.iter().map(|name| (*name, json!(text))).collect(),
                };
                let errors = errors_of(&json!([error]));
                let CallError { code, message, phase, location, timestamp } = &errors[0];
                assert_eq!(message.as_ref(), Some(&longest));
                for text in [code, phase, location, timestamp] {
                    assert_eq!(text.as_ref(), Some(&longest).filter(|_| !members.is_empty()));
                }
            }
        }
    }

    #[test]
    fn of_very_many_errors_the_first_are_kept() {
        let errors = errors_of(&(0..=MAX_ERRORS).collect());
        assert_eq!(errors.len(), MAX_ERRORS);
        assert_eq!(errors[0].message.as_deref(), Some("0"));
    }

    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
            r"\s?(undefined|null|[Tt]ime ?: ?[0-9: -]{0,20}|c|)\s?".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            let name = prop::sample::select(
                &[
                    "projectId",
                    "eventType",
                    "body",
                    "data",
                    "text",
                    "errors",
                    "callId",
                    "callSid",
                    "clientId",
                    "callStatus",
                    "code",
                    "message",
                ][..],
            );
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map(name, inner, 0..6)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reading_panic(value in any_value(), bytes: Vec<u8>, cut in 0..99_usize) {
            let text = value.to_string();
            for body in [text.as_bytes(), &text.as_bytes()[..text.len().min(cut)], &bytes] {
                match read_bytes(body) {
                    Ok(Reading { delivery, time }) => {
                        prop_assert_eq!(delivery.payload.as_bytes(), body);
                        prop_assert_eq!(delivery.time_problem, time.problem());
                    }
                    Err(error) => prop_assert!(!error.to_string().is_empty()),
                }
            }
        }
    }
}

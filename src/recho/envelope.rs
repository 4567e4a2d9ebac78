//! Which member of a delivery's body means what.

use std::fmt;

use chrono::{DateTime, FixedOffset, Utc};

use super::{
    fingerprint::fingerprint,
    json::{self, Json, NotJson, Text},
    time::occurred_at,
};
use crate::call::{
    CallError, CallId, CallKey, CallSid, ClientId, Delivery, Event, EventType, InvalidIdentifier,
    ProjectId, Receipts, event_id, id,
};

/// The most errors of an event that are told apart; the payload keeps all. A
/// body of the largest size has room for half a million, each of which would
/// take sixty times the space that it has there.
const MAX_ERRORS: usize = 1000;

/// The most characters of each text of an error; the payload keeps all.
const MAX_ERROR_TEXT: usize = 4000;

/// The circumstances under which a body came.
#[derive(Debug, Clone, Copy)]
pub struct Receipt<'a> {
    /// The name of the endpoint that took it.
    pub endpoint: &'a str,
    /// When it came, to the microsecond.
    pub received_at: DateTime<Utc>,
    /// The offset from UTC at which the provider writes its `Time:` line.
    pub provider_utc_offset: FixedOffset,
}

/// Why a body cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON that can be taken.
    #[error("the body is {0}")]
    NotJson(#[from] NotJson),
    /// It is JSON without usable fields.
    #[error("{}", Fault::join(.0))]
    Fields(Vec<Fault>),
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where the field is looked for.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It is not there, or null.
    Missing,
    /// It is of a wrong type.
    NotText,
    /// It is text, but no identifier.
    Invalid(InvalidIdentifier),
    /// It holds a lone surrogate, which no text can.
    LoneSurrogate,
}

impl Fault {
    fn join(faults: &[Self]) -> String {
        faults.iter().map(Self::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.field)?;
        match self.problem {
            Problem::Missing => f.write_str("is missing"),
            Problem::NotText => f.write_str("must be a string"),
            Problem::Invalid(why) => why.fmt(f),
            Problem::LoneSurrogate => f.write_str("must not contain a lone surrogate"),
        }
    }
}

/// Understands one delivery.
///
/// # Errors
///
/// Where the body is not JSON, or has no usable `eventType`, call id or project
/// id; each is named.
pub fn read(body: &[u8], receipt: Receipt<'_>) -> Result<Delivery, Unreadable> {
    let (envelope, payload) = json::parse(body)?;
    let inner = envelope.get("body").unwrap_or(&Json::Null);
    let data = inner.get("data").unwrap_or(&Json::Null);

    let mut faults = Vec::new();
    let event_type = note(&mut faults, "eventType", read_event_type(&envelope));
    let (place, call_id) = read_call_id(&envelope, inner, data);
    let call_id = note(&mut faults, place, call_id);
    let project_id = note(&mut faults, "projectId", read_project_id(&envelope));
    let (Some(event_type), Some(call_id), Some(project_id)) = (event_type, call_id, project_id)
    else {
        return Err(Unreadable::Fields(faults));
    };

    let key = CallKey { call_id, project_id };
    let fingerprint = fingerprint(&envelope);
    let errors = read_errors(inner);
    Ok(Delivery {
        event_id: event_id(&key, fingerprint),
        key,
        event: Event {
            fingerprint,
            event_type,
            occurred_at: present(inner, "text").and_then(|text| match text {
                Json::String(text) => occurred_at(
                    &text.decode().text,
                    receipt.provider_utc_offset,
                    receipt.received_at,
                ),
                Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
                    None
                }
            }),
            received_at: receipt.received_at,
            call_sid: optional(data, "callSid").and_then(|text| CallSid::new(text).ok()),
            client_id: optional(data, "clientId").and_then(|text| ClientId::new(text).ok()),
            // Held to the same rule as the identifiers, so that it is short and can be stored.
            provider_status: optional(data, "callStatus").filter(|text| id::check(text).is_ok()),
            has_errors: !errors.is_empty(),
        },
        errors,
        endpoint: receipt.endpoint.to_owned(),
        payload: payload.to_owned(),
        receipts: Receipts::Once,
    })
}

/// The field if it is usable; else what is wrong with it is noted.
fn note<T>(faults: &mut Vec<Fault>, field: &'static str, read: Result<T, Problem>) -> Option<T> {
    read.map_err(|problem| faults.push(Fault { field, problem })).ok()
}

fn read_event_type(envelope: &Json<'_>) -> Result<EventType, Problem> {
    let name = match present(envelope, "eventType").ok_or(Problem::Missing)? {
        Json::String(text) => exact(*text)?,
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
            return Err(Problem::NotText);
        }
    };
    // An event type is stored and shown as identifiers are.
    id::check(&name).map_err(Problem::Invalid)?;
    Ok(EventType::of(&name))
}

/// Where it is, or else should be, and what it is.
fn read_call_id(
    envelope: &Json<'_>,
    inner: &Json<'_>,
    data: &Json<'_>,
) -> (&'static str, Result<CallId, Problem>) {
    let places = [("body.data.callId", data), ("body.callId", inner), ("callId", envelope)];
    let found = places.iter().find_map(|(place, json)| Some((*place, present(json, "callId")?)));
    let Some((place, value)) = found else {
        return (places[0].0, Err(Problem::Missing));
    };
    let call_id = text_or_number(value);
    (place, call_id.and_then(|call_id| CallId::new(call_id).map_err(Problem::Invalid)))
}

fn read_project_id(envelope: &Json<'_>) -> Result<ProjectId, Problem> {
    match present(envelope, "projectId") {
        None => Ok(ProjectId::unnamed()),
        Some(value) => ProjectId::new(text_or_number(value)?).map_err(Problem::Invalid),
    }
}

/// The member, if it is there and not null.
fn present<'j, 'a>(json: &'j Json<'a>, name: &str) -> Option<&'j Json<'a>> {
    json.get(name).filter(|value| **value != Json::Null)
}

/// The member, if it is a string without lone surrogates.
fn optional(json: &Json<'_>, name: &str) -> Option<String> {
    match json.get(name)? {
        Json::String(text) => exact(*text).ok(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn exact(text: Text<'_>) -> Result<String, Problem> {
    let decoded = text.decode();
    if decoded.is_exact { Ok(decoded.text.into_owned()) } else { Err(Problem::LoneSurrogate) }
}

fn text_or_number(json: &Json<'_>) -> Result<String, Problem> {
    match json {
        Json::String(text) => exact(*text),
        Json::Number(number) => Ok((*number).to_owned()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => Err(Problem::NotText),
    }
}

fn read_errors(inner: &Json<'_>) -> Vec<CallError> {
    match inner.get("errors") {
        Some(Json::Array(errors)) => errors.iter().take(MAX_ERRORS).map(read_error).collect(),
        Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_))
        | None => Vec::new(),
    }
}

fn read_error(error: &Json<'_>) -> CallError {
    let member = |name| error.get(name).and_then(shown);
    CallError {
        code: member("code"),
        // An error that is but a string is its own message.
        message: member("message").or_else(|| shown(error)),
        phase: member("phase"),
        location: member("where"),
        timestamp: member("timestamp"),
    }
}

/// A string or number, as far as it is shown, as text that Postgres can hold:
/// U+FFFD stands for NUL and for lone surrogates.
fn shown(json: &Json<'_>) -> Option<String> {
    match json {
        Json::String(text) => Some(beginning(&text.decode().text).replace('\0', "\u{fffd}")),
        Json::Number(number) => Some(beginning(number).to_owned()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// The text, or as much of it as is kept of an error's.
fn beginning(text: &str) -> &str {
    text.char_indices().nth(MAX_ERROR_TEXT).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_json(body: &serde_json::Value) -> Result<Delivery, Unreadable> {
        let receipt = Receipt {
            endpoint: "default",
            received_at: DateTime::UNIX_EPOCH,
            provider_utc_offset: FixedOffset::east_opt(0).unwrap(),
        };
        read(body.to_string().as_bytes(), receipt)
    }

    /// The errors of a delivery that carries these.
    fn errors_of(errors: &serde_json::Value) -> Vec<CallError> {
        let body = json!({
            "eventType": "OUTBOUND_CALL_ERROR", "callId": "c", "body": {"errors": errors},
        });
        read_json(&body).unwrap().errors
    }

    #[test]
    fn a_call_id_that_is_none_is_named_where_it_is() {
        for (body, fault) in [
            (json!({}), "body.data.callId is missing"),
            (json!({"callId": true}), "callId must be a string"),
            (json!({"body": {"callId": ""}, "callId": "c"}), "body.callId must not be empty"),
            (json!({"body": {"data": {"callId": []}}}), "body.data.callId must be a string"),
        ] {
            let mut body = body;
            body["eventType"] = "OUTBOUND_CALL_BUSY".into();
            assert_eq!(read_json(&body).unwrap_err().to_string(), fault);
        }
    }

    #[test]
    fn of_each_text_of_an_error_the_beginning_is_kept() {
        let (longest, longer) = ("ü".repeat(MAX_ERROR_TEXT), "ü".repeat(MAX_ERROR_TEXT + 1));
        for members in [
            ["code", "message", "phase", "where", "timestamp"].as_slice(),
            // An error that is but a string is its own message.
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
}

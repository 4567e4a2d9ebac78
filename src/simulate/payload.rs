//! The body of a delivery, in the provider's exact shape: the same members in
//! the same order, the text with its `Time:` line last, and about 1.1 kB.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::call::CallKey;

use super::fault::Fault;

/// The line between the parts of the text.
const RULE: &str = "━━━━━━━━━━━━━━";

/// How the provider says that a delivery proves where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthType {
    /// Not at all.
    None,
    /// By a bearer token.
    Bearer,
    /// By a signature.
    #[serde(rename = "SIGNATURE_RSA_SHA256")]
    SignatureRsaSha256,
}

/// What a delivery tells.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The call.
    pub key: &'a CallKey,
    /// What the provider calls the event.
    pub event_type: &'a str,
    /// The provider's own status of the call.
    pub provider_status: &'a str,
    /// The dial, if it is about one.
    pub call_sid: Option<&'a str>,
    /// The party.
    pub client_id: &'a str,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// The same in the time zone of the text.
    pub local_at: NaiveDateTime,
    /// What failed.
    pub faults: &'a [Fault],
    /// Whether it goes to the project's second endpoint.
    pub to_second_endpoint: bool,
    /// How it proves where it comes from.
    pub auth_type: AuthType,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    project_id: &'a str,
    webhook_endpoint: Endpoint,
    event_type: &'a str,
    body: Body<'a>,
    auth_config: AuthConfig,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "these are the provider's names")]
struct Endpoint {
    id: &'static str,
    name: &'static str,
    endpoint_type: &'static str,
    target: &'static str,
    content_key: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    subject: &'a str,
    text: &'a str,
    data: Data<'a>,
    errors: Vec<Error>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    call_id: &'a str,
    call_status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_sid: Option<&'a str>,
    client_id: &'a str,
}

#[derive(Serialize)]
struct Error {
    code: &'static str,
    message: &'static str,
    timestamp: String,
    #[serde(rename = "where")]
    location: &'static str,
    phase: &'static str,
    stacktrace: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthConfig {
    auth_type: AuthType,
}

const ENDPOINT: Endpoint = Endpoint {
    id: "6f1f6c52-5c6d-4f0e-9d0b-0c6d8a3e1b01",
    name: "Production Notifications",
    endpoint_type: "CUSTOM",
    target: "https://hooks.example.com/recho/production/notifications?tenant=2d1f1e0c-acme",
    content_key: None,
};

const SECOND_ENDPOINT: Endpoint = Endpoint {
    id: "6f1f6c52-5c6d-4f0e-9d0b-0c6d8a3e1b02",
    name: "Analytics",
    endpoint_type: "CUSTOM",
    target: "https://analytics.example.com/ingest/recho",
    content_key: None,
};

/// Writes the body.
///
/// # Panics
///
/// Never: what is written is text and has no cycle.
#[must_use]
pub fn write(facts: &Facts<'_>) -> Vec<u8> {
    let subject = format!("[Recho] {}", in_words(facts.event_type));
    let text = text(facts, &subject);
    let envelope = Envelope {
        project_id: facts.key.project_id.as_str(),
        webhook_endpoint: if facts.to_second_endpoint { SECOND_ENDPOINT } else { ENDPOINT },
        event_type: facts.event_type,
        body: Body {
            subject: &subject,
            text: &text,
            data: Data {
                call_id: facts.key.call_id.as_str(),
                call_status: facts.provider_status,
                call_sid: facts.call_sid,
                client_id: facts.client_id,
            },
            errors: facts.faults.iter().map(|fault| error(fault, facts.at)).collect(),
        },
        auth_config: AuthConfig { auth_type: facts.auth_type },
    };
    serde_json::to_vec_pretty(&envelope).expect("text can be written")
}

/// `OUTBOUND_CALL_NO_RESPONSE` as `Outbound call no response`.
fn in_words(event_type: &str) -> String {
    let (first, rest) = event_type.split_at(1);
    format!("{first}{}", rest.replace('_', " ").to_lowercase())
}

fn text(facts: &Facts<'_>, subject: &str) -> String {
    let mut lines = vec![
        subject.to_owned(),
        RULE.to_owned(),
        format!("callId: {}", facts.key.call_id),
        format!("callStatus: {}", facts.provider_status),
    ];
    lines.extend(facts.call_sid.map(|sid| format!("callSid: {sid}")));
    lines.push(format!("clientId: {}", facts.client_id));
    lines.push(RULE.to_owned());
    if !facts.faults.is_empty() {
        lines.push("Errors:".to_owned());
        lines.extend(facts.faults.iter().map(|fault| {
            format!(" - [{}] {} (phase: {})", fault.code, fault.message, fault.phase)
        }));
        lines.push(RULE.to_owned());
    }
    lines.push(format!("Time: {}", facts.local_at.format("%Y-%m-%d %H:%M:%S")));
    lines.join("\n")
}

fn error(fault: &Fault, at: DateTime<Utc>) -> Error {
    // It failed a little before the event.
    let failed_at = at - TimeDelta::milliseconds(700);
    Error {
        code: fault.code,
        message: fault.message,
        timestamp: failed_at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        location: fault.location,
        phase: fault.phase,
        stacktrace: fault.stacktrace,
    }
}

#[cfg(test)]
mod tests {
    use crate::call::{CallId, KnownEvent, ProjectId};
    use crate::simulate::fault;

    use super::*;

    /// The names of the members in their order, as the lines have them.
    fn shape(pretty: &str) -> Vec<&str> {
        pretty.lines().map(|line| line.split_once("\": ").map_or(line, |(name, _)| name)).collect()
    }

    #[test]
    fn every_type_has_the_shape_of_the_providers_sample() {
        for event in KnownEvent::ALL {
            let name = event.as_str().to_lowercase().replace("_call_", "_");
            let path =
                format!("{}/tests/fixtures/deliveries/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let sample = std::fs::read_to_string(path).unwrap();
            let delivery: serde_json::Value = serde_json::from_str(&sample).unwrap();
            let (body, data) = (&delivery["body"], &delivery["body"]["data"]);
            let text = body["text"].as_str().unwrap();
            let (_, time) = text.rsplit_once("Time: ").unwrap();
            let key = CallKey {
                call_id: CallId::new(data["callId"].as_str().unwrap()).unwrap(),
                project_id: ProjectId::new(delivery["projectId"].as_str().unwrap()).unwrap(),
            };
            let faults = match event {
                KnownEvent::OutboundError => &fault::CONNECTING[..],
                KnownEvent::InboundError => &fault::INBOUND[..],
                _ => &[],
            };
            let at: DateTime<Utc> = format!("{}Z", time.replace(' ', "T")).parse().unwrap();
            let written = write(&Facts {
                key: &key,
                event_type: event.as_str(),
                provider_status: data["callStatus"].as_str().unwrap(),
                call_sid: data["callSid"].as_str(),
                client_id: data["clientId"].as_str().unwrap(),
                at,
                local_at: at.naive_utc(),
                faults,
                to_second_endpoint: false,
                auth_type: AuthType::None,
            });
            let written = String::from_utf8(written).unwrap();
            assert_eq!(shape(&written), shape(&sample), "{name}");
            let written: serde_json::Value = serde_json::from_str(&written).unwrap();
            assert_eq!(written["body"]["subject"], body["subject"]);
            assert_eq!(written["body"]["text"], body["text"]);
            assert_eq!(written["body"]["data"], body["data"]);
        }
    }

    #[test]
    fn a_body_is_byte_for_byte_what_the_provider_sends() {
        let key = CallKey {
            call_id: CallId::new("out-11").unwrap(),
            project_id: ProjectId::new("3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1").unwrap(),
        };
        let at: DateTime<Utc> = "2026-05-12T10:24:11Z".parse().unwrap();
        let body = write(&Facts {
            key: &key,
            event_type: "OUTBOUND_CALL_ERROR",
            provider_status: "CALLING",
            call_sid: Some("CA94b5111"),
            client_id: "client-1",
            at,
            local_at: at.naive_utc(),
            faults: &fault::CONNECTING,
            to_second_endpoint: false,
            auth_type: AuthType::None,
        });
        insta::assert_snapshot!(String::from_utf8(body).unwrap());
    }
}

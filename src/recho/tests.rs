//! The reading rules by the cases of `tests/fixtures/cases/reading.json`.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::{ProviderTimeZone, Receipt, identifier, read};
use crate::call::{CallSid, ClientId, Delivery, ProjectId};

const CASES: &str = include_str!("../../tests/fixtures/cases/reading.json");

#[derive(Deserialize)]
struct Cases {
    time_line: Vec<TimeLine>,
    identifier: Vec<Given>,
    project_id: Vec<Given>,
}

#[derive(Deserialize)]
struct TimeLine {
    line: String,
    zone: String,
    occurred_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Given {
    given: String,
    read: Option<String>,
}

fn cases() -> Cases {
    serde_json::from_str(CASES).unwrap()
}

fn read_body(body: &serde_json::Value, time_zone: ProviderTimeZone) -> Option<Delivery> {
    let receipt = Receipt {
        endpoint: "default",
        received_at: "2026-12-01T00:00:00Z".parse().unwrap(),
        time_zone,
        default_project: &ProjectId::unnamed(),
    };
    read(body.to_string().as_bytes(), receipt).ok().map(|reading| reading.delivery)
}

#[test]
fn time_lines_are_read_as_the_cases_say() {
    for TimeLine { line, zone, occurred_at } in cases().time_line {
        let body = json!({
            "eventType": "OUTBOUND_CALL_BUSY",
            "body": {"text": format!("callId: c\n{line}"), "data": {"callId": "c"}},
        });
        let delivery = read_body(&body, zone.parse().unwrap()).unwrap();
        assert_eq!(delivery.event.occurred_at, occurred_at, "{line:?} in {zone}");
        assert_eq!(delivery.time_problem.is_some(), occurred_at.is_none(), "{line:?} in {zone}");
    }
}

#[test]
fn identifiers_are_read_as_the_cases_say() {
    for Given { given, read } in cases().identifier {
        let read = read.as_deref();
        assert_eq!(identifier::normalize(&given), read, "{given:?}");

        let of_call = |call_id: &str| {
            json!({
                "eventType": "OUTBOUND_CALL_BUSY",
                "body": {"data": {"callId": call_id, "callSid": given, "clientId": given}},
            })
        };
        let event = read_body(&of_call("c"), ProviderTimeZone::UTC).unwrap().event;
        assert_eq!(event.call_sid.as_ref().map(CallSid::as_str), read, "{given:?}");
        assert_eq!(event.client_id.as_ref().map(ClientId::as_str), read, "{given:?}");

        let delivery = read_body(&of_call(&given), ProviderTimeZone::UTC);
        assert_eq!(delivery.as_ref().map(|it| it.key.call_id.as_str()), read, "{given:?}");
    }
}

#[test]
fn project_ids_are_read_as_the_cases_say() {
    for Given { given, read } in cases().project_id {
        let read = read.as_deref();
        assert_eq!(identifier::project_id(&given).ok().as_ref().map(ProjectId::as_str), read);
        let body = json!({"eventType": "x", "callId": "c", "projectId": given});
        let delivery = read_body(&body, ProviderTimeZone::UTC);
        assert_eq!(delivery.as_ref().map(|it| it.key.project_id.as_str()), read, "{given:?}");
    }
}

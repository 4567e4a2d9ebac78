//! Deliveries as the provider sends them.

use callstate::{
    call::{Delivery, ProjectId},
    recho::{self, ProviderTimeZone, Receipt},
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// A file of `tests/fixtures/deliveries`, byte for byte.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/deliveries/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of all of them.
pub(crate) fn fixtures() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/deliveries");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").file_name().into_string().expect("it is UTF-8"))
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// A delivery of an event of the call, at so many seconds past noon.
pub(crate) fn delivery(event_type: &str, call_id: &str, second: u32, sid: Option<&str>) -> Value {
    let time = format!("2026-05-12 12:{:02}:{:02}", second / 60, second % 60);
    json!({
        "projectId": "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1",
        "eventType": event_type,
        "body": {
            "subject": "[Recho] call",
            "text": format!("[Recho] call\ncallId: {call_id}\nTime: {time}"),
            "data": {
                "callId": call_id,
                "callStatus": event_type.rsplit('_').next(),
                "callSid": sid,
                "clientId": "client-1",
            },
            "errors": [],
        },
        "authConfig": {"authType": "NONE"},
    })
}

/// A body as it is parsed when it is received at that time.
pub(crate) fn parsed_at(body: &str, received_at: DateTime<Utc>) -> Delivery {
    let default_project = &ProjectId::unnamed();
    let time_zone = ProviderTimeZone::UTC;
    let receipt = Receipt { endpoint: "default", received_at, time_zone, default_project };
    recho::read(body.as_bytes(), receipt).expect("the body is valid").delivery
}

//! A delivery as a line of JSON: what `export deliveries` writes and `import`
//! reads. The form is an interface, which docs/export-import.md describes.
//!
//! The payload is a string, as its text counts to the byte and need not be what
//! another JSON library would make of it: lone surrogates, numbers beyond a
//! double, the same key twice, white space. Who makes lines by other means may
//! put the JSON there itself, and leave out what is not known.
//!
//! What is kept beside the payload is what does not follow from it.
//! `occurred_at` is among that: it was read in the time zone that was configured
//! then. All else, such as the call's status, is made again.

use std::{collections::BTreeSet, str::Utf8Error};

use chrono::{DateTime, Datelike as _, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{sheet::Field, tables};
use crate::{
    call::{Delivery, InvalidIdentifier, ProjectId, Receipts, id},
    recho::{self, DEFAULT_ENDPOINT, ProviderTimeZone, ReadError, Receipt, identifier},
    store::export::ExportedDelivery,
};

/// How every Parquet file begins.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// The line that is written.
#[derive(Serialize)]
struct Written<'a> {
    call_id: &'a str,
    project_id: &'a str,
    endpoint: &'a str,
    received_at: DateTime<Utc>,
    occurred_at: Option<DateTime<Utc>>,
    delivery_count: u32,
    last_delivered_at: DateTime<Utc>,
    payload: &'a str,
}

/// The line that is read. A member that is not known is no member: it may be one
/// that is misspelt, or that a later release needs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    call_id: Option<String>,
    project_id: Option<String>,
    endpoint: Option<String>,
    received_at: Option<DateTime<Utc>>,
    /// Null is a statement; what is missing is none.
    #[serde(default, deserialize_with = "stated")]
    #[expect(clippy::option_option, reason = "missing, null and a time are three things")]
    occurred_at: Option<Option<DateTime<Utc>>>,
    delivery_count: Option<u32>,
    last_delivered_at: Option<DateTime<Utc>>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Why a line is no delivery.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// It is longer than any delivery.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// It is not UTF-8.
    #[error("is not UTF-8: {0}")]
    Encoding(#[from] Utf8Error),
    /// It is of another export.
    #[error("is of {0}; import takes the JSON lines of `callstate export deliveries`")]
    OtherExport(&'static str),
    /// It is not of the form.
    #[error("is no delivery as `export deliveries` writes it: {0}")]
    Form(#[from] serde_json::Error),
    /// It names an endpoint that cannot be.
    #[error("endpoint {0}")]
    Endpoint(InvalidIdentifier),
    /// It has a delivery that was never delivered, or more often than can be
    /// counted.
    #[error("delivery_count must be 1 to {}", i32::MAX)]
    Count,
    /// It has a time that could be neither shown nor asked for: chrono reads
    /// more years than RFC 3339 has.
    #[error("{0} must be a time of RFC 3339, which ends with the year 9999")]
    Time(&'static str),
    /// Its payload cannot be understood.
    #[error("has a payload that cannot be understood: {0}")]
    Payload(#[from] ReadError),
    /// Its payload is about another call.
    #[error("{member} is {line:?}, but {payload:?} in its payload")]
    Contradiction {
        /// What they do not agree in.
        member: &'static str,
        /// What the line says.
        line: String,
        /// What its payload says.
        payload: String,
    },
}

/// Writes a delivery as a line, its end included.
///
/// # Errors
///
/// Never, as far as is known.
pub fn write(line: &mut Vec<u8>, delivery: &ExportedDelivery) -> serde_json::Result<()> {
    let written = Written {
        call_id: delivery.key.call_id.as_str(),
        project_id: delivery.key.project_id.as_str(),
        endpoint: &delivery.endpoint,
        received_at: delivery.received_at,
        occurred_at: delivery.occurred_at,
        delivery_count: delivery.delivery_count,
        last_delivered_at: delivery.last_delivered_at,
        payload: &delivery.payload,
    };
    serde_json::to_writer(&mut *line, &written)?;
    line.push(b'\n');
    Ok(())
}

/// Reads a line. What it does not say is taken as if it were delivered `now`.
///
/// # Errors
///
/// Why it is no delivery.
pub fn read(
    line: &[u8],
    now: DateTime<Utc>,
    time_zone: ProviderTimeZone,
) -> Result<Delivery, BadLine> {
    if line.starts_with(PARQUET_MAGIC) {
        return Err(BadLine::OtherExport("a Parquet file"));
    }
    let text = str::from_utf8(line)?;
    let line: Read<'_> = serde_json::from_str(text)
        .map_err(|error| other_export(text).map_or(BadLine::Form(error), BadLine::OtherExport))?;
    let endpoint = line.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
    id::check(endpoint).map_err(BadLine::Endpoint)?;
    let received_at = time("received_at", line.received_at)?.unwrap_or(now);
    // The endpoint that received it may have had a default of its own.
    let named = line.project_id.as_deref().and_then(|text| identifier::project_id(text).ok());
    let default_project = &named.clone().unwrap_or_else(ProjectId::unnamed);
    let receipt = Receipt { endpoint, received_at, time_zone, default_project };
    let quoted = line.payload.get();
    let mut delivery = if quoted.starts_with('"') {
        let payload: String = serde_json::from_str(quoted)?;
        recho::read(payload.as_bytes(), receipt)?.delivery
    } else {
        recho::read(quoted.as_bytes(), receipt)?.delivery
    };
    agree("call_id", line.call_id, delivery.key.call_id.as_str())?;
    let project_id = named.map(String::from).or(line.project_id);
    agree("project_id", project_id, delivery.key.project_id.as_str())?;
    if let Some(occurred_at) = line.occurred_at {
        delivery.event.occurred_at = time("occurred_at", occurred_at)?;
        if occurred_at.is_some() {
            delivery.time_problem = None;
        }
    }
    let deliveries = line.delivery_count.unwrap_or(1);
    if deliveries == 0 || i32::try_from(deliveries).is_err() {
        return Err(BadLine::Count);
    }
    let last_delivered_at = time("last_delivered_at", line.last_delivered_at)?
        .map_or(received_at, |last| last.max(received_at));
    delivery.receipts = Receipts::InAll { deliveries, last_delivered_at };
    Ok(delivery)
}

/// The export that a line is of, if it has the columns of a table.
fn other_export(text: &str) -> Option<&'static str> {
    let names: BTreeSet<String> = if text.starts_with('{') {
        let members: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).ok()?;
        members.into_iter().map(|(name, _)| name).collect()
    } else {
        text.split(',').map(str::to_owned).collect()
    };
    let tables = [
        ("an export of calls", tables::calls().fields()),
        ("an export of events", tables::events().fields()),
        ("an export of attempts", tables::attempts().fields()),
    ];
    let is_of = |fields: &[Field]| fields.iter().all(|field| names.contains(field.name));
    tables.into_iter().find(|(_, fields)| is_of(fields)).map(|(name, _)| name)
}

fn agree(member: &'static str, line: Option<String>, payload: &str) -> Result<(), BadLine> {
    match line {
        Some(line) if line != payload => {
            Err(BadLine::Contradiction { member, line, payload: payload.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

/// The moment as Postgres keeps it. A leap second becomes the one after it.
fn time(member: &'static str, at: Option<DateTime<Utc>>) -> Result<Option<DateTime<Utc>>, BadLine> {
    let at = at.map(|at| DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at));
    match at {
        Some(at) if !(0..=9999).contains(&at.year()) => Err(BadLine::Time(member)),
        at => Ok(at),
    }
}

fn stated<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const PAYLOAD: &str = r#"{"projectId": "p", "eventType": "OUTBOUND_CALL_BUSY", "body": {
        "text": "Time: 2026-05-12 12:00:00", "data": {"callId": "c", "note": "\ud800 \u0000"}}}"#;
    const UTC: ProviderTimeZone = ProviderTimeZone::UTC;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn read_now(line: &str) -> Result<Delivery, String> {
        read(line.as_bytes(), at("2026-05-12T13:00:00Z"), UTC).map_err(|why| why.to_string())
    }

    fn exported(payload: &str) -> ExportedDelivery {
        let delivery = read_now(&json!({ "payload": payload }).to_string()).unwrap();
        ExportedDelivery {
            key: delivery.key,
            endpoint: "partner".to_owned(),
            received_at: at("2026-05-12T12:30:00.000001Z"),
            occurred_at: None,
            delivery_count: 3,
            last_delivered_at: at("2026-05-12T12:40:00Z"),
            payload: payload.to_owned(),
        }
    }

    fn line_of(delivery: &ExportedDelivery) -> String {
        let mut line = Vec::new();
        write(&mut line, delivery).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_reads_as_it_was_written() {
        let written = exported(PAYLOAD);
        let line = line_of(&written);
        assert_eq!(line.lines().count(), 1, "a payload of several lines is one line: {line}");
        let delivery = read_now(&line).unwrap();
        assert_eq!(delivery.payload, PAYLOAD);
        assert_eq!((delivery.key, delivery.endpoint), (written.key, written.endpoint));
        assert_eq!(delivery.event.received_at, written.received_at);
        assert_eq!(delivery.event.occurred_at, None, "the line says so, whatever the text says");
        let last_delivered_at = written.last_delivered_at;
        assert_eq!(delivery.receipts, Receipts::InAll { deliveries: 3, last_delivered_at });
    }

    proptest! {
        #[test]
        fn every_payload_comes_through_to_the_byte(note in any::<String>(), space in "[ \t\r\n]{0,8}") {
            let body = json!({"eventType": note, "callId": "c", "body": note}).to_string();
            let payload = format!("{space}{body}{space}");
            prop_assume!(read_now(&json!({ "payload": payload }).to_string()).is_ok());
            prop_assert_eq!(read_now(&line_of(&exported(&payload))).unwrap().payload, payload);
        }
    }

    #[test]
    fn what_a_line_leaves_out_is_as_if_it_were_delivered_now() {
        for line in [
            json!({ "payload": PAYLOAD }).to_string(),
            // The JSON itself, as it stands in a log.
            format!("{{\"payload\": {}}}", PAYLOAD.replace('\n', " ")),
        ] {
            let delivery = read_now(&line).unwrap();
            let now = at("2026-05-12T13:00:00Z");
            assert_eq!(delivery.endpoint, "default");
            assert_eq!(delivery.event.received_at, now);
            assert_eq!(delivery.event.occurred_at, Some(at("2026-05-12T12:00:00Z")));
            let receipts = Receipts::InAll { deliveries: 1, last_delivered_at: now };
            assert_eq!(delivery.receipts, receipts);
            assert!(delivery.payload.contains(r"\ud800 \u0000"));
        }
    }

    #[test]
    fn the_project_of_a_line_is_that_of_a_payload_without_one() {
        let line = r#"{"payload": {"eventType": "x", "callId": "c"}, "project_id": "p"}"#;
        assert_eq!(read_now(line).unwrap().key.project_id.as_str(), "p");
        let uuid = "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1";
        let line = json!({
            "payload": {"eventType": "x", "callId": "c", "projectId": uuid},
            "project_id": uuid.to_uppercase(),
        });
        assert_eq!(read_now(&line.to_string()).unwrap().key.project_id.as_str(), uuid);
    }

    #[test]
    fn a_bad_line_says_why() {
        for (line, why) in [
            ("", "EOF while parsing"),
            ("{}", "missing field `payload`"),
            (r#"{"eventType": "OUTBOUND_CALL_BUSY"}"#, "unknown field `eventType`"),
            (
                r#"{"payload": "{}"}"#,
                "has a payload that cannot be understood: eventType is missing",
            ),
            (
                r#"{"payload": "no JSON"}"#,
                "has a payload that cannot be understood: the body is not JSON",
            ),
            (
                r#"{"payload": "{\"eventType\": \"x\", \"callId\": \"c\"}", "received_at": "soon"}"#,
                "is no delivery",
            ),
            (
                r#"{"payload": {"eventType": "x", "callId": "c"}, "delivery_count": 0}"#,
                "must be 1 to",
            ),
            (
                r#"{"payload": {"eventType": "x", "callId": "c"},
                    "received_at": "+262142-12-31T23:59:00Z"}"#,
                "received_at must be a time of RFC 3339",
            ),
            (
                r#"{"payload": {"eventType": "x", "callId": "c"},
                    "occurred_at": "-0001-12-31T23:59:59Z"}"#,
                "occurred_at must be",
            ),
            (
                r#"{"payload": {"eventType": "x", "callId": "c"},
                    "last_delivered_at": "9999-12-31T23:59:59-00:01"}"#,
                "last_delivered_at must be",
            ),
            (
                r#"{"payload": {"eventType": "x", "callId": "c"}, "endpoint": ""}"#,
                "endpoint must not be empty",
            ),
            (
                r#"{"payload": {"eventType": "x", "callId": "c"}, "call_id": "d"}"#,
                "call_id is \"d\", but \"c\" in its payload",
            ),
            (
                r#"{"payload": {"eventType": "x", "callId": "c", "projectId": "q"},
                    "project_id": "p"}"#,
                "project_id is \"p\", but \"q\" in its payload",
            ),
            (
                r#"{"payload": {"eventType": "x", "callId": "c"}, "project_id": "\n"}"#,
                "project_id is \"\\n\", but \"default\" in its payload",
            ),
        ] {
            let said = read_now(line).unwrap_err();
            assert!(said.contains(why), "{line}: {said}");
        }
        let said = read(b"\xff", DateTime::UNIX_EPOCH, UTC).unwrap_err().to_string();
        assert!(said.starts_with("is not UTF-8"), "{said}");
    }
}

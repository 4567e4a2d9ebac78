//! The cases from use, each as deliveries and the call that they make.
//!
//! Each delivery is received a second after the one before, the first a day
//! after its `Time:` line. As in the provider's format, a time that is more than
//! [`MAX_AHEAD`] after its receipt is not plausible and counts as unknown. This
//! decides `id_used_again_months_later`: its second use is 25 hours after the
//! first, so its times are not plausible an hour before they come.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::given::{at, deliver, fold};
use crate::call::{
    Call, CallSid, ClientId, Event, EventType, Fingerprint, Outcome, event::MAX_AHEAD,
};

const CASES: &str = include_str!("../../../tests/fixtures/cases/lifecycle.json");

#[derive(Deserialize)]
struct Case {
    name: String,
    deliveries: Vec<Value>,
    expect: Expected,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Expected {
    status: String,
    terminal: bool,
    anomaly_count: u32,
    has_errors: bool,
    attempts: Vec<ExpectedAttempt>,
    dispositions_in_fold_order: Vec<String>,
    /// Seconds; not given where they depend on the receipt.
    time_in_status: Option<BTreeMap<String, f64>>,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct ExpectedAttempt {
    call_sid: Option<String>,
    status: String,
}

impl Expected {
    /// What can be expected of a call, in the same words.
    #[expect(clippy::cast_precision_loss, reason = "short times in whole seconds")]
    fn of((call, outcomes): &(Call, Vec<Outcome>), with_time: bool) -> Self {
        let in_seconds = |(status, microseconds): (&crate::call::Status, &i64)| {
            (status.to_string(), *microseconds as f64 / 1e6)
        };
        Self {
            status: call.status.to_string(),
            terminal: call.status.is_terminal(),
            anomaly_count: call.anomaly_count,
            has_errors: call.has_errors,
            attempts: call
                .attempts
                .iter()
                .map(|attempt| ExpectedAttempt {
                    call_sid: attempt.call_sid.clone().map(String::from),
                    status: attempt.status.to_string(),
                })
                .collect(),
            dispositions_in_fold_order: outcomes
                .iter()
                .map(|outcome| outcome.disposition.to_string())
                .collect(),
            time_in_status: with_time
                .then(|| call.microseconds_in_status.iter().map(in_seconds).collect()),
        }
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(CASES).expect("the file has cases")
}

fn stated_time(delivery: &Value) -> Option<DateTime<Utc>> {
    let text = delivery["body"]["text"].as_str().expect("a text");
    let time = text.lines().find_map(|line| line.strip_prefix("Time: "))?;
    Some(NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S").expect("a time").and_utc())
}

/// The event of a delivery that was received at this time.
fn event(delivery: &Value, received_at: DateTime<Utc>) -> Event {
    let data = &delivery["body"]["data"];
    let text = |member: &str| data[member].as_str().map(str::to_owned);
    let serial = u8::try_from(data["serial"].as_u64().expect("a serial")).expect("a small serial");
    Event {
        fingerprint: Fingerprint([serial; 32]),
        event_type: EventType::of(delivery["eventType"].as_str().expect("a type")),
        occurred_at: stated_time(delivery).filter(|time| *time <= received_at + MAX_AHEAD),
        received_at,
        call_sid: text("callSid").map(|sid| CallSid::new(sid).unwrap()),
        client_id: text("clientId").map(|id| ClientId::new(id).unwrap()),
        provider_status: text("callStatus"),
        has_errors: delivery["body"]["errors"].as_array().is_some_and(|errors| !errors.is_empty()),
    }
}

#[test]
fn every_case_from_use_makes_the_call_that_is_expected() {
    let cases = cases();
    assert!(!cases.is_empty());
    for case in cases {
        let first = stated_time(&case.deliveries[0]).unwrap_or_else(|| at(0));
        let received =
            (0_i64..).map(|second| first + TimeDelta::days(1) + TimeDelta::seconds(second));
        let events: Vec<Event> = case
            .deliveries
            .iter()
            .zip(received)
            .map(|(delivery, at)| event(delivery, at))
            .collect();
        let with_time = case.expect.time_in_status.is_some();
        let folded = fold(&events);
        assert_eq!(Expected::of(&folded, with_time), case.expect, "{}", case.name);
        assert_eq!(deliver(&events.iter().collect::<Vec<_>>()), folded, "{}", case.name);
    }
}

/// The same deliveries as in the case, but each received a day after its own
/// `Time:` line, so that the times of the second use are known.
#[test]
fn an_id_that_is_used_again_is_dialed_again_where_the_times_are_plausible() {
    let case = cases().into_iter().find(|case| case.name == "id_used_again_months_later").unwrap();
    let events: Vec<Event> = case
        .deliveries
        .iter()
        .map(|delivery| event(delivery, stated_time(delivery).unwrap() + TimeDelta::days(1)))
        .collect();
    let (call, outcomes) = fold(&events);
    let dispositions: Vec<&str> = outcomes.iter().map(|it| it.disposition.as_str()).collect();
    assert_eq!(
        dispositions,
        ["advanced", "advanced", "advanced", "forced", "advanced", "advanced"],
    );
    assert_eq!((call.status.as_str(), call.attempts.len()), ("BUSY", 2));
}

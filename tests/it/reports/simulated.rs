//! A month of traffic, and what is known of it without the database: the events of each call, folded by the domain, and
//! what follows from that by counting.

use std::collections::BTreeSet;

use callstate::recho::ProviderTimeZone;
use callstate::{
    call::{
        Call, CallId, CallKey, CallSid, Event, EventType, Fingerprint, KnownEvent, Outcome,
        ProjectId, Status, fold,
    },
    simulate::{
        payload::AuthType,
        plan::{Faults, Plan, Settings, Timing},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

/// A simulated call with its events.
pub(super) struct SimulatedCall {
    pub(super) key: CallKey,
    pub(super) call: Call,
    /// Its events in fold order, with what each did.
    pub(super) events: Vec<(Event, Outcome)>,
    /// The errors of its events: code and phase.
    pub(super) errors: Vec<(Option<String>, Option<String>)>,
}

/// Builds a call from its events.
struct CallBuilder {
    key: CallKey,
    events: Vec<Event>,
    errors: Vec<(Option<String>, Option<String>)>,
}

impl CallBuilder {
    fn add(&mut self, event_type: EventType, at: DateTime<Utc>, sid: Option<&str>, errors: usize) {
        let mut fingerprint = [0; 32];
        fingerprint[0] = u8::try_from(self.events.len()).expect("few events");
        self.events.push(Event {
            fingerprint: Fingerprint(fingerprint),
            event_type,
            occurred_at: Some(at),
            received_at: at,
            call_sid: sid.map(|sid| CallSid::new(sid).unwrap()),
            client_id: None,
            provider_status: None,
            has_errors: errors > 0,
        });
    }

    fn folded(self) -> Option<SimulatedCall> {
        let mut events: Vec<&Event> = self.events.iter().collect();
        let (call, outcomes) = fold(&mut events)?;
        let events = events.into_iter().cloned().zip(outcomes).collect();
        Some(SimulatedCall { key: self.key, call, events, errors: self.errors })
    }
}

/// The end of the month. In Berlin the clocks went forward in it, on 29 March.
pub(super) fn end() -> DateTime<Utc> {
    "2026-04-10T12:00:00Z".parse().unwrap()
}

/// The month's deliveries, in the order in which they come, and its calls.
pub(super) fn month(calls: u64) -> (Vec<String>, Vec<SimulatedCall>) {
    let plan = Plan::new(Settings {
        seed: 6,
        at: end(),
        timing: Timing::Past { past: TimeDelta::days(30) },
        projects: 2,
        faults: Faults {
            duplicates: 0.05,
            reorder: 0.1,
            drop: 0.05,
            unknown: 0.02,
            switched_off: BTreeSet::from([KnownEvent::InboundClosing]),
        },
        auth_type: AuthType::None,
        time_zone: ProviderTimeZone::UTC,
    });
    let (mut bodies, mut simulated) = (Vec::new(), Vec::new());
    let mut project_id = None;
    for number in 0..calls {
        let planned = plan.call(number);
        project_id.get_or_insert(planned.key.project_id.clone());
        let mut teller =
            CallBuilder { key: planned.key.clone(), events: Vec::new(), errors: Vec::new() };
        for event in planned.events.iter().filter(|event| !event.is_lost) {
            let faults = event.step.faults;
            let sid = event.step.dial.map(|dial| planned.sids[usize::from(dial)].as_str());
            teller.add(event.event_type.clone(), event.at, sid, faults.len());
            teller.errors.extend(
                faults.iter().map(|it| (Some(it.code.to_owned()), Some(it.phase.to_owned()))),
            );
        }
        simulated.extend(teller.folded());
        bodies.extend(
            planned
                .deliveries
                .iter()
                .map(|delivery| String::from_utf8(planned.body(delivery)).unwrap()),
        );
    }
    odd_calls(&project_id.expect("there are calls"), &mut bodies, &mut simulated);
    (bodies, simulated)
}

/// Event type, call, minutes after the beginning of 29 March in Berlin, dial, codes of errors.
type Odd = (&'static str, &'static str, i64, Option<&'static str>, &'static [&'static str]);

/// Calls that the simulation does not make, in the order in which their events come.
#[rustfmt::skip]
const ODD: [Odd; 25] = [
    // contradicted, and with an error that has neither code nor phase
    ("OUTBOUND_CALL_COMPLETED", "contradicted", 10, Some("A"), &[]),
    ("OUTBOUND_CALL_BUSY", "contradicted", 20, Some("A"), &[""]),
    // dialled again while it rang
    ("OUTBOUND_CALL_CALLING", "overlapping", 30, Some("A"), &[]),
    ("OUTBOUND_CALL_CALLING", "overlapping", 50, Some("B"), &[]),
    ("OUTBOUND_CALL_BUSY", "overlapping", 70, Some("B"), &[]),
    ("OUTBOUND_CALL_NO_RESPONSE", "overlapping", 40, Some("A"), &[]),
    // in CALLING from the beginning of an hour on, over the change of the clock
    ("OUTBOUND_CALL_CALLING", "long", 60, Some("A"), &[]),
    ("OUTBOUND_CALL_CLOSING", "long", 60 * 4, Some("A"), &[]),
    ("OUTBOUND_CALL_PENDING", "long", -60 * 24, None, &[]),
    // came and went in the same second
    ("INBOUND_CALL_CALLING", "instant", 90, Some("A"), &[]),
    ("INBOUND_CALL_COMPLETED", "instant", 90, Some("A"), &["=SUM(A1)", "E,\"2\""]),
    // still going on
    ("INBOUND_CALL_CALLING", "open", 120, Some("A"), &[]),
    ("OUTBOUND_CALL_REQUESTED", "waiting", 120, None, &[]),
    // not understood at all
    ("CALL_TRANSFERRED", "unknown", 130, None, &[]),
    ("CALL_PARKED", "unknown", 130, None, &[]),
    // forced
    ("OUTBOUND_CALL_CALLING", "canceled", 140, Some("A"), &[]),
    ("OUTBOUND_CALL_CANCELED", "canceled", 150, None, &[]),
    // redialled without dials, and used up; the outcome of the second dial comes last
    ("OUTBOUND_CALL_CALLING", "used up", 160, None, &[]),
    ("OUTBOUND_CALL_BUSY", "used up", 161, None, &[]),
    ("OUTBOUND_CALL_CALLING", "used up", 170, None, &[]),
    ("OUTBOUND_CALL_MAX_ATTEMPTS_REACHED", "used up", 180, None, &[]),
    ("OUTBOUND_CALL_BUSY", "used up", 171, None, &[]),
    // of both directions
    ("INBOUND_CALL_CONNECTING", "crossed", 190, None, &[]),
    ("OUTBOUND_CALL_CALLING", "crossed", 191, None, &[]),
    ("INBOUND_CALL_CONCURRENCY_LIMIT_EXCEEDED", "crossed", 192, None, &[]),
];

fn odd_calls(project_id: &ProjectId, bodies: &mut Vec<String>, simulated: &mut Vec<SimulatedCall>) {
    let midnight: DateTime<Utc> = "2026-03-28T23:00:00Z".parse().unwrap();
    let names: BTreeSet<&str> = ODD.iter().map(|(_, name, ..)| *name).collect();
    for (event_type, name, minutes, sid, codes) in ODD {
        let at = midnight + TimeDelta::minutes(minutes);
        let errors: Vec<_> = codes
            .iter()
            .map(|code| {
                if code.is_empty() { json!({}) } else { json!({"code": code, "phase": "CALLING"}) }
            })
            .collect();
        let delivery = json!({
            "projectId": project_id, "eventType": event_type,
            "body": {
                "text": format!("Time: {}", at.format("%Y-%m-%d %H:%M:%S")),
                "data": {"callId": name, "callSid": sid},
                "errors": errors,
            },
        });
        bodies.push(delivery.to_string());
    }
    for name in names {
        let key = CallKey { call_id: CallId::new(name).unwrap(), project_id: project_id.clone() };
        let mut teller = CallBuilder { key, events: Vec::new(), errors: Vec::new() };
        for (event_type, _, minutes, sid, codes) in ODD.iter().filter(|it| it.1 == name) {
            let at = midnight + TimeDelta::minutes(*minutes);
            teller.add(EventType::of(event_type), at, *sid, codes.len());
            teller.errors.extend(codes.iter().map(|code| {
                let code = Some((*code).to_owned()).filter(|code| !code.is_empty());
                let phase = code.as_ref().map(|_| "CALLING".to_owned());
                (code, phase)
            }));
        }
        simulated.extend(teller.folded());
    }
}

impl SimulatedCall {
    /// When it was in CALLING; without an end where it still is.
    pub(super) fn calling(&self) -> Vec<(DateTime<Utc>, Option<DateTime<Utc>>)> {
        let mut stays = Vec::new();
        let mut since = None;
        for (event, outcome) in &self.events {
            let Some(to) = outcome.to_status else { continue };
            if let Some(since) = since.take() {
                stays.push((since, Some(event.effective_at())));
            }
            if to == Status::Calling {
                since = Some(event.effective_at());
            }
        }
        stays.extend(since.map(|since| (since, None)));
        stays
    }
}

//! The rules of the fold a second time, as their text has them: names, lists
//! and searches, nothing kept that can be looked up again, nothing shared with
//! the code under test but the event itself.
//!
//! It is here to disagree. Where the two differ, the text of the rules says
//! which of them is wrong.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::call::{Call, Event, Outcome};

type Time = DateTime<Utc>;

const OUTBOUND: [&str; 12] = [
    "OUTBOUND_CALL_PENDING",
    "OUTBOUND_CALL_REQUESTED",
    "OUTBOUND_CALL_CALLING",
    "OUTBOUND_CALL_CLOSING",
    "OUTBOUND_CALL_COMPLETED",
    "OUTBOUND_CALL_EXPIRED",
    "OUTBOUND_CALL_NO_RESPONSE",
    "OUTBOUND_CALL_CANCELED",
    "OUTBOUND_CALL_BUSY",
    "OUTBOUND_CALL_UNREACHABLE",
    "OUTBOUND_CALL_MAX_ATTEMPTS_REACHED",
    "OUTBOUND_CALL_ERROR",
];
const INBOUND: [&str; 6] = [
    "INBOUND_CALL_CONNECTING",
    "INBOUND_CALL_CALLING",
    "INBOUND_CALL_CLOSING",
    "INBOUND_CALL_COMPLETED",
    "INBOUND_CALL_CONCURRENCY_LIMIT_EXCEEDED",
    "INBOUND_CALL_ERROR",
];
const RANKS: [(i32, &[&str]); 8] = [
    (0, &["PENDING"]),
    (1, &["REQUESTED", "CONNECTING"]),
    (2, &["CALLING"]),
    (3, &["CLOSING"]),
    (4, &["ERROR"]),
    (5, &["NO_RESPONSE", "BUSY", "UNREACHABLE"]),
    (6, &["COMPLETED"]),
    (7, &["CANCELED", "EXPIRED", "MAX_ATTEMPTS_REACHED", "CONCURRENCY_LIMIT_EXCEEDED"]),
];

fn rank(status: &str) -> i32 {
    RANKS.iter().find(|(_, names)| names.contains(&status)).map_or(-1, |(rank, _)| *rank)
}

fn direction(event: &Event) -> Option<&'static str> {
    let name = event.event_type.as_str();
    if OUTBOUND.contains(&name) {
        Some("outbound")
    } else if INBOUND.contains(&name) {
        Some("inbound")
    } else {
        None
    }
}

/// The status that an event says: its type without the prefix.
fn said(event: &Event) -> &str {
    let name = event.event_type.as_str();
    match direction(event) {
        Some("outbound") => &name["OUTBOUND_CALL_".len()..],
        Some(_) => &name["INBOUND_CALL_".len()..],
        None => "UNKNOWN",
    }
}

fn at(event: &Event) -> Time {
    event.occurred_at.unwrap_or(event.received_at)
}

fn sid(event: &Event) -> Option<&str> {
    event.call_sid.as_ref().map(crate::call::CallSid::as_str)
}

fn is_final(status: &str) -> bool {
    rank(status) >= 6
}

/// An attempt is its events.
#[derive(Default)]
struct Attempt<'a>(Vec<&'a Event>);

impl<'a> Attempt<'a> {
    fn sid(&self) -> Option<&'a str> {
        self.0.iter().find_map(|event| sid(event))
    }

    /// The event that gave it its status: the first of the highest rank.
    fn decider(&self) -> &'a Event {
        let highest = self.0.iter().map(|event| rank(said(event))).max();
        self.0.iter().find(|event| Some(rank(said(event))) == highest).expect("never empty")
    }

    fn status(&self) -> &'a str {
        said(self.decider())
    }

    fn ended_at(&self) -> Option<Time> {
        (4..=6).contains(&rank(self.status())).then(|| at(self.decider()))
    }

    fn has_been(&self, status: &str) -> bool {
        self.0.iter().any(|event| said(event) == status)
    }
}

/// A call under way.
#[derive(Default)]
struct Model<'a> {
    direction: Option<&'static str>,
    attempts: Vec<Attempt<'a>>,
    /// The events that were advanced, forced or redialed.
    steps: Vec<&'a Event>,
}

impl<'a> Model<'a> {
    fn status(&self) -> &'a str {
        self.steps.last().map_or("UNKNOWN", |event| said(event))
    }

    /// The attempt before the current one that has the event's `call_sid`.
    fn earlier(&self, event: &Event) -> Option<usize> {
        let before = self.attempts.len().saturating_sub(1);
        sid(event)?;
        self.attempts[..before].iter().position(|attempt| attempt.sid() == sid(event))
    }

    /// The rules of one step, in their order.
    fn disposition(&self, event: &Event) -> &'static str {
        let (now, new) = (self.status(), said(event));
        if direction(event).is_none() {
            return "unrecognized";
        }
        if self.direction.is_some() && direction(event) != self.direction {
            return "conflicting";
        }
        if is_final(now) {
            return if new == now {
                "repeated"
            } else if rank(new) == 7
                || rank(new) == 5 && now == "COMPLETED" && !self.is_of_another_attempt(event)
            {
                "conflicting"
            } else {
                "late"
            };
        }
        if self.earlier(event).is_some() {
            return "late";
        }
        if self.redials(event) {
            return "redialed";
        }
        if new == now {
            return "repeated";
        }
        if rank(new) > rank(now) {
            return if is_forced(now, new) { "forced" } else { "advanced" };
        }
        if rank(new) == rank(now) { "conflicting" } else { "late" }
    }

    fn is_of_another_attempt(&self, event: &Event) -> bool {
        let current = self.attempts.last().and_then(Attempt::sid);
        let differs = current.is_some() && sid(event).is_some() && current != sid(event);
        differs || self.earlier(event).is_some()
    }

    fn redials(&self, event: &Event) -> bool {
        let Some(current) = self.attempts.last() else { return false };
        let new = said(event);
        if direction(event) != Some("outbound") || rank(new) > 6 {
            return false;
        }
        if sid(event).is_some() && current.sid().is_some() {
            return sid(event) != current.sid();
        }
        let ended = rank(current.status());
        let phase_again =
            ["PENDING", "REQUESTED", "CALLING"].contains(&new) && current.has_been(new);
        let outcome_again = ended == 5 && [5, 6].contains(&rank(new));
        [4, 5].contains(&ended) && (phase_again || outcome_again)
    }

    /// The attempt that an event counts for, by its index; one past the last is
    /// a new one.
    fn attempt(&self, event: &Event, disposition: &str) -> Option<usize> {
        if ["unrecognized", "conflicting"].contains(&disposition) || rank(said(event)) == 7 {
            return None;
        }
        if disposition == "redialed" {
            return Some(self.attempts.len());
        }
        if self.attempts.is_empty() {
            return (!is_final(self.status())).then_some(0);
        }
        let current = self.attempts.len() - 1;
        if let Some(earlier) = self.earlier(event) {
            return Some(earlier);
        }
        if is_final(self.status()) {
            let theirs = self.attempts[current].sid();
            let fits = sid(event).is_none() || theirs.is_none() || theirs == sid(event);
            return fits.then_some(current);
        }
        Some(current)
    }

    fn step(&mut self, event: &'a Event) -> Row {
        let disposition = self.disposition(event);
        let attempt = self.attempt(event, disposition);
        let changed = ["advanced", "forced", "redialed"].contains(&disposition);
        let from = changed.then(|| self.status().to_owned());
        if let Some(index) = attempt {
            if index == self.attempts.len() {
                self.attempts.push(Attempt::default());
            }
            self.attempts[index].0.push(event);
        }
        if changed {
            self.steps.push(event);
        }
        self.direction = self.direction.or(direction(event));
        Row {
            disposition: disposition.to_owned(),
            from,
            to: changed.then(|| said(event).to_owned()),
            attempt: attempt.map(|index| index + 1),
        }
    }
}

/// Where the provider's own description does not lead.
fn is_forced(now: &str, new: &str) -> bool {
    let unanswered = ["NO_RESPONSE", "BUSY", "UNREACHABLE"];
    new == "CANCELED" && now != "PENDING" && now != "UNKNOWN"
        || new == "EXPIRED" && ["CALLING", "CLOSING"].contains(&now)
        || unanswered.contains(&new) && now == "CLOSING"
        || new == "COMPLETED" && unanswered.contains(&now)
}

/// What can be seen of a call, in words and numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sight {
    direction: Option<String>,
    status: String,
    attempts: Vec<Dial>,
    call_sid: Option<String>,
    client_id: Option<String>,
    provider_status: Option<String>,
    has_errors: bool,
    event_count: usize,
    anomaly_count: usize,
    microseconds_in_status: BTreeMap<String, i64>,
    first_event_at: Time,
    last_event_at: Time,
    ended_at: Option<Time>,
    updated_at: Time,
    rows: Vec<Row>,
}

/// What can be seen of an attempt.
#[derive(Debug, PartialEq, Eq)]
struct Dial {
    number: usize,
    call_sid: Option<String>,
    status: String,
    started_at: Time,
    ended_at: Option<Time>,
}

/// What can be seen of what the machine did with one event.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    disposition: String,
    from: Option<String>,
    to: Option<String>,
    attempt: Option<usize>,
}

/// The call of these events as the rules have it.
pub(super) fn fold(events: &[Event]) -> Option<Sight> {
    let mut sorted: Vec<&Event> = Vec::new();
    for event in events {
        if !sorted.iter().any(|known| known.fingerprint == event.fingerprint) {
            sorted.push(event);
        }
    }
    sorted.sort_by_key(|event| (at(event), rank(said(event)), event.fingerprint.0));
    let mut model = Model::default();
    let mut rows: Vec<Row> = sorted.iter().map(|event| model.step(event)).collect();
    // The call begins with its first event: there is nothing to come from.
    rows.first_mut()?.from = None;

    let mut microseconds_in_status = BTreeMap::new();
    for pair in model.steps.windows(2) {
        let stay = (at(pair[1]) - at(pair[0])).num_microseconds().expect("a short stay");
        *microseconds_in_status.entry(said(pair[0]).to_owned()).or_insert(0) += stay;
    }
    let anomalies = ["forced", "conflicting", "unrecognized"];
    Some(Sight {
        direction: model.direction.map(str::to_owned),
        status: model.status().to_owned(),
        attempts: (1..)
            .zip(&model.attempts)
            .map(|(number, attempt)| Dial {
                number,
                call_sid: attempt.sid().map(str::to_owned),
                status: attempt.status().to_owned(),
                started_at: at(attempt.0[0]),
                ended_at: attempt.ended_at(),
            })
            .collect(),
        call_sid: model.attempts.last().and_then(Attempt::sid).map(str::to_owned),
        client_id: sorted.iter().rev().find_map(|event| event.client_id.clone()).map(String::from),
        provider_status: sorted.iter().rev().find_map(|event| event.provider_status.clone()),
        has_errors: sorted.iter().any(|event| event.has_errors),
        event_count: sorted.len(),
        anomaly_count: rows
            .iter()
            .filter(|row| anomalies.contains(&row.disposition.as_str()))
            .count(),
        microseconds_in_status,
        first_event_at: sorted.iter().map(|event| at(event)).min()?,
        last_event_at: sorted.iter().map(|event| at(event)).max()?,
        ended_at: model.steps.last().filter(|event| rank(said(event)) >= 4).map(|event| at(event)),
        updated_at: sorted.iter().map(|event| event.received_at).max()?,
        rows,
    })
}

/// What can be seen of a call that the code under test folded.
pub(super) fn sight(call: &Call, outcomes: &[Outcome]) -> Sight {
    let name = |status: crate::call::Status| status.as_str().to_owned();
    Sight {
        direction: call.direction.map(|direction| direction.as_str().to_owned()),
        status: name(call.status),
        attempts: call
            .attempts
            .iter()
            .map(|attempt| Dial {
                number: attempt.number as usize,
                call_sid: attempt.call_sid.clone().map(String::from),
                status: name(attempt.status),
                started_at: attempt.started_at,
                ended_at: attempt.ended_at,
            })
            .collect(),
        call_sid: call.call_sid().cloned().map(String::from),
        client_id: call.client_id.clone().map(String::from),
        provider_status: call.provider_status.clone(),
        has_errors: call.has_errors,
        event_count: call.event_count as usize,
        anomaly_count: call.anomaly_count as usize,
        microseconds_in_status: call
            .microseconds_in_status
            .iter()
            .map(|(status, time)| (name(*status), *time))
            .collect(),
        first_event_at: call.first_event_at,
        last_event_at: call.last_event_at(),
        ended_at: call.ended_at,
        updated_at: call.updated_at,
        rows: outcomes
            .iter()
            .map(|outcome| Row {
                disposition: outcome.disposition.as_str().to_owned(),
                from: outcome.from_status.map(name),
                to: outcome.to_status.map(name),
                attempt: outcome.attempt.map(|number| number as usize),
            })
            .collect(),
    }
}

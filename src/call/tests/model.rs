//! The rules of the fold a second time, from their text: names, lists and
//! searches. It keeps nothing that can be computed again, and shares nothing
//! with the code under test but the event.
//!
//! Where the two differ, the text of the rules decides which one is wrong.

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
const DIAL: [&str; 3] = ["PENDING", "REQUESTED", "CALLING"];

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

/// The status that an event reports: its type without the prefix.
fn reported(event: &Event) -> &str {
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

fn happened_after(event: &Event, other: &Event) -> bool {
    event.occurred_at.is_some()
        && other.occurred_at.is_some()
        && event.occurred_at > other.occurred_at
}

fn sid(event: &Event) -> Option<&str> {
    event.call_sid.as_ref().map(crate::call::CallSid::as_str)
}

fn is_final(status: &str) -> bool {
    rank(status) >= 6
}

/// An attempt is its events, and which of them are left out of its status.
#[derive(Default)]
struct Attempt<'a> {
    events: Vec<&'a Event>,
    left_out: Vec<&'a Event>,
}

impl<'a> Attempt<'a> {
    fn sid(&self) -> Option<&'a str> {
        self.events.iter().find_map(|event| sid(event))
    }

    /// The event that gave it its status: the first of the highest rank.
    fn decider(&self) -> &'a Event {
        let counts = |event: &&&Event| !self.left_out.contains(*event);
        let highest = self.events.iter().filter(counts).map(|event| rank(reported(event))).max();
        let mut counting = self.events.iter().filter(counts);
        counting.find(|event| Some(rank(reported(event))) == highest).expect("never empty")
    }

    fn status(&self) -> &'a str {
        reported(self.decider())
    }

    fn has_ended(&self) -> bool {
        (4..=6).contains(&rank(self.status()))
    }

    fn has_been(&self, status: &str) -> bool {
        self.events.iter().any(|event| reported(event) == status)
    }
}

/// A call during the fold.
#[derive(Default)]
struct Model<'a> {
    direction: Option<&'static str>,
    attempts: Vec<Attempt<'a>>,
    /// The events that were advanced, forced or redialed.
    steps: Vec<&'a Event>,
    events: Vec<&'a Event>,
    rows: Vec<Row>,
}

impl<'a> Model<'a> {
    fn status(&self) -> &'a str {
        self.steps.last().map_or("UNKNOWN", |event| reported(event))
    }

    fn current_sid(&self) -> Option<&'a str> {
        self.attempts.last().and_then(Attempt::sid)
    }

    /// The earlier attempt that has the event's `call_sid`.
    fn earlier(&self, event: &Event) -> Option<usize> {
        let before = self.attempts.len().saturating_sub(1);
        sid(event)?;
        self.attempts[..before].iter().position(|attempt| attempt.sid() == sid(event))
    }

    fn sids_are_known_and_differ(&self, event: &Event) -> bool {
        let (of_event, of_attempt) = (sid(event), self.current_sid());
        of_event.is_some() && of_attempt.is_some() && of_event != of_attempt
    }

    fn a_sid_is_unknown(&self, event: &Event) -> bool {
        sid(event).is_none() || self.current_sid().is_none()
    }

    /// Rule 3 (a): the dial went ahead.
    fn went_ahead(&self, event: &Event) -> bool {
        ["CANCELED", "EXPIRED"].contains(&self.status())
            && ["CALLING", "CLOSING", "COMPLETED"].contains(&reported(event))
            && self.earlier(event).is_none()
    }

    /// Rule 3 (b): another dial starts.
    fn is_dialed_again(&self, event: &Event) -> bool {
        let was_in_status = self.attempts.iter().any(|it| it.has_been(reported(event)));
        direction(event) == Some("outbound")
            && DIAL.contains(&reported(event))
            && self.earlier(event).is_none()
            && (self.sids_are_known_and_differ(event)
                || self.a_sid_is_unknown(event) && was_in_status)
    }

    /// Rule 3.
    fn in_final_call(&self, event: &Event) -> &'static str {
        let (now, new) = (self.status(), reported(event));
        let is_later = happened_after(event, self.steps[self.steps.len() - 1]);
        let is_of_current = self.earlier(event).is_none() && !self.sids_are_known_and_differ(event);
        if new == now {
            "repeated"
        } else if is_later && (self.went_ahead(event) || self.is_dialed_again(event)) {
            "forced"
        } else if rank(new) == 7 || rank(new) == 5 && now == "COMPLETED" && is_of_current {
            "conflicting"
        } else {
            "late"
        }
    }

    /// Rule 5.
    fn redials(&self, event: &Event) -> bool {
        let Some(current) = self.attempts.last() else { return false };
        let new = reported(event);
        if direction(event) != Some("outbound") || !(0..=6).contains(&rank(new)) {
            return false;
        }
        if self.sids_are_known_and_differ(event) {
            let is_other_leg = ["CLOSING", "COMPLETED"].contains(&new)
                && ["CALLING", "CLOSING"].contains(&current.status());
            return !is_other_leg;
        }
        let ended = rank(current.status());
        let is_rendered_again = current.status() == new
            && event.occurred_at.is_some()
            && event.occurred_at == current.decider().occurred_at;
        let is_status_again = DIAL.contains(&new) && current.has_been(new);
        let is_outcome_again = ended == 5 && [5, 6].contains(&rank(new)) && !is_rendered_again;
        self.a_sid_is_unknown(event)
            && [4, 5].contains(&ended)
            && (is_status_again || is_outcome_again)
    }

    /// The ERROR that the call is in and the repeated ones since, by index.
    fn errors(&self) -> Vec<usize> {
        let error = self.steps[self.steps.len() - 1];
        let first = self.events.iter().position(|event| *event == error).expect("a past event");
        let is_of_it = |index: &usize| {
            *index == first
                || reported(self.events[*index]) == "ERROR"
                    && self.rows[*index].disposition == "repeated"
        };
        (first..self.events.len()).filter(is_of_it).collect()
    }

    /// The status that the ERROR interrupted; `None` if it opened the attempt.
    fn interrupted(&self) -> Option<&'a str> {
        let opened = self.attempts.last()?.events[0] == self.steps[self.steps.len() - 1];
        let before = self.steps.len().checked_sub(2)?;
        (!opened).then(|| reported(self.steps[before]))
    }

    /// Rule 6: whether the event shows that the call went on.
    fn went_on(&self, event: &Event) -> bool {
        if self.status() != "ERROR" {
            return false;
        }
        let latest = self.errors().last().map(|index| self.events[*index]).expect("an ERROR");
        let new = rank(reported(event));
        [5, 6].contains(&new) || (0..=3).contains(&new) && happened_after(event, latest)
    }

    /// Rules 7 to 10.
    fn by_rank(now: &str, new: &str) -> &'static str {
        if new == now {
            "repeated"
        } else if rank(new) > rank(now) {
            if is_forced(now, new) { "forced" } else { "advanced" }
        } else if rank(new) == rank(now) {
            "conflicting"
        } else {
            "late"
        }
    }

    /// The attempt that an event counts for, by its index; one past the last is
    /// a new one. `was` is the status of the call before the event.
    fn attempt(&self, event: &Event, was: &str, disposition: &str) -> Option<usize> {
        if ["unrecognized", "conflicting"].contains(&disposition) || rank(reported(event)) == 7 {
            return None;
        }
        let next = Some(self.attempts.len());
        if disposition == "redialed" {
            return next;
        }
        if disposition == "forced" && is_final(was) {
            let opens = self.is_dialed_again(event)
                || self.sids_are_known_and_differ(event)
                || self.attempts.is_empty();
            return if opens { next } else { Some(self.attempts.len() - 1) };
        }
        if self.attempts.is_empty() {
            return if is_final(was) { None } else { next };
        }
        if let Some(earlier) = self.earlier(event) {
            return Some(earlier);
        }
        if is_final(was) && self.sids_are_known_and_differ(event) {
            return None;
        }
        Some(self.attempts.len() - 1)
    }

    /// One step: the first rule that applies.
    fn step(&mut self, event: &'a Event) {
        let was = self.status();
        let new = reported(event);
        let mut left_error = false;
        let disposition = if direction(event).is_none() {
            "unrecognized"
        } else if self.direction.is_some() && direction(event) != self.direction {
            "conflicting"
        } else if is_final(was) {
            self.in_final_call(event)
        } else if self.earlier(event).is_some() {
            "late"
        } else if self.redials(event) {
            "redialed"
        } else if self.went_on(event) {
            match self.interrupted() {
                Some(before) if rank(new) < rank(before) => "late",
                Some(before) => {
                    for index in self.errors() {
                        self.rows[index].disposition = "nonfatal".to_owned();
                        self.rows[index].from = None;
                        self.rows[index].to = None;
                    }
                    self.steps.pop();
                    left_error = true;
                    Self::by_rank(before, new)
                }
                None => {
                    left_error = true;
                    "advanced"
                }
            }
        } else {
            Self::by_rank(was, new)
        };
        // Where the ERROR was nonfatal, the call is back in the status before.
        let from = self.status();
        let attempt = self.attempt(event, was, disposition);
        if let Some(index) = attempt {
            if index == self.attempts.len() {
                self.attempts.push(Attempt::default());
            }
            self.attempts[index].events.push(event);
        }
        if left_error && let Some(current) = self.attempts.last_mut() {
            let errors = current.events.iter().filter(|event| reported(event) == "ERROR");
            current.left_out = errors.copied().collect();
        }
        let changed = ["advanced", "forced", "redialed"].contains(&disposition);
        if changed {
            self.steps.push(event);
        }
        self.direction = self.direction.or(direction(event));
        self.events.push(event);
        self.rows.push(Row {
            disposition: disposition.to_owned(),
            from: changed.then(|| from.to_owned()),
            to: changed.then(|| new.to_owned()),
            attempt: attempt.map(|index| index + 1),
        });
    }

    fn dials(&self) -> Vec<Dial> {
        let next = self.attempts.iter().skip(1).map(|next| Some(at(next.events[0])));
        let numbered = (1..).zip(&self.attempts).zip(next.chain([None]));
        numbered
            .map(|((number, attempt), next)| Dial {
                number,
                call_sid: attempt.sid().map(str::to_owned),
                status: attempt.status().to_owned(),
                started_at: at(attempt.events[0]),
                ended_at: if attempt.has_ended() { Some(at(attempt.decider())) } else { next },
            })
            .collect()
    }
}

/// The steps that the provider does not describe.
fn is_forced(now: &str, new: &str) -> bool {
    let no_answer = ["NO_RESPONSE", "BUSY", "UNREACHABLE"];
    new == "CANCELED" && now != "PENDING" && now != "UNKNOWN"
        || new == "EXPIRED" && ["CALLING", "CLOSING"].contains(&now)
        || no_answer.contains(&new) && now == "CLOSING"
        || new == "COMPLETED" && no_answer.contains(&now)
}

/// What can be seen of a call, in words and numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct View {
    direction: Option<String>,
    status: String,
    status_since: Option<Time>,
    is_status_since_reported: bool,
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

/// What can be seen of the outcome of one event.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    disposition: String,
    from: Option<String>,
    to: Option<String>,
    attempt: Option<usize>,
}

/// The call of these events by the rules.
pub(super) fn fold(events: &[Event]) -> Option<View> {
    let mut sorted: Vec<&Event> = Vec::new();
    for event in events {
        if !sorted.iter().any(|known| known.fingerprint == event.fingerprint) {
            sorted.push(event);
        }
    }
    sorted.sort_by_key(|event| (at(event), rank(reported(event)), event.fingerprint.0));
    let mut model = Model::default();
    for event in &sorted {
        model.step(event);
    }
    // The call begins with its first event: there is no status before.
    model.rows.first_mut()?.from = None;

    let mut microseconds_in_status = BTreeMap::new();
    for pair in model.steps.windows(2) {
        let time = (at(pair[1]) - at(pair[0])).num_microseconds().expect("a short time");
        *microseconds_in_status.entry(reported(pair[0]).to_owned()).or_insert(0) += time;
    }
    let is_anomaly = |row: &&Row| ["forced", "conflicting"].contains(&row.disposition.as_str());
    let last_step = model.steps.last();
    Some(View {
        direction: model.direction.map(str::to_owned),
        status: model.status().to_owned(),
        status_since: last_step.map(|event| at(event)),
        is_status_since_reported: last_step.is_some_and(|event| event.occurred_at.is_some()),
        attempts: model.dials(),
        call_sid: model.current_sid().map(str::to_owned),
        client_id: sorted.iter().rev().find_map(|event| event.client_id.clone()).map(String::from),
        provider_status: sorted.iter().rev().find_map(|event| event.provider_status.clone()),
        has_errors: sorted.iter().any(|event| event.has_errors || reported(event) == "ERROR"),
        event_count: sorted.len(),
        anomaly_count: model.rows.iter().filter(is_anomaly).count(),
        microseconds_in_status,
        first_event_at: sorted.iter().map(|event| at(event)).min()?,
        last_event_at: sorted.iter().map(|event| at(event)).max()?,
        ended_at: last_step.filter(|event| rank(reported(event)) >= 4).map(|event| at(event)),
        updated_at: sorted.iter().map(|event| event.received_at).max()?,
        rows: model.rows,
    })
}

/// What can be seen of a call that the code under test folded.
pub(super) fn view(call: &Call, outcomes: &[Outcome]) -> View {
    let name = |status: crate::call::Status| status.as_str().to_owned();
    View {
        direction: call.direction.map(|direction| direction.as_str().to_owned()),
        status: name(call.status),
        status_since: call.status_since,
        is_status_since_reported: call.is_status_since_reported,
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
        ended_at: call.ended_at(),
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

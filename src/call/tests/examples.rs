//! The worked examples of the rules, each in every order of arrival.

use super::given::{at, deliver, fold, fold_in, given, orders};
use crate::call::{Attempt, Call, Event, Outcome};

/// What is to be seen of a call.
struct Then {
    status: &'static str,
    /// Each as `A: BUSY`, or as `BUSY` where it has no `call_sid`.
    attempts: &'static [&'static str],
    /// In fold order.
    dispositions: &'static [&'static str],
    anomalies: u32,
    has_errors: bool,
}

impl Then {
    const fn call(status: &'static str, attempts: &'static [&'static str]) -> Self {
        Self { status, attempts, dispositions: &[], anomalies: 0, has_errors: false }
    }

    const fn by(self, dispositions: &'static [&'static str]) -> Self {
        Self { dispositions, ..self }
    }

    const fn marked(self) -> Self {
        Self { anomalies: 1, ..self }
    }

    const fn with_errors(self) -> Self {
        Self { has_errors: true, ..self }
    }

    #[track_caller]
    fn check(&self, (call, outcomes): &(Call, Vec<Outcome>)) {
        let attempts: Vec<String> = call.attempts.iter().map(in_words).collect();
        let dispositions: Vec<&str> = outcomes.iter().map(|it| it.disposition.as_str()).collect();
        assert_eq!(call.status.as_str(), self.status);
        assert_eq!(attempts, self.attempts);
        assert_eq!(dispositions, self.dispositions);
        assert_eq!(call.anomaly_count, self.anomalies);
        assert_eq!(call.has_errors, self.has_errors);
    }
}

fn in_words(attempt: &Attempt) -> String {
    match &attempt.call_sid {
        Some(sid) => format!("{sid}: {}", attempt.status),
        None => attempt.status.to_string(),
    }
}

/// Checks a call that was folded at once, and delivered event by event in every
/// order, each event being received when it was.
#[track_caller]
fn check(events: &[Event], then: &Then) {
    for order in orders(events.len()) {
        let arrivals: Vec<&Event> = order.iter().map(|index| &events[*index]).collect();
        then.check(&fold_in(&arrivals));
        then.check(&deliver(&arrivals));
    }
}

/// The same for events that all say when they happened, in every order of
/// being received too: the first to arrive is received first.
#[track_caller]
fn check_however_received(events: &[Event], then: &Then) {
    assert!(events.iter().all(|event| event.occurred_at.is_some()));
    for order in orders(events.len()) {
        let mut events: Vec<Event> = order.iter().map(|index| events[*index].clone()).collect();
        for (second, event) in (100..).zip(&mut events) {
            event.received_at = at(second);
        }
        then.check(&fold(&events));
        then.check(&deliver(&events.iter().collect::<Vec<_>>()));
    }
}

#[test]
fn a_call_that_goes_all_the_way_advances_with_every_event() {
    check(
        &given(&["PENDING", "REQUESTED", "CALLING", "CLOSING", "COMPLETED"]),
        &Then::call("COMPLETED", &["COMPLETED"]).by(&["advanced"; 5]),
    );
}

#[test]
fn events_that_arrive_in_reverse_are_folded_by_their_times() {
    check_however_received(
        &given(&["COMPLETED @5", "CALLING @3", "PENDING @1"]),
        &Then::call("COMPLETED", &["COMPLETED"]).by(&["advanced"; 3]),
    );
}

#[test]
fn events_that_arrive_in_reverse_and_have_no_times_are_late() {
    check(
        &given(&["COMPLETED", "CALLING", "PENDING"]),
        &Then::call("COMPLETED", &["COMPLETED"]).by(&["advanced", "late", "late"]),
    );
}

#[test]
fn a_call_may_consist_of_its_end_only() {
    check(&given(&["COMPLETED"]), &Then::call("COMPLETED", &["COMPLETED"]).by(&["advanced"]));
}

#[test]
fn another_call_sid_is_another_attempt_in_any_order_of_arrival() {
    check_however_received(
        &given(&["CALLING A @1", "BUSY A @2", "CALLING B @9", "COMPLETED B @12"]),
        &Then::call("COMPLETED", &["A: BUSY", "B: COMPLETED"])
            .by(&["advanced", "advanced", "redialed", "advanced"]),
    );
}

#[test]
fn a_phase_seen_again_after_the_end_is_another_attempt_without_any_call_sid() {
    check_however_received(
        &given(&["CALLING @1", "BUSY @2", "CALLING @9"]),
        &Then::call("CALLING", &["BUSY", "CALLING"]).by(&["advanced", "advanced", "redialed"]),
    );
}

#[test]
fn every_further_outcome_is_another_attempt_without_any_call_sid() {
    check_however_received(
        &given(&["NO_RESPONSE @1", "BUSY @9", "COMPLETED @20"]),
        &Then::call("COMPLETED", &["NO_RESPONSE", "BUSY", "COMPLETED"])
            .by(&["advanced", "redialed", "redialed"]),
    );
}

#[test]
fn the_end_of_redialling_is_the_call_s_and_no_attempt_s() {
    check(
        &given(&["BUSY A", "BUSY B", "MAX_ATTEMPTS_REACHED"]),
        &Then::call("MAX_ATTEMPTS_REACHED", &["A: BUSY", "B: BUSY"])
            .by(&["advanced", "redialed", "advanced"]),
    );
}

#[test]
fn a_call_that_completes_after_an_error_is_completed_with_errors() {
    check(
        &given(&["ERROR A provider=CALLING errors", "COMPLETED A errors"]),
        &Then::call("COMPLETED", &["A: COMPLETED"]).by(&["advanced", "advanced"]).with_errors(),
    );
}

#[test]
fn a_call_that_is_canceled_while_calling_is_marked() {
    check(
        &given(&["CALLING A", "CANCELED"]),
        &Then::call("CANCELED", &["A: CALLING"]).by(&["advanced", "forced"]).marked(),
    );
}

#[test]
fn an_outcome_that_contradicts_a_completed_attempt_marks_the_call() {
    check(
        &given(&["COMPLETED A", "BUSY A"]),
        &Then::call("COMPLETED", &["A: COMPLETED"]).by(&["advanced", "conflicting"]).marked(),
    );
}

#[test]
fn an_inbound_call_may_be_turned_away() {
    check(
        &given(&["CONNECTING", "CONCURRENCY_LIMIT_EXCEEDED"]),
        &Then::call("CONCURRENCY_LIMIT_EXCEEDED", &["CONNECTING"]).by(&["advanced"; 2]),
    );
}

#[test]
fn an_unknown_type_marks_the_call_and_changes_nothing() {
    check(
        &given(&["TRANSFERRED", "CALLING"]),
        &Then::call("CALLING", &["CALLING"]).by(&["unrecognized", "advanced"]).marked(),
    );
}

#[test]
fn the_same_delivery_three_times_is_one_event() {
    let events = given(&["CALLING"]);
    let (call, outcomes) = deliver(&[&events[0], &events[0], &events[0]]);
    assert_eq!(call.event_count, 1);
    Then::call("CALLING", &["CALLING"]).by(&["advanced"]).check(&(call, outcomes));
}

//! The worked examples of the rules, in their order, each in every order of
//! arrival.

use super::given::{at, deliver, fold, fold_in, given, orders};
use crate::call::{Attempt, Call, Event, Outcome, Status};

/// What is expected of a call.
struct Then {
    status: &'static str,
    /// Each as `A: BUSY`, or as `BUSY` where it has no `call_sid`.
    attempts: &'static [&'static str],
    /// In fold order.
    dispositions: &'static [&'static str],
    anomalies: u32,
    has_errors: bool,
    /// Seconds, where the example has them.
    time_in_status: Option<&'static [(Status, i64)]>,
}

impl Then {
    const fn call(status: &'static str, attempts: &'static [&'static str]) -> Self {
        Self {
            status,
            attempts,
            dispositions: &[],
            anomalies: 0,
            has_errors: false,
            time_in_status: None,
        }
    }

    const fn by(self, dispositions: &'static [&'static str]) -> Self {
        Self { dispositions, ..self }
    }

    const fn with_anomaly(self) -> Self {
        Self { anomalies: 1, ..self }
    }

    const fn with_errors(self) -> Self {
        Self { has_errors: true, ..self }
    }

    const fn during(self, time_in_status: &'static [(Status, i64)]) -> Self {
        Self { time_in_status: Some(time_in_status), ..self }
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
        if let Some(expected) = self.time_in_status {
            let seconds =
                call.microseconds_in_status.iter().map(|(it, time)| (*it, time / 1_000_000));
            assert_eq!(seconds.collect::<Vec<_>>(), expected);
        }
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
fn a_status_seen_again_after_the_end_is_another_attempt_without_any_call_sid() {
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
fn the_end_of_redialing_belongs_to_the_call_and_to_no_attempt() {
    check(
        &given(&["BUSY A", "BUSY B", "MAX_ATTEMPTS_REACHED"]),
        &Then::call("MAX_ATTEMPTS_REACHED", &["A: BUSY", "B: BUSY"])
            .by(&["advanced", "redialed", "advanced"]),
    );
}

#[test]
fn a_call_that_is_canceled_while_calling_has_an_anomaly() {
    check(
        &given(&["CALLING A", "CANCELED"]),
        &Then::call("CANCELED", &["A: CALLING"]).by(&["advanced", "forced"]).with_anomaly(),
    );
}

#[test]
fn an_outcome_that_contradicts_a_completed_attempt_is_an_anomaly() {
    check(
        &given(&["COMPLETED A", "BUSY A"]),
        &Then::call("COMPLETED", &["A: COMPLETED"]).by(&["advanced", "conflicting"]).with_anomaly(),
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
fn the_same_delivery_three_times_is_one_event() {
    let events = given(&["CALLING"]);
    let (call, outcomes) = deliver(&[&events[0], &events[0], &events[0]]);
    assert_eq!(call.event_count, 1);
    Then::call("CALLING", &["CALLING"]).by(&["advanced"]).check(&(call, outcomes));
}

#[test]
fn an_unknown_type_changes_nothing_and_is_no_anomaly() {
    check(
        &given(&["TRANSFERRED", "CALLING"]),
        &Then::call("CALLING", &["CALLING"]).by(&["unrecognized", "advanced"]),
    );
}

#[test]
fn an_error_in_a_conversation_that_went_on_is_nonfatal() {
    check_however_received(
        &given(&["CALLING A @1", "ERROR A @5", "CLOSING A @300", "COMPLETED A @301"]),
        &Then::call("COMPLETED", &["A: COMPLETED"])
            .by(&["advanced", "nonfatal", "advanced", "advanced"])
            .with_errors()
            .during(&[(Status::Calling, 299), (Status::Closing, 1)]),
    );
}

#[test]
fn without_times_only_the_outcome_shows_that_the_conversation_went_on() {
    check(
        &given(&["CALLING A", "ERROR A", "CLOSING A", "COMPLETED A"]),
        &Then::call("COMPLETED", &["A: COMPLETED"])
            .by(&["advanced", "nonfatal", "late", "advanced"])
            .with_errors(),
    );
}

#[test]
fn repeated_errors_in_a_conversation_that_went_on_are_all_nonfatal() {
    check_however_received(
        &given(&["CALLING A @1", "ERROR A @5", "ERROR A @6", "COMPLETED A @21"]),
        &Then::call("COMPLETED", &["A: COMPLETED"])
            .by(&["advanced", "nonfatal", "nonfatal", "advanced"])
            .with_errors()
            .during(&[(Status::Calling, 20)]),
    );
}

#[test]
fn an_error_before_a_redial_is_fatal_for_its_attempt() {
    check_however_received(
        &given(&["CALLING A @1", "ERROR A @5", "CALLING B @60", "COMPLETED B @70"]),
        &Then::call("COMPLETED", &["A: ERROR", "B: COMPLETED"])
            .by(&["advanced", "advanced", "redialed", "advanced"])
            .with_errors(),
    );
}

#[test]
fn an_attempt_may_recover_from_the_error_that_it_began_with() {
    check_however_received(
        &given(&["ERROR A @1", "CALLING A @20", "COMPLETED A @21"]),
        &Then::call("COMPLETED", &["A: COMPLETED"])
            .by(&["advanced"; 3])
            .with_errors()
            .during(&[(Status::Calling, 1), (Status::Error, 19)]),
    );
}

#[test]
fn a_dial_that_went_ahead_takes_the_call_out_of_canceled() {
    check_however_received(
        &given(&[
            "PENDING @1",
            "CANCELED @2",
            "CALLING A @3",
            "CLOSING A @300",
            "COMPLETED A @301",
        ]),
        &Then::call("COMPLETED", &["A: COMPLETED"])
            .by(&["advanced", "advanced", "forced", "advanced", "advanced"])
            .with_anomaly()
            .during(&[
                (Status::Pending, 1),
                (Status::Calling, 297),
                (Status::Closing, 1),
                (Status::Canceled, 1),
            ]),
    );
}

#[test]
fn a_call_whose_id_is_used_again_begins_another_attempt() {
    check(
        &given(&[
            "PENDING @1",
            "CALLING A @2",
            "COMPLETED A @5",
            "PENDING @90000",
            "CALLING B @90001",
            "BUSY B @90002",
        ]),
        &Then::call("BUSY", &["A: COMPLETED", "B: BUSY"])
            .by(&["advanced", "advanced", "advanced", "forced", "advanced", "advanced"])
            .with_anomaly(),
    );
}

#[test]
fn a_call_that_is_queued_again_after_the_last_attempt_begins_another() {
    // Seven events have too many orders; the fold in every order is a property.
    let events = given(&[
        "PENDING @1",
        "CALLING A @2",
        "BUSY A @5",
        "MAX_ATTEMPTS_REACHED @6",
        "PENDING @100",
        "CALLING B @101",
        "COMPLETED B @110",
    ]);
    let then = Then::call("COMPLETED", &["A: BUSY", "B: COMPLETED"])
        .by(&["advanced", "advanced", "advanced", "advanced", "forced", "advanced", "advanced"])
        .with_anomaly();
    then.check(&fold(&events));
    then.check(&deliver(&events.iter().rev().collect::<Vec<_>>()));
}

#[test]
fn closing_after_completed_is_late() {
    check_however_received(
        &given(&["CALLING A @1", "COMPLETED A @20", "CLOSING A @21"]),
        &Then::call("COMPLETED", &["A: COMPLETED"]).by(&["advanced", "advanced", "late"]),
    );
}

#[test]
fn an_outcome_that_is_rendered_again_is_no_other_attempt() {
    check_however_received(
        &given(&["CALLING A @1", "NO_RESPONSE @20", "NO_RESPONSE @20", "NO_RESPONSE @20"]),
        &Then::call("NO_RESPONSE", &["A: NO_RESPONSE"])
            .by(&["advanced", "advanced", "repeated", "repeated"]),
    );
}

#[test]
fn another_leg_of_a_conversation_is_no_other_attempt() {
    check_however_received(
        &given(&["CALLING A @1", "CLOSING B @20", "COMPLETED B @21"]),
        &Then::call("COMPLETED", &["A: COMPLETED"]).by(&["advanced"; 3]),
    );
}

#[test]
fn an_attempt_that_never_ended_ends_when_the_next_one_begins() {
    let events = given(&["CALLING A @1", "CALLING B @20", "COMPLETED B @21"]);
    check_however_received(
        &events,
        &Then::call("COMPLETED", &["A: CALLING", "B: COMPLETED"])
            .by(&["advanced", "redialed", "advanced"]),
    );
    assert_eq!(fold(&events).0.attempts[0].ended_at, Some(at(20)));
}

//! Which dial an event is of, by example.

use super::given::{fold, given};

/// The attempts of a call as `A: BUSY` or `BUSY`, and for each of its events
/// what it did and the number of the attempt it counts for.
fn told(lines: &[&str]) -> (Vec<String>, Vec<String>) {
    let (call, outcomes) = fold(&given(lines));
    let attempts = call.attempts.iter().map(|attempt| match &attempt.call_sid {
        Some(sid) => format!("{sid}: {}", attempt.status),
        None => attempt.status.to_string(),
    });
    let events = outcomes.iter().map(|outcome| match outcome.attempt {
        Some(number) => format!("{} {number}", outcome.disposition),
        None => format!("{} -", outcome.disposition),
    });
    (attempts.collect(), events.collect())
}

#[track_caller]
fn check(lines: &[&str], attempts: &[&str], events: &[&str]) {
    let (is_attempts, is_events) = told(lines);
    assert_eq!(is_attempts, attempts);
    assert_eq!(is_events, events);
}

#[test]
fn an_attempt_takes_the_first_call_sid_that_comes_for_it() {
    check(
        &["PENDING", "REQUESTED A", "CALLING", "BUSY A"],
        &["A: BUSY"],
        &["advanced 1", "advanced 1", "advanced 1", "advanced 1"],
    );
    check(&["CALLING", "CALLING A"], &["A: CALLING"], &["advanced 1", "repeated 1"]);
    check(&["CALLING", "PENDING A"], &["A: CALLING"], &["advanced 1", "late 1"]);
}

#[test]
fn what_ends_the_call_gives_no_attempt_its_call_sid() {
    check(&["PENDING", "CANCELED A"], &["PENDING"], &["advanced 1", "advanced -"]);
}

#[test]
fn what_ends_the_call_opens_no_attempt() {
    check(&["CALLING A", "CANCELED B"], &["A: CALLING"], &["advanced 1", "forced -"]);
    check(&["BUSY", "EXPIRED"], &["BUSY"], &["advanced 1", "advanced -"]);
}

#[test]
fn an_event_that_conflicts_or_is_unrecognized_gives_no_attempt_its_call_sid() {
    check(&["COMPLETED", "BUSY A"], &["COMPLETED"], &["advanced 1", "conflicting -"]);
    check(&["CALLING", "TRANSFERRED A"], &["CALLING"], &["advanced 1", "unrecognized -"]);
    check(&["CALLING", "inbound CALLING A"], &["CALLING"], &["advanced 1", "conflicting -"]);
}

#[test]
fn an_event_of_an_attempt_before_the_current_one_is_late_and_counts_for_it() {
    check(
        &["CALLING A", "CALLING B", "NO_RESPONSE A", "CLOSING B"],
        &["A: NO_RESPONSE", "B: CLOSING"],
        &["advanced 1", "redialed 2", "late 1", "advanced 2"],
    );
}

#[test]
fn a_second_outcome_of_an_earlier_attempt_does_not_replace_the_first() {
    check(
        &["BUSY A", "CALLING B", "NO_RESPONSE A"],
        &["A: BUSY", "B: CALLING"],
        &["advanced 1", "redialed 2", "late 1"],
    );
}

#[test]
fn what_would_end_the_call_is_late_where_it_is_of_an_earlier_attempt() {
    check(
        &["BUSY A", "CALLING B", "EXPIRED A"],
        &["A: BUSY", "B: CALLING"],
        &["advanced 1", "redialed 2", "late -"],
    );
}

#[test]
fn an_attempt_under_way_gives_way_to_another_call_sid_but_not_to_a_missing_one() {
    check(
        &["CALLING A", "PENDING B"],
        &["A: CALLING", "B: PENDING"],
        &["advanced 1", "redialed 2"],
    );
    check(&["CALLING A", "PENDING"], &["A: CALLING"], &["advanced 1", "late 1"]);
    check(&["CALLING A", "CALLING"], &["A: CALLING"], &["advanced 1", "repeated 1"]);
}

#[test]
fn a_phase_that_was_skipped_is_late_and_only_the_next_of_its_kind_redials() {
    check(
        &["BUSY", "CALLING", "CALLING"],
        &["BUSY", "CALLING"],
        &["advanced 1", "late 1", "redialed 2"],
    );
    check(
        &["PENDING", "BUSY", "PENDING"],
        &["BUSY", "PENDING"],
        &["advanced 1", "advanced 1", "redialed 2"],
    );
    check(
        &["PENDING", "REQUESTED", "ERROR", "CALLING", "REQUESTED"],
        &["ERROR", "REQUESTED"],
        &["advanced 1", "advanced 1", "advanced 1", "late 1", "redialed 2"],
    );
}

#[test]
fn closing_and_error_are_never_the_next_dial_by_themselves() {
    check(
        &["CLOSING", "BUSY", "CLOSING", "ERROR"],
        &["BUSY"],
        &["advanced 1", "forced 1", "late 1", "late 1"],
    );
    check(&["ERROR", "ERROR"], &["ERROR"], &["advanced 1", "repeated 1"]);
}

#[test]
fn an_error_holds_its_outcome_but_an_outcome_holds_no_other() {
    check(&["ERROR", "BUSY"], &["BUSY"], &["advanced 1", "advanced 1"]);
    check(&["ERROR", "COMPLETED"], &["COMPLETED"], &["advanced 1", "advanced 1"]);
    check(&["BUSY", "BUSY"], &["BUSY", "BUSY"], &["advanced 1", "redialed 2"]);
    check(&["BUSY", "COMPLETED"], &["BUSY", "COMPLETED"], &["advanced 1", "redialed 2"]);
}

#[test]
fn one_unknown_call_sid_is_enough_for_the_phases_to_decide() {
    check(&["BUSY A", "BUSY"], &["A: BUSY", "BUSY"], &["advanced 1", "redialed 2"]);
    check(&["BUSY", "BUSY B"], &["BUSY", "B: BUSY"], &["advanced 1", "redialed 2"]);
    check(
        &["CALLING", "ERROR", "CALLING B"],
        &["ERROR", "B: CALLING"],
        &["advanced 1", "advanced 1", "redialed 2"],
    );
}

#[test]
fn one_call_sid_is_one_dial_whatever_it_goes_through() {
    check(&["BUSY A", "NO_RESPONSE A"], &["A: BUSY"], &["advanced 1", "conflicting -"]);
    check(&["BUSY A", "COMPLETED A"], &["A: COMPLETED"], &["advanced 1", "forced 1"]);
    check(
        &["CALLING A", "BUSY A", "CALLING A"],
        &["A: BUSY"],
        &["advanced 1", "advanced 1", "late 1"],
    );
}

#[test]
fn an_attempt_whose_call_sid_never_came_takes_none_once_the_next_has_begun() {
    check(
        &["CALLING", "BUSY", "CALLING B", "CALLING C", "BUSY", "BUSY B"],
        &["BUSY", "B: BUSY", "C: BUSY"],
        &["advanced 1", "advanced 1", "redialed 2", "redialed 3", "advanced 3", "late 2"],
    );
}

#[test]
fn in_a_final_call_no_attempt_opens() {
    check(&["EXPIRED", "CALLING A"], &[], &["advanced -", "late -"]);
    check(&["COMPLETED A", "CALLING B"], &["A: COMPLETED"], &["advanced 1", "late -"]);
    check(&["COMPLETED A", "COMPLETED B"], &["A: COMPLETED"], &["advanced 1", "repeated -"]);
}

#[test]
fn in_a_final_call_an_event_still_counts_for_its_attempt() {
    check(
        &["CALLING A", "CALLING B", "EXPIRED", "BUSY A", "COMPLETED B"],
        &["A: BUSY", "B: COMPLETED"],
        &["advanced 1", "redialed 2", "forced -", "late 1", "late 2"],
    );
    check(
        &["CALLING", "MAX_ATTEMPTS_REACHED", "BUSY"],
        &["BUSY"],
        &["advanced 1", "advanced -", "late 1"],
    );
    check(
        &["CALLING", "BUSY", "MAX_ATTEMPTS_REACHED", "CALLING", "BUSY"],
        &["BUSY"],
        &["advanced 1", "advanced 1", "advanced -", "late 1", "late 1"],
    );
    check(
        &["BUSY A", "COMPLETED B", "COMPLETED A"],
        &["A: COMPLETED", "B: COMPLETED"],
        &["advanced 1", "redialed 2", "repeated 1"],
    );
}

#[test]
fn in_a_final_call_an_attempt_without_call_sid_takes_one_still() {
    check(
        &["CALLING", "MAX_ATTEMPTS_REACHED", "BUSY A", "NO_RESPONSE B"],
        &["A: BUSY"],
        &["advanced 1", "advanced -", "late 1", "late -"],
    );
}

#[test]
fn an_outcome_contradicts_completed_only_where_it_may_be_of_the_same_attempt() {
    check(&["COMPLETED A", "BUSY"], &["A: COMPLETED"], &["advanced 1", "conflicting -"]);
    check(&["COMPLETED", "BUSY B"], &["COMPLETED"], &["advanced 1", "conflicting -"]);
    check(&["COMPLETED A", "BUSY B"], &["A: COMPLETED"], &["advanced 1", "late -"]);
    check(
        &["CALLING A", "COMPLETED B", "BUSY A"],
        &["A: BUSY", "B: COMPLETED"],
        &["advanced 1", "redialed 2", "late 1"],
    );
    check(
        &["BUSY A", "COMPLETED", "NO_RESPONSE A"],
        &["A: BUSY", "COMPLETED"],
        &["advanced 1", "redialed 2", "late 1"],
    );
}

#[test]
fn an_inbound_call_has_one_attempt_whatever_its_call_sids() {
    check(
        &["inbound CALLING A", "inbound CALLING B", "inbound ERROR", "inbound CALLING"],
        &["A: ERROR"],
        &["advanced 1", "repeated 1", "advanced 1", "late 1"],
    );
    check(
        &["inbound COMPLETED A", "inbound CLOSING B"],
        &["A: COMPLETED"],
        &["advanced 1", "late -"],
    );
}

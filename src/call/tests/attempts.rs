//! Which attempt an event belongs to, by example.

use super::given::{fold, given};

/// The attempts of a call as `A: BUSY` or `BUSY`, and the disposition of each of
/// its events with the number of the attempt it counts for.
fn folded(lines: &[&str]) -> (Vec<String>, Vec<String>) {
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
    let (is_attempts, is_events) = folded(lines);
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
fn an_end_of_the_call_gives_no_attempt_its_call_sid() {
    check(&["PENDING", "CANCELED A"], &["PENDING"], &["advanced 1", "advanced -"]);
}

#[test]
fn an_end_of_the_call_opens_no_attempt() {
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
fn an_end_of_the_call_is_late_if_it_is_of_an_earlier_attempt() {
    check(
        &["BUSY A", "CALLING B", "EXPIRED A"],
        &["A: BUSY", "B: CALLING"],
        &["advanced 1", "redialed 2", "late -"],
    );
}

#[test]
fn a_live_attempt_gives_way_to_another_call_sid_but_not_to_a_missing_one() {
    check(
        &["CALLING A", "PENDING B"],
        &["A: CALLING", "B: PENDING"],
        &["advanced 1", "redialed 2"],
    );
    check(&["CALLING A", "PENDING"], &["A: CALLING"], &["advanced 1", "late 1"]);
    check(&["CALLING A", "CALLING"], &["A: CALLING"], &["advanced 1", "repeated 1"]);
}

#[test]
fn a_status_that_was_skipped_is_late_and_only_the_next_of_its_kind_redials() {
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
fn one_unknown_call_sid_is_enough_for_the_statuses_to_decide() {
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
fn in_a_final_call_a_late_event_opens_no_attempt() {
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
        &["CALLING A", "CALLING B", "COMPLETED B", "BUSY A"],
        &["A: BUSY", "B: COMPLETED"],
        &["advanced 1", "redialed 2", "advanced 2", "late 1"],
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

#[test]
fn another_leg_belongs_to_the_attempt_only_while_that_is_calling_or_closing() {
    check(
        &["CALLING A", "CLOSING B", "CLOSING C", "COMPLETED D"],
        &["A: COMPLETED"],
        &["advanced 1", "advanced 1", "repeated 1", "advanced 1"],
    );
    check(
        &["REQUESTED A", "COMPLETED B"],
        &["A: REQUESTED", "B: COMPLETED"],
        &["advanced 1", "redialed 2"],
    );
    check(
        &["CALLING A", "ERROR A", "COMPLETED B"],
        &["A: ERROR", "B: COMPLETED"],
        &["advanced 1", "advanced 1", "redialed 2"],
    );
    check(
        &["CALLING A", "BUSY B", "COMPLETED A"],
        &["A: COMPLETED", "B: BUSY"],
        &["advanced 1", "redialed 2", "late 1"],
    );
}

#[test]
fn an_outcome_is_rendered_again_only_with_the_same_status_and_the_same_known_time() {
    check(&["BUSY @5", "BUSY @5"], &["BUSY"], &["advanced 1", "repeated 1"]);
    check(&["BUSY @5", "BUSY @6"], &["BUSY", "BUSY"], &["advanced 1", "redialed 2"]);
    check(&["BUSY @5", "NO_RESPONSE @5"], &["BUSY", "NO_RESPONSE"], &["advanced 1", "redialed 2"]);
    check(&["BUSY", "BUSY"], &["BUSY", "BUSY"], &["advanced 1", "redialed 2"]);
    check(&["BUSY received@5", "BUSY @5"], &["BUSY", "BUSY"], &["advanced 1", "redialed 2"]);
}

#[test]
fn an_error_is_left_out_of_the_status_of_an_attempt_that_went_on() {
    check(
        &["CALLING A @1", "ERROR A @2", "CLOSING A @3"],
        &["A: CLOSING"],
        &["advanced 1", "nonfatal 1", "advanced 1"],
    );
    check(
        &["CALLING A @1", "ERROR A @2", "CLOSING A @3", "ERROR A @4"],
        &["A: ERROR"],
        &["advanced 1", "nonfatal 1", "advanced 1", "advanced 1"],
    );
    check(
        &["CLOSING A @1", "ERROR A @2", "CALLING A @3"],
        &["A: ERROR"],
        &["advanced 1", "advanced 1", "late 1"],
    );
    check(
        &["ERROR A @1", "PENDING A @2", "ERROR A @3", "CALLING A @4"],
        &["A: CALLING"],
        &["advanced 1", "advanced 1", "nonfatal 1", "advanced 1"],
    );
}

#[test]
fn an_end_of_the_call_leaves_its_error_as_it_is() {
    check(
        &["CALLING A @1", "ERROR A @2", "EXPIRED @3"],
        &["A: ERROR"],
        &["advanced 1", "advanced 1", "advanced -"],
    );
}

#[test]
fn an_event_shows_that_the_call_went_on_only_if_it_is_later_than_the_latest_error() {
    check(
        &["CALLING A @1", "ERROR A @2", "ERROR A received@8", "CLOSING A @9"],
        &["A: ERROR"],
        &["advanced 1", "advanced 1", "repeated 1", "late 1"],
    );
    check(
        &["CALLING A @1", "ERROR A received@2", "CLOSING A @9"],
        &["A: ERROR"],
        &["advanced 1", "advanced 1", "late 1"],
    );
}

#[test]
fn a_dial_goes_ahead_in_the_attempt_that_was_canceled_unless_its_call_sid_is_another() {
    check(
        &["CALLING A @1", "CANCELED @2", "CLOSING A @3"],
        &["A: CLOSING"],
        &["advanced 1", "forced -", "forced 1"],
    );
    check(
        &["CALLING A @1", "CANCELED @2", "CLOSING B @3"],
        &["A: CALLING", "B: CLOSING"],
        &["advanced 1", "forced -", "forced 2"],
    );
    check(&["EXPIRED @1", "COMPLETED A @2"], &["A: COMPLETED"], &["advanced -", "forced 1"]);
    check(
        &["CALLING A @1", "CALLING B @2", "CANCELED @3", "COMPLETED A @4"],
        &["A: COMPLETED", "B: CALLING"],
        &["advanced 1", "redialed 2", "forced -", "late 1"],
    );
    check(
        &["CALLING A @1", "MAX_ATTEMPTS_REACHED @2", "COMPLETED A @3"],
        &["A: COMPLETED"],
        &["advanced 1", "advanced -", "late 1"],
    );
}

#[test]
fn a_final_call_is_dialed_again_only_by_another_dial_that_is_proven_to_be_later() {
    check(
        &["COMPLETED A @1", "CALLING B @2"],
        &["A: COMPLETED", "B: CALLING"],
        &["advanced 1", "forced 2"],
    );
    check(
        &["COMPLETED A received@1", "CALLING B @2"],
        &["A: COMPLETED"],
        &["advanced 1", "late -"],
    );
    check(
        &["COMPLETED A @1", "CALLING B received@2"],
        &["A: COMPLETED"],
        &["advanced 1", "late -"],
    );
    check(&["COMPLETED A @1", "CALLING A @2"], &["A: COMPLETED"], &["advanced 1", "late 1"]);
    check(&["COMPLETED A @1", "CALLING @2"], &["A: COMPLETED"], &["advanced 1", "late 1"]);
    check(
        &["CALLING A @1", "COMPLETED A @2", "CALLING @3"],
        &["A: COMPLETED", "CALLING"],
        &["advanced 1", "advanced 1", "forced 2"],
    );
    check(
        &["COMPLETED A @1", "CLOSING B @2", "ERROR B @3", "BUSY B @4", "COMPLETED B @5"],
        &["A: COMPLETED"],
        &["advanced 1", "late -", "late -", "late -", "repeated -"],
    );
    check(
        &["CALLING A @1", "CALLING B @2", "COMPLETED B @3", "CALLING A @4"],
        &["A: CALLING", "B: COMPLETED"],
        &["advanced 1", "redialed 2", "advanced 2", "late 1"],
    );
    check(
        &["inbound COMPLETED A @1", "inbound CALLING B @2"],
        &["A: COMPLETED"],
        &["advanced 1", "late -"],
    );
}

#[test]
fn an_attempt_keeps_a_late_status_that_is_higher_than_the_one_in_which_it_went_on() {
    check(
        &["ERROR A received@1", "CLOSING A @2", "ERROR A @3", "CALLING A @4"],
        &["A: CLOSING"],
        &["advanced 1", "late 1", "repeated 1", "advanced 1"],
    );
}

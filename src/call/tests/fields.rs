//! What a call keeps beside its status, by example.

use std::collections::BTreeMap;

use super::given::{at, fold, given};
use crate::call::{Call, Direction, Status};

fn call(lines: &[&str]) -> Call {
    fold(&given(lines)).0
}

fn seconds_in_status(call: &Call) -> Vec<(&'static str, i64)> {
    let in_seconds = |(status, time): (&Status, &i64)| (status.as_str(), time / 1_000_000);
    call.microseconds_in_status.iter().map(in_seconds).collect()
}

#[test]
fn time_is_summed_by_status_and_the_present_status_is_not_counted() {
    let call = call(&[
        "PENDING @0",
        "CALLING A @2",
        "BUSY A @22",
        "CALLING B @82",
        "CLOSING B @90",
        "BUSY C @100",
    ]);
    assert_eq!(
        seconds_in_status(&call),
        [("PENDING", 2), ("CALLING", 28), ("CLOSING", 10), ("BUSY", 60)],
    );
}

#[test]
fn only_events_that_change_the_status_end_a_time() {
    let call = call(&[
        "CALLING A @0",
        "CALLING A @1",
        "REQUESTED A @2",
        "inbound CLOSING @3",
        "TRANSFERRED @4",
        "COMPLETED A @10",
        "BUSY A @20",
    ]);
    assert_eq!(seconds_in_status(&call), [("CALLING", 10)]);
}

#[test]
fn a_redial_from_one_status_into_the_same_ends_a_time() {
    let call = call(&["BUSY @0", "BUSY @5", "BUSY @12"]);
    assert_eq!(seconds_in_status(&call), [("BUSY", 12)]);
    assert_eq!(call.status_since, Some(at(12)));
}

#[test]
fn a_status_that_was_left_at_once_has_a_time_of_zero() {
    let call = call(&["PENDING @3", "CALLING @3"]);
    assert_eq!(call.microseconds_in_status, BTreeMap::from([(Status::Pending, 0)]));
}

#[test]
fn the_time_before_the_first_known_event_counts_for_no_status() {
    let call = call(&["TRANSFERRED @0", "CALLING @5", "CLOSING @6"]);
    assert_eq!(seconds_in_status(&call), [("CALLING", 1)]);
}

#[test]
fn the_first_and_the_last_event_are_so_by_when_they_happened_whatever_they_did() {
    let call = call(&["CALLING @5", "TRANSFERRED @1", "COMPLETED @7", "inbound CALLING @9"]);
    assert_eq!((call.first_event_at, call.last_event_at()), (at(1), at(9)));
    assert_eq!(call.last.effective_at, at(9));
}

#[test]
fn an_event_without_a_time_happened_when_it_was_received() {
    let call = call(&["CALLING @5", "CLOSING received@7", "COMPLETED @9 received@8"]);
    assert_eq!(seconds_in_status(&call), [("CALLING", 2), ("CLOSING", 2)]);
    assert_eq!(call.last_event_at(), at(9));
}

#[test]
fn a_call_was_updated_when_the_newest_of_its_events_was_received() {
    let call =
        call(&["COMPLETED @9 received@20", "CALLING @5 received@50", "CLOSING @7 received@30"]);
    assert_eq!(call.updated_at, at(50));
}

#[test]
fn a_live_call_has_not_ended() {
    for live in ["TRANSFERRED", "PENDING", "REQUESTED", "CALLING", "CLOSING", "CONNECTING"] {
        assert_eq!(call(&[live]).ended_at(), None);
    }
    assert_eq!(call(&["CALLING A @1", "BUSY A @2", "CALLING B @3"]).ended_at(), None);
}

#[test]
fn a_call_ended_when_the_event_happened_that_brought_its_terminal_status() {
    assert_eq!(call(&["CALLING A @1", "BUSY A @2"]).ended_at(), Some(at(2)));
    assert_eq!(call(&["BUSY A @2", "BUSY A @3", "CLOSING A @4"]).ended_at(), Some(at(2)));
    assert_eq!(call(&["ERROR A @2", "COMPLETED A @3", "ERROR A @4"]).ended_at(), Some(at(3)));
    assert_eq!(call(&["BUSY @2", "BUSY @3"]).ended_at(), Some(at(3)));
    assert_eq!(call(&["BUSY A @2", "EXPIRED @8", "CANCELED @9"]).ended_at(), Some(at(8)));
}

#[test]
fn an_attempt_lasts_from_its_first_event_to_that_of_its_ended_status() {
    let call = call(&[
        "PENDING @1",
        "CALLING A @3",
        "ERROR A @5",
        "NO_RESPONSE A @8",
        "BUSY A @9",
        "CALLING B @20",
    ]);
    let times: Vec<_> = call.attempts.iter().map(|it| (it.started_at, it.ended_at)).collect();
    assert_eq!(times, [(at(1), Some(at(8))), (at(20), None)]);
}

#[test]
fn an_attempt_without_an_ended_status_ends_when_the_next_one_begins() {
    let call = call(&["CALLING A @1", "CALLING B @20"]);
    let times: Vec<_> = call.attempts.iter().map(|it| (it.started_at, it.ended_at)).collect();
    assert_eq!(times, [(at(1), Some(at(20))), (at(20), None)]);
}

#[test]
fn the_outcome_of_an_attempt_that_arrives_after_the_next_began_gives_its_end() {
    let call = call(&["CALLING A @1", "CALLING B @20", "BUSY A @25"]);
    assert_eq!(call.attempts[0].ended_at, Some(at(25)));
}

#[test]
fn it_is_known_whether_times_are_by_the_provider_s_clock() {
    let reported = call(&["BUSY A @5"]);
    assert!(reported.is_status_since_reported && !reported.attempts[0].is_end_by_receipt);
    let received = call(&["BUSY A"]);
    assert!(!received.is_status_since_reported && received.attempts[0].is_end_by_receipt);
    assert!(!call(&["TRANSFERRED @1"]).is_status_since_reported);
}

#[test]
fn an_error_that_the_call_went_on_from_leaves_no_trace_in_its_times() {
    let call = call(&["CALLING A @1", "ERROR A @5", "CALLING A @9"]);
    assert_eq!((call.status, call.status_since), (Status::Calling, Some(at(1))));
    assert_eq!(call.microseconds_in_status, BTreeMap::new());
    assert_eq!(call.ended_at(), None);
    assert_eq!(call.attempts[0].ended_at, None);
}

#[test]
fn an_attempt_ends_by_an_event_that_is_late_for_the_call() {
    let call = call(&["CALLING A @1", "MAX_ATTEMPTS_REACHED @5", "BUSY A @7"]);
    assert_eq!(call.ended_at(), Some(at(5)));
    assert_eq!(call.attempts[0].status, Status::Busy);
    assert_eq!(call.attempts[0].ended_at, Some(at(7)));
}

#[test]
fn the_client_and_the_provider_s_status_are_those_of_the_last_event_that_has_them() {
    let call = call(&[
        "CALLING @1 client=x provider=CALLING",
        "COMPLETED @9",
        "CLOSING @5 client=y",
        "inbound ERROR @7 provider=FAILED",
    ]);
    assert_eq!(call.client_id.unwrap().as_str(), "y");
    assert_eq!(call.provider_status.as_deref(), Some("FAILED"));
}

#[test]
fn errors_count_whatever_became_of_the_event_that_has_them() {
    for with_errors in ["TRANSFERRED errors", "inbound CALLING errors", "PENDING errors"] {
        let call = call(&["COMPLETED", with_errors]);
        assert_eq!((call.status, call.has_errors), (Status::Completed, true));
    }
    assert!(call(&["ERROR errors", "COMPLETED"]).has_errors);
    assert!(call(&["ERROR"]).has_errors);
    assert!(call(&["COMPLETED", "inbound ERROR"]).has_errors);
    assert!(!call(&["BUSY"]).has_errors);
}

#[test]
fn the_call_sid_is_that_of_the_current_attempt() {
    let sid = |lines: &[&str]| call(lines).call_sid().map(|sid| sid.as_str().to_owned());
    assert_eq!(sid(&["CALLING A", "CALLING B", "BUSY A"]).as_deref(), Some("B"));
    assert_eq!(sid(&["BUSY A", "BUSY"]), None);
    assert_eq!(sid(&["CANCELED A"]), None);
}

#[test]
fn the_direction_is_that_of_the_first_known_event() {
    assert_eq!(call(&["TRANSFERRED"]).direction, None);
    assert_eq!(call(&["inbound CALLING", "PENDING"]).direction, Some(Direction::Inbound));
    assert_eq!(call(&["TRANSFERRED", "PENDING"]).direction, Some(Direction::Outbound));
}

#[test]
fn among_events_of_one_moment_the_higher_rank_comes_later_and_an_unknown_type_first() {
    let events = given(&["COMPLETED @1", "CALLING @1", "TRANSFERRED @1"]);
    let (call, outcomes) = fold(&events);
    let dispositions: Vec<_> = outcomes.iter().map(|it| it.disposition.as_str()).collect();
    assert_eq!(dispositions, ["unrecognized", "advanced", "advanced"]);
    assert_eq!(call.status, Status::Completed);
}

#[test]
fn among_events_of_one_moment_and_rank_the_fingerprint_decides() {
    let mut events = given(&["BUSY A @1", "NO_RESPONSE A @1"]);
    assert_eq!(fold(&events).0.status, Status::Busy);
    let (first, second) = (events[0].fingerprint, events[1].fingerprint);
    (events[0].fingerprint, events[1].fingerprint) = (second, first);
    assert_eq!(fold(&events).0.status, Status::NoResponse);
}

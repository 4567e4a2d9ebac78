//! The sentence of every reason, for review.

use std::{collections::BTreeSet, fmt::Write as _};

use super::given::{fold, given};
use crate::call::{Reason, ReasonCode, Status};

/// Each with the event that it is about, by its index in the given order; the
/// last one if there is no index.
const SCENARIOS: &[(&str, &[&str], Option<usize>)] = &[
    ("the call begins", &["PENDING"], None),
    ("it begins at its end", &["COMPLETED"], None),
    ("a step forward", &["PENDING", "CALLING"], None),
    ("a step forward in a later attempt", &["BUSY A", "REQUESTED B", "CALLING B"], None),
    ("a step forward in another leg", &["CALLING A", "CLOSING B"], None),
    ("the first known event", &["TRANSFERRED", "CALLING"], None),
    ("an attempt that began with an error recovers", &["ERROR A @1", "CALLING A @2"], None),
    (
        "an attempt that began with an error has an outcome",
        &["BUSY A", "ERROR B", "NO_RESPONSE B"],
        None,
    ),
    ("an error in a conversation", &["CALLING A @1", "ERROR A @2", "CLOSING A @3"], Some(1)),
    ("a step after it", &["CALLING A @1", "ERROR A @2", "CLOSING A @3"], None),
    ("a step after it without a time", &["CALLING A", "ERROR A", "CLOSING A"], None),
    ("a forced step after it", &["CLOSING A @1", "ERROR A @2", "BUSY A @3"], None),
    ("the same status after it", &["CALLING A @1", "ERROR A @2", "CALLING A @3"], None),
    ("a lower status after it", &["CLOSING A @1", "ERROR A @2", "CALLING A @3"], None),
    ("the call ends after an attempt", &["BUSY A", "BUSY B", "MAX_ATTEMPTS_REACHED"], None),
    ("the call ends after an error", &["CALLING A", "ERROR A", "EXPIRED"], None),
    ("canceled while it rings", &["CALLING A", "CANCELED"], None),
    ("busy after closing", &["CLOSING A", "BUSY A"], None),
    ("completed after an outcome of a later attempt", &["BUSY A", "BUSY B", "COMPLETED B"], None),
    ("the dial went ahead", &["PENDING @1", "CANCELED @2", "CALLING A @3"], None),
    ("completed after it expired", &["CALLING A @1", "EXPIRED @2", "COMPLETED A @3"], None),
    ("another dial after the end", &["COMPLETED A @1", "CALLING B @2"], None),
    ("queued again after the end", &["PENDING @1", "MAX_ATTEMPTS_REACHED @2", "PENDING @3"], None),
    ("another dial", &["CALLING A", "CALLING B"], None),
    ("a status of a dial for the second time", &["CALLING", "BUSY", "CALLING"], None),
    ("the same with a call_sid", &["CALLING", "BUSY", "CALLING B"], None),
    ("a second outcome", &["NO_RESPONSE", "BUSY"], None),
    ("a second outcome, without a call_sid", &["NO_RESPONSE A", "BUSY"], None),
    ("a third dial, completed", &["NO_RESPONSE", "BUSY", "COMPLETED"], None),
    ("the same again", &["CALLING", "CALLING"], None),
    ("the same outcome at the same time", &["CALLING A @1", "BUSY @2", "BUSY @2"], None),
    ("the same again in a final call", &["BUSY A", "COMPLETED B", "COMPLETED A"], None),
    ("a status that was skipped", &["CLOSING", "CALLING"], None),
    ("after the call ended", &["COMPLETED", "CALLING"], None),
    ("an outcome after the call ended", &["BUSY A", "MAX_ATTEMPTS_REACHED", "BUSY A"], None),
    ("of an earlier attempt", &["CALLING A", "CALLING B", "CALLING C", "BUSY A"], None),
    ("the end of the call, of an earlier attempt", &["BUSY A", "CALLING B", "EXPIRED A"], None),
    (
        "of an earlier attempt after the call ended",
        &["BUSY A", "COMPLETED B", "NO_RESPONSE A"],
        None,
    ),
    ("of an unknown dial after the call ended", &["COMPLETED A", "BUSY B"], None),
    ("an inbound event of an outbound call", &["PENDING", "inbound CALLING"], None),
    ("an outbound event of an inbound call", &["CONNECTING", "PENDING"], None),
    ("two outcomes of one dial", &["NO_RESPONSE A", "BUSY A"], None),
    ("two outcomes of a later dial", &["BUSY A", "NO_RESPONSE B", "BUSY B"], None),
    ("an outcome of a completed dial", &["COMPLETED A", "BUSY A"], None),
    ("two ends of a call", &["EXPIRED", "CANCELED"], None),
    ("an unknown type", &["TRANSFERRED"], None),
];

#[test]
fn the_reasons_are_as_reviewed() {
    let mut review = String::new();
    let mut codes = BTreeSet::new();
    for (title, lines, index) in SCENARIOS {
        let events = given(lines);
        let index = index.unwrap_or(lines.len() - 1);
        let outcome = fold(&events).1[index];
        let story = lines.join(", ");
        let sentence = outcome.reason.sentence(events[index].status(), outcome.attempt);
        writeln!(review, "{title}: {story}").unwrap();
        writeln!(review, "    {} ({}): {sentence}", outcome.disposition, outcome.reason.code)
            .unwrap();
        codes.insert(outcome.reason.code);
    }
    insta::assert_snapshot!(review);
    let all: BTreeSet<ReasonCode> = ReasonCode::ALL.iter().copied().collect();
    assert_eq!(codes, all, "a scenario for each code");
}

#[test]
fn a_sentence_is_its_template_with_the_four_values_in_place() {
    let reason =
        Reason { code: ReasonCode::SecondOutcome, status: Some(Status::Busy), attempt: Some(2) };
    assert_eq!(
        reason.sentence(Status::Completed, Some(3)),
        "attempt 2 had ended as BUSY, so COMPLETED is the outcome of attempt 3",
    );
}

#[test]
fn a_template_has_no_other_placeholders_than_the_four() {
    for code in ReasonCode::ALL {
        let mut rest = code.template().to_owned();
        for placeholder in ["{status}", "{event_status}", "{attempt}", "{event_attempt}"] {
            rest = rest.replace(placeholder, "");
        }
        assert!(!rest.contains(['{', '}', '_']) || rest.contains("call_sid"), "{code}: {rest}");
    }
}

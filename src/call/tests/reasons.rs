//! Every sentence that an event may be given, for review.

use std::fmt::Write as _;

use super::given::{fold, given};

/// Each with what its last event shows.
const SCENARIOS: &[(&str, &[&str])] = &[
    ("the call begins", &["PENDING"]),
    ("it begins at its end", &["COMPLETED"]),
    ("a step forward", &["PENDING", "CALLING"]),
    ("a step forward in a later attempt", &["BUSY A", "REQUESTED B", "CALLING B"]),
    ("the first known event", &["TRANSFERRED", "CALLING"]),
    ("an error is resolved", &["ERROR A", "COMPLETED A"]),
    ("an error is resolved in a later attempt", &["BUSY A", "ERROR B", "NO_RESPONSE B"]),
    ("the call ends after an attempt", &["BUSY A", "BUSY B", "MAX_ATTEMPTS_REACHED"]),
    ("the call ends after an error", &["ERROR A", "EXPIRED"]),
    ("canceled while under way", &["CALLING A", "CANCELED"]),
    ("busy after closing", &["CLOSING A", "BUSY A"]),
    ("completed after an outcome of a later attempt", &["BUSY A", "BUSY B", "COMPLETED B"]),
    ("another dial", &["CALLING A", "CALLING B"]),
    ("a phase seen twice", &["CALLING", "BUSY", "CALLING"]),
    ("a phase seen twice, then with a call_sid", &["CALLING", "BUSY", "CALLING B"]),
    ("a second outcome", &["NO_RESPONSE", "BUSY"]),
    ("a second outcome, without a call_sid", &["NO_RESPONSE A", "BUSY"]),
    ("a third dial, completed", &["NO_RESPONSE", "BUSY", "COMPLETED"]),
    ("said again", &["CALLING", "CALLING"]),
    ("said again of a call that is over", &["BUSY A", "COMPLETED B", "COMPLETED A"]),
    ("a phase that was skipped", &["CLOSING", "CALLING"]),
    ("a phase after the call is over", &["COMPLETED", "CALLING"]),
    ("an outcome after the call is over", &["BUSY A", "MAX_ATTEMPTS_REACHED", "BUSY A"]),
    ("of an earlier attempt", &["CALLING A", "CALLING B", "CALLING C", "BUSY A"]),
    ("the end of the call, of an earlier attempt", &["BUSY A", "CALLING B", "EXPIRED A"]),
    ("of an earlier attempt after the call is over", &["BUSY A", "COMPLETED B", "NO_RESPONSE A"]),
    ("of an unknown dial after the call is over", &["COMPLETED A", "BUSY B"]),
    ("the other direction", &["PENDING", "inbound CALLING"]),
    ("the other direction, the other way round", &["CONNECTING", "PENDING"]),
    ("two outcomes of one dial", &["NO_RESPONSE A", "BUSY A"]),
    ("two outcomes of one later dial", &["BUSY A", "NO_RESPONSE B", "BUSY B"]),
    ("an outcome of a completed dial", &["COMPLETED A", "BUSY A"]),
    ("two ends of a call", &["EXPIRED", "CANCELED"]),
    ("an unknown type", &["TRANSFERRED"]),
];

#[test]
fn the_reasons_are_as_reviewed() {
    let mut review = String::new();
    for (title, lines) in SCENARIOS {
        let (_, outcomes) = fold(&given(lines));
        let outcome = outcomes.last().unwrap();
        let story = lines.join(", ");
        writeln!(review, "{title}: {story}\n    {}: {}", outcome.disposition, outcome.reason)
            .unwrap();
    }
    insta::assert_snapshot!(review);
}

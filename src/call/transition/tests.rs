//! The whole table for review, and the same rules in other words.

use std::fmt::Write as _;

use super::*;
use crate::call::KnownEvent;

const LIVE: [Status; 5] =
    [Status::Pending, Status::Requested, Status::Connecting, Status::Calling, Status::Closing];

fn facts(relation: Relation, order: Order) -> Facts {
    Facts { relation, order, interrupted: None }
}

/// Every status of a call, those that an ERROR interrupted included.
fn columns() -> Vec<(Status, Option<Status>)> {
    let statuses = Status::ALL.iter().map(|status| (*status, None));
    statuses.chain(LIVE.map(|interrupted| (Status::Error, Some(interrupted)))).collect()
}

/// Every status × every event type, the unknown one included, for each relation
/// and order. `E-CALL` is a call in ERROR that interrupted CALLING.
#[test]
fn the_whole_matrix_is_as_reviewed() {
    let short = |name: &str| name.replace('_', "").chars().take(4).collect::<String>();
    let mut matrix = String::new();
    for relation in Relation::ALL.iter().copied() {
        for order in Order::ALL.iter().copied() {
            write!(matrix, "{:<39}", format!("{relation}, {order}")).unwrap();
            for (status, interrupted) in columns() {
                let head = interrupted.map_or_else(
                    || short(status.as_str()),
                    |it| format!("E-{}", short(it.as_str())),
                );
                write!(matrix, " {head}").unwrap();
            }
            let known = KnownEvent::ALL.iter().map(|event| (event.as_str(), event.status()));
            for (name, event) in known.chain([("(any other)", Status::Unknown)]) {
                write!(matrix, "\n{name:<39}").unwrap();
                for (status, interrupted) in columns() {
                    let disposition =
                        transition(status, event, Facts { relation, order, interrupted });
                    let width = if interrupted.is_some() { 6 } else { 4 };
                    write!(matrix, " {:<width$}", short(disposition.as_str())).unwrap();
                }
                matrix.truncate(matrix.trim_end().len());
            }
            matrix.push_str("\n\n");
        }
    }
    insta::assert_snapshot!(matrix);
}

/// The table against the same rules by rank, without proof of order.
#[test]
fn the_table_follows_the_ranks() {
    use Disposition::{Advanced, Conflicting, Forced, Late, Repeated};

    for call in Status::ALL.iter().copied() {
        for event in KnownEvent::ALL.iter().map(|event| event.status()) {
            let by_rank = if call == event {
                Repeated
            } else if call.is_final() {
                let contradicts = event.rank() == Status::Canceled.rank()
                    || (call == Status::Completed && event.rank() == Status::Busy.rank());
                if contradicts { Conflicting } else { Late }
            } else if event.rank() == call.rank() {
                Conflicting
            } else if event.rank() < call.rank() {
                Late
            } else if is_undescribed(call, event) {
                Forced
            } else {
                Advanced
            };
            let facts = facts(Relation::Current, Order::Unproven);
            assert_eq!(transition(call, event, facts), by_rank, "{event} in a call that is {call}");
        }
    }
}

fn is_undescribed(call: Status, event: Status) -> bool {
    let no_answer = Status::Busy.rank();
    match event {
        Status::Canceled => !matches!(call, Status::Unknown | Status::Pending),
        Status::Expired => matches!(call, Status::Calling | Status::Closing),
        Status::Completed => call.rank() == no_answer,
        _ => event.rank() == no_answer && call == Status::Closing,
    }
}

#[test]
fn a_final_status_is_left_only_with_proof_of_order_and_by_force() {
    for relation in Relation::ALL.iter().copied() {
        for call in Status::ALL.iter().copied().filter(|status| status.is_final()) {
            for event in Status::ALL.iter().copied() {
                let unproven = transition(call, event, facts(relation, Order::Unproven));
                assert!(!unproven.changes_status(), "{event} in {call}");
                let after = transition(call, event, facts(relation, Order::After));
                assert!(after == unproven || after == Disposition::Forced, "{event} in {call}");
            }
        }
    }
}

#[test]
fn order_matters_in_final_statuses_and_in_error_only() {
    for relation in Relation::ALL.iter().copied() {
        for call in Status::ALL.iter().copied() {
            if call.is_final() || call == Status::Error {
                continue;
            }
            for event in Status::ALL.iter().copied() {
                let by = |order| transition(call, event, facts(relation, order));
                assert_eq!(by(Order::Unproven), by(Order::After), "{event} in {call}");
            }
        }
    }
}

#[test]
fn the_table_gives_nonfatal_to_no_event_since_only_a_later_one_shows_it() {
    for relation in Relation::ALL.iter().copied() {
        for order in Order::ALL.iter().copied() {
            for (call, interrupted) in columns() {
                for event in Status::ALL.iter().copied() {
                    let disposition =
                        transition(call, event, Facts { relation, order, interrupted });
                    assert_ne!(disposition, Disposition::Nonfatal);
                }
            }
        }
    }
}

//! The index partitions that lists are read from.
//!
//! A row of `calls` is updated by each event, nearly always in place (HOT), which
//! ends where an indexed column changes. So the indexes of lists begin with a
//! number that changes about once in the life of a call and stands in for what
//! filters select by: the outcome, the direction, errors and anomalies.

use std::collections::BTreeSet;

use crate::call::{Call, Direction, KnownEvent, Status};

/// A partition of the indexes of lists: the column `list_partition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPartition {
    /// The status where it is terminal; `PENDING` for live statuses, `UNKNOWN` for itself.
    pub outcome: Status,
    /// Whether its calls are inbound.
    pub is_inbound: bool,
    /// Whether its calls have errors.
    pub has_errors: bool,
    /// Whether its calls have anomalies.
    pub is_anomalous: bool,
}

/// Every partition that a call can be in.
pub fn all() -> impl Iterator<Item = ListPartition> {
    let known = KnownEvent::ALL
        .iter()
        .map(|event| (outcome(event.status()), event.direction() == Direction::Inbound));
    let kinds: BTreeSet<(Status, bool)> = known.chain([(Status::Unknown, false)]).collect();
    kinds.into_iter().flat_map(|(outcome, is_inbound)| {
        [(false, false), (true, false), (false, true), (true, true)].map(
            |(has_errors, is_anomalous)| ListPartition {
                outcome,
                is_inbound,
                has_errors,
                is_anomalous,
            },
        )
    })
}

/// The outcome by which a call in a status is indexed.
#[must_use]
pub fn outcome(status: Status) -> Status {
    if status.is_terminal() || status == Status::Unknown { status } else { Status::Pending }
}

impl ListPartition {
    /// The partition of a call.
    #[must_use]
    pub fn of(call: &Call) -> Self {
        Self {
            outcome: outcome(call.status),
            is_inbound: call.direction == Some(Direction::Inbound),
            has_errors: call.has_errors,
            is_anomalous: call.anomaly_count > 0,
        }
    }

    /// Whether calls in a status are in it.
    #[must_use]
    pub fn contains(self, status: Status) -> bool {
        outcome(status) == self.outcome
    }

    /// The direction of its calls; `None` where that is unknown.
    #[must_use]
    pub fn direction(self) -> Option<Direction> {
        match (self.outcome, self.is_inbound) {
            (Status::Unknown, _) => None,
            (_, true) => Some(Direction::Inbound),
            (_, false) => Some(Direction::Outbound),
        }
    }

    /// The number in the column `list_partition`.
    #[must_use]
    pub fn number(self) -> i16 {
        8 * self.outcome.id()
            + i16::from(self.is_inbound)
            + 2 * i16::from(self.has_errors)
            + 4 * i16::from(self.is_anomalous)
    }
}

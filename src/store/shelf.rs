//! How calls stand in the indexes that lists are read from: on shelves, by the
//! few things that filters tell apart.
//!
//! The twin of the columns `outcome` and `marks`, to which a test of the schema
//! holds this one. A shelf is made of nothing that changes with every event, for
//! that would write an entry in each index for each.

use crate::call::{Direction, KnownEvent, Status};

/// A part of each of these indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shelf {
    /// The status where it is terminal; `PENDING` while the call is under way,
    /// `UNKNOWN` while nothing is known of it.
    pub outcome: Status,
    /// Whether the party called.
    pub is_inbound: bool,
    /// Whether any event carried errors.
    pub has_errors: bool,
    /// Whether there are anomalies.
    pub is_anomalous: bool,
}

/// All shelves on which a call may stand.
pub fn all() -> impl Iterator<Item = Shelf> {
    let known = KnownEvent::ALL
        .iter()
        .map(|event| (outcome(event.status()), event.direction() == Direction::Inbound));
    let mut kinds: Vec<(Status, bool)> = known.chain([(Status::Unknown, false)]).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.into_iter().flat_map(|(outcome, is_inbound)| {
        [(false, false), (true, false), (false, true), (true, true)].map(
            |(has_errors, is_anomalous)| Shelf { outcome, is_inbound, has_errors, is_anomalous },
        )
    })
}

/// What a call that stands so has come to.
#[must_use]
pub fn outcome(status: Status) -> Status {
    if status.is_terminal() || status == Status::Unknown { status } else { Status::Pending }
}

impl Shelf {
    /// Whether calls that stand so are on it.
    #[must_use]
    pub fn holds(self, status: Status) -> bool {
        outcome(status) == self.outcome
    }

    /// Who dialled its calls; `None` where that is not known.
    #[must_use]
    pub fn direction(self) -> Option<Direction> {
        match (self.outcome, self.is_inbound) {
            (Status::Unknown, _) => None,
            (_, true) => Some(Direction::Inbound),
            (_, false) => Some(Direction::Outbound),
        }
    }

    /// As the column `marks` has it.
    #[must_use]
    pub fn marks(self) -> i16 {
        i16::from(self.is_inbound)
            + 2 * i16::from(self.has_errors)
            + 4 * i16::from(self.is_anomalous)
    }
}

//! The state machine's table: what an event does to a call.
//!
//! [`transition`] is total and pure. It is written out, status by status, with
//! no catch-all arm: the compiler asks for every event in a new status and for
//! a new status everywhere. Its whole matrix is a snapshot test, so that a
//! change shows in review.
//!
//! Some facts need more of the call than its status. They are computed before
//! ([`Facts`]) and passed in: the relation of the event to the attempts, the
//! proof that it happened later, and the status that an ERROR interrupted.

use super::{name::named, status::Status};

named! {
    /// What the state machine did with an event.
    pub enum Disposition as "disposition" {
        /// The call took a step forward.
        Advanced = "advanced",
        /// The call took a step that the provider does not describe. The
        /// provider is the authority, so the call follows.
        Forced = "forced",
        /// Another attempt began.
        Redialed = "redialed",
        /// The call had this status already.
        Repeated = "repeated",
        /// The call, or the attempt, was already further.
        Late = "late",
        /// The event contradicts the call; the status stays.
        Conflicting = "conflicting",
        /// The type is not one of the 18; the status stays.
        Unrecognized = "unrecognized",
        /// An ERROR that changed nothing: a later event shows that the call went on.
        Nonfatal = "nonfatal",
    }
}

impl Disposition {
    /// Whether the event gave the call its status.
    #[must_use]
    pub const fn changes_status(self) -> bool {
        match self {
            Self::Advanced | Self::Forced | Self::Redialed => true,
            Self::Repeated
            | Self::Late
            | Self::Conflicting
            | Self::Unrecognized
            | Self::Nonfatal => false,
        }
    }

    /// Whether the event is counted among the call's anomalies.
    #[must_use]
    pub const fn is_anomaly(self) -> bool {
        match self {
            Self::Forced | Self::Conflicting => true,
            Self::Advanced
            | Self::Redialed
            | Self::Repeated
            | Self::Late
            | Self::Unrecognized
            | Self::Nonfatal => false,
        }
    }

    /// The disposition explained in one line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Advanced => "the call took a step forward",
            Self::Forced => "the call took a step that the provider does not describe",
            Self::Redialed => "another attempt began",
            Self::Repeated => "the call had this status already",
            Self::Late => "the call, or the attempt, was already further",
            Self::Conflicting => "the event contradicts the call; the status stays",
            Self::Unrecognized => "the type is not one of the 18; the status stays",
            Self::Nonfatal => {
                "an ERROR that changed nothing: a later event shows that the call went on"
            }
        }
    }
}

named! {
    /// How an event relates to the attempts of its call.
    pub enum Relation as "relation" {
        /// It belongs to the current attempt, or nothing indicates another one.
        Current = "current",
        /// Its `call_sid` is that of an attempt before the current one.
        Earlier = "earlier",
        /// It starts another attempt. In a final call this counts only if the
        /// event happened later.
        Next = "next",
        /// No attempt has its `call_sid`, and by itself it starts none: another
        /// leg of the conversation, or an event that no dial starts with.
        Foreign = "foreign",
        /// It is an inbound event of an outbound call, or the reverse.
        Opposite = "opposite",
    }
}

impl Relation {
    /// The relation explained in one line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Current => "of the current attempt, or nothing indicates another one",
            Self::Earlier => "its call_sid is that of an attempt before the current one",
            Self::Next => {
                "it starts another attempt: another call_sid, or a status that the attempt cannot have again"
            }
            Self::Foreign => "no attempt has its call_sid, and by itself it starts none",
            Self::Opposite => {
                "an inbound event of an outbound call, or the reverse: always conflicting"
            }
        }
    }
}

named! {
    /// Whether the provider's clock proves that an event happened after the one
    /// that gave the call its status (after the latest ERROR in a call in ERROR).
    pub enum Order as "order" {
        /// One of the two times is unknown, or the event is not later.
        Unproven = "unproven",
        /// Both times are known, and the event is later.
        After = "after",
    }
}

impl Order {
    /// The order explained in one line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Unproven => "one of the two times is unknown, or the event is not later",
            Self::After => "it happened after the event that gave the call its status",
        }
    }
}

/// What decides beside the two statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// How the event relates to the attempts.
    pub relation: Relation,
    /// Whether it is proven to have happened later.
    pub order: Order,
    /// For a call in ERROR: the status that the ERROR interrupted; `None` if
    /// the ERROR opened the attempt.
    pub interrupted: Option<Status>,
}

/// What an event that reports `event` does to a call in status `call`.
#[must_use]
#[expect(clippy::too_many_lines, reason = "the table is in one place")]
pub fn transition(call: Status, event: Status, facts: Facts) -> Disposition {
    use Disposition::{Advanced, Conflicting, Forced, Late, Redialed, Repeated, Unrecognized};
    use Status as S;

    if event == S::Unknown {
        return Unrecognized;
    }
    match facts.relation {
        Relation::Opposite => return Conflicting,
        Relation::Earlier if !call.is_final() => return Late,
        Relation::Next if !call.is_final() => return Redialed,
        Relation::Current | Relation::Earlier | Relation::Next | Relation::Foreign => {}
    }

    match call {
        S::Unknown => match event {
            S::Unknown => Unrecognized,
            S::Pending
            | S::Requested
            | S::Connecting
            | S::Calling
            | S::Closing
            | S::Error
            | S::NoResponse
            | S::Busy
            | S::Unreachable
            | S::Completed
            | S::Canceled
            | S::Expired
            | S::MaxAttemptsReached
            | S::ConcurrencyLimitExceeded => Advanced,
        },
        S::Pending => match event {
            S::Unknown => Unrecognized,
            S::Pending => Repeated,
            S::Requested
            | S::Connecting
            | S::Calling
            | S::Closing
            | S::Error
            | S::NoResponse
            | S::Busy
            | S::Unreachable
            | S::Completed
            | S::Canceled
            | S::Expired
            | S::MaxAttemptsReached
            | S::ConcurrencyLimitExceeded => Advanced,
        },
        S::Requested | S::Connecting => match event {
            S::Unknown => Unrecognized,
            S::Pending => Late,
            S::Requested | S::Connecting => same_or(Conflicting, call, event),
            S::Calling
            | S::Closing
            | S::Error
            | S::NoResponse
            | S::Busy
            | S::Unreachable
            | S::Completed
            | S::Expired
            | S::MaxAttemptsReached
            | S::ConcurrencyLimitExceeded => Advanced,
            S::Canceled => Forced,
        },
        S::Calling => match event {
            S::Unknown => Unrecognized,
            S::Pending | S::Requested | S::Connecting => Late,
            S::Calling => Repeated,
            S::Closing
            | S::Error
            | S::NoResponse
            | S::Busy
            | S::Unreachable
            | S::Completed
            | S::MaxAttemptsReached
            | S::ConcurrencyLimitExceeded => Advanced,
            S::Canceled | S::Expired => Forced,
        },
        S::Closing => match event {
            S::Unknown => Unrecognized,
            S::Pending | S::Requested | S::Connecting | S::Calling => Late,
            S::Closing => Repeated,
            S::Error | S::Completed | S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => {
                Advanced
            }
            S::NoResponse | S::Busy | S::Unreachable | S::Canceled | S::Expired => Forced,
        },
        S::Error => match event {
            S::Unknown => Unrecognized,
            S::Pending | S::Requested | S::Connecting | S::Calling | S::Closing => {
                match facts.order {
                    Order::After => out_of_error(event, facts),
                    Order::Unproven => Late,
                }
            }
            S::Error => Repeated,
            S::NoResponse | S::Busy | S::Unreachable | S::Completed => out_of_error(event, facts),
            S::Expired | S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => Advanced,
            S::Canceled => Forced,
        },
        S::NoResponse | S::Busy | S::Unreachable => match event {
            S::Unknown => Unrecognized,
            S::Pending | S::Requested | S::Connecting | S::Calling | S::Closing | S::Error => Late,
            S::NoResponse | S::Busy | S::Unreachable => same_or(Conflicting, call, event),
            S::Completed | S::Canceled => Forced,
            S::Expired | S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => Advanced,
        },
        S::Completed => match event {
            S::Unknown => Unrecognized,
            S::Pending | S::Requested | S::Calling => dialed_again_or_late(facts),
            S::Connecting | S::Closing | S::Error => Late,
            S::NoResponse | S::Busy | S::Unreachable => match facts.relation {
                Relation::Current => Conflicting,
                // The outcome of another dial does not contradict that of this one.
                Relation::Earlier | Relation::Foreign | Relation::Next | Relation::Opposite => Late,
            },
            S::Completed => Repeated,
            S::Canceled | S::Expired | S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => {
                Conflicting
            }
        },
        S::Canceled | S::Expired => match event {
            S::Unknown => Unrecognized,
            S::Pending | S::Requested => dialed_again_or_late(facts),
            S::Calling | S::Closing | S::Completed => went_ahead_or_late(facts),
            S::Connecting | S::Error | S::NoResponse | S::Busy | S::Unreachable => Late,
            S::Canceled | S::Expired | S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => {
                same_or(Conflicting, call, event)
            }
        },
        S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => match event {
            S::Unknown => Unrecognized,
            S::Pending | S::Requested | S::Calling => dialed_again_or_late(facts),
            S::Connecting
            | S::Closing
            | S::Error
            | S::NoResponse
            | S::Busy
            | S::Unreachable
            | S::Completed => Late,
            S::Canceled | S::Expired | S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => {
                same_or(Conflicting, call, event)
            }
        },
    }
}

/// The call went on from its ERROR. The event is judged in the status that the
/// ERROR interrupted; it is late there if its rank is lower.
fn out_of_error(event: Status, facts: Facts) -> Disposition {
    match facts.interrupted {
        Some(interrupted) => transition(interrupted, event, Facts { interrupted: None, ..facts }),
        None => Disposition::Advanced,
    }
}

/// In a final call: the provider queued the call again, or used its id again.
fn dialed_again_or_late(facts: Facts) -> Disposition {
    match facts.relation {
        Relation::Next => forced_if_after(facts.order),
        Relation::Current | Relation::Earlier | Relation::Foreign | Relation::Opposite => {
            Disposition::Late
        }
    }
}

/// In a call that was canceled or has expired: the dial went ahead.
fn went_ahead_or_late(facts: Facts) -> Disposition {
    match facts.relation {
        Relation::Current | Relation::Next | Relation::Foreign => forced_if_after(facts.order),
        Relation::Earlier | Relation::Opposite => Disposition::Late,
    }
}

fn forced_if_after(order: Order) -> Disposition {
    match order {
        Order::After => Disposition::Forced,
        Order::Unproven => Disposition::Late,
    }
}

/// Between statuses of one rank: the same again, or another one.
fn same_or(otherwise: Disposition, call: Status, event: Status) -> Disposition {
    if call == event { Disposition::Repeated } else { otherwise }
}

#[cfg(test)]
mod tests;

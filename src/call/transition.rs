//! The state machine's table: what an event does to a call.
//!
//! [`transition`] is total and pure. It is written out, status by status, with
//! no catch-all arm: who adds a status is asked by the compiler what each event
//! does there and what the new one does everywhere. Its whole matrix is a
//! snapshot test, so that a change shows in review.
//!
//! Two questions are answered before the table is asked, since they need more
//! of the call than its status: how the event relates to the call's attempts
//! ([`Relation`]), and which of them takes it (see [`super::state`]).

use super::{name::named, status::Status};

named! {
    /// What the machine did with an event.
    pub enum Disposition as "disposition" {
        /// It took the call a step forward.
        Advanced = "advanced",
        /// It took the call where the provider's own description does not
        /// lead; the provider is the authority, so the call follows.
        Forced = "forced",
        /// It began another attempt.
        Redialed = "redialed",
        /// It says what the call was already.
        Repeated = "repeated",
        /// The call, or the attempt, was already further.
        Late = "late",
        /// It contradicts what is known; the call stays.
        Conflicting = "conflicting",
        /// Its type is not one of the 18; the call stays.
        Unrecognized = "unrecognized",
    }
}

impl Disposition {
    /// Whether the event gave the call its status.
    #[must_use]
    pub const fn changes_status(self) -> bool {
        match self {
            Self::Advanced | Self::Forced | Self::Redialed => true,
            Self::Repeated | Self::Late | Self::Conflicting | Self::Unrecognized => false,
        }
    }

    /// Whether the event is counted among the call's anomalies.
    #[must_use]
    pub const fn is_anomaly(self) -> bool {
        match self {
            Self::Forced | Self::Conflicting | Self::Unrecognized => true,
            Self::Advanced | Self::Redialed | Self::Repeated | Self::Late => false,
        }
    }

    /// The disposition explained in one line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Advanced => "took the call a step forward",
            Self::Forced => "took the call where the provider's own description does not lead",
            Self::Redialed => "began another attempt",
            Self::Repeated => "said what the call was already",
            Self::Late => "came when the call, or the attempt, was already further",
            Self::Conflicting => "contradicted what is known; the call stayed",
            Self::Unrecognized => "is of a type that callstate does not know; the call stayed",
        }
    }
}

named! {
    /// How an event relates to the attempts of its call.
    pub enum Relation as "relation" {
        /// It is of the current attempt, or nothing says otherwise.
        Current = "current",
        /// Its `call_sid` is that of an attempt before the current one.
        Earlier = "earlier",
        /// It opens the next attempt.
        Next = "next",
        /// Its `call_sid` is that of no attempt, and it opens none.
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
            Self::Current => "of the current attempt, or nothing says otherwise",
            Self::Earlier => "its call_sid is that of an attempt before the current one",
            Self::Next => {
                "it opens the next attempt: by another call_sid, or as what the ended one cannot hold"
            }
            Self::Foreign => "its call_sid is that of no attempt, and it opens none",
            Self::Opposite => {
                "an inbound event of an outbound call, or the reverse: always conflicting"
            }
        }
    }
}

/// What an event that says `event` does to a call that is in status `call`.
#[must_use]
#[expect(clippy::too_many_lines, reason = "the table stands in one place")]
pub fn transition(call: Status, event: Status, relation: Relation) -> Disposition {
    use Disposition::{Advanced, Conflicting, Forced, Late, Redialed, Repeated, Unrecognized};
    use Status as S;

    if event == S::Unknown {
        return Unrecognized;
    }
    match relation {
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
            S::Pending | S::Requested | S::Connecting | S::Calling | S::Closing => Late,
            S::Error => Repeated,
            S::NoResponse
            | S::Busy
            | S::Unreachable
            | S::Completed
            | S::Expired
            | S::MaxAttemptsReached
            | S::ConcurrencyLimitExceeded => Advanced,
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
            S::Pending | S::Requested | S::Connecting | S::Calling | S::Closing | S::Error => Late,
            S::NoResponse | S::Busy | S::Unreachable => match relation {
                Relation::Current => Conflicting,
                // The outcome of another dial does not contradict that of this one.
                Relation::Earlier | Relation::Foreign | Relation::Next | Relation::Opposite => Late,
            },
            S::Completed => Repeated,
            S::Canceled | S::Expired | S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => {
                Conflicting
            }
        },
        S::Canceled | S::Expired | S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => {
            match event {
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
                | S::Completed => Late,
                S::Canceled | S::Expired | S::MaxAttemptsReached | S::ConcurrencyLimitExceeded => {
                    same_or(Conflicting, call, event)
                }
            }
        }
    }
}

/// Between statuses of one rank: said again, or something else.
fn same_or(otherwise: Disposition, call: Status, event: Status) -> Disposition {
    if call == event { Disposition::Repeated } else { otherwise }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::call::{Direction, KnownEvent};

    /// Every status × every event type, the unknown one included, for each
    /// relation between event and attempts.
    #[test]
    fn the_whole_matrix_is_as_reviewed() {
        let short = |name: &str| name.replace('_', "").chars().take(4).collect::<String>();
        let mut matrix = String::new();
        for relation in Relation::ALL {
            write!(matrix, "{:<41}", format!("event of relation {relation}, in a call that is"))
                .unwrap();
            for status in Status::ALL {
                write!(matrix, " {}", short(status.as_str())).unwrap();
            }
            let known = KnownEvent::ALL.iter().map(|event| (event.as_str(), event.status()));
            for (name, says) in known.chain([("(any other)", Status::Unknown)]) {
                write!(matrix, "\n{name:<41}").unwrap();
                for status in Status::ALL {
                    let disposition = transition(*status, says, *relation);
                    write!(matrix, " {}", short(disposition.as_str())).unwrap();
                }
            }
            matrix.push_str("\n\n");
        }
        insta::assert_snapshot!(matrix);
    }

    /// The table against the same rules in other words: by rank.
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
                assert_eq!(
                    transition(call, event, Relation::Current),
                    by_rank,
                    "{event} in a call that is {call}",
                );
            }
        }
    }

    fn is_undescribed(call: Status, event: Status) -> bool {
        let unanswered = Status::Busy.rank();
        match event {
            Status::Canceled => !matches!(call, Status::Unknown | Status::Pending),
            Status::Expired => matches!(call, Status::Calling | Status::Closing),
            Status::Completed => call.rank() == unanswered,
            _ => event.rank() == unanswered && call == Status::Closing,
        }
    }

    #[test]
    fn a_final_status_is_never_left() {
        for relation in Relation::ALL {
            for call in Status::ALL.iter().filter(|status| status.is_final()) {
                for event in Status::ALL {
                    assert!(!transition(*call, *event, *relation).changes_status());
                }
            }
        }
    }

    #[test]
    fn there_are_12_outbound_and_6_inbound_events() {
        let outbound =
            KnownEvent::ALL.iter().filter(|event| event.direction() == Direction::Outbound).count();
        assert_eq!((outbound, KnownEvent::ALL.len()), (12, 18));
        for event in KnownEvent::ALL {
            let prefix = format!("{}_CALL_", event.direction().as_str().to_uppercase());
            assert_eq!(event.as_str().strip_prefix(&prefix), Some(event.status().as_str()));
        }
    }
}

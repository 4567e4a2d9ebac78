//! Where a call stands: the statuses, their ranks, their kinds, the directions.

use serde::{Deserialize, Serialize};

use super::name::named;

named! {
    /// Who dialled.
    pub enum Direction as "direction" {
        /// The platform called the party.
        Outbound = "outbound",
        /// The party called the platform.
        Inbound = "inbound",
    }
}

named! {
    /// Where a call stands: the event type without its prefix.
    ///
    /// It is also what an event says: each of the 18 event types says one of
    /// these, and a type that is not one of them says [`Status::Unknown`].
    pub enum Status as "status" {
        /// Nothing known: only unrecognized events have come.
        Unknown = "UNKNOWN",
        /// Queued.
        Pending = "PENDING",
        /// The dial instruction went to the telephony provider.
        Requested = "REQUESTED",
        /// An incoming call was received, processing started.
        Connecting = "CONNECTING",
        /// Outbound: ringing or being connected. Inbound: in conversation.
        Calling = "CALLING",
        /// Disconnected; wrap-up after the call.
        Closing = "CLOSING",
        /// Something failed; an outcome of the same attempt may still come.
        Error = "ERROR",
        /// It rang, nobody answered.
        NoResponse = "NO_RESPONSE",
        /// The line was busy.
        Busy = "BUSY",
        /// Out of service area, powered off and the like.
        Unreachable = "UNREACHABLE",
        /// Finished; with errors, where the call has any.
        Completed = "COMPLETED",
        /// A user cancelled it.
        Canceled = "CANCELED",
        /// The scheduled window for dialling passed.
        Expired = "EXPIRED",
        /// The redials are used up.
        MaxAttemptsReached = "MAX_ATTEMPTS_REACHED",
        /// The project's limit of concurrent calls was reached.
        ConcurrencyLimitExceeded = "CONCURRENCY_LIMIT_EXCEEDED",
    }
}

/// How far along a status is: a call moves from lower to higher ranks.
///
/// −1 is [`Status::Unknown`], 7 what ends the call as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(i16);

impl Rank {
    /// The rank as the number that the store keeps.
    #[must_use]
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl TryFrom<i16> for Rank {
    type Error = String;

    fn try_from(rank: i16) -> Result<Self, Self::Error> {
        match rank {
            -1..=7 => Ok(Self(rank)),
            _ => Err(format!("{rank} is no rank")),
        }
    }
}

named! {
    /// What may still become of a call in a status.
    pub enum Kind as "kind" {
        /// The call is under way.
        Live = "live",
        /// The attempt has ended without reaching the party; a redial may follow.
        Redialable = "redialable",
        /// The attempt failed; its outcome or a redial may follow.
        Resolvable = "resolvable",
        /// Nothing follows.
        Final = "final",
    }
}

impl Kind {
    /// The kind explained in one line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Live => "under way; left by any event of a higher rank",
            Self::Redialable => "terminal; left by a redial or by a final status",
            Self::Resolvable => {
                "terminal; left by an outcome of the same attempt, a redial or a final status"
            }
            Self::Final => "terminal; never left",
        }
    }
}

impl Status {
    /// How far along the status is.
    #[must_use]
    pub const fn rank(self) -> Rank {
        Rank(match self {
            Self::Unknown => -1,
            Self::Pending => 0,
            Self::Requested | Self::Connecting => 1,
            Self::Calling => 2,
            Self::Closing => 3,
            Self::Error => 4,
            Self::NoResponse | Self::Busy | Self::Unreachable => 5,
            Self::Completed => 6,
            Self::Canceled
            | Self::Expired
            | Self::MaxAttemptsReached
            | Self::ConcurrencyLimitExceeded => 7,
        })
    }

    /// What may still become of a call in this status.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Unknown
            | Self::Pending
            | Self::Requested
            | Self::Connecting
            | Self::Calling
            | Self::Closing => Kind::Live,
            Self::Error => Kind::Resolvable,
            Self::NoResponse | Self::Busy | Self::Unreachable => Kind::Redialable,
            Self::Completed
            | Self::Canceled
            | Self::Expired
            | Self::MaxAttemptsReached
            | Self::ConcurrencyLimitExceeded => Kind::Final,
        }
    }

    /// Whether the call has ended, at least for now.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self.kind(), Kind::Live)
    }

    /// Whether the call never leaves this status.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self.kind(), Kind::Final)
    }

    /// Whether the status is one of an attempt (rank 0 to 6). The others belong
    /// to the call as a whole.
    #[must_use]
    pub const fn is_of_attempt(self) -> bool {
        matches!(self.rank().0, 0..=6)
    }

    /// Whether an attempt in this status has ended (rank 4 to 6).
    #[must_use]
    pub const fn ends_attempt(self) -> bool {
        matches!(self.rank().0, 4..=6)
    }
}

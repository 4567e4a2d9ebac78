//! The statuses of a call: their ids, ranks and kinds, in one table.
//!
//! [`Status::spec`] is the only place that says what a status is. The store
//! keeps the same table in Postgres, and a test there compares the two.

use serde::{Deserialize, Serialize};

use super::name::named;

named! {
    /// Which side dialed.
    pub enum Direction as "direction" {
        /// The platform called the party.
        Outbound = "outbound",
        /// The party called the platform.
        Inbound = "inbound",
    }
}

named! {
    /// The status of a call: the event type without its prefix.
    ///
    /// Each of the 18 event types reports one of these; a type that is not one
    /// of the 18 reports [`Status::Unknown`].
    pub enum Status as "status" {
        /// No known event yet: the call has unrecognized events only.
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
        /// Something failed. A later event may show that the call went on.
        Error = "ERROR",
        /// It rang, nobody answered.
        NoResponse = "NO_RESPONSE",
        /// The line was busy.
        Busy = "BUSY",
        /// Out of service area, powered off and the like.
        Unreachable = "UNREACHABLE",
        /// Finished; with errors if the call has any.
        Completed = "COMPLETED",
        /// A user canceled it.
        Canceled = "CANCELED",
        /// The scheduled window for dialing passed.
        Expired = "EXPIRED",
        /// The redials are used up.
        MaxAttemptsReached = "MAX_ATTEMPTS_REACHED",
        /// The project's limit of concurrent calls was reached.
        ConcurrencyLimitExceeded = "CONCURRENCY_LIMIT_EXCEEDED",
    }
}

/// How far along a status is: a call moves from lower to higher ranks.
///
/// −1 is [`Status::Unknown`], 0 to 6 belong to an attempt, 7 ends the call as a
/// whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(i16);

impl Rank {
    /// The rank as a number.
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
            _ => Err(format!("{rank} is not a rank")),
        }
    }
}

named! {
    /// How a call may leave a status.
    pub enum Kind as "kind" {
        /// The call is live.
        Live = "live",
        /// The attempt ended without reaching the party; a redial may follow.
        Redialable = "redialable",
        /// The attempt failed; it may recover, or a redial may follow.
        Resolvable = "resolvable",
        /// The call ended.
        Final = "final",
    }
}

impl Kind {
    /// The kind explained in one line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Live => "left by any event of a higher rank",
            Self::Redialable => "terminal; left by a redial or a final status",
            Self::Resolvable => {
                "terminal; left by an event that shows that the call went on, a redial or a final status"
            }
            Self::Final => "terminal; left only by an event that happened later and reports a dial",
        }
    }
}

/// What a status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a row of a table of facts")]
pub struct StatusSpec {
    /// The status.
    pub status: Status,
    /// Its number in the store; never changes.
    pub id: i16,
    /// Its name.
    pub name: &'static str,
    /// How far along it is.
    pub rank: Rank,
    /// How a call may leave it.
    pub kind: Kind,
    /// A short label in English.
    pub label: &'static str,
    /// Whether it belongs to an attempt (rank 0 to 6) and not to the call as a whole.
    pub belongs_to_attempt: bool,
    /// Whether an attempt in it has ended (rank 4 to 6).
    pub ends_attempt: bool,
    /// Whether an outbound dial passes it on the way to an answer (PENDING, REQUESTED, CALLING).
    /// An attempt passes each of these once.
    pub starts_dial: bool,
    /// Whether the call finished normally.
    pub is_completed: bool,
    /// Whether the call occupies a line: the concurrency report counts it.
    pub is_in_conversation: bool,
    /// Whether the call was turned away.
    pub is_turned_away: bool,
}

impl StatusSpec {
    /// The facts that follow from the rank, and no flag.
    const fn new(status: Status, id: i16, rank: i16, kind: Kind, label: &'static str) -> Self {
        Self {
            status,
            id,
            name: status.as_str(),
            rank: Rank(rank),
            kind,
            label,
            belongs_to_attempt: matches!(rank, 0..=6),
            ends_attempt: matches!(rank, 4..=6),
            starts_dial: false,
            is_completed: false,
            is_in_conversation: false,
            is_turned_away: false,
        }
    }

    const fn starting_dial(self) -> Self {
        Self { starts_dial: true, ..self }
    }

    const fn completed(self) -> Self {
        Self { is_completed: true, ..self }
    }

    const fn in_conversation(self) -> Self {
        Self { is_in_conversation: true, ..self }
    }

    const fn turned_away(self) -> Self {
        Self { is_turned_away: true, ..self }
    }
}

/// The table: a row per status, in the order of their ids.
#[rustfmt::skip]
static SPECS: [StatusSpec; Status::ALL.len()] = {
    use Kind::{Final, Live, Redialable, Resolvable};
    use Status as S;
    [
        StatusSpec::new(S::Unknown, 0, -1, Live, "Unknown"),
        StatusSpec::new(S::Pending, 1, 0, Live, "Pending").starting_dial(),
        StatusSpec::new(S::Requested, 2, 1, Live, "Requested").starting_dial(),
        StatusSpec::new(S::Connecting, 3, 1, Live, "Connecting"),
        StatusSpec::new(S::Calling, 4, 2, Live, "Calling").starting_dial().in_conversation(),
        StatusSpec::new(S::Closing, 5, 3, Live, "Closing"),
        StatusSpec::new(S::Error, 6, 4, Resolvable, "Error"),
        StatusSpec::new(S::NoResponse, 7, 5, Redialable, "No response"),
        StatusSpec::new(S::Busy, 8, 5, Redialable, "Busy"),
        StatusSpec::new(S::Unreachable, 9, 5, Redialable, "Unreachable"),
        StatusSpec::new(S::Completed, 10, 6, Final, "Completed").completed(),
        StatusSpec::new(S::Canceled, 11, 7, Final, "Canceled"),
        StatusSpec::new(S::Expired, 12, 7, Final, "Expired"),
        StatusSpec::new(S::MaxAttemptsReached, 13, 7, Final, "Max attempts reached"),
        StatusSpec::new(S::ConcurrencyLimitExceeded, 14, 7, Final, "Concurrency limit exceeded").turned_away(),
    ]
};

impl Status {
    /// The facts of the status.
    #[must_use]
    pub fn spec(self) -> &'static StatusSpec {
        // A test compares the order of the table with that of the statuses.
        &SPECS[self as usize]
    }

    /// Its number in the store.
    #[must_use]
    pub fn id(self) -> i16 {
        self.spec().id
    }

    /// The status with this number; `None` if there is none.
    #[must_use]
    pub fn from_id(id: i16) -> Option<Self> {
        SPECS.iter().find(|spec| spec.id == id).map(|spec| spec.status)
    }

    /// How far along the status is.
    #[must_use]
    pub fn rank(self) -> Rank {
        self.spec().rank
    }

    /// How a call may leave the status.
    #[must_use]
    pub fn kind(self) -> Kind {
        self.spec().kind
    }

    /// Whether the call has ended, at least for now.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self.kind() != Kind::Live
    }

    /// Whether the call has ended for good, unless the provider dials later.
    #[must_use]
    pub fn is_final(self) -> bool {
        self.kind() == Kind::Final
    }

    /// Whether the status belongs to an attempt (rank 0 to 6). The others
    /// belong to the call as a whole.
    #[must_use]
    pub fn belongs_to_attempt(self) -> bool {
        self.spec().belongs_to_attempt
    }

    /// Whether an attempt in this status has ended (rank 4 to 6).
    #[must_use]
    pub fn ends_attempt(self) -> bool {
        self.spec().ends_attempt
    }
}

//! One event of a call, its deliveries, and the order of events.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    event_type::EventType,
    id::{CallKey, CallSid, ClientId},
    name::named,
    status::{Rank, Status},
};

/// How far after its receipt an event may claim to have happened. A later time
/// is [implausible](TimeProblem::Implausible).
pub const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);

named! {
    /// Why the time that an event states is not used.
    pub enum TimeProblem as "time problem" {
        /// It is in none of the formats that are read.
        Unreadable = "unreadable",
        /// It is before the year 2000 or more than [`MAX_AHEAD`] after the receipt.
        Implausible = "implausible",
    }
}

impl TimeProblem {
    /// Its number in the store, from 1; never changes.
    #[must_use]
    pub const fn id(self) -> i16 {
        match self {
            Self::Unreadable => 1,
            Self::Implausible => 2,
        }
    }

    /// The problem with this number; `None` if there is none.
    #[must_use]
    pub fn from_id(id: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|problem| problem.id() == id)
    }
}

/// The SHA-256 of an event's content. Deliveries with the same fingerprint are
/// one event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The id of an event: a UUID of version 8 ([RFC 9562]) made from the call's key
/// and the fingerprint. Every delivery, import and replay of an event gives the
/// same id.
///
/// [RFC 9562]: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8
#[must_use]
pub fn event_id(key: &CallKey, fingerprint: Fingerprint) -> Uuid {
    let mut context = Context::new(&SHA256);
    // Identifiers hold no control characters, so the ends are unambiguous.
    for part in [key.project_id.as_str(), "\n", key.call_id.as_str(), "\n"] {
        context.update(part.as_bytes());
    }
    context.update(&fingerprint.0);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    // Zero in the two free bits of the variant's digit spares SQL the bit operations.
    bytes[8] &= 0x0f;
    Uuid::new_v8(bytes)
}

/// Something that went wrong in a call, as an event reports it. Every member may
/// be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallError {
    /// The provider's code, such as `NETWORK_ERROR`.
    pub code: Option<String>,
    /// One line for people.
    pub message: Option<String>,
    /// The phase of the call in which it happened.
    pub phase: Option<String>,
    /// The part of the provider's program in which it happened.
    #[serde(rename = "where")]
    pub location: Option<String>,
    /// When it happened, as the provider wrote it; RFC 3339 in practice.
    pub timestamp: Option<String>,
}

/// One distinct event of a call: what the fold needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Distinct within the call.
    pub fingerprint: Fingerprint,
    /// The type.
    pub event_type: EventType,
    /// When it happened by the provider's clock, to the microsecond; `None` if unknown.
    pub occurred_at: Option<DateTime<Utc>>,
    /// When its first delivery was received, to the microsecond.
    pub received_at: DateTime<Utc>,
    /// The telephony provider's id of the dial.
    pub call_sid: Option<CallSid>,
    /// The customer's id of the party.
    pub client_id: Option<ClientId>,
    /// The provider's own status of the call; informative only.
    pub provider_status: Option<String>,
    /// Whether it carries a non-empty list of errors.
    pub has_errors: bool,
}

impl Event {
    /// `occurred_at`, or `received_at` if that is unknown.
    #[must_use]
    pub fn effective_at(&self) -> DateTime<Utc> {
        self.occurred_at.unwrap_or(self.received_at)
    }

    /// The status that the event reports.
    #[must_use]
    pub fn status(&self) -> Status {
        self.event_type.status()
    }

    /// Whether the event reports that something failed: it carries errors or is
    /// of type ERROR.
    #[must_use]
    pub fn reports_errors(&self) -> bool {
        self.has_errors || self.status() == Status::Error
    }

    /// The position of the event among the events of its call.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            effective_at: self.effective_at(),
            rank: self.status().rank(),
            fingerprint: self.fingerprint,
        }
    }
}

/// One parsed request of the provider: an event, the call that it belongs to,
/// and what is stored beside the fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The call.
    pub key: CallKey,
    /// The event's id, the same for every delivery of it.
    pub event_id: Uuid,
    /// What the fold needs of the event.
    pub event: Event,
    /// Why the stated time is not used; `None` if it is used or missing.
    pub time_problem: Option<TimeProblem>,
    /// The errors that it carries.
    pub errors: Vec<CallError>,
    /// The name of the endpoint that received it.
    pub endpoint: String,
    /// The body, exactly as received; always JSON.
    pub payload: String,
    /// How often its event was delivered, as far as the delivery knows.
    pub receipts: Receipts,
}

/// How often an event was delivered, as far as one delivery knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipts {
    /// Once, at its `received_at`: adds one to the stored count.
    Once,
    /// The total that another store or the quarantine counted. It may include
    /// receipts that are counted already, so the greater number counts, not the sum.
    InAll {
        /// How often, at least once.
        deliveries: u32,
        /// The time of the last, to the microsecond.
        last_delivered_at: DateTime<Utc>,
    },
}

/// The order of events within a call: by time, then by rank, then by
/// fingerprint. No two events of a call share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// `occurred_at`, or `received_at` if that is unknown.
    pub effective_at: DateTime<Utc>,
    /// The rank of the status that the event reports.
    pub rank: Rank,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

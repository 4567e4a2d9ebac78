//! What the provider said: the 18 event types, one event, the order of events.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    id::{CallKey, CallSid, ClientId},
    name::named,
    status::{Direction, Rank, Status},
};

named! {
    /// One of the provider's 18 event types.
    pub enum KnownEvent as "event type" {
        /// The call was queued.
        OutboundPending = "OUTBOUND_CALL_PENDING",
        /// The dial instruction went to the telephony provider.
        OutboundRequested = "OUTBOUND_CALL_REQUESTED",
        /// Ringing, or being connected.
        OutboundCalling = "OUTBOUND_CALL_CALLING",
        /// Disconnected; wrap-up after the call.
        OutboundClosing = "OUTBOUND_CALL_CLOSING",
        /// Finished.
        OutboundCompleted = "OUTBOUND_CALL_COMPLETED",
        /// The scheduled window for dialling passed.
        OutboundExpired = "OUTBOUND_CALL_EXPIRED",
        /// It rang, nobody answered.
        OutboundNoResponse = "OUTBOUND_CALL_NO_RESPONSE",
        /// A user cancelled it while it was pending.
        OutboundCanceled = "OUTBOUND_CALL_CANCELED",
        /// The line was busy.
        OutboundBusy = "OUTBOUND_CALL_BUSY",
        /// Out of service area, powered off and the like.
        OutboundUnreachable = "OUTBOUND_CALL_UNREACHABLE",
        /// The redials are used up.
        OutboundMaxAttemptsReached = "OUTBOUND_CALL_MAX_ATTEMPTS_REACHED",
        /// Something failed.
        OutboundError = "OUTBOUND_CALL_ERROR",
        /// An incoming call was received, processing started.
        InboundConnecting = "INBOUND_CALL_CONNECTING",
        /// Established, conversation in progress.
        InboundCalling = "INBOUND_CALL_CALLING",
        /// Disconnected; wrap-up after the call.
        InboundClosing = "INBOUND_CALL_CLOSING",
        /// Finished.
        InboundCompleted = "INBOUND_CALL_COMPLETED",
        /// The project's limit of concurrent calls was reached.
        InboundConcurrencyLimitExceeded = "INBOUND_CALL_CONCURRENCY_LIMIT_EXCEEDED",
        /// Something failed.
        InboundError = "INBOUND_CALL_ERROR",
    }
}

impl KnownEvent {
    /// Whose calls have this event.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::OutboundPending
            | Self::OutboundRequested
            | Self::OutboundCalling
            | Self::OutboundClosing
            | Self::OutboundCompleted
            | Self::OutboundExpired
            | Self::OutboundNoResponse
            | Self::OutboundCanceled
            | Self::OutboundBusy
            | Self::OutboundUnreachable
            | Self::OutboundMaxAttemptsReached
            | Self::OutboundError => Direction::Outbound,
            Self::InboundConnecting
            | Self::InboundCalling
            | Self::InboundClosing
            | Self::InboundCompleted
            | Self::InboundConcurrencyLimitExceeded
            | Self::InboundError => Direction::Inbound,
        }
    }

    /// The status that the event says.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::OutboundPending => Status::Pending,
            Self::OutboundRequested => Status::Requested,
            Self::InboundConnecting => Status::Connecting,
            Self::OutboundCalling | Self::InboundCalling => Status::Calling,
            Self::OutboundClosing | Self::InboundClosing => Status::Closing,
            Self::OutboundError | Self::InboundError => Status::Error,
            Self::OutboundNoResponse => Status::NoResponse,
            Self::OutboundBusy => Status::Busy,
            Self::OutboundUnreachable => Status::Unreachable,
            Self::OutboundCompleted | Self::InboundCompleted => Status::Completed,
            Self::OutboundCanceled => Status::Canceled,
            Self::OutboundExpired => Status::Expired,
            Self::OutboundMaxAttemptsReached => Status::MaxAttemptsReached,
            Self::InboundConcurrencyLimitExceeded => Status::ConcurrencyLimitExceeded,
        }
    }
}

/// How far after its receipt an event may claim to have happened. Beyond that
/// the claim is not believed.
pub const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// What an event is called, be it known or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EventType {
    /// One of the 18.
    Known(KnownEvent),
    /// A type that this version does not know.
    Unrecognized(String),
}

impl EventType {
    /// Takes a name for an event type; every name is one.
    #[must_use]
    pub fn of(name: &str) -> Self {
        name.parse().map_or_else(|_| Self::Unrecognized(name.to_owned()), Self::Known)
    }

    /// The name that the provider gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(known) => known.as_str(),
            Self::Unrecognized(name) => name,
        }
    }

    /// Whose calls have this event; `None` where that is not known.
    #[must_use]
    pub const fn direction(&self) -> Option<Direction> {
        match self {
            Self::Known(known) => Some(known.direction()),
            Self::Unrecognized(_) => None,
        }
    }

    /// The status that the event says; [`Status::Unknown`] where it is not one
    /// of the 18.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Known(known) => known.status(),
            Self::Unrecognized(_) => Status::Unknown,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What makes two deliveries the same event: a SHA-256 of what they say.
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

/// The id of an event: a UUID of version 8 ([RFC 9562]), made of the call's key
/// and the fingerprint. So every delivery of an event, an import and a replay
/// give it the same id.
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
    Uuid::new_v8(bytes)
}

/// Something that went wrong in a call, as an event told it. Every member may
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

/// One distinct thing that the provider said of a call: what the fold needs of
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What makes it distinct within its call.
    pub fingerprint: Fingerprint,
    /// What it is called.
    pub event_type: EventType,
    /// When it happened, where the provider said so, to the microsecond.
    pub occurred_at: Option<DateTime<Utc>>,
    /// When its first delivery came, to the microsecond.
    pub received_at: DateTime<Utc>,
    /// The dial that it is about.
    pub call_sid: Option<CallSid>,
    /// The party that it is about.
    pub client_id: Option<ClientId>,
    /// The provider's own status of the call; informative only.
    pub provider_status: Option<String>,
    /// Whether it carries errors.
    pub has_errors: bool,
}

impl Event {
    /// When the event counts as having happened.
    #[must_use]
    pub fn effective_at(&self) -> DateTime<Utc> {
        self.occurred_at.unwrap_or(self.received_at)
    }

    /// The status that the event says.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.event_type.status()
    }

    /// Where the event stands among the events of its call.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            effective_at: self.effective_at(),
            rank: self.status().rank(),
            fingerprint: self.fingerprint,
        }
    }
}

/// One request of the provider, understood: an event, which call it is of, and
/// what is kept of it beside the fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The call.
    pub key: CallKey,
    /// The event's id, the same for every delivery of it.
    pub event_id: Uuid,
    /// What the fold needs of the event.
    pub event: Event,
    /// The errors that it carries.
    pub errors: Vec<CallError>,
    /// The name of the endpoint that took it.
    pub endpoint: String,
    /// The body, exactly as it came; always JSON.
    pub payload: String,
    /// What it says of how often its event was delivered.
    pub receipts: Receipts,
}

/// What a delivery says of how often its event was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipts {
    /// Once, at its `received_at`: once more than is known.
    Once,
    /// So often in all, as another store or the quarantine counted. What is known may be
    /// the same receipts, so the greater number counts, and never their sum.
    InAll {
        /// How often, at least once.
        deliveries: u32,
        /// When last, to the microsecond.
        last_delivered_at: DateTime<Utc>,
    },
}

/// The order of events within a call: by time, then by rank, then by
/// fingerprint. No two events of a call share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When the event counts as having happened.
    pub effective_at: DateTime<Utc>,
    /// The rank of the status that it says.
    pub rank: Rank,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

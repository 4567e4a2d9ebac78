//! The provider's event types: the 18 known ones in one table, and all others.

use std::fmt;

use super::{
    name::named,
    status::{Direction, Status},
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
        /// The scheduled window for dialing passed.
        OutboundExpired = "OUTBOUND_CALL_EXPIRED",
        /// It rang, nobody answered.
        OutboundNoResponse = "OUTBOUND_CALL_NO_RESPONSE",
        /// A user canceled it while it was pending.
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

/// What an event type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTypeSpec {
    /// The event type.
    pub event_type: KnownEvent,
    /// Its number in the store, from 1; never changes. 0 is reserved for types
    /// that are not one of the 18.
    pub id: i16,
    /// Its name.
    pub name: &'static str,
    /// The direction of the calls that have this event.
    pub direction: Direction,
    /// The status that it reports.
    pub status: Status,
    /// Whether calls normally begin with it.
    pub begins_call: bool,
    /// Whether it reports that a dial started (outbound PENDING, REQUESTED,
    /// CALLING): an attempt passes each of these once.
    pub starts_dial: bool,
    /// The statuses that no call reaches without passing this one. The coverage
    /// report finds event types by it that are switched off.
    pub leads_to: &'static [Status],
}

impl EventTypeSpec {
    const fn new(
        event_type: KnownEvent,
        id: i16,
        direction: Direction,
        status: Status,
        leads_to: &'static [Status],
    ) -> Self {
        Self {
            event_type,
            id,
            name: event_type.as_str(),
            direction,
            status,
            begins_call: false,
            starts_dial: false,
            leads_to,
        }
    }

    const fn beginning_call(self) -> Self {
        Self { begins_call: true, ..self }
    }

    const fn starting_dial(self) -> Self {
        Self { starts_dial: true, ..self }
    }
}

/// The table: a row per event type, in the order of their ids.
#[rustfmt::skip]
static SPECS: [EventTypeSpec; KnownEvent::ALL.len()] = {
    use Direction::{Inbound, Outbound};
    use KnownEvent as E;
    use Status as S;
    const ANSWERED_OR_NOT: &[Status] = &[
        S::Closing, S::NoResponse, S::Busy, S::Unreachable, S::Completed, S::MaxAttemptsReached,
    ];
    [
        EventTypeSpec::new(E::OutboundPending, 1, Outbound, S::Pending, &[
            S::Requested, S::Calling, S::Closing, S::Error, S::NoResponse, S::Busy, S::Unreachable,
            S::Completed, S::Canceled, S::Expired, S::MaxAttemptsReached,
        ]).beginning_call().starting_dial(),
        EventTypeSpec::new(E::OutboundRequested, 2, Outbound, S::Requested, &[
            S::Calling, S::Closing, S::NoResponse, S::Busy, S::Unreachable, S::Completed,
            S::MaxAttemptsReached,
        ]).starting_dial(),
        EventTypeSpec::new(E::OutboundCalling, 3, Outbound, S::Calling, ANSWERED_OR_NOT).starting_dial(),
        EventTypeSpec::new(E::OutboundClosing, 4, Outbound, S::Closing, &[S::Completed]),
        EventTypeSpec::new(E::OutboundCompleted, 5, Outbound, S::Completed, &[]),
        EventTypeSpec::new(E::OutboundExpired, 6, Outbound, S::Expired, &[]),
        EventTypeSpec::new(E::OutboundNoResponse, 7, Outbound, S::NoResponse, &[]),
        EventTypeSpec::new(E::OutboundCanceled, 8, Outbound, S::Canceled, &[]),
        EventTypeSpec::new(E::OutboundBusy, 9, Outbound, S::Busy, &[]),
        EventTypeSpec::new(E::OutboundUnreachable, 10, Outbound, S::Unreachable, &[]),
        EventTypeSpec::new(E::OutboundMaxAttemptsReached, 11, Outbound, S::MaxAttemptsReached, &[]),
        EventTypeSpec::new(E::OutboundError, 12, Outbound, S::Error, &[]),
        EventTypeSpec::new(E::InboundConnecting, 13, Inbound, S::Connecting, &[
            S::Calling, S::Closing, S::Error, S::Completed,
        ]).beginning_call(),
        EventTypeSpec::new(E::InboundCalling, 14, Inbound, S::Calling, &[S::Closing, S::Completed]),
        EventTypeSpec::new(E::InboundClosing, 15, Inbound, S::Closing, &[S::Completed]),
        EventTypeSpec::new(E::InboundCompleted, 16, Inbound, S::Completed, &[]),
        EventTypeSpec::new(E::InboundConcurrencyLimitExceeded, 17, Inbound, S::ConcurrencyLimitExceeded, &[]),
        EventTypeSpec::new(E::InboundError, 18, Inbound, S::Error, &[]),
    ]
};

impl KnownEvent {
    /// The facts of the event type.
    #[must_use]
    pub fn spec(self) -> &'static EventTypeSpec {
        // A test compares the order of the table with that of the event types.
        &SPECS[self as usize]
    }

    /// Its number in the store, from 1.
    #[must_use]
    pub fn id(self) -> i16 {
        self.spec().id
    }

    /// The event type with this number; `None` if there is none.
    #[must_use]
    pub fn from_id(id: i16) -> Option<Self> {
        SPECS.iter().find(|spec| spec.id == id).map(|spec| spec.event_type)
    }

    /// The direction of the calls that have this event.
    #[must_use]
    pub fn direction(self) -> Direction {
        self.spec().direction
    }

    /// The status that the event reports.
    #[must_use]
    pub fn status(self) -> Status {
        self.spec().status
    }
}

/// The type of an event, known or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EventType {
    /// One of the 18.
    Known(KnownEvent),
    /// Any other type, by its name.
    Unrecognized(String),
}

impl EventType {
    /// The event type with this name; every name is valid.
    #[must_use]
    pub fn of(name: &str) -> Self {
        name.parse().map_or_else(|_| Self::Unrecognized(name.to_owned()), Self::Known)
    }

    /// The provider's name of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(known) => known.as_str(),
            Self::Unrecognized(name) => name,
        }
    }

    /// The one of the 18 that it is, if any.
    #[must_use]
    pub fn known(&self) -> Option<KnownEvent> {
        match self {
            Self::Known(known) => Some(*known),
            Self::Unrecognized(_) => None,
        }
    }

    /// Its number in the store; 0 if it is not one of the 18.
    #[must_use]
    pub fn id(&self) -> i16 {
        self.known().map_or(0, KnownEvent::id)
    }

    /// The direction of the calls that have this event; `None` if the type is
    /// not one of the 18.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        self.known().map(KnownEvent::direction)
    }

    /// The status that the event reports; [`Status::Unknown`] if the type is not
    /// one of the 18.
    #[must_use]
    pub fn status(&self) -> Status {
        self.known().map_or(Status::Unknown, KnownEvent::status)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

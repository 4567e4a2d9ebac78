//! Why an event had its disposition: a code and two parameters.
//!
//! The store keeps the code, and the sentence is made when it is shown: in Rust
//! by [`Reason::sentence`], in SQL by `replace()` over the same templates. So a
//! template holds nothing conditional; another shape of sentence is another
//! code. A sentence names statuses and numbers of attempts, never an identifier.

use super::{
    event::Event,
    name::named,
    state::Call,
    status::{Direction, Kind, Status},
    transition::{Disposition, Facts, Order, Relation},
};

/// Why an event had its disposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The shape of the sentence.
    pub code: ReasonCode,
    /// The status that it mentions: usually the call's before the event.
    pub status: Option<Status>,
    /// The number of the attempt that it mentions beside the event's own.
    pub attempt: Option<u32>,
}

impl Reason {
    /// The sentence, given the status that the event reports and the number of
    /// the attempt that it counts for.
    #[must_use]
    pub fn sentence(self, event_status: Status, event_attempt: Option<u32>) -> String {
        let number = |attempt: Option<u32>| attempt.map_or_else(String::new, |it| it.to_string());
        self.code
            .template()
            .replace("{status}", self.status.map_or("", Status::as_str))
            .replace("{event_status}", event_status.as_str())
            .replace("{attempt}", &number(self.attempt))
            .replace("{event_attempt}", &number(event_attempt))
    }
}

/// The codes: each with its number in the store, its name, and its template.
macro_rules! reasons {
    ($($(#[$meta:meta])* $id:literal $code:ident = $name:literal: $template:literal,)+) => {
        named! {
            /// The shape of a sentence that says why.
            pub enum ReasonCode as "reason" {
                $($(#[$meta])* $code = $name,)+
            }
        }

        impl ReasonCode {
            /// Its number in the store, from 1; never changes.
            #[must_use]
            pub const fn id(self) -> i16 {
                match self {
                    $(Self::$code => $id,)+
                }
            }

            /// The code with this number; `None` if there is none.
            #[must_use]
            pub const fn from_id(id: i16) -> Option<Self> {
                match id {
                    $($id => Some(Self::$code),)+
                    _ => None,
                }
            }

            /// The sentence with the placeholders `{status}`, `{event_status}`,
            /// `{attempt}` and `{event_attempt}`: see [`Reason::sentence`].
            #[must_use]
            pub const fn template(self) -> &'static str {
                match self {
                    $(Self::$code => $template,)+
                }
            }
        }
    };
}

reasons! {
    /// The first event of the call.
    1 Began = "began": "the call began as {event_status}",
    /// The first event of a known type.
    2 FirstKnown = "first_known":
        "the call became {event_status} with its first event of a known type",
    /// A step forward.
    3 Advanced = "advanced": "the call went from {status} to {event_status}",
    /// A step forward in an attempt after the first.
    4 AdvancedInAttempt = "advanced_in_attempt":
        "the call went from {status} to {event_status} in attempt {event_attempt}",
    /// A step forward reported with another `call_sid`.
    5 AdvancedInOtherLeg = "advanced_in_other_leg":
        "the call went from {status} to {event_status} in another leg of attempt {event_attempt}",
    /// The end of the call after an attempt that had ended.
    6 EndedAfterAttempt = "ended_after_attempt":
        "the call went from {status} to {event_status} after attempt {attempt}",
    /// A step out of an ERROR that had opened the attempt.
    7 Recovered = "recovered": "attempt {event_attempt} began as {status} and went on as {event_status}",
    /// A step forward from a status that an ERROR had interrupted.
    8 AdvancedDespiteError = "advanced_despite_error":
        "the call went from {status} to {event_status} despite an ERROR in between",
    /// A step that the provider does not describe.
    9 Forced = "forced":
        "the call went from {status} to {event_status}, a step that the provider does not describe",
    /// The same in an attempt after the first.
    10 ForcedInAttempt = "forced_in_attempt":
        "the call went from {status} to {event_status} in attempt {event_attempt}, a step that the provider does not describe",
    /// A dial in a call that was canceled or had expired.
    11 WentAhead = "went_ahead":
        "the call was {status}, but its dial went ahead: {event_status} happened later",
    /// Another dial in a final call.
    12 DialedAgain = "dialed_again":
        "the call was {status} and was dialed again later, so attempt {event_attempt} began as {event_status}",
    /// Another attempt by its `call_sid`.
    13 OtherCallSid = "other_call_sid":
        "the call_sid is not that of attempt {attempt}, so attempt {event_attempt} began as {event_status}",
    /// Another attempt, because the last one was in this status already.
    14 StatusAgain = "status_again":
        "attempt {attempt} had been {event_status} and had ended as {status}, so attempt {event_attempt} began as {event_status}",
    /// Another attempt, because the last one had an outcome already.
    15 SecondOutcome = "second_outcome":
        "attempt {attempt} had ended as {status}, so {event_status} is the outcome of attempt {event_attempt}",
    /// The same status again.
    16 Repeated = "repeated": "the call was {status} before and still is",
    /// The interrupted status again, after an ERROR.
    17 RepeatedDespiteError = "repeated_despite_error":
        "the call was {status} before an ERROR and still is",
    /// The call was further.
    18 Late = "late": "the call was already {status}",
    /// The attempt is not the current one.
    19 EarlierAttempt = "earlier_attempt":
        "the call_sid is that of attempt {attempt}, and a later attempt had begun",
    /// The call was further before its ERROR.
    20 LateBeforeError = "late_before_error": "the call was already {status} before its ERROR",
    /// Another status of the same rank, or another end of the call.
    21 Contradicts = "contradicts": "the call was already {status}, which {event_status} contradicts",
    /// Another outcome of an attempt after the first.
    22 ContradictsAttempt = "contradicts_attempt":
        "the call was already {status} in attempt {attempt}, which {event_status} contradicts",
    /// An inbound event of an outbound call.
    23 InboundEvent = "inbound_event": "the event is inbound, but the call is outbound",
    /// An outbound event of an inbound call.
    24 OutboundEvent = "outbound_event": "the event is outbound, but the call is inbound",
    /// A type that is not one of the 18.
    25 UnknownType = "unknown_type": "the type is not one of the 18 that callstate knows",
    /// An ERROR that the call went on from.
    26 WentOn = "went_on": "a later event shows that the call went on from {status}",
}

/// A disposition with what its reason is made from: the call before the event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judgement {
    disposition: Disposition,
    event: Status,
    /// The call's status before the event.
    call: Status,
    facts: Facts,
    /// The number of the current attempt before the event, 0 before the first,
    /// and its status.
    current: u32,
    current_status: Status,
    /// The number of the earlier attempt that the event belongs to.
    earlier: Option<u32>,
    is_first: bool,
    is_inbound: bool,
    has_known_sids: bool,
}

impl Judgement {
    pub(super) fn of(
        call: &Call,
        event: &Event,
        facts: Facts,
        earlier: Option<usize>,
        disposition: Disposition,
    ) -> Self {
        Self {
            disposition,
            event: event.status(),
            call: call.status,
            facts,
            current: call.attempt_number(),
            current_status: call.attempts.last().map_or(Status::Unknown, |it| it.status),
            earlier: earlier.map(|index| call.attempts[index].number),
            is_first: call.event_count == 0,
            is_inbound: event.event_type.direction() == Some(Direction::Inbound),
            has_known_sids: event.call_sid.is_some() && call.call_sid().is_some(),
        }
    }

    /// The reason, given the attempt that the event counts for.
    pub(super) fn reason(self, attempt: Option<u32>) -> Reason {
        let (code, status) = match self.disposition {
            Disposition::Advanced => self.advanced(attempt),
            Disposition::Forced => self.forced(attempt),
            Disposition::Redialed => self.redialed(),
            Disposition::Repeated => match self.facts.interrupted {
                Some(interrupted) if self.event != Status::Error => {
                    (ReasonCode::RepeatedDespiteError, interrupted)
                }
                _ => (ReasonCode::Repeated, self.call),
            },
            Disposition::Late => self.late(),
            Disposition::Conflicting if self.facts.relation == Relation::Opposite => {
                let code = if self.is_inbound {
                    ReasonCode::InboundEvent
                } else {
                    ReasonCode::OutboundEvent
                };
                (code, self.call)
            }
            Disposition::Conflicting if self.event.belongs_to_attempt() && self.current > 1 => {
                (ReasonCode::ContradictsAttempt, self.call)
            }
            Disposition::Conflicting => (ReasonCode::Contradicts, self.call),
            Disposition::Unrecognized => (ReasonCode::UnknownType, self.call),
            Disposition::Nonfatal => (ReasonCode::WentOn, self.call),
        };
        let current = Some(self.current).filter(|number| *number > 0);
        Reason { code, status: Some(status), attempt: self.earlier.or(current) }
    }

    fn advanced(self, attempt: Option<u32>) -> (ReasonCode, Status) {
        let is_later_attempt = attempt.is_some_and(|number| number > 1);
        if self.is_first {
            return (ReasonCode::Began, self.call);
        }
        if self.call == Status::Unknown {
            return (ReasonCode::FirstKnown, self.call);
        }
        if let Some(interrupted) = self.facts.interrupted
            && attempt.is_some()
        {
            return (ReasonCode::AdvancedDespiteError, interrupted);
        }
        let code = match self.call.kind() {
            Kind::Live if attempt.is_some() && self.is_other_leg() => {
                ReasonCode::AdvancedInOtherLeg
            }
            Kind::Live if is_later_attempt => ReasonCode::AdvancedInAttempt,
            Kind::Live => ReasonCode::Advanced,
            Kind::Resolvable if attempt.is_some() => ReasonCode::Recovered,
            Kind::Resolvable | Kind::Redialable | Kind::Final => ReasonCode::EndedAfterAttempt,
        };
        (code, self.call)
    }

    fn is_other_leg(self) -> bool {
        self.facts.relation == Relation::Foreign
    }

    fn forced(self, attempt: Option<u32>) -> (ReasonCode, Status) {
        let is_later_attempt = attempt.is_some_and(|number| number > 1);
        let was_interrupted = self.facts.interrupted.filter(|_| attempt.is_some());
        let code = if self.call.is_final() {
            match self.facts.relation {
                Relation::Next => ReasonCode::DialedAgain,
                Relation::Current | Relation::Earlier | Relation::Foreign | Relation::Opposite => {
                    ReasonCode::WentAhead
                }
            }
        } else if is_later_attempt {
            ReasonCode::ForcedInAttempt
        } else {
            ReasonCode::Forced
        };
        (code, was_interrupted.unwrap_or(self.call))
    }

    fn redialed(self) -> (ReasonCode, Status) {
        let code = if self.has_known_sids {
            ReasonCode::OtherCallSid
        } else if self.event.ends_attempt() {
            ReasonCode::SecondOutcome
        } else {
            ReasonCode::StatusAgain
        };
        (code, self.current_status)
    }

    fn late(self) -> (ReasonCode, Status) {
        if self.earlier.is_some() && !self.call.is_final() {
            return (ReasonCode::EarlierAttempt, self.call);
        }
        match self.facts.interrupted {
            // Proven to be later than the ERROR, so it is late by the status before.
            Some(interrupted) if self.facts.order == Order::After => {
                (ReasonCode::LateBeforeError, interrupted)
            }
            _ => (ReasonCode::Late, self.call),
        }
    }
}

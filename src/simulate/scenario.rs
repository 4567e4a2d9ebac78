//! What happens in a call: the kinds of calls, and the life of one.
//!
//! A [`Life`] is what the provider would say of a call if it said everything,
//! in the order and at the distances in which it happens: seconds of ringing,
//! minutes of talk, a quarter of an hour until a redial. Steps lie at least
//! [`LEAST_GAP`] seconds apart, so that whole seconds keep them in order.
//!
//! Deliberately absent: what goes wrong on the way ([`super::plan`]), and what
//! a state machine makes of it.

use std::fmt;

use rand::{Rng, RngExt};

use crate::call::{Direction, KnownEvent};

use super::fault::{self, Fault};

/// The least number of seconds between two steps. One more event fits between.
pub const LEAST_GAP: u32 = 2;

/// One kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Answered at the first dial.
    Answered,
    /// Answered after one or two dials that were not.
    AnsweredOnRedial,
    /// Busy, and left at that.
    Busy,
    /// Not answered, and left at that.
    NoResponse,
    /// Not reached, and left at that.
    Unreachable,
    /// Dialled again and again until no attempt was left.
    GivenUp,
    /// The scheduled window passed, before the first dial or before a redial.
    Expired,
    /// Canceled while it waited.
    Canceled,
    /// Canceled, but too late: the dial went ahead, and was answered.
    CanceledTooLate,
    /// Answered and transferred: it ends on another leg, with a `call_sid` of its own.
    Transferred,
    /// Finished, but something failed on the way.
    CompletedWithErrors,
    /// Failed: before the dial, while connecting or in conversation.
    Failed,
    /// Inbound, and finished.
    InboundCompleted,
    /// Inbound, and finished with errors.
    InboundCompletedWithErrors,
    /// Inbound, and failed.
    InboundFailed,
    /// Inbound, and turned away by the limit of concurrent calls.
    InboundTurnedAway,
}

/// Every kind, and how many of a thousand calls are of it. Four of five calls
/// are outbound; six in ten of these end in a conversation.
pub const KINDS: [(Kind, u32); 16] = [
    (Kind::Answered, 385),
    (Kind::AnsweredOnRedial, 100),
    (Kind::Busy, 40),
    (Kind::NoResponse, 60),
    (Kind::Unreachable, 25),
    (Kind::GivenUp, 60),
    (Kind::Expired, 20),
    (Kind::Canceled, 25),
    (Kind::CanceledTooLate, 5),
    (Kind::Transferred, 10),
    (Kind::CompletedWithErrors, 40),
    (Kind::Failed, 30),
    (Kind::InboundCompleted, 150),
    (Kind::InboundCompletedWithErrors, 10),
    (Kind::InboundFailed, 15),
    (Kind::InboundTurnedAway, 25),
];

impl Kind {
    /// Draws a kind, in the proportions of [`KINDS`].
    pub fn draw(rng: &mut impl Rng) -> Self {
        *pick(rng, &KINDS)
    }

    /// Who dials in such a call.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::Answered
            | Self::AnsweredOnRedial
            | Self::Busy
            | Self::NoResponse
            | Self::Unreachable
            | Self::GivenUp
            | Self::Expired
            | Self::Canceled
            | Self::CanceledTooLate
            | Self::Transferred
            | Self::CompletedWithErrors
            | Self::Failed => Direction::Outbound,
            Self::InboundCompleted
            | Self::InboundCompletedWithErrors
            | Self::InboundFailed
            | Self::InboundTurnedAway => Direction::Inbound,
        }
    }

    /// What people and programs call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::AnsweredOnRedial => "answered on redial",
            Self::Busy => "busy",
            Self::NoResponse => "no response",
            Self::Unreachable => "unreachable",
            Self::GivenUp => "attempts used up",
            Self::Expired => "expired",
            Self::Canceled => "canceled",
            Self::CanceledTooLate => "canceled too late",
            Self::Transferred => "transferred",
            Self::CompletedWithErrors => "completed with errors",
            Self::Failed => "failed",
            Self::InboundCompleted => "inbound completed",
            Self::InboundCompletedWithErrors => "inbound completed with errors",
            Self::InboundFailed => "inbound failed",
            Self::InboundTurnedAway => "inbound turned away",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that happens in a call, and that the provider would tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Seconds since the call began.
    pub after: u32,
    /// What the provider calls it.
    pub event: KnownEvent,
    /// Which dial it is about, from 0; `None` where it is about none. Another leg of
    /// a conversation counts as a dial here, as it has a `call_sid` of its own.
    pub dial: Option<u8>,
    /// The provider's own status at that moment, without prefix.
    pub provider_status: &'static str,
    /// What failed.
    pub faults: &'static [Fault],
}

/// All that happens in one call, at least one step, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The kind of call.
    pub kind: Kind,
    /// What happens.
    pub steps: Vec<Step>,
}

/// Lets a call of that kind happen.
#[expect(clippy::too_many_lines, reason = "the stories stand in one place")]
pub fn live(kind: Kind, rng: &mut impl Rng) -> Life {
    let mut story = Story { rng, now: 0, dial: 0, steps: Vec::with_capacity(8) };
    match kind {
        Kind::Answered => {
            story.queued();
            story.dialled();
            story.talk();
            story.completed(&[]);
        }
        Kind::AnsweredOnRedial => {
            story.queued();
            let missed = story.between(1, 2);
            story.missed_dials(missed);
            story.dialled();
            story.talk();
            story.completed(&[]);
        }
        Kind::Busy => {
            story.queued();
            story.dialled();
            story.missed(KnownEvent::OutboundBusy);
        }
        Kind::NoResponse => {
            story.queued();
            story.dialled();
            story.missed(KnownEvent::OutboundNoResponse);
        }
        Kind::Unreachable => {
            story.queued();
            story.dialled();
            story.missed(KnownEvent::OutboundUnreachable);
        }
        Kind::GivenUp => {
            story.queued();
            let missed = story.between(2, 4);
            story.missed_dials(missed);
            story.ends(KnownEvent::OutboundMaxAttemptsReached, 2, 5);
        }
        Kind::Expired => {
            story.queued();
            if story.chance(0.3) {
                story.missed_dials(1);
            }
            story.ends(KnownEvent::OutboundExpired, 900, 3 * 3600);
        }
        Kind::Canceled => {
            story.queued();
            story.ends(KnownEvent::OutboundCanceled, 5, 1800);
        }
        Kind::CanceledTooLate => {
            story.queued();
            story.ends(KnownEvent::OutboundCanceled, 2, 5);
            story.wait(2, 5);
            story.tell(KnownEvent::OutboundCalling, &[]);
            story.talk();
            story.completed(&[]);
        }
        Kind::Transferred => {
            story.queued();
            story.dialled();
            story.wait(20, 240);
            story.dial += 1;
            story.hangs_up(15, 600);
            story.completed(&[]);
        }
        Kind::CompletedWithErrors => {
            story.queued();
            story.dialled();
            story.wait(5, 90);
            if story.chance(0.3) {
                // The agent failed, but the call went on.
                story.fails("CALLING", &fault::IN_CONVERSATION);
                story.hangs_up(2, 20);
                story.completed(&fault::IN_CONVERSATION);
            } else {
                story.talk();
                story.completed(&fault::SURVIVED);
            }
        }
        Kind::Failed => {
            story.queued();
            match story.between(0, 2) {
                0 => story.fails_undialled(),
                1 => {
                    story.dialled();
                    story.wait(5, 30);
                    story.fails("CALLING", &fault::CONNECTING);
                }
                _ => {
                    story.dialled();
                    story.wait(20, 240);
                    story.fails("CALLING", &fault::IN_CONVERSATION);
                }
            }
        }
        Kind::InboundCompleted => {
            story.comes_in();
            story.talk_inbound();
            story.tell(KnownEvent::InboundCompleted, &[]);
        }
        Kind::InboundCompletedWithErrors => {
            story.comes_in();
            if story.chance(0.3) {
                story.wait(3, 120);
                story.tell_as(KnownEvent::InboundError, Some(0), "CALLING", &fault::INBOUND);
                story.talk_inbound();
                story.tell(KnownEvent::InboundCompleted, &[]);
            } else {
                story.talk_inbound();
                story.tell(KnownEvent::InboundCompleted, &fault::SURVIVED);
            }
        }
        Kind::InboundFailed => {
            story.comes_in();
            story.wait(3, 120);
            // Not every error comes with a list of what failed.
            let faults: &[Fault] = if story.chance(0.2) { &[] } else { &fault::INBOUND };
            story.tell_as(KnownEvent::InboundError, Some(0), "CALLING", faults);
        }
        Kind::InboundTurnedAway => {
            if story.chance(0.7) {
                story.tell(KnownEvent::InboundConnecting, &[]);
                story.wait(2, 3);
            }
            story.tell(KnownEvent::InboundConcurrencyLimitExceeded, &[]);
        }
    }
    Life { kind, steps: story.steps }
}

/// A life being told.
struct Story<'a, R> {
    rng: &'a mut R,
    now: u32,
    dial: u8,
    steps: Vec<Step>,
}

impl<R: Rng> Story<'_, R> {
    fn chance(&mut self, share: f64) -> bool {
        self.rng.random_bool(share)
    }

    fn between(&mut self, least: u32, most: u32) -> u32 {
        self.rng.random_range(least..=most)
    }

    /// Seconds pass. Short waits are more frequent than long ones, as they are
    /// in life.
    fn wait(&mut self, least: u32, most: u32) {
        assert!(least >= LEAST_GAP && most >= least, "steps must stay apart");
        let upper = self.between(least, most);
        self.now += self.between(least, upper);
    }

    fn tell(&mut self, event: KnownEvent, faults: &'static [Fault]) {
        self.tell_as(event, Some(self.dial), event.status().as_str(), faults);
    }

    fn tell_as(
        &mut self,
        event: KnownEvent,
        dial: Option<u8>,
        provider_status: &'static str,
        faults: &'static [Fault],
    ) {
        self.steps.push(Step { after: self.now, event, dial, provider_status, faults });
    }

    fn queued(&mut self) {
        self.tell_as(KnownEvent::OutboundPending, None, "PENDING", &[]);
        self.wait(2, 120);
    }

    /// A dial begins to ring; a redial some time after the dial before it.
    fn dialled(&mut self) {
        if self.dial > 0 {
            self.wait(300, 1800);
        }
        self.tell(KnownEvent::OutboundRequested, &[]);
        self.wait(2, 5);
        self.tell(KnownEvent::OutboundCalling, &[]);
    }

    /// The ringing ends without an answer.
    fn missed(&mut self, outcome: KnownEvent) {
        match outcome {
            KnownEvent::OutboundNoResponse => self.wait(25, 60),
            _ => self.wait(2, 12),
        }
        self.tell(outcome, &[]);
    }

    /// So many dials come to nothing.
    fn missed_dials(&mut self, dials: u32) {
        for _ in 0..dials {
            self.dialled();
            match self.between(0, 19) {
                0..=9 => self.missed(KnownEvent::OutboundNoResponse),
                10..=15 => self.missed(KnownEvent::OutboundBusy),
                16..=18 => self.missed(KnownEvent::OutboundUnreachable),
                _ => {
                    self.wait(2, 10);
                    self.fails("CALLING", &fault::CONNECTING);
                }
            }
            self.dial += 1;
        }
    }

    /// It rings, they talk, they hang up.
    fn talk(&mut self) {
        self.wait(4, 25);
        self.hangs_up(15, 600);
    }

    fn hangs_up(&mut self, least: u32, most: u32) {
        self.wait(least, most);
        self.tell(KnownEvent::OutboundClosing, &[]);
        self.wait(2, 6);
    }

    fn completed(&mut self, faults: &'static [Fault]) {
        self.tell(KnownEvent::OutboundCompleted, faults);
    }

    /// The call as a whole ends, outside any dial.
    fn ends(&mut self, event: KnownEvent, least: u32, most: u32) {
        self.wait(least, most);
        self.tell_as(event, None, event.status().as_str(), &[]);
    }

    /// The provider's status stays what it was: an error is no status there.
    fn fails(&mut self, provider_status: &'static str, faults: &'static [Fault]) {
        self.tell_as(KnownEvent::OutboundError, Some(self.dial), provider_status, faults);
    }

    fn fails_undialled(&mut self) {
        self.tell_as(KnownEvent::OutboundError, None, "PENDING", &fault::UNDIALLED);
    }

    fn comes_in(&mut self) {
        self.tell(KnownEvent::InboundConnecting, &[]);
        self.wait(2, 6);
        self.tell(KnownEvent::InboundCalling, &[]);
    }

    fn talk_inbound(&mut self) {
        self.wait(15, 600);
        self.tell(KnownEvent::InboundClosing, &[]);
        self.wait(2, 6);
    }
}

/// Draws one of a list in proportion to the weights.
fn pick<'a, T>(rng: &mut impl Rng, weighted: &'a [(T, u32)]) -> &'a T {
    let total = weighted.iter().map(|(_, weight)| weight).sum();
    let mut drawn: u32 = rng.random_range(0..total);
    for (item, weight) in weighted {
        if drawn < *weight {
            return item;
        }
        drawn -= weight;
    }
    unreachable!("what is drawn is less than the sum of the weights")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng as _, rngs::ChaCha8Rng};

    use super::*;

    fn lives() -> impl Iterator<Item = Life> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        KINDS
            .iter()
            .flat_map(move |(kind, _)| (0..200).map(|_| live(*kind, &mut rng)).collect::<Vec<_>>())
    }

    #[test]
    fn the_proportions_are_of_a_thousand() {
        assert_eq!(KINDS.iter().map(|(_, weight)| weight).sum::<u32>(), 1000);
    }

    #[test]
    fn every_one_of_the_18_event_types_occurs() {
        let told: BTreeSet<KnownEvent> =
            lives().flat_map(|life| life.steps).map(|step| step.event).collect();
        assert_eq!(told.len(), KnownEvent::ALL.len());
    }

    #[test]
    fn steps_are_in_order_and_of_the_calls_direction() {
        for life in lives() {
            assert!(!life.steps.is_empty());
            assert!(
                life.steps.is_sorted_by(|one, next| one.after + LEAST_GAP <= next.after),
                "{life:?}"
            );
            assert!(life.steps.iter().all(|step| step.event.direction() == life.kind.direction()));
        }
    }

    #[test]
    fn the_kinds_are_drawn_in_their_proportions() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let drawn: Vec<Kind> = (0..20_000).map(|_| Kind::draw(&mut rng)).collect();
        for (kind, of_a_thousand) in KINDS {
            let count = u32::try_from(drawn.iter().filter(|it| **it == kind).count()).unwrap();
            assert!(count.abs_diff(20 * of_a_thousand) < 40 + 4 * of_a_thousand, "{kind}: {count}");
        }
    }
}

//! The fold of a call's events, and its single step.
//!
//! The fold keeps more than the call has: an ERROR turns out to be nonfatal only
//! by a later event, so the fold remembers how to undo it. That memory is not
//! stored; [`Call::can_apply`] is false wherever it may be needed.

use chrono::{DateTime, Utc};

use super::{
    event::Event,
    reason::{Judgement, Reason, ReasonCode},
    state::{Call, Outcome},
    status::Status,
    transition::{Disposition, Facts, Order, transition},
};

/// Folds the events of a call, which must be distinct and may be in any order.
///
/// Sorts `events`; the outcomes are in the same order. `None` if there are no
/// events.
#[must_use]
pub fn fold(events: &mut [&Event]) -> Option<(Call, Vec<Outcome>)> {
    events.sort_by_key(|event| event.position());
    let mut call = Call::before(events.first()?);
    let mut fold = Fold::default();
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(events.len());
    for event in events {
        let outcome = fold.step(&mut call, event);
        for (index, status) in fold.nonfatal.drain(..) {
            outcomes[index].become_nonfatal(status);
        }
        outcomes.push(outcome);
    }
    Some((call, outcomes))
}

/// What the fold knows beyond the call.
#[derive(Debug, Clone, Default)]
pub(super) struct Fold {
    /// The ERROR that the call is in.
    error: Option<Error>,
    /// Earlier events that the last step found to be nonfatal, as their index
    /// and the status in which the call went on.
    nonfatal: Vec<(usize, Status)>,
    /// How many events were folded.
    count: usize,
}

/// An ERROR that a call is in, and the repeated ones since.
#[derive(Debug, Clone)]
struct Error {
    /// Their indexes among the events.
    events: Vec<usize>,
    /// When the latest happened by the provider's clock.
    occurred_at: Option<DateTime<Utc>>,
    /// What the ERROR interrupted; `None` if it opened the attempt.
    interrupted: Option<Interrupted>,
}

/// A status that an ERROR interrupted, as it was before.
#[derive(Debug, Clone, Copy)]
struct Interrupted {
    status: Status,
    since: Option<DateTime<Utc>>,
    is_since_reported: bool,
    microseconds: Option<i64>,
}

impl Fold {
    /// Applies an event that sorts after all that the call has.
    pub(super) fn step(&mut self, call: &mut Call, event: &Event) -> Outcome {
        let facts = self.facts(call, event);
        let earlier = call.earlier_attempt(event);
        let disposition = transition(call.status, event.status(), facts);
        let judgement = Judgement::of(call, event, facts, earlier, disposition);

        let went_on = went_on(call.status, event.status(), disposition);
        if went_on {
            self.undo_error(call);
        }
        let interruption = Interrupted::of(call);
        let was = call.status;
        let attempt = call.count_for_attempt(event, facts.relation, earlier, disposition);
        if went_on && let Some(current) = call.attempts.last_mut() {
            current.leave_error_out();
        }
        let is_first = call.event_count == 0;
        if disposition.changes_status() {
            call.enter(event);
        }
        call.collect(event, disposition);
        self.remember(call, event, disposition, interruption);

        Outcome {
            disposition,
            from_status: Some(was).filter(|_| disposition.changes_status() && !is_first),
            to_status: Some(call.status).filter(|_| disposition.changes_status()),
            attempt,
            reason: judgement.reason(attempt),
        }
    }

    /// What decides beside the two statuses.
    pub(super) fn facts(&self, call: &Call, event: &Event) -> Facts {
        let interrupted = self.error.as_ref().and_then(|error| error.interrupted);
        Facts {
            relation: call.relation(event),
            order: self.order(call, event),
            interrupted: interrupted.map(|interrupted| interrupted.status),
        }
    }

    /// Whether the event happened after the one that gave the call its status,
    /// or after the latest ERROR.
    fn order(&self, call: &Call, event: &Event) -> Order {
        let before = match &self.error {
            Some(error) => error.occurred_at,
            None => call.status_since_reported(),
        };
        match (before, event.occurred_at) {
            (Some(before), Some(at)) if at > before => Order::After,
            _ => Order::Unproven,
        }
    }

    /// Returns the call to the status that the ERROR interrupted, if any.
    fn undo_error(&mut self, call: &mut Call) {
        if let Some(Error { events, interrupted: Some(interrupted), .. }) = self.error.take() {
            interrupted.restore(call);
            self.nonfatal.extend(events.into_iter().map(|index| (index, interrupted.status)));
        }
    }

    /// Remembers the ERROR that the call is in after the event.
    fn remember(
        &mut self,
        call: &Call,
        event: &Event,
        disposition: Disposition,
        before: Option<Interrupted>,
    ) {
        let index = self.count;
        self.count += 1;
        if call.status != Status::Error {
            self.error = None;
        } else if disposition.changes_status() {
            let opens_attempt = disposition == Disposition::Redialed;
            self.error = Some(Error {
                events: vec![index],
                occurred_at: event.occurred_at,
                interrupted: before.filter(|_| !opens_attempt),
            });
        } else if disposition == Disposition::Repeated
            && let Some(error) = &mut self.error
        {
            error.events.push(index);
            error.occurred_at = event.occurred_at;
        }
    }
}

impl Interrupted {
    /// The call's present status; `None` before the first known event.
    fn of(call: &Call) -> Option<Self> {
        (call.status != Status::Unknown).then(|| Self {
            status: call.status,
            since: call.status_since,
            is_since_reported: call.is_status_since_reported,
            microseconds: call.microseconds_in_status.get(&call.status).copied(),
        })
    }

    fn restore(self, call: &mut Call) {
        call.status = self.status;
        call.status_since = self.since;
        call.is_status_since_reported = self.is_since_reported;
        match self.microseconds {
            Some(microseconds) => {
                call.microseconds_in_status.insert(self.status, microseconds);
            }
            None => {
                call.microseconds_in_status.remove(&self.status);
            }
        }
    }
}

impl Outcome {
    /// Corrects the outcome of an ERROR that the call went on from.
    fn become_nonfatal(&mut self, status: Status) {
        self.disposition = Disposition::Nonfatal;
        self.from_status = None;
        self.to_status = None;
        self.reason =
            Reason { code: ReasonCode::WentOn, status: Some(status), attempt: self.attempt };
    }
}

/// Whether an event with this disposition shows that a call in ERROR went on in
/// the same attempt.
fn went_on(call: Status, event: Status, disposition: Disposition) -> bool {
    let is_other_of_attempt = event.belongs_to_attempt() && event != Status::Error;
    call == Status::Error
        && is_other_of_attempt
        && match disposition {
            Disposition::Advanced | Disposition::Forced | Disposition::Repeated => true,
            Disposition::Redialed
            | Disposition::Late
            | Disposition::Conflicting
            | Disposition::Unrecognized
            | Disposition::Nonfatal => false,
        }
}

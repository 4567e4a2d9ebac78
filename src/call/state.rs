//! The call: a fold of its events.
//!
//! [`fold`] makes a call of all its events. [`Call::apply`] is one step of it,
//! and may be used alone where the event sorts after all that the call has
//! ([`Call::is_before`]). Stepwise and at once give the same call; the property
//! tests hold them to it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{
    attempt::Attempt,
    event::{Event, Position},
    id::{CallSid, ClientId},
    reason::reason,
    status::{Direction, Status},
    transition::{Disposition, Relation, transition},
};

/// What is known of a call after some of its events, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who dialled; `None` while only unrecognized events have come.
    pub direction: Option<Direction>,
    /// Where the call stands.
    pub status: Status,
    /// Its dials, in order.
    pub attempts: Vec<Attempt>,
    /// The party, as the last event that names one has it.
    pub client_id: Option<ClientId>,
    /// The provider's own status, as the last event that has one says.
    pub provider_status: Option<String>,
    /// Whether any event carried errors.
    pub has_errors: bool,
    /// How many events it has.
    pub event_count: u32,
    /// How many of them are forced, conflicting or unrecognized.
    pub anomaly_count: u32,
    /// Microseconds spent in each status, open stays not counted.
    pub microseconds_in_status: BTreeMap<Status, i64>,
    /// When the event happened that last changed the status.
    pub status_since: Option<DateTime<Utc>>,
    /// When its first event happened.
    pub first_event_at: DateTime<Utc>,
    /// When the event happened that brought the present terminal status.
    pub ended_at: Option<DateTime<Utc>>,
    /// When the newest of its events was received.
    pub updated_at: DateTime<Utc>,
    /// Where its last event stands; its time is `last_event_at`.
    pub last: Position,
}

/// What one event did to its call, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the machine did with it.
    pub disposition: Disposition,
    /// The status that it took the call out of; `None` where it changed nothing
    /// or the call began with it.
    pub from_status: Option<Status>,
    /// The status that it took the call to; `None` where it changed nothing.
    pub to_status: Option<Status>,
    /// The number of the attempt that it counts for.
    pub attempt: Option<u32>,
    /// One plain sentence that says why.
    pub reason: String,
}

/// Makes a call of its events, which may come in any order but must be
/// distinct, and tells what each did. The outcomes are in the order of
/// `events`, which are sorted on the way. `None` where there are no events.
#[must_use]
pub fn fold(events: &mut [&Event]) -> Option<(Call, Vec<Outcome>)> {
    events.sort_by_key(|event| event.position());
    let (first, rest) = events.split_first()?;
    let (mut call, outcome) = Call::begin(first);
    let mut outcomes = Vec::with_capacity(1 + rest.len());
    outcomes.push(outcome);
    for event in rest {
        outcomes.push(call.apply(event));
    }
    Some((call, outcomes))
}

impl Call {
    /// Begins a call with its first event.
    #[must_use]
    pub fn begin(event: &Event) -> (Self, Outcome) {
        let mut call = Self {
            direction: None,
            status: Status::Unknown,
            attempts: Vec::new(),
            client_id: None,
            provider_status: None,
            has_errors: false,
            event_count: 0,
            anomaly_count: 0,
            microseconds_in_status: BTreeMap::new(),
            status_since: None,
            first_event_at: event.effective_at(),
            ended_at: None,
            updated_at: event.received_at,
            last: event.position(),
        };
        let outcome = call.step(event);
        (call, outcome)
    }

    /// Whether an event at this position sorts after all that the call has.
    #[must_use]
    pub fn is_before(&self, position: Position) -> bool {
        self.last < position
    }

    /// Applies an event that sorts after all that the call has.
    ///
    /// # Panics
    ///
    /// Where it does not sort so: then the call must be folded again.
    pub fn apply(&mut self, event: &Event) -> Outcome {
        assert!(self.is_before(event.position()), "the event does not sort last");
        self.step(event)
    }

    /// When its last event happened.
    #[must_use]
    pub fn last_event_at(&self) -> DateTime<Utc> {
        self.last.effective_at
    }

    /// The id of the current dial.
    #[must_use]
    pub fn call_sid(&self) -> Option<&CallSid> {
        self.attempts.last()?.call_sid.as_ref()
    }

    fn step(&mut self, event: &Event) -> Outcome {
        let (relation, earlier) = self.relation(event);
        let disposition = transition(self.status, event.status(), relation);
        let number = earlier.map(|index| self.attempts[index].number);
        let reason = reason(self, event, relation, number, disposition);
        let attempt = self.count_for_attempt(event, relation, earlier, disposition);
        let (from_status, to_status) = if disposition.changes_status() {
            let from = (self.event_count > 0).then_some(self.status);
            self.enter(event);
            (from, Some(self.status))
        } else {
            (None, None)
        };

        self.event_count += 1;
        self.anomaly_count += u32::from(disposition.is_anomaly());
        self.has_errors |= event.has_errors;
        if event.client_id.is_some() {
            self.client_id.clone_from(&event.client_id);
        }
        if event.provider_status.is_some() {
            self.provider_status.clone_from(&event.provider_status);
        }
        self.updated_at = self.updated_at.max(event.received_at);
        self.last = event.position();

        Outcome { disposition, from_status, to_status, attempt, reason }
    }

    /// How the event relates to the attempts, and which earlier one it names.
    pub(super) fn relation(&self, event: &Event) -> (Relation, Option<usize>) {
        if let (Some(of_event), Some(of_call)) = (event.event_type.direction(), self.direction)
            && of_event != of_call
        {
            return (Relation::Opposite, None);
        }
        let Some((current, earlier)) = self.attempts.split_last() else {
            return (Relation::Current, None);
        };
        if let Some(sid) = &event.call_sid
            && let Some(index) = earlier.iter().position(|it| it.call_sid.as_ref() == Some(sid))
        {
            return (Relation::Earlier, Some(index));
        }
        let other_dial = matches!(
            (&event.call_sid, &current.call_sid),
            (Some(of_event), Some(of_attempt)) if of_event != of_attempt
        );
        let may_redial = event.event_type.direction() == Some(Direction::Outbound)
            && event.status().is_of_attempt()
            && !self.status.is_final();
        let dials_known = event.call_sid.is_some() && current.call_sid.is_some();
        let opens_next = other_dial || (!dials_known && current.is_over_for(event.status()));
        let relation = if may_redial && opens_next {
            Relation::Next
        } else if other_dial {
            Relation::Foreign
        } else {
            Relation::Current
        };
        (relation, None)
    }

    /// Lets the attempt take the event that it is of, opening one where it is
    /// the first of its dial; gives the attempt's number.
    fn count_for_attempt(
        &mut self,
        event: &Event,
        relation: Relation,
        earlier: Option<usize>,
        disposition: Disposition,
    ) -> Option<u32> {
        match disposition {
            Disposition::Conflicting | Disposition::Unrecognized => return None,
            Disposition::Advanced
            | Disposition::Forced
            | Disposition::Redialed
            | Disposition::Repeated
            | Disposition::Late => {}
        }
        if !event.status().is_of_attempt() {
            return None;
        }
        let ended = self.status.is_final();
        let index = match relation {
            Relation::Earlier => earlier,
            Relation::Next => None,
            Relation::Current => self.attempts.len().checked_sub(1),
            // In a call that is over, a dial that no attempt has belongs to none.
            Relation::Foreign if ended => return None,
            // An inbound call has one attempt, whatever it is called.
            Relation::Foreign => self.attempts.len().checked_sub(1),
            Relation::Opposite => return None,
        };
        match index {
            Some(index) => {
                let attempt = &mut self.attempts[index];
                attempt.take(event);
                Some(attempt.number)
            }
            None if ended => None,
            None => {
                let number = self.attempts.last().map_or(1, |last| last.number + 1);
                self.attempts.push(Attempt::open(number, event));
                Some(number)
            }
        }
    }

    /// Takes the status that the event says.
    fn enter(&mut self, event: &Event) {
        let at = event.effective_at();
        if let Some(since) = self.status_since {
            let stay = (at - since).num_microseconds().unwrap_or(i64::MAX);
            let total = self.microseconds_in_status.entry(self.status).or_default();
            *total = total.saturating_add(stay);
        }
        self.direction = self.direction.or_else(|| event.event_type.direction());
        self.status = event.status();
        self.status_since = Some(at);
        self.ended_at = self.status.is_terminal().then_some(at);
    }
}

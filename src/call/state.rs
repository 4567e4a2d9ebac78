//! The call: its fields, and how an event changes them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{
    attempt::Attempt,
    event::{Event, Position},
    fold::Fold,
    id::{CallSid, ClientId},
    reason::Reason,
    status::{Direction, Status},
    transition::{Disposition, Relation},
};

/// The state of a call after some of its events, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which side dialed; `None` before the first known event.
    pub direction: Option<Direction>,
    /// The status.
    pub status: Status,
    /// Its dials, in order.
    pub attempts: Vec<Attempt>,
    /// The party: that of the last event that has one.
    pub client_id: Option<ClientId>,
    /// The provider's own status: that of the last event that has one.
    pub provider_status: Option<String>,
    /// Whether any event carried errors or is of type ERROR.
    pub has_errors: bool,
    /// How many events it has.
    pub event_count: u32,
    /// How many of them are forced or conflicting.
    pub anomaly_count: u32,
    /// Microseconds spent in each status, without the present one.
    pub microseconds_in_status: BTreeMap<Status, i64>,
    /// When the event happened that gave it its status; `None` before the first
    /// known event.
    pub status_since: Option<DateTime<Utc>>,
    /// Whether `status_since` is the event's `occurred_at`, not its receipt.
    pub is_status_since_reported: bool,
    /// When its first event happened.
    pub first_event_at: DateTime<Utc>,
    /// When the newest of its events was received.
    pub updated_at: DateTime<Utc>,
    /// The position of its last event; its time is `last_event_at`.
    pub last: Position,
}

/// What one event did to its call, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// What the state machine did with it.
    pub disposition: Disposition,
    /// The status that the call left; `None` if the status stayed or the call
    /// began with this event.
    pub from_status: Option<Status>,
    /// The status that the call entered; `None` if the status stayed.
    pub to_status: Option<Status>,
    /// The number of the attempt that it counts for.
    pub attempt: Option<u32>,
    /// Why.
    pub reason: Reason,
}

impl Call {
    /// Begins a call with its first event.
    #[must_use]
    pub fn begin(event: &Event) -> (Self, Outcome) {
        let mut call = Self::before(event);
        let outcome = Fold::default().step(&mut call, event);
        (call, outcome)
    }

    /// A call without events, which this one is about to begin.
    pub(super) fn before(first: &Event) -> Self {
        Self {
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
            is_status_since_reported: false,
            first_event_at: first.effective_at(),
            updated_at: first.received_at,
            last: first.position(),
        }
    }

    /// Whether [`apply`](Self::apply) gives the same as a fold of all events.
    ///
    /// False where the event does not sort last, and in a call in ERROR where
    /// the event is of the current attempt: it may show that the call went on,
    /// which changes the dispositions of earlier events.
    #[must_use]
    pub fn can_apply(&self, event: &Event) -> bool {
        let sorts_last = self.last < event.position();
        let may_go_on = self.status == Status::Error
            && event.event_type.known().is_some()
            && matches!(self.relation(event), Relation::Current | Relation::Foreign);
        sorts_last && !may_go_on
    }

    /// Applies an event to the stored call.
    ///
    /// # Panics
    ///
    /// Panics unless [`can_apply`](Self::can_apply) is true: then the call must
    /// be folded again from all its events.
    pub fn apply(&mut self, event: &Event) -> Outcome {
        assert!(self.can_apply(event), "the event cannot be applied; fold the call again");
        Fold::default().step(self, event)
    }

    /// When its last event happened.
    #[must_use]
    pub fn last_event_at(&self) -> DateTime<Utc> {
        self.last.effective_at
    }

    /// When the event happened that gave the call its terminal status; `None`
    /// while the call is live.
    #[must_use]
    pub fn ended_at(&self) -> Option<DateTime<Utc>> {
        self.status_since.filter(|_| self.status.is_terminal())
    }

    /// The `call_sid` of the current attempt.
    #[must_use]
    pub fn call_sid(&self) -> Option<&CallSid> {
        self.attempts.last()?.call_sid.as_ref()
    }

    /// The number of the current attempt, 0 before the first.
    pub(super) fn attempt_number(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.number)
    }

    /// When the event happened that gave the call its status, by the provider's
    /// clock.
    pub(super) fn status_since_reported(&self) -> Option<DateTime<Utc>> {
        self.status_since.filter(|_| self.is_status_since_reported)
    }

    /// Collects what every event adds, whatever its disposition.
    pub(super) fn collect(&mut self, event: &Event, disposition: Disposition) {
        self.event_count += 1;
        self.anomaly_count += u32::from(disposition.is_anomaly());
        self.has_errors |= event.reports_errors();
        if event.client_id.is_some() {
            self.client_id.clone_from(&event.client_id);
        }
        if event.provider_status.is_some() {
            self.provider_status.clone_from(&event.provider_status);
        }
        self.updated_at = self.updated_at.max(event.received_at);
        self.last = event.position();
    }

    /// Enters the status that the event reports.
    pub(super) fn enter(&mut self, event: &Event) {
        let at = event.effective_at();
        if let Some(since) = self.status_since {
            let time = (at - since).num_microseconds().unwrap_or(i64::MAX);
            let total = self.microseconds_in_status.entry(self.status).or_default();
            *total = total.saturating_add(time);
        }
        self.direction = self.direction.or_else(|| event.event_type.direction());
        self.status = event.status();
        self.status_since = Some(at);
        self.is_status_since_reported = event.occurred_at.is_some();
    }

    /// Counts the event for the attempt that it belongs to, and opens one if
    /// the event starts it. Returns the attempt's number.
    pub(super) fn count_for_attempt(
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
            | Disposition::Late
            | Disposition::Nonfatal => {}
        }
        if !event.status().belongs_to_attempt() {
            return None;
        }
        let opens = disposition.changes_status()
            && match relation {
                Relation::Next => true,
                Relation::Current => self.attempts.is_empty(),
                // A dial that went ahead in a final call, with its own call_sid.
                Relation::Foreign => self.status.is_final(),
                Relation::Earlier | Relation::Opposite => false,
            };
        if opens {
            return Some(self.open_attempt(event));
        }
        if earlier.is_none() && self.status.is_final() && self.is_of_no_attempt(event) {
            return None;
        }
        let attempt = match earlier {
            Some(index) => self.attempts.get_mut(index),
            None => self.attempts.last_mut(),
        }?;
        attempt.add(event);
        Some(attempt.number)
    }

    fn open_attempt(&mut self, event: &Event) -> u32 {
        let number = self.attempt_number() + 1;
        if let Some(last) = self.attempts.last_mut() {
            last.end_before(event);
        }
        self.attempts.push(Attempt::open(number, event));
        number
    }
}

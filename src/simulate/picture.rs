//! A call as the scenario must have left it, and as the service shows it.
//!
//! [`Picture::of_scenario`] is the reason for this file. It says what must have
//! become of a call from what happened in it and which of that arrived, by a
//! few rules of its own that hold for the calls of [`super::scenario`] only. It
//! knows no ranks and asks no table, so that a mistake in the state machine is
//! not repeated here.
//!
//! Deliberately absent: what the scenario cannot know, such as when a delivery
//! was received; and the state machine. A test holds the two to each other.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::call::{Direction, EventType, KnownEvent, Status};

use super::plan::{PlannedCall, PlannedEvent};

/// A call, as somebody sees it. Read from JSON it is what the service answers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Picture {
    /// Who dialled; `None` while nothing known has come.
    pub direction: Option<Direction>,
    /// Where it stands.
    pub status: Status,
    /// Its dials.
    pub attempts: Vec<AttemptPicture>,
    /// The current dial.
    pub call_sid: Option<String>,
    /// The party.
    pub client_id: Option<String>,
    /// The provider's own status.
    pub provider_status: Option<String>,
    /// Whether anything failed.
    pub has_errors: bool,
    /// Seconds in each status.
    pub time_in_status: BTreeMap<Status, f64>,
    /// How many events it has.
    pub event_count: u32,
    /// How many of them are anomalies.
    pub anomaly_count: u32,
    /// When the first happened.
    pub first_event_at: DateTime<Utc>,
    /// When the last happened.
    pub last_event_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// One dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptPicture {
    /// The telephony provider's id.
    pub call_sid: Option<String>,
    /// How far it came.
    pub status: Status,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// In what two pictures differ: the member, as the one has it, as the other.
pub type Difference = (&'static str, String, String);

impl Picture {
    /// What must have become of a call of which those events arrived, however
    /// often and in whatever order. `None` where nothing arrived: there is no
    /// such call.
    #[must_use]
    pub fn of_scenario(call: &PlannedCall, arrived: impl Fn(usize) -> bool) -> Option<Self> {
        let mut events =
            call.events.iter().enumerate().filter(|(index, _)| arrived(*index)).map(|(_, it)| it);
        let first = events.next()?;
        let mut sketch = Sketch::begin(call, first);
        for event in events {
            sketch.add(event);
        }
        Some(sketch.picture)
    }

    /// In what this differs from the other.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        macro_rules! compare {
            ($($member:ident),+) => {
                // Nothing is forgotten: a new member breaks the build here.
                let Self { $($member: _),+ } = self;
                $(if self.$member != other.$member {
                    differences.push((
                        stringify!($member),
                        json(&self.$member),
                        json(&other.$member),
                    ));
                })+
            };
        }
        compare!(
            direction,
            status,
            attempts,
            call_sid,
            client_id,
            provider_status,
            has_errors,
            time_in_status,
            event_count,
            anomaly_count,
            first_event_at,
            last_event_at,
            ended_at
        );
        differences
    }
}

/// A picture in the making.
struct Sketch<'a> {
    call: &'a PlannedCall,
    picture: Picture,
    /// Since when the call has its status.
    since: Option<DateTime<Utc>>,
    /// Which dial the last attempt is, if that is known.
    dial: Option<u8>,
    /// The call before the error that it is in, if it may go back to that.
    before_error: Option<BeforeError>,
}

/// A call before an error in the middle of an attempt.
struct BeforeError {
    status: Status,
    since: Option<DateTime<Utc>>,
    time_in_status: BTreeMap<Status, f64>,
}

impl<'a> Sketch<'a> {
    fn begin(call: &'a PlannedCall, first: &PlannedEvent) -> Self {
        let picture = Picture {
            direction: None,
            status: Status::Unknown,
            attempts: Vec::new(),
            call_sid: None,
            client_id: Some(call.client_id.clone()),
            provider_status: None,
            has_errors: false,
            time_in_status: BTreeMap::new(),
            event_count: 0,
            anomaly_count: 0,
            first_event_at: first.at,
            last_event_at: first.at,
            ended_at: None,
        };
        let mut sketch = Self { call, picture, since: None, dial: None, before_error: None };
        sketch.add(first);
        sketch
    }

    /// Adds what happened next.
    fn add(&mut self, event: &PlannedEvent) {
        self.picture.event_count += 1;
        self.picture.last_event_at = event.at;
        self.picture.provider_status = Some(event.provider_status().to_owned());
        // Of an event of an unknown type nothing more is known.
        let EventType::Known(known) = event.event_type else {
            return;
        };
        let is_error = known.status() == Status::Error;
        self.picture.has_errors |= is_error || !event.step.faults.is_empty();
        if self.picture.status == Status::Unknown {
            self.picture.direction = Some(self.call.kind.direction());
        }
        if self.picture.status == Status::Canceled {
            // The dial went ahead although the call was canceled.
            self.picture.anomaly_count += 1;
        }
        if ends_the_call_only(known) {
            self.before_error = None;
        } else if self.is_of_another_dial(known, event) {
            self.before_error = None;
            self.begin_attempt(known, event);
        } else {
            self.go_on_from_error();
            self.before_error = is_error.then(|| BeforeError {
                status: self.picture.status,
                since: self.since,
                time_in_status: self.picture.time_in_status.clone(),
            });
            self.add_to_attempt(known, event);
        }
        self.enter(known.status(), event.at);
    }

    /// Whether the event is of a dial that has no attempt yet.
    fn is_of_another_dial(&self, known: KnownEvent, event: &PlannedEvent) -> bool {
        let Some(attempt) = self.picture.attempts.last() else { return true };
        // Where a conversation ends on another dial, that is a leg of it.
        let is_talking = matches!(attempt.status, Status::Calling | Status::Closing);
        let hangs_up = matches!(known, KnownEvent::OutboundClosing | KnownEvent::OutboundCompleted);
        // What was queued, or never dialled, becomes the first dial that is known.
        self.dial.is_some() && self.dial != event.step.dial && !(is_talking && hangs_up)
    }

    fn begin_attempt(&mut self, known: KnownEvent, event: &PlannedEvent) {
        if let Some(before) = self.picture.attempts.last_mut() {
            // Its outcome was lost.
            before.ended_at.get_or_insert(event.at);
        }
        self.dial = None;
        self.picture.attempts.push(AttemptPicture {
            call_sid: None,
            status: known.status(),
            started_at: event.at,
            ended_at: None,
        });
        self.add_to_attempt(known, event);
    }

    fn add_to_attempt(&mut self, known: KnownEvent, event: &PlannedEvent) {
        let attempt = self.picture.attempts.last_mut().expect("there is one by now");
        attempt.status = known.status();
        attempt.ended_at = ends_a_dial(known).then_some(event.at);
        // A leg does not rename the dial.
        if let (None, Some(dial)) = (self.dial, event.step.dial) {
            self.dial = Some(dial);
            attempt.call_sid = Some(self.call.sids[usize::from(dial)].clone());
        }
        self.picture.call_sid.clone_from(&attempt.call_sid);
    }

    /// The dial goes on, so its error changed nothing: the call is where it was.
    fn go_on_from_error(&mut self) {
        if let Some(before) = self.before_error.take() {
            self.picture.status = before.status;
            self.picture.time_in_status = before.time_in_status;
            self.since = before.since;
        }
    }

    fn enter(&mut self, status: Status, at: DateTime<Utc>) {
        if let Some(since) = self.since {
            let stay = f64::from(i32::try_from((at - since).num_seconds()).unwrap_or(i32::MAX));
            *self.picture.time_in_status.entry(self.picture.status).or_default() += stay;
        }
        // The window cannot pass while it rings; so the outcome was lost.
        let was_ringing = self.picture.status == Status::Calling;
        if status == Status::Expired && was_ringing {
            self.picture.anomaly_count += 1;
        }
        self.picture.status = status;
        self.since = Some(at);
        self.picture.ended_at = has_ended(status).then_some(at);
    }
}

/// As the interface writes it.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names, numbers and times can be written")
}

/// Whether the event ends the call as a whole and says nothing of a dial.
fn ends_the_call_only(event: KnownEvent) -> bool {
    matches!(
        event,
        KnownEvent::OutboundCanceled
            | KnownEvent::OutboundExpired
            | KnownEvent::OutboundMaxAttemptsReached
            | KnownEvent::InboundConcurrencyLimitExceeded
    )
}

/// Whether the dial has ended with the event, unless it goes on from an error.
fn ends_a_dial(event: KnownEvent) -> bool {
    matches!(
        event,
        KnownEvent::OutboundBusy
            | KnownEvent::OutboundNoResponse
            | KnownEvent::OutboundUnreachable
            | KnownEvent::OutboundError
            | KnownEvent::OutboundCompleted
            | KnownEvent::InboundError
            | KnownEvent::InboundCompleted
    )
}

/// Whether a call in that status is over, at least for now.
fn has_ended(status: Status) -> bool {
    !matches!(
        status,
        Status::Pending
            | Status::Requested
            | Status::Connecting
            | Status::Calling
            | Status::Closing
            | Status::Unknown
    )
}

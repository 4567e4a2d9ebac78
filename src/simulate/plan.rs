//! From a seed to deliveries: which calls there are, when they happen, what is
//! told of them, and what goes wrong on the way.
//!
//! What always holds: a plan is a pure function of its [`Settings`]. Each call
//! draws from streams of the seed that are its own, so a call can be planned
//! alone, in any order, as often as wanted; and what goes wrong is drawn apart
//! from what happens, so that more losses do not make other calls. The ids
//! also depend on [`Settings::at`]: a seed run again later makes the same
//! traffic of other calls, run again `at` the same moment it makes the same
//! bytes.
//!
//! Deliberately absent: HTTP, waiting, and what the deliveries should lead to.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::ChaCha8Rng};
use ring::digest::{SHA256, digest};
use uuid::Uuid;

use crate::call::{CallId, CallKey, Direction, EventType, KnownEvent, ProjectId};
use crate::recho::ProviderTimeZone;

use super::payload::{self, AuthType};
use super::scenario::{Kind, Life, Step, live};

/// After how many events a delivery that was held back, or a late copy, comes
/// at the most.
const MOST_OVERTAKEN: u32 = 3;

/// Every so many calls one has the id of the call before, in another project.
const SHARED_ID_EVERY: u64 = 50;

/// How many parties are called or call.
const CLIENTS: u32 = 5000;

/// What the provider may call events one day.
const UNKNOWN_OUTBOUND: [&str; 3] =
    ["OUTBOUND_CALL_TRANSFERRED", "OUTBOUND_CALL_VOICEMAIL_DETECTED", "OUTBOUND_CALL_ON_HOLD"];
const UNKNOWN_INBOUND: [&str; 2] = ["INBOUND_CALL_TRANSFERRED", "INBOUND_CALL_ON_HOLD"];

/// What makes a plan.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the random numbers begin with.
    pub seed: u64,
    /// When the run begins, a whole second.
    pub at: DateTime<Utc>,
    /// When the calls happen.
    pub timing: Timing,
    /// Over how many projects the calls are spread, at least one.
    pub projects: u32,
    /// What goes wrong.
    pub faults: Faults,
    /// How the provider says that deliveries prove where they come from.
    pub auth_type: AuthType,
    /// The time zone in which the provider writes times into the text.
    pub time_zone: ProviderTimeZone,
}

/// When the calls happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Timing {
    /// They ended in the time before the run, evenly spread over `past`.
    Past {
        /// How far back.
        past: TimeDelta,
    },
    /// So many calls are spread over a window, and told as it goes by.
    Window {
        /// How long it is.
        length: TimeDelta,
        /// How many calls.
        calls: u64,
        /// How many times faster than life it goes by, at least 1. Its end is
        /// the present when it has gone by.
        scale: f64,
    },
}

/// What goes wrong, each as a share of the events, 0 to 1.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Faults {
    /// Are delivered again.
    pub duplicates: f64,
    /// Are held back until later ones were delivered.
    pub reorder: f64,
    /// Never come.
    pub drop: f64,
    /// Are followed by one of a type that does not exist yet.
    pub unknown: f64,
    /// The types that the customer has switched off: these never come.
    pub switched_off: BTreeSet<KnownEvent>,
}

/// What a call draws its random numbers for. Each has its own stream.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Life = 0,
    Faults = 1,
    Sample = 2,
}

/// The traffic, call by call.
#[derive(Debug, Clone)]
pub struct Plan(Settings);

/// One call, and how it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCall {
    /// Its place in the plan, from 0.
    pub number: u64,
    /// What kind of call it is.
    pub kind: Kind,
    /// What names it.
    pub key: CallKey,
    /// The party.
    pub client_id: String,
    /// The telephony provider's ids of its dials.
    pub sids: Vec<String>,
    /// What happens, in order.
    pub events: Vec<PlannedEvent>,
    /// What is delivered of it, in the order of delivery.
    pub deliveries: Vec<PlannedDelivery>,
    auth_type: AuthType,
    time_zone: ProviderTimeZone,
}

/// One event of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedEvent {
    /// What it is called.
    pub event_type: EventType,
    /// When it happens: a whole second, and no other event of the call has it.
    pub at: DateTime<Utc>,
    /// What it tells, but for its type where that is an unknown one.
    pub step: Step,
    /// Whether it never comes.
    pub is_lost: bool,
}

/// One delivery of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedDelivery {
    /// Which of the call's events.
    pub event: usize,
    /// Whether the event was delivered before.
    pub is_copy: bool,
    /// Whether it goes to the project's second endpoint, as a copy may.
    pub to_second_endpoint: bool,
    /// When it is sent, in simulated time.
    pub due: DateTime<Utc>,
}

impl Plan {
    /// Makes a plan.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(settings)
    }

    /// What it is made of.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0
    }

    /// The call of that number.
    #[must_use]
    pub fn call(&self, number: u64) -> PlannedCall {
        let rng = &mut self.stream(number, Purpose::Life);
        let project = rng.random_range(0..self.0.projects);
        let place: f64 = rng.random();
        let kind = Kind::draw(rng);
        let client = rng.random_range(1..=CLIENTS);
        let life = live(kind, rng);
        let dials = life.steps.iter().filter_map(|step| step.dial).max().map_or(0, |last| last + 1);
        let sids = (0..dials).map(|dial| self.sid(number, dial)).collect();

        let rng = &mut self.stream(number, Purpose::Faults);
        let events = self.events(&life, self.begin(number, &life, place), rng);
        let deliveries = deliveries(&events, &self.0.faults, rng);
        PlannedCall {
            number,
            kind,
            key: self.key(number, project),
            // As the projects, the parties are the same in every run of the seed.
            client_id: uuid(sha256(&format!("{} client {client}", self.0.seed))),
            sids,
            events,
            deliveries,
            auth_type: self.0.auth_type,
            time_zone: self.0.time_zone,
        }
    }

    /// Whether the call is of a sample of that share.
    #[must_use]
    pub fn is_sampled(&self, number: u64, share: f64) -> bool {
        self.stream(number, Purpose::Sample).random_bool(share)
    }

    /// How long after the start of the run something is told that happens at
    /// that time; `None` where it does not matter.
    #[must_use]
    pub fn offset(&self, at: DateTime<Utc>) -> Option<Duration> {
        match self.0.timing {
            Timing::Past { .. } => None,
            Timing::Window { length, scale, .. } => {
                let opens = self.0.at - length + scaled(length, 1.0 / scale);
                // What began before the window opens is told at once.
                Some(scaled(at - opens, 1.0 / scale).to_std().unwrap_or_default())
            }
        }
    }

    fn stream(&self, number: u64, purpose: Purpose) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.0.seed);
        rng.set_stream((number << 2) | purpose as u64);
        rng
    }

    /// When the call begins.
    fn begin(&self, number: u64, life: &Life, place: f64) -> DateTime<Utc> {
        // One more for an unknown event after the last.
        let length = life.steps.last().map_or(0, |step| step.after) + 1;
        let length = TimeDelta::seconds(length.into());
        let begin = match self.0.timing {
            Timing::Past { past } => self.0.at - scaled(past, place) - length,
            Timing::Window { length: window, calls, scale } => {
                let closes = self.0.at + scaled(window, 1.0 / scale);
                let room = (window - length).max(TimeDelta::zero());
                #[expect(clippy::cast_precision_loss, reason = "a place need not be exact")]
                let place = (number as f64 + place) / calls.max(1) as f64;
                closes - length - room + scaled(room, place)
            }
        };
        DateTime::from_timestamp(begin.timestamp(), 0).expect("a second of what is a time")
    }

    fn events(&self, life: &Life, begin: DateTime<Utc>, rng: &mut impl Rng) -> Vec<PlannedEvent> {
        let faults = &self.0.faults;
        let mut events = Vec::with_capacity(life.steps.len());
        for step in &life.steps {
            let at = begin + TimeDelta::seconds(step.after.into());
            events.push(PlannedEvent {
                event_type: EventType::Known(step.event),
                at,
                step: *step,
                is_lost: rng.random_bool(faults.drop) | faults.switched_off.contains(&step.event),
            });
            if rng.random_bool(faults.unknown) {
                let names = match life.kind.direction() {
                    Direction::Outbound => &UNKNOWN_OUTBOUND[..],
                    Direction::Inbound => &UNKNOWN_INBOUND[..],
                };
                let name = names[rng.random_range(0..names.len())];
                events.push(PlannedEvent {
                    event_type: EventType::of(name),
                    at: at + TimeDelta::seconds(1),
                    step: Step { faults: &[], ..*step },
                    is_lost: rng.random_bool(faults.drop),
                });
            }
        }
        events
    }

    fn key(&self, number: u64, project: u32) -> CallKey {
        let is_shared = self.0.projects > 1 && number % SHARED_ID_EVERY == SHARED_ID_EVERY - 1;
        let (named_like, project) = if is_shared {
            let before = self.stream(number - 1, Purpose::Life).random_range(0..self.0.projects);
            (number - 1, (before + 1) % self.0.projects)
        } else {
            (number, project)
        };
        let call_id = self.hashed(&format!("call {named_like}"));
        // The projects are the same in every run of the seed.
        let project_id = uuid(sha256(&format!("{} project {project}", self.0.seed)));
        CallKey {
            call_id: CallId::new(uuid(call_id)).expect("a UUID is an identifier"),
            project_id: ProjectId::new(project_id).expect("a UUID is an identifier"),
        }
    }

    fn sid(&self, number: u64, dial: u8) -> String {
        let hash = self.hashed(&format!("call {number} dial {dial}"));
        hash[..16].iter().fold("CA".to_owned(), |mut sid, byte| {
            write!(sid, "{byte:02x}").expect("a String takes all");
            sid
        })
    }

    fn hashed(&self, what: &str) -> [u8; 32] {
        sha256(&format!("{} {} {what}", self.0.seed, self.0.at.timestamp()))
    }
}

impl PlannedCall {
    /// The bytes of a delivery, as the provider writes them.
    #[must_use]
    pub fn body(&self, delivery: &PlannedDelivery) -> Vec<u8> {
        self.body_of(delivery.event, delivery.to_second_endpoint)
    }

    /// The bytes of an event's delivery to one of the endpoints.
    ///
    /// # Panics
    ///
    /// Where the call has no such event.
    #[must_use]
    pub fn body_of(&self, event: usize, to_second_endpoint: bool) -> Vec<u8> {
        let event = &self.events[event];
        payload::write(&payload::Facts {
            key: &self.key,
            event_type: event.event_type.as_str(),
            provider_status: event.provider_status(),
            call_sid: event.step.dial.map(|dial| self.sids[usize::from(dial)].as_str()),
            client_id: &self.client_id,
            at: event.at,
            local_at: self.time_zone.to_local(event.at),
            faults: event.step.faults,
            to_second_endpoint,
            auth_type: self.auth_type,
        })
    }
}

impl PlannedEvent {
    /// The provider's own status of the call at that moment.
    #[must_use]
    pub fn provider_status(&self) -> &str {
        match &self.event_type {
            EventType::Known(_) => self.step.provider_status,
            EventType::Unrecognized(name) => {
                name.split_once("_CALL_").map_or(name.as_str(), |(_, status)| status)
            }
        }
    }
}

/// Puts the deliveries in order: each event at its place, those held back and
/// late copies some places after it.
fn deliveries(
    events: &[PlannedEvent],
    faults: &Faults,
    rng: &mut impl Rng,
) -> Vec<PlannedDelivery> {
    let mut placed = Vec::with_capacity(events.len());
    let mut place = 0;
    for (event, planned) in events.iter().enumerate() {
        // Drawn for lost events too, so that a loss changes nothing else.
        let is_held_back = rng.random_bool(faults.reorder);
        let held_back_by = 2 * rng.random_range(1..=MOST_OVERTAKEN);
        let is_repeated = rng.random_bool(faults.duplicates);
        let comes_late = rng.random_bool(0.5);
        let late_by = 2 * rng.random_range(1..=MOST_OVERTAKEN);
        let to_second_endpoint = rng.random_bool(0.3);
        if planned.is_lost {
            continue;
        }
        let delivery =
            PlannedDelivery { event, is_copy: false, to_second_endpoint: false, due: planned.at };
        let first = place + if is_held_back { held_back_by + 1 } else { 0 };
        placed.push((first, delivery));
        if is_repeated {
            let again = first + if comes_late { late_by } else { 0 } + 1;
            placed.push((again, PlannedDelivery { is_copy: true, to_second_endpoint, ..delivery }));
        }
        place += 2;
    }
    // What shares a place stays in the order of the events.
    placed.sort_by_key(|(place, _)| *place);
    let mut due = DateTime::<Utc>::MIN_UTC;
    placed
        .into_iter()
        .map(|(_, delivery)| {
            // Nothing is told before it happens: what overtakes waits for nobody,
            // what is held back is sent with what it follows.
            due = due.max(delivery.due);
            PlannedDelivery { due, ..delivery }
        })
        .collect()
}

fn scaled(span: TimeDelta, by: f64) -> TimeDelta {
    #[expect(clippy::cast_precision_loss, reason = "a part of a second does not matter")]
    let milliseconds = span.num_milliseconds() as f64 * by;
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
    TimeDelta::try_milliseconds(milliseconds as i64).unwrap_or(TimeDelta::MAX)
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

/// A UUID of version 8 made of a hash.
fn uuid(hash: [u8; 32]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Uuid::new_v8(bytes).to_string()
}

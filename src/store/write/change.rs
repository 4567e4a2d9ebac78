//! The effect of a batch on one call, decided without the database.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::recorder::{RecordResult, Recorded};
use crate::{
    call::{
        Call, CallKey, ClientId, Delivery, Direction, Event, EventType, Fingerprint, Outcome,
        Receipts, Status, fold,
    },
    store::{
        calls::StoredCall,
        codec::as_int,
        events::row::{Derived, StoredEvent},
    },
};

/// The effect of a batch on one call.
pub(super) struct Change<'a> {
    pub(super) key: &'a CallKey,
    /// The deliveries for the call, by their index in the batch.
    deliveries: Vec<usize>,
    /// The distinct events among them, in the order of the batch; those that are
    /// stored already move to `repeated`.
    pub(super) new: Vec<Arrival<'a>>,
    pub(super) repeated: Vec<Arrival<'a>>,
    /// What is known of the stored call.
    pub(super) origin: Origin,
    /// The number of the call; 0 until it has one.
    pub(super) id: i64,
    /// The call: as it is stored, then as it is to be.
    pub(super) call: Option<Call>,
    /// When the last delivery for it was received.
    pub(super) last_delivered_at: Option<DateTime<Utc>>,
    /// The fingerprints of all its events, where they are known.
    pub(super) fingerprints: Option<Vec<Fingerprint>>,
    /// The effect of each of `new`.
    pub(super) effects: Vec<Effect>,
    /// Stored events whose outcome changes.
    pub(super) amended: Vec<Amended>,
    pub(super) is_written: bool,
}

/// What is known of the stored call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing yet.
    Unknown,
    /// It is not stored, or was not when it was last looked for.
    Absent,
    /// It is stored in this version.
    Stored(i32),
}

impl Origin {
    /// The version to be written.
    pub(super) fn next_version(self) -> i32 {
        match self {
            Self::Unknown | Self::Absent => 1,
            Self::Stored(version) => version.saturating_add(1),
        }
    }
}

/// The effect of a new event, and its call after it was applied; where the call was
/// folded again, after all new events.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "they are the columns of a row")]
pub(super) struct Effect {
    pub(super) outcome: Outcome,
    pub(super) direction: Option<Direction>,
    pub(super) status: Status,
    pub(super) attempt_count: usize,
    pub(super) has_errors: bool,
    pub(super) updated_at: DateTime<Utc>,
    /// Whether an attempt of the call had the event's `call_sid` before.
    pub(super) repeats_call_sid: bool,
    /// Whether it moved the `first_event_at` of a stored call.
    pub(super) moves_call: bool,
    /// Whether its client differs from that of other events of the call.
    pub(super) changes_client: bool,
}

impl Effect {
    fn of(outcome: Outcome, call: &Call, repeats_call_sid: bool) -> Self {
        let &Call { direction, status, has_errors, updated_at, .. } = call;
        Self {
            outcome,
            direction,
            status,
            attempt_count: call.attempts.len(),
            has_errors,
            updated_at,
            repeats_call_sid,
            moves_call: false,
            changes_client: false,
        }
    }
}

/// A stored event whose outcome changes.
pub(super) struct Amended {
    pub(super) fingerprint: Fingerprint,
    pub(super) event_type: EventType,
    pub(super) derived: Derived,
}

/// Whether an attempt of the call has the event's `call_sid`.
fn has_call_sid(call: Option<&Call>, event: &Event) -> bool {
    let (Some(call), Some(call_sid)) = (call, &event.call_sid) else {
        return false;
    };
    call.attempts.iter().any(|attempt| attempt.call_sid.as_ref() == Some(call_sid))
}

/// Whether both name a client, and not the same one.
fn differ(client: Option<&ClientId>, other: Option<&ClientId>) -> bool {
    client.zip(other).is_some_and(|(client, other)| client != other)
}

/// An event that the batch contains once or more.
pub(super) struct Arrival<'a> {
    pub(super) delivery: &'a Delivery,
    /// The number of its deliveries in the batch.
    pub(super) deliveries: i32,
    /// The number of its deliveries in all, as another store counted them; 0 without one.
    pub(super) in_all: i32,
    pub(super) last_delivered_at: DateTime<Utc>,
}

impl<'a> Arrival<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        let (deliveries, in_all, last_delivered_at) = match delivery.receipts {
            Receipts::Once => (1, 0, delivery.event.received_at),
            Receipts::InAll { deliveries, last_delivered_at } => {
                (0, as_int(deliveries), last_delivered_at)
            }
        };
        Self { delivery, deliveries, in_all, last_delivered_at }
    }

    /// Adds another delivery of the same event.
    fn merge(&mut self, other: &Arrival<'_>) {
        self.deliveries += other.deliveries;
        self.in_all = self.in_all.max(other.in_all);
        self.last_delivered_at = self.last_delivered_at.max(other.last_delivered_at);
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.delivery.event.fingerprint
    }
}

/// The deliveries of a batch that are still to be recorded, by call, in key order.
pub(super) fn group(
    batch: &[Delivery],
    pending: impl Iterator<Item = usize>,
) -> BTreeMap<&CallKey, Change<'_>> {
    let mut changes: BTreeMap<&CallKey, Change<'_>> = BTreeMap::new();
    for index in pending {
        let key = &batch[index].key;
        changes.entry(key).or_insert_with(|| Change::of(key)).add(index, &batch[index]);
    }
    changes
}

impl<'a> Change<'a> {
    pub(super) fn of(key: &'a CallKey) -> Self {
        Self {
            key,
            deliveries: Vec::new(),
            new: Vec::new(),
            repeated: Vec::new(),
            origin: Origin::Unknown,
            id: 0,
            call: None,
            last_delivered_at: None,
            fingerprints: None,
            effects: Vec::new(),
            amended: Vec::new(),
            is_written: false,
        }
    }

    fn add(&mut self, index: usize, delivery: &'a Delivery) {
        self.deliveries.push(index);
        let arrival = Arrival::of(delivery);
        self.last_delivered_at = self.last_delivered_at.max(Some(arrival.last_delivered_at));
        match self.new.iter_mut().find(|it| it.fingerprint() == arrival.fingerprint()) {
            Some(same) => same.merge(&arrival),
            None => self.new.push(arrival),
        }
    }

    /// Whether one of its events is of a type with which calls begin, so that it is
    /// worth trying to insert the call without looking for it.
    pub(super) fn may_be_new(&self) -> bool {
        self.new.iter().any(|arrival| match arrival.delivery.event.event_type {
            EventType::Known(known) => known.spec().begins_call,
            EventType::Unrecognized(_) => false,
        })
    }

    /// Assumes that the call is not stored.
    pub(super) fn assume_absent(&mut self) {
        self.origin = Origin::Absent;
        self.fingerprints = Some(Vec::new());
    }

    /// Takes over the stored call, and its fingerprints where they are known.
    pub(super) fn load(&mut self, stored: StoredCall, fingerprints: Option<Vec<Fingerprint>>) {
        self.origin = Origin::Stored(stored.version);
        self.id = stored.id;
        self.call = Some(stored.call);
        self.last_delivered_at = self.last_delivered_at.max(Some(stored.last_delivered_at));
        if let Some(known) = &fingerprints {
            self.separate_repeated(|fingerprint| known.contains(&fingerprint));
        }
        self.fingerprints = fingerprints;
    }

    /// Moves the events that are stored already to `repeated`.
    pub(super) fn separate_repeated(&mut self, is_stored: impl Fn(Fingerprint) -> bool) {
        let (repeated, new): (Vec<_>, Vec<_>) = std::mem::take(&mut self.new)
            .into_iter()
            .partition(|arrival| is_stored(arrival.fingerprint()));
        self.repeated.extend(repeated);
        self.new = new;
    }

    /// Applies the new events to the stored call. False where one of them cannot be
    /// applied to it alone: then the call must be folded again.
    pub(super) fn append(&mut self) -> bool {
        self.new.sort_by_key(|arrival| arrival.delivery.event.position());
        // Only a later event can fail after an earlier one was applied.
        let before = (self.new.len() > 1).then(|| self.call.clone());
        for arrival in &self.new {
            let event = &arrival.delivery.event;
            let repeats_call_sid = has_call_sid(self.call.as_ref(), event);
            let client_before = self.call.as_ref().and_then(|call| call.client_id.as_ref());
            let changes_client = differ(client_before, event.client_id.as_ref());
            let effect = match &mut self.call {
                Some(call) if !call.can_apply(event) => {
                    self.effects.clear();
                    if let Some(before) = before {
                        self.call = before;
                    }
                    return false;
                }
                Some(call) => {
                    let outcome = call.apply(event);
                    Effect::of(outcome, call, repeats_call_sid)
                }
                none => {
                    let (begun, outcome) = Call::begin(event);
                    Effect::of(outcome, none.insert(begun), repeats_call_sid)
                }
            };
            self.effects.push(Effect { changes_client, ..effect });
        }
        self.remember_new();
        true
    }

    /// Folds the call from its stored events and the new ones. Without events there is
    /// no call.
    pub(super) fn fold_again(&mut self, history: &[StoredEvent]) {
        // The history was read after the call: another writer may have stored the same events in
        // between. It changed the version, so this is decided again; and yet no event is folded
        // twice.
        let stored: HashSet<Fingerprint> =
            history.iter().map(|stored| stored.event.fingerprint).collect();
        self.separate_repeated(|fingerprint| stored.contains(&fingerprint));
        let mut events: Vec<&Event> = history
            .iter()
            .map(|stored| &stored.event)
            .chain(self.new.iter().map(|arrival| &arrival.delivery.event))
            .collect();
        let Some((call, outcomes)) = fold(&mut events) else {
            self.call = None;
            return;
        };
        let mut by_fingerprint: HashMap<Fingerprint, Outcome> =
            events.iter().map(|event| event.fingerprint).zip(outcomes).collect();
        let before = self.call.as_ref();
        let clients: HashSet<&ClientId> =
            events.iter().filter_map(|event| event.client_id.as_ref()).collect();
        self.effects = self
            .new
            .iter()
            .filter_map(|arrival| {
                let event = &arrival.delivery.event;
                let outcome = by_fingerprint.remove(&event.fingerprint)?;
                let moves_call =
                    before.is_some_and(|before| event.effective_at() < before.first_event_at);
                let changes_client =
                    clients.iter().any(|client| differ(Some(client), event.client_id.as_ref()));
                let effect = Effect::of(outcome, &call, has_call_sid(before, event));
                Some(Effect { moves_call, changes_client, ..effect })
            })
            .collect();
        self.amended = history
            .iter()
            .filter_map(|stored| {
                let fingerprint = stored.event.fingerprint;
                let derived = Derived::of(&stored.event, by_fingerprint.remove(&fingerprint)?);
                let event_type = stored.event.event_type.clone();
                (derived != stored.derived).then_some(Amended { fingerprint, event_type, derived })
            })
            .collect();
        self.call = Some(call);
        let delivered_at = history.iter().map(|stored| stored.last_delivered_at).max();
        self.last_delivered_at = self.last_delivered_at.max(delivered_at);
        self.fingerprints = Some(stored.into_iter().collect());
        self.remember_new();
    }

    /// Adds the new events to the known fingerprints.
    fn remember_new(&mut self) {
        if let Some(fingerprints) = &mut self.fingerprints {
            fingerprints.extend(self.new.iter().map(Arrival::fingerprint));
        }
    }

    /// The new events and their effects.
    pub(super) fn new_events(&self) -> impl Iterator<Item = (&Arrival<'a>, &Effect)> {
        self.new.iter().zip(&self.effects)
    }

    /// Notes the result of each delivery: the first one of a new event stored it, any
    /// other is a repetition.
    pub(super) fn note_results(&self, batch: &[Delivery], recorded: &mut [Option<Recorded>]) {
        let Some(status) = self.call.as_ref().map(|call| call.status) else {
            return;
        };
        for &index in &self.deliveries {
            let event_id = batch[index].event_id;
            recorded[index] = Some(Recorded { event_id, result: RecordResult::Duplicate(status) });
        }
        for (arrival, effect) in self.new_events() {
            let first = self
                .deliveries
                .iter()
                .find(|index| batch[**index].event.fingerprint == arrival.fingerprint());
            if let Some(result) = first.and_then(|index| recorded[*index].as_mut()) {
                result.result = RecordResult::Stored(effect.outcome.disposition, status);
            }
        }
    }
}

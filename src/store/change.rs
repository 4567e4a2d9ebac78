//! What a batch does to one call: decided here, without the database.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::{
    calls::StoredCall,
    events::{Derived, StoredEvent, as_int},
    record::Recorded,
};
use crate::call::{
    Call, CallKey, Delivery, Direction, Event, Fingerprint, Outcome, Receipts, Status, fold,
};

/// What becomes of one call.
pub(super) struct Change<'a> {
    pub(super) key: &'a CallKey,
    /// The deliveries that are about it, as places in the batch.
    deliveries: Vec<usize>,
    /// The distinct events among them, in the order of the batch; those that
    /// turn out to be stored already move to `repeated`.
    pub(super) new: Vec<Arrival<'a>>,
    pub(super) repeated: Vec<Arrival<'a>>,
    /// Whether it is known how the call is stored.
    pub(super) is_known: bool,
    /// The version that is stored, 0 where there is none.
    pub(super) version: i64,
    /// The call: as it is stored, then as it is to be.
    pub(super) call: Option<Call>,
    /// How many of its attempts are stored apart, where that is known and they may stay.
    attempts_before: Option<usize>,
    /// When a delivery for it last came.
    pub(super) last_delivered_at: Option<DateTime<Utc>>,
    /// All the events that it has, where that is known.
    pub(super) fingerprints: Option<Vec<Fingerprint>>,
    /// What each of `new` did.
    pub(super) outcomes: Vec<Outcome>,
    /// How the call stood once each of `new` was applied; where it was folded
    /// again, as it stands after all of them.
    pub(super) standings: Vec<Standing>,
    /// Stored events from which something else turns out to follow.
    pub(super) amended: Vec<(Fingerprint, Derived)>,
    pub(super) is_written: bool,
}

/// How a call stands after an event, in short.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) direction: Option<Direction>,
    pub(super) status: Status,
    pub(super) attempt_count: usize,
    pub(super) has_errors: bool,
    pub(super) updated_at: DateTime<Utc>,
    /// Whether it had an attempt of the event's dial already before.
    pub(super) repeats_dial: bool,
}

impl Standing {
    fn of(call: &Call, repeats_dial: bool) -> Self {
        let &Call { direction, status, has_errors, updated_at, .. } = call;
        let attempt_count = call.attempts.len();
        Self { direction, status, attempt_count, has_errors, updated_at, repeats_dial }
    }
}

/// Whether a call has an attempt of the event's dial.
fn has_dial(call: Option<&Call>, event: &Event) -> bool {
    let (Some(call), Some(dial)) = (call, &event.call_sid) else {
        return false;
    };
    call.attempts.iter().any(|attempt| attempt.call_sid.as_ref() == Some(dial))
}

/// How many attempts at least stand in the row of a call, and fewer than twice as many:
/// few calls have more. The others stand apart, so that an event does not write them
/// again.
const ATTEMPTS: usize = 8;

/// Which attempts are stored apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Apart {
    /// How many, from the first.
    pub(super) attempts: usize,
    /// Whether they are others than are stored.
    pub(super) is_changed: bool,
}

/// An event that the batch holds once or more.
pub(super) struct Arrival<'a> {
    pub(super) delivery: &'a Delivery,
    /// How often it came here.
    pub(super) deliveries: i32,
    /// How often it came in all, by the count of another store; 0 without one.
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
    fn join(&mut self, other: &Arrival<'_>) {
        self.deliveries += other.deliveries;
        self.in_all = self.in_all.max(other.in_all);
        self.last_delivered_at = self.last_delivered_at.max(other.last_delivered_at);
    }

    fn fingerprint(&self) -> Fingerprint {
        self.delivery.event.fingerprint
    }
}

/// The deliveries of a batch that are still to be recorded, by call, in key
/// order.
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
            is_known: false,
            version: 0,
            call: None,
            attempts_before: None,
            last_delivered_at: None,
            fingerprints: None,
            outcomes: Vec::new(),
            standings: Vec::new(),
            amended: Vec::new(),
            is_written: false,
        }
    }

    fn add(&mut self, index: usize, delivery: &'a Delivery) {
        self.deliveries.push(index);
        let arrival = Arrival::of(delivery);
        self.last_delivered_at = self.last_delivered_at.max(Some(arrival.last_delivered_at));
        match self.new.iter_mut().find(|it| it.fingerprint() == arrival.fingerprint()) {
            Some(same) => same.join(&arrival),
            None => self.new.push(arrival),
        }
    }

    /// Whether its events are such as calls begin with, so that it is worth
    /// trying to write the call without looking whether there is one.
    pub(super) fn seems_new(&self) -> bool {
        self.new.iter().any(|arrival| {
            matches!(arrival.delivery.event.status(), Status::Pending | Status::Connecting)
        })
    }

    /// Takes it that no such call is stored.
    pub(super) fn is_absent(&mut self) {
        self.is_known = true;
        self.attempts_before = Some(0);
        self.fingerprints = Some(Vec::new());
    }

    /// Takes note of the call as it is stored.
    pub(super) fn is_stored(
        &mut self,
        stored: StoredCall,
        attempts_before: usize,
        fingerprints: Option<Vec<Fingerprint>>,
    ) {
        self.is_known = true;
        self.attempts_before = Some(attempts_before);
        self.version = stored.version;
        self.call = Some(stored.call);
        self.last_delivered_at = self.last_delivered_at.max(Some(stored.last_delivered_at));
        if let Some(known) = &fingerprints {
            self.set_apart(|fingerprint| known.contains(&fingerprint));
        }
        self.fingerprints = fingerprints;
    }

    /// Sets those events apart that are stored already.
    pub(super) fn set_apart(&mut self, is_stored: impl Fn(Fingerprint) -> bool) {
        let (repeated, new): (Vec<_>, Vec<_>) = std::mem::take(&mut self.new)
            .into_iter()
            .partition(|arrival| is_stored(arrival.fingerprint()));
        self.repeated.extend(repeated);
        self.new = new;
    }

    /// Applies the new events to the stored call, if they sort after all that it
    /// has; tells whether they did.
    pub(super) fn append(&mut self) -> bool {
        let sorts_last = |arrival: &Arrival<'_>| {
            self.call.as_ref().is_none_or(|call| call.is_before(arrival.delivery.event.position()))
        };
        if !self.new.iter().all(sorts_last) {
            return false;
        }
        // The order of the batch says nothing; the outcomes follow the events.
        self.new.sort_by_key(|arrival| arrival.delivery.event.position());
        for arrival in &self.new {
            let event = &arrival.delivery.event;
            let repeats_dial = has_dial(self.call.as_ref(), event);
            let (standing, outcome) = if let Some(call) = &mut self.call {
                let outcome = call.apply(event);
                (Standing::of(call, repeats_dial), outcome)
            } else {
                let (call, outcome) = Call::begin(event);
                (Standing::of(self.call.insert(call), repeats_dial), outcome)
            };
            self.outcomes.push(outcome);
            self.standings.push(standing);
        }
        self.learn();
        true
    }

    /// Folds the call from its stored events and the new ones; there is no call
    /// where there are none of either.
    pub(super) fn fold_again(&mut self, history: &[StoredEvent]) {
        // Any attempt may be another now.
        self.attempts_before = self.attempts_before.filter(|before| *before == 0);
        // The history was read after the call: another writer may have stored the same events in
        // between. It changed the version with that, so this is decided anew; and yet no event is
        // ever folded twice.
        let stored: HashSet<Fingerprint> =
            history.iter().map(|stored| stored.event.fingerprint).collect();
        self.set_apart(|fingerprint| stored.contains(&fingerprint));
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
        self.outcomes = self
            .new
            .iter()
            .filter_map(|arrival| by_fingerprint.remove(&arrival.fingerprint()))
            .collect();
        self.amended = history
            .iter()
            .filter_map(|stored| {
                let fingerprint = stored.event.fingerprint;
                let outcome = by_fingerprint.remove(&fingerprint)?;
                let derived = Derived::of(self.key, &stored.event, outcome);
                (derived != stored.derived).then_some((fingerprint, derived))
            })
            .collect();
        let before = self.call.as_ref();
        let standing =
            |arrival: &Arrival<'_>| Standing::of(&call, has_dial(before, &arrival.delivery.event));
        self.standings = self.new.iter().map(standing).collect();
        self.call = Some(call);
        let delivered_at = history.iter().map(|stored| stored.last_delivered_at).max();
        self.last_delivered_at = self.last_delivered_at.max(delivered_at);
        self.fingerprints = Some(stored.into_iter().collect());
        self.learn();
    }

    /// Which of the call's attempts are to be stored apart.
    pub(super) fn apart(&self, call: &Call) -> Apart {
        let count = call.attempts.len();
        let is_touched = |before: usize| {
            let mut numbers = self.outcomes.iter().filter_map(|outcome| outcome.attempt);
            numbers.any(|number| usize::try_from(number).is_ok_and(|it| it <= before))
        };
        match self.attempts_before {
            Some(before) if count - before < 2 * ATTEMPTS => {
                Apart { attempts: before, is_changed: is_touched(before) }
            }
            None if count < 2 * ATTEMPTS => Apart { attempts: 0, is_changed: true },
            _ => Apart { attempts: count - ATTEMPTS, is_changed: true },
        }
    }

    /// Counts the new events among those that the call has.
    fn learn(&mut self) {
        if let Some(fingerprints) = &mut self.fingerprints {
            fingerprints.extend(self.new.iter().map(Arrival::fingerprint));
        }
    }

    /// The new events, what each did, and how the call then stood.
    pub(super) fn told(&self) -> impl Iterator<Item = (&Arrival<'a>, &Outcome, &Standing)> {
        let outcomes = self.outcomes.iter().zip(&self.standings);
        self.new.iter().zip(outcomes).map(|(arrival, (outcome, call))| (arrival, outcome, call))
    }

    /// Tells what became of each delivery: the first of a new event made it, any
    /// other is a repetition.
    pub(super) fn answer(&self, batch: &[Delivery], recorded: &mut [Option<Recorded>]) {
        let Some(status) = self.call.as_ref().map(|call| call.status) else {
            return;
        };
        for &index in &self.deliveries {
            let event_id = batch[index].event_id;
            recorded[index] = Some(Recorded { event_id, disposition: None, status });
        }
        for (arrival, outcome) in self.new.iter().zip(&self.outcomes) {
            let first = self
                .deliveries
                .iter()
                .find(|index| batch[**index].event.fingerprint == arrival.fingerprint());
            if let Some(answer) = first.and_then(|index| recorded[*index].as_mut()) {
                answer.disposition = Some(outcome.disposition);
            }
        }
    }
}

//! The write path: a batch of deliveries and what they do to their calls.
//!
//! [`record`] reads the calls that the batch is about, lets the domain decide,
//! and writes the events and the calls as they now are. No lock is held between
//! reading and writing: a call is replaced only in the version that was read
//! (compare and swap), and an event is inserted only where its call was. So the
//! write is one statement, atomic for each call; what lost against another
//! writer is read and decided again, then under row locks, taken in key order.
//!
//! Almost every event sorts after all that its call has, and is applied to the
//! stored call. Where one does not, the call is folded again from all its
//! events, and those after it whose outcome changed are amended in the same
//! transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, types::Json};
use uuid::Uuid;

use super::{
    Error,
    calls::{self, CallRow, StoredCall},
    events::{self, Amendment, Repetition, StoredEvent, columns},
    write::write,
};
use crate::call::{
    Attempt, Call, CallKey, Delivery, Direction, Disposition, Event, Fingerprint, Outcome, Status,
    fold,
};

/// How often a call that other writers keep changing is tried. The second try
/// locks the rows, so only a call that is created meanwhile takes more.
const MAX_ROUNDS: u32 = 8;

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The event that it is.
    pub event_id: Uuid,
    /// What the event did, or `None` if it had been stored before.
    pub disposition: Option<Disposition>,
    /// The call's status after it.
    pub status: Status,
}

/// Commits a batch of deliveries, all of calls in one bucket, with all that
/// they do. Gives what became of each, in their order.
///
/// # Errors
///
/// Where the database refuses, a row cannot be, or other writers kept changing
/// the calls. Calls are committed one by one or together, never by halves; a
/// batch that failed may be given again as it is.
pub async fn record(
    conn: &mut PgConnection,
    bucket: i32,
    batch: &[Delivery],
) -> Result<Vec<Recorded>, Error> {
    let mut recorded = vec![None; batch.len()];
    for round in 0..MAX_ROUNDS {
        let pending: Vec<usize> =
            (0..batch.len()).filter(|index| recorded[*index].is_none()).collect();
        if pending.is_empty() {
            break;
        }
        let mut changes = group(batch, &pending);
        if round == 0 {
            change(&mut *conn, bucket, &mut changes).await?;
        } else {
            let mut tx = conn.begin().await?;
            lock(&mut tx, bucket, changes.keys().copied()).await?;
            change(&mut tx, bucket, &mut changes).await?;
            tx.commit().await?;
        }
        for change in changes.values().filter(|change| change.is_written) {
            change.answer(batch, &mut recorded);
        }
    }
    recorded
        .into_iter()
        .collect::<Option<Vec<Recorded>>>()
        .ok_or(Error::Contended { rounds: MAX_ROUNDS })
}

/// Folds these calls, all in one bucket, again from their events and writes what
/// differs from the store. A call of which there are no events goes.
///
/// # Errors
///
/// As [`record`].
pub async fn refold(conn: &mut PgConnection, bucket: i32, keys: &[&CallKey]) -> Result<(), Error> {
    let mut pending = keys.to_vec();
    for _ in 0..MAX_ROUNDS {
        if pending.is_empty() {
            return Ok(());
        }
        let mut tx = conn.begin().await?;
        lock(&mut tx, bucket, pending.iter().copied()).await?;
        let mut stored = calls::of_keys(&mut *tx, bucket, &pending).await?;
        let mut events = events::of_calls(&mut *tx, bucket, &pending).await?;
        let mut changes: BTreeMap<&CallKey, Change<'_>> = BTreeMap::new();
        for key in pending.iter().copied() {
            let mut change = Change::of(key);
            change.stored = stored.remove(key);
            change.fold_again(&events.remove(key).unwrap_or_default());
            changes.insert(key, change);
        }
        commit(&mut tx, bucket, &mut changes).await?;
        let empty: Vec<&CallKey> =
            changes.values().filter(|it| it.call.is_none()).map(|it| it.key).collect();
        calls::remove(&mut tx, bucket, &empty).await?;
        tx.commit().await?;
        pending.retain(|key| {
            changes.get(key).is_some_and(|change| change.call.is_some() && !change.is_written)
        });
    }
    Err(Error::Contended { rounds: MAX_ROUNDS })
}

/// What becomes of one call.
pub(super) struct Change<'a> {
    pub(super) key: &'a CallKey,
    /// The deliveries that are about it, as places in the batch.
    deliveries: Vec<usize>,
    /// The distinct events among them, in the order of the batch; those that
    /// turn out to be stored already move to `repeated`.
    pub(super) new: Vec<Arrival<'a>>,
    repeated: Vec<Arrival<'a>>,
    pub(super) stored: Option<StoredCall>,
    /// The call as it is to be.
    pub(super) call: Option<Call>,
    /// When a delivery for it last came.
    pub(super) last_delivered_at: Option<DateTime<Utc>>,
    /// What each of `new` did.
    pub(super) outcomes: Vec<Outcome>,
    /// Stored events that turn out to have done something else.
    amended: Vec<(Fingerprint, Outcome)>,
    pub(super) is_written: bool,
}

/// An event that the batch holds once or more.
pub(super) struct Arrival<'a> {
    pub(super) delivery: &'a Delivery,
    pub(super) deliveries: i32,
    pub(super) last_delivered_at: DateTime<Utc>,
}

/// The deliveries by call, in key order.
fn group<'a>(batch: &'a [Delivery], pending: &[usize]) -> BTreeMap<&'a CallKey, Change<'a>> {
    let mut changes: BTreeMap<&CallKey, Change<'_>> = BTreeMap::new();
    let mut places: HashMap<(&CallKey, Fingerprint), usize> = HashMap::new();
    for &index in pending {
        let delivery = &batch[index];
        let change = changes.entry(&delivery.key).or_insert_with(|| Change::of(&delivery.key));
        change.deliveries.push(index);
        let received_at = delivery.event.received_at;
        change.last_delivered_at = change.last_delivered_at.max(Some(received_at));
        match places.get(&(&delivery.key, delivery.event.fingerprint)) {
            Some(&place) => {
                let arrival = &mut change.new[place];
                arrival.deliveries += 1;
                arrival.last_delivered_at = arrival.last_delivered_at.max(received_at);
            }
            None => {
                places.insert((&delivery.key, delivery.event.fingerprint), change.new.len());
                change.new.push(Arrival {
                    delivery,
                    deliveries: 1,
                    last_delivered_at: received_at,
                });
            }
        }
    }
    changes
}

/// Locks those of the calls that exist, in key order, so that no two writers
/// wait for each other.
async fn lock<'a>(
    conn: &mut PgConnection,
    bucket: i32,
    keys: impl Iterator<Item = &'a CallKey>,
) -> Result<(), Error> {
    let (call_ids, project_ids) = columns(&keys.collect::<Vec<_>>());
    sqlx::query!(
        r#"
        select version
        from calls
        join unnest($2::text[], $3::text[]) as wanted (call_id, project_id)
            using (call_id, project_id)
        where bucket = $1
        order by call_id, project_id
        for update of calls
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// Reads the calls, decides, and writes those that are still as they were read.
async fn change<'a>(
    conn: &mut PgConnection,
    bucket: i32,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    read(&mut *conn, bucket, changes).await?;

    let unordered: Vec<&CallKey> = changes
        .values_mut()
        .filter_map(|change| if change.append() { None } else { Some(change.key) })
        .collect();
    if !unordered.is_empty() {
        let mut events = events::of_calls(&mut *conn, bucket, &unordered).await?;
        for key in unordered {
            let history = events.remove(key).unwrap_or_default();
            if let Some(change) = changes.get_mut(key) {
                change.fold_again(&history);
            }
        }
    }

    commit(conn, bucket, changes).await
}

/// Writes what was decided; notes which calls were still as they were read.
async fn commit<'a>(
    conn: &mut PgConnection,
    bucket: i32,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    let is_plain =
        changes.values().all(|change| change.repeated.is_empty() && change.amended.is_empty());
    if is_plain {
        return write(conn, bucket, changes).await;
    }
    let mut tx = conn.begin().await?;
    write(&mut tx, bucket, changes).await?;
    let written = || changes.values().filter(|change| change.is_written);
    let amendments: Vec<Amendment<'_>> = written()
        .flat_map(|change| {
            change.amended.iter().map(|(fingerprint, outcome)| (change.key, *fingerprint, outcome))
        })
        .collect();
    events::amend(&mut tx, bucket, &amendments).await?;
    let repetitions: Vec<Repetition<'_>> = written()
        .flat_map(|change| {
            change.repeated.iter().map(|arrival| Repetition {
                key: change.key,
                fingerprint: arrival.delivery.event.fingerprint,
                deliveries: arrival.deliveries,
                last_delivered_at: arrival.last_delivered_at,
            })
        })
        .collect();
    events::count_repetitions(&mut tx, bucket, &repetitions).await?;
    tx.commit().await?;
    Ok(())
}

/// Reads the calls as they are stored, and which of the events they have
/// already.
async fn read<'a>(
    conn: &mut PgConnection,
    bucket: i32,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    let arrivals: Vec<&Delivery> = changes
        .values()
        .flat_map(|change| change.new.iter().map(|arrival| arrival.delivery))
        .collect();
    let (call_ids, project_ids) =
        columns(&arrivals.iter().map(|delivery| &delivery.key).collect::<Vec<_>>());
    let fingerprints: Vec<&[u8]> =
        arrivals.iter().map(|delivery| &delivery.event.fingerprint.0[..]).collect();
    let rows = sqlx::query!(
        r#"
        select wanted.place as "place!", known.fingerprint is not null as "is_known!",
            calls.project_id, calls.call_id, version,
            direction as "direction: Direction", status as "status: Status",
            attempts as "attempts: Json<Vec<Attempt>>", calls.client_id, calls.provider_status,
            has_errors, event_count, anomaly_count,
            microseconds_in_status as "microseconds_in_status: Json<BTreeMap<Status, i64>>",
            status_since, first_event_at, last_event_at, last_event_rank,
            last_event_fingerprint, ended_at, updated_at, calls.last_delivered_at
        from unnest($2::text[], $3::text[], $4::bytea[]) with ordinality
            as wanted (call_id, project_id, fingerprint, place)
        join calls using (call_id, project_id)
        left join events as known using (bucket, call_id, project_id, fingerprint)
        where calls.bucket = $1
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
        &fingerprints as &[&[u8]],
    )
    .fetch_all(conn)
    .await?;

    let mut known: HashSet<Uuid> = HashSet::new();
    for row in rows {
        let place = usize::try_from(row.place).ok().and_then(|place| place.checked_sub(1));
        let delivery = place.and_then(|place| arrivals.get(place)).copied();
        let Some((delivery, change)) =
            delivery.and_then(|delivery| Some((delivery, changes.get_mut(&delivery.key)?)))
        else {
            continue;
        };
        if row.is_known {
            known.insert(delivery.event_id);
        }
        if change.stored.is_none() {
            change.stored = Some(
                CallRow {
                    project_id: row.project_id,
                    call_id: row.call_id,
                    version: row.version,
                    direction: row.direction,
                    status: row.status,
                    attempts: row.attempts,
                    client_id: row.client_id,
                    provider_status: row.provider_status,
                    has_errors: row.has_errors,
                    event_count: row.event_count,
                    anomaly_count: row.anomaly_count,
                    microseconds_in_status: row.microseconds_in_status,
                    status_since: row.status_since,
                    first_event_at: row.first_event_at,
                    last_event_at: row.last_event_at,
                    last_event_rank: row.last_event_rank,
                    last_event_fingerprint: row.last_event_fingerprint,
                    ended_at: row.ended_at,
                    updated_at: row.updated_at,
                    last_delivered_at: row.last_delivered_at,
                }
                .try_into()?,
            );
        }
    }
    for change in changes.values_mut() {
        let delivered_at = change.stored.as_ref().map(|stored| stored.last_delivered_at);
        change.last_delivered_at = change.last_delivered_at.max(delivered_at);
        let (repeated, new) = std::mem::take(&mut change.new)
            .into_iter()
            .partition(|arrival| known.contains(&arrival.delivery.event_id));
        change.repeated = repeated;
        change.new = new;
    }
    Ok(())
}

impl<'a> Change<'a> {
    fn of(key: &'a CallKey) -> Self {
        Self {
            key,
            deliveries: Vec::new(),
            new: Vec::new(),
            repeated: Vec::new(),
            stored: None,
            call: None,
            last_delivered_at: None,
            outcomes: Vec::new(),
            amended: Vec::new(),
            is_written: false,
        }
    }

    /// Applies the new events to the stored call, if they sort after all that it
    /// has; tells whether they did.
    fn append(&mut self) -> bool {
        let last = self.stored.as_ref().map(|stored| stored.call.last);
        let sorts_last = |arrival: &Arrival<'_>| {
            last.is_none_or(|last| last < arrival.delivery.event.position())
        };
        if !self.new.iter().all(sorts_last) {
            return false;
        }
        let mut order: Vec<usize> = (0..self.new.len()).collect();
        order.sort_by_key(|place| self.new[*place].delivery.event.position());
        let mut call = self.stored.as_ref().map(|stored| stored.call.clone());
        let mut outcomes = vec![None; self.new.len()];
        for place in order {
            let event = &self.new[place].delivery.event;
            outcomes[place] = Some(match &mut call {
                Some(call) => call.apply(event),
                None => {
                    let (begun, outcome) = Call::begin(event);
                    call = Some(begun);
                    outcome
                }
            });
        }
        self.call = call;
        self.outcomes = outcomes.into_iter().flatten().collect();
        true
    }

    /// Folds the call from its stored events and the new ones.
    fn fold_again(&mut self, history: &[StoredEvent]) {
        let mut events: Vec<&Event> = history
            .iter()
            .map(|stored| &stored.event)
            .chain(self.new.iter().map(|arrival| &arrival.delivery.event))
            .collect();
        let Some((call, outcomes)) = fold(&mut events) else {
            return;
        };
        let mut by_fingerprint: HashMap<Fingerprint, Outcome> =
            events.iter().map(|event| event.fingerprint).zip(outcomes).collect();
        self.outcomes = self
            .new
            .iter()
            .filter_map(|arrival| by_fingerprint.remove(&arrival.delivery.event.fingerprint))
            .collect();
        self.amended = history
            .iter()
            .filter_map(|stored| {
                let fingerprint = stored.event.fingerprint;
                let outcome = by_fingerprint.remove(&fingerprint)?;
                (outcome != stored.outcome).then_some((fingerprint, outcome))
            })
            .collect();
        self.call = Some(call);
        let delivered_at = history.iter().map(|stored| stored.last_delivered_at).max();
        self.last_delivered_at = self.last_delivered_at.max(delivered_at);
    }

    /// Tells what became of each delivery: the first of a new event made it, any
    /// other is a repetition.
    fn answer(&self, batch: &[Delivery], recorded: &mut [Option<Recorded>]) {
        let Some(status) = self.call.as_ref().map(|call| call.status) else {
            return;
        };
        let mut dispositions: HashMap<Uuid, Disposition> = self
            .new
            .iter()
            .zip(&self.outcomes)
            .map(|(arrival, outcome)| (arrival.delivery.event_id, outcome.disposition))
            .collect();
        for &index in &self.deliveries {
            let event_id = batch[index].event_id;
            let disposition = dispositions.remove(&event_id);
            recorded[index] = Some(Recorded { event_id, disposition, status });
        }
    }
}

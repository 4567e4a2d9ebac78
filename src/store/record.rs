//! The write path: a batch of deliveries and what they do to their calls.
//!
//! A [`Recorder`] looks at the calls that the batch is about, lets the domain
//! decide ([`change`](mod@super::change)), and writes the events and the calls as
//! they now are. No lock is held between looking and writing: a call is replaced
//! only in the version that was looked at (compare and swap), and an event is
//! inserted only where its call was. So the write is one statement, atomic for
//! each call.
//!
//! Because a stale look does no harm, most calls need no reading at all: the
//! ones that the recorder wrote last it remembers, and one whose event is such
//! as calls begin with it takes to be absent. What this loses is read and
//! decided again; what loses that too, against other writers, is tried under
//! row locks, taken in key order.
//!
//! And such a batch is decided, and its statement put together, before there is a
//! connection for it ([`Line`]): while the one before is written.
//!
//! Almost every event sorts after all that its call has, and is applied to the
//! stored call. Where one does not, the call is folded again from all its
//! events, and those after it whose outcome changed are amended in the same
//! transaction.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    Error,
    calls::{self, CallRow, StoredCall},
    change::{Change, group},
    connection::Line,
    epoch::{Epoch, epoch},
    events::{self, Amendment, Repetition, columns},
    recent::{Recent, Remembered},
    write::write,
};
use crate::call::{CallKey, Delivery, Direction, Disposition, Fingerprint, Status};

/// How often a call that other writers keep changing is tried. From the third
/// try on the rows are locked, so only a call that is created meanwhile takes
/// more, or one that was written between the number of our transaction and the lock.
const MAX_ROUNDS: u32 = 8;

/// Of how many events a recorder remembers the calls for certain; of up to twice
/// as many by chance. A call of five events, with ids as the provider has them, takes about a
/// kilobyte, and each further one at most 300 bytes.
const REMEMBERED_EVENTS: usize = 40_000;

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

/// Records batches over one connection; one may be decided while another is written.
///
/// What it remembers of a call is only ever compared with, by the version; but a
/// database that is set back to an earlier state has versions that mean something
/// else. That ends the connections, so a recorder is good for one connection.
#[derive(Debug)]
pub struct Recorder {
    recent: Mutex<Recent>,
    /// That of the connection, asked for once.
    epoch: OnceLock<Epoch>,
    /// How often calls were decided again since this was last asked.
    contended_rounds: AtomicU64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            recent: Mutex::new(Recent::new(REMEMBERED_EVENTS)),
            epoch: OnceLock::new(),
            contended_rounds: AtomicU64::new(0),
        }
    }
}

impl Recorder {
    /// Commits those of a batch of deliveries, all of calls in one bucket, that
    /// are not recorded yet, with all that they do. Notes what became of each.
    ///
    /// # Errors
    ///
    /// Where the database refuses, a row cannot be, or other writers kept
    /// changing the calls. Calls are committed one by one or together, never by
    /// halves: what is noted is committed, and the rest may be given again.
    pub async fn record(
        &self,
        line: &mut impl Line,
        bucket: i32,
        batch: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), Error> {
        let epoch = match self.epoch.get() {
            Some(epoch) => *epoch,
            None => {
                let epoch = epoch(line.connection().await?).await?;
                *self.epoch.get_or_init(|| epoch)
            }
        };
        for round in 0..MAX_ROUNDS {
            let mut changes =
                group(batch, (0..batch.len()).filter(|index| recorded[*index].is_none()));
            if changes.is_empty() {
                return Ok(());
            }
            match round {
                0 => {
                    self.recall(changes.values_mut());
                    change(line, epoch, bucket, &mut changes).await?;
                }
                1 => {
                    self.contended_rounds.fetch_add(1, Ordering::Relaxed);
                    change(line, epoch, bucket, &mut changes).await?;
                }
                _ => {
                    self.contended_rounds.fetch_add(1, Ordering::Relaxed);
                    let mut tx = line.connection().await?.begin().await?;
                    lock(&mut tx, bucket, changes.keys().copied()).await?;
                    // The number of the transaction is as old as its first lock: what was stored
                    // of these calls meanwhile must not come after it in a stream.
                    if !is_newest(&mut tx, epoch, bucket, changes.keys().copied()).await? {
                        tx.rollback().await?;
                        continue;
                    }
                    change(&mut *tx, epoch, bucket, &mut changes).await?;
                    tx.commit().await?;
                }
            }
            self.learn(changes.into_values().filter(|change| change.is_written), batch, recorded);
        }
        if recorded.iter().all(Option::is_some) {
            Ok(())
        } else {
            Err(Error::Contended { rounds: MAX_ROUNDS })
        }
    }

    /// How often calls were decided again, since they were not as was thought,
    /// from the last time that this was asked.
    pub fn take_contended_rounds(&self) -> u64 {
        self.contended_rounds.swap(0, Ordering::Relaxed)
    }

    /// Spares the reading of those calls that are remembered or seem to be new.
    fn recall<'c, 'a: 'c>(&self, changes: impl Iterator<Item = &'c mut Change<'a>>) {
        let mut recent = held(&self.recent);
        for change in changes {
            if let Some(remembered) = recent.take(change.key) {
                let Remembered { stored, attempts_before, fingerprints } = remembered;
                change.is_stored(stored, attempts_before, Some(fingerprints));
            } else if change.seems_new() {
                change.is_absent();
            }
        }
    }

    /// Notes what was written, and remembers each call as it was, if all its events
    /// are known.
    fn learn<'a>(
        &self,
        written: impl Iterator<Item = Change<'a>>,
        batch: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) {
        let mut recent = held(&self.recent);
        for change in written {
            change.answer(batch, recorded);
            let attempts_before = change.call.as_ref().map(|call| change.apart(call).attempts);
            let key = change.key;
            if let Change {
                version,
                call: Some(call),
                last_delivered_at: Some(last_delivered_at),
                fingerprints: Some(fingerprints),
                ..
            } = change
            {
                let version = version + 1;
                let stored = StoredCall { key: key.clone(), version, call, last_delivered_at };
                let attempts_before = attempts_before.unwrap_or_default();
                recent.put(Remembered { stored, attempts_before, fingerprints });
            } else {
                // Another batch may have put it there since this one looked.
                recent.take(key);
            }
        }
    }
}

/// What is held for a moment. What a panic left is as good as any: it is only ever
/// compared with.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Folds these calls, all in one bucket, again from their events and writes what
/// differs from the store. A call of which there are no events goes. What the
/// rows of the calls say does not matter, so it may be what cannot be.
///
/// # Errors
///
/// As [`Recorder::record`].
pub async fn refold(conn: &mut PgConnection, bucket: i32, keys: &[&CallKey]) -> Result<(), Error> {
    let mut pending = keys.to_vec();
    for _ in 0..MAX_ROUNDS {
        if pending.is_empty() {
            break;
        }
        match try_refold(conn, bucket, &pending).await {
            Ok(left) => pending = left,
            Err(error) if error.is_rollback() => {}
            Err(error) => return Err(error),
        }
    }
    if pending.is_empty() { Ok(()) } else { Err(Error::Contended { rounds: MAX_ROUNDS }) }
}

/// Refolds in one transaction; gives the calls that others created meanwhile.
async fn try_refold<'a>(
    conn: &mut PgConnection,
    bucket: i32,
    keys: &[&'a CallKey],
) -> Result<Vec<&'a CallKey>, Error> {
    let epoch = epoch(&mut *conn).await?;
    let mut tx = conn.begin().await?;
    lock(&mut tx, bucket, keys.iter().copied()).await?;
    let versions = calls::versions(&mut *tx, bucket, keys).await?;
    let mut events = events::of_calls(&mut *tx, bucket, keys).await?;
    let mut changes: BTreeMap<&CallKey, Change<'a>> = BTreeMap::new();
    for key in keys.iter().copied() {
        let mut change = Change::of(key);
        change.version = versions.get(key).copied().unwrap_or_default();
        change.fold_again(&events.remove(key).unwrap_or_default());
        changes.insert(key, change);
    }
    commit(&mut *tx, epoch, bucket, &mut changes).await?;
    let (folded, empty): (Vec<_>, Vec<_>) =
        changes.into_values().partition(|change| change.call.is_some());
    let empty: Vec<&CallKey> = empty.iter().map(|change| change.key).collect();
    calls::remove(&mut tx, bucket, &empty).await?;
    tx.commit().await?;
    Ok(folded.iter().filter(|change| !change.is_written).map(|change| change.key).collect())
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

/// Whether the transaction has a greater number than all that stored events of
/// these calls.
async fn is_newest<'a>(
    conn: &mut PgConnection,
    epoch: Epoch,
    bucket: i32,
    keys: impl Iterator<Item = &'a CallKey>,
) -> Result<bool, Error> {
    let (call_ids, project_ids) = columns(&keys.collect::<Vec<_>>());
    let is_newest = sqlx::query_scalar!(
        r#"
        select coalesce(max(stored.transaction), 0) < pg_current_xact_id()::text::bigint + $4
            as "is_newest!"
        from unnest($2::text[], $3::text[]) as wanted (call_id, project_id)
        cross join lateral (
            select transaction
            from events
            where bucket = $1 and call_id = wanted.call_id and project_id = wanted.project_id
            -- looked up one by one, whatever the statistics say
            offset 0
        ) as stored
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
        epoch.transaction_offset,
    )
    .fetch_one(conn)
    .await?;
    Ok(is_newest)
}

/// Reads the calls that are not known, decides, and writes those that are still
/// as they were.
async fn change<'a>(
    line: &mut impl Line,
    epoch: Epoch,
    bucket: i32,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    if changes.values().any(|change| !change.is_known) {
        read(line.connection().await?, bucket, changes).await?;
    }

    let unordered: Vec<&CallKey> = changes
        .values_mut()
        .filter_map(|change| if change.append() { None } else { Some(change.key) })
        .collect();
    if !unordered.is_empty() {
        let mut events = events::of_calls(line.connection().await?, bucket, &unordered).await?;
        for key in unordered {
            let history = events.remove(key).unwrap_or_default();
            if let Some(change) = changes.get_mut(key) {
                change.fold_again(&history);
            }
        }
    }

    commit(line, epoch, bucket, changes).await
}

/// Writes what was decided; notes which calls were still as they were read.
async fn commit<'a>(
    line: &mut impl Line,
    epoch: Epoch,
    bucket: i32,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    let is_plain =
        changes.values().all(|change| change.repeated.is_empty() && change.amended.is_empty());
    if is_plain {
        return write(line, epoch, bucket, changes).await;
    }
    let mut tx = line.connection().await?.begin().await?;
    write(&mut *tx, epoch, bucket, changes).await?;
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
                in_all: arrival.in_all,
                last_delivered_at: arrival.last_delivered_at,
            })
        })
        .collect();
    events::count_repetitions(&mut tx, bucket, &repetitions).await?;
    tx.commit().await?;
    Ok(())
}

/// Reads the calls that are not known, and which of the events they have
/// already.
async fn read<'a>(
    conn: &mut PgConnection,
    bucket: i32,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    let arrivals: Vec<&Delivery> = changes
        .values()
        .filter(|change| !change.is_known)
        .flat_map(|change| change.new.iter().map(|arrival| arrival.delivery))
        .collect();
    let (call_ids, project_ids) =
        columns(&arrivals.iter().map(|delivery| &delivery.key).collect::<Vec<_>>());
    let fingerprints: Vec<&[u8]> =
        arrivals.iter().map(|delivery| &delivery.event.fingerprint.0[..]).collect();
    let rows = sqlx::query!(
        r#"
        select wanted.place as "place!", known.is_known as "is_known!",
            stored.project_id, stored.call_id, version,
            direction as "direction: Direction", status as "status: Status",
            callstate_attempts(attempts_before, attempts)::text as "attempts!",
            coalesce(jsonb_array_length(attempts_before), 0) as "attempts_before!", client_id, provider_status,
            has_errors, event_count, anomaly_count,
            microseconds_in_status::text as "microseconds_in_status!",
            status_since, first_event_at, last_event_at, last_event_rank,
            last_event_fingerprint, ended_at, updated_at, last_delivered_at
        from unnest($2::text[], $3::text[], $4::bytea[]) with ordinality
            as wanted (call_id, project_id, fingerprint, place)
        cross join lateral (
            select *
            from calls
            where bucket = $1 and call_id = wanted.call_id and project_id = wanted.project_id
            -- looked up one by one, whatever the statistics say
            offset 0
        ) as stored
        cross join lateral (
            select exists (
                select from events
                where bucket = $1 and call_id = wanted.call_id
                    and project_id = wanted.project_id and fingerprint = wanted.fingerprint
            ) as is_known
            offset 0
        ) as known
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
        &fingerprints as &[&[u8]],
    )
    .fetch_all(conn)
    .await?;

    let mut known: HashSet<(&CallKey, Fingerprint)> = HashSet::new();
    let mut stored: BTreeMap<&CallKey, (StoredCall, usize)> = BTreeMap::new();
    for row in rows {
        let place = usize::try_from(row.place - 1).ok();
        let Some(delivery) = place.and_then(|place| arrivals.get(place)) else {
            continue;
        };
        if row.is_known {
            known.insert((&delivery.key, delivery.event.fingerprint));
        }
        if let Entry::Vacant(entry) = stored.entry(&delivery.key) {
            let attempts_before = row.attempts_before;
            let row = CallRow {
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
            };
            let attempts_before = usize::try_from(attempts_before).unwrap_or_default();
            entry.insert((row.try_into()?, attempts_before));
        }
    }
    for change in changes.values_mut().filter(|change| !change.is_known) {
        match stored.remove(change.key) {
            Some((stored, attempts_before)) => {
                change.is_stored(stored, attempts_before, None);
                let key = change.key;
                change.set_apart(|fingerprint| known.contains(&(key, fingerprint)));
            }
            None => change.is_absent(),
        }
    }
    Ok(())
}

//! The steps of a batch: look up the calls, decide, write.
//!
//! A [`Recorder`] looks up the calls of a batch, lets the domain decide
//! ([`change`](super::change)), and writes the events and the calls
//! ([`statement`](super::statement)). It holds no lock between the lookup and the
//! write: a call is replaced only in the version that was looked up (compare and
//! swap), and an event is inserted only with its call. So the write is one
//! statement, atomic for each call.
//!
//! As an outdated lookup does no harm, most calls are not read at all: those that
//! were written last are cached, and a call whose event is of a type with which
//! calls begin is assumed to be absent. Where that is wrong, the call is read and
//! decided again; where another writer is first once more, under row locks.
//!
//! Almost every event sorts last in its call and is applied to the stored call.
//! Otherwise the call is folded again from all its events, and the events whose
//! outcome changes are amended in the same transaction.

use std::collections::{BTreeMap, HashSet};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    cache::{CachedCall, CallCache},
    change::{Change, Origin, group},
    statement::write,
    stored_events::update_stored_events,
};
use crate::{
    call::{CallKey, Delivery, Disposition, Fingerprint, Status},
    store::{
        Error,
        calls::{StoredCall, find::columns, row::select_calls},
        codec::{Row, fingerprint},
        erasure::{ErasureHash, ErasureState, erased},
        events::row::{name_of, of_calls},
    },
};

/// How often a batch is tried whose calls other writers keep changing. From the third
/// time on the rows are locked, so that only a call that is inserted meanwhile needs
/// another try.
const MAX_ROUNDS: u32 = 8;

/// The number of events whose calls are cached for certain; up to twice as many may
/// be. A call of five events takes about a kilobyte, and each further one at most 300
/// bytes.
const CACHED_EVENTS: usize = 40_000;

/// The least number of ids that are taken from the sequence at a time: its cache.
const RESERVED_IDS: i64 = 1024;

/// The result of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The event.
    pub event_id: Uuid,
    /// What was done with it.
    pub result: RecordResult,
}

/// What was done with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordResult {
    /// The event was stored with this disposition; the status of its call after it.
    Stored(Disposition, Status),
    /// The event had been stored before; the status of its call.
    Duplicate(Status),
    /// The call or the client was erased, so nothing was stored.
    Erased,
}

/// Records batches over one connection.
///
/// What it has cached is only compared by version. A database that is restored to an
/// earlier state reuses versions; that ends its connections, so a recorder belongs to
/// one connection.
#[derive(Debug)]
pub struct Recorder {
    cache: CallCache,
    ids: CallIds,
    /// Which number of erasures it knows, and how it recognizes what was erased.
    erasures: Option<ErasureState>,
    contended_rounds: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            cache: CallCache::new(CACHED_EVENTS),
            ids: CallIds::default(),
            erasures: None,
            contended_rounds: 0,
        }
    }
}

impl Recorder {
    /// Commits the deliveries of a batch that are not recorded yet, with their effect,
    /// and notes the result of each.
    ///
    /// # Errors
    ///
    /// Fails if a query fails, a stored row is invalid, or other writers keep changing
    /// the calls. Calls are committed whole: what is noted is committed, and the rest
    /// may be recorded again.
    #[tracing::instrument(level = "debug", skip_all, fields(deliveries = batch.len()))]
    pub async fn record(
        &mut self,
        conn: &mut PgConnection,
        batch: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), Error> {
        let result = self.record_in_rounds(conn, batch, recorded).await;
        if result.is_err() {
            // The error may be that something was erased.
            self.erasures = None;
        }
        result
    }

    async fn record_in_rounds(
        &mut self,
        conn: &mut PgConnection,
        batch: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), Error> {
        for round in 0..MAX_ROUNDS {
            self.note_erased(conn, batch, recorded).await?;
            let pending = (0..batch.len()).filter(|index| recorded[*index].is_none());
            let mut changes = group(batch, pending);
            if changes.is_empty() {
                return Ok(());
            }
            self.ids.reserve(conn, changes.len()).await?;
            match round {
                0 => {
                    self.look_up_cached(changes.values_mut());
                    self.change(conn, &mut changes).await?;
                }
                1 => {
                    self.contended_rounds += 1;
                    self.change(conn, &mut changes).await?;
                }
                _ => {
                    self.contended_rounds += 1;
                    let mut tx = conn.begin().await?;
                    lock(&mut tx, changes.keys().copied()).await?;
                    self.change(&mut tx, &mut changes).await?;
                    tx.commit().await?;
                }
            }
            let written = changes.into_values().filter(|change| change.is_written);
            self.note_written(written, batch, recorded);
        }
        if recorded.iter().all(Option::is_some) {
            Ok(())
        } else {
            Err(Error::Contended { rounds: MAX_ROUNDS })
        }
    }

    /// The number of times that calls were decided again since this was last called.
    pub fn take_contended_rounds(&mut self) -> u64 {
        std::mem::take(&mut self.contended_rounds)
    }

    /// Spares reading the calls that are cached or may be new.
    fn look_up_cached<'c, 'a: 'c>(&mut self, changes: impl Iterator<Item = &'c mut Change<'a>>) {
        for change in changes {
            if let Some(CachedCall { stored, fingerprints }) = self.cache.take(change.key) {
                change.load(stored, Some(fingerprints));
            } else if change.may_be_new() {
                change.assume_absent();
            }
        }
    }

    /// Reads the calls that are not known, decides, and writes those that are still in
    /// the same version.
    async fn change<'a>(
        &mut self,
        conn: &mut PgConnection,
        changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
    ) -> Result<(), Error> {
        read_unknown(conn, changes).await?;
        for change in changes.values_mut().filter(|change| change.origin == Origin::Absent) {
            change.id = self.ids.take();
        }
        let mut refolded: Vec<&mut Change<'a>> =
            changes.values_mut().filter_map(|it| (!it.append()).then_some(it)).collect();
        if !refolded.is_empty() {
            let ids: Vec<i64> = refolded.iter().map(|change| change.id).collect();
            let mut events = of_calls(&mut *conn, &ids).await?;
            for change in &mut refolded {
                let history = events.remove(&change.id).unwrap_or_else(|| Ok(Vec::new()))?;
                change.fold_again(&history);
            }
        }
        let known_erasures = self.erasures.as_ref().map_or(0, |state| state.erasures);
        commit(conn, changes, known_erasures).await
    }

    /// Notes the deliveries of calls and clients that were erased. Usually nothing was, and
    /// nothing is looked up.
    async fn note_erased(
        &mut self,
        conn: &mut PgConnection,
        batch: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), Error> {
        let state = match self.erasures.take() {
            Some(state) => state,
            None => ErasureState::load(conn).await?,
        };
        let state = self.erasures.insert(state);
        if state.erasures == 0 {
            return Ok(());
        }
        let hashes: Vec<(usize, [ErasureHash; 3])> = batch
            .iter()
            .enumerate()
            .filter(|(index, _)| recorded[*index].is_none())
            .filter(|(_, delivery)| !is_of_cached_client(&self.cache, delivery))
            .map(|(index, delivery)| (index, hashes(state, delivery)))
            .collect();
        if hashes.is_empty() {
            return Ok(());
        }
        let found = erased(conn, &hashes.iter().flat_map(|(_, hashes)| *hashes).collect()).await?;
        for (index, hashes) in hashes {
            if hashes.iter().any(|hash| found.contains(hash)) {
                let event_id = batch[index].event_id;
                recorded[index] = Some(Recorded { event_id, result: RecordResult::Erased });
            }
        }
        Ok(())
    }

    /// Notes the results of written calls, and caches those whose events are all known.
    fn note_written<'a>(
        &mut self,
        written: impl Iterator<Item = Change<'a>>,
        batch: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) {
        for change in written {
            change.note_results(batch, recorded);
            if let Change {
                key,
                id,
                origin,
                call: Some(call),
                last_delivered_at: Some(last_delivered_at),
                fingerprints: Some(fingerprints),
                ..
            } = change
            {
                let (key, version) = (key.clone(), origin.next_version());
                let stored = StoredCall { id, key, version, call, last_delivered_at };
                self.cache.put(CachedCall { stored, fingerprints });
            }
        }
    }
}

/// Whether the call of a delivery is cached and its client is that of the delivery. It was
/// not erased then, or the write finds that it is not stored any more.
fn is_of_cached_client(cache: &CallCache, delivery: &Delivery) -> bool {
    cache.get(&delivery.key).is_some_and(|cached| {
        let client = &delivery.event.client_id;
        client.is_none() || *client == cached.stored.call.client_id
    })
}

/// The hashes by which a delivery is recognized: of its call, and of its client in its
/// project and in any.
fn hashes(state: &ErasureState, delivery: &Delivery) -> [ErasureHash; 3] {
    let of_call = state.of_call(&delivery.key);
    let of_client = |project| {
        let client = delivery.event.client_id.as_ref();
        client.map_or(of_call, |client| state.of_client(client, project))
    };
    [of_call, of_client(Some(&delivery.key.project_id)), of_client(None)]
}

/// Ids for new calls, the least last.
#[derive(Debug, Default)]
struct CallIds(Vec<i64>);

impl CallIds {
    /// Makes sure that there are so many ids. Takes more than are missing, so that this
    /// is seldom due.
    async fn reserve(&mut self, conn: &mut PgConnection, count: usize) -> Result<(), Error> {
        if self.0.len() >= count {
            return Ok(());
        }
        let missing = i64::try_from(count - self.0.len()).unwrap_or(i64::MAX);
        let ids = sqlx::query_scalar!(
            r#"select nextval('call_ids') as "id!" from generate_series(1, $1::bigint)"#,
            missing.max(RESERVED_IDS),
        )
        .fetch_all(conn)
        .await?;
        self.0.extend(ids);
        self.0.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        Ok(())
    }

    /// The next id.
    fn take(&mut self) -> i64 {
        self.0.pop().expect("ids are reserved for each call of a batch")
    }
}

/// Locks the calls that exist, in key order, so that no two writers wait for each other.
pub(super) async fn lock<'a>(
    conn: &mut PgConnection,
    keys: impl Iterator<Item = &'a CallKey>,
) -> Result<(), Error> {
    let keys: Vec<&CallKey> = keys.collect();
    let (call_ids, project_ids) = columns(&keys);
    sqlx::query!(
        r#"
        select calls.id
        from calls
        join unnest($1::text[], $2::text[]) as wanted (call_id, project_id)
            using (call_id, project_id)
        order by calls.id
        for update of calls
        "#,
        &call_ids as &[&str],
        &project_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// Writes what was decided; notes which calls were still in the same version.
pub(super) async fn commit<'a>(
    conn: &mut PgConnection,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
    known_erasures: i64,
) -> Result<(), Error> {
    let is_one_statement =
        changes.values().all(|change| change.repeated.is_empty() && change.amended.is_empty());
    if is_one_statement {
        return write(conn, changes, known_erasures).await;
    }
    let mut tx = conn.begin().await?;
    // Rows are locked before the feed, whose lock all writers need: it is held for the write only.
    let unchanged = lock_unchanged(&mut tx, changes.values()).await?;
    let written = changes.values().filter(|change| unchanged.contains(&change.id));
    update_stored_events(&mut tx, written).await?;
    write(&mut tx, changes, known_erasures).await?;
    tx.commit().await?;
    Ok(())
}

/// Locks the stored calls that are still in the version that they were decided on, in
/// the order of their numbers.
async fn lock_unchanged<'c, 'a: 'c>(
    conn: &mut PgConnection,
    changes: impl Iterator<Item = &'c Change<'a>>,
) -> Result<HashSet<i64>, Error> {
    let (ids, versions): (Vec<i64>, Vec<i32>) = changes
        .filter_map(|change| match change.origin {
            Origin::Stored(version) if change.call.is_some() => Some((change.id, version)),
            _ => None,
        })
        .unzip();
    let unchanged = sqlx::query_scalar!(
        r#"
        select calls.id
        from unnest($1::bigint[], $2::int[]) as decided (id, version)
        join calls using (id, version)
        order by calls.id
        for update of calls
        "#,
        &ids,
        &versions,
    )
    .fetch_all(conn)
    .await?;
    Ok(unchanged.into_iter().collect())
}

/// Reads the calls that are not known, and which of their events are stored.
async fn read_unknown<'a>(
    conn: &mut PgConnection,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    let unknown = || changes.values().filter(|change| change.origin == Origin::Unknown);
    let keys: Vec<&CallKey> = unknown().map(|change| change.key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let (call_ids, project_ids) = columns(&keys);
    let rows = select_calls!(
        "
        from unnest($1::text[], $2::text[]) as wanted (call_id, project_id)
        join calls using (call_id, project_id)
        ",
        &call_ids as &[&str],
        &project_ids as &[&str],
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut stored: BTreeMap<CallKey, StoredCall> = BTreeMap::new();
    for row in rows {
        let call = StoredCall::try_from(row)?;
        stored.insert(call.key.clone(), call);
    }
    let arrivals: Vec<(i64, Fingerprint)> = unknown()
        .filter_map(|change| Some((stored.get(change.key)?.id, change)))
        .flat_map(|(id, change)| change.new.iter().map(move |it| (id, it.fingerprint())))
        .collect();
    let known = stored_events(conn, &arrivals).await?;
    for change in changes.values_mut().filter(|change| change.origin == Origin::Unknown) {
        match stored.remove(change.key) {
            Some(call) => {
                let id = call.id;
                change.load(call, None);
                change.separate_repeated(|fingerprint| known.contains(&(id, fingerprint)));
            }
            None => change.assume_absent(),
        }
    }
    Ok(())
}

/// Those of the events that are stored.
async fn stored_events(
    conn: &mut PgConnection,
    events: &[(i64, Fingerprint)],
) -> Result<HashSet<(i64, Fingerprint)>, Error> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let calls: Vec<i64> = events.iter().map(|(call, _)| *call).collect();
    let fingerprints: Vec<&[u8]> = events.iter().map(|(_, it)| &it.0[..]).collect();
    let stored = sqlx::query!(
        r#"
        select events.call, events.fingerprint
        from unnest($1::bigint[], $2::bytea[]) as wanted (call, fingerprint)
        join events using (call, fingerprint)
        "#,
        &calls,
        &fingerprints as &[&[u8]],
    )
    .fetch_all(conn)
    .await?;
    stored
        .into_iter()
        .map(|row| {
            let name = name_of(row.call, &row.fingerprint);
            let at = Row { table: "events", key: &name };
            Ok((row.call, at.read("fingerprint", fingerprint(&row.fingerprint))?))
        })
        .collect()
}

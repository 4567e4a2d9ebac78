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
    calls::{CallRow, StoredCall},
    codec::key,
    events::{self, Amendment, Repetition, StoredEvent, as_int, columns},
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

/// What the batch does to one call.
struct Change<'a> {
    key: &'a CallKey,
    /// The deliveries that are about it, as places in the batch.
    deliveries: Vec<usize>,
    /// The distinct events among them, in the order of the batch; those that
    /// turn out to be stored already move to `repeated`.
    new: Vec<Arrival<'a>>,
    repeated: Vec<Arrival<'a>>,
    stored: Option<StoredCall>,
    /// The call as it is after the batch.
    call: Option<Call>,
    /// What each of `new` did.
    outcomes: Vec<Outcome>,
    /// Stored events that turn out to have done something else.
    amended: Vec<(Fingerprint, Outcome)>,
    is_written: bool,
}

/// An event that the batch holds once or more.
struct Arrival<'a> {
    delivery: &'a Delivery,
    deliveries: i32,
    last_delivered_at: DateTime<Utc>,
}

/// The deliveries by call, in key order.
fn group<'a>(batch: &'a [Delivery], pending: &[usize]) -> BTreeMap<&'a CallKey, Change<'a>> {
    let mut changes: BTreeMap<&CallKey, Change<'_>> = BTreeMap::new();
    let mut places: HashMap<(&CallKey, Fingerprint), usize> = HashMap::new();
    for &index in pending {
        let delivery = &batch[index];
        let change = changes.entry(&delivery.key).or_insert_with(|| Change {
            key: &delivery.key,
            deliveries: Vec::new(),
            new: Vec::new(),
            repeated: Vec::new(),
            stored: None,
            call: None,
            outcomes: Vec::new(),
            amended: Vec::new(),
            is_written: false,
        });
        change.deliveries.push(index);
        let received_at = delivery.event.received_at;
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
        let (repeated, new) = std::mem::take(&mut change.new)
            .into_iter()
            .partition(|arrival| known.contains(&arrival.delivery.event_id));
        change.repeated = repeated;
        change.new = new;
    }
    Ok(())
}

impl Change<'_> {
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
    }

    fn last_delivered_at(&self) -> Option<DateTime<Utc>> {
        let of_batch = self.new.iter().chain(&self.repeated).map(|it| it.last_delivered_at);
        of_batch.chain(self.stored.as_ref().map(|stored| stored.last_delivered_at)).max()
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

/// Writes the calls that are still in the version that was read, and the new
/// events of those calls; notes which they are.
#[expect(clippy::too_many_lines, reason = "one statement with a column for each of the tables'")]
async fn write<'a>(
    conn: &mut PgConnection,
    bucket: i32,
    changes: &mut BTreeMap<&'a CallKey, Change<'a>>,
) -> Result<(), Error> {
    let mut calls = CallColumns::default();
    let mut events = EventColumns::default();
    for change in changes.values() {
        let (Some(call), Some(last_delivered_at)) = (&change.call, change.last_delivered_at())
        else {
            continue;
        };
        let version = change.stored.as_ref().map_or(1, |stored| stored.version + 1);
        calls.push(change.key, version, call, last_delivered_at);
        for (arrival, outcome) in change.new.iter().zip(&change.outcomes) {
            events.push(arrival, outcome);
        }
    }
    let written = sqlx::query!(
        r#"
        with
        -- compare and swap: a call that another writer changed since it was read stays as it is
        written as (
            insert into calls as stored (
                bucket, call_id, project_id, version, direction, status, attempts, client_id,
                provider_status, has_errors, event_count, anomaly_count, microseconds_in_status,
                status_since, first_event_at, last_event_at, last_event_rank,
                last_event_fingerprint, ended_at, updated_at, last_delivered_at
            )
            select $1, call_id, project_id, version, direction::call_direction,
                status::call_status, attempts::jsonb, client_id, provider_status, has_errors,
                event_count, anomaly_count, microseconds_in_status::jsonb, status_since,
                first_event_at, last_event_at, last_event_rank, last_event_fingerprint, ended_at,
                updated_at, last_delivered_at
            from unnest(
                $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::boolean[], $11::int[], $12::int[], $13::text[],
                $14::timestamptz[], $15::timestamptz[], $16::timestamptz[], $17::smallint[],
                $18::bytea[], $19::timestamptz[], $20::timestamptz[], $21::timestamptz[]
            ) as folded (
                call_id, project_id, version, direction, status, attempts, client_id,
                provider_status, has_errors, event_count, anomaly_count, microseconds_in_status,
                status_since, first_event_at, last_event_at, last_event_rank,
                last_event_fingerprint, ended_at, updated_at, last_delivered_at
            )
            -- key order, so that writers never wait for each other in a circle
            order by call_id collate "C", project_id collate "C"
            on conflict (bucket, call_id, project_id) do update set
                version = excluded.version,
                direction = excluded.direction,
                status = excluded.status,
                attempts = excluded.attempts,
                client_id = excluded.client_id,
                provider_status = excluded.provider_status,
                has_errors = excluded.has_errors,
                event_count = excluded.event_count,
                anomaly_count = excluded.anomaly_count,
                microseconds_in_status = excluded.microseconds_in_status,
                status_since = excluded.status_since,
                first_event_at = excluded.first_event_at,
                last_event_at = excluded.last_event_at,
                last_event_rank = excluded.last_event_rank,
                last_event_fingerprint = excluded.last_event_fingerprint,
                ended_at = excluded.ended_at,
                updated_at = excluded.updated_at,
                last_delivered_at = excluded.last_delivered_at
            where stored.version = excluded.version - 1
            returning stored.call_id, stored.project_id
        ),
        -- an event goes in only with what it did
        recorded as (
            insert into events (
                bucket, call_id, project_id, fingerprint, event_id, event_type, rank,
                occurred_at, received_at, effective_at, disposition, reason, from_status,
                to_status, attempt, call_sid, client_id, provider_status, errors, endpoint,
                delivery_count, last_delivered_at, payload
            )
            select $1, call_id, project_id, fingerprint, event_id, event_type, rank, occurred_at,
                received_at, effective_at, disposition::event_disposition, reason,
                from_status::call_status, to_status::call_status, attempt, call_sid, client_id,
                provider_status, errors::jsonb, endpoint, delivery_count, last_delivered_at,
                payload::json
            from unnest(
                $22::text[], $23::text[], $24::bytea[], $25::uuid[], $26::text[], $27::smallint[],
                $28::timestamptz[], $29::timestamptz[], $30::timestamptz[], $31::text[],
                $32::text[], $33::text[], $34::text[], $35::int[], $36::text[], $37::text[],
                $38::text[], $39::text[], $40::text[], $41::int[], $42::timestamptz[], $43::text[]
            ) as arrived (
                call_id, project_id, fingerprint, event_id, event_type, rank, occurred_at,
                received_at, effective_at, disposition, reason, from_status, to_status, attempt,
                call_sid, client_id, provider_status, errors, endpoint, delivery_count,
                last_delivered_at, payload
            )
            join written using (call_id, project_id)
        )
        select project_id, call_id from written
        "#,
        bucket,
        &calls.call_id as &[&str],
        &calls.project_id as &[&str],
        &calls.version,
        &calls.direction as &[Option<&str>],
        &calls.status as &[&str],
        &calls.attempts,
        &calls.client_id as &[Option<&str>],
        &calls.provider_status as &[Option<&str>],
        &calls.has_errors,
        &calls.event_count,
        &calls.anomaly_count,
        &calls.microseconds_in_status,
        &calls.status_since as &[Option<DateTime<Utc>>],
        &calls.first_event_at,
        &calls.last_event_at,
        &calls.last_event_rank,
        &calls.last_event_fingerprint as &[&[u8]],
        &calls.ended_at as &[Option<DateTime<Utc>>],
        &calls.updated_at,
        &calls.last_delivered_at,
        &events.call_id as &[&str],
        &events.project_id as &[&str],
        &events.fingerprint as &[&[u8]],
        &events.event_id,
        &events.event_type as &[&str],
        &events.rank,
        &events.occurred_at as &[Option<DateTime<Utc>>],
        &events.received_at,
        &events.effective_at,
        &events.disposition as &[&str],
        &events.reason as &[&str],
        &events.from_status as &[Option<&str>],
        &events.to_status as &[Option<&str>],
        &events.attempt as &[Option<i32>],
        &events.call_sid as &[Option<&str>],
        &events.client_id as &[Option<&str>],
        &events.provider_status as &[Option<&str>],
        &events.errors as &[Option<String>],
        &events.endpoint as &[&str],
        &events.delivery_count,
        &events.last_delivered_at,
        &events.payload as &[&str],
    )
    .fetch_all(conn)
    .await?;
    for row in written {
        let key = key("calls", row.project_id, row.call_id)?;
        if let Some(change) = changes.get_mut(&key) {
            change.is_written = true;
        }
    }
    Ok(())
}

/// The calls of a batch, column by column.
#[derive(Default)]
struct CallColumns<'a> {
    call_id: Vec<&'a str>,
    project_id: Vec<&'a str>,
    version: Vec<i64>,
    direction: Vec<Option<&'static str>>,
    status: Vec<&'static str>,
    attempts: Vec<String>,
    client_id: Vec<Option<&'a str>>,
    provider_status: Vec<Option<&'a str>>,
    has_errors: Vec<bool>,
    event_count: Vec<i32>,
    anomaly_count: Vec<i32>,
    microseconds_in_status: Vec<String>,
    status_since: Vec<Option<DateTime<Utc>>>,
    first_event_at: Vec<DateTime<Utc>>,
    last_event_at: Vec<DateTime<Utc>>,
    last_event_rank: Vec<i16>,
    last_event_fingerprint: Vec<&'a [u8]>,
    ended_at: Vec<Option<DateTime<Utc>>>,
    updated_at: Vec<DateTime<Utc>>,
    last_delivered_at: Vec<DateTime<Utc>>,
}

impl<'a> CallColumns<'a> {
    fn push(
        &mut self,
        key: &'a CallKey,
        version: i64,
        call: &'a Call,
        delivered_at: DateTime<Utc>,
    ) {
        self.call_id.push(key.call_id.as_str());
        self.project_id.push(key.project_id.as_str());
        self.version.push(version);
        self.direction.push(call.direction.map(Direction::as_str));
        self.status.push(call.status.as_str());
        self.attempts.push(json(&call.attempts));
        self.client_id.push(call.client_id.as_ref().map(super::super::call::id::ClientId::as_str));
        self.provider_status.push(call.provider_status.as_deref());
        self.has_errors.push(call.has_errors);
        self.event_count.push(as_int(call.event_count));
        self.anomaly_count.push(as_int(call.anomaly_count));
        self.microseconds_in_status.push(json(&call.microseconds_in_status));
        self.status_since.push(call.status_since);
        self.first_event_at.push(call.first_event_at);
        self.last_event_at.push(call.last.effective_at);
        self.last_event_rank.push(call.last.rank.get());
        self.last_event_fingerprint.push(&call.last.fingerprint.0);
        self.ended_at.push(call.ended_at);
        self.updated_at.push(call.updated_at);
        self.last_delivered_at.push(delivered_at);
    }
}

/// The new events of a batch, column by column.
#[derive(Default)]
struct EventColumns<'a> {
    call_id: Vec<&'a str>,
    project_id: Vec<&'a str>,
    fingerprint: Vec<&'a [u8]>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'a str>,
    rank: Vec<i16>,
    occurred_at: Vec<Option<DateTime<Utc>>>,
    received_at: Vec<DateTime<Utc>>,
    effective_at: Vec<DateTime<Utc>>,
    disposition: Vec<&'static str>,
    reason: Vec<&'a str>,
    from_status: Vec<Option<&'static str>>,
    to_status: Vec<Option<&'static str>>,
    attempt: Vec<Option<i32>>,
    call_sid: Vec<Option<&'a str>>,
    client_id: Vec<Option<&'a str>>,
    provider_status: Vec<Option<&'a str>>,
    errors: Vec<Option<String>>,
    endpoint: Vec<&'a str>,
    delivery_count: Vec<i32>,
    last_delivered_at: Vec<DateTime<Utc>>,
    payload: Vec<&'a str>,
}

impl<'a> EventColumns<'a> {
    fn push(&mut self, arrival: &Arrival<'a>, outcome: &'a Outcome) {
        let delivery = arrival.delivery;
        let event = &delivery.event;
        self.call_id.push(delivery.key.call_id.as_str());
        self.project_id.push(delivery.key.project_id.as_str());
        self.fingerprint.push(&event.fingerprint.0);
        self.event_id.push(delivery.event_id);
        self.event_type.push(event.event_type.as_str());
        self.rank.push(event.status().rank().get());
        self.occurred_at.push(event.occurred_at);
        self.received_at.push(event.received_at);
        self.effective_at.push(event.effective_at());
        self.disposition.push(outcome.disposition.as_str());
        self.reason.push(&outcome.reason);
        self.from_status.push(outcome.from_status.map(Status::as_str));
        self.to_status.push(outcome.to_status.map(Status::as_str));
        self.attempt.push(outcome.attempt.map(as_int));
        self.call_sid.push(event.call_sid.as_ref().map(super::super::call::id::CallSid::as_str));
        self.client_id.push(event.client_id.as_ref().map(super::super::call::id::ClientId::as_str));
        self.provider_status.push(event.provider_status.as_deref());
        self.errors.push(event.has_errors.then(|| json(&delivery.errors)));
        self.endpoint.push(&delivery.endpoint);
        self.delivery_count.push(arrival.deliveries);
        self.last_delivered_at.push(arrival.last_delivered_at);
        self.payload.push(&delivery.payload);
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("domain types have string keys and finite numbers")
}

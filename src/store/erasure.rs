//! Erasure: removing calls for good.
//!
//! A call is erased in one transaction: its events, its row, and the entries of the
//! quarantine that name it are deleted, a keyed hash of its names is kept, and the erasure
//! is appended to the change feed. A later delivery is recognized by the hash.
//!
//! What always holds: no writer stores an event of an erased call. An erasure increases
//! `feed.erasures` under the lock of `feed`, which a writer takes before it stores events;
//! the write is rolled back if the number is not the one for which the writer has looked
//! up what is erased. An erasure that is interrupted may be repeated.
//!
//! Locks are acquired in the same order as by the writers: calls, then events, then `feed`.
//!
//! Deliberately absent: which entries of the quarantine name a call.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use ring::hmac;
use sqlx::{Connection as _, PgConnection, PgExecutor};
use uuid::Uuid;

use super::{Error, codec::key};
use crate::{
    access::Projects,
    call::{CallId, CallKey, ClientId, ProjectId},
};

/// How often an erasure is tried during which the same call is begun again.
const MAX_TRIES: u32 = 8;

/// A keyed hash of the names of a call or a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErasureHash([u8; 32]);

impl ErasureHash {
    /// Its bytes, as they are stored.
    #[must_use]
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

/// The key of the hashes, and how often something was erased when it was read.
#[derive(Debug, Clone)]
pub struct ErasureState {
    secret: hmac::Key,
    /// The number of erasures.
    pub erasures: i64,
}

impl ErasureState {
    /// Reads it.
    pub async fn load(conn: &mut PgConnection) -> Result<Self, Error> {
        let row = sqlx::query!("select secret, erasures from erasure_key cross join feed")
            .fetch_one(conn)
            .await?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &row.secret);
        Ok(Self { secret, erasures: row.erasures })
    }

    /// The hash of a call.
    #[must_use]
    pub fn of_call(&self, key: &CallKey) -> ErasureHash {
        self.hash(["call", key.project_id.as_str(), key.call_id.as_str()])
    }

    /// The hash of a client in one project, or in any.
    #[must_use]
    pub fn of_client(&self, client_id: &ClientId, project_id: Option<&ProjectId>) -> ErasureHash {
        self.hash(["client", project_id.map_or("", ProjectId::as_str), client_id.as_str()])
    }

    /// Names contain no line feeds, so their ends are unambiguous.
    fn hash(&self, parts: [&str; 3]) -> ErasureHash {
        let tag = hmac::sign(&self.secret, parts.join("\n").as_bytes());
        ErasureHash(tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes"))
    }
}

/// Those of the hashes that belong to something that was erased.
pub async fn erased(
    conn: &mut PgConnection,
    hashes: &BTreeSet<ErasureHash>,
) -> Result<HashSet<ErasureHash>, Error> {
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.0[..]).collect();
    let found = sqlx::query_scalar!(
        "select hash from erasure_hashes where hash = any($1)",
        &hashes as &[&[u8]],
    )
    .fetch_all(conn)
    .await?;
    Ok(found.into_iter().filter_map(|hash| hash.try_into().ok().map(ErasureHash)).collect())
}

/// What an erasure is about, for the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One call.
    Call,
    /// All calls of a client.
    Client,
}

/// How much was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// The number of calls.
    pub calls: u64,
    /// The number of their events.
    pub events: u64,
    /// The number of entries of the quarantine that named them.
    pub quarantine_entries: u64,
}

impl std::ops::AddAssign for Erased {
    fn add_assign(&mut self, more: Self) {
        self.calls += more.calls;
        self.events += more.events;
        self.quarantine_entries += more.quarantine_entries;
    }
}

/// Adds a row to the audit, in which the following erasures are counted, and returns its
/// number.
pub async fn begin(
    conn: &mut PgConnection,
    kind: Kind,
    api_key: Option<Uuid>,
    now: DateTime<Utc>,
) -> Result<i64, Error> {
    let kind = match kind {
        Kind::Call => "call",
        Kind::Client => "client",
    };
    let id = sqlx::query_scalar!(
        r#"
        insert into erasures (erased_at, kind, api_key, calls, events, quarantine_entries)
        values ($1, $2, $3, 0, 0, 0)
        returning id
        "#,
        now,
        kind,
        api_key,
    )
    .fetch_one(conn)
    .await?;
    Ok(id)
}

/// Makes a client stay erased: in these projects, or in any. Once this has returned, no
/// writer stores a call of the client.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn refuse_client(
    conn: &mut PgConnection,
    client_id: &ClientId,
    projects: &Projects,
) -> Result<(), Error> {
    let state = ErasureState::load(conn).await?;
    let hashes: Vec<ErasureHash> = match projects {
        Projects::All => vec![state.of_client(client_id, None)],
        Projects::Only(ids) => ids.iter().map(|id| state.of_client(client_id, Some(id))).collect(),
    };
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.0[..]).collect();
    let mut tx = conn.begin().await?;
    count_erasure(&mut tx).await?;
    sqlx::query!(
        "insert into erasure_hashes (hash) select unnest($1::bytea[]) on conflict do nothing",
        &hashes as &[&[u8]],
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Waits for the writers that are about to commit, and makes the others look up again what
/// is erased. Nothing may wait for a lock after this.
async fn count_erasure(conn: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("update feed set erasures = erasures + 1").execute(conn).await?;
    Ok(())
}

/// The calls of an id, one in each of the projects that has one, in the order of projects.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn calls_of_id(
    executor: impl PgExecutor<'_>,
    call_id: &CallId,
    projects: &Projects,
) -> Result<Vec<CallKey>, Error> {
    let rows = sqlx::query!(
        r#"
        select project_id, call_id
        from calls
        where call_id = $1 and ($2::text[] is null or project_id = any($2))
        order by project_id
        "#,
        call_id.as_str(),
        projects.ids() as Option<Vec<&str>>,
    )
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(|row| key("calls", row.project_id, row.call_id)).collect()
}

/// The calls that any event names this client of, in the order of their numbers.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn calls_of_client(
    conn: &mut PgConnection,
    client_id: &ClientId,
    projects: &Projects,
) -> Result<Vec<CallKey>, Error> {
    let rows = sqlx::query!(
        r#"
        with
        of_client as (
            select id from calls where client_id = $1
            union
            -- calls that have another client by now
            select changed.call
            from events as changed
            where changed.changes_client
                and exists (
                    select from events where call = changed.call and client_id = $1
                )
        )
        select project_id, call_id
        from of_client
        join calls using (id)
        where $2::text[] is null or project_id = any($2)
        order by id
        "#,
        client_id.as_str(),
        projects.ids() as Option<Vec<&str>>,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| key("calls", row.project_id, row.call_id)).collect()
}

/// Erases a call and these entries of the quarantine, which name it. Nothing, not even the
/// entries, if the call is not stored.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn erase_call(
    conn: &mut PgConnection,
    call: &CallKey,
    quarantine_entries: &[Uuid],
    audit: i64,
    now: DateTime<Utc>,
) -> Result<Erased, Error> {
    let state = ErasureState::load(conn).await?;
    let hash = state.of_call(call);
    for _ in 0..MAX_TRIES {
        let mut tx = conn.begin().await?;
        let Some(id) = lock(&mut tx, call).await? else {
            return Ok(Erased::default());
        };
        let events = sqlx::query!("delete from events where call = $1", id)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        sqlx::query!("delete from calls where id = $1", id).execute(&mut *tx).await?;
        let quarantine_entries = remove_entries(&mut tx, quarantine_entries).await?;
        count_erasure(&mut tx).await?;
        // Between the two a writer may have begun the call again.
        if is_stored(&mut tx, call).await? {
            tx.rollback().await?;
            continue;
        }
        let erased = Erased { calls: 1, events, quarantine_entries };
        sqlx::query!(
            r#"
            with
            remembered as (
                insert into erasure_hashes (hash) values ($1) on conflict do nothing
            ),
            appended as (
                insert into erased_calls (position, call_id, project_id, erased_at)
                values (nextval('feed_positions'), $2, $3, $4)
            )
            select pg_notify('callstate_stored', '')::text as notified
            "#,
            &hash.0[..],
            call.call_id.as_str(),
            call.project_id.as_str(),
            now,
        )
        .fetch_one(&mut *tx)
        .await?;
        add_to_audit(&mut tx, audit, erased).await?;
        tx.commit().await?;
        return Ok(erased);
    }
    Err(Error::Contended { rounds: MAX_TRIES })
}

/// Removes entries of the quarantine that name a client and no stored call.
pub async fn erase_entries(
    conn: &mut PgConnection,
    entries: &[Uuid],
    audit: i64,
) -> Result<Erased, Error> {
    let mut tx = conn.begin().await?;
    let quarantine_entries = remove_entries(&mut tx, entries).await?;
    let erased = Erased { quarantine_entries, ..Erased::default() };
    add_to_audit(&mut tx, audit, erased).await?;
    tx.commit().await?;
    Ok(erased)
}

/// Removes erasures from the change feed that were requested before a time.
pub async fn forget(executor: impl PgExecutor<'_>, before: DateTime<Utc>) -> Result<u64, Error> {
    let forgotten = sqlx::query!("delete from erased_calls where erased_at < $1", before);
    Ok(forgotten.execute(executor).await?.rows_affected())
}

/// Locks a call and returns its number.
async fn lock(conn: &mut PgConnection, call: &CallKey) -> Result<Option<i64>, Error> {
    let id = sqlx::query_scalar!(
        "select id from calls where call_id = $1 and project_id = $2 for update",
        call.call_id.as_str(),
        call.project_id.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(id)
}

/// Whether there is such a call. Does not wait for those who have locked it.
async fn is_stored(conn: &mut PgConnection, call: &CallKey) -> Result<bool, Error> {
    let id = sqlx::query_scalar!(
        "select id from calls where call_id = $1 and project_id = $2",
        call.call_id.as_str(),
        call.project_id.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.is_some())
}

async fn remove_entries(conn: &mut PgConnection, entries: &[Uuid]) -> Result<u64, Error> {
    if entries.is_empty() {
        return Ok(0);
    }
    let removed = sqlx::query!("delete from quarantine where id = any($1)", entries);
    Ok(removed.execute(conn).await?.rows_affected())
}

async fn add_to_audit(conn: &mut PgConnection, audit: i64, erased: Erased) -> Result<(), Error> {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    sqlx::query!(
        r#"
        update erasures set
            calls = calls + $2,
            events = events + $3,
            quarantine_entries = quarantine_entries + $4
        where id = $1
        "#,
        audit,
        number(erased.calls),
        number(erased.events),
        number(erased.quarantine_entries),
    )
    .execute(conn)
    .await?;
    Ok(())
}

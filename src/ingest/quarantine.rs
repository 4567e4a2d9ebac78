//! The quarantine: authentic deliveries that cannot be processed are kept, may be
//! replayed later, and are bounded.
//!
//! What always holds: an entry is removed only after its event was committed, on request,
//! or because it is the oldest and the quarantine is full. So a replay that is interrupted
//! or repeated gives a duplicate and never a loss.
//!
//! The bounds are enforced beside the deliveries: [`Trimmer`] runs when enough was added,
//! and from time to time for the sake of age. In between the quarantine may exceed its
//! bounds by one part in [`SLACK`] for each instance.
//!
//! The age of an entry is by the database's clock. While a [`ClockCheck`] fails, nothing is
//! dropped because of its age; the number and the size of entries stay bounded.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use prometheus::{IntCounter, core::Collector};
use ring::digest::{SHA256, digest};
use sqlx::PgPool;
use tokio::{sync::Notify, time::timeout};
use uuid::Uuid;

use super::{Ingest, IngestError, clock_check::ClockCheck, metrics::counter};
use crate::{
    call::{CallKey, ProjectId, Receipts},
    clock::Clock,
    log_limit,
    recho::{
        self, DecodeError, ProviderTimeZone, ReadError, Receipt, encoding::decode,
        fingerprint::uuid_of,
    },
    store::{
        self,
        connection::server_time,
        quarantine::{Bounds, Quarantined, WholeEntry, by_id, drop_from, first_beyond, keep},
        write::Recorded,
    },
};

/// The quarantine is trimmed when what was added makes this part of its bounds.
const SLACK: u64 = 64;

/// How much older than its bound an entry may become.
const TRIM_EVERY: Duration = Duration::from_mins(1);

/// The most bytes of an entry once it is decoded: those of the largest delivery that can be
/// configured.
const MAX_DECODED_BYTES: usize = 64 * 1024 * 1024;

/// How deliveries of an endpoint are replayed, by the present configuration.
#[derive(Debug, Clone, Copy)]
pub struct ReplayEndpoint<'a> {
    /// The time zone of the provider's `Time:` lines.
    pub time_zone: ProviderTimeZone,
    /// The project of deliveries that name none.
    pub default_project: &'a ProjectId,
    /// The projects that the endpoint accepts; `None` for all.
    pub projects: Option<&'a BTreeSet<ProjectId>>,
}

/// The quarantine of a running program.
#[derive(Debug, Clone)]
pub struct Quarantine {
    pool: PgPool,
    bounds: Bounds,
    additions: Arc<Additions>,
}

/// What this process has added and dropped.
#[derive(Debug)]
struct Additions {
    /// Entries since the last trimming.
    entries: AtomicU64,
    /// Bytes since the last trimming.
    bytes: AtomicU64,
    kept: IntCounter,
    dropped: IntCounter,
    is_due: Notify,
}

/// Why an entry could not be replayed. It is still there, if it ever was.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such entry.
    #[error("there is no such entry")]
    NotFound,
    /// It still cannot be parsed.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// Its content encoding cannot be decoded.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// Its endpoint does not accept it any more.
    #[error(transparent)]
    NotAccepted(#[from] NotAccepted),
    /// It was not committed, as far as is known.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The quarantine cannot be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Why an endpoint does not accept an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// It is not configured.
    #[error("there is no endpoint {0} any more")]
    NoEndpoint(String),
    /// It does not accept the project.
    #[error("the endpoint {endpoint} does not accept the project {project_id}")]
    Project {
        /// The endpoint.
        endpoint: String,
        /// The project.
        project_id: ProjectId,
    },
}

impl Quarantine {
    /// The quarantine in that database.
    #[must_use]
    pub fn new(pool: PgPool, bounds: Bounds) -> Self {
        Self { pool, bounds, additions: Arc::new(Additions::new()) }
    }

    /// Keeps a delivery, byte for byte, and returns the id of its entry.
    ///
    /// # Errors
    ///
    /// Fails if the query fails.
    pub async fn keep(
        &self,
        endpoint: &str,
        reason: &str,
        headers: &serde_json::Value,
        body: &[u8],
        received_at: DateTime<Utc>,
    ) -> Result<Uuid, store::Error> {
        // The name of an endpoint contains no line feed, so its end is unambiguous.
        let id = uuid_of(digest(&SHA256, &[endpoint.as_bytes(), b"\n", body].concat()).as_ref());
        let delivery = Quarantined { id, endpoint, reason, headers, body, received_at };
        if keep(&self.pool, &delivery).await? {
            self.additions.note(body.len() as u64, self.bounds);
        }
        Ok(id)
    }

    /// Replays an entry as if it were received now, but with the time at which it was first
    /// received, or a corrected body in its place; then the entry is removed.
    ///
    /// # Errors
    ///
    /// Fails if the entry stays. After [`ReplayError::Store`] it may have been committed all
    /// the same, and is a duplicate the next time.
    pub async fn replay<'e>(
        &self,
        id: Uuid,
        ingest: &Ingest,
        endpoint_of: impl FnOnce(&str) -> Option<ReplayEndpoint<'e>>,
        corrected: Option<&[u8]>,
    ) -> Result<(CallKey, Recorded), ReplayError> {
        let WholeEntry { entry, headers, body } =
            by_id(&self.pool, id).await?.ok_or(ReplayError::NotFound)?;
        let endpoint = endpoint_of(&entry.endpoint)
            .ok_or_else(|| NotAccepted::NoEndpoint(entry.endpoint.clone()))?;
        let receipt = Receipt {
            endpoint: &entry.endpoint,
            received_at: entry.place.first_received_at,
            time_zone: endpoint.time_zone,
            default_project: endpoint.default_project,
        };
        let encoding = headers.get("content-encoding").and_then(serde_json::Value::as_str);
        let body = match corrected {
            Some(corrected) => corrected.into(),
            None => decode(encoding.map(str::as_bytes), &body, MAX_DECODED_BYTES)?,
        };
        let mut delivery = recho::read(&body, receipt)?.delivery;
        delivery.receipts = Receipts::InAll {
            deliveries: u32::try_from(entry.count).unwrap_or(u32::MAX),
            last_delivered_at: entry.last_received_at,
        };
        let key = delivery.key.clone();
        if endpoint.projects.is_some_and(|projects| !projects.contains(&key.project_id)) {
            let (endpoint, project_id) = (entry.endpoint, key.project_id);
            return Err(NotAccepted::Project { endpoint, project_id }.into());
        }
        let recorded = ingest.commit(delivery).await?;
        store::quarantine::remove(&self.pool, id).await?;
        Ok((key, recorded))
    }

    /// Removes an entry; false if there is none.
    ///
    /// # Errors
    ///
    /// Fails if the query fails.
    pub async fn discard(&self, id: Uuid) -> Result<bool, store::Error> {
        store::quarantine::remove(&self.pool, id).await
    }

    /// The number of entries that this process has dropped because the quarantine exceeded its
    /// bounds.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.additions.dropped.get()
    }

    /// Its metrics, to be registered.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.additions.kept.clone()), Box::new(self.additions.dropped.clone())]
    }

    /// The task that keeps the quarantine within its bounds.
    #[must_use]
    pub fn trimmer(&self, clock: Clock) -> Trimmer {
        Trimmer { quarantine: self.clone(), clock, clock_check: Mutex::default() }
    }
}

impl Additions {
    fn new() -> Self {
        Self {
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            kept: counter("callstate_quarantine_kept_total", "Entries added to the quarantine."),
            dropped: counter(
                "callstate_quarantine_dropped_total",
                "Entries dropped from the quarantine because it exceeded its bounds.",
            ),
            is_due: Notify::new(),
        }
    }

    /// Counts an entry, and wakes the trimmer where that is a fair part of the bounds.
    fn note(&self, bytes: u64, bounds: Bounds) {
        self.kept.inc();
        let entries = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if entries > u64::from(bounds.max_entries) / SLACK || bytes > bounds.max_bytes / SLACK {
            self.is_due.notify_one();
        }
    }
}

/// Keeps a [`Quarantine`] within its bounds.
#[derive(Debug)]
pub struct Trimmer {
    quarantine: Quarantine,
    clock: Clock,
    clock_check: Mutex<ClockCheck>,
}

impl Trimmer {
    /// Trims at once, and then whenever it is due.
    pub async fn run(self) -> Infallible {
        loop {
            if let Err(error) = self.trim().await {
                // The next run drops it.
                if log_limit::admits("quarantine_not_trimmed", "") {
                    tracing::warn!(%error, "the quarantine could not be trimmed");
                }
            }
            // Either is a reason to trim.
            let _ = timeout(TRIM_EVERY, self.quarantine.additions.is_due.notified()).await;
        }
    }

    /// Drops the entries beyond the bounds and returns their number.
    ///
    /// # Errors
    ///
    /// Fails if a query fails. What was dropped until then is counted.
    pub async fn trim(&self) -> Result<usize, store::Error> {
        let Quarantine { pool, bounds, additions } = &self.quarantine;
        additions.entries.store(0, Ordering::Relaxed);
        additions.bytes.store(0, Ordering::Relaxed);
        let now = self.trusted_time(server_time(pool).await?);
        let Some(place) = first_beyond(pool, *bounds, now).await? else {
            return Ok(0);
        };
        let mut dropped = 0;
        loop {
            match drop_from(pool, place).await? {
                0 => break,
                entries => {
                    dropped += entries;
                    additions.dropped.inc_by(entries as u64);
                }
            }
        }
        if dropped > 0 && log_limit::admits("quarantine_trimmed", "") {
            tracing::warn!(
                dropped,
                dropped_since_start = self.quarantine.dropped(),
                "the oldest entries of the quarantine were dropped: it exceeded its bounds",
            );
        }
        Ok(dropped)
    }

    /// The database's time, if entries may be dropped by it.
    fn trusted_time(&self, server: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut check = self.clock_check.lock().unwrap_or_else(PoisonError::into_inner);
        match check.check(server, self.clock.now(), Instant::now()) {
            Ok(()) => Some(server),
            Err(error) => {
                if log_limit::admits("retention_paused", "quarantine") {
                    tracing::warn!(%error, "no entry of the quarantine is dropped because of its age");
                }
                None
            }
        }
    }
}

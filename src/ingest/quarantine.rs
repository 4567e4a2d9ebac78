//! The quarantine: what is authentic and cannot be understood is kept, may be
//! taken in later, and does not grow without bounds.
//!
//! What always holds: an entry goes only after what it says was committed, or
//! because it is the oldest of too much. So a replay that is cut short, or done
//! twice, gives a duplicate and never a loss.
//!
//! The bounds are kept beside the deliveries and not in their way: [`Trimmer`]
//! looks at the quarantine when enough was put into it, and now and then for the
//! sake of age. In between it may hold somewhat more than it should: one part in
//! [`SLACK`] for each instance.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, FixedOffset, Utc};
use prometheus::{IntCounter, core::Collector};
use ring::digest::{SHA256, digest};
use sqlx::PgPool;
use tokio::{sync::Notify, time::timeout};
use uuid::Uuid;

use super::{Ingest, Refused, counters::counter};
use crate::{
    call::{CallKey, ProjectId, Receipts},
    clock::Clock,
    recho::{self, Receipt, Unreadable, fingerprint::uuid_of},
    store::{
        self, Recorded,
        quarantine::{Bounds, Quarantined, WholeEntry, by_id, drop_from, first_beyond, keep},
    },
};

/// The bounds are looked after when what was put in since makes this part of
/// them.
const SLACK: u64 = 64;

/// How long an entry may at most be older than the bounds allow.
const TRIM_EVERY: Duration = Duration::from_mins(1);

/// The quarantine of a running program.
#[derive(Debug, Clone)]
pub struct Quarantine {
    pool: PgPool,
    bounds: Bounds,
    tally: Arc<Tally>,
}

/// What was put in and dropped by this process.
#[derive(Debug)]
struct Tally {
    /// Entries since the last trimming.
    entries: AtomicU64,
    /// Bytes since the last trimming.
    bytes: AtomicU64,
    kept: IntCounter,
    dropped: IntCounter,
    much_came: Notify,
}

/// Why an entry could not be taken in. It is still there, if it ever was.
#[derive(Debug, thiserror::Error)]
pub enum Stays {
    /// There is no such entry.
    #[error("there is no such entry")]
    Unknown,
    /// It still cannot be understood.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Its endpoint does not take it any more.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// It was not committed, as far as is known.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The quarantine cannot be read or written to.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Why an endpoint does not take an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It is no longer configured.
    #[error("there is no endpoint {0} any more")]
    NoEndpoint(String),
    /// It is not for the project.
    #[error("the endpoint {endpoint} does not take the project {project_id}")]
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
        Self { pool, bounds, tally: Arc::new(Tally::new()) }
    }

    /// Keeps a delivery that could not be understood, byte for byte.
    ///
    /// # Errors
    ///
    /// Where the database refuses.
    pub async fn keep(
        &self,
        endpoint: &str,
        reason: &str,
        headers: &serde_json::Value,
        body: &[u8],
        received_at: DateTime<Utc>,
    ) -> Result<(), store::Error> {
        // An endpoint's name holds no line feed, so its end is unambiguous.
        let id = uuid_of(digest(&SHA256, &[endpoint.as_bytes(), b"\n", body].concat()).as_ref());
        let delivery = Quarantined { id, endpoint, reason, headers, body, received_at };
        if keep(&self.pool, &delivery).await? {
            self.tally.note(body.len() as u64, self.bounds);
        }
        Ok(())
    }

    /// Takes an entry in as if it came now, but with the time at which it first
    /// came; then it is gone.
    ///
    /// Whether its endpoint takes an event of that project is for `admit` to say.
    ///
    /// # Errors
    ///
    /// Why it stays. After [`Stays::Store`] it may have been taken in all the
    /// same, and is a duplicate the next time.
    pub async fn replay(
        &self,
        id: Uuid,
        ingest: &Ingest,
        provider_utc_offset: FixedOffset,
        admit: impl FnOnce(&str, &ProjectId) -> Result<(), NotTaken>,
    ) -> Result<(CallKey, Recorded), Stays> {
        let WholeEntry { entry, body } = by_id(&self.pool, id).await?.ok_or(Stays::Unknown)?;
        let receipt = Receipt {
            endpoint: &entry.endpoint,
            received_at: entry.place.first_received_at,
            provider_utc_offset,
        };
        let mut delivery = recho::read(&body, receipt)?;
        delivery.receipts = Receipts::InAll {
            deliveries: u32::try_from(entry.count).unwrap_or(u32::MAX),
            last_delivered_at: entry.last_received_at,
        };
        let key = delivery.key.clone();
        admit(&entry.endpoint, &key.project_id)?;
        let recorded = ingest.take(delivery).await?;
        store::quarantine::remove(&self.pool, id).await?;
        Ok((key, recorded))
    }

    /// How many entries this process has dropped since its start, because there
    /// were too many, too large ones or too old ones.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.tally.dropped.get()
    }

    /// What this process counts, to be registered.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.tally.kept.clone()), Box::new(self.tally.dropped.clone())]
    }

    /// What keeps the quarantine within its bounds.
    #[must_use]
    pub fn trimmer(&self, clock: Clock) -> Trimmer {
        Trimmer { quarantine: self.clone(), clock }
    }
}

impl Tally {
    fn new() -> Self {
        Self {
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            kept: counter(
                "callstate_quarantine_kept_total",
                "Deliveries that could not be understood and made an entry of the quarantine.",
            ),
            dropped: counter(
                "callstate_quarantine_dropped_total",
                "Entries of the quarantine that went because it was beyond its bounds.",
            ),
            much_came: Notify::new(),
        }
    }

    /// Counts an entry, and wakes the trimmer where that was a fair part of the
    /// bounds.
    fn note(&self, bytes: u64, bounds: Bounds) {
        self.kept.inc();
        let entries = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if entries > u64::from(bounds.max_entries) / SLACK || bytes > bounds.max_bytes / SLACK {
            self.much_came.notify_one();
        }
    }
}

/// Keeps a [`Quarantine`] within its bounds.
#[derive(Debug)]
pub struct Trimmer {
    quarantine: Quarantine,
    clock: Clock,
}

impl Trimmer {
    /// Trims at once, and then whenever it is due; to be polled as long as
    /// deliveries are taken.
    pub async fn run(self) -> Infallible {
        loop {
            if let Err(error) = self.trim().await {
                // What is too much now is so the next time.
                tracing::warn!(%error, "the quarantine was not trimmed");
            }
            // Either is a reason to look again.
            let _ = timeout(TRIM_EVERY, self.quarantine.tally.much_came.notified()).await;
        }
    }

    /// Drops what is beyond the bounds; gives how many entries that were.
    ///
    /// # Errors
    ///
    /// Where the database refuses. What was dropped until then is counted.
    pub async fn trim(&self) -> Result<usize, store::Error> {
        let Quarantine { pool, bounds, tally } = &self.quarantine;
        tally.entries.store(0, Ordering::Relaxed);
        tally.bytes.store(0, Ordering::Relaxed);
        let Some(place) = first_beyond(pool, *bounds, self.clock.now()).await? else {
            return Ok(0);
        };
        let mut dropped = 0;
        loop {
            match drop_from(pool, place).await? {
                0 => break,
                entries => {
                    dropped += entries;
                    tally.dropped.inc_by(entries as u64);
                }
            }
        }
        if dropped > 0 {
            tracing::warn!(
                dropped,
                dropped_since_start = self.quarantine.dropped(),
                "the oldest of the quarantine were dropped: it was beyond its bounds",
            );
        }
        Ok(dropped)
    }
}

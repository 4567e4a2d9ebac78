//! The bounded queues through which deliveries reach the writers.
//!
//! With several writers, the deliveries of a call always reach the same one, so that
//! events of one call seldom compete.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    batch::{Job, ResultSender},
    metrics::Metrics,
    supervisor::{Health, Writers},
    writer::Writer,
};
use crate::{
    call::{CallKey, Delivery},
    log_limit::{self, Outage},
    store::write::Recorded,
};

/// The limits of ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The number of writers, each with a connection of its own.
    pub writers: usize,
    /// The most deliveries that one transaction commits.
    pub batch: usize,
    /// The most deliveries that wait for one writer.
    pub queue: usize,
}

/// The most bytes of payload that are held until they are committed, by all writers
/// together. A larger delivery is accepted while there is no other.
pub const MAX_WAITING_BYTES: u32 = 64 * 1024 * 1024;

/// Why a delivery was not committed, as far as is known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IngestError {
    /// The queue, or the memory for deliveries, is full.
    #[error("{}", self.kind())]
    QueueFull,
    /// The service is stopping, or its writers have ended.
    #[error("{}", self.kind())]
    Stopping,
    /// The database is away, read-only or overloaded.
    #[error("{kind}: {0}", kind = self.kind())]
    Unavailable(String),
    /// Another session has locked the call, or something else that the write needs.
    #[error("{}", self.kind())]
    CallLocked,
    /// Postgres rejects the values of this delivery.
    #[error("{kind}: {0}", kind = self.kind())]
    InvalidValue(String),
    /// The program fails on this delivery, or on a stored row of its call.
    #[error("{kind}: {0}", kind = self.kind())]
    ProgramError(String),
    /// The store failed otherwise.
    #[error("{kind}: {0}", kind = self.kind())]
    StoreError(String),
}

impl IngestError {
    /// What happened, without details.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::QueueFull => "more deliveries are waiting than can be held",
            Self::Stopping => "the service is stopping",
            Self::Unavailable(_) => "the database cannot be written to",
            Self::CallLocked => "the call is locked in the database",
            Self::InvalidValue(_) => "the delivery cannot be stored",
            Self::ProgramError(_) => "the delivery cannot be processed",
            Self::StoreError(_) => "the delivery could not be stored",
        }
    }

    /// Whether it would fail again however often it is sent, until something is repaired.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::InvalidValue(_) | Self::ProgramError(_) => true,
            Self::QueueFull
            | Self::Stopping
            | Self::Unavailable(_)
            | Self::CallLocked
            | Self::StoreError(_) => false,
        }
    }
}

/// The entrance to the queues.
#[derive(Debug, Clone)]
pub struct Ingest {
    queues: Arc<[mpsc::Sender<Job>]>,
    /// A permit for each byte that may still be held.
    free_bytes: Arc<Semaphore>,
    metrics: Metrics,
    health: Arc<Health>,
    outage: Arc<Outage>,
}

/// The result of a delivery that was queued.
#[derive(Debug)]
pub struct PendingDelivery(oneshot::Receiver<Result<Recorded, IngestError>>);

impl Ingest {
    /// Starts the writers.
    #[must_use]
    pub fn start(settings: Settings, options: &PgConnectOptions) -> (Self, Writers) {
        let metrics = Metrics::default();
        let health = Arc::new(Health::default());
        let outage = Arc::new(Outage::default());
        let mut writers = Writers::new(Arc::clone(&health));
        let queues = (0..settings.writers.max(1))
            .map(|_| {
                let (sender, jobs) = mpsc::channel(settings.queue.max(1));
                writers.start(Writer::new(
                    options,
                    settings.batch.max(1),
                    jobs,
                    metrics.clone(),
                    Arc::clone(&outage),
                ));
                sender
            })
            .collect();
        let free_bytes = Arc::new(Semaphore::new(MAX_WAITING_BYTES as usize));
        (Self { queues, free_bytes, metrics, health, outage }, writers)
    }

    /// Commits a delivery. Once this was polled, the delivery is committed even if the
    /// future is dropped.
    ///
    /// # Errors
    ///
    /// Fails if the delivery was not committed, as far as is known. Does not wait for a
    /// full queue.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn commit(&self, delivery: Delivery) -> Result<Recorded, IngestError> {
        let bytes = Arc::clone(&self.free_bytes)
            .try_acquire_many_owned(size(&delivery))
            .map_err(|_| self.queue_full())?;
        let (sender, recorded) = oneshot::channel();
        let queue = self.queue_of(&delivery.key);
        let result = ResultSender { sender, _bytes: bytes };
        queue.try_send(Job { delivery, result }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => self.queue_full(),
            mpsc::error::TrySendError::Closed(_) => IngestError::Stopping,
        })?;
        recorded.await.unwrap_or(Err(IngestError::Stopping))
    }

    /// As [`Ingest::commit`], but waits where the queue is full, which slows a sender
    /// down to what can be committed. The result may be awaited later.
    ///
    /// # Errors
    ///
    /// Fails if the writers have ended.
    pub async fn queue(&self, delivery: Delivery) -> Result<PendingDelivery, IngestError> {
        let bytes = Arc::clone(&self.free_bytes).acquire_many_owned(size(&delivery)).await;
        let bytes = bytes.map_err(|_| IngestError::Stopping)?;
        let (sender, recorded) = oneshot::channel();
        let result = ResultSender { sender, _bytes: bytes };
        let queued = self.queue_of(&delivery.key).send(Job { delivery, result }).await;
        queued.map_err(|_| IngestError::Stopping)?;
        Ok(PendingDelivery(recorded))
    }

    /// The number of deliveries that wait for the writers.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.max_capacity() - queue.capacity()).sum()
    }

    /// The bytes of payload that are held until they are committed: those that wait for
    /// the writers, and those that are being written.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        (MAX_WAITING_BYTES as usize).saturating_sub(self.free_bytes.available_permits())
    }

    /// The metrics of the writers.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether all writers are running.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.health.is_healthy()
    }

    /// The outage of the database, for the lines about it.
    #[must_use]
    pub fn outage(&self) -> Arc<Outage> {
        Arc::clone(&self.outage)
    }

    /// Counts a delivery for which there is no place.
    fn queue_full(&self) -> IngestError {
        let error = IngestError::QueueFull;
        if !self.outage.queue_full() && log_limit::admits("queue_full", "") {
            tracing::error!(waiting = self.waiting(), "a delivery was refused: {error}");
        }
        error
    }

    /// The queue of the writer that commits a call's deliveries.
    fn queue_of(&self, key: &CallKey) -> &mpsc::Sender<Job> {
        if let [queue] = &*self.queues {
            return queue;
        }
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let writer = hasher.finish() % self.queues.len() as u64;
        &self.queues[usize::try_from(writer).expect("less than the number of writers")]
    }
}

/// The bytes that a delivery counts for.
fn size(delivery: &Delivery) -> u32 {
    u32::try_from(delivery.payload.len()).unwrap_or(u32::MAX).min(MAX_WAITING_BYTES)
}

impl PendingDelivery {
    /// Waits until the delivery is committed.
    ///
    /// # Errors
    ///
    /// Fails if it was not committed, as far as is known.
    pub async fn result(self) -> Result<Recorded, IngestError> {
        self.0.await.unwrap_or(Err(IngestError::Stopping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::batch::tests::delivery;

    fn delivery_of(bytes: u32) -> Delivery {
        let mut delivery = delivery();
        delivery.payload = " ".repeat(bytes as usize);
        delivery
    }

    #[tokio::test]
    async fn commit_fails_where_queue_waits() {
        let (sender, mut jobs) = mpsc::channel(1);
        let ingest = Ingest {
            queues: [sender].into(),
            free_bytes: Arc::new(Semaphore::new(MAX_WAITING_BYTES as usize)),
            metrics: Metrics::default(),
            health: Arc::default(),
            outage: Arc::default(),
        };
        // The memory is full at first, then the queue.
        for bytes in [MAX_WAITING_BYTES - 1, 0] {
            let first = ingest.queue(delivery_of(bytes)).await.unwrap();
            assert_eq!(ingest.waiting_bytes(), bytes as usize);
            let refused = ingest.commit(delivery_of(2)).await;
            assert!(matches!(refused, Err(IngestError::QueueFull)), "{refused:?}");
            let second = ingest.queue(delivery_of(2));
            tokio::pin!(second);
            assert!(futures_util::poll!(&mut second).is_pending());
            // A writer drops the job once it has answered.
            drop(jobs.recv().await.unwrap());
            second.await.unwrap();
            assert!(matches!(first.result().await, Err(IngestError::Stopping)));
            drop(jobs.recv().await.unwrap());
            assert_eq!(ingest.waiting_bytes(), 0);
        }
    }
}

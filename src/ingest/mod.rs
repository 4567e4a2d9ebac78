//! From an understood delivery to its commit.
//!
//! Handlers hand a delivery to [`Ingest::take`] and wait. It goes into the
//! bounded queue of a writer; where there are several, always of the same one for
//! the same call, so that events of one call seldom compete. A [`writer`] commits
//! whatever has gathered as one batch and then answers all of it; a lone
//! delivery does not wait for company.
//!
//! What always holds: a delivery is answered well only after its commit; one
//! that was taken is committed even when nobody waits for the answer any more;
//! what waits is bounded, by [`Settings::queue`] for each writer, which has two batches
//! in hand besides, and by [`MAX_WAITING_BYTES`] for all.
//!
//! What cannot be understood goes into the [`quarantine`] instead, and may come
//! from there later.
//!
//! Deliberately absent: HTTP, and what makes a delivery authentic.

pub mod counters;
mod locked;
pub mod quarantine;
mod turn;
mod writer;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    call::{CallKey, Delivery},
    store::{Buckets, Recorded},
};
use counters::Counters;
pub use quarantine::Quarantine;
use writer::{Answer, Job, Writer};

/// How much is done at once, and how much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many writers commit side by side, each with a connection of its own.
    pub writers: usize,
    /// The most deliveries that one transaction commits.
    pub batch: usize,
    /// The most deliveries that wait for one writer.
    pub queue: usize,
}

/// The most bytes of payload that are held until they are committed, by all
/// writers together; a larger delivery is taken while there is no other.
const MAX_WAITING_BYTES: u32 = 64 * 1024 * 1024;

/// Why a delivery was not taken. It may be sent again, unless it is for what is in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// As much is waiting as may.
    #[error("more deliveries are waiting than can be held")]
    Full,
    /// The service stops.
    #[error("the service is stopping")]
    Stopping,
    /// The database is away, or overloaded.
    #[error("the database cannot be written to: {0}")]
    Away(String),
    /// Somebody has locked the call, or what else it needs.
    #[error("the call is locked in the database")]
    Locked,
    /// The database refuses just this delivery for what it says.
    #[error("the delivery cannot be stored: {0}")]
    Unstorable(String),
    /// The program makes a mistake with it, or cannot read what is stored of its call.
    #[error("the delivery cannot be decided on: {0}")]
    Undecided(String),
    /// Something is wrong with the store.
    #[error("the delivery could not be stored: {0}")]
    Broken(String),
}

/// The way in.
#[derive(Debug, Clone)]
pub struct Ingest {
    queues: Arc<[mpsc::Sender<Job>]>,
    /// A permit for each byte that may still be held.
    room: Arc<Semaphore>,
    counters: Counters,
}

/// The answer to a delivery that was put into its queue.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Recorded, Refused>>);

/// The writers behind an [`Ingest`].
#[derive(Debug)]
pub struct Writers(JoinSet<()>);

impl Ingest {
    /// Starts the writers.
    #[must_use]
    pub fn start(
        settings: Settings,
        options: &PgConnectOptions,
        buckets: Buckets,
    ) -> (Self, Writers) {
        let mut writers = JoinSet::new();
        let counters = Counters::default();
        let queues = (0..settings.writers.max(1))
            .map(|_| {
                let (sender, jobs) = mpsc::channel(settings.queue.max(1));
                let counters = counters.clone();
                let writer = Writer::new(options, buckets, settings.batch.max(1), jobs, counters);
                writers.spawn(writer.run());
                sender
            })
            .collect();
        let room = Arc::new(Semaphore::new(MAX_WAITING_BYTES as usize));
        (Self { queues, room, counters }, Writers(writers))
    }

    /// Commits a delivery and tells what it did. Once this was polled, the
    /// delivery is committed even if the answer is not awaited.
    ///
    /// # Errors
    ///
    /// Where it was not committed, as far as is known.
    pub async fn take(&self, delivery: Delivery) -> Result<Recorded, Refused> {
        let bytes = u32::try_from(delivery.payload.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes.min(MAX_WAITING_BYTES));
        let room = room.map_err(|_| Refused::Full)?;
        let (sender, recorded) = oneshot::channel();
        let answer = Answer { sender, _room: room };
        let queue = self.queue_of(&delivery.key);
        queue.try_send(Job { delivery, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Full,
            mpsc::error::TrySendError::Closed(_) => Refused::Stopping,
        })?;
        recorded.await.unwrap_or(Err(Refused::Stopping))
    }

    /// As [`Ingest::take`], but waits for room where there is none, which bounds
    /// who brings more than can be committed. The answer may be awaited later.
    ///
    /// # Errors
    ///
    /// Where the writers have ended.
    pub async fn put(&self, delivery: Delivery) -> Result<Pending, Refused> {
        let bytes = u32::try_from(delivery.payload.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes.min(MAX_WAITING_BYTES)).await;
        let room = room.map_err(|_| Refused::Stopping)?;
        let (sender, recorded) = oneshot::channel();
        let answer = Answer { sender, _room: room };
        let queued = self.queue_of(&delivery.key).send(Job { delivery, answer }).await;
        queued.map_err(|_| Refused::Stopping)?;
        Ok(Pending(recorded))
    }

    /// How many deliveries wait for the writers.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.max_capacity() - queue.capacity()).sum()
    }

    /// How many bytes of payload are held until they are committed: those that
    /// wait for the writers, and those that are being written.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        (MAX_WAITING_BYTES as usize).saturating_sub(self.room.available_permits())
    }

    /// What the writers count.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The queue of the writer that commits a call's deliveries.
    fn queue_of(&self, key: &CallKey) -> &mpsc::Sender<Job> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let writer = hasher.finish() % self.queues.len() as u64;
        &self.queues[usize::try_from(writer).expect("less than the number of writers")]
    }
}

impl Refused {
    /// Whether it would be refused as often as it is sent, until something is mended.
    #[must_use]
    pub fn is_about_delivery(&self) -> bool {
        match self {
            Self::Unstorable(_) | Self::Undecided(_) => true,
            Self::Full | Self::Stopping | Self::Away(_) | Self::Locked | Self::Broken(_) => false,
        }
    }
}

impl Pending {
    /// Waits until the delivery is committed, and tells what it did.
    ///
    /// # Errors
    ///
    /// Where it was not committed, as far as is known.
    pub async fn answer(self) -> Result<Recorded, Refused> {
        self.0.await.unwrap_or(Err(Refused::Stopping))
    }
}

impl Writers {
    /// Waits until all that was taken is committed and answered. Every
    /// [`Ingest`] must be gone, else this waits for more.
    pub async fn finish(self) {
        self.0.join_all().await;
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, FixedOffset, Utc};

    use super::*;
    use crate::recho::{self, Receipt};

    fn delivery(bytes: u32) -> Delivery {
        let receipt = Receipt {
            endpoint: "default",
            received_at: DateTime::<Utc>::UNIX_EPOCH,
            provider_utc_offset: FixedOffset::east_opt(0).unwrap(),
        };
        let mut delivery = recho::read(br#"{"eventType": "x", "callId": "c"}"#, receipt).unwrap();
        delivery.payload = " ".repeat(bytes as usize);
        delivery
    }

    #[tokio::test]
    async fn who_takes_is_refused_where_who_puts_waits() {
        let (sender, mut jobs) = mpsc::channel(1);
        let ingest = Ingest {
            queues: [sender].into(),
            room: Arc::new(Semaphore::new(MAX_WAITING_BYTES as usize)),
            counters: Counters::default(),
        };
        // Most of the room, and then the queue.
        for bytes in [MAX_WAITING_BYTES - 1, 0] {
            let first = ingest.put(delivery(bytes)).await.unwrap();
            assert_eq!(ingest.waiting_bytes(), bytes as usize);
            assert!(matches!(ingest.take(delivery(2)).await, Err(Refused::Full)));
            let second = ingest.put(delivery(2));
            tokio::pin!(second);
            assert!(futures_util::poll!(&mut second).is_pending());
            // It is committed, and answered.
            drop(jobs.recv().await.unwrap());
            second.await.unwrap();
            assert!(matches!(first.answer().await, Err(Refused::Stopping)));
            drop(jobs.recv().await.unwrap());
            assert_eq!(ingest.waiting_bytes(), 0);
        }
    }
}

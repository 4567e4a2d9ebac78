//! Restarting writers, and their health.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt as _;
use tokio::{
    sync::{Mutex, Notify},
    task::JoinSet,
};

use super::writer::Writer;

/// How often a writer is restarted that panics outside of a batch.
const MAX_RESTARTS: u32 = 3;

/// Whether all writers are running.
#[derive(Debug, Default)]
pub(super) struct Health {
    has_failed: AtomicBool,
    failed: Notify,
}

impl Health {
    pub(super) fn is_healthy(&self) -> bool {
        !self.has_failed.load(Ordering::Acquire)
    }

    fn fail(&self) {
        self.has_failed.store(true, Ordering::Release);
        self.failed.notify_waiters();
    }
}

/// The running writers.
#[derive(Debug)]
pub struct Writers {
    tasks: JoinSet<()>,
    health: Arc<Health>,
}

impl Writers {
    pub(super) fn new(health: Arc<Health>) -> Self {
        Self { tasks: JoinSet::new(), health }
    }

    /// Runs a writer until its queue is closed and empty.
    pub(super) fn start(&mut self, writer: Writer) {
        let health = Arc::clone(&self.health);
        let writer = Arc::new(Mutex::new(writer));
        self.tasks.spawn(async move {
            let run = || {
                let writer = Arc::clone(&writer);
                async move { writer.lock().await.run().await }
            };
            supervise(&health, run).await;
            writer.lock().await.close().await;
        });
    }

    /// Waits until a writer has failed for good.
    pub async fn failed(&self) {
        let mut failed = std::pin::pin!(self.health.failed.notified());
        failed.as_mut().enable();
        if self.health.is_healthy() {
            failed.await;
        }
    }

    /// Waits until all accepted deliveries are committed and answered. Every
    /// [`Ingest`](super::Ingest) must be dropped before, else this waits for more.
    pub async fn finish(self) {
        self.tasks.join_all().await;
    }
}

/// Runs a writer until it ends. A panic loses the batch at hand, whose senders get an
/// error; the writer is restarted, but not for ever.
async fn supervise<F: Future<Output = ()>>(health: &Health, mut run: impl FnMut() -> F) {
    for restarts in 0..=MAX_RESTARTS {
        if AssertUnwindSafe(run()).catch_unwind().await.is_ok() {
            return;
        }
        tracing::error!(restarts, "a writer panicked");
    }
    health.fail();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_writer_that_panics_is_restarted() {
        let health = Health::default();
        let mut runs = 0;
        supervise(&health, || {
            runs += 1;
            let is_last = runs > MAX_RESTARTS;
            async move { assert!(is_last, "the writer fails") }
        })
        .await;
        assert_eq!(runs, MAX_RESTARTS + 1);
        assert!(health.is_healthy());
    }

    #[tokio::test]
    async fn a_writer_that_keeps_panicking_is_reported() {
        let health = Arc::new(Health::default());
        let writers = Writers::new(Arc::clone(&health));
        let mut failed = std::pin::pin!(writers.failed());
        assert!(futures_util::poll!(&mut failed).is_pending());
        supervise(&health, || async { panic!("the writer fails") }).await;
        assert!(!health.is_healthy());
        failed.await;
        writers.failed().await;
    }
}

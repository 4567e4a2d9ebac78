//! The writer: commits what has gathered as one batch, then answers all of it.
//!
//! A lone delivery does not wait for others: what gathers while a batch is being
//! written is the next batch, so that batches grow with the load.

use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    batch::{Batch, Job},
    connection::{BATCH_TIMEOUT, LockTimeout, OpenConnection, WriterConnection},
    locks::LockedCalls,
    metrics::Metrics,
    queue::IngestError,
};
use crate::{
    call::CallKey,
    log_limit::{self, Outage},
    store::{
        self,
        calls::find::locked,
        error::Class,
        statistics::{Countdown, analyze_if_missing},
        write::Recorded,
    },
};

/// The most bytes of payload in one statement, unless one delivery has more.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The number of deliveries beyond which a larger batch costs no less per delivery.
const LARGE_BATCH: usize = 64;

/// How often a batch is tried that Postgres rolls back in favor of another transaction.
const MAX_TRIES: u32 = 5;

/// A writer with its connection and its queue.
pub(super) struct Writer {
    batch_size: usize,
    jobs: mpsc::Receiver<Job>,
    connection: WriterConnection,
    locked: LockedCalls,
    statistics: Countdown,
    metrics: Metrics,
    outage: Arc<Outage>,
}

impl Writer {
    pub(super) fn new(
        options: &PgConnectOptions,
        batch_size: usize,
        jobs: mpsc::Receiver<Job>,
        metrics: Metrics,
        outage: Arc<Outage>,
    ) -> Self {
        Self {
            batch_size,
            jobs,
            connection: WriterConnection::new(options),
            locked: LockedCalls::default(),
            statistics: Countdown::default(),
            metrics,
            outage,
        }
    }

    /// Commits batch after batch until the queue is closed and empty.
    pub(super) async fn run(&mut self) {
        // A writer that was restarted cannot rely on the state that a panic left behind.
        self.connection.discard();
        loop {
            let jobs = self.gather().await;
            if jobs.is_empty() {
                return;
            }
            let count = jobs.len();
            self.commit(Batch::of(jobs)).await;
            self.analyze_if_due(count);
        }
    }

    /// Closes the connection.
    pub(super) async fn close(&mut self) {
        self.connection.close().await;
    }

    /// The next batch: what waits, or half of it if that is much. If a batch were always
    /// everything, all senders would wait for the database and then the database for all
    /// senders. Empty when the queue is closed.
    async fn gather(&mut self) -> Vec<Job> {
        let most = (self.jobs.len() / 2).max(LARGE_BATCH).min(self.batch_size);
        let mut jobs = Vec::with_capacity(most);
        self.jobs.recv_many(&mut jobs, most).await;
        jobs
    }

    /// Commits a batch and answers it. If it fails because of a delivery, it is split until
    /// that delivery is alone; the others must not wait for that, so it comes last, and so
    /// do deliveries for calls that are noted as locked.
    #[tracing::instrument(level = "debug", skip_all, fields(deliveries = batch.len()))]
    async fn commit(&mut self, batch: Batch) {
        let mut spent = Duration::ZERO;
        let (free, locked) = self.locked.split(batch);
        self.commit_in_parts(free, &mut spent).await;
        if !locked.is_empty() {
            let rest = self.fail_locked(locked).await;
            self.commit_in_parts(rest, &mut spent).await;
        }
    }

    /// Commits it whole, or in as many parts as it takes.
    async fn commit_in_parts(&mut self, whole: Batch, spent: &mut Duration) {
        let mut parts = VecDeque::from([whole]);
        while let Some(part) = parts.pop_front() {
            if *spent >= BATCH_TIMEOUT {
                part.fail(&IngestError::CallLocked);
            } else if !part.is_empty() {
                parts.extend(self.commit_part(part, spent).await);
            }
        }
    }

    /// Fails the deliveries for calls that Postgres reports as locked, or all of them if
    /// the whole table is. Returns the others, which get a short lock timeout.
    async fn fail_locked(&mut self, batch: Batch) -> Batch {
        let (rest, failed) = match self.find_locked(&batch).await {
            Ok(locked) => batch.split_by(&locked.into_iter().collect()),
            Err(error) if error.class() == Class::Locked => (Batch::default(), batch),
            Err(error) => {
                self.fail_unavailable(batch, &error);
                return Batch::default();
            }
        };
        if !failed.is_empty() {
            if log_limit::admits("calls_locked", "") {
                tracing::warn!(deliveries = failed.len(), "calls are locked in the database");
            }
            failed.fail(&IngestError::CallLocked);
        }
        rest.with_lock_timeout(LockTimeout::Short)
    }

    /// The calls of a batch that Postgres reports as locked; notes them.
    async fn find_locked(&mut self, batch: &Batch) -> Result<Vec<CallKey>, store::Error> {
        let keys: Vec<&CallKey> = batch.keys().into_iter().collect();
        let finding = async {
            let open = self.connection.get(LockTimeout::Short).await?;
            locked(&mut open.connection, &keys).await
        };
        let found = timeout(BATCH_TIMEOUT, finding)
            .await
            .unwrap_or(Err(store::Error::TimedOut(BATCH_TIMEOUT)));
        if found.as_ref().is_err_and(|error| !error.keeps_connection()) {
            self.connection.discard();
        }
        let found = found?;
        self.locked.add(found.iter().cloned());
        Ok(found)
    }

    /// Commits a part of a batch and answers it, or returns the parts that are to be tried
    /// separately.
    async fn commit_part(&mut self, mut part: Batch, spent: &mut Duration) -> Vec<Batch> {
        if part.bytes() > MAX_BATCH_BYTES && part.len() > 1 {
            return part.split();
        }
        let mut recorded = vec![None; part.len()];
        let started = Instant::now();
        let result = self.record(&part, &mut recorded).await;
        self.observe(part.len(), started.elapsed());
        *spent += started.elapsed();
        // What is recorded is committed, even if the rest failed.
        let committed = part.deliveries.iter().zip(&recorded).filter(|(_, it)| it.is_some());
        self.locked.remove(committed.map(|(delivery, _)| delivery));
        part.send_recorded(recorded);
        let Err(error) = result else {
            self.outage.committed();
            return Vec::new();
        };
        let count = part.len();
        match error.class() {
            Class::Locked => {
                if log_limit::admits("lock_timeout", "") {
                    tracing::warn!(deliveries = count, %error, "a batch waited for a lock");
                }
                let part = self.fail_locked(part).await;
                if part.len() < count {
                    return vec![part];
                }
                // Postgres does not report the lock, or it is free by now.
                if part.len() > 1 {
                    return part.split();
                }
                self.locked.add(part.deliveries.iter().map(|delivery| delivery.key.clone()));
                part.fail(&IngestError::CallLocked);
            }
            Class::Unavailable | Class::RolledBack => {
                self.fail_unavailable(part, &error);
            }
            Class::Data | Class::Program | Class::Schema | Class::Privilege | Class::Other
                if count > 1 =>
            {
                if log_limit::admits("batch_split", "") {
                    tracing::warn!(deliveries = count, %error, "a batch is split");
                }
                self.metrics.splits.inc();
                return part.split();
            }
            Class::Data => part.fail(&IngestError::InvalidValue(error.to_string())),
            Class::Program => part.fail(&IngestError::ProgramError(error.to_string())),
            Class::Schema | Class::Privilege | Class::Other => {
                part.fail(&IngestError::StoreError(error.to_string()));
            }
        }
        Vec::new()
    }

    /// Fails deliveries because the database cannot be written to, or rolled each try back.
    fn fail_unavailable(&self, batch: Batch, error: &store::Error) {
        let why = error.to_string();
        if error.class() == Class::Unavailable {
            self.outage.failed(batch.len(), &why);
        } else if log_limit::admits("batch_not_committed", "") {
            tracing::warn!(deliveries = batch.len(), %error, "a batch was not committed");
        }
        batch.fail(&IngestError::Unavailable(why));
    }

    /// Records a batch, as far as possible. A panic fails the batch, not the writer.
    async fn record(
        &mut self,
        part: &Batch,
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), store::Error> {
        let recording = AssertUnwindSafe(self.try_record(part, recorded)).catch_unwind();
        let result = match timeout(BATCH_TIMEOUT, recording).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(store::Error::Panicked),
            Err(_elapsed) => Err(store::Error::TimedOut(BATCH_TIMEOUT)),
        };
        if result.as_ref().is_err_and(|error| !error.keeps_connection()) {
            self.connection.discard();
        }
        result
    }

    /// Records a batch, again where Postgres rolled it back in favor of another one.
    async fn try_record(
        &mut self,
        part: &Batch,
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), store::Error> {
        let mut tries = 1;
        loop {
            let OpenConnection { connection, recorder, .. } =
                self.connection.get(part.lock_timeout).await?;
            let result = recorder.record(connection, &part.deliveries, recorded).await;
            self.metrics.contended_rounds.inc_by(recorder.take_contended_rounds());
            match result {
                Err(error) if error.class() == Class::RolledBack && tries < MAX_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    fn observe(&self, deliveries: usize, elapsed: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a batch has some thousands at most")]
        self.metrics.batch_deliveries.observe(deliveries as f64);
        self.metrics.commit_seconds.observe(elapsed.as_secs_f64());
    }

    /// Has a new database analyzed, once, over a connection of its own.
    fn analyze_if_due(&mut self, deliveries: usize) {
        if !self.statistics.is_due_after(deliveries) {
            return;
        }
        let connecting = self.connection.further();
        tokio::spawn(async move {
            let analyzing = async { analyze_if_missing(&mut connecting.await?).await };
            if let Err(error) = analyzing.await {
                tracing::warn!(%error, "the new database could not be analyzed");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::ingest::batch::{ResultSender, tests::delivery};

    /// A writer of a database that does not exist, and its queue.
    fn writer(batch_size: usize) -> (Writer, mpsc::Sender<Job>) {
        let (sender, jobs) = mpsc::channel(2000);
        let options = PgConnectOptions::new_without_pgpass().socket("/nowhere");
        (Writer::new(&options, batch_size, jobs, Metrics::default(), Arc::default()), sender)
    }

    async fn send(
        sender: &mpsc::Sender<Job>,
        count: usize,
    ) -> Vec<oneshot::Receiver<Result<Recorded, IngestError>>> {
        let bytes = Arc::new(Semaphore::new(count));
        let mut results = Vec::new();
        for _ in 0..count {
            let bytes = Arc::clone(&bytes).acquire_owned().await.unwrap();
            let (result, receiver) = oneshot::channel();
            let result = ResultSender { sender: result, _bytes: bytes };
            sender.send(Job { delivery: delivery(), result }).await.unwrap();
            results.push(receiver);
        }
        results
    }

    #[tokio::test]
    async fn a_batch_is_half_of_what_waits_if_that_is_much() {
        for (waiting, batch_size, taken) in [
            (1, 512, 1),
            (64, 512, 64),
            (130, 512, 65),
            (1000, 512, 500),
            (1100, 512, 512),
            (10, 8, 8),
        ] {
            let (mut writer, sender) = writer(batch_size);
            send(&sender, waiting).await;
            assert_eq!(writer.gather().await.len(), taken, "{waiting} wait");
        }
    }

    #[tokio::test]
    async fn a_closed_queue_is_committed_to_its_end() {
        let (mut writer, sender) = writer(512);
        let results = send(&sender, 3).await;
        drop(sender);
        writer.run().await;
        for result in results {
            let result = result.await.expect("each is answered");
            assert!(matches!(result, Err(IngestError::Unavailable(_))), "{result:?}");
        }
    }
}

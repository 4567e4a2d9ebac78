//! A writer: commits what has gathered, then answers all of it.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Refused, counters::Counters};
use crate::{
    call::Delivery,
    store::{self, Buckets, Recorded, Recorder},
};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a batch is tried that Postgres rolled back for the sake of another
/// transaction.
const MAX_TRIES: u32 = 5;

/// A delivery on its way, and where to answer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) delivery: Delivery,
    pub(super) answer: oneshot::Sender<Result<Recorded, Refused>>,
}

/// One writer, with its connection and its queue.
pub(super) struct Writer {
    options: PgConnectOptions,
    buckets: Buckets,
    batch: usize,
    jobs: mpsc::Receiver<Job>,
    connection: Option<PgConnection>,
    recorder: Recorder,
    counters: Counters,
}

type Answer = oneshot::Sender<Result<Recorded, Refused>>;

impl Writer {
    pub(super) fn new(
        options: &PgConnectOptions,
        buckets: Buckets,
        batch: usize,
        jobs: mpsc::Receiver<Job>,
        counters: Counters,
    ) -> Self {
        let options = options.clone().options(store::BY_KEY);
        let recorder = Recorder::default();
        Self { options, buckets, batch, jobs, connection: None, recorder, counters }
    }

    /// Commits until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        let mut gathered = Vec::with_capacity(self.batch);
        while self.jobs.recv_many(&mut gathered, self.batch).await > 0 {
            // One transaction touches one bucket.
            let mut by_bucket: BTreeMap<i32, (Vec<Delivery>, Vec<Answer>)> = BTreeMap::new();
            for Job { delivery, answer } in gathered.drain(..) {
                let (deliveries, answers) =
                    by_bucket.entry(self.buckets.of(&delivery.key)).or_default();
                deliveries.push(delivery);
                answers.push(answer);
            }
            for (bucket, (deliveries, answers)) in by_bucket {
                self.commit(bucket, &deliveries, answers).await;
            }
        }
        if let Some(connection) = self.connection {
            // The server notices a closed socket too; a polite end is but quieter in its log.
            let _ = connection.close().await;
        }
    }

    /// Commits a batch and answers it. Where it fails for what is in it, it is
    /// split until what is at fault stands alone.
    async fn commit(&mut self, bucket: i32, deliveries: &[Delivery], mut answers: Vec<Answer>) {
        match self.record(bucket, deliveries).await {
            Ok(recorded) => {
                for (answer, recorded) in answers.into_iter().zip(recorded) {
                    // Nobody may wait any more; it is committed all the same.
                    let _ = answer.send(Ok(recorded));
                }
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(deliveries = deliveries.len(), %error, "a batch was not committed");
                for answer in answers {
                    let _ = answer.send(Err(Refused::Away(error.to_string())));
                }
            }
            Err(error) if deliveries.len() > 1 => {
                tracing::warn!(deliveries = deliveries.len(), %error, "a batch is split");
                self.counters.splits.inc();
                let middle = deliveries.len() / 2;
                let rest = answers.split_off(middle);
                Box::pin(self.commit(bucket, &deliveries[..middle], answers)).await;
                Box::pin(self.commit(bucket, &deliveries[middle..], rest)).await;
            }
            Err(error) => {
                let refused = if error.is_about_data() {
                    Refused::Unstorable(error.to_string())
                } else {
                    Refused::Broken(error.to_string())
                };
                for answer in answers {
                    let _ = answer.send(Err(refused.clone()));
                }
            }
        }
    }

    /// Records a batch. A mistake of ours in it fails the batch, not the writer.
    async fn record(
        &mut self,
        bucket: i32,
        deliveries: &[Delivery],
    ) -> Result<Vec<Recorded>, store::Error> {
        let begun = Instant::now();
        let recorded = AssertUnwindSafe(self.try_record(bucket, deliveries)).catch_unwind().await;
        #[expect(clippy::cast_precision_loss, reason = "a batch has some thousands at most")]
        self.counters.batch_deliveries.observe(deliveries.len() as f64);
        self.counters.commit_seconds.observe(begun.elapsed().as_secs_f64());
        self.counters.contended_rounds.inc_by(self.recorder.take_contended_rounds());
        recorded.unwrap_or_else(|_| {
            // Whatever state they are in, nothing of it is used again.
            self.connection = None;
            self.recorder = Recorder::default();
            Err(store::Error::Panicked)
        })
    }

    /// Records a batch, again where Postgres asks for it.
    async fn try_record(
        &mut self,
        bucket: i32,
        deliveries: &[Delivery],
    ) -> Result<Vec<Recorded>, store::Error> {
        let mut tries = 1;
        loop {
            let result = match connect(&self.options, &mut self.connection).await {
                Ok(connection) => self.recorder.record(connection, bucket, deliveries).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.is_rollback() && tries < MAX_TRIES => tries += 1,
                Err(error) => {
                    // Whatever state it is in, the next batch wants a sound one.
                    self.connection = None;
                    return Err(error);
                }
                Ok(recorded) => return Ok(recorded),
            }
        }
    }
}

/// The connection, made where there is none.
async fn connect<'c>(
    options: &PgConnectOptions,
    connection: &'c mut Option<PgConnection>,
) -> Result<&'c mut PgConnection, store::Error> {
    if connection.is_none() {
        let made = timeout(CONNECT_TIMEOUT, options.connect())
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)??;
        *connection = Some(made);
    }
    connection.as_mut().ok_or(store::Error::Database(sqlx::Error::PoolClosed))
}

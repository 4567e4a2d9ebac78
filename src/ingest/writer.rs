//! A writer: commits what has gathered, then answers all of it.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::timeout,
};

use super::{Refused, counters::Counters};
use crate::{
    call::Delivery,
    store::{self, Buckets, Recorded, Recorder},
};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a batch may take. A server that has gone without a word would
/// otherwise be waited for as long as the network's own patience lasts.
const BATCH_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a batch waits for who has locked a call. Writers hold theirs for
/// milliseconds; somebody at a prompt may for hours.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// The most bytes of payload in one statement, unless one delivery has more.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// As many deliveries as are committed together at no greater cost for each than
/// more would be.
const WORTH_SPLITTING: usize = 64;

/// How often a batch is tried that Postgres rolled back for the sake of another
/// transaction.
const MAX_TRIES: u32 = 5;

/// A delivery on its way, and where to answer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) delivery: Delivery,
    pub(super) answer: Answer,
}

/// Where to answer; with the room that the delivery takes until then.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sender: oneshot::Sender<Result<Recorded, Refused>>,
    pub(super) _room: OwnedSemaphorePermit,
}

impl Answer {
    /// Nobody may wait any more; what is committed is committed all the same.
    fn send(self, answer: Result<Recorded, Refused>) {
        let _ = self.sender.send(answer);
    }
}

/// One writer, with its connection and its queue.
pub(super) struct Writer {
    options: PgConnectOptions,
    buckets: Buckets,
    batch: usize,
    jobs: mpsc::Receiver<Job>,
    session: Option<Session>,
    counters: Counters,
}

/// A connection, and what is remembered of what was written over it.
struct Session {
    connection: PgConnection,
    recorder: Recorder,
}

impl Writer {
    pub(super) fn new(
        options: &PgConnectOptions,
        buckets: Buckets,
        batch: usize,
        jobs: mpsc::Receiver<Job>,
        counters: Counters,
    ) -> Self {
        Self { options: options.clone(), buckets, batch, jobs, session: None, counters }
    }

    /// Commits until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        let mut gathered = Vec::with_capacity(self.batch);
        while self.jobs.recv_many(&mut gathered, most(self.jobs.len(), self.batch)).await > 0 {
            // One transaction touches one bucket.
            let mut by_bucket: BTreeMap<i32, (Vec<Delivery>, Vec<Answer>)> = BTreeMap::new();
            for Job { delivery, answer } in gathered.drain(..) {
                let (deliveries, answers) =
                    by_bucket.entry(self.buckets.of(&delivery.key)).or_default();
                deliveries.push(delivery);
                answers.push(answer);
            }
            for (bucket, (deliveries, answers)) in by_bucket {
                self.commit(bucket, deliveries, answers).await;
            }
            self.tend().await;
        }
        if let Some(session) = self.session {
            // The server notices a closed socket too; a polite end is but quieter in its log.
            let _ = session.connection.close().await;
        }
    }

    /// Commits a batch and answers it. Where it fails for what is in it, or waits for
    /// a call that is locked, it is split until what is at fault stands alone; the
    /// others are not to wait for that, so it comes last.
    async fn commit(&mut self, bucket: i32, deliveries: Vec<Delivery>, answers: Vec<Answer>) {
        let until = Instant::now() + BATCH_TIMEOUT;
        let mut parts = VecDeque::from([(deliveries, answers)]);
        while let Some((deliveries, answers)) = parts.pop_front() {
            parts.extend(self.commit_part(bucket, deliveries, answers, until).await);
        }
    }

    /// Commits a part of a batch and answers it, or gives the halves that are to be
    /// tried by themselves.
    async fn commit_part(
        &mut self,
        bucket: i32,
        mut deliveries: Vec<Delivery>,
        mut answers: Vec<Answer>,
        until: Instant,
    ) -> Vec<(Vec<Delivery>, Vec<Answer>)> {
        let bytes: usize = deliveries.iter().map(|delivery| delivery.payload.len()).sum();
        if bytes > MAX_BATCH_BYTES && deliveries.len() > 1 {
            return halves(deliveries, answers);
        }
        let mut recorded = vec![None; deliveries.len()];
        let result = self.record(bucket, &deliveries, &mut recorded).await;
        // What is recorded is committed, also where the rest failed.
        let mut places = recorded.iter();
        deliveries.retain(|_| places.next().is_none_or(Option::is_none));
        let mut left = Vec::with_capacity(deliveries.len());
        for (answer, recorded) in answers.drain(..).zip(recorded) {
            match recorded {
                Some(recorded) => answer.send(Ok(recorded)),
                None => left.push(answer),
            }
        }
        let Err(error) = result else {
            return Vec::new();
        };
        let count = deliveries.len();
        let is_locked = error.is_lock_timeout();
        if count > 1 && (!error.is_transient() || is_locked && Instant::now() < until) {
            tracing::warn!(deliveries = count, %error, "a batch is split");
            self.counters.splits.inc();
            return halves(deliveries, left);
        }
        if error.is_transient() {
            tracing::warn!(deliveries = count, %error, "a batch was not committed");
            let refuse_as = if is_locked { Refused::Locked } else { Refused::Away };
            refuse(left, &refuse_as(error.to_string()));
        } else if error.is_about_data() {
            refuse(left, &Refused::Unstorable(error.to_string()));
        } else {
            refuse(left, &Refused::Broken(error.to_string()));
        }
        Vec::new()
    }

    /// Has the recorder see to the database, once what it recorded is answered.
    async fn tend(&mut self) {
        let Some(Session { connection, recorder }) = &mut self.session else {
            return;
        };
        match timeout(BATCH_TIMEOUT, recorder.tend(connection)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!(%error, "the new database is not analyzed"),
            Err(_) => tracing::warn!("the new database is not analyzed in time"),
        }
        self.session = None;
    }

    /// Records a batch, as far as it goes. A mistake of ours in it fails the
    /// batch, not the writer.
    async fn record(
        &mut self,
        bucket: i32,
        deliveries: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), store::Error> {
        let begun = Instant::now();
        let recording = AssertUnwindSafe(self.try_record(bucket, deliveries, recorded));
        let result = match timeout(BATCH_TIMEOUT, recording.catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(store::Error::Panicked),
            Err(_) => Err(store::Error::TimedOut(BATCH_TIMEOUT)),
        };
        #[expect(clippy::cast_precision_loss, reason = "a batch has some thousands at most")]
        self.counters.batch_deliveries.observe(deliveries.len() as f64);
        self.counters.commit_seconds.observe(begun.elapsed().as_secs_f64());
        let leaves_it_sound =
            |error: &store::Error| error.is_about_data() || error.is_lock_timeout();
        if result.as_ref().is_err_and(|error| !leaves_it_sound(error)) {
            // Whatever state it is in, the next batch wants a sound one.
            self.session = None;
        }
        result
    }

    /// Records a batch, again where Postgres asks for it.
    async fn try_record(
        &mut self,
        bucket: i32,
        deliveries: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), store::Error> {
        let mut tries = 1;
        loop {
            let Session { connection, recorder } =
                connect(&self.options, &mut self.session).await?;
            let result = recorder.record(connection, bucket, deliveries, recorded).await;
            self.counters.contended_rounds.inc_by(recorder.take_contended_rounds());
            match result {
                Err(error) if error.is_rollback() && tries < MAX_TRIES => tries += 1,
                result => return result,
            }
        }
    }
}

/// The session, begun where there is none.
async fn connect<'s>(
    options: &PgConnectOptions,
    session: &'s mut Option<Session>,
) -> Result<&'s mut Session, store::Error> {
    if session.is_none() {
        let connecting = async {
            let mut connection = options.connect().await?;
            store::connection::for_writing(&mut connection, BATCH_TIMEOUT, LOCK_TIMEOUT).await?;
            Ok::<_, store::Error>(connection)
        };
        let connection = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| store::Error::TimedOut(CONNECT_TIMEOUT))??;
        *session = Some(Session { connection, recorder: Recorder::default() });
    }
    session.as_mut().ok_or(store::Error::Database(sqlx::Error::PoolClosed))
}

/// How many are taken at once where so many wait. Were it always all of them, then
/// where many send and wait for their answers, all of them would wait for the
/// database and then the database for all of them; so half are left for the next
/// batch.
fn most(waiting: usize, batch: usize) -> usize {
    (waiting / 2).max(WORTH_SPLITTING).min(batch)
}

fn halves(
    mut deliveries: Vec<Delivery>,
    mut answers: Vec<Answer>,
) -> Vec<(Vec<Delivery>, Vec<Answer>)> {
    let middle = deliveries.len() / 2;
    let others = (deliveries.split_off(middle), answers.split_off(middle));
    vec![(deliveries, answers), others]
}

fn refuse(answers: Vec<Answer>, refused: &Refused) {
    for answer in answers {
        answer.send(Err(refused.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_waits_is_left_for_the_next_batch_unless_it_is_little() {
        for (waiting, taken) in [(0, 64), (64, 64), (130, 65), (1000, 500), (1100, 512)] {
            assert_eq!(most(waiting, 512), taken, "{waiting} wait");
        }
        assert_eq!(most(1000, 8), 8);
    }
}

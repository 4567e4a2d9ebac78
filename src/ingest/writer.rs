//! A writer: commits what has gathered, then answers all of it.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard, OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::{JoinSet, yield_now},
    time::timeout,
};

use super::{Refused, counters::Counters};
use crate::{
    call::Delivery,
    store::{self, Buckets, Line, Recorded, Recorder},
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
    jobs: AsyncMutex<mpsc::Receiver<Job>>,
    connection: AsyncMutex<Option<PgConnection>>,
    /// What remembers what was written over the connection; another when that has failed.
    recorder: Mutex<Arc<Recorder>>,
    /// How many deliveries are being written.
    under_way: watch::Sender<usize>,
    counters: Counters,
}

impl Writer {
    pub(super) fn new(
        options: &PgConnectOptions,
        buckets: Buckets,
        batch: usize,
        jobs: mpsc::Receiver<Job>,
        counters: Counters,
    ) -> Self {
        Self {
            options: options.clone(),
            buckets,
            batch,
            jobs: AsyncMutex::new(jobs),
            connection: AsyncMutex::default(),
            recorder: Mutex::default(),
            under_way: watch::Sender::new(0),
            counters,
        }
    }

    /// Commits until the queue is closed and empty: with two hands, one of which
    /// gathers and decides a batch while the other has the connection.
    pub(super) async fn run(self) {
        let writer = Arc::new(self);
        let mut hands = JoinSet::new();
        for _ in 0..2 {
            let writer = Arc::clone(&writer);
            hands.spawn(async move { writer.work().await });
        }
        hands.join_all().await;
        if let Some(connection) = writer.connection.lock().await.take() {
            // The server notices a closed socket too; a polite end is but quieter in its log.
            let _ = connection.close().await;
        }
    }

    /// Commits batch after batch.
    async fn work(&self) {
        loop {
            let gathered = self.gather().await;
            if gathered.is_empty() {
                break;
            }
            // One transaction touches one bucket.
            let mut by_bucket: BTreeMap<i32, (Vec<Delivery>, Vec<Answer>)> = BTreeMap::new();
            for Job { delivery, answer } in gathered {
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
    }

    /// The next batch: what waits, once nothing is being written; or, so that it is
    /// decided by then, as much as is. Empty when the queue is closed.
    async fn gather(&self) -> Vec<Job> {
        let mut jobs = self.jobs.lock().await;
        let mut under_way = self.under_way.subscribe();
        let mut gathered = Vec::new();
        loop {
            let room = most(gathered.len() + jobs.len(), self.batch).saturating_sub(gathered.len());
            let is_first = gathered.is_empty();
            tokio::select! {
                biased;
                more = jobs.recv_many(&mut gathered, room) => {
                    if more == 0 {
                        return gathered;
                    }
                }
                _ = under_way.changed(), if !is_first => {}
            }
            let enough = (*under_way.borrow_and_update()).min(self.batch);
            if gathered.len() >= enough {
                return gathered;
            }
        }
    }

    /// Commits a batch and answers it. Where it fails for what is in it, or waits for
    /// a call that is locked, it is split until what is at fault stands alone; the
    /// others are not to wait for that, so it comes last.
    async fn commit(&self, bucket: i32, deliveries: Vec<Delivery>, answers: Vec<Answer>) {
        let until = Instant::now() + BATCH_TIMEOUT;
        let mut parts = VecDeque::from([(deliveries, answers)]);
        while let Some((deliveries, answers)) = parts.pop_front() {
            parts.extend(self.commit_part(bucket, deliveries, answers, until).await);
        }
    }

    /// Commits a part of a batch and answers it, or gives the halves that are to be
    /// tried by themselves.
    async fn commit_part(
        &self,
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
        // The other hand has its batch ready, and the database is not to wait for our answers.
        yield_now().await;
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

    /// Sees to what the database knows of what it has, once that is answered.
    async fn tend(&self) {
        let recorder = self.recorder();
        if !recorder.is_to_be_tended() {
            return;
        }
        let mut turn = self.turn(recorder, 0);
        let tending = async { store::statistics::tend(turn.connection().await?).await };
        match timeout(BATCH_TIMEOUT, tending).await {
            Ok(Ok(())) => turn.ends_well(),
            Ok(Err(error)) => tracing::warn!(%error, "the new database is not analyzed"),
            Err(_) => tracing::warn!("the new database is not analyzed in time"),
        }
    }

    /// Records a batch, as far as it goes. A mistake of ours in it fails the
    /// batch, not the writer.
    async fn record(
        &self,
        bucket: i32,
        deliveries: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), store::Error> {
        let mut turn = self.turn(self.recorder(), deliveries.len());
        let recording = AssertUnwindSafe(self.try_record(&mut turn, bucket, deliveries, recorded));
        let result = match timeout(BATCH_TIMEOUT, recording.catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(store::Error::Panicked),
            Err(_) => Err(store::Error::TimedOut(BATCH_TIMEOUT)),
        };
        let leaves_it_sound =
            |error: &store::Error| error.is_about_data() || error.is_lock_timeout();
        if result.as_ref().err().is_none_or(leaves_it_sound) {
            turn.ends_well();
        }
        result
    }

    /// Records a batch, again where Postgres asks for it.
    async fn try_record(
        &self,
        turn: &mut Turn<'_>,
        bucket: i32,
        deliveries: &[Delivery],
        recorded: &mut [Option<Recorded>],
    ) -> Result<(), store::Error> {
        let mut tries = 1;
        loop {
            let decides = Arc::clone(&turn.recorder);
            let result = decides.record(turn, bucket, deliveries, recorded).await;
            self.counters.contended_rounds.inc_by(decides.take_contended_rounds());
            match result {
                Err(error) if error.is_rollback() && tries < MAX_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    /// What remembers what was written over the connection.
    fn recorder(&self) -> Arc<Recorder> {
        Arc::clone(&self.recorder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn turn(&self, recorder: Arc<Recorder>, deliveries: usize) -> Turn<'_> {
        Turn { writer: self, recorder, deliveries, held: None }
    }
}

/// A hand's turn with the connection, which it waits for when it needs it.
struct Turn<'w> {
    writer: &'w Writer,
    /// What it has decided by.
    recorder: Arc<Recorder>,
    /// How many deliveries it is for.
    deliveries: usize,
    held: Option<Held<'w>>,
}

/// The connection, and since when.
struct Held<'w> {
    connection: MutexGuard<'w, Option<PgConnection>>,
    since: Instant,
}

impl Line for Turn<'_> {
    async fn connection(&mut self) -> Result<&mut PgConnection, store::Error> {
        let writer = self.writer;
        let held = match &mut self.held {
            Some(held) => held,
            free => {
                let connection = writer.connection.lock().await;
                writer.under_way.send_replace(self.deliveries);
                free.insert(Held { connection, since: Instant::now() })
            }
        };
        let current = writer.recorder();
        if !Arc::ptr_eq(&self.recorder, &current) {
            self.recorder = current;
            return Err(store::Error::Outdated);
        }
        if held.connection.is_none() {
            *held.connection = Some(connect(&writer.options).await?);
        }
        held.connection.as_mut().ok_or(store::Error::Database(sqlx::Error::PoolClosed))
    }
}

impl Turn<'_> {
    /// Leaves the connection to the next.
    fn ends_well(mut self) {
        if let Some(held) = self.held.take() {
            self.end(&held);
        }
    }

    fn end(&self, held: &Held<'_>) {
        self.writer.under_way.send_replace(0);
        if self.deliveries > 0 {
            let counters = &self.writer.counters;
            #[expect(clippy::cast_precision_loss, reason = "a batch has some thousands at most")]
            counters.batch_deliveries.observe(self.deliveries as f64);
            counters.commit_seconds.observe(held.since.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Turn<'_> {
    /// Whatever state the connection is in, the next batch wants a sound one; and what
    /// was remembered of this one went with it.
    fn drop(&mut self) {
        if let Some(mut held) = self.held.take() {
            *held.connection = None;
            *self.writer.recorder.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
            self.end(&held);
        }
    }
}

/// A connection, set up for writing.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, store::Error> {
    let connecting = async {
        let mut connection = options.connect().await?;
        store::connection::for_writing(&mut connection, BATCH_TIMEOUT, LOCK_TIMEOUT).await?;
        Ok::<_, store::Error>(connection)
    };
    timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| store::Error::TimedOut(CONNECT_TIMEOUT))?
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

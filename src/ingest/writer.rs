//! A writer: commits what has gathered, then answers all of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot},
    task::{JoinSet, yield_now},
};

use super::{
    Refused,
    counters::Counters,
    locked::Locked,
    turn::{BATCH_TIMEOUT, Patience, Turn, Turns, in_time},
};
use crate::{
    call::{CallKey, Delivery},
    store::{self, Buckets, Recorded, statistics::Watch},
};

/// The most bytes of payload in one statement, unless one delivery has more.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// As many deliveries as are committed together at no greater cost for each than
/// more would be.
const WORTH_SPLITTING: usize = 64;

/// As many deliveries as are decided ahead of their turn; fewer are decided in no time.
const WORTH_DECIDING: usize = 16;

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

/// What is committed together, all of it of one bucket, and where to answer each.
#[derive(Debug, Default)]
pub(super) struct Part {
    deliveries: Vec<Delivery>,
    answers: Vec<Answer>,
    patience: Patience,
}

impl Part {
    fn push(&mut self, delivery: Delivery, answer: Answer) {
        self.deliveries.push(delivery);
        self.answers.push(answer);
    }

    fn len(&self) -> usize {
        self.deliveries.len()
    }

    fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    fn halves(mut self) -> Vec<Self> {
        let middle = self.len() / 2;
        let deliveries = self.deliveries.split_off(middle);
        let answers = self.answers.split_off(middle);
        let other = Self { deliveries, answers, patience: self.patience };
        vec![self, other]
    }

    /// What is not for these calls, and what is.
    pub(super) fn split_by(self, keys: &BTreeSet<CallKey>) -> (Self, Self) {
        let empty = || Self { patience: self.patience, ..Self::default() };
        let (mut others, mut these) = (empty(), empty());
        for (delivery, answer) in self.deliveries.into_iter().zip(self.answers) {
            let part = if keys.contains(&delivery.key) { &mut these } else { &mut others };
            part.push(delivery, answer);
        }
        (others, these)
    }

    fn refuse(self, refused: &Refused) {
        for answer in self.answers {
            answer.send(Err(refused.clone()));
        }
    }
}

/// One writer, with its connection and its queue.
pub(super) struct Writer {
    buckets: Buckets,
    batch: usize,
    jobs: Mutex<mpsc::Receiver<Job>>,
    turns: Turns,
    locked: Locked,
    watch: std::sync::Mutex<Watch>,
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
        let turns = Turns::new(options, counters.clone());
        Self {
            buckets,
            batch,
            jobs: Mutex::new(jobs),
            turns,
            locked: Locked::default(),
            watch: std::sync::Mutex::default(),
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
        writer.turns.close().await;
    }

    /// Commits batch after batch.
    async fn work(&self) {
        loop {
            let gathered = self.gather().await;
            if gathered.is_empty() {
                break;
            }
            // One transaction touches one bucket.
            let mut by_bucket: BTreeMap<i32, Part> = BTreeMap::new();
            let count = gathered.len();
            for Job { delivery, answer } in gathered {
                let bucket = self.buckets.of(&delivery.key);
                by_bucket.entry(bucket).or_default().push(delivery, answer);
            }
            for (bucket, batch) in by_bucket {
                self.commit(bucket, batch).await;
            }
            self.tend(count).await;
        }
    }

    /// The next batch: what waits, once nothing is being written; or, so that it is
    /// decided by then, as much as is being written, if that is not little, or as is
    /// worth splitting. Empty when the queue is closed.
    async fn gather(&self) -> Vec<Job> {
        let mut jobs = self.jobs.lock().await;
        let mut under_way = self.turns.under_way();
        let mut gathered = Vec::new();
        loop {
            let room = most(gathered.len() + jobs.len(), self.batch).saturating_sub(gathered.len());
            if room == 0 {
                return gathered;
            }
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
            let under_way = *under_way.borrow_and_update();
            if under_way == 0 || gathered.len() >= under_way.max(WORTH_DECIDING) {
                return gathered;
            }
        }
    }

    /// Commits a batch and answers it. Where it fails for what is in it, it is split until
    /// what is at fault stands alone; the others are not to wait for that, so it comes last,
    /// and so does what is for calls that are known to be locked.
    async fn commit(&self, bucket: i32, batch: Part) {
        let mut spent = Duration::ZERO;
        let (free, known) = self.locked.part(batch);
        self.commit_in_parts(bucket, free, &mut spent).await;
        if !known.is_empty() {
            let rest = self.refuse_locked(bucket, known).await;
            self.commit_in_parts(bucket, rest, &mut spent).await;
        }
    }

    /// Commits it whole, or in as many parts as it takes.
    async fn commit_in_parts(&self, bucket: i32, whole: Part, spent: &mut Duration) {
        let mut parts = VecDeque::from([whole]);
        while let Some(part) = parts.pop_front() {
            if !part.is_empty() {
                parts.extend(self.commit_part(bucket, part, spent).await);
            }
        }
    }

    /// Refuses what is for calls that can be seen to be locked, or all where the whole table
    /// is. Gives the rest, which is hardly to wait from now on.
    async fn refuse_locked(&self, bucket: i32, part: Part) -> Part {
        let (rest, refused) = match self.locked.look(&self.turns, bucket, &part.deliveries).await {
            Ok(locked) => part.split_by(&locked),
            Err(error) if error.is_lock_timeout() => (Part::default(), part),
            Err(error) => {
                tracing::warn!(%error, "it is not known which calls are locked");
                part.refuse(&Refused::Away(error.to_string()));
                return Part::default();
            }
        };
        if !refused.is_empty() {
            tracing::warn!(deliveries = refused.len(), "calls are locked in the database");
            refused.refuse(&Refused::Locked);
        }
        Part { patience: Patience::Short, ..rest }
    }

    /// Commits a part of a batch and answers it, or gives the parts that are to be
    /// tried by themselves.
    async fn commit_part(&self, bucket: i32, mut part: Part, spent: &mut Duration) -> Vec<Part> {
        let bytes: usize = part.deliveries.iter().map(|delivery| delivery.payload.len()).sum();
        if bytes > MAX_BATCH_BYTES && part.len() > 1 {
            return part.halves();
        }
        let mut recorded = vec![None; part.len()];
        let result = self.record(bucket, &part, &mut recorded, spent).await;
        // The other hand has its batch ready, and the database is not to wait for our answers.
        yield_now().await;
        // What is recorded is committed, also where the rest failed.
        let committed = part.deliveries.iter().zip(&recorded).filter(|(_, it)| it.is_some());
        self.locked.remove(committed.map(|(delivery, _)| delivery));
        let mut places = recorded.iter();
        part.deliveries.retain(|_| places.next().is_none_or(Option::is_none));
        let mut left = Vec::with_capacity(part.len());
        for (answer, recorded) in part.answers.drain(..).zip(recorded) {
            match recorded {
                Some(recorded) => answer.send(Ok(recorded)),
                None => left.push(answer),
            }
        }
        part.answers = left;
        let Err(error) = result else {
            return Vec::new();
        };
        let count = part.len();
        if error.is_lock_timeout() {
            tracing::warn!(deliveries = count, %error, "a batch waited for what is locked");
            let part = self.refuse_locked(bucket, part).await;
            let is_over = *spent >= BATCH_TIMEOUT;
            if part.len() < count && !is_over {
                return vec![part];
            }
            // What it waits for cannot be seen, or is free by now.
            if part.len() > 1 && !is_over {
                return part.halves();
            }
            self.locked.add(part.deliveries.iter().map(|delivery| delivery.key.clone()));
            part.refuse(&Refused::Locked);
        } else if count > 1 && !error.is_transient() {
            tracing::warn!(deliveries = count, %error, "a batch is split");
            self.counters.splits.inc();
            return part.halves();
        } else if error.is_transient() {
            tracing::warn!(deliveries = count, %error, "a batch was not committed");
            part.refuse(&Refused::Away(error.to_string()));
        } else if error.is_about_data() {
            part.refuse(&Refused::Unstorable(error.to_string()));
        } else if error.is_about_program() {
            part.refuse(&Refused::Undecided(error.to_string()));
        } else {
            part.refuse(&Refused::Broken(error.to_string()));
        }
        Vec::new()
    }

    /// Sees to what the database knows of what it has, once that is answered. The other hand
    /// goes on meanwhile.
    async fn tend(&self, deliveries: usize) {
        if !self.watch.lock().unwrap_or_else(PoisonError::into_inner).is_due_after(deliveries) {
            return;
        }
        let tending = async {
            let mut connection = self.turns.another_connection().await?;
            store::statistics::tend(&mut connection).await
        };
        if let Err(error) = tending.await {
            tracing::warn!(%error, "the new database is not analyzed");
        }
    }

    /// Records a batch, as far as it goes, and adds how long it had the connection. A
    /// mistake of ours in it fails the batch, not the writer.
    async fn record(
        &self,
        bucket: i32,
        part: &Part,
        recorded: &mut [Option<Recorded>],
        spent: &mut Duration,
    ) -> Result<(), store::Error> {
        let (mut turn, begun) = self.turns.next(self.turns.recorder(), part.len(), part.patience);
        let recording = self.try_record(&mut turn, bucket, &part.deliveries, recorded);
        let recording = AssertUnwindSafe(recording).catch_unwind();
        let result = in_time(begun, async {
            recording.await.unwrap_or_else(|_panic| Err(store::Error::Panicked))
        })
        .await;
        *spent += turn.held_for();
        if result.as_ref().err().is_none_or(store::Error::leaves_the_connection_sound) {
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
            let recording = decides.record(turn, bucket, deliveries, recorded);
            let result = Box::pin(recording).await;
            self.counters.contended_rounds.inc_by(decides.take_contended_rounds());
            match result {
                Err(error) if error.is_rollback() && tries < MAX_TRIES => tries += 1,
                result => return result,
            }
        }
    }
}

/// How many are taken at once where so many wait. Were it always all of them, then
/// where many send and wait for their answers, all of them would wait for the
/// database and then the database for all of them; so half are left for the next
/// batch.
fn most(waiting: usize, batch: usize) -> usize {
    (waiting / 2).max(WORTH_SPLITTING).min(batch)
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, task::Poll};

    use chrono::FixedOffset;
    use futures_util::poll;
    use tokio::{pin, sync::Semaphore};

    use super::*;
    use crate::{
        recho::{self, Receipt},
        store::Line as _,
    };

    #[test]
    fn half_of_what_waits_is_left_for_the_next_batch_unless_it_is_little() {
        for (waiting, taken) in [(0, 64), (64, 64), (130, 65), (1000, 500), (1100, 512)] {
            assert_eq!(most(waiting, 512), taken, "{waiting} wait");
        }
        assert_eq!(most(1000, 8), 8);
    }

    /// A writer of a database that is not there, and its queue.
    fn writer(batch: usize) -> (Writer, mpsc::Sender<Job>) {
        let (sender, jobs) = mpsc::channel(1000);
        let buckets = Buckets::new(NonZeroU32::MIN);
        let options = PgConnectOptions::new().socket("/nowhere");
        (Writer::new(&options, buckets, batch, jobs, Counters::default()), sender)
    }

    fn deliveries(count: usize) -> Vec<Delivery> {
        let receipt = Receipt {
            endpoint: "default",
            received_at: chrono::DateTime::UNIX_EPOCH,
            provider_utc_offset: FixedOffset::east_opt(0).unwrap(),
        };
        let body = br#"{"eventType": "x", "callId": "c"}"#;
        (0..count).map(|_| recho::read(body, receipt).unwrap()).collect()
    }

    async fn send(sender: &mpsc::Sender<Job>, count: usize) {
        let room = Arc::new(Semaphore::new(count));
        for delivery in deliveries(count) {
            let room = Arc::clone(&room).acquire_owned().await.unwrap();
            let answer = Answer { sender: oneshot::channel().0, _room: room };
            sender.send(Job { delivery, answer }).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_lone_delivery_waits_for_nothing() {
        let (writer, sender) = writer(512);
        send(&sender, 1).await;
        assert_eq!(writer.gather().await.len(), 1);
    }

    #[tokio::test]
    async fn while_a_batch_is_written_as_many_gather() {
        let (writer, sender) = writer(512);
        for (under_way, enough) in [(1, 16), (20, 20), (40, 40), (500, 64)] {
            writer.turns.under_way.send_replace(under_way);
            let gathering = writer.gather();
            pin!(gathering);
            send(&sender, 1).await;
            assert!(poll!(&mut gathering).is_pending());
            send(&sender, enough - 2).await;
            assert!(poll!(&mut gathering).is_pending(), "{under_way}");
            send(&sender, 1).await;
            let Poll::Ready(gathered) = poll!(&mut gathering) else {
                panic!("{enough} are enough while {under_way} are written");
            };
            assert_eq!(gathered.len(), enough);
        }
    }

    #[tokio::test]
    async fn what_has_gathered_when_the_batch_is_written_is_the_next_one() {
        let (writer, sender) = writer(512);
        writer.turns.under_way.send_replace(40);
        {
            let gathering = writer.gather();
            pin!(gathering);
            send(&sender, 3).await;
            assert!(poll!(&mut gathering).is_pending());
            writer.turns.under_way.send_replace(0);
            assert!(matches!(poll!(&mut gathering), Poll::Ready(gathered) if gathered.len() == 3));
        }
        // Also where there will be no more.
        send(&sender, 2).await;
        drop(sender);
        writer.turns.under_way.send_replace(40);
        assert_eq!(writer.gather().await.len(), 2);
        assert!(writer.gather().await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_has_its_time_however_long_it_waits_for_its_turn() {
        let (writer, _sender) = writer(512);
        let part = Part { deliveries: deliveries(1), ..Part::default() };
        let (mut recorded, mut spent) = ([None], Duration::ZERO);
        let other = writer.turns.connection.lock().await;
        let result = {
            let recording = writer.record(0, &part, &mut recorded, &mut spent);
            pin!(recording);
            assert!(poll!(&mut recording).is_pending());
            tokio::time::advance(2 * BATCH_TIMEOUT).await;
            assert!(poll!(&mut recording).is_pending());
            drop(other);
            recording.await
        };
        // It got as far as to try.
        assert!(matches!(result, Err(store::Error::Database(_))), "{result:?}");
    }

    #[tokio::test]
    async fn what_was_decided_before_a_connection_failed_is_decided_anew() {
        let (writer, _sender) = writer(512);
        let (mut turn, _) = writer.turns.next(writer.turns.recorder(), 1, Patience::Long);
        {
            let (mut other, _) = writer.turns.next(writer.turns.recorder(), 1, Patience::Long);
            let connection = other.connection().await.map(drop);
            assert!(matches!(connection, Err(store::Error::Database(_))), "{connection:?}");
        }
        let connection = turn.connection().await.map(drop);
        assert!(matches!(connection, Err(store::Error::Outdated)), "{connection:?}");
        // By what is remembered now it gets as far as to try.
        assert!(Arc::ptr_eq(&turn.recorder, &writer.turns.recorder()));
        let connection = turn.connection().await.map(drop);
        assert!(matches!(connection, Err(store::Error::Database(_))), "{connection:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_given_up() {
        let (has_begun, begun) = oneshot::channel();
        has_begun.send(()).unwrap();
        let result = in_time(begun, std::future::pending::<Result<(), _>>()).await;
        assert!(matches!(result, Err(store::Error::TimedOut(BATCH_TIMEOUT))), "{result:?}");
    }
}

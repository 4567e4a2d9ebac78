//! Looks calls up, many with one statement.
//!
//! As deliveries are on their way in, so questions for calls are gathered: a
//! reader takes whatever waits, asks the database once, and answers all of it. A
//! lone question does not wait for company; under load a question costs a
//! fraction of a round trip, and no connection of its own.
//!
//! What always holds: what waits is bounded, and so is how long; a call that cannot be read spoils
//! no other's answer.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use sqlx::PgPool;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use super::Problem;
use crate::store::{
    self, Buckets,
    calls::{StoredCall, Wanted, find},
};

/// How many readers ask side by side: while one waits for the database, another
/// gathers.
const READERS: usize = 2;

/// The most questions in one statement.
const MAX_BATCH: usize = 128;

/// The most questions that wait.
pub(super) const MAX_WAITING: usize = 4096;

/// How long the database may take for one statement. What waits behind it waits
/// as long, so it is better told to come back.
const DEADLINE: Duration = Duration::from_secs(10);

type Answer = Result<Vec<StoredCall>, Arc<store::Error>>;

/// Where to ask for calls.
#[derive(Debug, Clone)]
pub struct Lookup(mpsc::Sender<Question>);

#[derive(Debug)]
struct Question {
    wanted: Wanted,
    answer: oneshot::Sender<Answer>,
}

/// Takes questions from the queue in turn with the others.
struct Reader {
    pool: PgPool,
    buckets: Buckets,
    questions: Arc<Mutex<mpsc::Receiver<Question>>>,
}

impl Lookup {
    /// Starts the readers. They end when every [`Lookup`] is gone.
    #[must_use]
    pub fn start(pool: &PgPool, buckets: Buckets) -> Self {
        let (sender, questions) = mpsc::channel(MAX_WAITING);
        let questions = Arc::new(Mutex::new(questions));
        for _ in 0..READERS {
            let questions = Arc::clone(&questions);
            tokio::spawn(Reader { pool: pool.clone(), buckets, questions }.run());
        }
        Self(sender)
    }

    /// The calls that are wanted, in the order of their projects.
    pub(super) async fn find(&self, wanted: Wanted) -> Result<Vec<StoredCall>, Problem> {
        let (answer, found) = oneshot::channel();
        self.0
            .try_send(Question { wanted, answer })
            .map_err(|_| Problem::unavailable("More is waiting than can be held.", None))?;
        match found.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err((&*error).into()),
            Err(_) => Err(Problem::internal("a reader of calls ended before its answer")),
        }
    }
}

impl Reader {
    async fn run(self) {
        let mut gathered = Vec::with_capacity(MAX_BATCH);
        // Whoever waits for the first question holds the queue; the others wait for it.
        while self.questions.lock().await.recv_many(&mut gathered, MAX_BATCH).await > 0 {
            let answered = AssertUnwindSafe(self.answer(std::mem::take(&mut gathered)));
            // A mistake of ours ends these questions, not the reader; the log tells of it.
            let _ = answered.catch_unwind().await;
        }
    }

    async fn answer(&self, mut questions: Vec<Question>) {
        // Who asked may have gone.
        questions.retain(|question| !question.answer.is_closed());
        let wanted: Vec<&Wanted> = questions.iter().map(|question| &question.wanted).collect();
        let found = timeout(DEADLINE, find(&self.pool, self.buckets, &wanted))
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into()));
        match found {
            Ok(found) => {
                for (question, found) in questions.into_iter().zip(found) {
                    let _ = question.answer.send(Ok(found));
                }
            }
            // What is wrong is with one of the calls: each is asked for alone.
            Err(error) if !error.is_transient() && questions.len() > 1 => {
                for question in questions {
                    Box::pin(self.answer(vec![question])).await;
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for question in questions {
                    let _ = question.answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

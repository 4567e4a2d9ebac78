//! Looks calls up, many with one statement.
//!
//! Lookups are batched like deliveries: a reader takes whatever waits, queries the
//! database once, and answers all of it. A lone lookup does not wait for others; under
//! load a lookup costs a fraction of a round trip, and no connection of its own.
//!
//! What always holds: the number of waiting lookups and their time are bounded; an
//! invalid row fails the lookups of its call only.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use sqlx::PgPool;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use crate::{
    http::Problem,
    store::{
        self,
        calls::{
            StoredCall,
            find::{CallQuery, find},
        },
        error::Class,
    },
};

/// The number of readers: while one waits for the database, another collects lookups.
const READERS: usize = 2;

/// The most lookups in one statement.
const MAX_BATCH: usize = 128;

/// The most lookups that wait.
pub(crate) const MAX_WAITING: usize = 4096;

/// How long the database may take for one statement.
const DEADLINE: Duration = Duration::from_secs(10);

type Answer = Result<Vec<StoredCall>, Arc<store::Error>>;

/// The queue of lookups.
#[derive(Debug, Clone)]
pub struct CallReader(mpsc::Sender<Request>);

#[derive(Debug)]
struct Request {
    query: CallQuery,
    answer: oneshot::Sender<Answer>,
}

/// Takes lookups from the queue.
struct Reader {
    pool: PgPool,
    requests: Arc<Mutex<mpsc::Receiver<Request>>>,
}

impl CallReader {
    /// Starts the readers. They end when every [`CallReader`] is gone.
    #[must_use]
    pub fn start(pool: &PgPool) -> Self {
        let (sender, requests) = mpsc::channel(MAX_WAITING);
        let requests = Arc::new(Mutex::new(requests));
        for _ in 0..READERS {
            let requests = Arc::clone(&requests);
            tokio::spawn(Reader { pool: pool.clone(), requests }.run());
        }
        Self(sender)
    }

    /// The calls of a query, in the order of projects.
    pub(crate) async fn find(&self, query: CallQuery) -> Result<Vec<StoredCall>, Problem> {
        let (answer, found) = oneshot::channel();
        self.0
            .try_send(Request { query, answer })
            .map_err(|_| Problem::unavailable("The queue of lookups is full.", None))?;
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
        // One reader holds the queue while it waits; the others wait for it.
        while self.requests.lock().await.recv_many(&mut gathered, MAX_BATCH).await > 0 {
            let answered = AssertUnwindSafe(self.answer(std::mem::take(&mut gathered)));
            // A panic fails these lookups, not the reader; it is in the log.
            let _ = answered.catch_unwind().await;
        }
    }

    async fn answer(&self, mut requests: Vec<Request>) {
        // Some clients may have disconnected.
        requests.retain(|request| !request.answer.is_closed());
        let queries: Vec<&CallQuery> = requests.iter().map(|request| &request.query).collect();
        let found = timeout(DEADLINE, find(&self.pool, &queries))
            .await
            .unwrap_or(Err(store::Error::TimedOut(DEADLINE)));
        match found {
            Ok(found) => {
                for (request, found) in requests.into_iter().zip(found) {
                    let _ = request.answer.send(Ok(found));
                }
            }
            // One of the calls is invalid: each is looked up alone.
            Err(error) if error.class() != Class::Unavailable && requests.len() > 1 => {
                for request in requests {
                    Box::pin(self.answer(vec![request])).await;
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for request in requests {
                    let _ = request.answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

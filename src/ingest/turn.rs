//! A batch's turn with the connection of its writer: waited for when it is needed, and for
//! so long.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard, oneshot, watch},
    time::{sleep, timeout},
};

use super::counters::Counters;
use crate::store::{self, Line, Recorder};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a batch may take once it has the connection. A server that has gone without
/// a word would otherwise be waited for as long as the network's own patience lasts.
pub(super) const BATCH_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a statement waits for who has locked what it needs. Writers hold their locks for
/// milliseconds; somebody at a prompt may for hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as a writer may take that is slow.
    #[default]
    Long,
    /// Hardly: one has waited for it before.
    Short,
}

impl Patience {
    fn lock_timeout(self) -> Duration {
        match self {
            Self::Long => Duration::from_secs(3),
            Self::Short => Duration::from_millis(100),
        }
    }
}

/// A connection, which the hands of a writer have in turn.
pub(super) struct Turns {
    options: PgConnectOptions,
    pub(super) connection: AsyncMutex<Option<Open>>,
    /// What remembers what was written over the connection; another when that has failed.
    recorder: Mutex<Arc<Recorder>>,
    /// How many deliveries are being written.
    pub(super) under_way: watch::Sender<usize>,
    counters: Counters,
}

/// A connection, and what it is set to.
pub(super) struct Open {
    connection: PgConnection,
    patience: Patience,
}

impl Turns {
    pub(super) fn new(options: &PgConnectOptions, counters: Counters) -> Self {
        Self {
            options: options.clone(),
            connection: AsyncMutex::default(),
            recorder: Mutex::default(),
            under_way: watch::Sender::new(0),
            counters,
        }
    }

    /// A turn with so many deliveries, and what tells when it has begun.
    pub(super) fn next(
        &self,
        recorder: Arc<Recorder>,
        deliveries: usize,
        patience: Patience,
    ) -> (Turn<'_>, oneshot::Receiver<()>) {
        let (has_begun, begun) = oneshot::channel();
        let has_begun = Some(has_begun);
        (Turn { turns: self, recorder, deliveries, patience, has_begun, held: None }, begun)
    }

    /// What remembers what was written over the connection.
    pub(super) fn recorder(&self) -> Arc<Recorder> {
        Arc::clone(&self.recorder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many deliveries are being written.
    pub(super) fn under_way(&self) -> watch::Receiver<usize> {
        self.under_way.subscribe()
    }

    /// A connection beside that of the turns, for what is not to hold them up.
    pub(super) async fn another_connection(&self) -> Result<PgConnection, store::Error> {
        Ok(connect(&self.options, Patience::Long).await?.connection)
    }

    /// Ends the connection, if there is one.
    pub(super) async fn close(&self) {
        if let Some(open) = self.connection.lock().await.take() {
            // The server notices a closed socket too; a polite end is but quieter in its log.
            let _ = open.connection.close().await;
        }
    }
}

/// What work gives that may take [`BATCH_TIMEOUT`] from the time on that its turn has
/// begun; the wait for that has an end, as the other hand's turn has.
pub(super) async fn in_time<T>(
    begun: oneshot::Receiver<()>,
    work: impl Future<Output = Result<T, store::Error>>,
) -> Result<T, store::Error> {
    let overdue = async {
        match begun.await {
            Ok(()) => sleep(BATCH_TIMEOUT).await,
            Err(_never) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = work => result,
        () = overdue => Err(store::Error::TimedOut(BATCH_TIMEOUT)),
    }
}

/// A hand's turn with the connection, which it waits for when it needs it.
pub(super) struct Turn<'w> {
    turns: &'w Turns,
    /// What it has decided by.
    pub(super) recorder: Arc<Recorder>,
    /// How many deliveries it is for.
    deliveries: usize,
    patience: Patience,
    has_begun: Option<oneshot::Sender<()>>,
    held: Option<Held<'w>>,
}

/// The connection, and since when.
struct Held<'w> {
    connection: MutexGuard<'w, Option<Open>>,
    since: Instant,
}

impl Line for Turn<'_> {
    async fn connection(&mut self) -> Result<&mut PgConnection, store::Error> {
        let turns = self.turns;
        let held = match &mut self.held {
            Some(held) => held,
            free => {
                let connection = turns.connection.lock().await;
                turns.under_way.send_replace(self.deliveries);
                // Fails where nobody counts the time.
                let _ = self.has_begun.take().map(|begun| begun.send(()));
                free.insert(Held { connection, since: Instant::now() })
            }
        };
        let current = turns.recorder();
        if !Arc::ptr_eq(&self.recorder, &current) {
            self.recorder = current;
            return Err(store::Error::Outdated);
        }
        let open = match &mut *held.connection {
            Some(open) => open,
            none => none.insert(connect(&turns.options, self.patience).await?),
        };
        if open.patience != self.patience {
            let timeout = self.patience.lock_timeout();
            store::connection::wait_for_locks(&mut open.connection, timeout).await?;
            open.patience = self.patience;
        }
        Ok(&mut open.connection)
    }
}

impl Turn<'_> {
    /// Leaves the connection to the next.
    pub(super) fn ends_well(mut self) {
        if let Some(held) = self.held.take() {
            self.end(&held);
        }
    }

    /// How long it has had the connection.
    pub(super) fn held_for(&self) -> Duration {
        self.held.as_ref().map_or(Duration::ZERO, |held| held.since.elapsed())
    }

    fn end(&self, held: &Held<'_>) {
        self.turns.under_way.send_replace(0);
        if self.deliveries > 0 {
            let counters = &self.turns.counters;
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
            *self.turns.recorder.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
            self.end(&held);
        }
    }
}

/// A connection, set up for writing.
async fn connect(options: &PgConnectOptions, patience: Patience) -> Result<Open, store::Error> {
    let connecting = async {
        let mut connection = options.connect().await?;
        let lock_timeout = patience.lock_timeout();
        store::connection::for_writing(&mut connection, BATCH_TIMEOUT, lock_timeout).await?;
        Ok::<_, store::Error>(Open { connection, patience })
    };
    timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| store::Error::TimedOut(CONNECT_TIMEOUT))?
}

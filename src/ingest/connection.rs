//! The connection of a writer, and what it has cached for it.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, sleep_until, timeout};

use crate::store::{self, Error, write::Recorder};

/// How long establishing a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a batch may take. A server that has lost its network would otherwise be
/// waited for as long as TCP does.
pub(super) const BATCH_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a writer waits before it connects again, and its deliveries with it: at
/// first and at most.
const BACKOFF: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// How long a statement waits for a lock of another session. Writers hold their locks
/// for milliseconds; a person may hold one for hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum LockTimeout {
    /// Longer than a slow writer holds a lock.
    #[default]
    Long,
    /// For calls that were locked when they were last tried.
    Short,
}

impl LockTimeout {
    fn duration(self) -> Duration {
        match self {
            Self::Long => Duration::from_secs(3),
            Self::Short => Duration::from_millis(100),
        }
    }
}

/// The connection of a writer, established when it is needed.
pub(super) struct WriterConnection {
    options: PgConnectOptions,
    open: Option<OpenConnection>,
    failures: u32,
    /// No connection is tried before.
    retry_at: Option<Instant>,
}

/// A connection and the recorder that belongs to it.
pub(super) struct OpenConnection {
    pub(super) connection: PgConnection,
    pub(super) recorder: Recorder,
    lock_timeout: LockTimeout,
}

impl WriterConnection {
    pub(super) fn new(options: &PgConnectOptions) -> Self {
        let options = options.clone();
        Self { options, open: None, failures: 0, retry_at: None }
    }

    /// The connection, with this lock timeout.
    pub(super) async fn get(
        &mut self,
        lock_timeout: LockTimeout,
    ) -> Result<&mut OpenConnection, Error> {
        let open = match self.open.take() {
            Some(mut open) if open.lock_timeout != lock_timeout => {
                let timeout = lock_timeout.duration();
                store::connection::set_lock_timeout(&mut open.connection, timeout).await?;
                OpenConnection { lock_timeout, ..open }
            }
            Some(open) => open,
            None => self.connect(lock_timeout).await?,
        };
        Ok(self.open.insert(open))
    }

    /// Connects, with a pause after a failure.
    async fn connect(&mut self, lock_timeout: LockTimeout) -> Result<OpenConnection, Error> {
        if let Some(retry_at) = self.retry_at {
            sleep_until(retry_at).await;
        }
        match connect(&self.options, lock_timeout).await {
            Ok(connection) => {
                (self.failures, self.retry_at) = (0, None);
                Ok(OpenConnection { connection, recorder: Recorder::default(), lock_timeout })
            }
            Err(error) => {
                let [first, longest] = BACKOFF;
                let pause = first.saturating_mul(1 << self.failures.min(16)).min(longest);
                // Between half of it and all of it, so that instances do not connect at once.
                let jitter = RandomState::new().hash_one(self.failures) % 512;
                let pause =
                    pause.mul_f64(0.5 + f64::from(u16::try_from(jitter).unwrap_or(0)) / 1024.0);
                self.failures = self.failures.saturating_add(1);
                self.retry_at = Some(Instant::now() + pause);
                Err(error)
            }
        }
    }

    /// A further connection, for work that must not hold up the writer.
    pub(super) fn further(&self) -> impl Future<Output = Result<PgConnection, Error>> + use<> {
        let options = self.options.clone();
        async move { connect(&options, LockTimeout::Long).await }
    }

    /// Drops the connection, whatever its state, and what was cached for it.
    pub(super) fn discard(&mut self) {
        self.open = None;
    }

    /// Closes the connection.
    pub(super) async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            // The server notices a closed socket too, but logs it.
            let _ = open.connection.close().await;
        }
    }
}

/// A connection, set up for writing. Any error before it is ready means that the
/// database is away.
async fn connect(
    options: &PgConnectOptions,
    lock_timeout: LockTimeout,
) -> Result<PgConnection, Error> {
    let connecting = async {
        let mut connection = options.connect().await?;
        let lock_timeout = lock_timeout.duration();
        store::connection::for_writing(&mut connection, BATCH_TIMEOUT, lock_timeout).await?;
        Ok::<_, Error>(connection)
    };
    timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| Error::TimedOut(CONNECT_TIMEOUT))?
        .map_err(Error::connecting)
}

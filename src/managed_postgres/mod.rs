//! A Postgres of our own: found, created, started, watched and stopped, for those who name no database.
//!
//! What always holds:
//!
//! - One data directory has one cluster in use and one server. Starting and stopping are serialised (`lock`); whoever uses
//!   the server holds a lock, and the last one out stops it.
//! - A commit that was answered is on disk: `fsync` stays on, and no setting here trades that away (`settings`).
//! - Killed or cut off at any point, ours or the server's process, the next start mends it: a cluster is complete
//!   or not there (`cluster`), a server is running if it answers (`running`).
//! - Postgres never runs as root (`privilege`), and who has the database's URL gets no further than the database (`roles`).
//!
//! Deliberately absent: migrations and anything that knows a table (the store's), upgrades between major versions
//! (`pg_upgrade` and a person's judgement), backups, Windows.

pub mod binaries;
mod cluster;
mod diagnosis;
mod error;
mod fetch;
mod layout;
mod lock;
mod privilege;
mod roles;
mod running;
mod settings;
mod start;

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::Instant;

pub use error::Error;

use cluster::Cluster;
use layout::Layout;
use running::Running;

/// The pause before a server that died is started again; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that lived this long did not die of its start.
const SETTLED: Duration = Duration::from_mins(1);
/// How often the log is looked at.
const LOG_INTERVAL: Duration = Duration::from_mins(10);

/// Where the server lives and where its programs may be found.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory; created where it is not there yet.
    pub data_dir: PathBuf,
    /// The folder of `postgres` and `initdb`, if it is not to be searched for.
    pub bin_dir: Option<PathBuf>,
}

/// How a process uses the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The one service of a data directory.
    Serve,
    /// Any other command: joins a running server, or starts one for as long as it needs it.
    Join,
}

/// A server that this process uses.
///
/// Dropped without [`release`](Self::release), as in a panic, it leaves the server running; the next to come adopts it.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    url: String,
    running: Running,
    user: lock::User,
    /// After `user`: the data directory is free when the server has been stopped.
    service: Option<lock::Service>,
}

/// What starting the server again needs.
#[derive(Debug)]
struct Shared {
    layout: Layout,
    bin_dir: Option<PathBuf>,
    port: u16,
    /// Set by `release`: from then on nobody starts the server for us.
    leaving: AtomicBool,
}

/// What became of a server that did not answer.
enum Mended {
    Answers,
    Started,
    Leaving,
}

/// Makes sure that the server of a data directory is running, and joins its users.
///
/// A server that is running is joined, also one whose service was killed. Otherwise it is started; in an
/// empty data directory its cluster is created first. This takes half a second or two seconds, and as long as a recovery
/// takes after a crash.
///
/// # Errors
///
/// Each variant of [`Error`] but [`Error::OutOfReach`]; among them [`Error::InUse`] for a second [`Claim::Serve`].
pub async fn acquire(options: &Options, claim: Claim) -> Result<Server, Error> {
    let root = layout::open(&options.data_dir)?;
    let service = match claim {
        Claim::Serve => Some(lock::Service::claim(&root)?),
        Claim::Join => None,
    };
    let transition = lock::Transition::enter(&root).await?;
    let user = lock::User::join(&root, &transition)?;
    let present = Layout::find(&root)?;
    let answering = match &present {
        Some(layout) => running::find(layout).await?.map(|running| (layout.clone(), running)),
        None => None,
    };
    let (layout, running) = match answering {
        Some((layout, running)) => {
            roles::settle(&layout, &running).await;
            (layout, running)
        }
        None => {
            start_anew(&root, options.bin_dir.as_deref(), present.as_ref(), None, transition)
                .await?
        }
    };
    let password = layout::read(&layout.password())?.unwrap_or_default();
    Ok(Server {
        url: url(running.port, password.trim()),
        shared: Arc::new(Shared {
            layout,
            bin_dir: options.bin_dir.clone(),
            port: running.port,
            leaving: AtomicBool::new(false),
        }),
        running,
        user,
        service,
    })
}

/// The URL of the server of a data directory if it is running. Starts and creates nothing.
///
/// # Errors
///
/// [`Error::Files`] or [`Error::NotWritable`] where the data directory cannot be read, [`Error::Refused`] where the server
/// does not know our password, [`Error::TooSlow`] where it neither comes up nor goes away.
pub async fn running(options: &Options) -> Result<Option<String>, Error> {
    let Some((layout, running)) = find(options).await? else {
        return Ok(None);
    };
    let password = layout::read(&layout.password())?.unwrap_or_default();
    Ok(Some(url(running.port, password.trim())))
}

/// The URL of the superuser of a data directory's server, on the Unix socket, if it is running.
///
/// Its database is `postgres`: in the other one the role `callstate` may define what a superuser's statement then runs.
///
/// # Errors
///
/// As [`running()`].
pub async fn superuser(options: &Options) -> Result<Option<String>, Error> {
    let Some((layout, running)) = find(options).await? else {
        return Ok(None);
    };
    let password = roles::superuser_password(&layout)?;
    let Running { socket, port, .. } = running;
    // What encodes forms has a sign of its own for the blank; in a URL that is a plus.
    let socket: String =
        form_urlencoded::byte_serialize(socket.as_os_str().as_encoded_bytes()).collect();
    let socket = socket.replace('+', "%20");
    Ok(Some(format!("postgres://postgres:{password}@{socket}:{port}/postgres")))
}

/// Whether there is a cluster in a data directory. Starts and creates nothing.
///
/// # Errors
///
/// [`Error::Files`], [`Error::NotADirectory`] or [`Error::NotWritable`] if the data directory cannot be read.
pub fn has_cluster(options: &Options) -> Result<bool, Error> {
    match layout::existing(&options.data_dir)? {
        Some(root) => Ok(Layout::find(&root)?.is_some()),
        None => Ok(false),
    }
}

/// The server of a data directory, if it is running.
async fn find(options: &Options) -> Result<Option<(Layout, Running)>, Error> {
    let Some(root) = layout::existing(&options.data_dir)? else {
        return Ok(None);
    };
    let Some(layout) = Layout::find(&root)? else {
        return Ok(None);
    };
    Ok(running::find(&layout).await?.map(|running| (layout, running)))
}

fn url(port: u16, password: &str) -> String {
    format!("postgres://callstate:{password}@127.0.0.1:{port}/callstate")
}

/// Starts the server that is not running; the transition ends with it.
async fn start_anew(
    root: &Path,
    bin_dir: Option<&Path>,
    present: Option<&Layout>,
    port: Option<u16>,
    transition: lock::Transition,
) -> Result<(Layout, Running), Error> {
    let programs = binaries::choose(root, bin_dir, present).await?;
    let at = root.to_owned();
    let prepare = tokio::task::spawn_blocking(move || {
        Cluster::prepare(&at, programs, &transition).map(|cluster| (cluster, transition))
    });
    let (cluster, transition) =
        prepare.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))?;
    let running = start::start(&cluster, port).await?;
    roles::settle(&cluster.layout, &running).await;
    drop(transition);
    Ok((cluster.layout, running))
}

impl Server {
    /// The database's URL, with its password, as `psql`, `sqlx` and Metabase take it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder of the Unix socket, closed to other users.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.running.socket
    }

    /// The server in one line for a log: version, place and port, no password.
    #[must_use]
    pub fn describe(&self) -> String {
        let Running { version, port, .. } = &self.running;
        format!(
            "PostgreSQL {version} in {} on port {port} of 127.0.0.1",
            self.shared.layout.dir().display()
        )
    }

    /// Starts the server again when it dies, at the same port, for as long as this is polled.
    ///
    /// It holds one connection open, which ends with the server. Failures are logged and tried again, at most
    /// every half minute: whoever frees the disk finds the service at work again. Never returns; may be dropped at any time.
    pub async fn watch(&self) -> Infallible {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(lived) = self.until_lost().await {
                if lived >= SETTLED {
                    pause = FIRST_PAUSE;
                }
                tracing::warn!(log = %self.shared.layout.log().display(), "the connection to the database server was lost");
            }
            // A task of its own: dropped half-way, it would leave a server that is neither started nor not.
            let mended = tokio::spawn(Shared::mend(Arc::clone(&self.shared))).await;
            match mended {
                Ok(Ok(Mended::Answers | Mended::Leaving)) => {}
                Ok(Ok(Mended::Started)) => {
                    tracing::info!(port = self.shared.port, "started the database server again");
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "could not start the database server again");
                }
                Err(error) => tracing::error!(%error, "starting the database server again failed"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for the end of a connection; how long it lasted, if there was one.
    async fn until_lost(&self) -> Option<Duration> {
        let password = layout::read(&self.shared.layout.password()).ok()??;
        let options =
            running::options(&self.running.socket, self.shared.port, roles::OWNER, password.trim());
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
            .ok()?;
        let mut listener = PgListener::connect_with(&pool).await.ok()?;
        listener.eager_reconnect(false);
        let begin = Instant::now();
        let mut log = tokio::time::interval(LOG_INTERVAL);
        loop {
            tokio::select! {
                received = listener.try_recv() => if !matches!(received, Ok(Some(_))) {
                    return Some(begin.elapsed());
                },
                _ = log.tick() => if let Err(error) = start::bound_log(&self.shared.layout.log()) {
                    tracing::warn!(%error, "could not rotate the database server's log");
                },
            }
        }
    }

    /// Leaves the server's users. The last one out stops it and waits for that: what was committed is on disk either way.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfReach`] where the server runs in another container, [`Error::TooSlow`] where it does not stop,
    /// [`Error::Busy`] where another process keeps us from knowing.
    pub async fn release(self) -> Result<(), Error> {
        let Self { shared, user, service, .. } = self;
        shared.leaving.store(true, Ordering::Release);
        let layout = &shared.layout;
        let transition = lock::Transition::enter(&layout.root).await?;
        if user.leave(&layout.root, &transition)?
            && let Some(running) = running::find(layout).await?
        {
            running::stop(layout, &running).await?;
        }
        drop(service);
        drop(transition);
        Ok(())
    }
}

impl Shared {
    async fn mend(self: Arc<Self>) -> Result<Mended, Error> {
        let root = &self.layout.root;
        let transition = lock::Transition::enter(root).await?;
        if self.leaving.load(Ordering::Acquire) {
            return Ok(Mended::Leaving);
        }
        if running::find(&self.layout).await?.is_some() {
            return Ok(Mended::Answers);
        }
        start_anew(root, self.bin_dir.as_deref(), Some(&self.layout), Some(self.port), transition)
            .await?;
        Ok(Mended::Started)
    }
}

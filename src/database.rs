//! The database in use: the one that was configured, or our own server.
//!
//! A [`Database`] that was opened is reachable, new enough, and kept: a managed
//! server stays until [`Database::close`], which nothing else may replace, as
//! stopping it takes time and may fail. What is shown of a URL never includes
//! the password.
//!
//! Deliberately absent: SQL, which is the store's, and waiting for a server
//! that is not there yet, which is the supervisor's.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError, Migration, Migrator};
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::config::{Config, DatabaseSource};
use crate::managed_postgres::{self, Claim, Server};
use crate::store::{connection, error::pooler_hint};

/// The oldest Postgres whose SQL we speak.
pub const OLDEST_POSTGRES: u32 = 15;

/// How long the first connection may take, name look-up and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a task waits for one of the pool's connections. Short: who waits is
/// a request, and a delivery that is refused comes again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is believed to live.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long the connections that are in use are waited for at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The part of the time for a response after which a statement for it ends, so that it
/// holds no connection for a client that has its answer.
const STATEMENT_SHARE: f64 = 0.9;

/// What the server's statistics call us, unless the URL says otherwise.
const APPLICATION_NAME: &str = "callstate";

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our own server could not be had or given back.
    #[error(transparent)]
    Managed(#[from] managed_postgres::Error),
    /// The server is somebody else's.
    #[error(
        "the database is not callstate's own: who keeps its server knows how to be its superuser"
    )]
    NotManaged,
    /// A command other than `serve` found no database in the data directory.
    #[error(
        "there is no database in the data directory {}; `callstate serve` creates one, and --data-dir or \
         --database-url names another",
        .data_dir.display()
    )]
    NoCluster {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// A folder of our own server cannot be named.
    #[error("cannot tell where {} is", .path.display())]
    Folder {
        /// As it was configured.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The URL means nothing to the driver.
    #[error("the database URL cannot be used")]
    Url(#[source] sqlx::Error),
    /// Nobody answers there, or we are not let in.
    #[error("cannot connect to the database at {at}: {}", reason(cause))]
    Connect {
        /// The URL without its password.
        at: String,
        /// Why.
        cause: sqlx::Error,
    },
    /// Somebody is there and says nothing.
    #[error("the database at {at} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Silent {
        /// The URL without its password.
        at: String,
    },
    /// The server is older than our SQL.
    #[error(
        "the database at {at} is Postgres {version}; callstate needs {OLDEST_POSTGRES} or later"
    )]
    TooOld {
        /// The URL without its password.
        at: String,
        /// What it is.
        version: u32,
    },
    /// A migration failed, or the schema is not one of ours.
    #[error("cannot migrate the database")]
    Migrate(#[source] MigrateError),
    /// A migration failed because of a pooler.
    #[error("cannot migrate the database through this pooler ({hint})")]
    Pooler {
        /// What to do about it.
        hint: &'static str,
        /// What failed.
        source: MigrateError,
    },
    /// The schema has migrations that this program does not.
    #[error(
        "the database was migrated by a newer callstate (migration {0} is unknown here); \
         run that one, or a newer one"
    )]
    Newer(i64),
}

/// A database that answers.
#[derive(Debug)]
pub struct Database {
    pool: PgPool,
    options: PgConnectOptions,
    server: Option<Server>,
}

impl Database {
    /// Connects to the configured database, or acquires our own server. Only
    /// [`Claim::Serve`] creates its cluster.
    ///
    /// # Errors
    ///
    /// Where it cannot be reached or is too old; a server that was started for
    /// this is stopped again.
    pub async fn open(config: &Config, claim: Claim) -> Result<Self, Error> {
        let (options, server) = match &config.database {
            DatabaseSource::Url(url) => (parse(url.expose())?, None),
            DatabaseSource::Managed { data_dir, postgres_bin_dir } => {
                let options = managed_options(data_dir, postgres_bin_dir.as_deref())?;
                if claim == Claim::Join && !managed_postgres::has_cluster(&options)? {
                    return Err(Error::NoCluster { data_dir: options.data_dir });
                }
                let server = managed_postgres::acquire(&options, claim).await?;
                // Cheaper than the network's way round.
                (parse(server.url())?.socket(server.socket_dir()), Some(server))
            }
        };
        // A command may take as long as it needs.
        let statement_timeout = match claim {
            Claim::Serve => config.http.answer_timeout.mul_f64(STATEMENT_SHARE),
            Claim::Join => Duration::ZERO,
        };
        match connect(options).await {
            Ok(options) => Ok(Self {
                pool: PgPoolOptions::new()
                    .max_connections(config.database_connections)
                    .acquire_timeout(ACQUIRE_TIMEOUT)
                    .test_before_acquire(false)
                    .before_acquire(|connection, since| Box::pin(still_lives(connection, since)))
                    .after_connect(move |connection, _| {
                        Box::pin(connection::for_pool(connection, statement_timeout))
                    })
                    .connect_lazy_with(options.clone()),
                options,
                server,
            }),
            Err(error) => {
                if let Some(server) = server {
                    // The first error is the one to tell.
                    let _ = server.release().await;
                }
                Err(error)
            }
        }
    }

    /// Connections to it.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Where it is, for people: without a password.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.server {
            Some(server) => server.describe(),
            None => describe(&self.options),
        }
    }

    /// Runs the migrations that the database has not had, in order, and tells
    /// which. Several programs may do so at once: one does, the others wait.
    ///
    /// # Errors
    ///
    /// Where one fails, or the database has had others.
    pub async fn migrate<'a>(&self, migrator: &'a Migrator) -> Result<Vec<&'a Migration>, Error> {
        // A connection of its own: a failure leaves the lock with it.
        let mut connection = self
            .options
            .connect()
            .await
            .map_err(|cause| Error::Connect { at: describe(&self.options), cause })?;
        let applied = run(migrator, &mut connection).await;
        let _ = connection.close().await;
        applied.map_err(|error| match error {
            MigrateError::VersionMissing(version) => Error::Newer(version),
            error => match hint_of(&error) {
                Some(hint) => Error::Pooler { hint, source: error },
                None => Error::Migrate(error),
            },
        })
    }

    /// Keeps our own server running, should it die; to be polled as long as the
    /// database is needed. Does nothing where the server is somebody else's.
    pub async fn keep(&self) -> Infallible {
        match &self.server {
            Some(server) => server.watch().await,
            None => std::future::pending().await,
        }
    }

    /// Closes all connections and gives our own server back, which stops it
    /// unless somebody else uses it.
    ///
    /// # Errors
    ///
    /// Where our own server does not stop.
    pub async fn close(self) -> Result<(), Error> {
        // Where one is held longer, nobody waits any more for what is asked over it.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await;
        match self.server {
            Some(server) => Ok(server.release().await?),
            None => Ok(()),
        }
    }
}

/// The URL of the database in use, without starting anything; `None` where it
/// would be our own server and that does not run.
///
/// # Errors
///
/// Where the state of our own server cannot be told.
pub async fn running_url(config: &Config) -> Result<Option<String>, Error> {
    match &config.database {
        DatabaseSource::Url(url) => Ok(Some(url.expose().to_owned())),
        DatabaseSource::Managed { data_dir, postgres_bin_dir } => {
            let options = managed_options(data_dir, postgres_bin_dir.as_deref())?;
            Ok(managed_postgres::running(&options).await?)
        }
    }
}

/// The URL of the superuser of our own server, without starting anything; `None`
/// where that does not run.
///
/// # Errors
///
/// Where the server is somebody else's, or the state of ours cannot be told.
pub async fn superuser_url(config: &Config) -> Result<Option<String>, Error> {
    match &config.database {
        DatabaseSource::Url(_) => Err(Error::NotManaged),
        DatabaseSource::Managed { data_dir, postgres_bin_dir } => {
            let options = managed_options(data_dir, postgres_bin_dir.as_deref())?;
            Ok(managed_postgres::superuser(&options).await?)
        }
    }
}

/// A URL of a database for people: without its password.
///
/// # Errors
///
/// Where it is no such URL.
pub fn describe_url(url: &str) -> Result<String, Error> {
    Ok(describe(&parse(url)?))
}

/// What our own server needs to know. Its paths are absolute: it changes its
/// working folder, and whoever is told its URL has another.
fn managed_options(
    data_dir: &Path,
    bin_dir: Option<&Path>,
) -> Result<managed_postgres::Options, Error> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| Error::Folder { path: path.to_owned(), source })
    };
    Ok(managed_postgres::Options {
        data_dir: absolute(data_dir)?,
        bin_dir: bin_dir.map(absolute).transpose()?,
    })
}

/// TLS and the statement cache are as the URL says: `sslmode`, and
/// `statement-cache-capacity=0`.
fn parse(url: &str) -> Result<PgConnectOptions, Error> {
    url.parse().map_err(Error::Url)
}

/// Checks that the database is there and new enough, by one connection; so that
/// a mistake is told by its cause instead of by the pool's time running out.
async fn connect(mut options: PgConnectOptions) -> Result<PgConnectOptions, Error> {
    if options.get_application_name().is_none() {
        options = options.application_name(APPLICATION_NAME);
    }
    let at = describe(&options);
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, options.connect());
    let connection = match connecting.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(cause)) => return Err(Error::Connect { at, cause }),
        Err(_) => return Err(Error::Silent { at }),
    };
    // 150004 is 15.4. What does not tell speaks the protocol without being Postgres.
    let version = connection.server_version_num().map(|number| number / 10_000);
    let _ = connection.close().await;
    match version {
        Some(version) if version < OLDEST_POSTGRES => Err(Error::TooOld { at, version }),
        _ => Ok(options),
    }
}

/// Whether a connection of the pool may be used. Asking costs a round trip, so
/// only one that has been idle for a while is asked.
async fn still_lives(
    connection: &mut PgConnection,
    since: PoolConnectionMetadata,
) -> Result<bool, sqlx::Error> {
    Ok(since.idle_for < TRUSTED_IDLE || connection.ping().await.is_ok())
}

async fn run<'a>(
    migrator: &'a Migrator,
    connection: &mut PgConnection,
) -> Result<Vec<&'a Migration>, MigrateError> {
    // The lock is counted, so that holding it here as well makes what is told exact.
    connection.lock().await?;
    connection.ensure_migrations_table(&migrator.table_name).await?;
    let before: HashSet<i64> = connection
        .list_applied_migrations(&migrator.table_name)
        .await?
        .into_iter()
        .map(|migration| migration.version)
        .collect();
    migrator.run_direct(None, connection, false).await?;
    connection.unlock().await?;
    let applied = migrator.iter().filter(|migration| !before.contains(&migration.version));
    Ok(applied.collect())
}

/// What the server or the system says, without the driver's words around it.
fn reason(error: &sqlx::Error) -> String {
    let reason = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    match pooler_hint(error) {
        Some(hint) => format!("{reason} ({hint})"),
        None => reason,
    }
}

/// What to do about a migration that failed because of a pooler.
fn hint_of(error: &MigrateError) -> Option<&'static str> {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            pooler_hint(error)
        }
        _ => None,
    }
}

fn describe(options: &PgConnectOptions) -> String {
    let user = options.get_username();
    let database = options.get_database().unwrap_or(user);
    match options.get_socket() {
        Some(socket) => format!("postgres://{user}@localhost/{database}?host={}", socket.display()),
        None => {
            format!("postgres://{user}@{}:{}/{database}", options.get_host(), options.get_port())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::describe_url;

    #[test]
    fn a_described_url_has_no_password() {
        let describe = |url| describe_url(url).expect("it is a URL");
        assert_eq!(
            describe("postgres://me:hunter2@host:6000/db?sslmode=require"),
            "postgres://me@host:6000/db"
        );
        assert_eq!(
            describe("postgresql://me:hunter2@localhost/db?host=/run/postgresql"),
            "postgres://me@localhost/db?host=/run/postgresql"
        );
    }
}

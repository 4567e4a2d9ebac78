//! `callstate serve`: the service, from the first check to the orderly stop.
//!
//! In this order, so that what can fail fails early and nothing is left behind:
//! refuse an exposed address, bind it, open the database, migrate, answer.
//! Clients that connect before the database is open wait in the backlog. On
//! the way out: no new connections, what is under way is committed and
//! answered, the connections to the database are closed, our own server is
//! given back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::config::{self, Config, Flags};
use crate::database::{self, Database};
use crate::http::{self, ApiKeyCache, CallReader, HttpServer, Reports, Service, Streams, server};
use crate::ingest::{self, Ingest, Quarantine, Retention, retention::Periods};
use crate::log_limit;
use crate::managed_postgres::Claim;
use crate::store::{
    self, MIGRATOR, connection,
    spec::{self, SpecMismatch},
};
use crate::telemetry::{self, Causes};

use super::failure::Failure;
use super::output;
use super::reload::Reload;
use super::stop::Stop;

/// How long a stop waits for the requests under way. Long enough for any that
/// is not a stream or a client that has gone silent; with the writers' time and the
/// database's it stays below the half minute after which supervisors kill.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a stop waits after that for what was taken to be committed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the service ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot take over the signals")]
    Signals(#[source] io::Error),
    #[error("{address} is in use by another program; --listen names another address")]
    AddressInUse { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error("the database lacks the schema of this callstate (callstate migrate brings it)")]
    Schema,
    #[error("the database has another vocabulary: {0}; run the callstate that it belongs to")]
    Spec(SpecMismatch),
    #[error("a writer failed repeatedly; the log says why")]
    WriterFailed,
    #[error("a query failed")]
    Store(#[source] store::Error),
}

/// Serves until a signal asks to stop. The flags are those of which the
/// configuration was read, for when it is read again.
pub(super) async fn run(config: Config, flags: Flags) -> Result<(), Failure> {
    config.exposure()?;
    telemetry::init(&config.log);
    for unknown in &config.unknown_variables {
        tracing::warn!("{unknown}");
    }
    serve(&config, flags).await.map_err(|error| {
        tracing::error!("{}", Causes(&error));
        Failure::Told
    })
}

async fn serve(config: &Config, flags: Flags) -> Result<(), Error> {
    let stop = Stop::on_signals().map_err(Error::Signals)?;
    let reload = Reload::on_signal(config.clone(), flags).map_err(Error::Signals)?;
    let (listener, address) = bind(config.listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::AddressInUse { address: config.listen },
        _ => Error::Listen { address: config.listen, source },
    })?;
    let database = tokio::select! {
        opened = Database::open(config, Claim::Serve) => opened?,
        () = stop.requested() => return Ok(()),
    };
    let served = answer(config, &database, listener, address, reload, &stop).await;
    let closed = database.close().await;
    served?;
    closed?;
    tracing::info!("stopped");
    Ok(())
}

async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Migrates, then answers until it is asked to stop, then commits what was taken.
async fn answer(
    config: &Config,
    database: &Database,
    listener: TcpListener,
    address: SocketAddr,
    reload: Reload,
    stop: &Stop,
) -> Result<(), Error> {
    if config.migrate {
        for migration in database.migrate(&MIGRATOR).await? {
            tracing::info!(version = migration.version, "migrated: {}", migration.description);
        }
    }
    if !connection::is_migrated(database.pool()).await.map_err(Error::Store)? {
        return Err(Error::Schema);
    }
    let mismatches = spec::compare(database.pool()).await.map_err(Error::Store)?;
    if let Some(mismatch) = mismatches.into_iter().next() {
        return Err(Error::Spec(mismatch));
    }
    let config::Ingest { writers, batch, queue } = config.ingest;
    let (ingest, writers) = Ingest::start(
        ingest::Settings { writers, batch, queue },
        &database.pool().connect_options(),
    );
    let outage = ingest.outage();
    let (api_keys, uses) = ApiKeyCache::start(database.pool().clone(), config.api.require_key);
    let clock = Clock::system();
    let quarantine = Quarantine::new(database.pool().clone(), config.quarantine);
    let trimmer = quarantine.trimmer(clock.clone());
    let config::Retention { payloads, calls } = config.retention;
    let periods = Periods { payloads, calls };
    let retention = Arc::new(Retention::new(database.pool().clone(), periods, clock.clone()));
    let http_server = Arc::new(HttpServer::new(config.http.clone()));
    let (streams, dispatching) = Streams::start(
        &database.pool().connect_options(),
        config.api.max_listeners,
        stop.requested(),
    );
    let router = http::router(Service {
        pool: database.pool().clone(),
        ingest,
        quarantine,
        retention: Arc::clone(&retention),
        stalled_after: config.stalled_after,
        clock,
        endpoints: reload.endpoints(),
        api_keys,
        server: Arc::clone(&http_server),
        calls: CallReader::start(database.pool()),
        streams,
        reports: Reports::default(),
    });
    let serving = server::serve(listener, router, http_server, stop.requested());
    announce(database, address);

    let overdue = async {
        stop.requested().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        () = serving => {}
        never = database.keep() => match never {},
        never = reload.keep() => match never {},
        never = trimmer.run() => match never {},
        never = retention.run() => match never {},
        never = log_limit::run(&outage) => match never {},
        () = writers.failed() => return Err(Error::WriterFailed),
        () = overdue => {
            tracing::warn!("some requests did not end in {} s", DRAIN_TIMEOUT.as_secs());
        }
    }
    // The router is gone, and with it the way in: what was taken is committed.
    // Only a request that did not end keeps the writers waiting.
    let finished = async {
        writers.finish().await;
        uses.finish().await;
        dispatching.finish().await;
    };
    if tokio::time::timeout(COMMIT_TIMEOUT, finished).await.is_err() {
        tracing::warn!("the writers did not end in {} s", COMMIT_TIMEOUT.as_secs());
    }
    log_limit::finish(&outage);
    Ok(())
}

/// Tells where it listens and where its database is. Nobody need read it: a
/// closed stdout does not end the service.
fn announce(database: &Database, address: SocketAddr) {
    let _ = output::line(&format!("database: {}", database.describe()));
    let _ = output::line(&format!("listening on http://{address}"));
}

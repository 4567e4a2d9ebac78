//! The configuration: read from four layers, understood once, checked whole.
//!
//! Flags win over environment variables, these over `callstate.toml`, that over
//! the defaults. What comes out is a [`Config`] that cannot be wrong, or
//! [`Mistakes`]: all of them, a line each, naming the key and where it was
//! given. No mistake quotes a secret, and `Debug` shows none.
//!
//! The file is walked here rather than deserialized: serde stops at the first
//! mistake, does not know about the other layers, and quotes what it did not
//! expect, which may be a token.
//!
//! While the program runs, the tokens and keys of the endpoints may be read
//! again ([`Config::with_secrets_of`]). Deliberately absent: the same for
//! anything else. Restart it.

mod http;
mod layers;
mod mistake;
mod secret;
mod suggest;
#[cfg(test)]
mod tests;
mod unknown;
mod value;
mod webhooks;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::layers::{Environment, Flags, Key, ReadFile};
pub use self::mistake::{Mistake, Mistakes, Source};
pub use self::secret::Secret;
pub use self::webhooks::{Auth, Endpoint};

use crate::http::server;
use crate::recho::ProviderTimeZone;
use crate::store::quarantine::Bounds;

use self::layers::{File, Given, Reader};

/// The configuration of this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where `listen` was given, for the mistake of [`Config::exposure`].
    listen_source: Source,
    /// Where the database is.
    pub database: DatabaseSource,
    /// The most connections to hold to the database for questions; the writers
    /// have their own.
    pub database_connections: u32,
    /// Whether `serve` runs pending migrations.
    pub migrate: bool,
    /// The time zone of the `Time:` line in `body.text`.
    pub provider_time_zone: ProviderTimeZone,
    /// The largest body of a delivery, in bytes.
    pub max_delivery_bytes: usize,
    /// The endpoints that take deliveries, by name: at least one, unless they were not read.
    pub webhooks: BTreeMap<String, Endpoint>,
    /// How deliveries are committed.
    pub ingest: Ingest,
    /// How much the quarantine may hold.
    pub quarantine: Bounds,
    /// How long payloads and calls are kept.
    pub retention: Retention,
    /// How long a live call may receive nothing before metrics count it as stalled.
    pub stalled_after: Duration,
    /// Who may ask.
    pub api: Api,
    /// How the service meets its clients.
    pub http: server::HttpSettings,
    /// Whether the operator accepts that anyone who reaches the address may deliver and ask.
    pub insecure: bool,
    /// What is logged, and how.
    pub log: Log,
    /// Variables that are named as ours are and mean nothing, a line each.
    pub unknown_variables: Vec<Mistake>,
}

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseSource {
    /// On that server. The URL may hold a password.
    Url(Secret),
    /// On a server that callstate keeps for itself.
    Managed {
        /// Where it keeps everything.
        data_dir: PathBuf,
        /// Where `postgres` and `initdb` are; `None` to look for them.
        postgres_bin_dir: Option<PathBuf>,
    },
}

/// How deliveries are committed: how much at once, and how much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingest {
    /// How many writers commit side by side, each with a connection of its own.
    pub writers: usize,
    /// The most deliveries that one transaction commits.
    pub batch: usize,
    /// The most deliveries that wait for one writer.
    pub queue: usize,
}

/// How long payloads and calls are kept; `None` for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// How long payloads are kept after they were received.
    pub payloads: Option<Duration>,
    /// How long calls are kept after they ended.
    pub calls: Option<Duration>,
}

/// Who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Whether a request needs an API key.
    pub require_key: bool,
    /// The most streams that are open and questions that wait, together.
    pub max_listeners: usize,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `None` for human on a terminal and JSON elsewhere.
    pub format: Option<LogFormat>,
    /// Which lines, in the notation of `RUST_LOG`; known to be well-formed.
    pub filter: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Defines the keys, once for reading, once for knowing them all.
macro_rules! keys {
    ($($name:ident = $path:literal, [$($variable:literal),+], $flag:expr;)+) => {
        /// The keys of the configuration, but for those of the endpoints.
        pub mod key {
            use super::Key;
            $(
                #[doc = concat!("`", $path, "`")]
                pub static $name: Key = Key {
                    path: $path,
                    variables: &[$($variable),+],
                    flag: $flag,
                };
            )+
            /// All of them.
            pub(super) static ALL: &[&Key] = &[$(&$name),+];
        }
    };
}

keys! {
    LISTEN = "listen", ["CALLSTATE_LISTEN"], Some("listen");
    DATABASE_URL = "database_url", ["CALLSTATE_DATABASE_URL", "DATABASE_URL"], Some("database-url");
    DATABASE_CONNECTIONS = "database_connections", ["CALLSTATE_DATABASE_CONNECTIONS"], None;
    DATA_DIR = "data_dir", ["CALLSTATE_DATA_DIR"], Some("data-dir");
    POSTGRES_BIN_DIR = "postgres_bin_dir", ["CALLSTATE_POSTGRES_BIN_DIR"], Some("postgres-bin-dir");
    NO_MIGRATE = "no_migrate", ["CALLSTATE_NO_MIGRATE"], Some("no-migrate");
    PROVIDER_TIME_ZONE = "provider_time_zone", ["CALLSTATE_PROVIDER_TIME_ZONE"], Some("provider-time-zone");
    MAX_DELIVERY_BYTES = "max_delivery_bytes", ["CALLSTATE_MAX_DELIVERY_BYTES"], None;
    INGEST_WRITERS = "ingest.writers", ["CALLSTATE_INGEST_WRITERS"], None;
    INGEST_BATCH = "ingest.batch", ["CALLSTATE_INGEST_BATCH"], None;
    INGEST_QUEUE = "ingest.queue", ["CALLSTATE_INGEST_QUEUE"], None;
    QUARANTINE_ENTRIES = "quarantine.max_entries", ["CALLSTATE_QUARANTINE_MAX_ENTRIES"], None;
    QUARANTINE_BYTES = "quarantine.max_bytes", ["CALLSTATE_QUARANTINE_MAX_BYTES"], None;
    QUARANTINE_AGE = "quarantine.max_age", ["CALLSTATE_QUARANTINE_MAX_AGE"], None;
    RETENTION_PAYLOADS = "retention.payloads", ["CALLSTATE_RETENTION_PAYLOADS"], None;
    RETENTION_CALLS = "retention.calls", ["CALLSTATE_RETENTION_CALLS"], None;
    STALLED_AFTER = "metrics.stalled_after", ["CALLSTATE_METRICS_STALLED_AFTER"], None;
    REQUIRE_KEY = "api.require_key", ["CALLSTATE_API_REQUIRE_KEY"], Some("require-key");
    MAX_LISTENERS = "api.max_listeners", ["CALLSTATE_API_MAX_LISTENERS"], None;
    HTTP_MAX_CONNECTIONS = "http.max_connections", ["CALLSTATE_HTTP_MAX_CONNECTIONS"], None;
    HTTP_MAX_UNAUTHENTICATED_BYTES = "http.max_unauthenticated_bytes", ["CALLSTATE_HTTP_MAX_UNAUTHENTICATED_BYTES"], None;
    HTTP_READ_TIMEOUT = "http.read_timeout", ["CALLSTATE_HTTP_READ_TIMEOUT"], None;
    HTTP_ANSWER_TIMEOUT = "http.answer_timeout", ["CALLSTATE_HTTP_ANSWER_TIMEOUT"], None;
    HTTP_IDLE_TIMEOUT = "http.idle_timeout", ["CALLSTATE_HTTP_IDLE_TIMEOUT"], None;
    HTTP_HOSTS = "http.hosts", ["CALLSTATE_HTTP_HOSTS"], None;
    HTTP_CORS_ORIGINS = "http.cors_origins", ["CALLSTATE_HTTP_CORS_ORIGINS"], None;
    HTTP_TRUSTED_PROXIES = "http.trusted_proxies", ["CALLSTATE_HTTP_TRUSTED_PROXIES"], None;
    INSECURE = "insecure", ["CALLSTATE_INSECURE"], Some("insecure");
    LOG = "log", ["CALLSTATE_LOG", "RUST_LOG"], None;
    LOG_FORMAT = "log_format", ["CALLSTATE_LOG_FORMAT"], Some("log-format");
}

/// The file that is read when none is named, if it is there.
const DEFAULT_FILE: &str = "callstate.toml";
const FILE_VARIABLE: &str = "CALLSTATE_CONFIG";

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const DEFAULT_DATABASE_CONNECTIONS: u32 = 10;
const DATABASE_CONNECTIONS: RangeInclusive<u32> = 1..=1000;
const DEFAULT_MAX_DELIVERY_BYTES: usize = 1024 * 1024;
/// A kilobyte, which any delivery needs, to what a request may hold in memory.
const MAX_DELIVERY_BYTES: RangeInclusive<usize> = 1024..=64 * 1024 * 1024;
/// As many as there may be connections, and more.
const MAX_LISTENERS: RangeInclusive<usize> = 1..=1_000_000;
const DEFAULT_INGEST: Ingest = Ingest { writers: 1, batch: 512, queue: 4096 };
/// More than a database has use for.
const INGEST_WRITERS: RangeInclusive<usize> = 1..=64;
/// What Postgres takes in one statement without breaking sweat.
const INGEST_BATCH: RangeInclusive<usize> = 1..=8192;
/// A delivery that waits takes some kilobytes.
const INGEST_QUEUE: RangeInclusive<usize> = 1..=1_000_000;
/// What a provider's bad day leaves behind, with room.
const DEFAULT_QUARANTINE: Bounds = Bounds {
    max_entries: 10_000,
    max_bytes: 1024 * 1024 * 1024,
    max_age: Duration::from_hours(90 * 24),
};
const QUARANTINE_ENTRIES: RangeInclusive<u32> = 1..=1_000_000;
/// The largest delivery that can be configured, to a disk of good size.
const QUARANTINE_BYTES: RangeInclusive<u64> = 64 * 1024 * 1024..=1024 * 1024 * 1024 * 1024;
/// An hour, in which somebody may look, to ten years of 365.25 days.
const QUARANTINE_AGE: RangeInclusive<Duration> =
    Duration::from_hours(1)..=Duration::from_hours(87_660);
/// Longer than most calls take.
const DEFAULT_STALLED_AFTER: Duration = Duration::from_hours(1);
/// A minute to a month of 30 days.
const STALLED_AFTER: RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(30 * 24);
/// A day to a century of 365.25 days.
const RETENTION: RangeInclusive<Duration> =
    Duration::from_hours(24)..=Duration::from_hours(876_600);
/// sqlx tells at `info` of slow statements and notices that nobody can act on.
const DEFAULT_LOG_FILTER: &str = "info,sqlx=warn";

/// All that a configuration is read from.
pub struct Inputs<'a> {
    /// What the command line gave.
    pub flags: &'a Flags,
    /// The environment variables.
    pub environment: &'a Environment,
    /// Reads the configuration file, and secrets given as `file:PATH`.
    pub read_file: ReadFile<'a>,
    /// The platform's folder for our data, if it has one.
    pub default_data_dir: Option<PathBuf>,
    /// Whether the endpoints are read, whose secrets may be where the service runs and
    /// nowhere else.
    pub reads_endpoints: bool,
}

impl Config {
    /// Reads the configuration of this process.
    ///
    /// # Errors
    ///
    /// All mistakes that were found.
    pub fn load(flags: &Flags) -> Result<Self, Mistakes> {
        Self::load_with(flags, true)
    }

    /// Reads what a command needs that has nothing to do with the endpoints.
    ///
    /// # Errors
    ///
    /// All mistakes that were found, but for those in the endpoints.
    pub fn load_without_endpoints(flags: &Flags) -> Result<Self, Mistakes> {
        Self::load_with(flags, false)
    }

    fn load_with(flags: &Flags, reads_endpoints: bool) -> Result<Self, Mistakes> {
        Self::read(&Inputs {
            flags,
            environment: &Environment::of_process(),
            read_file: &|path| std::fs::read_to_string(path),
            default_data_dir: platform_data_dir(),
            reads_endpoints,
        })
    }

    /// Reads a configuration from nothing but its arguments.
    ///
    /// # Errors
    ///
    /// All mistakes that were found.
    pub fn read(inputs: &Inputs<'_>) -> Result<Self, Mistakes> {
        let (path, file) = read_config_file(inputs)?;
        let environment = inputs.environment;
        let read_file = inputs.read_file;
        let mut reader =
            Reader { flags: inputs.flags, environment, file, read_file, mistakes: Vec::new() };
        unknown::note_keys(&mut reader);

        let listen =
            reader.read(&key::LISTEN, |given| Ok((value::address(given)?, given.source.clone())));
        let (listen, listen_source) =
            listen.unwrap_or_else(|| (DEFAULT_LISTEN, Source::flag("listen")));
        let database = read_database(&mut reader, inputs);
        let max_delivery_bytes = reader
            .read(&key::MAX_DELIVERY_BYTES, |given| given.number(MAX_DELIVERY_BYTES))
            .unwrap_or(DEFAULT_MAX_DELIVERY_BYTES);
        let http = http::read(&mut reader, is_loopback(listen), max_delivery_bytes);
        let config = Self {
            file: path,
            listen,
            listen_source,
            // Without one there is a mistake, so that this value is never seen.
            database: database.unwrap_or_else(|| DatabaseSource::Url(Secret::new(""))),
            database_connections: reader
                .read(&key::DATABASE_CONNECTIONS, |given| given.number(DATABASE_CONNECTIONS))
                .unwrap_or(DEFAULT_DATABASE_CONNECTIONS),
            migrate: !reader.read(&key::NO_MIGRATE, Given::boolean).unwrap_or(false),
            provider_time_zone: reader
                .read(&key::PROVIDER_TIME_ZONE, value::time_zone)
                .unwrap_or_default(),
            max_delivery_bytes,
            webhooks: if inputs.reads_endpoints {
                webhooks::read(&mut reader)
            } else {
                BTreeMap::new()
            },
            ingest: Ingest {
                writers: reader
                    .read(&key::INGEST_WRITERS, |given| given.number(INGEST_WRITERS))
                    .unwrap_or(DEFAULT_INGEST.writers),
                batch: reader
                    .read(&key::INGEST_BATCH, |given| given.number(INGEST_BATCH))
                    .unwrap_or(DEFAULT_INGEST.batch),
                queue: reader
                    .read(&key::INGEST_QUEUE, |given| given.number(INGEST_QUEUE))
                    .unwrap_or(DEFAULT_INGEST.queue),
            },
            quarantine: read_quarantine(&mut reader),
            retention: read_retention(&mut reader),
            stalled_after: reader
                .read(&key::STALLED_AFTER, |given| value::duration(given, STALLED_AFTER))
                .unwrap_or(DEFAULT_STALLED_AFTER),
            api: Api {
                require_key: reader.read(&key::REQUIRE_KEY, Given::boolean).unwrap_or(false),
                // They leave deliveries the other half.
                max_listeners: reader
                    .read(&key::MAX_LISTENERS, |given| given.number(MAX_LISTENERS))
                    .unwrap_or((http.max_connections / 2).max(1)),
            },
            http,
            insecure: reader.read(&key::INSECURE, Given::boolean).unwrap_or(false),
            log: Log {
                format: reader.read(&key::LOG_FORMAT, value::log_format),
                filter: reader
                    .read(&key::LOG, value::log_filter)
                    .unwrap_or_else(|| DEFAULT_LOG_FILTER.to_owned()),
            },
            unknown_variables: unknown::variables(environment),
        };
        Mistakes::check(reader.mistakes)?;
        Ok(config)
    }

    /// This configuration with the tokens and keys of one that was read later.
    ///
    /// Nothing else is taken over, so an endpoint never comes to be open in this
    /// way, and one that is no longer there or has another method keeps what it
    /// has.
    #[must_use]
    pub fn with_secrets_of(&self, later: &Self) -> Self {
        let mut config = self.clone();
        for (name, endpoint) in &mut config.webhooks {
            if let Some(later) = later.webhooks.get(name) {
                endpoint.auth = endpoint.auth.with_secrets_of(&later.auth);
            }
        }
        config
    }

    /// Refuses to serve strangers: beyond the loopback, every endpoint
    /// authenticates and the API asks for keys, or the operator said `insecure`.
    ///
    /// This is apart from [`Config::read`] since only `serve` listens.
    ///
    /// # Errors
    ///
    /// The address, what is open, and what to do about it.
    pub fn exposure(&self) -> Result<(), Mistakes> {
        if self.insecure || is_loopback(self.listen) {
            return Ok(());
        }
        let mut open: Vec<_> = self
            .webhooks
            .iter()
            .filter(|(_, endpoint)| endpoint.auth == Auth::None)
            .map(|(name, _)| format!("webhooks.{name}.auth is \"none\""))
            .collect();
        if !self.api.require_key {
            open.push("api.require_key is false".to_owned());
        }
        if open.is_empty() {
            return Ok(());
        }
        let mistake = self.listen_source.mistake(format!(
            "refuses to listen on {}, which others may reach, while {}; change that, \
             listen on 127.0.0.1, or say --insecure",
            self.listen,
            open.join(" and ")
        ));
        Err(mistake.into())
    }
}

/// Whether only this machine reaches an address.
fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// Finds and parses the configuration file. One that was named must be there.
fn read_config_file(inputs: &Inputs<'_>) -> Result<(Option<PathBuf>, File), Mistake> {
    let named = match &inputs.flags.config {
        Some(path) => Some((path.clone(), Source::flag("config"))),
        None => inputs
            .environment
            .get(FILE_VARIABLE)?
            .map(|path| (PathBuf::from(path), Source::variable(FILE_VARIABLE))),
    };
    let path = named.as_ref().map_or(Path::new(DEFAULT_FILE), |(path, _)| path.as_path());
    let name = path.display().to_string();
    match ((inputs.read_file)(path), named.as_ref()) {
        (Ok(text), _) => Ok((Some(path.to_owned()), File::parse(path, &text)?)),
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => {
            Ok((None, File::default()))
        }
        (Err(error), None) => Err(Mistake::new(format!("{name}: cannot be read: {error}"))),
        (Err(error), Some((_, source))) => {
            Err(source.mistake(format!("cannot read {name}: {error}")))
        }
    }
}

/// How much the quarantine may hold.
fn read_quarantine(reader: &mut Reader<'_>) -> Bounds {
    let Bounds { max_entries, max_bytes, max_age } = DEFAULT_QUARANTINE;
    Bounds {
        max_entries: reader
            .read(&key::QUARANTINE_ENTRIES, |given| given.number(QUARANTINE_ENTRIES))
            .unwrap_or(max_entries),
        max_bytes: reader
            .read(&key::QUARANTINE_BYTES, |given| given.number(QUARANTINE_BYTES))
            .unwrap_or(max_bytes),
        max_age: reader
            .read(&key::QUARANTINE_AGE, |given| value::duration(given, QUARANTINE_AGE))
            .unwrap_or(max_age),
    }
}

/// How long payloads and calls are kept: payloads no longer than calls.
fn read_retention(reader: &mut Reader<'_>) -> Retention {
    let calls = reader
        .read(&key::RETENTION_CALLS, |given| value::duration_or_forever(given, RETENTION))
        .unwrap_or(None);
    let payloads = reader
        .read(&key::RETENTION_PAYLOADS, |given| {
            let payloads = value::duration_or_forever(given, RETENTION)?;
            match (payloads, calls) {
                (Some(payloads), Some(calls)) if payloads > calls => {
                    Err(given.mistake("is longer than retention.calls"))
                }
                (None, Some(_)) => Err(given.mistake("is longer than retention.calls")),
                _ => Ok(payloads),
            }
        })
        .unwrap_or(None);
    Retention { payloads, calls }
}

/// Where the database is; `None` with a mistake.
fn read_database(reader: &mut Reader<'_>, inputs: &Inputs<'_>) -> Option<DatabaseSource> {
    let before = reader.mistakes.len();
    let url = reader.read(&key::DATABASE_URL, |given| {
        value::database_url(given, inputs.environment, inputs.read_file)
    });
    let data_dir = reader.read(&key::DATA_DIR, Given::path);
    let postgres_bin_dir = reader.read(&key::POSTGRES_BIN_DIR, Given::path);
    if reader.mistakes.len() > before {
        return None;
    }
    if let Some(url) = url {
        return Some(DatabaseSource::Url(url));
    }
    let Some(data_dir) = data_dir.or_else(|| inputs.default_data_dir.clone()) else {
        reader.mistakes.push(Source::flag("data-dir").mistake(
            "this user has no home folder to keep the database in; \
             say where, or give a --database-url",
        ));
        return None;
    };
    Some(DatabaseSource::Managed { data_dir, postgres_bin_dir })
}

/// Where programs keep their data on this platform; for root on Linux, where
/// services do.
fn platform_data_dir() -> Option<PathBuf> {
    use etcetera::BaseStrategy as _;

    if cfg!(target_os = "linux") && rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/callstate"));
    }
    let strategy = etcetera::base_strategy::choose_native_strategy().ok()?;
    Some(strategy.data_dir().join("callstate"))
}

//! `callstate config check`: reads the configuration and says what it would do.
//!
//! It fails where `serve` would refuse to start, and touches nothing: neither
//! the database nor the address. Secrets are counted, not shown.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::call::ProjectId;
use crate::config::{self, Auth, Config, DatabaseSource, Endpoint, Flags, LogFormat};
use crate::database;
use crate::http::server;
use crate::recho::DEFAULT_ENDPOINT;

use super::ServeFlags;
use super::failure::Failure;
use super::output::{self, Format};

/// The options of `config check`.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    serve: ServeFlags,
    /// How to print the configuration
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What a configuration would do.
#[derive(Serialize)]
struct Report {
    file: Option<String>,
    listen: String,
    database: Database,
    database_connections: u32,
    migrate: bool,
    webhooks: Vec<Webhook>,
    max_delivery_bytes: usize,
    provider_time_zone: String,
    ingest: Ingest,
    quarantine: Quarantine,
    retention: Retention,
    metrics: Metrics,
    api: Api,
    http: Http,
    insecure: bool,
    log: String,
    /// Null where it depends on where the log goes.
    log_format: Option<&'static str>,
    unknown_variables: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum Database {
    /// The URL is without its password.
    Url {
        url: String,
    },
    Managed {
        data_dir: String,
        postgres_bin_dir: Option<String>,
    },
}

#[derive(Serialize)]
struct Webhook {
    name: String,
    path: String,
    auth: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_keys: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp_tolerance: Option<String>,
    default_project: ProjectId,
    /// Null for all.
    projects: Option<Vec<ProjectId>>,
}

#[derive(Serialize)]
struct Ingest {
    writers: usize,
    batch: usize,
    queue: usize,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "they are named as in the configuration")]
struct Quarantine {
    max_entries: u32,
    max_bytes: u64,
    max_age: String,
}

#[derive(Serialize)]
struct Retention {
    payloads: String,
    calls: String,
}

#[derive(Serialize)]
struct Metrics {
    stalled_after: String,
}

#[derive(Serialize)]
struct Http {
    max_connections: usize,
    max_unauthenticated_bytes: usize,
    read_timeout: String,
    answer_timeout: String,
    idle_timeout: String,
    /// Besides those of the loopback; null for any.
    hosts: Option<Vec<String>>,
    cors_origins: Vec<String>,
    trusted_proxies: Vec<String>,
}

#[derive(Serialize)]
struct Api {
    require_key: bool,
    max_listeners: usize,
}

/// Reads the configuration, and prints what it would do.
pub(super) fn check(options: Options, mut flags: Flags) -> Result<(), Failure> {
    options.serve.note(&mut flags);
    let config = Config::load(&flags)?;
    config.exposure()?;
    let report = Report::new(config)?;
    match options.format {
        Format::Json => output::json(&report),
        Format::Text => report.lines().iter().try_for_each(|line| output::line(line)),
    }
}

impl Report {
    fn new(config: Config) -> Result<Self, Failure> {
        let database = match config.database {
            DatabaseSource::Url(url) => {
                Database::Url { url: database::describe_url(url.expose())? }
            }
            DatabaseSource::Managed { data_dir, postgres_bin_dir } => Database::Managed {
                data_dir: data_dir.display().to_string(),
                postgres_bin_dir: postgres_bin_dir.map(|path| path.display().to_string()),
            },
        };
        let config::Ingest { writers, batch, queue } = config.ingest;
        Ok(Self {
            file: config.file.map(|path| path.display().to_string()),
            listen: format!("http://{}", config.listen),
            database,
            database_connections: config.database_connections,
            migrate: config.migrate,
            webhooks: config.webhooks.into_iter().map(Webhook::new).collect(),
            max_delivery_bytes: config.max_delivery_bytes,
            provider_time_zone: config.provider_time_zone.to_string(),
            ingest: Ingest { writers, batch, queue },
            quarantine: Quarantine {
                max_entries: config.quarantine.max_entries,
                max_bytes: config.quarantine.max_bytes,
                max_age: span(config.quarantine.max_age),
            },
            retention: Retention {
                payloads: kept(config.retention.payloads),
                calls: kept(config.retention.calls),
            },
            metrics: Metrics { stalled_after: span(config.stalled_after) },
            api: Api {
                require_key: config.api.require_key,
                max_listeners: config.api.max_listeners,
            },
            http: Http::new(config.http),
            insecure: config.insecure,
            log: config.log.filter,
            log_format: config.log.format.map(|format| match format {
                LogFormat::Human => "human",
                LogFormat::Json => "json",
            }),
            unknown_variables: config.unknown_variables.iter().map(ToString::to_string).collect(),
        })
    }

    /// For people: a line for each thing, its name in front.
    fn lines(&self) -> Vec<String> {
        let line = |name: &str, text: &str| format!("{name:<10} {text}");
        let file = self.file.as_deref();
        let migrations = if self.migrate {
            "pending migrations are run"
        } else {
            "pending migrations are left alone"
        };
        let database = match &self.database {
            Database::Url { url } => url.clone(),
            Database::Managed { data_dir, .. } => format!("a server of its own, in {data_dir}"),
        };
        let api = match (self.api.require_key, self.insecure) {
            (true, _) => "asks for a key",
            (false, false) => "asks for no key",
            (false, true) => "asks for no key, even of strangers (insecure)",
        };
        let mut lines = vec![
            line("file", file.unwrap_or("none")),
            line("listen", &self.listen),
            line(
                "database",
                &format!(
                    "{database}; {migrations}; at most {} connections for questions",
                    self.database_connections
                ),
            ),
            line("api", &format!("{api}; at most {} listen and wait", self.api.max_listeners)),
            line(
                "delivery",
                &format!(
                    "at most {} bytes; times without a zone are in {}",
                    self.max_delivery_bytes, self.provider_time_zone
                ),
            ),
        ];
        let Ingest { writers, batch, queue } = self.ingest;
        lines.push(line(
            "ingest",
            &format!(
                "writers {writers}; each commits up to {batch} deliveries at once and lets {queue} wait"
            ),
        ));
        let Quarantine { max_entries, max_bytes, max_age } = &self.quarantine;
        let quarantine = format!("at most {max_entries} entries, {max_bytes} bytes, for {max_age}");
        lines.push(line("quarantine", &quarantine));
        let Retention { payloads, calls } = &self.retention;
        lines.push(line("retention", &format!("payloads {payloads}; calls {calls}")));
        let Metrics { stalled_after } = &self.metrics;
        lines.push(line("metrics", &format!("live calls are stalled after {stalled_after}")));
        lines.extend(self.http.texts().iter().map(|text| line("http", text)));
        lines.extend(self.webhooks.iter().map(|webhook| line("webhook", &webhook.line())));
        let format = self.log_format.unwrap_or("human on a terminal, json elsewhere");
        lines.push(line("log", &format!("{}; {format}", self.log)));
        lines.extend(self.unknown_variables.iter().map(|unknown| line("warning", unknown)));
        lines
    }
}

impl Http {
    fn new(settings: server::HttpSettings) -> Self {
        Self {
            max_connections: settings.max_connections,
            max_unauthenticated_bytes: settings.max_unauthenticated_bytes,
            read_timeout: span(settings.read_timeout),
            answer_timeout: span(settings.answer_timeout),
            idle_timeout: span(settings.idle_timeout),
            hosts: settings.hosts,
            cors_origins: settings.cors_origins,
            trusted_proxies: settings.trusted_proxies.iter().map(ToString::to_string).collect(),
        }
    }

    fn texts(&self) -> Vec<String> {
        let named = |names: &[String], none: &str| match names {
            [] => none.to_owned(),
            names => names.join(", "),
        };
        let Self {
            max_connections,
            max_unauthenticated_bytes,
            read_timeout,
            answer_timeout,
            idle_timeout,
            ..
        } = self;
        let hosts = match self.hosts.as_deref() {
            None => "any name".to_owned(),
            Some([]) => "localhost".to_owned(),
            Some(hosts) => format!("localhost, {}", hosts.join(", ")),
        };
        vec![
            format!(
                "at most {max_connections} connections, {max_unauthenticated_bytes} bytes of unauthenticated bodies; {read_timeout} to read, {answer_timeout} to answer, {idle_timeout} idle"
            ),
            format!(
                "without a key asked as {hosts}; pages of {} may ask; {} trusted to tell whose request it is",
                named(&self.cors_origins, "no other origin"),
                named(&self.trusted_proxies, "no proxy"),
            ),
        ]
    }
}

impl Webhook {
    fn new((name, endpoint): (String, Endpoint)) -> Self {
        let mut webhook = Self {
            path: if name == DEFAULT_ENDPOINT {
                "/webhooks".to_owned()
            } else {
                format!("/webhooks/{name}")
            },
            name,
            auth: endpoint.auth.name(),
            tokens: None,
            public_keys: None,
            timestamp_tolerance: None,
            default_project: endpoint.default_project,
            projects: endpoint.projects.map(|projects| projects.into_iter().collect()),
        };
        match endpoint.auth {
            Auth::None => {}
            Auth::Bearer { tokens } => webhook.tokens = Some(tokens.len()),
            Auth::RsaSha256 { public_keys, timestamp_tolerance } => {
                webhook.public_keys = Some(public_keys.len());
                webhook.timestamp_tolerance = Some(span(timestamp_tolerance));
            }
        }
        webhook
    }

    fn line(&self) -> String {
        let projects = self.projects.as_ref().map_or_else(
            || "all projects".to_owned(),
            |projects| counted(projects.len(), "project"),
        );
        let parts = [
            Some(format!("POST {}: auth {}", self.path, self.auth)),
            self.tokens.map(|number| counted(number, "token")),
            self.public_keys.map(|number| counted(number, "public key")),
            self.timestamp_tolerance.as_ref().map(|tolerance| format!("times within {tolerance}")),
            Some(projects),
            Some(&self.default_project)
                .filter(|project| **project != ProjectId::unnamed())
                .map(|project| format!("project {project} where none is named")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// A span of time as it is written in the configuration. Whole days are days: a
/// month has no whole number of them.
fn span(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match duration.as_secs() {
        seconds
            if seconds >= DAY && seconds.is_multiple_of(DAY) && duration.subsec_nanos() == 0 =>
        {
            format!("{}d", seconds / DAY)
        }
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// How long something is kept.
fn kept(period: Option<Duration>) -> String {
    period.map_or_else(|| "forever".to_owned(), span)
}

fn counted(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

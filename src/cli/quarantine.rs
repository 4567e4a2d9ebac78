//! `callstate quarantine list | show | replay | drop`: deliveries that could not be
//! understood.
//!
//! They work on the database itself, whether the service runs or not. A replay
//! reads the configuration for what the service would ask of it: whether the
//! entry's endpoint is still there and takes the project, and the time zone of the
//! `Time:` lines.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use uuid::Uuid;

use crate::call::CallKey;
use crate::config::Config;
use crate::database::Database;
use crate::http::routes::quarantine::{EntryDocument, WholeEntryDocument};
use crate::http::routes::webhooks::DeliveryResult;
use crate::http::routes::webhooks::endpoints::Endpoints;
use crate::http::routes::webhooks::metrics::DeliveryMetrics;
use crate::ingest::quarantine::ReplayError;
use crate::ingest::{Ingest, Quarantine, Settings};
use crate::managed_postgres::Claim;
use crate::store::quarantine::{Entry, by_id, count, newest, oldest, remove};
use crate::store::write::{RecordResult, Recorded};
use crate::telemetry;

use super::failure::Failure;
use super::output::{self, Format};
use super::progress::Progress;
use super::reload;

/// How many entries are read at a time.
const PAGE: u16 = 500;

/// The most bytes of a corrected body: those of the largest delivery that can be configured.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// After how many entries a plain line tells of the progress where there is no
/// terminal.
const PLAIN_LINE_EVERY: u64 = 1000;

/// What is done with the quarantine.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the entries, the newest first
    List(ListOptions),
    /// Print an entry with the headers that were kept and its body
    Show(ShowOptions),
    /// Read entries again and store their events, with the time at which they were first received
    Replay(ReplayOptions),
    /// Delete entries for good, without a replay
    Drop(DropOptions),
}

impl Command {
    /// Whether it stores deliveries, as the endpoints do.
    pub(super) fn stores_deliveries(&self) -> bool {
        match self {
            Self::Replay(_) => true,
            Self::List(_) | Self::Show(_) | Self::Drop(_) => false,
        }
    }
}

/// The options of `quarantine list`.
#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// How to print the entries
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The options of `quarantine show`.
#[derive(Debug, Args)]
pub(super) struct ShowOptions {
    /// The id of the entry
    #[arg(value_parser = super::uuid)]
    id: Uuid,
    /// How to print the entry
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The options of `quarantine replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayOptions {
    /// The ids of the entries
    #[arg(required_unless_present = "all", value_name = "ID", value_parser = super::uuid)]
    ids: Vec<Uuid>,
    /// Replay all entries, the oldest first
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// A corrected body to replay in place of that of the entry, or - for standard input; for one entry
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    body: Option<PathBuf>,
    /// How to print what became of them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The options of `quarantine drop`.
#[derive(Debug, Args)]
pub(super) struct DropOptions {
    /// The ids of the entries
    #[arg(required = true, value_name = "ID", value_parser = super::uuid)]
    ids: Vec<Uuid>,
    /// How to print what was deleted
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// An entry with its headers, for `--format json`.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    entry: WholeEntryDocument,
    headers: serde_json::Value,
}

/// What became of the entries, for `--format json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    replayed: Vec<Replayed>,
    stay: Vec<Stay>,
}

#[derive(Debug, Serialize)]
struct Replayed {
    id: Uuid,
    #[serde(flatten)]
    taken: DeliveryResult,
}

#[derive(Debug, Serialize)]
struct Stay {
    id: Uuid,
    reason: String,
}

/// Does what was asked for, on a database that is opened for it.
pub(super) async fn run(command: Command, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let corrected = match &command {
        Command::Replay(options) => corrected(options)?,
        Command::List(_) | Command::Show(_) | Command::Drop(_) => None,
    };
    let database = Database::open(&config, Claim::Join).await?;
    let outcome = match command {
        Command::List(options) => list(&database, options.format).await,
        Command::Show(options) => show(&database, options).await,
        Command::Replay(options) => replay(&database, &config, options, corrected).await,
        Command::Drop(options) => drop_some(&database, options).await,
    };
    let closed = database.close().await;
    outcome?;
    Ok(closed?)
}

async fn list(database: &Database, format: Format) -> Result<(), Failure> {
    let mut after = None;
    let mut entries = Vec::new();
    loop {
        let page = newest(database.pool(), after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.place);
        match format {
            Format::Text => page.iter().try_for_each(|entry| output::line(&line(entry)))?,
            Format::Json => entries.extend(page.into_iter().map(EntryDocument::from)),
        }
    }
    match format {
        Format::Text if after.is_none() => output::line("there are no entries"),
        Format::Text => Ok(()),
        Format::Json => output::json(&serde_json::json!({ "quarantine": entries })),
    }
}

fn line(entry: &Entry) -> String {
    let Entry { place, reason, endpoint, count, size, .. } = entry;
    let at = place.first_received_at.format("%FT%TZ");
    format!("{}  {at}  {count}×  {size} bytes  {endpoint}: {reason}", place.id)
}

async fn show(database: &Database, options: ShowOptions) -> Result<(), Failure> {
    let found = by_id(database.pool(), options.id).await?;
    let found = found.ok_or_else(|| no_such_entry(options.id))?;
    match options.format {
        Format::Json => {
            let headers = found.headers.clone();
            output::json(&Shown { entry: found.into(), headers })
        }
        Format::Text => {
            output::line(&line(&found.entry))?;
            for (name, value) in found.headers.as_object().into_iter().flatten() {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                output::line(&format!("{name}: {value}").replace(is_unprintable, "\u{fffd}"))?;
            }
            output::line("")?;
            // A body that is no text would be garbled, or do things to a terminal.
            output::line(&String::from_utf8_lossy(&found.body).replace(is_unprintable, "\u{fffd}"))
        }
    }
}

fn is_unprintable(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t')
}

fn no_such_entry(id: Uuid) -> Failure {
    Failure::new(format!("there is no entry {id} in the quarantine"))
}

/// Deletes each entry that is there, and then fails if another is not.
async fn drop_some(database: &Database, options: DropOptions) -> Result<(), Failure> {
    let (mut dropped, mut missing) = (Vec::new(), Vec::new());
    for id in options.ids {
        if remove(database.pool(), id).await? {
            if options.format == Format::Text {
                output::line(&format!("{id} dropped"))?;
            }
            dropped.push(id);
        } else {
            missing.push(id);
        }
    }
    if options.format == Format::Json {
        output::json(&serde_json::json!({ "dropped": dropped }))?;
    }
    match missing.as_slice() {
        [] => Ok(()),
        [id] => Err(no_such_entry(*id)),
        several => {
            let ids: Vec<String> = several.iter().map(Uuid::to_string).collect();
            let ids = ids.join(", ");
            Err(Failure::new(format!("there are no entries {ids} in the quarantine")))
        }
    }
}

/// The corrected body, if one is given.
fn corrected(options: &ReplayOptions) -> Result<Option<Vec<u8>>, Failure> {
    let Some(path) = &options.body else { return Ok(None) };
    if options.ids.len() != 1 {
        return Err(Failure::Usage("--body: needs exactly one entry".to_owned()));
    }
    let read = || -> io::Result<Vec<u8>> {
        let input: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path)?)
        };
        let mut body = Vec::new();
        input.take(MAX_BODY + 1).read_to_end(&mut body)?;
        Ok(body)
    };
    let body = read().map_err(|source| Failure::new(Unread { file: path.clone(), source }))?;
    if body.len() as u64 > MAX_BODY {
        let path = path.display();
        return Err(Failure::new(format!("{path} is larger than {MAX_BODY} bytes")));
    }
    Ok(Some(body))
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", .file.display())]
struct Unread {
    file: PathBuf,
    source: io::Error,
}

async fn replay(
    database: &Database,
    config: &Config,
    options: ReplayOptions,
    corrected: Option<Vec<u8>>,
) -> Result<(), Failure> {
    // One entry after the other.
    let settings = Settings { writers: 1, batch: 1, queue: 1 };
    let (ingest, writers) = Ingest::start(settings, &database.pool().connect_options());
    let replay = Replay {
        database,
        quarantine: Quarantine::new(database.pool().clone(), config.quarantine),
        endpoints: reload::endpoints(config, DeliveryMetrics::default()),
        ingest,
        corrected,
        format: options.format,
    };
    let outcome = if options.all { replay.all().await } else { replay.some(&options.ids).await };
    drop(replay);
    writers.finish().await;
    let report = outcome?;
    let (replayed, remaining) = (report.replayed.len(), report.stay.len());
    match options.format {
        Format::Json => output::json(&report)?,
        Format::Text => {
            output::line(&format!("{replayed} replayed, {remaining} remain in quarantine"))?;
        }
    }
    if remaining == 0 { Ok(()) } else { Err(Failure::Told) }
}

/// All that a replay works with.
struct Replay<'a> {
    database: &'a Database,
    quarantine: Quarantine,
    endpoints: Endpoints,
    ingest: Ingest,
    /// The body in place of that of the one entry.
    corrected: Option<Vec<u8>>,
    format: Format,
}

impl Replay<'_> {
    async fn some(&self, ids: &[Uuid]) -> Result<Report, Failure> {
        let progress = Progress::start(ids.len() as u64, "entries", PLAIN_LINE_EVERY);
        let mut report = Report::default();
        for id in ids {
            if !self.one(*id, &mut report, &progress).await? {
                return Err(no_such_entry(*id));
            }
        }
        progress.finish();
        Ok(report)
    }

    /// The oldest first, which is the order in which calls grow.
    async fn all(&self) -> Result<Report, Failure> {
        let pool = self.database.pool();
        let progress = Progress::start(count(pool).await?, "entries", PLAIN_LINE_EVERY);
        let mut report = Report::default();
        let mut after = None;
        loop {
            let page = oldest(pool, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for place in page {
                // Where it is gone, somebody else has taken it in.
                self.one(place.id, &mut report, &progress).await?;
            }
        }
        progress.finish();
        Ok(report)
    }

    /// Takes one entry in and notes what became of it; tells whether it was there.
    async fn one(
        &self,
        id: Uuid,
        report: &mut Report,
        progress: &Progress,
    ) -> Result<bool, Failure> {
        let endpoint_of = |name: &str| self.endpoints.for_replay(name);
        let corrected = self.corrected.as_deref();
        let replayed = self.quarantine.replay(id, &self.ingest, endpoint_of, corrected);
        let said = match replayed.await {
            Ok((key, recorded)) => {
                let said = outcome_line(id, &key, &recorded);
                report.replayed.push(Replayed { id, taken: DeliveryResult::new(key, recorded) });
                said
            }
            Err(ReplayError::NotFound) => return Ok(false),
            // Not for what is in it, so the others would fare no better.
            Err(ReplayError::Ingest(error)) if !error.is_permanent() => {
                return Err(Failure::new(error));
            }
            Err(
                error @ (ReplayError::Unreadable(_)
                | ReplayError::Undecodable(_)
                | ReplayError::NotAccepted(_)
                | ReplayError::Ingest(_)),
            ) => {
                let reason = error.to_string();
                let said = format!("{id} stays: {reason}");
                report.stay.push(Stay { id, reason });
                said
            }
            Err(ReplayError::Store(error)) => return Err(error.into()),
        };
        if self.format == Format::Text {
            progress.line(&said)?;
        }
        progress.advance(1);
        Ok(true)
    }
}

fn outcome_line(id: Uuid, key: &CallKey, recorded: &Recorded) -> String {
    match recorded.result {
        RecordResult::Stored(disposition, status) => {
            format!("{id} replayed: {disposition}, {key} is {status}")
        }
        RecordResult::Duplicate(status) => {
            format!("{id} replayed: duplicate, {key} is {status}")
        }
        RecordResult::Erased => format!("{id} dropped: {key} was erased"),
    }
}

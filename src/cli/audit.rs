//! `callstate verify` and `callstate rebuild`: stored calls against the fold of their events.

use std::fmt;

use clap::Args;
use serde::Serialize;
use sqlx::PgConnection;

use crate::call::Delivery;
use crate::config::Config;
use crate::database::Database;
use crate::managed_postgres::Claim;
use crate::recho::{self, ProviderTimeZone, Receipt};
use crate::store::calls::row::CallName;
use crate::store::connection::estimate_rows;
use crate::store::verify::{self, Difference, Findings};
use crate::store::write::{
    refold,
    reread::{LeftEvent, RereadPage, StoredPayload, reread},
};
use crate::telemetry;

use super::failure::Failure;
use super::output::{self, Format};
use super::progress::Progress;

/// How many calls are folded at a time.
const BATCH: u16 = 1000;

/// After how many calls a plain line tells of the progress where there is no
/// terminal.
const PLAIN_LINE_EVERY: u64 = 100_000;

/// How many differences are kept for `--format json`; all are counted. As lines
/// for people they are told as they are found.
const MOST_DIFFERENCES: usize = 1000;

/// The most events that are named which `--from-payloads` left as they are; all are
/// counted.
const MOST_LEFT_EVENTS: usize = 1000;

/// The options of `verify` and `rebuild`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The options of `rebuild`.
#[derive(Debug, Args)]
pub(super) struct RebuildOptions {
    #[command(flatten)]
    common: Options,
    /// First read the stored payloads again, with the present configuration and software, and correct the events
    #[arg(long)]
    from_payloads: bool,
}

/// What is done with a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It is printed.
    Verify,
    /// It is printed, and the fold is written.
    Rebuild,
}

/// What was looked at, for `--format json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    calls: usize,
    events: usize,
    /// How many differences there are.
    difference_count: usize,
    /// The first of them, [`MOST_DIFFERENCES`] at the most.
    differences: Vec<DifferenceDocument>,
    /// How many of them are not among the first.
    differences_left_out: usize,
    rebuilt: usize,
    not_rebuilt: usize,
    /// The result of `--from-payloads`.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_payloads: Option<RereadReport>,
}

/// The result of reading the stored payloads again.
#[derive(Debug, Default, Serialize)]
struct RereadReport {
    /// The number of events whose payloads were read.
    events: usize,
    corrected: usize,
    /// The number of events that were left as they are.
    left_count: usize,
    /// The first of them, at most [`MOST_LEFT_EVENTS`].
    left: Vec<LeftDocument>,
}

#[derive(Debug, Serialize)]
struct LeftDocument {
    project_id: Option<String>,
    call_id: Option<String>,
    fingerprint: Option<String>,
    problem: String,
}

impl From<LeftEvent> for LeftDocument {
    fn from(LeftEvent { call, event, problem }: LeftEvent) -> Self {
        Self {
            project_id: call.as_ref().map(|key| key.project_id.to_string()),
            call_id: call.as_ref().map(|key| key.call_id.to_string()),
            fingerprint: event.map(|event| event.to_string()),
            problem,
        }
    }
}

impl fmt::Display for LeftDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown = |name: &Option<String>| name.clone().unwrap_or_else(|| "?".to_owned());
        let Self { project_id, call_id, fingerprint, problem } = self;
        let (project, call) = (or_unknown(project_id), or_unknown(call_id));
        write!(f, "{project}/{call}, event {}: left as it is, {problem}", or_unknown(fingerprint))
    }
}

#[derive(Debug, Serialize)]
struct DifferenceDocument {
    project_id: Option<String>,
    call_id: Option<String>,
    call_number: i64,
    fingerprint: Option<String>,
    field: String,
    stored: String,
    folded: Option<String>,
}

impl From<&Difference> for DifferenceDocument {
    fn from(difference: &Difference) -> Self {
        let Difference { call, call_number, event, field, stored, folded } = difference;
        let key = call.as_ref().map(|call| &call.key);
        Self {
            project_id: key.map(|key| key.project_id.to_string()),
            call_id: key.map(|key| key.call_id.to_string()),
            call_number: *call_number,
            fingerprint: event.map(|event| event.to_string()),
            field: field.clone(),
            stored: stored.clone(),
            folded: folded.clone(),
        }
    }
}

/// Folds every call again and prints each difference.
pub(super) async fn verify(options: Options, config: Config) -> Result<(), Failure> {
    run(options.format, Purpose::Verify, false, config).await
}

/// Folds every call again, prints each difference, and writes the fold.
pub(super) async fn rebuild(options: RebuildOptions, config: Config) -> Result<(), Failure> {
    let RebuildOptions { common, from_payloads } = options;
    run(common.format, Purpose::Rebuild, from_payloads, config).await
}

async fn run(
    format: Format,
    purpose: Purpose,
    from_payloads: bool,
    config: Config,
) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let database = Database::open(&config, Claim::Join).await?;
    let time_zone = from_payloads.then_some(config.provider_time_zone);
    let outcome = walk(&database, format, purpose, time_zone).await;
    let closed = database.close().await;
    let report = outcome?;
    closed?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Text => output::line(&summary(&report, purpose))?,
    }
    match purpose {
        Purpose::Verify if report.difference_count > 0 => Err(Failure::Told),
        Purpose::Rebuild if report.not_rebuilt > 0 => Err(Failure::Told),
        Purpose::Verify | Purpose::Rebuild => Ok(()),
    }
}

fn summary(report: &Report, purpose: Purpose) -> String {
    let Report { calls, events, difference_count, rebuilt, not_rebuilt, .. } = report;
    let found = match difference_count {
        0 => "no difference".to_owned(),
        1 => "1 difference".to_owned(),
        several => format!("{several} differences"),
    };
    let folded = format!("folded {events} events of {calls} calls: {found}");
    let noun = if *rebuilt == 1 { "call" } else { "calls" };
    match purpose {
        Purpose::Verify => folded,
        Purpose::Rebuild if *not_rebuilt == 0 => format!("{folded}, {rebuilt} {noun} rebuilt"),
        Purpose::Rebuild => format!(
            "{folded}, {rebuilt} {noun} rebuilt, {not_rebuilt} not: an event of each is invalid, or the row of the call is missing"
        ),
    }
}

/// Reads the payloads again where a time zone is given, then folds all calls.
async fn walk(
    database: &Database,
    format: Format,
    purpose: Purpose,
    time_zone: Option<ProviderTimeZone>,
) -> Result<Report, Failure> {
    let mut connection = database.pool().acquire().await.map_err(Failure::new)?;
    let mut report = Report::default();
    if let Some(time_zone) = time_zone {
        report.from_payloads = Some(reread_payloads(&mut connection, format, time_zone).await?);
    }
    let calls = estimate_rows(&mut *connection, "calls").await?;
    let progress = Progress::start(calls, "calls", PLAIN_LINE_EVERY);
    let mut after = None;
    loop {
        let found = verify::check(&mut connection, after, BATCH).await?;
        progress.advance(found.calls as u64);
        note(&mut report, &found, format, &progress)?;
        if purpose == Purpose::Rebuild {
            write_folds(&mut connection, &found, &mut report).await?;
        }
        match found.last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    progress.finish();
    Ok(report)
}

/// Reads all stored payloads again and corrects the events.
async fn reread_payloads(
    connection: &mut PgConnection,
    format: Format,
    time_zone: ProviderTimeZone,
) -> Result<RereadReport, Failure> {
    let events = estimate_rows(&mut *connection, "events").await?;
    let progress = Progress::start(events, "events", PLAIN_LINE_EVERY);
    let mut report = RereadReport::default();
    let mut after = None;
    loop {
        let read = |payload: StoredPayload<'_>| read_again(payload, time_zone);
        let RereadPage { events, corrected, left, last } =
            reread(connection, after.as_ref(), read).await?;
        progress.advance(events as u64);
        report.events += events;
        report.corrected += corrected;
        report.left_count += left.len();
        for event in left {
            if report.left.len() == MOST_LEFT_EVENTS {
                break;
            }
            let event = LeftDocument::from(event);
            if format == Format::Text {
                progress.line(&event.to_string())?;
            }
            report.left.push(event);
        }
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    progress.finish();
    if format == Format::Text {
        let RereadReport { events, corrected, left_count, .. } = &report;
        output::line(&format!(
            "read {events} payloads again: {corrected} events corrected, {left_count} left as they are"
        ))?;
    }
    Ok(report)
}

/// Reads a stored payload as a delivery that arrives now is read. A payload that names
/// no project belongs to the project of its call.
fn read_again(payload: StoredPayload<'_>, time_zone: ProviderTimeZone) -> Result<Delivery, String> {
    let StoredPayload { key, endpoint, received_at, body } = payload;
    let receipt = Receipt { endpoint, received_at, time_zone, default_project: &key.project_id };
    let reading = recho::read(body.as_bytes(), receipt).map_err(|error| error.to_string())?;
    Ok(reading.delivery)
}

/// Adds what was found to the report, as far as it has room, or tells it at once
/// where people read.
fn note(
    report: &mut Report,
    found: &Findings,
    format: Format,
    progress: &Progress,
) -> Result<(), Failure> {
    report.calls += found.calls;
    report.events += found.events;
    report.difference_count += found.differences.len();
    for difference in &found.differences {
        match format {
            Format::Text => progress.line(&difference.to_string())?,
            Format::Json if report.differences.len() < MOST_DIFFERENCES => {
                report.differences.push(difference.into());
            }
            Format::Json => report.differences_left_out += 1,
        }
    }
    Ok(())
}

/// Writes the fold of each call that differs and can be folded.
async fn write_folds(
    connection: &mut PgConnection,
    found: &Findings,
    report: &mut Report,
) -> Result<(), Failure> {
    // A call that cannot be folded has this one difference, which says so.
    let (foldable, others): (Vec<&Difference>, Vec<&Difference>) =
        found.differences.iter().partition(|difference| difference.folded.is_some());
    let mut calls: Vec<CallName> = foldable.into_iter().filter_map(|it| it.call.clone()).collect();
    calls.dedup();
    refold(connection, &calls).await?;
    report.rebuilt += calls.len();
    report.not_rebuilt += others.len();
    Ok(())
}

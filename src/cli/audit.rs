//! `callstate verify` and `callstate rebuild`: stored calls against the fold of their events.

use clap::Args;
use serde::Serialize;
use sqlx::PgConnection;

use crate::config::Config;
use crate::database::Database;
use crate::managed_postgres::Claim;
use crate::store::calls::row::CallName;
use crate::store::verify::{self, Difference, Findings};
use crate::store::write::refold;
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

/// The options of `verify` and `rebuild`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is done with a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is told.
    Verify,
    /// It is told, and the fold is written.
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

/// Folds every call again and tells each difference; rebuilds, if that is the
/// purpose. A difference that stays fails the command.
pub(super) async fn run(options: Options, purpose: Purpose, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let database = Database::open(&config, Claim::Join).await?;
    let outcome = walk(&database, options.format, purpose).await;
    let closed = database.close().await;
    let report = outcome?;
    closed?;
    match options.format {
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
    let looked = format!("folded {events} events of {calls} calls: {found}");
    let noun = if *rebuilt == 1 { "call" } else { "calls" };
    match purpose {
        Purpose::Verify => looked,
        Purpose::Rebuild if *not_rebuilt == 0 => format!("{looked}, {rebuilt} {noun} rebuilt"),
        Purpose::Rebuild => format!(
            "{looked}, {rebuilt} {noun} rebuilt, {not_rebuilt} not: an event of each is invalid, or the row of the call is missing"
        ),
    }
}

async fn walk(database: &Database, format: Format, purpose: Purpose) -> Result<Report, Failure> {
    let mut connection = database.pool().acquire().await.map_err(Failure::new)?;
    let calls = verify::estimate(&mut connection).await?;
    let progress = Progress::start(calls, "calls", PLAIN_LINE_EVERY);
    let mut report = Report::default();
    let mut after = None;
    loop {
        let found = verify::check(&mut connection, after, BATCH).await?;
        progress.advance(found.calls as u64);
        note(&mut report, &found, format, &progress)?;
        if purpose == Purpose::Rebuild {
            rebuild(&mut connection, &found, &mut report).await?;
        }
        match found.last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    progress.finish();
    Ok(report)
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
async fn rebuild(
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

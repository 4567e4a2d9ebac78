//! `callstate prune`: removes payloads and calls that are older than configured.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use sqlx::PgConnection;

use crate::clock::Clock;
use crate::config::Config;
use crate::database::Database;
use crate::ingest::retention::{older_than, trusted_time};
use crate::managed_postgres::Claim;
use crate::store::retention::{Purpose, estimate, prune_calls_after, remove_payloads_after};
use crate::telemetry;

use super::failure::Failure;
use super::output::{self, Format};
use super::progress::Progress;

/// After how many events a plain line reports the progress where there is no terminal.
const PLAIN_LINE_EVERY: u64 = 1_000_000;

/// The options of `prune`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Count what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print what was removed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What was removed, for `--format json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    /// Payloads that were removed.
    payloads: u64,
    /// Calls that were pruned with their events.
    calls: u64,
}

/// Removes or counts what is older than configured.
pub(super) async fn run(options: Options, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let database = Database::open(&config, Claim::Join).await?;
    let pruned = prune(&database, &config, options.dry_run).await;
    let closed = database.close().await;
    let report = pruned?;
    closed?;
    match options.format {
        Format::Json => output::json(&report),
        Format::Text => output::line(&summary(&report, &config)),
    }
}

fn summary(report: &Report, config: &Config) -> String {
    if config.retention == crate::config::Retention::default() {
        return "retention.payloads and retention.calls are forever: nothing is old".to_owned();
    }
    let Report { dry_run, payloads, calls } = report;
    let would = if *dry_run { "would be " } else { "" };
    format!("{payloads} payloads {would}removed, {calls} calls {would}pruned")
}

async fn prune(database: &Database, config: &Config, dry_run: bool) -> Result<Report, Failure> {
    let mut report = Report { dry_run, ..Report::default() };
    let now = trusted_time(database.pool(), &Clock::system()).await.map_err(Failure::new)?;
    let purpose = if dry_run { Purpose::Count } else { Purpose::Remove };
    let mut connection = database.pool().acquire().await.map_err(Failure::new)?;
    // Payloads first, so that a dry run counts what a run removes.
    if let Some(period) = config.retention.payloads {
        report.payloads = remove_payloads(&mut connection, now, period, purpose).await?;
    }
    if let Some(period) = config.retention.calls {
        report.calls = prune_calls(&mut connection, now, period, purpose).await?;
    }
    Ok(report)
}

async fn prune_calls(
    connection: &mut PgConnection,
    now: DateTime<Utc>,
    period: Duration,
    purpose: Purpose,
) -> Result<u64, Failure> {
    let progress =
        Progress::start(estimate(&mut *connection).await?, "events examined", PLAIN_LINE_EVERY);
    let (mut calls, mut after) = (0, None);
    loop {
        let batch = prune_calls_after(connection, after, older_than(now, period), purpose).await?;
        calls += batch.calls;
        progress.advance(batch.examined);
        match batch.last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    progress.finish();
    Ok(calls)
}

async fn remove_payloads(
    connection: &mut PgConnection,
    now: DateTime<Utc>,
    period: Duration,
    purpose: Purpose,
) -> Result<u64, Failure> {
    let progress =
        Progress::start(estimate(&mut *connection).await?, "events examined", PLAIN_LINE_EVERY);
    let (mut payloads, mut position) = (0, 0);
    let received_before = older_than(now, period);
    loop {
        let batch =
            remove_payloads_after(connection, position, received_before, now, purpose).await?;
        payloads += batch.removed;
        progress.advance(batch.examined);
        position = batch.position;
        if !batch.has_more {
            break;
        }
    }
    progress.finish();
    Ok(payloads)
}

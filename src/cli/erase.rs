//! `callstate erase`: erases a call, or all calls of a client.

use clap::Args;
use serde::Serialize;

use crate::access::Projects;
use crate::call::{CallId, CallKey, ClientId, ProjectId};
use crate::clock::Clock;
use crate::config::Config;
use crate::database::Database;
use crate::ingest::erasure::{self, ErasureRequest};
use crate::managed_postgres::Claim;
use crate::recho::identifier::project_id;
use crate::store::erasure::{Erased, calls_of_id};
use crate::telemetry;

use super::failure::Failure;
use super::output::{self, Format};
use super::progress::Progress;

/// After how many calls a plain line reports the progress where there is no terminal.
const PLAIN_LINE_EVERY: u64 = 1000;

/// The options of `erase`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Erase the call of this id
    #[arg(long, value_name = "ID", value_parser = call, required_unless_present = "client", conflicts_with = "client")]
    call: Option<CallId>,
    /// Erase all calls of the client of this id, those that are still to be delivered too
    #[arg(long, value_name = "ID", value_parser = client)]
    client: Option<ClientId>,
    /// Only in this project
    #[arg(long, value_name = "ID", value_parser = project)]
    project: Option<ProjectId>,
    /// How to print what was erased
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn call(text: &str) -> Result<CallId, String> {
    CallId::new(text).map_err(|error| error.to_string())
}

fn client(text: &str) -> Result<ClientId, String> {
    ClientId::new(text).map_err(|error| error.to_string())
}

fn project(text: &str) -> Result<ProjectId, String> {
    project_id(text).map_err(|error| error.to_string())
}

/// What was erased, for `--format json`.
#[derive(Debug, Serialize)]
struct Report {
    calls: u64,
    events: u64,
    quarantine_entries: u64,
}

/// Erases what the options name.
pub(super) async fn run(options: Options, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let database = Database::open(&config, Claim::Join).await?;
    let erased = erase(&database, &options).await;
    let closed = database.close().await;
    let Erased { calls, events, quarantine_entries } = erased?;
    closed?;
    match options.format {
        Format::Json => output::json(&Report { calls, events, quarantine_entries }),
        Format::Text => output::line(&format!(
            "{calls} calls erased with {events} events, and {quarantine_entries} entries of the quarantine"
        )),
    }
}

async fn erase(database: &Database, options: &Options) -> Result<Erased, Failure> {
    let request = ErasureRequest { api_key: None, now: Clock::system().now() };
    let projects = Projects::All.among(options.project.as_ref());
    match (&options.call, &options.client) {
        (Some(call_id), _) => erase_call(database, call_id, &projects, request).await,
        (None, Some(client_id)) => erase_client(database, client_id, &projects, request).await,
        (None, None) => Ok(Erased::default()),
    }
}

async fn erase_call(
    database: &Database,
    call_id: &CallId,
    projects: &Projects,
    request: ErasureRequest,
) -> Result<Erased, Failure> {
    let keys: Vec<CallKey> = calls_of_id(database.pool(), call_id, projects).await?;
    match keys.as_slice() {
        [] => Ok(Erased::default()),
        [key] => Ok(erasure::of_call(database.pool(), key, request).await?),
        several => {
            let ids: Vec<&str> = several.iter().map(|key| key.project_id.as_str()).collect();
            let ids = ids.join(", ");
            Err(Failure::Usage(format!("--call: is in the projects {ids}; --project names one")))
        }
    }
}

async fn erase_client(
    database: &Database,
    client_id: &ClientId,
    projects: &Projects,
    request: ErasureRequest,
) -> Result<Erased, Failure> {
    let progress = Progress::start(0, "calls", PLAIN_LINE_EVERY);
    let mut erased_before = 0;
    let note = |calls: usize, erased: Erased| {
        progress.expect(calls as u64);
        progress.advance(erased.calls - erased_before);
        erased_before = erased.calls;
    };
    let erased = erasure::of_client(database.pool(), client_id, projects, request, note).await?;
    progress.finish();
    Ok(erased)
}

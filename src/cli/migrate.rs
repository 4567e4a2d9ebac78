//! `callstate migrate`: runs the migrations that the database has not had.

use clap::Args;
use serde::Serialize;
use sqlx::migrate::Migration;

use crate::config::Config;
use crate::database::Database;
use crate::managed_postgres::Claim;
use crate::store::MIGRATOR;
use crate::telemetry;

use super::failure::Failure;
use super::output::{self, Format};

/// The options of `migrate`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How to print what was run
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Applied<'a> {
    version: i64,
    description: &'a str,
}

impl<'a> From<&'a Migration> for Applied<'a> {
    fn from(migration: &'a Migration) -> Self {
        Self { version: migration.version, description: &migration.description }
    }
}

/// Migrates, and prints what was run.
pub(super) async fn run(options: Options, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let database = Database::open(&config, Claim::Join).await?;
    let migrated = database.migrate(&MIGRATOR).await;
    let closed = database.close().await;
    let applied: Vec<Applied<'_>> = migrated?.into_iter().map(Applied::from).collect();
    match options.format {
        Format::Text if applied.is_empty() => output::line("the database is up to date")?,
        Format::Text => {
            for Applied { version, description } in applied {
                output::line(&format!("applied {version} {description}"))?;
            }
        }
        Format::Json => output::json(&serde_json::json!({ "applied": applied }))?,
    }
    Ok(closed?)
}

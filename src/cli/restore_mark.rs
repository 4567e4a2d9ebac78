//! `callstate restore-mark`: gives the change feed of a restored database a new identity.

use clap::Args;
use serde_json::json;

use crate::config::Config;
use crate::database::Database;
use crate::managed_postgres::Claim;
use crate::store::events::feed::{self, FeedPosition};
use crate::telemetry;

use super::failure::Failure;
use super::output::{self, Format};

/// The options of `restore-mark`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How to print the new identity
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Renews the identity of the feed, and prints it with the position of the last event.
pub(super) async fn run(options: Options, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let database = Database::open(&config, Claim::Join).await?;
    let renewed = renew(&database).await;
    let closed = database.close().await;
    let head = renewed?;
    match options.format {
        Format::Text => {
            output::line(&format!("change feed: {:x}", head.feed_id))?;
            output::line(&format!("last position: {}", head.position))?;
        }
        Format::Json => output::json(&json!({
            "feed_id": format!("{:x}", head.feed_id),
            "position": head.position,
        }))?,
    }
    Ok(closed?)
}

async fn renew(database: &Database) -> Result<FeedPosition, Failure> {
    let mut connection = database.pool().acquire().await.map_err(Failure::new)?;
    Ok(feed::renew(&mut connection).await?)
}

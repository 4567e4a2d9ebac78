//! `callstate db-url`: prints the URL of the database in use.
//!
//! It prints the password as well, if there is one: it is meant for
//! `psql "$(callstate db-url)"`. It starts nothing, since a server that it
//! started would be gone before anyone could use the URL.
//!
//! On our own server its role cannot leave the database. What takes more, such
//! as making a role for somebody, is done with the URL of the superuser.

use clap::Args;
use serde::Serialize;

use crate::config::{Config, DatabaseSource};
use crate::database;
use crate::telemetry;

use super::failure::Failure;
use super::output::{self, Format};

/// The options of `db-url`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print that of the superuser, if the server is callstate's own: to make roles and the like, on this machine
    #[arg(long)]
    superuser: bool,
    /// How to print the URL
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Answer {
    url: String,
    /// Whether the server is callstate's own.
    managed: bool,
}

/// Prints the URL.
pub(super) async fn run(options: Options, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let url = if options.superuser {
        database::superuser_url(&config).await?
    } else {
        database::running_url(&config).await?
    };
    let Some(url) = url else {
        return Err(Failure::new(
            "the database is callstate's own and does not run; start it with: callstate serve",
        ));
    };
    match options.format {
        Format::Text => output::line(&url),
        Format::Json => output::json(&Answer {
            url,
            managed: matches!(config.database, DatabaseSource::Managed { .. }),
        }),
    }
}

//! The command line: what is asked for, and how a run ends.
//!
//! | file | command |
//! | --- | --- |
//! | `serve` | the service |
//! | `migrate` | runs the migrations |
//! | `db_url` | prints the URL of the database in use |
//! | `keys` | API keys |
//! | `audit` | `verify` and `rebuild`: the store against the fold |
//! | `export` | writes calls, events, attempts and deliveries to files |
//! | `import` | takes in deliveries from files |
//! | `prune` | removes payloads and calls that are older than configured |
//! | `erase` | erases a call, or all calls of a client |
//! | `simulate` | sends realistic traffic, and checks what became of it |
//! | `quarantine` | `quarantine list`, `show`, `replay` and `drop`: what could not be understood |
//! | `completions` | shell completions |
//! | `state_machine` | prints the state machine's table |
//! | `config` | reads the configuration and says what it would do |
//!
//! Data goes to stdout, everything else to stderr. A failure is one line with
//! its causes and exit status 1; a mistake of configuration or usage has 2.
//! A reader of stdout that went away ends a command quietly.
//!
//! Flags are texts here: they are understood with the rest of the
//! configuration, in [`crate::config`].

mod audit;
mod completions;
mod config;
mod db_url;
mod erase;
mod export;
mod failure;
mod import;
mod keys;
mod migrate;
mod output;
mod progress;
mod prune;
mod quarantine;
mod reload;
mod restore_mark;
mod serve;
mod simulate;
mod state_machine;
mod stop;

use std::process::ExitCode;
use std::{num::NonZeroUsize, path::PathBuf};

use chrono::{DateTime, Utc};
use clap::builder::UnknownArgumentValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use uuid::Uuid;

use crate::config::{Config, Flags, key};

use self::failure::Failure;

/// Takes the webhooks of an AI phone platform, stores every event in Postgres
/// and answers where each call stands.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(flatten)]
    serve: ServeFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take deliveries and answer questions; the command when none is given
    Serve(ServeFlags),
    /// Run the migrations that the database has not had
    Migrate(migrate::Options),
    /// Print the URL of the database in use, for psql and sqlx
    DbUrl(db_url::Options),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Fold every call's events again and report each difference
    Verify(audit::Options),
    /// Write what verify would have found right
    Rebuild(audit::RebuildOptions),
    /// Mark the database as restored from a copy, so that stream clients get a reset
    RestoreMark(restore_mark::Options),
    /// Write calls, events or attempts as a table, or deliveries to be imported
    Export(export::Options),
    /// Import deliveries that were exported
    Import(import::Options),
    /// Remove payloads and calls that are older than configured
    Prune(prune::Options),
    /// Erase a call, or all calls of a client, for good
    Erase(erase::Options),
    /// Send realistic traffic to a running callstate, and check what became of it
    Simulate(Box<simulate::Options>),
    /// List, show, replay and drop the deliveries that could not be understood
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// Print the state machine's table, from the code
    StateMachine(state_machine::Options),
    /// Print completions for a shell
    Completions(completions::Options),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read the configuration and say what it would do
    Check(config::Options),
}

/// What every command may be told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct GlobalFlags {
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "The configuration file [env: CALLSTATE_CONFIG] [default: callstate.toml, if there]"
    )]
    config: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help = "The database to use instead of a server of its own [env: CALLSTATE_DATABASE_URL or DATABASE_URL]"
    )]
    database_url: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help = "Where the server of its own keeps its data [env: CALLSTATE_DATA_DIR]"
    )]
    data_dir: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help = "Where that server's binaries are [env: CALLSTATE_POSTGRES_BIN_DIR]"
    )]
    postgres_bin_dir: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        help = "How log lines are written: human or json [env: CALLSTATE_LOG_FORMAT]"
    )]
    log_format: Option<String>,
}

/// What `serve` may be told.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options of serve")]
struct ServeFlags {
    #[arg(
        long,
        value_name = "ADDRESS",
        help = "The address to listen on; port 0 picks a free one [env: CALLSTATE_LISTEN] [default: 127.0.0.1:8080]"
    )]
    listen: Option<String>,
    /// No option, only a hint to the right one.
    #[arg(
        long,
        hide = true,
        value_parser = UnknownArgumentValueParser::suggest_arg("--listen 127.0.0.1:PORT")
    )]
    port: Option<String>,
    #[arg(long, help = "Leave pending migrations alone [env: CALLSTATE_NO_MIGRATE]")]
    no_migrate: bool,
    #[arg(
        long,
        value_name = "ZONE",
        allow_hyphen_values = true,
        help = "The time zone of the provider's Time: lines, an IANA name or an offset [env: CALLSTATE_PROVIDER_TIME_ZONE] [default: UTC]"
    )]
    provider_time_zone: Option<String>,
    #[arg(long, help = "Ask for an API key [env: CALLSTATE_API_REQUIRE_KEY]")]
    require_key: bool,
    #[arg(
        long,
        help = "Listen where others may reach it even though not everything is guarded [env: CALLSTATE_INSECURE]"
    )]
    insecure: bool,
}

impl GlobalFlags {
    fn into_flags(self) -> Flags {
        let mut flags = Flags::new(self.config);
        flags.set(&key::DATABASE_URL, self.database_url);
        flags.set(&key::DATA_DIR, self.data_dir);
        flags.set(&key::POSTGRES_BIN_DIR, self.postgres_bin_dir);
        flags.set(&key::LOG_FORMAT, self.log_format);
        flags
    }
}

impl ServeFlags {
    fn note(self, flags: &mut Flags) {
        let on = |given: bool| given.then(|| "true".to_owned());
        flags.set(&key::LISTEN, self.listen);
        flags.set(&key::NO_MIGRATE, on(self.no_migrate));
        flags.set(&key::PROVIDER_TIME_ZONE, self.provider_time_zone);
        flags.set(&key::REQUIRE_KEY, on(self.require_key));
        flags.set(&key::INSECURE, on(self.insecure));
    }

    fn are_given(&self) -> bool {
        let Self { listen, port, no_migrate, provider_time_zone, require_key, insecure } = self;
        listen.is_some()
            || port.is_some()
            || provider_time_zone.is_some()
            || *no_migrate
            || *require_key
            || *insecure
    }
}

/// Does what the command line of this process asks for.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::try_parse().and_then(refuse_misplaced);
    let outcome = match cli {
        Ok(cli) => dispatch(cli),
        // Help is one of these: clap knows the stream and the status.
        Err(error) => error.exit(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// The flags of `serve` may stand before it and without it, but not before
/// another command, which would ignore them.
fn refuse_misplaced(cli: Cli) -> Result<Cli, clap::Error> {
    match cli.command {
        None | Some(Command::Serve(_) | Command::Config(_)) => Ok(cli),
        Some(_) if cli.serve.are_given() => Err(Cli::command()
            .error(ErrorKind::ArgumentConflict, "an option of serve was given to another command")),
        Some(_) => Ok(cli),
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let mut flags = cli.global.into_flags();
    cli.serve.note(&mut flags);
    match cli.command.unwrap_or(Command::Serve(ServeFlags::default())) {
        Command::Serve(more) => {
            more.note(&mut flags);
            let config = Config::load(&flags)?;
            block_on(serve::run(config, flags))
        }
        Command::Migrate(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(migrate::run(options, config))
        }
        Command::DbUrl(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(db_url::run(options, config))
        }
        Command::Keys(command) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(keys::run(command, config))
        }
        Command::Verify(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(audit::verify(options, config))
        }
        Command::Rebuild(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(audit::rebuild(options, config))
        }
        Command::RestoreMark(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(restore_mark::run(options, config))
        }
        Command::Export(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(export::run(options, config))
        }
        Command::Import(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(import::run(options, config))
        }
        Command::Prune(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(prune::run(options, config))
        }
        Command::Erase(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(erase::run(options, config))
        }
        Command::Simulate(options) => {
            let config = Config::load_without_endpoints(&flags)?;
            block_on(simulate::run(*options, config))
        }
        Command::Quarantine(command) => {
            let config = if command.stores_deliveries() {
                Config::load(&flags)?
            } else {
                Config::load_without_endpoints(&flags)?
            };
            block_on(quarantine::run(command, config))
        }
        Command::Completions(options) => completions::run(&options, &mut Cli::command()),
        Command::StateMachine(options) => state_machine::run(&options),
        Command::Config(ConfigCommand::Check(options)) => config::check(options, flags),
    }
}

/// A UUID as an option gives it.
fn uuid(text: &str) -> Result<Uuid, String> {
    text.parse()
        .map_err(|_| "is not a UUID, such as 22d6f27c-bfc5-80bb-9f06-e980c1674281".to_owned())
}

/// A time as an option gives it.
fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|_| "is not a time, such as 2026-05-12T10:24:00Z".to_owned())?;
    Ok(time.to_utc())
}

/// Runs a command on half of the processors: Postgres, which does as much of the
/// work, is most often on the same machine. `TOKIO_WORKER_THREADS` says otherwise.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        builder.worker_threads((processors / 2).max(1));
    }
    builder.enable_all().build().map_err(Failure::new)?.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{Cli, refuse_misplaced};

    fn parses(arguments: &str) -> bool {
        let arguments = format!("callstate {arguments}");
        let cli = Cli::try_parse_from(arguments.split_whitespace());
        cli.and_then(refuse_misplaced).is_ok()
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_options_of_serve_stand_with_it_or_without_it() {
        assert!(parses("--listen 127.0.0.1:0"));
        assert!(parses("serve --listen 127.0.0.1:0"));
        assert!(parses("--listen 127.0.0.1:0 serve"));
        assert!(parses("config check --insecure"));
        assert!(!parses("--listen 127.0.0.1:0 migrate"));
        assert!(!parses("migrate --listen 127.0.0.1:0"));
    }

    #[test]
    fn global_options_stand_anywhere() {
        assert!(parses("--data-dir data migrate"));
        assert!(parses("migrate --data-dir data"));
        assert!(parses("config check --config callstate.toml"));
    }
}

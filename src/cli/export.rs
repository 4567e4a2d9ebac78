//! `callstate export`: calls, events and attempts as tables, deliveries as lines
//! that `import` takes.
//!
//! Everything is read of one moment, so a file is consistent whatever the
//! service takes meanwhile. A file has its name when it is whole.

use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use futures_util::{Stream, TryStreamExt as _};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::access::Projects;
use crate::call::ProjectId;
use crate::config::Config;
use crate::database::Database;
use crate::managed_postgres::Claim;
use crate::recho::identifier::project_id;
use crate::store::events::feed::{self, Discontinuity, FeedPosition};
use crate::store::export::{self, Selection};
use crate::store::{self, connection::estimate_rows};
use crate::telemetry;
use crate::transfer::file::NewFile;
use crate::transfer::sheet::Field;
use crate::transfer::writer::{self, Writer};
use crate::transfer::{line, tables};

use super::failure::Failure;
use super::progress::Progress;
use super::stop::Stop;

/// The most errors of a call that go out with it, as many as the API shows: the
/// first. Its events have the rest.
const MAX_ERRORS: u16 = 1000;

/// After how many rows the progress moves on.
const STEP: u64 = 1000;

/// After how many rows a plain line tells of the progress where there is no
/// terminal.
const PLAIN_LINE_EVERY: u64 = 100_000;

/// The options of `export`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// What to export
    what: What,
    /// As what [default: what the name of the file ends with, else jsonl]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// From when on, such as 2026-05-12T00:00:00Z: by the first event of a call, by the receipt of an event
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    from: Option<DateTime<Utc>>,
    /// Until when, that moment not included
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    to: Option<DateTime<Utc>>,
    #[arg(
        long = "project",
        value_name = "PROJECT",
        value_parser = project_id,
        help = "A project to export; may be given several times [default: all projects]"
    )]
    projects: Vec<ProjectId>,
    /// Only calls with an event that was stored after this position of the change feed, which an export of calls prints
    #[arg(long, value_name = "POSITION")]
    changed_after: Option<FeedPosition>,
    /// The file to write, which appears when it is whole [default: standard output, as -]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Calls as they are now, each with its attempts and errors
    Calls,
    /// Events, each with what it did to its call
    Events,
    /// The attempts of the calls, whether they were dialed or not
    Attempts,
    /// Events as they were delivered, for `import`
    Deliveries,
}

/// What it is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Comma-separated values, with a header
    Csv,
    /// A JSON object on each line
    Jsonl,
    /// Typed columns, for DuckDB, pandas and the like
    Parquet,
}

impl What {
    const fn noun(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Events => "events",
            Self::Attempts => "attempts",
            Self::Deliveries => "deliveries",
        }
    }
}

impl From<Format> for writer::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv,
            Format::Jsonl => Self::JsonLines,
            Format::Parquet => Self::Parquet,
        }
    }
}

/// Writes what was asked for, from a database that is opened for it.
pub(super) async fn run(options: Options, config: Config) -> Result<(), Failure> {
    let format = format(&options)?;
    let selection = selection(&options)?;
    telemetry::init(&config.log);
    let stop = Stop::on_signals().map_err(Failure::new)?;
    let output = Output::begin(&options)?;
    let progress_is_hidden = output.is_terminal();
    if progress_is_hidden && format == Format::Parquet {
        return Err(Failure::Usage("Parquet is not for a terminal: say -o FILE".to_owned()));
    }
    let database = tokio::select! {
        opened = Database::open(&config, Claim::Join) => opened?,
        () = stop.requested() => return Err(Failure::new(Error::Interrupted)),
    };
    let exporting = async {
        // One of its own, set to nothing yet; and a statement may take its time here.
        let quiet = PgConnectOptions::clone(&database.pool().connect_options());
        let mut connection =
            quiet.disable_statement_logging().connect().await.map_err(Failure::new)?;
        let progress = if progress_is_hidden {
            Progress::start_hidden(options.what.noun())
        } else {
            progress(&mut connection, options.what, &selection).await?
        };
        let Options { what, changed_after, .. } = options;
        let export = Export { what, format, selection: &selection, changed_after, progress };
        let outcome = export.write(&mut connection, output).await;
        // The server notices a closed socket too; a polite end is but quieter in its log.
        let _ = connection.close().await;
        outcome
    };
    let outcome = tokio::select! {
        outcome = exporting => outcome,
        () = stop.requested() => Err(Failure::new(Error::Interrupted)),
    };
    let closed = database.close().await;
    let Exported { rows, head } = outcome?;
    closed?;
    if !progress_is_hidden {
        eprintln!("{rows} {} exported", options.what.noun());
    }
    if options.what == What::Calls {
        eprintln!("position {head}");
    }
    Ok(())
}

/// The format of `--format`, or of the extension of the file.
fn format(options: &Options) -> Result<Format, Failure> {
    let extension = options.output.as_deref().and_then(Path::extension);
    let of_name = extension.and_then(OsStr::to_str).map(|it| Format::from_str(it, true));
    let given = match (extension, of_name) {
        (_, Some(Ok(format))) => Some(format),
        (Some(extension), _) if options.format.is_none() => {
            let known: Vec<String> = Format::value_variants()
                .iter()
                .filter_map(|format| Some(format!(".{}", format.to_possible_value()?.get_name())))
                .collect();
            return Err(Failure::Usage(format!(
                "--output: .{} is not a known extension ({}); --format names the format",
                extension.display(),
                known.join(", ")
            )));
        }
        _ => None,
    };
    match (options.what, options.format.or(given).unwrap_or(Format::Jsonl)) {
        (What::Deliveries, Format::Csv | Format::Parquet) => Err(Failure::Usage(
            "deliveries are exported as jsonl only, for they are there to be imported".to_owned(),
        )),
        (_, format) => Ok(format),
    }
}

fn selection(options: &Options) -> Result<Selection, Failure> {
    let Options { what, from, to, projects, changed_after, .. } = options;
    if changed_after.is_some() && *what != What::Calls {
        return Err(Failure::Usage("--changed-after: selects calls only".to_owned()));
    }
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(Failure::Usage("--from: must be before --to".to_owned()));
    }
    let projects = match projects.as_slice() {
        [] => Projects::All,
        some => Projects::Only(some.iter().cloned().collect()),
    };
    let changed_after = changed_after.map(|position| position.position);
    Ok(Selection { from: *from, to: *to, projects, changed_after })
}

async fn progress(
    connection: &mut PgConnection,
    what: What,
    selection: &Selection,
) -> Result<Progress, Failure> {
    if !selection.is_all() {
        return Ok(Progress::start_open(what.noun(), PLAIN_LINE_EVERY));
    }
    let length = match what {
        What::Calls => estimate_rows(connection, "calls").await?,
        What::Events | What::Deliveries => estimate_rows(connection, "events").await?,
        What::Attempts => return Ok(Progress::start_open(what.noun(), PLAIN_LINE_EVERY)),
    };
    Ok(Progress::start(length, what.noun(), PLAIN_LINE_EVERY))
}

/// An export, begun.
struct Export<'a> {
    what: What,
    format: Format,
    selection: &'a Selection,
    changed_after: Option<FeedPosition>,
    progress: Progress,
}

/// What was exported.
struct Exported {
    rows: u64,
    /// The end of the feed in the snapshot that was read.
    head: FeedPosition,
}

impl Export<'_> {
    /// Writes the rows of one snapshot.
    async fn write(
        self,
        connection: &mut PgConnection,
        output: Output,
    ) -> Result<Exported, Failure> {
        let tx = &mut *export::snapshot(connection, self.selection).await?;
        tracing::debug!("the snapshot is taken");
        let head = feed::head(&mut *tx).await?;
        if let Some(after) = self.changed_after
            && let Some(reason) = head.discontinuity(after)
        {
            return Err(Failure::new(Error::Discontinuity { after, reason }));
        }
        let rows;
        let output = match self.what {
            What::Calls => {
                let sheet = tables::calls();
                let mut table = self.begin(sheet.fields(), output)?;
                let calls = export::calls(tx, self.selection, MAX_ERRORS);
                let write = |call| table.write(&sheet.cells(&call)).map(|()| 1);
                rows = self.each(calls, write).await?;
                table.finish()
            }
            What::Events => {
                let sheet = tables::events();
                let mut table = self.begin(sheet.fields(), output)?;
                let events = export::events(tx, self.selection);
                let write = |event| table.write(&sheet.cells(&event)).map(|()| 1);
                rows = self.each(events, write).await?;
                table.finish()
            }
            What::Attempts => {
                let sheet = tables::attempts();
                let mut table = self.begin(sheet.fields(), output)?;
                let calls = export::calls(tx, self.selection, 0);
                let write = |call: export::ExportedCall| {
                    tables::AttemptRow::of(call.stored).try_fold(0, |written, attempt| {
                        table.write(&sheet.cells(&attempt)).map(|()| written + 1)
                    })
                };
                rows = self.each(calls, write).await?;
                table.finish()
            }
            What::Deliveries => {
                let mut output = output;
                let mut text = Vec::new();
                let deliveries = export::deliveries(tx, self.selection);
                let write = |delivery| {
                    text.clear();
                    line::write(&mut text, &delivery)?;
                    output.write_all(&text).map(|()| 1)
                };
                rows = self.each(deliveries, write).await?;
                Ok(output)
            }
        };
        output.and_then(Output::finish).map_err(unwritten)?;
        self.progress.finish();
        Ok(Exported { rows, head: head.last })
    }

    fn begin(&self, fields: Vec<Field>, output: Output) -> Result<Writer<Output>, Failure> {
        Writer::new(self.format.into(), fields, output).map_err(unwritten)
    }

    /// Writes each row as it comes; `write` tells how many rows of the file it is.
    async fn each<T>(
        &self,
        mut rows: impl Stream<Item = Result<T, store::Error>> + Unpin,
        mut write: impl FnMut(T) -> io::Result<u64>,
    ) -> Result<u64, Failure> {
        let (mut written, mut told) = (0, 0);
        while let Some(row) = rows.try_next().await? {
            written += write(row).map_err(unwritten)?;
            if written - told >= STEP {
                self.progress.advance(written - told);
                told = written;
            }
        }
        self.progress.advance(written - told);
        Ok(written)
    }
}

/// Where an export goes.
enum Output {
    Stdout(BufWriter<Stdout>),
    File(NewFile),
}

impl Output {
    fn begin(options: &Options) -> Result<Self, Failure> {
        match options.output.as_deref() {
            Some(path) if path != Path::new("-") => {
                let file = NewFile::create(path, options.force);
                file.map(Self::File).map_err(|source| {
                    let path = path.to_owned();
                    Failure::new(match source.kind() {
                        io::ErrorKind::AlreadyExists => Error::IsThere { path },
                        _ => Error::Create { path, source },
                    })
                })
            }
            Some(_) | None => Ok(Self::Stdout(BufWriter::with_capacity(1 << 16, io::stdout()))),
        }
    }

    fn is_terminal(&self) -> bool {
        match self {
            Self::Stdout(stdout) => stdout.get_ref().is_terminal(),
            Self::File(_) => false,
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout(mut stdout) => stdout.flush(),
            Self::File(file) => file.finish(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

/// Why an export came to nothing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{} is there (--force replaces it)", .path.display())]
    IsThere { path: PathBuf },
    #[error("cannot write {}", .path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot write the export")]
    Write(#[source] io::Error),
    #[error("--changed-after: {after} is {}; export all calls, and continue from the position that is printed then", match .reason {
        Discontinuity::OtherFeed => "a position of another feed than this database has",
        Discontinuity::BeyondHead => "after the end of the feed, so this database has lost events",
    })]
    Discontinuity { after: FeedPosition, reason: Discontinuity },
    #[error("interrupted before the export was whole")]
    Interrupted,
}

/// The failure of a write.
fn unwritten(error: io::Error) -> Failure {
    match error.kind() {
        // Only a reader of standard output goes away.
        io::ErrorKind::BrokenPipe => Failure::StdoutClosed,
        _ => Failure::new(Error::Write(error)),
    }
}

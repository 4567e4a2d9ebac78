//! `callstate import`: stores deliveries that `export deliveries` wrote, as the service
//! stores them.
//!
//! It works on the database itself, whether the service runs or not. What always holds:
//! every line before one that is reported as failed is committed; a file may be imported
//! again, and stored events stay as they are; memory is bounded by the writers' queues
//! and a few chunks of lines.
//!
//! Deliberately absent: the checks of an endpoint. The operator vouches for the file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::call::Delivery;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::database::Database;
use crate::ingest::{self, Ingest, IngestError, PendingDelivery};
use crate::managed_postgres::Claim;
use crate::recho::ProviderTimeZone;
use crate::store::MIGRATOR;
use crate::store::write::RecordResult;
use crate::telemetry;
use crate::transfer::line::{self, BadLine};
use crate::transfer::lines::{Line, Lines};

use super::failure::Failure;
use super::output::{self, Format};
use super::progress::Progress;
use super::stop::Stop;

/// The longest line: the largest delivery that can be configured, with room for
/// what it takes as a string of JSON.
const MAX_LINE: usize = 4 * 64 * 1024 * 1024;

/// The most lines that go from the reader to the writers at once.
const CHUNK_LINES: usize = 256;

/// The most bytes of them, but for the last line.
const CHUNK_BYTES: usize = 1024 * 1024;

/// How much of the file is read at a time.
const READ_BYTES: usize = 256 * 1024;

/// After how many deliveries a plain line tells of the progress where there is
/// no terminal.
const PLAIN_LINE_EVERY: u64 = 100_000;

/// The options of `import`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The file of JSON lines, or - for standard input
    file: PathBuf,
    /// Continue after a line that cannot be imported
    #[arg(long)]
    keep_going: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The result of an import, for `--format json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// The lines that were imported.
    deliveries: u64,
    /// The number of them whose event is new.
    new_events: u64,
    /// The number of them whose event was stored before.
    known_events: u64,
    /// Deliveries of calls and clients that were erased.
    erased: u64,
    /// The lines that could not be imported.
    bad_lines: u64,
}

/// Why an import did not come to the end of the file.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {}", .file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("stopped at line {line}; the lines before it are imported (--keep-going continues)")]
    BadLine { line: u64 },
    #[error("line {line} was not imported; the lines before it were")]
    Refused { line: u64, source: IngestError },
    #[error("interrupted after line {line}; the lines up to it are imported")]
    Interrupted { line: u64 },
}

/// Some lines, understood or not.
#[derive(Default)]
struct Chunk {
    lines: Vec<(u64, Result<Delivery, BadLine>)>,
    /// How many bytes of the file have been read with it.
    bytes: u64,
}

/// Imports a file.
pub(super) async fn run(options: Options, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let stop = Stop::on_signals().map_err(Failure::new)?;
    let unread = |source| Failure::new(Error::Read { file: options.file.clone(), source });
    let (input, length) = open(&options.file).map_err(unread)?;
    let database = tokio::select! {
        opened = Database::open(&config, Claim::Join) => opened?,
        () = stop.requested() => return Err(Failure::new(Error::Interrupted { line: 0 })),
    };
    let mut report = Report::default();
    let outcome = import(&database, &config, &options, (input, length), &stop, &mut report).await;
    let closed = database.close().await;
    // The counts up to a failure are printed as well.
    match options.format {
        Format::Json => output::json(&report)?,
        // A failure is all that there is to say where nothing was read.
        Format::Text if outcome.is_err() && report.deliveries + report.bad_lines == 0 => {}
        Format::Text => output::line(&summary(&report))?,
    }
    outcome?;
    closed?;
    if report.bad_lines == 0 { Ok(()) } else { Err(Failure::Told) }
}

fn summary(report: &Report) -> String {
    let Report { deliveries, new_events, known_events, erased, bad_lines } = report;
    let erased = if *erased > 0 { format!(", {erased} of erased calls") } else { String::new() };
    let imported = format!(
        "{deliveries} deliveries imported: {new_events} new events, {known_events} already stored{erased}"
    );
    match bad_lines {
        0 if *deliveries == 0 => "there are no deliveries in the file".to_owned(),
        0 => imported,
        1 => format!("{imported}; 1 bad line"),
        several => format!("{imported}; {several} bad lines"),
    }
}

/// Opens the file, and tells how long it is, if it is a file.
fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let length = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), length))
}

async fn import(
    database: &Database,
    config: &Config,
    options: &Options,
    (input, length): (Box<dyn Read + Send>, Option<u64>),
    stop: &Stop,
    report: &mut Report,
) -> Result<(), Failure> {
    if config.migrate {
        database.migrate(&MIGRATOR).await?;
    }
    let config::Ingest { writers, batch, queue } = config.ingest;
    let (ingest, running) = Ingest::start(
        ingest::Settings { writers, batch, queue },
        &database.pool().connect_options(),
    );
    let progress = match length {
        Some(_) => Progress::start(0, "deliveries", PLAIN_LINE_EVERY),
        None => Progress::start_open("deliveries", PLAIN_LINE_EVERY),
    };
    let mut import = Import {
        ingest,
        // One batch is committed while the next gathers, for each writer.
        window: writers * batch * 2,
        pending: VecDeque::new(),
        keep_going: options.keep_going,
        last_line: 0,
        report,
        progress,
    };
    let reader = Reader::start(input, config.provider_time_zone);
    let unread = |source| Failure::new(Error::Read { file: options.file.clone(), source });
    let outcome = import.take(reader, length, stop, unread).await;
    // What is in the queues is committed all the same, and counted.
    let rest = import.settle(0).await;
    let Import { ingest, progress, .. } = import;
    drop(ingest);
    running.finish().await;
    progress.finish();
    outcome.and(rest)
}

/// Reads the file on a thread of its own, which ends with the file or when
/// nobody takes its chunks any more: standard input may have no end.
struct Reader {
    chunks: mpsc::Receiver<io::Result<Chunk>>,
    /// Until it has ended.
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(input: Box<dyn Read + Send>, time_zone: ProviderTimeZone) -> Self {
        let (sender, chunks) = mpsc::channel(1);
        let thread = std::thread::spawn(move || {
            let mut lines = Lines::new(BufReader::with_capacity(READ_BYTES, input), MAX_LINE);
            let clock = Clock::system();
            loop {
                let chunk = next_chunk(&mut lines, &clock, time_zone).transpose();
                let Some(chunk) = chunk else { break };
                let is_last = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || is_last {
                    break;
                }
            }
        });
        Self { chunks, thread: Some(thread) }
    }

    /// The next chunk; `None` at the end of the file, and there only: a mistake
    /// of ours that ends the thread before is a failure to read.
    async fn next(&mut self) -> io::Result<Option<Chunk>> {
        if let Some(chunk) = self.chunks.recv().await {
            return chunk.map(Some);
        }
        // It let go of the channel as it ended, so that nothing is waited for here.
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_panic)) => Err(io::Error::other("the program made a mistake")),
            Some(Ok(())) | None => Ok(None),
        }
    }
}

/// The next lines: as many as are at hand, within bounds, and at least one.
fn next_chunk(
    lines: &mut Lines<Box<dyn Read + Send>>,
    clock: &Clock,
    time_zone: ProviderTimeZone,
) -> io::Result<Option<Chunk>> {
    let mut chunk = Chunk::default();
    let begin = lines.bytes();
    while let Some(Line { number, text }) = lines.next_line()? {
        let delivery = text
            .ok_or(BadLine::TooLong(MAX_LINE))
            .and_then(|text| line::read(text, clock.now(), time_zone));
        chunk.lines.push((number, delivery));
        chunk.bytes = lines.bytes();
        let bytes = chunk.bytes - begin;
        if chunk.lines.len() >= CHUNK_LINES || bytes >= CHUNK_BYTES as u64 || lines.is_drained() {
            break;
        }
    }
    Ok(Some(chunk).filter(|chunk| !chunk.lines.is_empty()))
}

/// An import under way.
struct Import<'a> {
    ingest: Ingest,
    /// The most answers that are awaited.
    window: usize,
    /// The answers that are awaited, with the numbers of their lines.
    pending: VecDeque<(u64, PendingDelivery)>,
    keep_going: bool,
    /// The last line that was queued or reported as bad.
    last_line: u64,
    report: &'a mut Report,
    progress: Progress,
}

impl Import<'_> {
    /// Takes in chunk after chunk, until there are no more, one fails, or it is
    /// to stop.
    async fn take(
        &mut self,
        mut reader: Reader,
        length: Option<u64>,
        stop: &Stop,
        unread: impl Fn(io::Error) -> Failure,
    ) -> Result<(), Failure> {
        loop {
            let chunk = tokio::select! {
                chunk = reader.next() => chunk,
                () = stop.requested() => {
                    self.settle(0).await?;
                    return Err(Failure::new(Error::Interrupted { line: self.last_line }));
                }
            };
            let Chunk { lines, bytes } = match chunk {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                Err(source) => {
                    self.settle(0).await?;
                    return Err(unread(source));
                }
            };
            for (line, delivery) in lines {
                self.take_one(line, delivery).await?;
                self.last_line = line;
            }
            if let Some(length) = length.filter(|_| bytes > 0) {
                // As many lines to a byte as there were so far.
                let lines = u128::from(self.last_line) * u128::from(length) / u128::from(bytes);
                self.progress.expect(u64::try_from(lines).unwrap_or(u64::MAX));
            }
        }
    }

    async fn take_one(
        &mut self,
        line: u64,
        delivery: Result<Delivery, BadLine>,
    ) -> Result<(), Failure> {
        match delivery {
            Ok(delivery) => {
                match self.ingest.queue(delivery).await {
                    Ok(put) => self.pending.push_back((line, put)),
                    Err(source) => {
                        self.settle(0).await?;
                        return Err(Failure::new(Error::Refused { line, source }));
                    }
                }
                self.settle(self.window).await
            }
            Err(why) => {
                // In the order of the lines, so that all lines before a reported one are imported.
                self.settle(0).await?;
                self.bad(line, &why)
            }
        }
    }

    /// Waits for answers until no more than so many are awaited.
    async fn settle(&mut self, most: usize) -> Result<(), Failure> {
        let mut first_failure = Ok(());
        while self.pending.len() > most {
            let Some((line, pending)) = self.pending.pop_front() else { break };
            let settled = match pending.result().await {
                Ok(recorded) => {
                    self.report.deliveries += 1;
                    match recorded.result {
                        RecordResult::Stored(..) => self.report.new_events += 1,
                        RecordResult::Duplicate(_) => self.report.known_events += 1,
                        RecordResult::Erased => self.report.erased += 1,
                    }
                    self.progress.advance(1);
                    Ok(())
                }
                Err(why) if why.is_permanent() => self.bad(line, &why),
                Err(source) => Err(Failure::new(Error::Refused { line, source })),
            };
            first_failure = first_failure.and(settled);
        }
        first_failure
    }

    /// Reports a line that cannot be imported; fails unless `--keep-going` is set.
    fn bad(&mut self, line: u64, why: &dyn std::error::Error) -> Result<(), Failure> {
        self.report.bad_lines += 1;
        self.progress.tell(&format!("line {line} {why}"));
        if self.keep_going { Ok(()) } else { Err(Failure::new(Error::BadLine { line })) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of which no more than the beginning can be read without a panic.
    struct Trap(&'static [u8]);

    impl Read for Trap {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(!self.0.is_empty(), "the trap");
            self.0.read(buffer)
        }
    }

    #[tokio::test]
    async fn a_reader_that_panics_has_not_come_to_the_end_of_the_file() {
        let mut reader = Reader::start(Box::new(Trap(b"one\n")), ProviderTimeZone::UTC);
        let first = reader.next().await.unwrap().unwrap();
        assert_eq!(first.lines.len(), 1);
        let why = reader.next().await.err().unwrap();
        assert_eq!(why.to_string(), "the program made a mistake");
    }

    #[tokio::test]
    async fn a_reader_that_has_read_all_has_come_to_the_end_of_the_file() {
        let input: &[u8] = b"one\ntwo";
        let mut reader = Reader::start(Box::new(input), ProviderTimeZone::UTC);
        let mut lines = 0;
        while let Some(chunk) = reader.next().await.unwrap() {
            lines += chunk.lines.len();
        }
        assert_eq!(lines, 2);
        assert!(reader.next().await.unwrap().is_none());
    }
}

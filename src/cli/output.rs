//! What commands print on stdout: lines for people, or JSON.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::Failure;

/// How a command prints its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON document
    Json,
}

/// Prints one line.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::StdoutClosed,
        _ => Failure::new(Stdout(error)),
    })
}

/// Prints one JSON document.
pub(super) fn json(data: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(data).map_err(Failure::new)?)
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct Stdout(#[source] io::Error);

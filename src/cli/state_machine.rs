//! `callstate state-machine`: the machine's table, from the code.

use clap::Args;

use crate::call::machine::{Format, describe};

use super::failure::Failure;
use super::output;

/// The options of `state-machine`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How to print it: text, mermaid, dot or json
    #[arg(long, default_value_t = Format::Text)]
    format: Format,
}

/// Prints the table.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let machine = describe();
    match options.format {
        Format::Text => output::line(machine.text().trim_end()),
        Format::Mermaid => output::line(machine.mermaid().trim_end()),
        Format::Dot => output::line(machine.dot().trim_end()),
        Format::Json => output::json(&machine),
    }
}

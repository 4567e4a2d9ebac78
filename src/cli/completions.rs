//! `callstate completions`: shell completions, from the definition of the command line.

use clap::Args;
use clap_complete::Shell;

use super::failure::Failure;
use super::output;

/// The options of `completions`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions.
pub(super) fn run(options: &Options, command: &mut clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, command, "callstate", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}

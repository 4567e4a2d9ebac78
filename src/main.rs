//! The `callstate` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    callstate::cli::run()
}

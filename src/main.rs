//! The `callstate` program.

use std::process::ExitCode;

/// Deliveries come on one thread and go on another, in pieces of all sizes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    callstate::cli::run()
}

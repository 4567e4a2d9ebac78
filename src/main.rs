//! The `callstate` program.

fn main() {}

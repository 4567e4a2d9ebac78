//! What Postgres' programs say when they fail, and what that means.
//!
//! Their messages are in English whatever the machine's language, because they run with `LC_ALL=C`.

use std::path::{Path, PathBuf};

use super::{Error, layout::Layout};

/// How many lines of a log an error carries.
const LINES: usize = 12;

/// Why a program of Postgres failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// Another program listens on the port.
    PortInUse,
    /// A server has these data already, or a process that looks like one.
    AlreadyRunning,
    /// Backends of a dead server still hold its shared memory.
    Leftovers,
    /// The disk is full.
    NoSpace,
    /// The data belong to someone else, or are open to others.
    Ownership,
    /// Another major version created the data.
    OtherMajor(u32),
    /// Something else; the log has to speak for itself.
    Unknown,
}

/// A failure of one of the programs.
#[derive(Debug)]
pub(super) struct Diagnosis {
    pub(super) cause: Cause,
    program: &'static str,
    path: PathBuf,
    said: String,
}

/// Reads what a program said.
pub(super) fn of(program: &'static str, path: &Path, said: &str) -> Diagnosis {
    let has = |text: &str| said.contains(text);
    let cause = if has("No space left on device")
        || has("Disk quota exceeded")
        || has("HINT:  Check free disk space")
    {
        Cause::NoSpace
    } else if has("pre-existing shared memory block") {
        Cause::Leftovers
    } else if has("lock file \"postmaster.pid\" already exists") {
        Cause::AlreadyRunning
    } else if has("Address already in use")
        || (has("lock file \"") && has(".lock\" already exists"))
    {
        Cause::PortInUse
    } else if let Some(major) = other_major(said) {
        Cause::OtherMajor(major)
    } else if has("has wrong ownership")
        || has("has invalid permissions")
        || has("Permission denied")
    {
        Cause::Ownership
    } else {
        Cause::Unknown
    };
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let said = lines[lines.len().saturating_sub(LINES)..].join("\n");
    Diagnosis { cause, program, path: path.to_owned(), said }
}

/// Reads `The data directory was initialized by PostgreSQL version 16, which is not compatible …`.
fn other_major(said: &str) -> Option<u32> {
    let (_, rest) = said.split_once("was initialized by PostgreSQL version ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Diagnosis {
    pub(super) fn into_error(self, layout: &Layout) -> Error {
        let Self { cause, program, path, said } = self;
        match cause {
            Cause::NoSpace => Error::NoSpace { path },
            Cause::Leftovers => Error::Leftovers { path },
            Cause::OtherMajor(cluster) => Error::OtherMajor {
                path,
                cluster,
                found: layout.major.to_string(),
                fetching: String::new(),
            },
            Cause::PortInUse | Cause::AlreadyRunning | Cause::Ownership | Cause::Unknown => {
                Error::Failed { program, path, said }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, of};

    #[test]
    fn known_failures_are_recognised() {
        let cause = |said: &str| of("postgres", "/data".as_ref(), said).cause;
        assert_eq!(
            cause(
                "LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use\nHINT:  Is another postmaster"
            ),
            Cause::PortInUse
        );
        assert_eq!(
            cause("FATAL:  lock file \"postmaster.pid\" already exists"),
            Cause::AlreadyRunning
        );
        assert_eq!(
            cause("FATAL:  pre-existing shared memory block (key 56, ID 3) is still in use"),
            Cause::Leftovers
        );
        assert_eq!(
            cause("FATAL:  could not write lock file \"postmaster.pid\": No space left on device"),
            Cause::NoSpace
        );
        assert_eq!(
            cause(
                "FATAL:  could not extend file \"base/1/2691\": wrote only 4096 of 8192 bytes\nHINT:  Check free disk space."
            ),
            Cause::NoSpace
        );
        assert_eq!(cause("FATAL:  data directory \"/data\" has wrong ownership"), Cause::Ownership);
        assert_eq!(
            cause(
                "FATAL:  database files are incompatible with server\nDETAIL:  The data directory was initialized by \
                 PostgreSQL version 16, which is not compatible with this version 15.18."
            ),
            Cause::OtherMajor(16)
        );
        assert_eq!(
            cause("FATAL:  unrecognized configuration parameter \"nonsense\""),
            Cause::Unknown
        );
    }

    #[test]
    fn only_the_end_of_a_long_log_is_kept() {
        let said: Vec<String> = (0..100).map(|line| format!("line {line}")).collect();
        let kept = of("postgres", "/data".as_ref(), &said.join("\n")).said;
        assert!(kept.starts_with("line 88\n") && kept.ends_with("line 99"), "{kept}");
    }
}

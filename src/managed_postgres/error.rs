//! Every way in which keeping a Postgres can fail, in words a person can act on.
//!
//! Each message says what happened, where, and what to do about it; the source, where there is one, adds what the
//! system said. A password never stands in any of them.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why there is no Postgres of our own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No programs of Postgres are installed, and none were to be fetched.
    #[error(
        "no Postgres {oldest} or later was found (looked at {looked}){fetching}; install one, for example \
         `apt install postgresql` or `brew install postgresql@17`, or name a server with --database-url"
    )]
    NoPrograms {
        /// The oldest major version that would do.
        oldest: u32,
        /// The places that were looked at.
        looked: String,
        /// What became of fetching them, if it was tried; opens with a separator.
        fetching: String,
    },
    /// The folder that was configured holds no usable Postgres.
    #[error("{} holds no `postgres` and `initdb` of version {oldest} or later; name the folder that does", path.display())]
    NoProgramsThere {
        /// The configured folder.
        path: PathBuf,
        /// The oldest major version that would do.
        oldest: u32,
    },
    /// The data belong to a major version whose programs are not here.
    #[error(
        "{} was created by Postgres {cluster}, and its files open with no other version; found here: {found}{fetching}; \
         install Postgres {cluster}, or move the data with pg_upgrade or pg_dump",
        path.display()
    )]
    OtherMajor {
        /// The folder of the cluster.
        path: PathBuf,
        /// The major version that created it.
        cluster: u32,
        /// The versions that are installed.
        found: String,
        /// What became of fetching the right one, if it was tried; opens with a separator.
        fetching: String,
    },
    /// A service already runs on this data directory.
    #[error(
        "another `callstate serve` is running on the data directory {}; stop it, or give this one its own with --data-dir",
        path.display()
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// Another process has been starting or stopping the server for too long.
    #[error(
        "another callstate has been starting or stopping the Postgres of {} for {seconds} s; see what it is waiting for, \
         and try again",
        path.display()
    )]
    Busy {
        /// The data directory.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// The data directory is not a directory.
    #[error("the data directory {} is not a directory; name another with --data-dir", path.display())]
    NotADirectory {
        /// What was given.
        path: PathBuf,
    },
    /// We may not read or write where we must.
    #[error("user {user} may not use {}; give it to them, or name another place with --data-dir", path.display())]
    NotWritable {
        /// The file or folder.
        path: PathBuf,
        /// The number of the user we are.
        user: u32,
        /// What the system said.
        source: io::Error,
    },
    /// Someone else's files are in the way.
    #[error(
        "{} belongs to user {owner}, and this is user {user}; run callstate as its owner, or name another place with --data-dir",
        path.display()
    )]
    WrongOwner {
        /// The file or folder.
        path: PathBuf,
        /// The number of the user who owns it.
        owner: u32,
        /// The number of the user we are.
        user: u32,
    },
    /// Run as root, but there is nobody to run the server as.
    #[error(
        "Postgres refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it as; run callstate as \
         another user, or create the user `postgres`"
    )]
    NoUnprivilegedUser,
    /// The unprivileged user cannot get to the data.
    #[error(
        "Postgres refuses to run as root, and {} is closed to user `{user}` whom it would run as ({reason}); name a place \
         that is open to others with --data-dir, or run callstate as another user",
        path.display()
    )]
    Closed {
        /// The folder that is closed.
        path: PathBuf,
        /// The user of the server.
        user: String,
        /// Why a user namespace could not help.
        reason: String,
    },
    /// The disk is full.
    #[error("no space is left for {}; free some and start again: nothing that was committed is lost", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// The port is taken.
    #[error(
        "port {port} of 127.0.0.1 is in use by another program; stop that one, or start again on another port"
    )]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// Processes of a server that died have not let go yet.
    #[error(
        "processes of an earlier Postgres still use {}; they end by themselves when their last statement does: \
         try again, or end them (`ps -ef | grep postgres`)",
        path.display()
    )]
    Leftovers {
        /// The cluster's data.
        path: PathBuf,
    },
    /// One of Postgres' programs failed for a reason we do not know.
    #[error("{program} failed on {}; the last it said:\n{said}", path.display())]
    Failed {
        /// The program.
        program: &'static str,
        /// The cluster's data.
        path: PathBuf,
        /// The last lines of its log.
        said: String,
    },
    /// The server neither came up nor went down in time.
    #[error("the Postgres of {} did not {what} within {seconds} s; see its log {}", path.display(), log.display())]
    TooSlow {
        /// What it should have done.
        what: &'static str,
        /// The cluster's data.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
    /// A server answers, but not to us.
    #[error("the Postgres of {} refuses us; is {} the password file it was created with?", path.display(), password.display())]
    Refused {
        /// The cluster's data.
        path: PathBuf,
        /// The file of its password.
        password: PathBuf,
        /// What the server said.
        source: sqlx::Error,
    },
    /// A server runs that we cannot signal.
    #[error(
        "the Postgres of {} is running where this process cannot reach it (another container?); stop it there",
        path.display()
    )]
    OutOfReach {
        /// The cluster's data.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("could not {doing} {}", path.display())]
    Files {
        /// What was being done, a verb.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Sorts an error of the file system: a full disk and a closed door have words of their own.
    pub(super) fn files(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, user: rustix::process::geteuid().as_raw(), source }
            }
            _ => Self::Files { doing, path, source },
        }
    }
}

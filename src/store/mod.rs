//! All SQL, as free functions over an executor, one file per table or path.
//!
//! | file | holds |
//! | --- | --- |
//! | [`record`](mod@record) | the write path: a batch of deliveries and what they do |
//! | `change` | what a batch does to one call, decided without the database |
//! | `recent` | the calls that a writer wrote last |
//! | `write` | the one statement that writes a batch |
//! | [`calls`] | the table `calls`: its rows, and looking one up |
//! | [`lists`] | lists of calls |
//! | `filter` | which calls are listed |
//! | `closed` | what reports count of a call that has ended |
//! | [`shelf`] | how the calls stand in the indexes that lists are read from |
//! | [`past`] | calls as they were known at a time |
//! | [`events`] | the table `events`: its rows, and a call's history |
//! | [`quarantine`] | the table `quarantine`: its entries, and how many there may be |
//! | [`api_keys`] | the table `api_keys` |
//! | [`epoch`](mod@epoch) | where the database has lived, for the order of a stream |
//! | [`stream`] | the order in which events were stored, and reading on in it |
//! | [`reports`] | figures over many calls, from the views in the schema `reporting` |
//! | [`audit`] | what `verify` compares and `rebuild` repairs |
//! | [`export`] | whole ranges of calls, events and deliveries, as streams |
//! | [`statistics`] | what Postgres knows of the tables of a new database |
//! | [`connection`] | what connections are set to |
//! | [`bucket`] | which bucket a call is in |
//! | `codec` | domain types as Postgres types |
//!
//! What always holds: every statement is checked at compile time; the ones on
//! the path of a delivery name the bucket as a scalar and take their times as
//! parameters; a row that the program could not have written is an
//! [`Error::Corrupt`] which names it, never a panic.
//!
//! Deliberately absent: the wire format, HTTP, and time.

pub mod api_keys;
pub mod audit;
pub mod bucket;
pub mod calls;
mod change;
mod closed;
mod codec;
pub mod connection;
pub mod epoch;
pub mod events;
pub mod export;
mod filter;
pub mod lists;
pub mod past;
pub mod quarantine;
mod recent;
pub mod record;
pub mod reports;
pub mod shelf;
pub mod statistics;
pub mod stream;
mod write;

use std::time::Duration;

pub use bucket::Buckets;
pub use connection::Line;
pub use record::{Recorded, Recorder, refold};

/// The schema's migrations, the same files that `sqlx migrate run` takes.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Why the store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused, or is away.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A row says what the program could not have written.
    #[error("table {table}, {row}, column {column}: {problem}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// Which row.
        row: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The program made a mistake; the log tells which.
    #[error("the program made a mistake")]
    Panicked,
    /// The database did not answer in time.
    #[error("the database did not answer within {0:?}")]
    TimedOut(Duration),
    /// The batch was decided by what is remembered of a connection that has ended; it is to
    /// be decided anew.
    #[error("the connection has ended meanwhile")]
    Outdated,
    /// Other writers kept changing the same calls.
    #[error("the calls kept changing under the write, {rounds} times in a row")]
    Contended {
        /// How often it was tried.
        rounds: u32,
    },
}

impl Error {
    /// Whether the database is away or overloaded, so that the same request may
    /// succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed,
            )
            | Self::TimedOut(_)
            | Self::Outdated
            | Self::Contended { .. } => true,
            // Connection exceptions, a server that only reads (25006: it was demoted, or its
            // disk is full), no way in (28, 3D, 55: a password that is changed, a database
            // that is restored), rolled back transactions, insufficient resources, operator
            // intervention and system errors.
            Self::Database(_) => {
                self.is_of_class(&["08", "25006", "28", "3D", "40", "53", "55", "57", "58"])
            }
            Self::Corrupt { .. } | Self::Panicked => false,
        }
    }

    /// Whether a row or a table was locked for longer than one waits: others than
    /// what is in it may be written.
    #[must_use]
    pub fn is_lock_timeout(&self) -> bool {
        self.is_of_class(&["55P03"])
    }

    /// Whether the program cannot decide on what it was given: for a mistake of its own, or a
    /// row that it cannot read.
    #[must_use]
    pub fn is_about_program(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::Panicked
                | Self::Database(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
        )
    }

    /// Whether the connection can be used as before: Postgres refused and said so, or a row
    /// cannot be read.
    #[must_use]
    pub fn leaves_the_connection_sound(&self) -> bool {
        match self {
            Self::Corrupt { .. }
            | Self::Database(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => true,
            Self::Database(sqlx::Error::Database(_)) => {
                self.is_lock_timeout() || !self.is_transient()
            }
            Self::Database(_)
            | Self::Panicked
            | Self::TimedOut(_)
            | Self::Outdated
            | Self::Contended { .. } => false,
        }
    }

    /// Whether the same may succeed at once: Postgres rolled the transaction back
    /// for the sake of another one, or nothing was done as there is a new connection.
    #[must_use]
    pub fn is_rollback(&self) -> bool {
        self.is_of_class(&["40"]) || matches!(self, Self::Outdated)
    }

    /// Whether Postgres knows no such table, column or function: the schema is
    /// another program's, or nobody's yet.
    #[must_use]
    pub fn is_about_schema(&self) -> bool {
        self.is_of_class(&["42P01", "42703", "42883"])
    }

    /// Whether the role may not do this.
    #[must_use]
    pub fn is_about_rights(&self) -> bool {
        self.is_of_class(&["42501"])
    }

    /// Whether Postgres refuses the values themselves: data exceptions and
    /// program limits.
    #[must_use]
    pub fn is_about_data(&self) -> bool {
        self.is_of_class(&["22", "54"])
    }

    /// Whether it is an error of Postgres of one of these classes or codes, as in
    /// <https://www.postgresql.org/docs/15/errcodes-appendix.html>.
    fn is_of_class(&self, classes: &[&str]) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else {
            return false;
        };
        error.code().is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
    }
}

//! Errors of the store, classified by what happened.

use std::{fmt, time::Duration};

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver or the server reported an error.
    #[error("database: {}", Explained(.0))]
    Database(#[from] sqlx::Error),
    /// The driver or the server reported an error before a connection was ready.
    #[error("cannot connect to the database: {}", Explained(.0))]
    Connecting(#[source] sqlx::Error),
    /// A stored value is not one that the program can have written.
    #[error("table {table}, {row}, column {column}: {problem}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row.
        row: String,
        /// What is wrong with the value.
        problem: String,
    },
    /// The program panicked; the log has the message.
    #[error("the program panicked")]
    Panicked,
    /// The database did not answer in time.
    #[error("the database did not answer within {0:?}")]
    TimedOut(Duration),
    /// Other writers kept changing the same calls.
    #[error("other writers changed the calls {rounds} times in a row")]
    Contended {
        /// How often the write was tried.
        rounds: u32,
    },
}

/// The kind of an error, which decides what the caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The database is away, read-only or overloaded: the same request may succeed later.
    Unavailable,
    /// A row or a table was locked by another session for longer than `lock_timeout`.
    Locked,
    /// Postgres rolled the transaction back in favor of another one: it may succeed at once.
    RolledBack,
    /// Postgres rejects the values themselves.
    Data,
    /// The program failed on a value that it received or on a row that it cannot read.
    Program,
    /// A table, column or function is missing: the schema is not that of this program.
    Schema,
    /// The role lacks a privilege.
    Privilege,
    /// Anything else.
    Other,
}

/// Classes by SQLSTATE, the first matching prefix
/// (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
const BY_SQLSTATE: [(&str, Class); 22] = [
    // lock_not_available, before the rest of class 55
    ("55P03", Class::Locked),
    ("42501", Class::Privilege),
    ("42P01", Class::Schema),
    ("42703", Class::Schema),
    ("42883", Class::Schema),
    ("42704", Class::Schema),
    // read_only_sql_transaction: the server is a standby, or its disk is full
    ("25006", Class::Unavailable),
    // idle_in_transaction_session_timeout, transaction_timeout
    ("25P0", Class::Unavailable),
    ("08", Class::Unavailable),
    // no access: a password that is being changed, a database that is being restored
    ("28", Class::Unavailable),
    ("3D", Class::Unavailable),
    ("40", Class::RolledBack),
    ("53", Class::Unavailable),
    ("55", Class::Unavailable),
    ("57", Class::Unavailable),
    ("58", Class::Unavailable),
    ("22", Class::Data),
    // the queue of notifications is full; ids are too short for an index row
    ("54000", Class::Unavailable),
    ("54", Class::Data),
    // a statement that a pooler lost, prepared for another connection
    ("26000", Class::Unavailable),
    ("42P05", Class::Unavailable),
    // a prepared statement whose tables were changed
    ("0A000", Class::Unavailable),
];

/// What to do about a pooler that gives each transaction another connection.
const POOLER_HINT: &str = "a pooler such as PgBouncer in transaction mode loses prepared statements, \
     settings and LISTEN: set pool_mode = session for this database, or connect to Postgres directly";

/// What to do about a pooler that rejects the parameters of the driver.
const PARAMETER_HINT: &str = "a pooler such as PgBouncer rejects a parameter: \
     set ignore_startup_parameters = extra_float_digits and pool_mode = session, \
     or connect to Postgres directly";

/// What to do about an error that a pooler between the program and Postgres causes.
#[must_use]
pub fn pooler_hint(error: &sqlx::Error) -> Option<&'static str> {
    let error = error.as_database_error()?;
    match error.code().as_deref() {
        // invalid_sql_statement_name and duplicate_prepared_statement: the driver names its
        // statements by connection, so the connection is not the one that it was
        Some("26000" | "42P05") => Some(POOLER_HINT),
        // protocol_violation, of PgBouncer; Postgres does not use these words
        Some("08P01") if error.message().starts_with("unsupported startup parameter") => {
            Some(PARAMETER_HINT)
        }
        _ => None,
    }
}

/// An error of the driver, with what to do about it where that is known.
struct Explained<'a>(&'a sqlx::Error);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        pooler_hint(self.0).map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl Error {
    /// The same error, of a connection that was not ready.
    #[must_use]
    pub fn connecting(self) -> Self {
        match self {
            Self::Database(error) => Self::Connecting(error),
            error => error,
        }
    }

    /// The kind of the error.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Database(error) => class_of(error),
            Self::Connecting(_) | Self::TimedOut(_) | Self::Contended { .. } => Class::Unavailable,
            Self::Corrupt { .. } | Self::Panicked => Class::Program,
        }
    }

    /// Whether the connection can be used as before: Postgres reported an error and
    /// went on, or a row could not be read.
    #[must_use]
    pub fn keeps_connection(&self) -> bool {
        match self {
            Self::Corrupt { .. }
            | Self::Database(
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_),
            ) => true,
            // An internal error: the catalog was replaced under the connection, as by a restore.
            Self::Database(sqlx::Error::Database(error))
                if error.code().is_some_and(|code| code.starts_with("XX")) =>
            {
                false
            }
            Self::Database(sqlx::Error::Database(_)) => match self.class() {
                Class::Unavailable | Class::RolledBack => false,
                Class::Locked
                | Class::Data
                | Class::Program
                | Class::Schema
                | Class::Privilege
                | Class::Other => true,
            },
            Self::Database(_)
            | Self::Connecting(_)
            | Self::Panicked
            | Self::TimedOut(_)
            | Self::Contended { .. } => false,
        }
    }
}

fn class_of(error: &sqlx::Error) -> Class {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            let known = BY_SQLSTATE.iter().find(|(prefix, _)| code.starts_with(prefix));
            known.map_or(Class::Other, |(_, class)| *class)
        }
        // A server that does not speak the protocol is as good as none: a TCP proxy that accepts
        // and closes shows as a protocol error before the connection is ready.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => Class::Unavailable,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => {
            Class::Program
        }
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, io};

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// An error that the server reports with an SQLSTATE.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Reported(&'static str);

    impl DatabaseError for Reported {
        fn message(&self) -> &str {
            self.0
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    /// An error with an SQLSTATE and the message of a pooler.
    #[derive(Debug, thiserror::Error)]
    #[error("unsupported startup parameter: extra_float_digits")]
    struct Pooled(&'static str);

    impl DatabaseError for Pooled {
        fn message(&self) -> &'static str {
            "unsupported startup parameter: extra_float_digits"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn reported(code: &'static str) -> Error {
        Error::Database(sqlx::Error::Database(Box::new(Reported(code))))
    }

    #[test]
    fn every_class_of_sqlstate_is_classified_by_what_happened() {
        for (code, class) in [
            ("08006", Class::Unavailable),
            ("08P01", Class::Unavailable),
            ("22001", Class::Data),
            ("22P05", Class::Data),
            ("23505", Class::Other),
            ("25006", Class::Unavailable),
            ("25P02", Class::Unavailable),
            ("25P03", Class::Unavailable),
            ("26000", Class::Unavailable),
            ("28P01", Class::Unavailable),
            ("3D000", Class::Unavailable),
            ("40001", Class::RolledBack),
            ("40P01", Class::RolledBack),
            ("42501", Class::Privilege),
            ("42601", Class::Other),
            ("42703", Class::Schema),
            ("42704", Class::Schema),
            ("42883", Class::Schema),
            ("42P01", Class::Schema),
            ("42P05", Class::Unavailable),
            ("53100", Class::Unavailable),
            ("53300", Class::Unavailable),
            ("54001", Class::Data),
            ("54000", Class::Unavailable),
            ("0A000", Class::Unavailable),
            ("55P03", Class::Locked),
            ("55000", Class::Unavailable),
            ("57014", Class::Unavailable),
            ("57P01", Class::Unavailable),
            ("57P03", Class::Unavailable),
            ("58030", Class::Unavailable),
            ("P0001", Class::Other),
            ("XX000", Class::Other),
        ] {
            assert_eq!(reported(code).class(), class, "{code}");
        }
    }

    #[test]
    fn an_error_that_a_pooler_causes_names_the_pooler_and_its_setting() {
        for (code, setting) in [
            ("26000", "pool_mode = session"),
            ("42P05", "pool_mode = session"),
            ("08P01", "ignore_startup_parameters = extra_float_digits"),
        ] {
            let error = Error::Database(sqlx::Error::Database(Box::new(Pooled(code))));
            for text in [error.to_string(), error.connecting().to_string()] {
                assert!(text.contains("PgBouncer") && text.contains(setting), "{text}");
            }
        }
        for code in ["08006", "08P01", "42P01", "57P01"] {
            assert!(!reported(code).to_string().contains("pooler"), "{code}");
        }
    }

    #[test]
    fn every_io_error_means_that_the_database_is_away() {
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::TimedOut,
            io::ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::AddrNotAvailable,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::Other,
        ] {
            let error = Error::Database(sqlx::Error::Io(kind.into()));
            assert_eq!(error.class(), Class::Unavailable, "{kind}");
            assert!(!error.keeps_connection(), "{kind}");
        }
        let closed = "unexpected response from SSLRequest: 0x00".to_owned();
        let error = Error::Database(sqlx::Error::Protocol(closed));
        assert_eq!(error.class(), Class::Unavailable);
        assert!(!error.keeps_connection());
        for error in
            [sqlx::Error::PoolTimedOut, sqlx::Error::PoolClosed, sqlx::Error::WorkerCrashed]
        {
            assert_eq!(Error::Database(error).class(), Class::Unavailable);
        }
    }

    #[test]
    fn a_connection_is_kept_where_only_the_statement_failed() {
        for code in ["55P03", "22001", "42501", "23505"] {
            assert!(reported(code).keeps_connection(), "{code}");
        }
        for code in ["08006", "25006", "40001", "57P01", "57014", "XX000"] {
            assert!(!reported(code).keeps_connection(), "{code}");
        }
    }
}

//! How a command fails, and what is said about it.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::Mistakes;
use crate::database;
use crate::store::{self, error::Class};
use crate::telemetry::Causes;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// The configuration is wrong: a line for each mistake, exit status 2.
    Configuration(Mistakes),
    /// It was asked for what cannot be: one line, exit status 2.
    Usage(String),
    /// Something failed: one line with its causes, exit status 1.
    Error(Box<dyn Error + Send + Sync>),
    /// As before, but it was told already.
    Told,
    /// Who read stdout has enough. This is what `head` does, and no failure.
    StdoutClosed,
}

impl Failure {
    /// The failure of an error.
    pub(super) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Error(error.into())
    }

    /// Says on stderr what happened, and gives the exit status.
    pub(super) fn tell(&self) -> ExitCode {
        // There is nobody to tell that stderr is closed.
        let say = |text: &dyn std::fmt::Display| {
            let _ = writeln!(io::stderr(), "callstate: {text}");
        };
        match self {
            Self::Configuration(mistakes) => {
                mistakes.iter().for_each(|mistake| say(mistake));
                ExitCode::from(2)
            }
            Self::Usage(mistake) => {
                say(mistake);
                ExitCode::from(2)
            }
            Self::Error(error) => {
                say(&Causes(error.as_ref()));
                ExitCode::FAILURE
            }
            Self::Told => ExitCode::FAILURE,
            Self::StdoutClosed => ExitCode::SUCCESS,
        }
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::Configuration(mistakes)
    }
}

impl From<database::Error> for Failure {
    fn from(error: database::Error) -> Self {
        Self::new(error)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        if error.class() == Class::Schema {
            tracing::debug!(%error, "the database lacks the schema");
            Self::new(NoSchema)
        } else {
            Self::new(error)
        }
    }
}

/// What the store says, in words that help where it was never migrated.
#[derive(Debug, thiserror::Error)]
#[error("the database lacks the schema of this callstate (callstate migrate brings it)")]
struct NoSchema;

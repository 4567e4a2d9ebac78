//! What the program says while it runs: log lines on stderr.
//!
//! Human lines, in colour, on a terminal; one JSON object a line elsewhere.
//! An error is logged once, where it stops being passed on, with all its
//! causes ([`Causes`]). A panic is one line like any other. Lines that a sender or a
//! failing dependency can cause are limited by [`log_limit`].
//!
//! No bodies of deliveries, no headers and no personal data are logged, but for
//! the addresses of those who were refused for want of a proof or a key.
//! Deliberately absent: log files and rotation, which belong to whatever reads stderr.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::Subscriber;

use crate::config::{Log, LogFormat};
use crate::log_limit;

/// Starts logging. Only the first call has an effect.
pub fn init(log: &Log) {
    let filter = EnvFilter::new(&log.filter);
    let terminal = io::stderr().is_terminal();
    let format = log.format.unwrap_or(if terminal { LogFormat::Human } else { LogFormat::Json });
    let subscriber = Subscriber::builder().with_env_filter(filter).with_writer(io::stderr);
    let first = match format {
        LogFormat::Human => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let subscriber = subscriber.with_ansi(terminal && !plain).finish();
            tracing::subscriber::set_global_default(subscriber)
        }
        LogFormat::Json => {
            let subscriber = subscriber.json().flatten_event(true).finish();
            tracing::subscriber::set_global_default(subscriber)
        }
    };
    if first.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    // A message of `assert_eq!` has several lines.
    let message = message.split('\n').map(str::trim).collect::<Vec<_>>();
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    if log_limit::admits("panicked", location.as_deref().unwrap_or_default()) {
        tracing::error!(location, thread = thread.name(), "panicked: {}", message.join(", "));
    }
}

/// An error and its causes, joined by `: `, on one line.
///
/// Some errors repeat their cause in their own text, others do not; either way
/// it is said once.
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.ends_with(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = error.source();
        }
        let lines: Vec<_> = text.split('\n').map(str::trim).collect();
        formatter.write_str(&lines.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Causes;

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("cannot start")]
        Silent(#[source] io::Error),
        #[error("cannot start: {0}")]
        Talkative(#[source] io::Error),
    }

    #[test]
    fn a_cause_is_said_once_whether_or_not_the_error_repeats_it() {
        let cause = || io::Error::other("no\nspace");
        let silent = Sample::Silent(cause());
        let talkative = Sample::Talkative(cause());
        assert_eq!(Causes(&silent).to_string(), "cannot start: no space");
        assert_eq!(Causes(&talkative).to_string(), "cannot start: no space");
    }
}

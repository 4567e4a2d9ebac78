//! How far long work has come: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use super::output;

/// How far some work has come, on stderr.
pub(super) struct Progress {
    bar: ProgressBar,
    /// What is counted.
    noun: &'static str,
    /// After how many a plain line is due.
    plain_line_every: u64,
}

impl Progress {
    /// Begins work on about so many things of a kind.
    pub(super) fn start(length: u64, noun: &'static str, plain_line_every: u64) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let template =
                format!("{{bar:40}} {{human_pos}}/{{human_len}} {noun}, {{per_sec}}, {{eta}} left");
            let bar = ProgressBar::new(length);
            let style = ProgressStyle::with_template(&template);
            style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
        } else {
            ProgressBar::hidden()
        };
        Self { bar, noun, plain_line_every }
    }

    /// Some more are done.
    pub(super) fn advance(&self, more: u64) {
        self.bar.inc(more);
        let done = self.bar.position();
        if more > 0 && self.bar.is_hidden() && done % self.plain_line_every < more {
            eprintln!("{done} {} so far", self.noun);
        }
    }

    /// Prints a line of the command's data without tearing the bar.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        self.bar.suspend(|| output::line(text))
    }

    /// The work is done.
    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

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
    /// After how many a plain line is due; never, where that is `None`.
    plain_line_every: Option<u64>,
}

impl Progress {
    /// Begins work on about so many things of a kind.
    pub(super) fn start(length: u64, noun: &'static str, plain_line_every: u64) -> Self {
        let template =
            format!("{{bar:40}} {{human_pos}}/{{human_len}} {noun}, {{per_sec}}, {{eta}} left");
        Self::shown(&ProgressBar::new(length), &template, noun, plain_line_every)
    }

    /// Begins work on nobody knows how many things of a kind.
    pub(super) fn start_open(noun: &'static str, plain_line_every: u64) -> Self {
        let template = format!("{{spinner}} {{human_pos}} {noun}, {{per_sec}}");
        Self::shown(&ProgressBar::no_length(), &template, noun, plain_line_every)
    }

    /// Begins work of which nothing is said: its data goes to the same terminal.
    pub(super) fn start_hidden(noun: &'static str) -> Self {
        Self { bar: ProgressBar::hidden(), noun, plain_line_every: None }
    }

    fn shown(bar: &ProgressBar, template: &str, noun: &'static str, plain_line_every: u64) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(template);
            style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
        } else {
            ProgressBar::hidden()
        };
        Self { bar, noun, plain_line_every: Some(plain_line_every) }
    }

    /// Some more are done.
    pub(super) fn advance(&self, more: u64) {
        self.bar.inc(more);
        let done = self.bar.position();
        if let Some(every) = self.plain_line_every
            && more > 0
            && self.bar.is_hidden()
            && done % every < more
        {
            eprintln!("{done} {} so far", self.noun);
        }
    }

    /// It turns out how many there are, about.
    pub(super) fn expect(&self, length: u64) {
        self.bar.set_length(length);
    }

    /// Prints a line of the command's data without tearing the bar.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        self.bar.suspend(|| output::line(text))
    }

    /// Tells something on stderr without tearing the bar.
    pub(super) fn tell(&self, text: &str) {
        self.bar.suspend(|| eprintln!("callstate: {text}"));
    }

    /// The work is done.
    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

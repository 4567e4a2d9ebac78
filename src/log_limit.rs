//! Limits the log lines that a sender or a failing dependency can cause.
//!
//! | type | limits |
//! | --- | --- |
//! | [`Limiter`] | lines of a kind: one a second; those that were not written are counted |
//! | [`Outage`] | the lines about a database that cannot be written to: its begin, a summary a second, its end |
//!
//! A kind of line has a name and a subject, such as an endpoint. Neither comes from a
//! request, so that a sender cannot create kinds.
//!
//! The time is an argument of what decides ([`Limiter`], [`State`]); the functions beside it
//! read the clock. [`run`] writes the counts; without it, as in commands that end by
//! themselves, only the first line of each second is written.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use crate::clock::Clock;

/// The least time between two lines of a kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often [`run`] writes the counts that are due.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// The most kinds. Further subjects of a name count as one, [`OTHERS`].
const MAX_KINDS: usize = 1000;

/// The subject of lines beyond [`MAX_KINDS`].
const OTHERS: &str = "others";

/// The lines of this process.
static LINES: Mutex<Limiter> = Mutex::new(Limiter::new());

/// Limits each kind of line to one a second.
#[derive(Debug, Default)]
pub struct Limiter(BTreeMap<(&'static str, String), Window>);

/// When a kind of line was last written, and the lines since then.
#[derive(Debug)]
struct Window {
    written_at: Instant,
    suppressed: u64,
}

/// Lines of one kind that were not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppressed {
    /// The name of the kind.
    pub kind: &'static str,
    /// Its subject.
    pub subject: String,
    /// The number of lines.
    pub lines: u64,
}

impl Limiter {
    /// A limiter that has admitted nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether a line is to be written; else it is counted.
    pub fn admit(&mut self, kind: &'static str, subject: &str, now: Instant) -> bool {
        let mut key = (kind, subject.to_owned());
        if self.0.len() >= MAX_KINDS && !self.0.contains_key(&key) {
            OTHERS.clone_into(&mut key.1);
        }
        match self.0.get_mut(&key) {
            // What is counted is written first, by `due`.
            Some(window) if window.suppressed > 0 || !window.is_due(now) => {
                window.suppressed += 1;
                false
            }
            Some(window) => {
                window.written_at = now;
                true
            }
            None => {
                self.0.insert(key, Window { written_at: now, suppressed: 0 });
                true
            }
        }
    }

    /// The counts that are to be written now. Forgets kinds without lines.
    pub fn due(&mut self, now: Instant) -> Vec<Suppressed> {
        let due = self.take(now, |window| window.is_due(now));
        self.0.retain(|_, window| !window.is_due(now));
        due
    }

    /// All counts, due or not.
    pub fn rest(&mut self, now: Instant) -> Vec<Suppressed> {
        self.take(now, |_| true)
    }

    fn take(&mut self, now: Instant, is_due: impl Fn(&Window) -> bool) -> Vec<Suppressed> {
        let windows = self.0.iter_mut().filter(|(_, it)| it.suppressed > 0 && is_due(it));
        windows
            .map(|((kind, subject), window)| {
                window.written_at = now;
                let lines = std::mem::take(&mut window.suppressed);
                Suppressed { kind, subject: subject.clone(), lines }
            })
            .collect()
    }
}

impl Window {
    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.written_at) >= INTERVAL
    }
}

impl Suppressed {
    fn log(&self) {
        let Self { kind, subject, lines } = self;
        tracing::warn!(kind, subject, lines, "further log lines of this kind were not written");
    }
}

/// Whether a line of this kind is to be written now; else it is counted.
#[must_use]
pub fn admits(kind: &'static str, subject: &str) -> bool {
    locked(&LINES).admit(kind, subject, Instant::now())
}

/// Writes counts and the state of the outage when they are due.
pub async fn run(outage: &Outage) -> Infallible {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let due = locked(&LINES).due(Instant::now());
        due.iter().for_each(Suppressed::log);
        outage.log_if_due();
    }
}

/// Writes all counts, at the end of the program.
pub fn finish(outage: &Outage) {
    let rest = locked(&LINES).rest(Instant::now());
    rest.iter().for_each(Suppressed::log);
    if let Some(line) = locked(&outage.0).rest(Instant::now()) {
        line.log();
    }
}

/// A mutex whose value is valid between any two statements.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An outage of the database, as the writers see it. It begins with a batch that fails and
/// ends when batches are committed and none has failed for a second.
#[derive(Debug, Default)]
pub struct Outage(Mutex<State>);

/// What was written about the outage, and what is to be.
#[derive(Debug, Default)]
pub struct State {
    current: Option<Current>,
    written_at: Option<Instant>,
}

/// The outage that is going on.
#[derive(Debug)]
struct Current {
    since: DateTime<Utc>,
    why: String,
    refused: u64,
    /// Of these, how many no line has counted yet.
    unwritten: u64,
    failed_at: Instant,
    is_announced: bool,
    /// Whether a batch was committed after the last failure.
    is_over: bool,
}

/// A line about an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which of them.
    pub stage: Stage,
    /// When the outage began.
    pub since: DateTime<Utc>,
    /// The deliveries refused since then.
    pub refused: u64,
    /// The last error.
    pub why: String,
}

/// The stage of an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It has begun.
    Begun,
    /// It goes on, and more deliveries were refused.
    Ongoing,
    /// It has ended.
    Ended,
}

impl State {
    /// Deliveries failed because the database cannot be written to.
    pub fn failed(
        &mut self,
        deliveries: usize,
        why: &str,
        now: Instant,
        time: DateTime<Utc>,
    ) -> Option<Line> {
        let current = self.current.get_or_insert_with(|| Current {
            since: time,
            why: String::new(),
            refused: 0,
            unwritten: 0,
            failed_at: now,
            is_announced: false,
            is_over: false,
        });
        why.clone_into(&mut current.why);
        (current.failed_at, current.is_over) = (now, false);
        current.count(deliveries);
        self.due(now)
    }

    /// A delivery was refused because the queue is full; false if there is no outage that
    /// explains it.
    pub fn queue_full(&mut self) -> bool {
        self.current.as_mut().map(|current| current.count(1)).is_some()
    }

    /// A batch was committed.
    pub fn committed(&mut self) {
        if let Some(current) = &mut self.current {
            current.is_over = true;
        }
    }

    /// The line that is to be written now.
    pub fn due(&mut self, now: Instant) -> Option<Line> {
        let is_early = |since: Instant| now.saturating_duration_since(since) < INTERVAL;
        if self.written_at.is_some_and(is_early) {
            return None;
        }
        let current = self.current.as_mut()?;
        let stage = if !current.is_announced {
            Stage::Begun
        } else if current.is_over && !is_early(current.failed_at) {
            Stage::Ended
        } else if current.unwritten > 0 {
            Stage::Ongoing
        } else {
            return None;
        };
        self.written_at = Some(now);
        let line = current.write(stage);
        if stage == Stage::Ended {
            self.current = None;
        }
        Some(line)
    }

    /// What no line has counted yet, due or not.
    pub fn rest(&mut self, now: Instant) -> Option<Line> {
        let current = self.current.as_mut().filter(|current| current.unwritten > 0)?;
        self.written_at = Some(now);
        Some(current.write(Stage::Ongoing))
    }
}

impl Current {
    fn count(&mut self, deliveries: usize) {
        self.refused = self.refused.saturating_add(deliveries as u64);
        self.unwritten = self.unwritten.saturating_add(deliveries as u64);
    }

    fn write(&mut self, stage: Stage) -> Line {
        (self.is_announced, self.unwritten) = (true, 0);
        Line { stage, since: self.since, refused: self.refused, why: self.why.clone() }
    }
}

impl Line {
    fn log(&self) {
        let Self { stage, since, refused, why } = self;
        match stage {
            Stage::Begun => {
                tracing::error!(%since, refused, why, "the database cannot be written to");
            }
            Stage::Ongoing => {
                tracing::error!(%since, refused, why, "the database still cannot be written to");
            }
            Stage::Ended => {
                tracing::warn!(%since, refused, why, "the database can be written to again");
            }
        }
    }
}

impl Outage {
    /// Deliveries failed because the database cannot be written to.
    pub fn failed(&self, deliveries: usize, why: &str) {
        let time = Clock::system().now();
        let line = locked(&self.0).failed(deliveries, why, Instant::now(), time);
        if let Some(line) = line {
            line.log();
        }
    }

    /// A delivery was refused because the queue is full; false if there is no outage that
    /// explains it.
    #[must_use]
    pub fn queue_full(&self) -> bool {
        locked(&self.0).queue_full()
    }

    /// A batch was committed.
    pub fn committed(&self) {
        locked(&self.0).committed();
    }

    fn log_if_due(&self) {
        let line = locked(&self.0).due(Instant::now());
        if let Some(line) = line {
            line.log();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn suppressed(subject: &str, lines: u64) -> Suppressed {
        Suppressed { kind: "test", subject: subject.to_owned(), lines }
    }

    #[test]
    fn a_kind_of_line_is_written_once_a_second_and_the_others_are_counted() {
        let mut limiter = Limiter::new();
        let start = Instant::now();
        let mut written = 0;
        let mut counted = 0;
        // 100,000 lines in ten seconds, and the counts that are due, ten times a second.
        for step in 0..100_000 {
            let now = start + step * Duration::from_micros(100);
            written += u64::from(limiter.admit("test", "a", now));
            if step % 1000 == 0 {
                for due in limiter.due(now) {
                    written += 1;
                    counted += due.lines;
                }
            }
        }
        let end = start + Duration::from_secs(10);
        let rest = limiter.due(end + INTERVAL);
        assert_eq!(rest.len(), 1);
        assert!((10..=11).contains(&written), "{written}");
        // The first line is written itself, the others are in the counts.
        assert_eq!(1 + counted + rest[0].lines, 100_000);
    }

    #[test]
    fn lines_of_other_kinds_are_not_held_back() {
        let mut limiter = Limiter::new();
        let now = Instant::now();
        assert!(limiter.admit("test", "a", now));
        assert!(limiter.admit("test", "b", now));
        assert!(limiter.admit("other", "a", now));
        assert!(!limiter.admit("test", "b", now));
        assert_eq!(limiter.due(now + 999 * MILLISECOND), []);
        assert_eq!(limiter.due(now + INTERVAL), [suppressed("b", 1)]);
        assert!(!limiter.admit("test", "b", now + INTERVAL));
        assert_eq!(limiter.rest(now + INTERVAL), [suppressed("b", 1)]);
    }

    #[test]
    fn a_kind_that_is_quiet_for_a_second_is_written_in_full_again_and_takes_no_memory() {
        let mut limiter = Limiter::new();
        let now = Instant::now();
        assert!(limiter.admit("test", "a", now));
        assert!(limiter.admit("test", "a", now + INTERVAL));
        assert_eq!(limiter.due(now + 2 * INTERVAL), []);
        assert!(limiter.0.is_empty());
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let mut limiter = Limiter::new();
        let now = Instant::now();
        let subjects = 0..2 * MAX_KINDS;
        let written =
            subjects.filter(|number| limiter.admit("test", &number.to_string(), now)).count();
        // One for the others.
        assert_eq!(written, MAX_KINDS + 1);
        let due = limiter.due(now + INTERVAL);
        assert_eq!(due, [suppressed(OTHERS, MAX_KINDS as u64 - 1)]);
    }

    fn stages(lines: &[Option<Line>]) -> Vec<Option<(Stage, u64)>> {
        lines.iter().map(|line| line.as_ref().map(|line| (line.stage, line.refused))).collect()
    }

    #[test]
    fn an_outage_has_a_line_at_its_begin_one_a_second_and_one_at_its_end() {
        let mut state = State::default();
        let start = Instant::now();
        let since = DateTime::UNIX_EPOCH;
        let mut lines = Vec::new();
        // A batch fails each millisecond for 3.5 s.
        for step in 0..3500 {
            let now = start + step * MILLISECOND;
            lines.extend(state.failed(2, &step.to_string(), now, since));
        }
        assert!(state.queue_full());
        let stop = start + 3500 * MILLISECOND;
        state.committed();
        // Checked each 250 ms.
        for step in 0..40 {
            lines.extend(state.due(stop + step * CHECK_EVERY));
        }
        let line = |stage, refused, why: &str| Line { stage, since, refused, why: why.to_owned() };
        assert_eq!(
            lines,
            [
                line(Stage::Begun, 2, "0"),
                line(Stage::Ongoing, 2002, "1000"),
                line(Stage::Ongoing, 4002, "2000"),
                line(Stage::Ongoing, 6002, "3000"),
                line(Stage::Ongoing, 7001, "3499"),
                line(Stage::Ended, 7001, "3499"),
            ]
        );
        assert!(!state.queue_full());
    }

    #[test]
    fn a_database_that_comes_and_goes_causes_no_more_lines() {
        let mut state = State::default();
        let start = Instant::now();
        let mut written = 0;
        for step in 0..10_000 {
            let now = start + step * MILLISECOND;
            written += u32::from(state.failed(1, "away", now, DateTime::UNIX_EPOCH).is_some());
            state.committed();
            written += u32::from(state.due(now).is_some());
        }
        assert_eq!(written, 10);
    }

    #[test]
    fn a_short_outage_after_another_one_is_not_lost() {
        let mut state = State::default();
        let start = Instant::now();
        let fail = |state: &mut State, at: u32| {
            state.failed(1, "away", start + at * MILLISECOND, DateTime::UNIX_EPOCH)
        };
        let mut lines = vec![fail(&mut state, 0)];
        state.committed();
        lines.push(state.due(start + 1000 * MILLISECOND));
        lines.push(fail(&mut state, 1100));
        state.committed();
        lines.push(state.due(start + 1999 * MILLISECOND));
        lines.push(state.due(start + 2000 * MILLISECOND));
        lines.push(state.due(start + 3000 * MILLISECOND));
        let expected = [
            Some((Stage::Begun, 1)),
            Some((Stage::Ended, 1)),
            None,
            None,
            Some((Stage::Begun, 1)),
            Some((Stage::Ended, 1)),
        ];
        assert_eq!(stages(&lines), expected);
    }

    #[test]
    fn nothing_is_written_about_a_database_that_can_be_written_to() {
        let mut state = State::default();
        state.committed();
        assert_eq!(state.due(Instant::now()), None);
        assert_eq!(state.rest(Instant::now()), None);
        assert!(!state.queue_full());
    }
}

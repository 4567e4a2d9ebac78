//! When something is sent, and whether still.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How much of what was missed, as while the service was away, is made up for.
const MOST_CATCH_UP: Duration = Duration::from_secs(1);

/// Gives turns, so many a second, or as fast as they are asked for.
#[derive(Debug)]
pub(super) struct Turns {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Turns {
    pub(super) fn new(per_second: Option<f64>, from: Instant) -> Self {
        let interval =
            per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Self { interval, next: Mutex::new(from) }
    }

    /// The time of the next turn, which is taken by asking.
    pub(super) fn take(&self, now: Instant) -> Instant {
        if self.interval.is_zero() {
            return now;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = now.checked_sub(MOST_CATCH_UP).map_or(*next, |earliest| (*next).max(earliest));
        *next = turn + self.interval;
        turn
    }
}

/// Ends a run before its end.
#[derive(Debug)]
pub struct Halt(watch::Sender<bool>);

impl Default for Halt {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Halt {
    /// Asks for the end.
    pub fn halt(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until then, or until the end is asked for; says whether it was
    /// not.
    pub(super) async fn sleep_until(&self, then: Instant) -> bool {
        if then > Instant::now() {
            let mut asked = self.0.subscribe();
            tokio::select! {
                () = tokio::time::sleep_until(then) => {}
                _ = asked.wait_for(|halt| *halt) => {}
            }
        }
        !self.is_asked_for()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_at_their_rate() {
        let start = Instant::now();
        let turns = Turns::new(Some(100.0), start);
        let taken: Vec<_> = (0..3).map(|_| (turns.take(start) - start).as_millis()).collect();
        assert_eq!(taken, [0, 10, 20]);
    }

    #[test]
    fn after_a_pause_a_second_is_caught_up_and_no_more() {
        let start = Instant::now();
        let turns = Turns::new(Some(100.0), start);
        let later = start + Duration::from_mins(1);
        assert_eq!(turns.take(later), later - MOST_CATCH_UP);
        assert_eq!(turns.take(later), later - MOST_CATCH_UP + Duration::from_millis(10));
    }
}

//! Whether what is old may be dropped by the clocks.
//!
//! A clock that is wrong by years makes everything old. So the clocks of the database and of
//! this machine must agree, and the database's clock must advance as the monotonic clock
//! does.
//!
//! Deliberately absent: the time of earlier runs of the program. If both clocks are wrong
//! when it starts, that is not noticed.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

/// The most by which the two clocks may differ.
const MAX_DIFFERENCE: TimeDelta = TimeDelta::minutes(1);

/// The most by which the database's clock may be set between two checks.
const MAX_JUMP: TimeDelta = TimeDelta::days(1);

/// Checks clocks. After a jump it fails until the clock is set back or the program is
/// restarted.
#[derive(Debug, Default)]
pub(super) struct ClockCheck {
    /// The last check that succeeded.
    last: Option<(DateTime<Utc>, Instant)>,
}

/// Why nothing may be dropped by the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The two clocks differ.
    #[error(
        "the clock of the database says {server}, and the clock of this machine says {local}: \
         set the one that is wrong"
    )]
    Difference {
        /// The time of the database.
        server: DateTime<Utc>,
        /// The time of this machine.
        local: DateTime<Utc>,
    },
    /// The database's clock was set.
    #[error(
        "the clock of the database says {server}, and should say {expected}: if it is right, \
         restart callstate"
    )]
    Jump {
        /// The time of the database.
        server: DateTime<Utc>,
        /// The time by the last check and the monotonic clock.
        expected: DateTime<Utc>,
    },
}

impl ClockCheck {
    /// Checks the time of the database against that of this machine and the last check.
    pub(super) fn check(
        &mut self,
        server: DateTime<Utc>,
        local: DateTime<Utc>,
        now: Instant,
    ) -> Result<(), ClockError> {
        if (server - local).abs() > MAX_DIFFERENCE {
            return Err(ClockError::Difference { server, local });
        }
        if let Some((last, checked_at)) = self.last {
            let elapsed = now.saturating_duration_since(checked_at);
            let elapsed = TimeDelta::from_std(elapsed).unwrap_or(TimeDelta::MAX);
            let expected = last.checked_add_signed(elapsed).unwrap_or(DateTime::<Utc>::MAX_UTC);
            if (server - expected).abs() > MAX_JUMP {
                return Err(ClockError::Jump { server, expected });
            }
        }
        self.last = Some((server, now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOON: DateTime<Utc> = DateTime::from_timestamp(1_779_624_000, 0).unwrap();
    const MICROSECOND: TimeDelta = TimeDelta::microseconds(1);

    #[test]
    fn the_clocks_may_differ_by_a_minute() {
        for (difference, is_right) in [
            (TimeDelta::zero(), true),
            (TimeDelta::minutes(1), true),
            (TimeDelta::minutes(-1), true),
            (TimeDelta::minutes(1) + MICROSECOND, false),
            (TimeDelta::minutes(-1) - MICROSECOND, false),
            (TimeDelta::days(10_000), false),
        ] {
            let checked = ClockCheck::default().check(NOON + difference, NOON, Instant::now());
            assert_eq!(checked.is_ok(), is_right, "{difference}");
        }
    }

    #[test]
    fn a_clock_that_jumps_by_more_than_a_day_is_not_believed_until_it_is_set_back() {
        let start = Instant::now();
        let minute = Duration::from_mins(1);
        for jump in [MAX_JUMP + MICROSECOND, -MAX_JUMP - MICROSECOND, TimeDelta::days(3650)] {
            let mut check = ClockCheck::default();
            let mut at = |minutes: i32, jump| {
                let time = NOON + TimeDelta::minutes(minutes.into()) + jump;
                // Both clocks are of one machine.
                check.check(time, time, start + minutes.unsigned_abs() * minute)
            };
            assert_eq!(at(0, TimeDelta::zero()), Ok(()));
            for minutes in 1..100 {
                let checked = at(minutes, jump);
                assert!(matches!(checked, Err(ClockError::Jump { .. })), "{checked:?}");
            }
            assert_eq!(at(100, TimeDelta::zero()), Ok(()));
        }
    }

    #[test]
    fn a_database_that_was_away_for_days_has_not_jumped() {
        let start = Instant::now();
        let mut check = ClockCheck::default();
        check.check(NOON, NOON, start).unwrap();
        let week = TimeDelta::days(7);
        check.check(NOON + week, NOON + week, start + week.to_std().unwrap()).unwrap();
    }

    #[test]
    fn a_clock_that_drifts_is_believed() {
        let start = Instant::now();
        let mut check = ClockCheck::default();
        for hour in 0..100 {
            let time = NOON + TimeDelta::hours(2 * hour);
            let now = start + Duration::from_hours(hour.unsigned_abs());
            check.check(time, time, now).unwrap();
        }
    }
}

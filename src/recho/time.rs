//! The `Time:` line of `body.text`: the provider's only hint of when an event
//! happened.

use chrono::{DateTime, FixedOffset, NaiveDateTime, SubsecRound, Timelike, Utc};

use crate::call::event::MAX_AHEAD;

/// When the event happened, to the microsecond: what the last line that begins
/// with `Time:` says, at the provider's `offset` from UTC. `None` where there is
/// no such line, it cannot be read, or it lies more than [`MAX_AHEAD`] after
/// `received_at`.
#[must_use]
pub fn occurred_at(
    text: &str,
    offset: FixedOffset,
    received_at: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let line = text.lines().rev().find_map(|line| line.strip_prefix("Time:"))?;
    let at = read(line.trim(), offset)?.trunc_subsecs(6);
    // Where time itself ends before that, nothing lies beyond.
    let latest = received_at.checked_add_signed(MAX_AHEAD);
    latest.is_none_or(|latest| at <= latest).then_some(at)
}

fn read(time: &str, offset: FixedOffset) -> Option<DateTime<Utc>> {
    // Years of four digits: chrono takes longer ones, which Postgres cannot hold.
    if time.bytes().position(|byte| !byte.is_ascii_digit()) != Some(4) {
        return None;
    }
    let at = NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S%.f")
        .ok()
        .and_then(|local| local.and_local_timezone(offset).single())
        .or_else(|| DateTime::parse_from_rfc3339(time).ok())?;
    // A leap second would change its place when it is stored.
    (at.nanosecond() < 1_000_000_000).then(|| at.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTC: FixedOffset = FixedOffset::east_opt(0).unwrap();

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn read_on_noon(text: &str) -> Option<DateTime<Utc>> {
        occurred_at(text, UTC, at("2026-05-12T12:00:00Z"))
    }

    #[test]
    fn the_last_time_line_counts() {
        let text = "Time: 2026-05-12 09:00:00\ncallId: x\nTime: 2026-05-12 10:24:00\r\n";
        assert_eq!(read_on_noon(text), Some(at("2026-05-12T10:24:00Z")));
        assert_eq!(read_on_noon("Time: 2026-05-12 09:00:00\nTime: soon"), None);
    }

    #[test]
    fn fractions_and_offsets_are_read_where_there_are_any() {
        assert_eq!(
            read_on_noon("Time:2026-05-12 10:24:00.1234567"),
            Some(at("2026-05-12T10:24:00.123456Z")),
        );
        assert_eq!(
            read_on_noon("Time: 2026-05-12T10:24:00+02:00"),
            Some(at("2026-05-12T08:24:00Z")),
        );
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "no time",
            "Time:",
            "Time: 10:24:00",
            "Time: 2026-02-30 10:24:00",
            "Time: 2016-12-31 23:59:60",
            "Time: +12026-05-12 10:24:00",
            "Time: 12026-05-12 10:24:00",
            " Time: 2026-05-12 10:24:00",
            "Sent at Time: 2026-05-12 10:24:00",
        ] {
            assert_eq!(read_on_noon(text), None, "{text:?}");
        }
    }

    #[test]
    fn it_is_read_at_the_configured_offset() {
        let tokyo = FixedOffset::east_opt(9 * 3600).unwrap();
        let received = at("2026-05-12T12:00:00Z");
        assert_eq!(
            occurred_at("Time: 2026-05-12 10:24:00", tokyo, received),
            Some(at("2026-05-12T01:24:00Z")),
        );
    }

    #[test]
    fn five_minutes_ahead_are_believed_and_no_more() {
        assert_eq!(read_on_noon("Time: 2026-05-12 12:05:00"), Some(at("2026-05-12T12:05:00Z")));
        assert_eq!(read_on_noon("Time: 2026-05-12 12:05:01"), None);
    }

    #[test]
    fn at_the_end_of_time_nothing_is_ahead() {
        let noon = "Time: 2026-05-12 12:00:00";
        for end in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MAX_UTC - MAX_AHEAD] {
            assert_eq!(occurred_at(noon, UTC, end), Some(at("2026-05-12T12:00:00Z")), "{end}");
        }
    }
}

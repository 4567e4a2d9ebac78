//! The `Time:` line of `body.text`: the only statement of the provider about
//! when an event happened.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use super::time_zone::{ProviderTimeZone, parse_offset};
use crate::call::{TimeProblem, event::MAX_AHEAD};

/// Times before the start of the year 2000 are implausible, in Unix seconds.
const YEAR_2000: i64 = 946_684_800;

/// Numbers from here on are Unix milliseconds: as seconds they lie beyond the
/// year 5000, as milliseconds this one is in 1973.
const MIN_MILLISECONDS: i64 = 100_000_000_000;

/// The most characters of an example line.
const MAX_EXAMPLE: usize = 100;

/// What was read from the `Time:` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeReading {
    /// The time, to the microsecond.
    Read(DateTime<Utc>),
    /// The text has no such line.
    Missing,
    /// The line is not in a known form, or its local time does not occur.
    Unreadable {
        /// The line, shortened and without control characters.
        example: String,
    },
    /// The time is before the year 2000 or more than [`MAX_AHEAD`] after the receipt.
    Implausible {
        /// The line, shortened and without control characters.
        example: String,
    },
}

impl TimeReading {
    /// Reads the last line of `text` that begins with `time` and a colon. A
    /// local time without a zone is one of `time_zone`.
    #[must_use]
    pub fn of_text(text: &str, time_zone: ProviderTimeZone, received_at: DateTime<Utc>) -> Self {
        let mut lines = text.rsplit(['\n', '\r']);
        let Some((line, value)) = lines.find_map(|line| Some((line, time_value(line)?))) else {
            return Self::Missing;
        };
        match parse(value, time_zone) {
            Some(at) if is_plausible(at, received_at) => Self::Read(at),
            Some(_) => Self::Implausible { example: example(line) },
            None => Self::Unreadable { example: example(line) },
        }
    }

    /// The time, if it is used.
    #[must_use]
    pub const fn occurred_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Read(at) => Some(*at),
            Self::Missing | Self::Unreadable { .. } | Self::Implausible { .. } => None,
        }
    }

    /// Why a time that was given is not used.
    #[must_use]
    pub const fn problem(&self) -> Option<TimeProblem> {
        match self {
            Self::Read(_) | Self::Missing => None,
            Self::Unreadable { .. } => Some(TimeProblem::Unreadable),
            Self::Implausible { .. } => Some(TimeProblem::Implausible),
        }
    }

    /// The line that is not used, fit for a log.
    #[must_use]
    pub fn example(&self) -> Option<&str> {
        match self {
            Self::Read(_) | Self::Missing => None,
            Self::Unreadable { example } | Self::Implausible { example } => Some(example),
        }
    }

    /// The result as one of four words, for metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Missing => "missing",
            Self::Unreadable { .. } => "unreadable",
            Self::Implausible { .. } => "implausible",
        }
    }
}

/// The text after the colon, if the line begins with `time` and a colon.
fn time_value(line: &str) -> Option<&str> {
    let (word, rest) = line.trim_start().split_at_checked("time".len())?;
    if !word.eq_ignore_ascii_case("time") {
        return None;
    }
    // The second one is the full-width colon of East Asian keyboards.
    rest.trim_start().strip_prefix([':', '：']).map(str::trim)
}

fn is_plausible(at: DateTime<Utc>, received_at: DateTime<Utc>) -> bool {
    // Nothing is too late where the sum is beyond the range of `DateTime`.
    let latest = received_at.checked_add_signed(MAX_AHEAD);
    at.timestamp() >= YEAR_2000 && latest.is_none_or(|latest| at <= latest)
}

fn example(line: &str) -> String {
    line.trim()
        .chars()
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .take(MAX_EXAMPLE)
        .collect()
}

fn parse(value: &str, time_zone: ProviderTimeZone) -> Option<DateTime<Utc>> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return unix_time(value);
    }
    let mut parser = Parser { rest: value };
    let local = parser.date_time()?;
    match parser.zone()? {
        Some(offset) => {
            let seconds = TimeDelta::seconds(offset.local_minus_utc().into());
            local.checked_sub_signed(seconds).map(|utc| utc.and_utc())
        }
        None => time_zone.to_utc(local),
    }
}

/// Unix seconds or milliseconds.
fn unix_time(digits: &str) -> Option<DateTime<Utc>> {
    let number: i64 = digits.parse().ok()?;
    if number < MIN_MILLISECONDS {
        DateTime::from_timestamp(number, 0)
    } else {
        DateTime::from_timestamp_millis(number)
    }
}

/// Reads a date and time from the front of a text.
struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    /// `2026-05-12 10:24:00.5`: a leap second is not a time, since it could not
    /// be stored.
    fn date_time(&mut self) -> Option<NaiveDateTime> {
        // Years of four digits: chrono takes longer ones, which Postgres cannot hold.
        let year = self.number(4, 4)?;
        let separator = self.one_of(&['-', '/'])?;
        let month = self.number(1, 2)?;
        self.one_of(&[separator])?;
        let day = self.number(1, 2)?;
        if !self.skip_blanks() {
            self.one_of(&['T', 't'])?;
        }
        let hour = self.number(1, 2)?;
        self.one_of(&[':'])?;
        let minute = self.number(2, 2)?;
        let (mut second, mut microsecond) = (0, 0);
        if self.one_of(&[':']).is_some() {
            second = self.number(2, 2)?;
            if self.one_of(&['.', ',']).is_some() {
                microsecond = self.fraction()?;
            }
        }
        NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?.and_hms_micro_opt(
            hour,
            minute,
            second,
            microsecond,
        )
    }

    /// What is left, as a zone: `Some(None)` where nothing is left, `None` where
    /// it is not a zone.
    #[expect(
        clippy::option_option,
        reason = "no zone, a zone and an unreadable one are three things"
    )]
    fn zone(&mut self) -> Option<Option<FixedOffset>> {
        self.skip_blanks();
        if self.rest.is_empty() {
            return Some(None);
        }
        let is_utc = ["Z", "UTC", "GMT"].iter().any(|name| self.rest.eq_ignore_ascii_case(name));
        let offset = if is_utc { FixedOffset::east_opt(0) } else { parse_offset(self.rest) };
        offset.map(Some)
    }

    /// A number of at least `min` digits; reads at most `max`.
    fn number(&mut self, min: usize, max: usize) -> Option<u32> {
        let digits = self.digits(max);
        if digits.len() < min { None } else { digits.parse().ok() }
    }

    /// The digits after a decimal mark, in microseconds; further ones are cut off.
    fn fraction(&mut self) -> Option<u32> {
        let digits = self.digits(usize::MAX);
        if digits.is_empty() {
            return None;
        }
        let read = &digits[..digits.len().min(6)];
        let number: u32 = read.parse().ok()?;
        // At most six digits are read, so the power is at most a million.
        let missing = u32::try_from(6 - read.len()).ok()?;
        Some(number * 10_u32.pow(missing))
    }

    fn digits(&mut self, max: usize) -> &str {
        let count = self.rest.bytes().take(max).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        digits
    }

    fn one_of(&mut self, characters: &[char]) -> Option<char> {
        let first = self.rest.chars().next().filter(|first| characters.contains(first))?;
        self.rest = &self.rest[first.len_utf8()..];
        Some(first)
    }

    /// Whether there was at least one blank.
    fn skip_blanks(&mut self) -> bool {
        let length = self.rest.len();
        self.rest = self.rest.trim_start();
        self.rest.len() < length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// Reads a text that was received at noon on 2026-05-12.
    fn read(text: &str) -> TimeReading {
        TimeReading::of_text(text, ProviderTimeZone::UTC, at("2026-05-12T12:00:00Z"))
    }

    fn assert_read(line: &str, time: &str) {
        assert_eq!(read(line), TimeReading::Read(at(time)), "{line:?}");
    }

    fn assert_unreadable(line: &str) {
        assert_eq!(read(line).as_str(), "unreadable", "{line:?}");
    }

    #[test]
    fn the_last_time_line_counts() {
        assert_read(
            "Time: 2026-05-12 09:00:00\ncallId: x\nTime: 2026-05-12 10:24:00\r\n",
            "2026-05-12T10:24:00Z",
        );
        assert_read("Time: 2026-05-12 09:00:00\rcallId: x", "2026-05-12T09:00:00Z");
        assert_unreadable("Time: 2026-05-12 09:00:00\nTime: soon");
        assert_unreadable("Time: 2026-05-12 09:00:00\ntime :");
    }

    #[test]
    fn the_line_begins_with_time_and_a_colon_in_any_case_and_with_any_blanks() {
        for start in [
            "Time:",
            "TIME:",
            "time: ",
            "  tImE  : ",
            "\tTime\t:\t",
            "Time：",
            "Time ： ",
            "\u{3000}time:",
        ] {
            assert_read(&format!("{start}2026-05-12 10:24:00  "), "2026-05-12T10:24:00Z");
        }
    }

    #[test]
    fn a_text_without_the_line_has_no_time() {
        for text in [
            "",
            "tim",
            "time",
            "Time 2026-05-12 10:24:00",
            "Timezone: UTC",
            "Times: 2026-05-12 10:24:00",
            "Sent at Time: 2026-05-12 10:24:00",
            "Zeit: 2026-05-12 10:24:00",
            "日時: 2026-05-12 10:24:00",
        ] {
            assert_eq!(read(text), TimeReading::Missing, "{text:?}");
        }
    }

    #[test]
    fn every_form_of_date_and_time_is_read() {
        for value in [
            "2026-05-12 10:24:00",
            "2026-05-12T10:24:00",
            "2026-05-12t10:24:00",
            "2026-05-12 \t 10:24:00",
            "2026/05/12 10:24:00",
            "2026/05/12T10:24",
            "2026-5-12 10:24",
            "2026-05-12 10:24:00.0",
            "2026-05-12 10:24:00.0000009",
            "1778581440",
            "1778581440000",
        ] {
            assert_read(&format!("Time: {value}"), "2026-05-12T10:24:00Z");
        }
        assert_read("Time: 2026-05-12 9:05", "2026-05-12T09:05:00Z");
    }

    #[test]
    fn fractions_are_kept_to_the_microsecond() {
        for (value, time) in [
            ("2026-05-12 10:24:00.5", "2026-05-12T10:24:00.5Z"),
            ("2026-05-12 10:24:00,5", "2026-05-12T10:24:00.5Z"),
            ("2026-05-12 10:24:00.1234567", "2026-05-12T10:24:00.123456Z"),
            ("2026-05-12T10:24:00.000001Z", "2026-05-12T10:24:00.000001Z"),
            ("1778581440123", "2026-05-12T10:24:00.123Z"),
        ] {
            assert_read(&format!("Time: {value}"), time);
        }
        assert_read(
            &format!("Time: 2026-05-12 10:24:00.{}", "9".repeat(1000)),
            "2026-05-12T10:24:00.999999Z",
        );
    }

    #[test]
    fn a_zone_in_the_line_counts_more_than_the_configured_one() {
        let seoul = "Asia/Seoul".parse().unwrap();
        for (value, time) in [
            ("2026-05-12 10:24:00Z", "2026-05-12T10:24:00Z"),
            ("2026-05-12T10:24z", "2026-05-12T10:24:00Z"),
            ("2026-05-12 10:24:00 Z", "2026-05-12T10:24:00Z"),
            ("2026-05-12 10:24:00 UTC", "2026-05-12T10:24:00Z"),
            ("2026-05-12 10:24:00utc", "2026-05-12T10:24:00Z"),
            ("2026-05-12 10:24:00 GMT", "2026-05-12T10:24:00Z"),
            ("2026-05-12 10:24:00+02:00", "2026-05-12T08:24:00Z"),
            ("2026-05-12 10:24:00 +0200", "2026-05-12T08:24:00Z"),
            ("2026-05-12 10:24:00.25 -01", "2026-05-12T11:24:00.25Z"),
            ("2026-05-12 10:24 +05:30", "2026-05-12T04:54:00Z"),
            ("2026-05-12 10:24:00", "2026-05-12T01:24:00Z"),
            ("1778581440", "2026-05-12T10:24:00Z"),
        ] {
            let read =
                TimeReading::of_text(&format!("Time: {value}"), seoul, at("2026-05-12T12:00:00Z"));
            assert_eq!(read, TimeReading::Read(at(time)), "{value}");
        }
    }

    #[test]
    fn other_values_are_unreadable() {
        for value in [
            "",
            "soon",
            "null",
            "10:24:00",
            "2026-05-12",
            "2026-05-12 10",
            "2026-05-12 10:4:00",
            "2026-05-12 10:24:0",
            "2026-05-12 10:24:",
            "2026-05-12 10:24:00.",
            "2026-05-12 10:24.5",
            "2026-05-12-10:24:00",
            "2026-05/12 10:24:00",
            "12-05-2026 10:24:00",
            "26-05-12 10:24:00",
            "2026-13-12 10:24:00",
            "2026-02-30 10:24:00",
            "2026-00-12 10:24:00",
            "2026-05-12 24:00:00",
            "2026-05-12 10:60:00",
            "2016-12-31 23:59:60",
            "+2026-05-12 10:24:00",
            "12026-05-12 10:24:00",
            "2026-05-12 10:24:00 PM",
            "2026-05-12 10:24:00 (UTC)",
            "2026-05-12 10:24:00 KST",
            "2026-05-12 10:24:00 +9",
            "2026-05-12 10:24:00 +24:00",
            "2026-05-12 10:24:00 +09:00 UTC",
            "٢٠٢٦-05-12 10:24:00",
            "-1778581440",
            "1778581440.5",
            "99999999999999999999",
            "9223372036854775807",
        ] {
            assert_unreadable(&format!("Time: {value}"));
        }
    }

    #[test]
    fn times_from_the_year_2000_to_five_minutes_after_receipt_are_plausible() {
        for (value, result) in [
            ("2026-05-12 12:05:00", "read"),
            ("2026-05-12 12:05:00.000001", "implausible"),
            ("2026-05-12 12:05:01", "implausible"),
            ("9999-12-31 23:59:59", "implausible"),
            ("2000-01-01 00:00:00", "read"),
            ("1999-12-31 23:59:59.999999", "implausible"),
            ("2000-01-01 00:00:00 +00:01", "implausible"),
            ("1970-01-01 00:00:00", "implausible"),
            ("0000-01-01 00:00:00 +23:59", "implausible"),
            ("0", "implausible"),
            ("20260512", "implausible"),
            ("946684800", "read"),
            ("946684799", "implausible"),
            ("946684800000", "read"),
            ("946684799999", "implausible"),
            ("1778581440000000", "implausible"),
        ] {
            assert_eq!(read(&format!("Time: {value}")).as_str(), result, "{value}");
        }
    }

    #[test]
    fn no_time_is_too_late_at_the_end_of_time() {
        let noon = "Time: 2026-05-12 12:00:00";
        for end in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MAX_UTC - MAX_AHEAD] {
            let read = TimeReading::of_text(noon, ProviderTimeZone::UTC, end);
            assert_eq!(read, TimeReading::Read(at("2026-05-12T12:00:00Z")), "{end}");
        }
    }

    #[test]
    fn the_example_is_the_line_shortened_and_without_control_characters() {
        let reading = read("first\n  Time: so\u{1b}on \nlast");
        assert_eq!(reading, TimeReading::Unreadable { example: "Time: so\u{fffd}on".to_owned() });
        assert_eq!(reading.problem(), Some(TimeProblem::Unreadable));
        let reading = read("Time: 1970-01-01 00:00");
        assert_eq!(reading.example(), Some("Time: 1970-01-01 00:00"));
        assert_eq!(reading.problem(), Some(TimeProblem::Implausible));
        assert_eq!(reading.occurred_at(), None);
        let long = read(&format!("Time: {}", "ü".repeat(1000)));
        assert_eq!(long.example().map(|line| line.chars().count()), Some(MAX_EXAMPLE));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reading_panic(
            text in any::<String>(),
            like_a_time in r"\s?[Tt]ime ?[:：][0-9TZ:/+. -]{0,40}",
            zone in prop::sample::select(&["UTC", "Europe/Berlin", "+23:59", "-23:59"][..]),
        ) {
            let zone = zone.parse().unwrap();
            let _ = TimeReading::of_text(&text, zone, at("2026-05-12T12:00:00Z"));
            let reading = TimeReading::of_text(&like_a_time, zone, at("2026-05-12T12:00:00Z"));
            prop_assert_ne!(reading, TimeReading::Missing);
        }

        #[test]
        fn whatever_the_provider_writes_in_a_zone_is_read_in_it(
            seconds in 946_771_200..1_778_500_000_i64,
            zone in prop::sample::select(&["UTC", "Asia/Seoul", "+05:45", "-09:30"][..]),
        ) {
            let zone: ProviderTimeZone = zone.parse().unwrap();
            let time = DateTime::from_timestamp(seconds, 0).unwrap();
            let text = format!("callId: x\nTime: {}", zone.to_local(time).format("%F %T"));
            let reading = TimeReading::of_text(&text, zone, at("2026-05-12T12:00:00Z"));
            prop_assert_eq!(reading, TimeReading::Read(time));
        }
    }
}

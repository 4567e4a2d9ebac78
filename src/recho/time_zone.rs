//! The time zone in which the provider writes local times.

use std::{fmt, str::FromStr};

use chrono::{DateTime, FixedOffset, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};

/// An IANA time zone or a fixed offset from UTC.
///
/// The rules of the IANA zones are compiled in, so they do not depend on files
/// of the machine and change with an upgrade of `chrono-tz` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderTimeZone(Zone);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Offset(FixedOffset),
    Named(Tz),
}

/// A text that is neither an IANA time zone nor an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither an IANA time zone, such as Asia/Seoul, nor an offset, such as +09:00")]
pub struct TimeZoneError;

impl ProviderTimeZone {
    /// UTC, the default.
    pub const UTC: Self = Self(Zone::Named(Tz::UTC));

    /// The moment of a local time: the earlier one where the local time occurs
    /// twice, `None` where it does not occur.
    #[must_use]
    pub fn to_utc(self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        match self.0 {
            Zone::Offset(offset) => {
                offset.from_local_datetime(&local).earliest().map(|at| at.to_utc())
            }
            Zone::Named(zone) => zone.from_local_datetime(&local).earliest().map(|at| at.to_utc()),
        }
    }

    /// The local time at a moment.
    #[must_use]
    pub fn to_local(self, at: DateTime<Utc>) -> NaiveDateTime {
        match self.0 {
            Zone::Offset(offset) => at.with_timezone(&offset).naive_local(),
            Zone::Named(zone) => at.with_timezone(&zone).naive_local(),
        }
    }
}

impl Default for ProviderTimeZone {
    fn default() -> Self {
        Self::UTC
    }
}

impl From<FixedOffset> for ProviderTimeZone {
    fn from(offset: FixedOffset) -> Self {
        Self(Zone::Offset(offset))
    }
}

impl From<Tz> for ProviderTimeZone {
    fn from(zone: Tz) -> Self {
        Self(Zone::Named(zone))
    }
}

impl FromStr for ProviderTimeZone {
    type Err = TimeZoneError;

    /// Reads the name of an IANA time zone in any case, or an offset: `+09:00`,
    /// `+0900`, `+09` or `Z`.
    fn from_str(text: &str) -> Result<Self, TimeZoneError> {
        if text.eq_ignore_ascii_case("z") {
            return Ok(Self::UTC);
        }
        if let Some(offset) = parse_offset(text) {
            return Ok(offset.into());
        }
        TZ_VARIANTS
            .iter()
            .find(|zone| zone.name().eq_ignore_ascii_case(text))
            .map(|zone| (*zone).into())
            .ok_or(TimeZoneError)
    }
}

impl fmt::Display for ProviderTimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Zone::Offset(offset) => f.pad(&offset.to_string()),
            Zone::Named(zone) => f.pad(zone.name()),
        }
    }
}

/// Reads an offset from UTC: `+09:00`, `+0900` or `+09`, with either sign.
pub(super) fn parse_offset(text: &str) -> Option<FixedOffset> {
    let (is_west, digits) = match text.as_bytes() {
        [b'+', digits @ ..] => (false, digits),
        [b'-', digits @ ..] => (true, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [a, b] => (two_digits(*a, *b)?, 0),
        [a, b, c, d] | [a, b, b':', c, d] => (two_digits(*a, *b)?, two_digits(*c, *d)?),
        _ => return None,
    };
    if hours >= 24 || minutes >= 60 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    FixedOffset::east_opt(if is_west { -seconds } else { seconds })
}

fn two_digits(tens: u8, ones: u8) -> Option<i32> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(text: &str) -> ProviderTimeZone {
        text.parse().unwrap()
    }

    fn to_utc(zone: &str, local: &str) -> Option<String> {
        let zone: ProviderTimeZone = zone.parse().unwrap();
        let at = zone.to_utc(local.parse().unwrap())?;
        Some(at.format("%FT%TZ").to_string())
    }

    #[test]
    fn names_and_offsets_are_read_and_written_in_one_form() {
        for (text, written) in [
            ("UTC", "UTC"),
            ("utc", "UTC"),
            ("Z", "UTC"),
            ("z", "UTC"),
            ("Asia/Seoul", "Asia/Seoul"),
            ("europe/berlin", "Europe/Berlin"),
            ("Etc/GMT-9", "Etc/GMT-9"),
            ("+09:00", "+09:00"),
            ("+0900", "+09:00"),
            ("-09", "-09:00"),
            ("-05:30", "-05:30"),
            ("+23:59", "+23:59"),
        ] {
            assert_eq!(zone(text).to_string(), written, "{text}");
            assert_eq!(zone(written), zone(text), "{text}");
        }
        assert_eq!(ProviderTimeZone::default(), zone("UTC"));
    }

    #[test]
    fn other_texts_are_errors() {
        for text in [
            "",
            " ",
            "+9",
            "9",
            "+9:00",
            "+09:0",
            "+24:00",
            "+09:60",
            "+09:00:00",
            "+0a:00",
            "+-9:00",
            "++09",
            "Seoul",
            "UTC+9",
            "Asia/Seoul ",
            "−09:00",
            "+०९",
        ] {
            assert_eq!(text.parse::<ProviderTimeZone>(), Err(TimeZoneError), "{text:?}");
        }
    }

    #[test]
    fn a_local_time_that_occurs_twice_is_the_earlier_one() {
        for (name, local, at) in [
            ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
            ("Europe/Berlin", "2026-10-25T02:00:00", "2026-10-25T00:00:00Z"),
            ("Europe/Berlin", "2026-10-25T03:00:00", "2026-10-25T02:00:00Z"),
            ("America/New_York", "2026-11-01T01:59:59", "2026-11-01T05:59:59Z"),
            // Half an hour, in the southern autumn.
            ("Australia/Lord_Howe", "2026-04-05T01:45:00", "2026-04-04T14:45:00Z"),
        ] {
            assert_eq!(to_utc(name, local).as_deref(), Some(at), "{name} {local}");
        }
    }

    #[test]
    fn a_local_time_that_does_not_occur_has_no_moment() {
        for (name, local) in [
            ("Europe/Berlin", "2026-03-29T02:00:00"),
            ("Europe/Berlin", "2026-03-29T02:59:59"),
            ("America/New_York", "2026-03-08T02:30:00"),
            // The islands skipped this day.
            ("Pacific/Apia", "2011-12-30T12:00:00"),
        ] {
            assert_eq!(to_utc(name, local), None, "{name} {local}");
        }
        assert_eq!(
            to_utc("Europe/Berlin", "2026-03-29T03:00:00").as_deref(),
            Some("2026-03-29T01:00:00Z"),
        );
    }

    #[test]
    fn local_times_at_the_ends_of_time_do_not_panic() {
        for zone in ["UTC", "Asia/Seoul", "-23:59", "+23:59"].map(zone) {
            for local in [NaiveDateTime::MIN, NaiveDateTime::MAX] {
                let _ = zone.to_utc(local);
            }
        }
    }

    proptest! {
        #[test]
        fn a_moment_is_found_again_by_its_local_time(
            index in 0..TZ_VARIANTS.len(),
            // 2000 to 2037.
            seconds in 946_684_800..2_145_916_800_i64,
        ) {
            let zone = ProviderTimeZone::from(TZ_VARIANTS[index]);
            let at = DateTime::from_timestamp(seconds, 0).unwrap();
            let found = zone.to_utc(zone.to_local(at)).unwrap();
            prop_assert!(found <= at, "the earlier one");
            prop_assert_eq!(zone.to_local(found), zone.to_local(at));
        }

        #[test]
        fn no_text_makes_the_reading_panic(text in any::<String>(), digits in "[+-][0-9:]{0,6}") {
            let _ = text.parse::<ProviderTimeZone>();
            let _ = digits.parse::<ProviderTimeZone>();
        }
    }
}

//! Pages: how long they are, and the cursors that say where they ended.
//!
//! A cursor is the place of the last thing that was shown, as opaque text. It
//! stays right however many come before or after that place, and it is believed
//! no further than its form: whoever makes one up sees a page that begins
//! elsewhere.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Datelike as _, Utc};
use utoipa::{
    IntoParams,
    openapi::{
        ObjectBuilder, Type,
        path::{Parameter, ParameterIn},
    },
};

use crate::http::query::parameter;

/// The first year of which Postgres holds each instant (4713 BC). Its last is
/// beyond what chrono holds.
pub(crate) const FIRST_YEAR: i32 = -4712;

/// The parameters of what comes in pages: at most `MOST` on one, and `UNSAID`
/// where it is not said.
pub(crate) struct PageParameters<const MOST: u16, const UNSAID: u16>;

impl<const MOST: u16, const UNSAID: u16> IntoParams for PageParameters<MOST, UNSAID> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MOST))
            .default(Some(UNSAID.into()));
        let cursor = ObjectBuilder::new().schema_type(Type::String);
        let meaning = "Where the page begins: the `next_cursor` of the one before.";
        vec![
            parameter("limit", ParameterIn::Query, "The most on a page.", limit),
            parameter("cursor", ParameterIn::Query, meaning, cursor),
        ]
    }
}

/// Reads the parameter `limit`.
pub(crate) fn read_limit(limit: &str, most: u16) -> Result<u16, String> {
    limit
        .parse()
        .ok()
        .filter(|limit| (1..=most).contains(limit))
        .ok_or_else(|| format!("must be a number from 1 to {most}"))
}

/// The cursor of a place that is made of these parts.
pub(crate) fn write_cursor(place: &[&[u8]]) -> String {
    URL_SAFE_NO_PAD.encode(place.concat())
}

/// Reads a cursor of so many bytes as `place` does.
pub(crate) fn read_cursor<const N: usize, T>(
    cursor: &str,
    place: impl FnOnce([u8; N]) -> Option<T>,
) -> Result<T, String> {
    read_long_cursor(cursor, |bytes| place(bytes.try_into().ok()?))
}

/// Reads a cursor of any length as `place` does.
pub(crate) fn read_long_cursor<T>(
    cursor: &str,
    place: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, String> {
    URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| place(&bytes))
        .ok_or_else(|| "is no cursor of this service".to_owned())
}

/// A time in a cursor: microseconds since 1970.
pub(crate) fn write_time(at: DateTime<Utc>) -> [u8; 8] {
    at.timestamp_micros().to_be_bytes()
}

/// The time, if Postgres can hold it.
pub(crate) fn read_time(bytes: [u8; 8]) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(i64::from_be_bytes(bytes)).filter(|at| at.year() >= FIRST_YEAR)
}

/// Cuts what was read for a page, one more than it shows, to its length. Tells
/// the last that is shown, if there is more behind it.
pub(crate) fn cut<T>(shown: &mut Vec<T>, limit: u16) -> Option<&T> {
    let has_more = shown.len() > usize::from(limit);
    shown.truncate(limit.into());
    shown.last().filter(|_| has_more)
}

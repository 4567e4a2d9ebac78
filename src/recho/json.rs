//! JSON as the provider writes it.
//!
//! Transcripts and stack traces contain what the JSON grammar allows and most
//! parsers reject: lone surrogates, numbers beyond a double, the same key twice.
//! [`parse`] accepts all of them, because it keeps strings and numbers as they
//! are written; escapes are resolved by [`Text::decode`] where they are needed.
//!
//! `serde_json` checks the grammar ([RFC 8259]); the tree is built here from
//! text that is known to be valid. It borrows from the body.
//!
//! [RFC 8259]: https://www.rfc-editor.org/rfc/rfc8259

use std::{borrow::Cow, str::Utf8Error};

use serde_json::value::RawValue;

/// The deepest nesting of arrays and objects that is accepted. It bounds the
/// stack here and in Postgres, whose own limit is some thousands.
pub const MAX_DEPTH: usize = 512;

/// U+FEFF in UTF-8, which some senders write before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A JSON value, borrowed from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it is written.
    Number(&'a str),
    /// A string.
    String(Text<'a>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object, its members in the order in which they are written.
    Object(Vec<(Text<'a>, Json<'a>)>),
}

/// Why a body is not accepted as JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It has no bytes, or white space only.
    #[error("empty")]
    Empty,
    /// It is not UTF-8.
    #[error("not UTF-8: {0}")]
    Encoding(#[from] Utf8Error),
    /// It violates the grammar.
    #[error("not JSON: {0}")]
    Grammar(#[from] serde_json::Error),
    /// It is nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Parses one JSON value; returns it with the text that it was parsed from.
///
/// A UTF-8 byte order mark is not part of that text: [RFC 8259, section 8.1]
/// lets a parser ignore it, and Postgres would reject it in a `json` value.
///
/// # Errors
///
/// Fails if the bytes are not one JSON value, or are nested too deep.
///
/// [RFC 8259, section 8.1]: https://www.rfc-editor.org/rfc/rfc8259#section-8.1
pub fn parse(body: &[u8]) -> Result<(Json<'_>, &str), JsonError> {
    let text = str::from_utf8(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body))?;
    if text.trim_ascii().is_empty() {
        return Err(JsonError::Empty);
    }
    let value: &RawValue = serde_json::from_str(text)?;
    let tree = Reader { rest: value.get() }.value(0)?;
    Ok((tree, text))
}

impl<'a> Json<'a> {
    /// The member with that name: the last one where there are several, as in
    /// JavaScript. `None` where there is none, or this is not an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Self::Object(members) => members
                .iter()
                .rev()
                .find(|(key, _)| key.raw == name || (key.is_escaped() && key.decode().text == name))
                .map(|(_, value)| value),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Array(_) => None,
        }
    }
}

/// A string as it is written between its quotes, with its escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The text as it is written.
    pub raw: &'a str,
}

/// A string whose escapes are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The string, with U+FFFD for each lone surrogate.
    pub text: Cow<'a, str>,
    /// Whether it has no lone surrogate.
    pub is_exact: bool,
}

impl<'a> Text<'a> {
    fn is_escaped(self) -> bool {
        self.raw.contains('\\')
    }

    /// Resolves the escapes.
    #[must_use]
    pub fn decode(self) -> Decoded<'a> {
        if !self.is_escaped() {
            return Decoded { text: Cow::Borrowed(self.raw), is_exact: true };
        }
        let mut text = String::with_capacity(self.raw.len());
        let mut is_exact = true;
        let mut rest = self.raw;
        while let Some((plain, escape)) = rest.split_once('\\') {
            text.push_str(plain);
            let (character, after) = unescape(escape);
            is_exact &= character.is_some();
            text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
            rest = after;
        }
        text.push_str(rest);
        Decoded { text: Cow::Owned(text), is_exact }
    }
}

/// The character of the escape whose backslash has been read, `None` for a lone
/// surrogate; and the text after it.
fn unescape(escape: &str) -> (Option<char>, &str) {
    let (kind, after) = escape.split_at(1);
    let character = match kind {
        "b" => '\u{8}',
        "f" => '\u{c}',
        "n" => '\n',
        "r" => '\r',
        "t" => '\t',
        "u" => return unescape_unicode(after),
        // `"`, `\` and `/` mean themselves.
        literal => return (literal.chars().next(), after),
    };
    (Some(character), after)
}

fn unescape_unicode(digits: &str) -> (Option<char>, &str) {
    let (Some(unit), after) = utf16_unit(digits) else {
        return (None, digits);
    };
    if let Some(low_escape) = after.strip_prefix("\\u")
        && let (Some(low), after_both) = utf16_unit(low_escape)
        && let Some(Ok(character)) = char::decode_utf16([unit, low]).next()
        && character.len_utf16() == 2
    {
        return (Some(character), after_both);
    }
    (char::from_u32(unit.into()), after)
}

fn utf16_unit(digits: &str) -> (Option<u16>, &str) {
    digits
        .split_at_checked(4)
        .map_or((None, digits), |(hex, after)| (u16::from_str_radix(hex, 16).ok(), after))
}

/// Reads a text that is known to follow the grammar. On any other text it would
/// return a wrong tree, never panic.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        self.skip_white_space();
        match self.rest.as_bytes().first() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err(JsonError::TooDeep),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Json::String(self.string())),
            Some(_) | None => Ok(match self.scalar() {
                "null" | "" => Json::Null,
                "true" => Json::Bool(true),
                "false" => Json::Bool(false),
                number => Json::Number(number),
            }),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        let mut members = Vec::new();
        self.skip_byte();
        while !self.skip_if(b'}') {
            let key = self.string();
            self.skip_if(b':');
            members.push((key, self.value(depth + 1)?));
            self.skip_if(b',');
        }
        Ok(Json::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        let mut items = Vec::new();
        self.skip_byte();
        while !self.skip_if(b']') {
            items.push(self.value(depth + 1)?);
            self.skip_if(b',');
        }
        Ok(Json::Array(items))
    }

    fn string(&mut self) -> Text<'a> {
        self.skip_white_space();
        self.skip_byte();
        let bytes = self.rest.as_bytes();
        let mut end = 0;
        while end < bytes.len() && bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let raw = self.take(end);
        self.skip_byte();
        Text { raw }
    }

    fn scalar(&mut self) -> &'a str {
        let end = self
            .rest
            .find(|c: char| matches!(c, ',' | ']' | '}') || c.is_ascii_whitespace())
            .unwrap_or(self.rest.len());
        self.take(end)
    }

    /// Skips that byte if it is next, and returns whether it is. At the end this
    /// is true for every byte, so that every loop ends.
    fn skip_if(&mut self, byte: u8) -> bool {
        self.skip_white_space();
        match self.rest.as_bytes().first() {
            Some(next) if *next == byte => {
                self.skip_byte();
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    fn skip_white_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn skip_byte(&mut self) {
        self.take(1);
    }

    fn take(&mut self, end: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The same value as `serde_json` reads it.
    fn to_value(json: &Json<'_>) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => serde_json::from_str(number).unwrap(),
            Json::String(text) => Value::String(text.decode().text.into_owned()),
            Json::Array(items) => items.iter().map(to_value).collect(),
            Json::Object(members) => members
                .iter()
                .map(|(key, value)| (key.decode().text.into_owned(), to_value(value)))
                .collect(),
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(value in any_value(), pretty in any::<bool>()) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let expected: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(to_value(&parse(text.as_bytes()).unwrap().0), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn nothing_like_json_makes_it_panic(text in r#"[\[\]{},:"\\u0d8a-f \n1e.-]{0,48}"#) {
            let _ = parse(text.as_bytes());
        }
    }

    #[test]
    fn escapes_are_resolved_and_lone_surrogates_are_marked() {
        let cases = [
            (r"plain é", "plain é", true),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t", true),
            (r"\u0000 \u00e9 \u2501", "\0 é ━", true),
            (r"\ud83d\ude00!", "😀!", true),
            (r"\ud800", "\u{fffd}", false),
            (r"\ud800x", "\u{fffd}x", false),
            (r"\ud800A", "\u{fffd}A", false),
            (r"\ud800\ud800\udc00", "\u{fffd}\u{10000}", false),
            (r"\udc00\ud800", "\u{fffd}\u{fffd}", false),
        ];
        for (raw, text, is_exact) in cases {
            let decoded = Text { raw }.decode();
            assert_eq!((decoded.text.as_ref(), decoded.is_exact), (text, is_exact), "{raw}");
        }
    }

    #[test]
    fn the_last_of_several_members_counts_and_names_may_be_escaped() {
        let json = parse(br#"{"a": 1, "\u0061": 2, "b": 3}"#).unwrap().0;
        assert_eq!(json.get("a"), Some(&Json::Number("2")));
        assert_eq!(json.get("c"), None);
        assert_eq!(parse(b"[1]").unwrap().0.get("a"), None);
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let (json, text) = parse(b"\xef\xbb\xbf {\"a\": 1}").unwrap();
        assert_eq!(json.get("a"), Some(&Json::Number("1")));
        assert_eq!(text, " {\"a\": 1}");
        // One mark is ignored, and only at the start.
        for body in [&b"\xef\xbb\xbf\xef\xbb\xbf1"[..], b"1\xef\xbb\xbf", b"\xff\xfe1\0"] {
            assert!(parse(body).is_err(), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn a_blank_body_is_empty() {
        for body in [&b""[..], b" \r\n\t", b"\xef\xbb\xbf"] {
            let error = parse(body).unwrap_err();
            assert!(matches!(error, JsonError::Empty), "{error}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert!(matches!(parse(&nested(MAX_DEPTH + 1)), Err(JsonError::TooDeep)));
        assert!(matches!(parse(&nested(500_000)), Err(JsonError::TooDeep)));
    }
}

//! Identifiers as they are given from outside.
//!
//! Providers and people write identifiers with white space around them, leave
//! the placeholder of a template unfilled, or write a UUID in upper case. The
//! functions here give each identifier one form before `call` validates it, for
//! deliveries as well as for the configuration and for queries.

use std::borrow::Cow;

use crate::call::{InvalidIdentifier, ProjectId};

/// What templates write where they have no value, besides nothing.
const PLACEHOLDERS: [&str; 4] = ["undefined", "null", "none", "nan"];

/// The identifier without white space around it; `None` where it is a
/// placeholder for a missing value: empty, `undefined`, `null`, `none` or `nan`
/// in any case.
#[must_use]
pub fn normalize(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && placeholder(text).is_none()).then_some(text)
}

/// The placeholder that the text is, in lower case; `""` where it is blank.
pub(super) fn placeholder(text: &str) -> Option<&'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Some("");
    }
    PLACEHOLDERS.into_iter().find(|word| text.eq_ignore_ascii_case(word))
}

/// Reads a project id: without white space around it, in lower case where it is
/// a UUID. Placeholders are not treated here, see [`normalize`].
///
/// # Errors
///
/// Fails if the text is blank, too long, or contains a control character.
pub fn project_id(text: &str) -> Result<ProjectId, InvalidIdentifier> {
    let text = text.trim();
    let text = if is_uuid(text) { Cow::Owned(text.to_ascii_lowercase()) } else { text.into() };
    ProjectId::new(text)
}

/// Whether the text is a UUID in the form of RFC 9562: 8-4-4-4-12 hexadecimal
/// digits.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn white_space_around_an_identifier_is_removed() {
        assert_eq!(normalize(" \t CA 1\r\n\u{3000}"), Some("CA 1"));
        assert_eq!(project_id(" acme\n").unwrap().as_str(), "acme");
    }

    #[test]
    fn placeholders_are_missing_values_in_any_case() {
        for text in ["", " ", "undefined", "Undefined", "NULL", " none ", "NaN", "nan\n"] {
            assert_eq!(normalize(text), None, "{text:?}");
        }
        for text in ["nil", "n/a", "nulls", "none-of-these", "\"\"", "0", "-", "nаn"] {
            assert_eq!(normalize(text), Some(text), "{text:?}");
        }
    }

    #[test]
    fn only_project_ids_that_are_uuids_are_lower_cased() {
        for (given, read) in [
            ("3C9ACFB1-C6B7-4BBC-B6C3-628AF54D56C1", "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1"),
            (" 3c9acfb1-C6B7-4bbc-b6c3-628af54d56c1 ", "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1"),
            ("3C9ACFB1C6B74BBCB6C3628AF54D56C1", "3C9ACFB1C6B74BBCB6C3628AF54D56C1"),
            ("{3C9ACFB1-C6B7-4BBC-B6C3-628AF54D56C1}", "{3C9ACFB1-C6B7-4BBC-B6C3-628AF54D56C1}"),
            ("3C9ACFB1-C6B7-4BBC-B6C3-628AF54D56CG", "3C9ACFB1-C6B7-4BBC-B6C3-628AF54D56CG"),
            ("3C9ACFB1C-6B7-4BBC-B6C3-628AF54D56C1", "3C9ACFB1C-6B7-4BBC-B6C3-628AF54D56C1"),
            ("Acme", "Acme"),
        ] {
            assert_eq!(project_id(given).unwrap().as_str(), read);
        }
    }

    #[test]
    fn a_project_id_is_validated_after_it_was_trimmed() {
        assert_eq!(project_id("  "), Err(InvalidIdentifier::Empty));
        assert_eq!(project_id("a\nb"), Err(InvalidIdentifier::ControlCharacter));
        assert_eq!(project_id(&"a".repeat(256)), Err(InvalidIdentifier::TooLong));
        assert!(project_id(&format!(" {} ", "a".repeat(255))).is_ok());
    }

    proptest! {
        #[test]
        fn one_form_stays_as_it_is(text in any::<String>(), hex in "[0-9A-Fa-f-]{36}") {
            for text in [&text, &hex] {
                if let Some(normal) = normalize(text) {
                    prop_assert_eq!(normalize(normal), Some(normal));
                }
                if let Ok(id) = project_id(text) {
                    prop_assert_eq!(project_id(id.as_str()), Ok(id));
                }
            }
        }
    }
}

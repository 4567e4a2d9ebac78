//! The ids of a project, a call, a dial and a client.
//!
//! Each is valid text: 1 to [`MAX_CHARS`] characters, none of them a control
//! character. So each fits an index of Postgres, holds no NUL, and can be joined
//! with a control character unambiguously.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The greatest length of an identifier, in characters.
pub const MAX_CHARS: usize = 255;

/// Why a text cannot be an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentifier {
    /// It has no characters.
    #[error("must not be empty")]
    Empty,
    /// It has more than [`MAX_CHARS`] characters.
    #[error("must not be longer than {MAX_CHARS} characters")]
    TooLong,
    /// It has a character of Unicode's category Cc.
    #[error("must not contain control characters")]
    ControlCharacter,
}

/// Checks that a text is a valid identifier.
///
/// # Errors
///
/// Fails if it is empty, too long, or holds a control character.
pub fn check(text: &str) -> Result<(), InvalidIdentifier> {
    if text.is_empty() {
        Err(InvalidIdentifier::Empty)
    } else if text.chars().nth(MAX_CHARS).is_some() {
        Err(InvalidIdentifier::TooLong)
    } else if text.chars().any(char::is_control) {
        Err(InvalidIdentifier::ControlCharacter)
    } else {
        Ok(())
    }
}

macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes an identifier of a text.
            ///
            /// # Errors
            ///
            /// Fails if it is empty, too long, or holds a control character.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidIdentifier> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidIdentifier;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

identifier! {
    /// The customer's project at the provider; a UUID in practice.
    ProjectId
}
identifier! {
    /// The provider's id of a call, unique within its project only.
    CallId
}
identifier! {
    /// The telephony provider's id of one dial.
    CallSid
}
identifier! {
    /// The customer's own id of the party that is called or calls.
    ClientId
}

impl ProjectId {
    /// The project of a delivery without a project id.
    #[must_use]
    pub fn unnamed() -> Self {
        Self("default".to_owned())
    }
}

/// The key of a call. Ordered as in the store: by call, then by project, both by
/// their bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// The id of the call within its project.
    pub call_id: CallId,
    /// The project.
    pub project_id: ProjectId,
}

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} of project {}", self.call_id, self.project_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_has_1_to_255_characters_of_which_none_is_a_control_character() {
        assert_eq!(CallId::new(""), Err(InvalidIdentifier::Empty));
        assert!(CallId::new("é".repeat(255)).is_ok());
        assert_eq!(CallId::new("é".repeat(256)), Err(InvalidIdentifier::TooLong));
        for control in ["a\0b", "a\nb", "a\u{7f}b", "a\u{85}b"] {
            assert_eq!(CallId::new(control), Err(InvalidIdentifier::ControlCharacter));
        }
    }
}

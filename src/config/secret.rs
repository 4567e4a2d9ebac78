//! A value that must not be shown.
//!
//! A [`Secret`] has no `Display`, its `Debug` is always the same, and the only
//! way to its text is [`Secret::expose`], which is easy to search for.
//! Comparing a secret with what a stranger sent is not done here: that wants
//! constant time, and belongs to [`Tokens`](crate::recho::Tokens).

use std::fmt;

/// A token, a password, a URL with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text that is not to be shown.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

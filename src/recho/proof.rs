//! Whether a delivery comes from where the operator thinks.
//!
//! A [`Guard`] looks at the headers and the body as they came, before anything
//! is parsed, and gives way or says why not. What it says is for the log alone:
//! a [`Refusal`] holds nothing that was sent and no secret, and the sender is
//! not told which check failed.
//!
//! `authConfig` in the body says how the sender means to prove itself. It is not
//! looked at: who forges a delivery would forge that too.

use chrono::{DateTime, Utc};

use super::{bearer::Tokens, signature::Verifier};

/// The header of the signature.
pub const SIGNATURE_HEADER: &str = "x-recho-signature";

/// The header of the time at which the delivery was signed.
pub const TIMESTAMP_HEADER: &str = "x-recho-timestamp";

/// What an endpoint asks of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Open,
    /// One of these tokens.
    Bearer(Tokens),
    /// A signature.
    Signature(Verifier),
}

impl Guard {
    /// Whether a delivery proves where it comes from.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub fn check(&self, shown: &Shown<'_>, now: DateTime<Utc>) -> Result<(), Refusal> {
        match self {
            Self::Open => Ok(()),
            Self::Bearer(tokens) => tokens.check(shown.authorization),
            Self::Signature(verifier) => {
                verifier.check(shown.timestamp, shown.signature, shown.body, now)
            }
        }
    }
}

/// What a delivery shows of itself before it is parsed.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// `Authorization`
    pub authorization: Header<'a>,
    /// [`TIMESTAMP_HEADER`]
    pub timestamp: Header<'a>,
    /// [`SIGNATURE_HEADER`]
    pub signature: Header<'a>,
    /// The body, as it came.
    pub body: &'a [u8],
}

/// The values of a header. There is to be one: of several, a proxy and we might
/// each believe another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Header<'a> {
    /// There is none.
    Missing,
    /// The only one.
    Once(&'a [u8]),
    /// There are several.
    Repeated,
}

impl<'a> Header<'a> {
    /// The only value.
    pub(super) fn once(self, missing: Refusal, repeated: Refusal) -> Result<&'a [u8], Refusal> {
        match self {
            Self::Missing => Err(missing),
            Self::Once(value) => Ok(value),
            Self::Repeated => Err(repeated),
        }
    }
}

impl<'a> FromIterator<&'a [u8]> for Header<'a> {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(values: I) -> Self {
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Missing,
            (Some(value), None) => Self::Once(value),
            (Some(_), Some(_)) => Self::Repeated,
        }
    }
}

impl std::fmt::Debug for Header<'_> {
    /// Without the value, which may be a token.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Missing => "Missing",
            Self::Once(_) => "Once(…)",
            Self::Repeated => "Repeated",
        })
    }
}

/// Why a delivery does not prove where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A token is wanted.
    #[error("there is no Authorization header")]
    TokenMissing,
    /// The header is there, several times or without a token.
    #[error("the Authorization header is not \"Bearer\" and a token")]
    TokenMalformed,
    /// None of the endpoint's tokens.
    #[error("the token is none of the endpoint's")]
    TokenUnknown,
    /// A timestamp is wanted.
    #[error("there is no X-Recho-Timestamp header")]
    TimestampMissing,
    /// The header is there, several times or without Unix seconds.
    #[error("the X-Recho-Timestamp header is not Unix seconds")]
    TimestampMalformed,
    /// Signed too long ago.
    #[error("the timestamp is {seconds} s behind, more than the tolerance")]
    TimestampTooOld {
        /// How long ago.
        seconds: u64,
    },
    /// Signed in the future: one of the clocks is wrong.
    #[error("the timestamp is {seconds} s ahead, more than the tolerance")]
    TimestampTooNew {
        /// In how long.
        seconds: u64,
    },
    /// A signature is wanted.
    #[error("there is no X-Recho-Signature header")]
    SignatureMissing,
    /// The header is there, several times or without Base64.
    #[error("the X-Recho-Signature header is not Base64")]
    SignatureMalformed,
    /// Not made by one of the endpoint's keys, or not for this.
    #[error("the signature is not by one of the endpoint's keys over this timestamp and body")]
    SignatureWrong,
}

impl Refusal {
    /// Its name, one of a few: for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenMalformed => "token_malformed",
            Self::TokenUnknown => "token_unknown",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::TimestampTooOld { .. } => "timestamp_too_old",
            Self::TimestampTooNew { .. } => "timestamp_too_new",
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureWrong => "signature_wrong",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_comes_twice_is_none_to_believe() {
        let header = |values: &[&'static [u8]]| values.iter().copied().collect::<Header>();
        assert!(header(&[]) == Header::Missing);
        assert!(header(&[b"one"]) == Header::Once(b"one"));
        assert!(header(&[b"one", b"one"]) == Header::Repeated);
    }

    #[test]
    fn debug_shows_nothing_that_was_sent() {
        let secret = Header::Once(b"Bearer hunter2");
        let shown =
            Shown { authorization: secret, timestamp: secret, signature: secret, body: b"" };
        assert!(!format!("{shown:?}").contains("hunter2"));
        assert!(format!("{secret:?}").starts_with("Once"));
    }

    #[test]
    fn an_open_endpoint_asks_for_nothing() {
        let nothing = Shown {
            authorization: Header::Missing,
            timestamp: Header::Missing,
            signature: Header::Missing,
            body: b"",
        };
        assert_eq!(Guard::Open.check(&nothing, DateTime::UNIX_EPOCH), Ok(()));
        let guard = Guard::Bearer(Tokens::new(["one"]));
        assert_eq!(guard.check(&nothing, DateTime::UNIX_EPOCH), Err(Refusal::TokenMissing));
    }
}

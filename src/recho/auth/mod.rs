//! Authentication of deliveries.
//!
//! An [`Authenticator`] checks the headers of a delivery, before its body is
//! read, and returns a [`BodyCheck`] for the rest. An [`AuthError`] is
//! for the log and for metrics: it contains neither a secret nor anything that
//! was sent, and the sender is not informed which check failed.
//!
//! | file | contains |
//! | --- | --- |
//! | [`bearer`] | bearer tokens |
//! | [`signature`] | RSA signatures over the body |
//! | [`keys`] | the public keys that verify them |
//!
//! Deliberately ignored: `authConfig` in the body, which names the method that
//! the sender uses. A forged delivery would contain a forged one.

use chrono::{DateTime, Utc};

pub mod bearer;
#[cfg(test)]
mod fixtures;
pub mod keys;
pub mod signature;

pub use bearer::Tokens;
pub use keys::{KeyError, PublicKey};
pub use signature::{SignatureVerifier, SignedHeaders};

/// The header of the signature.
pub const SIGNATURE_HEADER: &str = "x-recho-signature";

/// The header of the time at which the delivery was signed.
pub const TIMESTAMP_HEADER: &str = "x-recho-timestamp";

/// How the deliveries of an endpoint are authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authenticator {
    /// Every delivery is accepted.
    None,
    /// By one of these bearer tokens.
    Bearer(Tokens),
    /// By a signature over the body.
    Signature(SignatureVerifier),
}

impl Authenticator {
    /// Checks everything that does not need the body, so that the body of a
    /// sender without credentials need not be read.
    ///
    /// # Errors
    ///
    /// Fails if a header is missing or malformed, or if the token is unknown.
    pub fn check_headers<'a>(
        &'a self,
        credentials: &Credentials<'a>,
        now: DateTime<Utc>,
    ) -> Result<BodyCheck<'a>, AuthError> {
        match self {
            Self::None => Ok(BodyCheck::NotNeeded),
            Self::Bearer(tokens) => {
                tokens.check(credentials.authorization).map(|()| BodyCheck::NotNeeded)
            }
            Self::Signature(verifier) => verifier
                .check_headers(credentials.timestamp, credentials.signature, now)
                .map(BodyCheck::Signature),
        }
    }
}

/// What is left to check once the body is read.
#[derive(Debug)]
#[must_use = "a signed delivery is authentic only after `check` succeeds"]
pub enum BodyCheck<'a> {
    /// Nothing: the headers suffice.
    NotNeeded,
    /// The signature.
    Signature(SignedHeaders<'a>),
}

impl BodyCheck<'_> {
    /// Checks the body, as it was sent: before `Content-Encoding` is removed.
    ///
    /// # Errors
    ///
    /// Fails if the signature is wrong, or if it is valid but for the time at
    /// which it was made: [`AuthError::StaleTimestamp`].
    pub fn check(&self, body: &[u8]) -> Result<(), AuthError> {
        match self {
            Self::NotNeeded => Ok(()),
            Self::Signature(headers) => headers.check(body),
        }
    }
}

/// The headers by which a sender authenticates a delivery.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// `Authorization`
    pub authorization: Header<'a>,
    /// [`TIMESTAMP_HEADER`]
    pub timestamp: Header<'a>,
    /// [`SIGNATURE_HEADER`]
    pub signature: Header<'a>,
}

/// The values of a header that must occur once: of several values, a proxy and
/// this service might each use another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Header<'a> {
    /// There is none.
    Missing,
    /// The only value.
    Once(&'a [u8]),
    /// There are several.
    Repeated,
}

impl<'a> Header<'a> {
    /// The only value.
    fn once(self, missing: AuthError, repeated: AuthError) -> Result<&'a [u8], AuthError> {
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

/// Why a delivery is not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no `Authorization` header.
    #[error("the Authorization header is missing")]
    TokenMissing,
    /// The header occurs several times or contains no bearer token.
    #[error("the Authorization header is not \"Bearer\" and a token")]
    TokenMalformed,
    /// The token is none of the endpoint's.
    #[error("the token is not one of the endpoint's tokens")]
    TokenUnknown,
    /// There is no [`TIMESTAMP_HEADER`].
    #[error("the X-Recho-Timestamp header is missing")]
    TimestampMissing,
    /// The header occurs several times or is not in Unix seconds.
    #[error("the X-Recho-Timestamp header is not Unix seconds")]
    TimestampMalformed,
    /// There is no [`SIGNATURE_HEADER`].
    #[error("the X-Recho-Signature header is missing")]
    SignatureMissing,
    /// The header occurs several times or is not Base64.
    #[error("the X-Recho-Signature header is not Base64")]
    SignatureMalformed,
    /// None of the endpoint's keys has signed this timestamp and body.
    #[error("the signature is not by one of the endpoint's keys over this timestamp and body")]
    SignatureWrong,
    /// The signature is correct, but its timestamp is further from now than the
    /// tolerance. The delivery itself is authentic, so it can be kept.
    #[error("the signature is correct, but its timestamp is {} s {}, more than the tolerance",
        .seconds_old.unsigned_abs(), if *.seconds_old < 0 { "ahead" } else { "old" })]
    StaleTimestamp {
        /// How long ago the delivery was signed; negative if that is in the future.
        seconds_old: i64,
    },
}

impl AuthError {
    /// Its name, for logs and metrics. A stale timestamp has the name of the
    /// reason in the quarantine.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenMalformed => "token_malformed",
            Self::TokenUnknown => "token_unknown",
            Self::TimestampMissing => "timestamp_missing",
            Self::TimestampMalformed => "timestamp_malformed",
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureWrong => "signature_wrong",
            Self::StaleTimestamp { .. } => "stale_signature",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        fixtures::{RSA_2048, Signer},
        *,
    };

    const NONE: Credentials<'_> = Credentials {
        authorization: Header::Missing,
        timestamp: Header::Missing,
        signature: Header::Missing,
    };

    fn check(
        authenticator: &Authenticator,
        credentials: &Credentials<'_>,
        body: &[u8],
    ) -> Result<(), AuthError> {
        authenticator.check_headers(credentials, DateTime::UNIX_EPOCH)?.check(body)
    }

    #[test]
    fn a_header_that_occurs_twice_has_no_value() {
        let header = |values: &[&'static [u8]]| values.iter().copied().collect::<Header>();
        assert!(header(&[]) == Header::Missing);
        assert!(header(&[b"one"]) == Header::Once(b"one"));
        assert!(header(&[b"one", b"one"]) == Header::Repeated);
    }

    #[test]
    fn debug_output_contains_nothing_that_was_sent() {
        let secret = Header::Once(b"Bearer hunter2");
        let credentials =
            Credentials { authorization: secret, timestamp: secret, signature: secret };
        assert!(!format!("{credentials:?}").contains("hunter2"));
        assert!(format!("{secret:?}").starts_with("Once"));
    }

    #[test]
    fn without_authentication_every_delivery_is_accepted() {
        assert_eq!(check(&Authenticator::None, &NONE, b""), Ok(()));
    }

    #[test]
    fn a_bearer_token_is_checked_before_the_body_is_read() {
        let bearer = Authenticator::Bearer(Tokens::new(["one"]));
        let error = bearer.check_headers(&NONE, DateTime::UNIX_EPOCH).unwrap_err();
        assert_eq!(error, AuthError::TokenMissing);
        let credentials = Credentials { authorization: Header::Once(b"Bearer one"), ..NONE };
        let left = bearer.check_headers(&credentials, DateTime::UNIX_EPOCH).unwrap();
        assert!(matches!(left, BodyCheck::NotNeeded));
    }

    #[test]
    fn a_signature_is_checked_after_its_headers() {
        let keys = vec![PublicKey::from_pem(RSA_2048).unwrap()];
        let verifier = SignatureVerifier::new(keys, Duration::from_mins(5));
        let authenticator = Authenticator::Signature(verifier);
        let error = authenticator.check_headers(&NONE, DateTime::UNIX_EPOCH).unwrap_err();
        assert_eq!(error, AuthError::TimestampMissing);
        let signature = Signer::rsa_2048().sign("0", b"body");
        let credentials = Credentials {
            timestamp: Header::Once(b"0"),
            signature: Header::Once(signature.as_bytes()),
            ..NONE
        };
        assert_eq!(check(&authenticator, &credentials, b"body"), Ok(()));
        assert_eq!(check(&authenticator, &credentials, b"other"), Err(AuthError::SignatureWrong),);
    }
}

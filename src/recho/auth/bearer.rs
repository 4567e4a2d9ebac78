//! Bearer tokens.
//!
//! `subtle` compares SHA-256 digests in constant time, each token's with the
//! presented one's: the duration of a check does not depend on the length of a
//! token, on how much of it is right, or on which of the tokens it is. ring's own
//! comparison is deprecated and promises nothing.
//!
//! The tokens themselves are not kept.

use std::fmt;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::{Choice, ConstantTimeEq as _};

use super::{AuthError, Header};

/// The word before the token in `Authorization`, in any case ([RFC 9110]).
///
/// [RFC 9110]: https://www.rfc-editor.org/rfc/rfc9110#name-authentication-scheme
const SCHEME: &[u8] = b"Bearer";

/// The tokens of an endpoint, each of which is valid; several while they rotate.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Vec<[u8; SHA256_OUTPUT_LEN]>);

impl Tokens {
    /// Accepts each of these tokens; without any, none.
    #[must_use]
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        Self(tokens.into_iter().map(|token| sha256(token.as_bytes())).collect())
    }

    /// Checks an `Authorization` header.
    ///
    /// # Errors
    ///
    /// Fails if the header contains no bearer token, or none of these.
    pub fn check(&self, authorization: Header<'_>) -> Result<(), AuthError> {
        let authorization =
            authorization.once(AuthError::TokenMissing, AuthError::TokenMalformed)?;
        let presented = sha256(bearer_token(authorization).ok_or(AuthError::TokenMalformed)?);
        // Every token is compared, so that the duration does not depend on which one matches.
        let is_known = self
            .0
            .iter()
            .fold(Choice::from(0), |is_known, token| is_known | token.ct_eq(&presented));
        if bool::from(is_known) { Ok(()) } else { Err(AuthError::TokenUnknown) }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tokens({})", self.0.len())
    }
}

/// The token of an `Authorization` header: what follows `Bearer` and at least one
/// space.
#[must_use]
pub fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = authorization.split_at_checked(SCHEME.len())?;
    let token = rest.trim_ascii();
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME) && rest.first() == Some(&b' ');
    (is_bearer && !token.is_empty()).then_some(token)
}

fn sha256(text: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, text).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(authorization: &[u8]) -> Result<(), AuthError> {
        Tokens::new(["old-token", "new-token"]).check(Header::Once(authorization))
    }

    #[test]
    fn each_of_the_tokens_is_accepted() {
        assert_eq!(check(b"Bearer old-token"), Ok(()));
        assert_eq!(check(b"Bearer new-token"), Ok(()));
    }

    #[test]
    fn the_scheme_is_accepted_in_any_case_and_with_any_number_of_spaces() {
        assert_eq!(check(b"bearer old-token"), Ok(()));
        assert_eq!(check(b"BEARER old-token"), Ok(()));
        assert_eq!(check(b"bEaReR   new-token "), Ok(()));
    }

    #[test]
    fn another_token_is_unknown() {
        for token in [
            &b"Bearer old-toke"[..],
            b"Bearer old-token1",
            b"Bearer OLD-TOKEN",
            b"Bearer old-token new-token",
            b"Bearer old-token,new-token",
            b"Bearer \xff",
            b"Bearer Bearer old-token",
        ] {
            assert_eq!(check(token), Err(AuthError::TokenUnknown), "{}", token.escape_ascii());
        }
    }

    #[test]
    fn other_schemes_and_repeated_headers_are_malformed() {
        for text in [
            &b""[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer   ",
            b"Bearerold-token",
            b"Bearer\told-token",
            b"old-token",
            b"Basic b2xkLXRva2Vu",
            b"Token old-token",
        ] {
            assert_eq!(check(text), Err(AuthError::TokenMalformed), "{}", text.escape_ascii());
        }
        let tokens = Tokens::new(["old-token"]);
        assert_eq!(tokens.check(Header::Repeated), Err(AuthError::TokenMalformed));
        assert_eq!(tokens.check(Header::Missing), Err(AuthError::TokenMissing));
    }

    #[test]
    fn without_tokens_every_token_is_unknown() {
        assert_eq!(Tokens::new([]).check(Header::Once(b"Bearer x")), Err(AuthError::TokenUnknown),);
    }

    #[test]
    fn debug_output_contains_the_number_of_tokens_only() {
        assert_eq!(format!("{:?}", Tokens::new(["one", "two"])), "Tokens(2)");
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_is_accepted_by_chance(
            authorization in prop_oneof![
                any::<Vec<u8>>(),
                "[Bb]earer.{0,40}".prop_map(String::into_bytes),
            ],
        ) {
            prop_assert!(check(&authorization).is_err());
        }
    }
}

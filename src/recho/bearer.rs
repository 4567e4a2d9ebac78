//! The tokens that prove where a delivery comes from.
//!
//! What is compared are SHA-256 digests, by `subtle`, each token's with the
//! shown one's: neither the length of a token nor how much of it was right nor
//! which one it was can be read off the time that an answer takes. `subtle`
//! rather than ring: ring's own comparison is deprecated and promises nothing.
//!
//! The tokens themselves are not kept.

use std::fmt;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::{Choice, ConstantTimeEq as _};

use super::proof::{Header, Refusal};

/// The word before the token in `Authorization`, in any case ([RFC 9110]).
///
/// [RFC 9110]: https://www.rfc-editor.org/rfc/rfc9110#name-authentication-scheme
const SCHEME: &[u8] = b"Bearer";

/// Tokens of which any will do; several while they rotate.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Vec<[u8; SHA256_OUTPUT_LEN]>);

impl Tokens {
    /// Takes each of these tokens. Without any it takes nothing.
    #[must_use]
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        Self(tokens.into_iter().map(|token| sha256(token.as_bytes())).collect())
    }

    /// Checks what a delivery shows in its `Authorization` header.
    ///
    /// # Errors
    ///
    /// Where it shows no token, or none of these.
    pub fn check(&self, authorization: Header<'_>) -> Result<(), Refusal> {
        let authorization = authorization.once(Refusal::TokenMissing, Refusal::TokenMalformed)?;
        let shown = sha256(token_of(authorization).ok_or(Refusal::TokenMalformed)?);
        // Every token is compared, lest the time tell how many came before.
        let is_known =
            self.0.iter().fold(Choice::from(0), |is_known, token| is_known | token.ct_eq(&shown));
        if bool::from(is_known) { Ok(()) } else { Err(Refusal::TokenUnknown) }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tokens({})", self.0.len())
    }
}

/// What stands behind `Bearer` and at least one space.
#[must_use]
pub fn token_of(authorization: &[u8]) -> Option<&[u8]> {
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

    fn check(authorization: &[u8]) -> Result<(), Refusal> {
        Tokens::new(["old-token", "new-token"]).check(Header::Once(authorization))
    }

    #[test]
    fn any_of_the_tokens_is_taken() {
        assert_eq!(check(b"Bearer old-token"), Ok(()));
        assert_eq!(check(b"Bearer new-token"), Ok(()));
    }

    #[test]
    fn the_scheme_is_taken_in_any_case_and_with_any_spaces() {
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
            assert_eq!(check(token), Err(Refusal::TokenUnknown), "{}", token.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_bearer_token_is_malformed() {
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
            assert_eq!(check(text), Err(Refusal::TokenMalformed), "{}", text.escape_ascii());
        }
        let tokens = Tokens::new(["old-token"]);
        assert_eq!(tokens.check(Header::Repeated), Err(Refusal::TokenMalformed));
        assert_eq!(tokens.check(Header::Missing), Err(Refusal::TokenMissing));
    }

    #[test]
    fn without_tokens_nothing_is_taken() {
        assert_eq!(Tokens::new([]).check(Header::Once(b"Bearer x")), Err(Refusal::TokenUnknown),);
    }

    #[test]
    fn debug_shows_how_many_there_are_and_no_more() {
        assert_eq!(format!("{:?}", Tokens::new(["one", "two"])), "Tokens(2)");
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_is_taken_for_a_token(
            authorization in prop_oneof![
                any::<Vec<u8>>(),
                "[Bb]earer.{0,40}".prop_map(String::into_bytes),
            ],
        ) {
            prop_assert!(check(&authorization).is_err());
        }
    }
}

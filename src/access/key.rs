//! A key, and its hash.

use std::fmt;

use ring::{
    digest::{SHA256, SHA256_OUTPUT_LEN, digest},
    error::Unspecified,
    rand::{SecureRandom, generate},
};

/// The beginning of every key, by which people and scanners for secrets know one.
pub const PREFIX: &str = "cs_";

/// How many random bytes a key has: none can be guessed, so none need be hashed
/// slowly.
const RANDOM_BYTES: usize = 32;

/// A key: [`PREFIX`] and 64 lower-case hexadecimal digits, which a double click
/// selects whole.
pub struct ApiKey(String);

impl ApiKey {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// Where the system gives no randomness.
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, Unspecified> {
        let bytes: [u8; RANDOM_BYTES] = generate(random)?.expose();
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        Ok(Self(PREFIX.chars().map(String::from).chain(digits).collect()))
    }

    /// The key itself, for the one who asked for it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

/// The SHA-256 of a key: what is kept of it, and what finds it again.
///
/// It is looked up rather than compared in constant time: the time that a
/// search takes tells of the hash of a guess, and nobody can guess a key by
/// steering its hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; SHA256_OUTPUT_LEN]);

impl KeyHash {
    /// The hash of what somebody shows as a key; `None` where it cannot be one,
    /// which need not be looked up.
    #[must_use]
    pub fn of_presented(shown: &[u8]) -> Option<Self> {
        let digits = shown.strip_prefix(PREFIX.as_bytes())?;
        let is_key = digits.len() == 2 * RANDOM_BYTES
            && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        is_key.then(|| Self::of(shown))
    }

    fn of(key: &[u8]) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(hash)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn a_key_is_the_prefix_and_256_random_bits() {
        let [one, other] = [(); 2].map(|()| ApiKey::generate(&SystemRandom::new()).unwrap());
        assert_ne!(one.expose(), other.expose());
        assert!(one.expose().starts_with("cs_"));
        assert_eq!(one.expose().len(), 3 + 64);
        assert_eq!(KeyHash::of_presented(one.expose().as_bytes()), Some(one.hash()));
        assert_ne!(one.hash(), other.hash());
    }

    #[test]
    fn the_hash_is_that_of_the_whole_text() {
        // printf cs_0000… | sha256sum
        let KeyHash(hash) =
            KeyHash::of_presented(format!("cs_{}", "0".repeat(64)).as_bytes()).unwrap();
        assert_eq!(hash[..4], [0xbe, 0x44, 0x6f, 0x81]);
    }

    #[test]
    fn what_cannot_be_a_key_has_no_hash() {
        let digits = "0123456789abcdef".repeat(4);
        assert!(KeyHash::of_presented(format!("cs_{digits}").as_bytes()).is_some());
        for text in [
            String::new(),
            "cs_".to_owned(),
            digits.clone(),
            format!("CS_{digits}"),
            format!("cs_{}", digits.to_uppercase()),
            format!("cs_{digits}0"),
            format!("cs_{}", &digits[1..]),
            format!("cs_{}g", &digits[1..]),
        ] {
            assert_eq!(KeyHash::of_presented(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn debug_shows_neither_a_key_nor_its_hash() {
        let key = ApiKey::generate(&SystemRandom::new()).unwrap();
        assert_eq!(format!("{key:?} {:?}", key.hash()), "ApiKey(…) KeyHash(…)");
    }

    proptest! {
        #[test]
        fn nothing_that_is_shown_makes_it_panic(shown: Vec<u8>) {
            prop_assert_eq!(KeyHash::of_presented(&shown), None);
        }
    }
}

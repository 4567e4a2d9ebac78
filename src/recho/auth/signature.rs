//! RSA signatures over the body.
//!
//! `X-Recho-Signature` is the Base64 of an RSASSA-PKCS1-v1_5 signature with
//! SHA-256 over the bytes of `X-Recho-Timestamp`, a full stop, and the body as
//! it was sent. The timestamp is in Unix seconds and must be near now.
//!
//! What always holds: the verified bytes are those that were sent; several keys
//! are valid at once, so that they can be rotated without a gap; a timestamp is
//! stale only if its signature is correct.
//!
//! Deliberately absent: a memory of signatures that were seen. A delivery that
//! someone sends again within the window is a duplicate, like the provider's own
//! retries, and changes nothing.

use std::time::Duration;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chrono::{DateTime, Utc};

use super::{
    AuthError, Header,
    keys::{MAX_BITS, PublicKey},
};

/// The longest signature, in bytes: it is as long as the modulus.
const MAX_SIGNATURE: usize = MAX_BITS.div_ceil(u8::BITS) as usize;

/// The longest Base64 of a signature.
const MAX_ENCODED: usize = MAX_SIGNATURE.div_ceil(3) * 4;

/// The standard alphabet, with padding or without: the provider does not say.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureVerifier {
    keys: Vec<PublicKey>,
    tolerance: Duration,
}

impl SignatureVerifier {
    /// Accepts deliveries that one of the keys has signed at a time no further from
    /// now than the tolerance, in either direction; without keys, none.
    #[must_use]
    pub fn new(keys: Vec<PublicKey>, tolerance: Duration) -> Self {
        Self { keys, tolerance }
    }

    /// Checks the form of the headers.
    ///
    /// # Errors
    ///
    /// Fails if a header is missing or malformed, the timestamp first.
    pub fn check_headers<'a>(
        &'a self,
        timestamp: Header<'a>,
        signature: Header<'_>,
        now: DateTime<Utc>,
    ) -> Result<SignedHeaders<'a>, AuthError> {
        let timestamp =
            timestamp.once(AuthError::TimestampMissing, AuthError::TimestampMalformed)?;
        let signed_at = unix_seconds(timestamp).ok_or(AuthError::TimestampMalformed)?;
        let signature =
            signature.once(AuthError::SignatureMissing, AuthError::SignatureMalformed)?;
        if signature.len() > MAX_ENCODED {
            return Err(AuthError::SignatureMalformed);
        }
        let signature = BASE64.decode(signature).map_err(|_| AuthError::SignatureMalformed)?;
        // The timestamp is in whole seconds, so now is, too.
        let seconds_old = now.timestamp().saturating_sub(signed_at);
        Ok(SignedHeaders { verifier: self, timestamp, signature, seconds_old })
    }
}

/// The headers of a signed delivery, whose signature is not verified yet.
#[derive(Debug)]
pub struct SignedHeaders<'a> {
    verifier: &'a SignatureVerifier,
    timestamp: &'a [u8],
    signature: Vec<u8>,
    seconds_old: i64,
}

impl SignedHeaders<'_> {
    /// Verifies the signature over the timestamp and the body, then the timestamp.
    ///
    /// # Errors
    ///
    /// Fails if the signature is wrong, or if it is correct and its timestamp is
    /// outside of the tolerance.
    pub fn check(&self, body: &[u8]) -> Result<(), AuthError> {
        let Self { verifier, timestamp, signature, seconds_old } = self;
        let message = [timestamp, &b"."[..], body].concat();
        if !verifier.keys.iter().any(|key| key.verifies(&message, signature)) {
            return Err(AuthError::SignatureWrong);
        }
        if Duration::from_secs(seconds_old.unsigned_abs()) > verifier.tolerance {
            return Err(AuthError::StaleTimestamp { seconds_old: *seconds_old });
        }
        Ok(())
    }
}

/// Reads ASCII digits and nothing else; `None` also for more than an `i64`
/// holds, which is not a time.
fn unix_seconds(timestamp: &[u8]) -> Option<i64> {
    if timestamp.is_empty() || !timestamp.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(timestamp).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recho::auth::fixtures::{RSA_2048, RSA_3072, Signer};

    const TOLERANCE: Duration = Duration::from_mins(5);
    const BODY: &[u8] = br#"{"eventType": "OUTBOUND_CALL_CALLING"}"#;
    const NOW: i64 = 1_778_581_440;

    // printf '%s' '1778581440.{"eventType": "OUTBOUND_CALL_CALLING"}' |
    //     openssl dgst -sha256 -sign rsa-2048.private.pem | openssl base64 -A
    const SIGNATURE_BY_OPENSSL: &[u8] = b"\
        p+mGo0WgIngYBtxNsTxyctXricmqxl/bI7fY9kvH2EsHl4IeP1boAE8B26j2udtUloDh0xqbBMxk\
        WbeSBBdDRRNRHvs1hv0kRJSqt0keYTApeL+Kn2BTSU8+nkhZ1OKZvQtGI0N2a3ejS2R85EQM0EpG\
        Czl9e6odSseZLSS+W924SPnsupVxIh/wsuZEcL3oBUEOTRrsPCkxcCOjTfsHjceM/WTUF++/ELT7\
        lRvUxHDPylg+J2XIWHPe2cjWm2HDQUXQe+HcO6jvQmi9Xr9Tiuqho0gD9dj1O3e3jtMrHJd6NiIE\
        095gB/s7X1HjBSNxE2vfNQhKIpeQeDTH3zerSQ==";

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(NOW, 0).unwrap()
    }

    fn verifier(keys: &[&str]) -> SignatureVerifier {
        let keys = keys.iter().map(|key| PublicKey::from_pem(key).unwrap()).collect();
        SignatureVerifier::new(keys, TOLERANCE)
    }

    /// Checks headers and body with these keys.
    fn check_with(
        keys: &[&str],
        timestamp: Header<'_>,
        signature: Header<'_>,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), AuthError> {
        verifier(keys).check_headers(timestamp, signature, now)?.check(body)
    }

    /// Checks with the 2048-bit key.
    fn check(timestamp: &[u8], signature: &[u8], body: &[u8]) -> Result<(), AuthError> {
        check_with(&[RSA_2048], Header::Once(timestamp), Header::Once(signature), body, now())
    }

    /// Checks a body that was signed for a time.
    fn check_at(timestamp: &str) -> Result<(), AuthError> {
        let signature = Signer::rsa_2048().sign(timestamp, BODY);
        check(timestamp.as_bytes(), signature.as_bytes(), BODY)
    }

    #[test]
    fn a_signature_by_a_key_is_accepted() {
        assert_eq!(check_at(&NOW.to_string()), Ok(()));
        let signature = Signer::rsa_2048().sign(&NOW.to_string(), b"");
        assert_eq!(check(NOW.to_string().as_bytes(), signature.as_bytes(), b""), Ok(()));
    }

    #[test]
    fn a_signature_by_openssl_is_accepted() {
        assert_eq!(check(b"1778581440", SIGNATURE_BY_OPENSSL, BODY), Ok(()));
    }

    #[test]
    fn a_changed_body_or_timestamp_is_rejected() {
        let timestamp = NOW.to_string();
        let signature = Signer::rsa_2048().sign(&timestamp, BODY);
        let body = BODY.to_ascii_uppercase();
        assert_eq!(
            check(timestamp.as_bytes(), signature.as_bytes(), &body),
            Err(AuthError::SignatureWrong),
        );
        let with_a_line_end = [BODY, b"\n"].concat();
        assert_eq!(
            check(timestamp.as_bytes(), signature.as_bytes(), &with_a_line_end),
            Err(AuthError::SignatureWrong),
        );
        for timestamp in [(NOW + 1).to_string(), format!("0{NOW}")] {
            assert_eq!(
                check(timestamp.as_bytes(), signature.as_bytes(), BODY),
                Err(AuthError::SignatureWrong),
            );
        }
    }

    #[test]
    fn the_full_stop_is_part_of_the_signed_message() {
        let signature =
            Signer::rsa_2048().sign_message(&[NOW.to_string().as_bytes(), BODY].concat());
        assert_eq!(
            check(NOW.to_string().as_bytes(), signature.as_bytes(), BODY),
            Err(AuthError::SignatureWrong),
        );
    }

    #[test]
    fn a_timestamp_may_differ_from_now_by_the_tolerance_in_both_directions() {
        assert_eq!(check_at(&(NOW - 300).to_string()), Ok(()));
        assert_eq!(check_at(&(NOW + 300).to_string()), Ok(()));
        assert_eq!(
            check_at(&(NOW - 301).to_string()),
            Err(AuthError::StaleTimestamp { seconds_old: 301 }),
        );
        assert_eq!(
            check_at(&(NOW + 301).to_string()),
            Err(AuthError::StaleTimestamp { seconds_old: -301 }),
        );
    }

    #[test]
    fn a_timestamp_is_stale_only_if_its_signature_is_correct() {
        let timestamp = (NOW - 86_400).to_string();
        let signature = Signer::rsa_2048().sign(&timestamp, BODY);
        let (timestamp, signature) = (timestamp.as_bytes(), signature.as_bytes());
        let error = check(timestamp, signature, BODY).unwrap_err();
        assert_eq!(error, AuthError::StaleTimestamp { seconds_old: 86_400 });
        assert_eq!(error.as_str(), "stale_signature");
        assert_eq!(
            error.to_string(),
            "the signature is correct, but its timestamp is 86400 s old, more than the tolerance",
        );
        assert_eq!(check(timestamp, signature, b"other"), Err(AuthError::SignatureWrong));
        let fresh = (NOW - 1).to_string();
        assert_eq!(check(fresh.as_bytes(), signature, BODY), Err(AuthError::SignatureWrong));
        let ahead = AuthError::StaleTimestamp { seconds_old: -301 };
        assert!(ahead.to_string().contains("is 301 s ahead"), "{ahead}");
    }

    #[test]
    fn the_tolerance_may_be_days() {
        let keys = || vec![PublicKey::from_pem(RSA_2048).unwrap()];
        let verifier = SignatureVerifier::new(keys(), Duration::from_hours(7 * 24));
        for (seconds_old, is_accepted) in
            [(604_800, true), (604_801, false), (-604_800, true), (-604_801, false)]
        {
            let timestamp = (NOW - seconds_old).to_string();
            let signature = Signer::rsa_2048().sign(&timestamp, BODY);
            let (timestamp, signature) =
                (Header::Once(timestamp.as_bytes()), Header::Once(signature.as_bytes()));
            let headers = verifier.check_headers(timestamp, signature, now()).unwrap();
            let expected =
                if is_accepted { Ok(()) } else { Err(AuthError::StaleTimestamp { seconds_old }) };
            assert_eq!(headers.check(BODY), expected);
        }
    }

    #[test]
    fn the_last_second_of_the_window_counts_as_a_whole() {
        let timestamp = (NOW - 300).to_string();
        let signature = Signer::rsa_2048().sign(&timestamp, BODY);
        let late = now() + Duration::from_millis(999);
        let (timestamp, signature) =
            (Header::Once(timestamp.as_bytes()), Header::Once(signature.as_bytes()));
        assert_eq!(check_with(&[RSA_2048], timestamp, signature, BODY, late), Ok(()));
    }

    #[test]
    fn a_timestamp_consists_of_digits() {
        let largest = i64::MAX.to_string();
        assert!(matches!(check_at(&largest), Err(AuthError::StaleTimestamp { seconds_old: ..0 })));
        assert!(matches!(check_at("0"), Err(AuthError::StaleTimestamp { seconds_old: 0.. })));
        let digits = "1".repeat(1000);
        for text in [
            "",
            "soon",
            "-1778581440",
            "+1778581440",
            "1778581440.0",
            "1778581440 ",
            "1_778_581_440",
            "0x6a0333c0",
            "2026-05-12T10:24:00Z",
            "١٧٧٨٥٨١٤٤٠",
            "9223372036854775808",
            &digits,
        ] {
            assert_eq!(check_at(text), Err(AuthError::TimestampMalformed), "{text}");
        }
    }

    #[test]
    fn a_signature_by_another_key_is_rejected() {
        let timestamp = NOW.to_string();
        let signature = Signer::rsa_3072().sign(&timestamp, BODY);
        assert_eq!(
            check(timestamp.as_bytes(), signature.as_bytes(), BODY),
            Err(AuthError::SignatureWrong),
        );
    }

    #[test]
    fn while_keys_rotate_each_of_them_is_valid() {
        let timestamp = NOW.to_string();
        let [old, new] =
            [Signer::rsa_2048(), Signer::rsa_3072()].map(|signer| signer.sign(&timestamp, BODY));
        let check = |keys: &[&str], signature: &str| {
            let timestamp = Header::Once(timestamp.as_bytes());
            check_with(keys, timestamp, Header::Once(signature.as_bytes()), BODY, now())
        };
        for (keys, old_is_valid, new_is_valid) in [
            (&[RSA_2048][..], true, false),
            (&[RSA_2048, RSA_3072], true, true),
            (&[RSA_3072, RSA_2048], true, true),
            (&[RSA_3072], false, true),
            (&[], false, false),
        ] {
            assert_eq!(check(keys, &old).is_ok(), old_is_valid, "{keys:?}");
            assert_eq!(check(keys, &new).is_ok(), new_is_valid, "{keys:?}");
        }
    }

    #[test]
    fn base64_is_accepted_with_or_without_padding_in_the_standard_alphabet_only() {
        let timestamp = NOW.to_string();
        let check = |signature: &str| check(timestamp.as_bytes(), signature.as_bytes(), BODY);
        let signature = Signer::rsa_2048().sign(&timestamp, BODY);
        let bare = signature.trim_end_matches('=');
        // 256 bytes leave one over: two characters and two of padding.
        assert_eq!(signature.len() - bare.len(), 2);
        assert_eq!(check(&signature), Ok(()));
        assert_eq!(check(bare), Ok(()));
        assert!(signature.contains('+') || signature.contains('/'), "else this tests nothing");
        let (head, tail) = signature.split_at(76);
        for malformed in [
            signature.replace('+', "-").replace('/', "_"),
            format!("{bare}==="),
            format!("{signature}{signature}"),
            format!("{head}\n{tail}"),
            format!("{head} {tail}"),
            format!("\"{signature}\""),
            "%%%".to_owned(),
            "A".to_owned(),
            "A".repeat(MAX_ENCODED + 4),
        ] {
            assert_eq!(check(&malformed), Err(AuthError::SignatureMalformed), "{malformed}");
        }
        for wrong in [String::new(), "AAAA".to_owned(), "A".repeat(MAX_ENCODED)] {
            assert_eq!(check(&wrong), Err(AuthError::SignatureWrong), "{wrong}");
        }
    }

    #[test]
    fn a_missing_or_repeated_header_is_rejected() {
        let timestamp = NOW.to_string();
        let signature = Signer::rsa_2048().sign(&timestamp, BODY);
        let (at, by) = (Header::Once(timestamp.as_bytes()), Header::Once(signature.as_bytes()));
        for (timestamp, signature, error) in [
            (Header::Missing, by, AuthError::TimestampMissing),
            (Header::Repeated, by, AuthError::TimestampMalformed),
            (at, Header::Missing, AuthError::SignatureMissing),
            (at, Header::Repeated, AuthError::SignatureMalformed),
            (Header::Missing, Header::Missing, AuthError::TimestampMissing),
        ] {
            let checked = check_with(&[RSA_2048], timestamp, signature, BODY, now());
            assert_eq!(checked, Err(error));
        }
    }

    proptest! {
        #[test]
        fn no_header_and_no_body_makes_it_panic_or_is_accepted_by_chance(
            timestamp in prop_oneof![
                any::<Vec<u8>>(),
                any::<i64>().prop_map(|at| at.to_string().into_bytes()),
                (-300..=300_i64).prop_map(|by| (NOW + by).to_string().into_bytes()),
            ],
            signature in prop_oneof![
                any::<Vec<u8>>(),
                "[A-Za-z0-9+/]{0,400}={0,3}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 256)
                    .prop_map(|bytes| BASE64.encode(bytes).into_bytes()),
            ],
            body: Vec<u8>,
        ) {
            prop_assert!(check(&timestamp, &signature, &body).is_err());
        }

        #[test]
        fn every_signed_body_is_accepted(body: Vec<u8>, by in -300..=300_i64) {
            let timestamp = (NOW + by).to_string();
            let signature = Signer::rsa_2048().sign(&timestamp, &body);
            prop_assert_eq!(check(timestamp.as_bytes(), signature.as_bytes(), &body), Ok(()));
        }
    }
}

//! Deliveries that the provider has signed.
//!
//! `X-Recho-Signature` is the Base64 of an RSASSA-PKCS1-v1_5 signature with
//! SHA-256 over the bytes of `X-Recho-Timestamp`, a full stop, and the body as
//! it came. The timestamp is in Unix seconds and must be near now.
//!
//! What always holds: the bytes that are checked are the ones that came; what
//! costs little is checked first; several keys are valid at once, so that they
//! can be changed without a gap.
//!
//! Deliberately absent: a memory of signatures that were seen. A delivery that
//! someone sends again within the window is a duplicate, as the provider's own
//! retries are, and changes nothing.

use std::time::Duration;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chrono::{DateTime, Utc};

use super::{
    key::{MAX_BITS, PublicKey},
    proof::{Header, Refusal},
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

/// Checks signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    keys: Vec<PublicKey>,
    tolerance: Duration,
}

impl Verifier {
    /// Takes what one of the keys has signed at a time no further from now than
    /// the tolerance, either way. Without keys it takes nothing.
    #[must_use]
    pub fn new(keys: Vec<PublicKey>, tolerance: Duration) -> Self {
        Self { keys, tolerance }
    }

    /// Checks the signature of a body.
    ///
    /// # Errors
    ///
    /// The first check that fails: the timestamp's presence, form and window,
    /// then the signature's presence and form, then the signature.
    pub fn check(
        &self,
        timestamp: Header<'_>,
        signature: Header<'_>,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let timestamp = timestamp.once(Refusal::TimestampMissing, Refusal::TimestampMalformed)?;
        let at = unix_seconds(timestamp).ok_or(Refusal::TimestampMalformed)?;
        // The timestamp says no more than the second, so neither does now.
        let now = now.timestamp();
        let seconds = now.abs_diff(at);
        if Duration::from_secs(seconds) > self.tolerance {
            let is_past = at < now;
            return Err(if is_past {
                Refusal::TimestampTooOld { seconds }
            } else {
                Refusal::TimestampTooNew { seconds }
            });
        }

        let signature = signature.once(Refusal::SignatureMissing, Refusal::SignatureMalformed)?;
        if signature.len() > MAX_ENCODED {
            return Err(Refusal::SignatureMalformed);
        }
        let signature = BASE64.decode(signature).map_err(|_| Refusal::SignatureMalformed)?;

        let message = [timestamp, b".", body].concat();
        if self.keys.iter().any(|key| key.verifies(&message, &signature)) {
            Ok(())
        } else {
            Err(Refusal::SignatureWrong)
        }
    }
}

/// Reads ASCII digits and nothing else; `None` also for more than an `i64`
/// holds, which is no time.
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
    use crate::recho::fixtures::{RSA_2048, RSA_3072, Signer};

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

    fn verifier(keys: &[&str]) -> Verifier {
        let keys = keys.iter().map(|key| PublicKey::from_pem(key).unwrap()).collect();
        Verifier::new(keys, TOLERANCE)
    }

    /// What a check by the 2048-bit key says.
    fn check(timestamp: &[u8], signature: &[u8], body: &[u8]) -> Result<(), Refusal> {
        let (timestamp, signature) = (Header::Once(timestamp), Header::Once(signature));
        verifier(&[RSA_2048]).check(timestamp, signature, body, now())
    }

    /// What a check says of a body that was signed for a time.
    fn check_at(timestamp: &str) -> Result<(), Refusal> {
        let signature = Signer::rsa_2048().sign(timestamp, BODY);
        check(timestamp.as_bytes(), signature.as_bytes(), BODY)
    }

    #[test]
    fn what_a_key_has_signed_is_taken() {
        assert_eq!(check_at(&NOW.to_string()), Ok(()));
        let signature = Signer::rsa_2048().sign(&NOW.to_string(), b"");
        assert_eq!(check(NOW.to_string().as_bytes(), signature.as_bytes(), b""), Ok(()));
    }

    #[test]
    fn a_signature_that_openssl_made_is_taken() {
        assert_eq!(check(b"1778581440", SIGNATURE_BY_OPENSSL, BODY), Ok(()));
    }

    #[test]
    fn a_body_or_a_timestamp_that_was_tampered_with_is_refused() {
        let timestamp = NOW.to_string();
        let signature = Signer::rsa_2048().sign(&timestamp, BODY);
        let body = BODY.to_ascii_uppercase();
        assert_eq!(
            check(timestamp.as_bytes(), signature.as_bytes(), &body),
            Err(Refusal::SignatureWrong),
        );
        let with_a_line_end = [BODY, b"\n"].concat();
        assert_eq!(
            check(timestamp.as_bytes(), signature.as_bytes(), &with_a_line_end),
            Err(Refusal::SignatureWrong),
        );
        for timestamp in [(NOW + 1).to_string(), format!("0{NOW}")] {
            assert_eq!(
                check(timestamp.as_bytes(), signature.as_bytes(), BODY),
                Err(Refusal::SignatureWrong),
            );
        }
    }

    #[test]
    fn the_full_stop_belongs_to_what_is_signed() {
        let signature =
            Signer::rsa_2048().sign_message(&[NOW.to_string().as_bytes(), BODY].concat());
        assert_eq!(
            check(NOW.to_string().as_bytes(), signature.as_bytes(), BODY),
            Err(Refusal::SignatureWrong),
        );
    }

    #[test]
    fn the_window_of_the_timestamp_is_open_to_both_sides_as_far_as_the_tolerance() {
        assert_eq!(check_at(&(NOW - 300).to_string()), Ok(()));
        assert_eq!(check_at(&(NOW + 300).to_string()), Ok(()));
        assert_eq!(
            check_at(&(NOW - 301).to_string()),
            Err(Refusal::TimestampTooOld { seconds: 301 }),
        );
        assert_eq!(
            check_at(&(NOW + 301).to_string()),
            Err(Refusal::TimestampTooNew { seconds: 301 }),
        );
    }

    #[test]
    fn the_last_second_of_the_window_counts_whole() {
        let timestamp = (NOW - 300).to_string();
        let signature = Signer::rsa_2048().sign(&timestamp, BODY);
        let late = now() + Duration::from_millis(999);
        let (timestamp, signature) =
            (Header::Once(timestamp.as_bytes()), Header::Once(signature.as_bytes()));
        assert_eq!(verifier(&[RSA_2048]).check(timestamp, signature, BODY, late), Ok(()));
    }

    #[test]
    fn a_timestamp_consists_of_digits() {
        let largest = i64::MAX.to_string();
        assert!(matches!(check_at(&largest), Err(Refusal::TimestampTooNew { .. })));
        assert!(matches!(check_at("0"), Err(Refusal::TimestampTooOld { .. })));
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
            assert_eq!(check_at(text), Err(Refusal::TimestampMalformed), "{text}");
        }
    }

    #[test]
    fn a_signature_by_another_key_is_refused() {
        let timestamp = NOW.to_string();
        let signature = Signer::rsa_3072().sign(&timestamp, BODY);
        assert_eq!(
            check(timestamp.as_bytes(), signature.as_bytes(), BODY),
            Err(Refusal::SignatureWrong),
        );
    }

    #[test]
    fn while_keys_rotate_either_may_have_signed() {
        let timestamp = NOW.to_string();
        let [old, new] =
            [Signer::rsa_2048(), Signer::rsa_3072()].map(|signer| signer.sign(&timestamp, BODY));
        let check = |keys: &[&str], signature: &str| {
            let timestamp = Header::Once(timestamp.as_bytes());
            verifier(keys).check(timestamp, Header::Once(signature.as_bytes()), BODY, now())
        };
        for (keys, takes_old, takes_new) in [
            (&[RSA_2048][..], true, false),
            (&[RSA_2048, RSA_3072], true, true),
            (&[RSA_3072, RSA_2048], true, true),
            (&[RSA_3072], false, true),
            (&[], false, false),
        ] {
            assert_eq!(check(keys, &old).is_ok(), takes_old, "{keys:?}");
            assert_eq!(check(keys, &new).is_ok(), takes_new, "{keys:?}");
        }
    }

    #[test]
    fn base64_is_taken_with_padding_or_without_in_the_standard_alphabet_only() {
        let timestamp = NOW.to_string();
        let check = |signature: &str| check(timestamp.as_bytes(), signature.as_bytes(), BODY);
        let signature = Signer::rsa_2048().sign(&timestamp, BODY);
        let bare = signature.trim_end_matches('=');
        // 256 bytes leave one over: two characters and two of padding.
        assert_eq!(signature.len() - bare.len(), 2);
        assert_eq!(check(&signature), Ok(()));
        assert_eq!(check(bare), Ok(()));
        assert!(signature.contains('+') || signature.contains('/'), "else it shows nothing");
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
            assert_eq!(check(&malformed), Err(Refusal::SignatureMalformed), "{malformed}");
        }
        for wrong in [String::new(), "AAAA".to_owned(), "A".repeat(MAX_ENCODED)] {
            assert_eq!(check(&wrong), Err(Refusal::SignatureWrong), "{wrong}");
        }
    }

    #[test]
    fn a_header_that_is_missing_or_repeated_is_refused() {
        let timestamp = NOW.to_string();
        let signature = Signer::rsa_2048().sign(&timestamp, BODY);
        let (at, by) = (Header::Once(timestamp.as_bytes()), Header::Once(signature.as_bytes()));
        for (timestamp, signature, refusal) in [
            (Header::Missing, by, Refusal::TimestampMissing),
            (Header::Repeated, by, Refusal::TimestampMalformed),
            (at, Header::Missing, Refusal::SignatureMissing),
            (at, Header::Repeated, Refusal::SignatureMalformed),
            (Header::Missing, Header::Missing, Refusal::TimestampMissing),
        ] {
            let checked = verifier(&[RSA_2048]).check(timestamp, signature, BODY, now());
            assert_eq!(checked, Err(refusal));
        }
    }

    proptest! {
        #[test]
        fn no_header_and_no_body_makes_it_panic_or_take_what_was_not_signed(
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
        fn whatever_is_signed_is_taken(body: Vec<u8>, by in -300..=300_i64) {
            let timestamp = (NOW + by).to_string();
            let signature = Signer::rsa_2048().sign(&timestamp, &body);
            prop_assert_eq!(check(timestamp.as_bytes(), signature.as_bytes(), &body), Ok(()));
        }
    }
}

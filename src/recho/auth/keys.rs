//! The public keys that verify the provider's signatures.
//!
//! A [`PublicKey`] is an RSA key of 2048 to 8192 bits that ring accepts: a key
//! that ring would reject at the first delivery is an error when it is read. It
//! is PEM with one block: an SPKI, a PKCS#1 key, or an X.509 certificate.
//!
//! PEM is read by the lax grammar of [RFC 7468]: white space may be anywhere, and
//! text around the block, since a key that went through an environment variable
//! or a form has often lost its line ends. `pem-rfc7468` accepts the strict
//! grammar only.
//!
//! Deliberately absent: trust in certificates. A certificate is only a container
//! of its key here, whatever its issuer and expiry: the operator trusts the key
//! by configuring it.
//!
//! [RFC 7468]: https://www.rfc-editor.org/rfc/rfc7468#section-3

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pkcs1::RsaPublicKeyRef;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};

/// The shortest modulus that is accepted, in bits. NIST SP 800-131A disallows less.
pub const MIN_BITS: u32 = 2048;
/// The longest modulus that ring verifies signatures with, in bits.
pub const MAX_BITS: u32 = 8192;

/// The greatest exponent that ring accepts: 2^33 - 1.
const MAX_EXPONENT: u64 = (1 << 33) - 1;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// An RSA key that verifies signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The DER of its `RSAPublicKey` (RFC 8017, appendix A.1.1).
    pkcs1: Vec<u8>,
    bits: u32,
}

/// Why a text is not a usable key. No message quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM block.
    #[error("is not a public key in PEM (-----BEGIN PUBLIC KEY-----)")]
    NoPem,
    /// The lines around a PEM block do not match.
    #[error("is damaged: its PEM block does not end as it begins")]
    Unbalanced,
    /// There are several PEM blocks.
    #[error("holds more than one key; give each as an item of the list")]
    Several,
    /// It is the private key, which only the signer may have.
    #[error("is a private key; give the public one (openssl pkey -pubout)")]
    Private,
    /// A PEM block of something else.
    #[error("is a PEM block of another kind; give a public key or a certificate")]
    OtherBlock,
    /// The block's content is not Base64.
    #[error("is damaged: the text between the PEM lines is not Base64")]
    Base64,
    /// The block's content does not match its label.
    #[error("is damaged: its content does not match its PEM lines")]
    Der,
    /// A key for another algorithm, such as RSA-PSS.
    #[error("is not an RSA key")]
    NotRsa,
    /// Too short to be safe, or too long for ring.
    #[error("is an RSA key of {0} bits; it must have {MIN_BITS} to {MAX_BITS}")]
    Size(u32),
    /// An exponent or a modulus that no key generator produces.
    #[error("is an RSA key with an impossible modulus or exponent")]
    Numbers,
}

impl PublicKey {
    /// Reads a key from PEM text with one block: `PUBLIC KEY` (SPKI), `RSA
    /// PUBLIC KEY` (PKCS#1) or `CERTIFICATE` (X.509).
    ///
    /// # Errors
    ///
    /// Fails if the text is anything else, or the key is too weak.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (label, content) = pem_block(text)?;
        let der = || {
            let base64: String = content.split_ascii_whitespace().collect();
            STANDARD.decode(base64).map_err(|_| KeyError::Base64)
        };
        match label {
            "PUBLIC KEY" => {
                let der = der()?;
                let spki =
                    SubjectPublicKeyInfoRef::try_from(der.as_slice()).map_err(|_| KeyError::Der)?;
                let key = spki.subject_public_key.as_bytes().ok_or(KeyError::Der)?;
                Self::from_spki(spki.algorithm.oid, key)
            }
            "CERTIFICATE" => {
                let certificate = Certificate::from_der(&der()?).map_err(|_| KeyError::Der)?;
                let spki: &SubjectPublicKeyInfoOwned =
                    certificate.tbs_certificate().subject_public_key_info();
                let key = spki.subject_public_key.as_bytes().ok_or(KeyError::Der)?;
                Self::from_spki(spki.algorithm.oid, key)
            }
            "RSA PUBLIC KEY" => Self::from_pkcs1(&der()?),
            label if label.ends_with("PRIVATE KEY") => Err(KeyError::Private),
            _ => Err(KeyError::OtherBlock),
        }
    }

    fn from_spki(algorithm: pkcs1::ObjectIdentifier, key: &[u8]) -> Result<Self, KeyError> {
        if algorithm == pkcs1::ALGORITHM_OID {
            Self::from_pkcs1(key)
        } else {
            Err(KeyError::NotRsa)
        }
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let key = RsaPublicKeyRef::from_der(der).map_err(|_| KeyError::Der)?;
        let modulus = key.modulus.as_bytes();
        let (first, last) = modulus.first().zip(modulus.last()).ok_or(KeyError::Numbers)?;
        let bits = u32::try_from(modulus.len())
            .ok()
            .and_then(|bytes| bytes.checked_mul(u8::BITS))
            .map_or(u32::MAX, |bits| bits - first.leading_zeros());
        if !(MIN_BITS..=MAX_BITS).contains(&bits) {
            return Err(KeyError::Size(bits));
        }
        let exponent = key.public_exponent.as_bytes();
        // `None` where the exponent does not fit a u64.
        let exponent = (exponent.len() <= size_of::<u64>())
            .then(|| exponent.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        let exponent_is_usable =
            exponent.is_some_and(|it| it % 2 == 1 && (3..=MAX_EXPONENT).contains(&it));
        if last % 2 == 0 || !exponent_is_usable {
            return Err(KeyError::Numbers);
        }
        Ok(Self { pkcs1: der.to_owned(), bits })
    }

    /// The length of its modulus, in bits.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Whether this key made the RSASSA-PKCS1-v1_5 signature, with SHA-256, of
    /// the message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.pkcs1);
        key.verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({} bits)", self.bits)
    }
}

/// The label of the text's only PEM block, and the text between its lines.
fn pem_block(text: &str) -> Result<(&str, &str), KeyError> {
    let (_, rest) = text.split_once(BEGIN).ok_or(KeyError::NoPem)?;
    let (label, rest) = rest.split_once(DASHES).ok_or(KeyError::Unbalanced)?;
    let (content, rest) = rest.split_once(END).ok_or(KeyError::Unbalanced)?;
    let ends_as_it_begins = rest.strip_prefix(label).is_some_and(|rest| rest.starts_with(DASHES));
    if !ends_as_it_begins || content.contains(BEGIN) {
        Err(KeyError::Unbalanced)
    } else if rest.contains(BEGIN) {
        Err(KeyError::Several)
    } else {
        Ok((label, content))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{KeyError, PublicKey};
    use crate::recho::auth::fixtures::{
        CERTIFICATE, P_256, PKCS1, PRIVATE, RSA_1024, RSA_2048, RSA_3072, RSA_PSS,
    };

    fn error_of(text: &str) -> KeyError {
        PublicKey::from_pem(text).expect_err(text)
    }

    #[test]
    fn a_key_is_the_same_in_each_of_its_containers() {
        let key = PublicKey::from_pem(RSA_2048).unwrap();
        assert_eq!(key.bits(), 2048);
        assert_eq!(PublicKey::from_pem(PKCS1).as_ref(), Ok(&key));
        assert_eq!(PublicKey::from_pem(CERTIFICATE).as_ref(), Ok(&key));
        assert_eq!(PublicKey::from_pem(RSA_3072).unwrap().bits(), 3072);
    }

    #[test]
    fn a_key_that_has_lost_its_line_ends_is_read() {
        let key = PublicKey::from_pem(RSA_2048);
        assert!(key.is_ok());
        for text in [
            RSA_2048.replace('\n', " "),
            RSA_2048.replace('\n', ""),
            RSA_2048.replace('\n', "\r\n"),
            format!("The key of the provider:\n\n{RSA_2048}\nValid from May on.\n"),
        ] {
            assert_eq!(PublicKey::from_pem(&text), key, "{text}");
        }
    }

    #[test]
    fn a_weak_key_is_rejected_with_its_size() {
        let error = error_of(RSA_1024);
        assert_eq!(error, KeyError::Size(1024));
        assert_eq!(error.to_string(), "is an RSA key of 1024 bits; it must have 2048 to 8192");
    }

    #[test]
    fn a_key_for_another_algorithm_is_rejected() {
        assert_eq!(error_of(P_256), KeyError::NotRsa);
        assert_eq!(error_of(RSA_PSS), KeyError::NotRsa);
    }

    #[test]
    fn a_text_of_another_kind_is_rejected_by_its_kind() {
        assert_eq!(error_of(""), KeyError::NoPem);
        assert_eq!(error_of("recho.pem"), KeyError::NoPem);
        assert_eq!(error_of(PRIVATE), KeyError::Private);
        assert_eq!(
            error_of("-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----"),
            KeyError::Private,
        );
        assert_eq!(
            error_of("-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----"),
            KeyError::OtherBlock,
        );
        assert_eq!(error_of(&format!("{RSA_2048}{RSA_3072}")), KeyError::Several);
    }

    #[test]
    fn a_damaged_key_is_rejected() {
        let first_line = RSA_2048.lines().nth(1).unwrap();
        for (text, error) in [
            (RSA_2048.replace("-----END PUBLIC KEY-----", ""), KeyError::Unbalanced),
            (RSA_2048.replace("END PUBLIC", "END RSA PUBLIC"), KeyError::Unbalanced),
            (RSA_2048.replace(first_line, "%"), KeyError::Base64),
            (RSA_2048.replace(first_line, ""), KeyError::Der),
            (RSA_2048.replace("PUBLIC KEY", "RSA PUBLIC KEY"), KeyError::Der),
            (RSA_2048.replace("PUBLIC KEY", "CERTIFICATE"), KeyError::Der),
            (CERTIFICATE.replace("CERTIFICATE", "PUBLIC KEY"), KeyError::Der),
        ] {
            assert_eq!(error_of(&text), error, "{text}");
        }
    }

    /// The DER of a PKCS#1 key.
    fn pkcs1(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        let integer = |bytes: &[u8]| {
            let sign = if bytes[0] >= 0x80 { &[0][..] } else { &[] };
            let length = u16::try_from(sign.len() + bytes.len()).unwrap();
            let length = match u8::try_from(length) {
                Ok(length @ 0..0x80) => vec![length],
                Ok(length) => vec![0x81, length],
                Err(_) => [&[0x82][..], &length.to_be_bytes()].concat(),
            };
            [&[0x02], length.as_slice(), sign, bytes].concat()
        };
        let content = [integer(modulus), integer(exponent)].concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82][..], &length, &content].concat()
    }

    #[test]
    fn the_bounds_of_the_numbers_are_exact() {
        let modulus = |bytes: usize, first: u8, last: u8| {
            let mut modulus = vec![0xa5; bytes];
            (modulus[0], modulus[bytes - 1]) = (first, last);
            modulus
        };
        let right = modulus(256, 0x80, 0x01);
        let size = |modulus: &[u8]| PublicKey::from_pkcs1(&pkcs1(modulus, &[3])).map(|it| it.bits);
        assert_eq!(size(&right), Ok(2048));
        assert_eq!(size(&modulus(256, 0x7f, 0x01)), Err(KeyError::Size(2047)));
        assert_eq!(size(&modulus(1024, 0xff, 0x01)), Ok(8192));
        assert_eq!(size(&modulus(1025, 0x01, 0x01)), Err(KeyError::Size(8193)));
        assert_eq!(size(&modulus(256, 0x80, 0x02)), Err(KeyError::Numbers));

        let accepts = |exponent: &[u8]| PublicKey::from_pkcs1(&pkcs1(&right, exponent)).is_ok();
        assert!(accepts(&[3]));
        assert!(accepts(&[1, 0, 1]));
        assert!(accepts(&[1, 0xff, 0xff, 0xff, 0xff]));
        for exponent in [&[0][..], &[1], &[2], &[4], &[2, 0, 0, 0, 1], &[1; 8], &[1; 9]] {
            assert!(!accepts(exponent), "{exponent:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            before in ".{0,20}", label in "(RSA )?PUBLIC KEY|CERTIFICATE|.{0,9}",
            content in "[A-Za-z0-9+/=\\s]{0,80}|.{0,80}", end in "-----END .{0,9}|.{0,9}",
        ) {
            let _ = PublicKey::from_pem(&format!(
                "{before}-----BEGIN {label}-----{content}-----END {label}-----{end}"
            ));
            let _ = PublicKey::from_pem(&format!("{before}-----BEGIN {label}{end}{content}"));
        }

        #[test]
        fn a_key_with_a_changed_character_does_not_make_it_panic(index in 0..2000_usize, to: char) {
            for text in [RSA_2048, PKCS1, CERTIFICATE] {
                let text: String = text
                    .chars()
                    .enumerate()
                    .map(|(at, character)| if at == index % text.len() { to } else { character })
                    .collect();
                if let Ok(key) = PublicKey::from_pem(&text) {
                    prop_assert!(!key.verifies(b"message", &[1; 256]));
                }
            }
        }
    }
}

//! How simulated deliveries prove where they come from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};

use crate::config::Secret;

use super::payload::AuthType;

/// What proves where a delivery comes from.
#[derive(Debug)]
pub enum Proof {
    /// Nothing.
    None,
    /// `Authorization: Bearer` with this token.
    Bearer(Secret),
    /// A signature by this key.
    Signature(Box<RsaKeyPair>),
}

/// Why a text is no private key that can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// It has no block that could be one.
    #[error("is not a private key in PEM (-----BEGIN PRIVATE KEY-----)")]
    NoBlock,
    /// What is in the block is damaged.
    #[error("is damaged: what stands between the PEM lines is not Base64")]
    NotBase64,
    /// It is no RSA key, or one that is too weak.
    #[error("is not an RSA key of 2048 to 4096 bits")]
    NotRsa,
}

impl Proof {
    /// The proof by a private key in PEM, as PKCS#8 or as PKCS#1.
    ///
    /// # Errors
    ///
    /// Where it is none that can sign.
    pub fn of_private_key(pem: &str) -> Result<Self, NoKey> {
        let pkcs8 = block(pem, "PRIVATE KEY").map(|der| RsaKeyPair::from_pkcs8(&der?).or(NOT_RSA));
        let pkcs1 =
            || block(pem, "RSA PRIVATE KEY").map(|der| RsaKeyPair::from_der(&der?).or(NOT_RSA));
        let key = pkcs8.or_else(pkcs1).ok_or(NoKey::NoBlock)??;
        Ok(Self::Signature(Box::new(key)))
    }

    /// What the provider writes of it into a delivery.
    #[must_use]
    pub fn auth_type(&self) -> AuthType {
        match self {
            Self::None => AuthType::None,
            Self::Bearer(_) => AuthType::Bearer,
            Self::Signature(_) => AuthType::SignatureRsaSha256,
        }
    }

    /// The headers of a delivery that is sent now.
    ///
    /// # Panics
    ///
    /// Never: the signature is as long as the key, and that is right.
    #[must_use]
    pub fn headers(&self, body: &[u8], now: DateTime<Utc>) -> Vec<(&'static str, String)> {
        match self {
            Self::None => Vec::new(),
            Self::Bearer(token) => vec![("authorization", format!("Bearer {}", token.expose()))],
            Self::Signature(key) => {
                let timestamp = now.timestamp().to_string();
                let signed = [timestamp.as_bytes(), b".", body].concat();
                let mut signature = vec![0; key.public().modulus_len()];
                // Blinding takes randomness; the signature itself has none.
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &signed, &mut signature)
                    .expect("a key signs into as many bytes as it has");
                vec![
                    ("x-recho-timestamp", timestamp),
                    ("x-recho-signature", STANDARD.encode(signature)),
                ]
            }
        }
    }
}

const NOT_RSA: Result<RsaKeyPair, NoKey> = Err(NoKey::NotRsa);

/// What the first block of that label holds (RFC 7468).
fn block(pem: &str, label: &str) -> Option<Result<Vec<u8>, NoKey>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_ascii_whitespace().collect();
    Some(STANDARD.decode(body).map_err(|_| NoKey::NotBase64))
}

#[cfg(test)]
mod tests {
    use crate::recho::PublicKey;

    use super::*;

    macro_rules! key {
        ($name:literal) => {
            include_str!(concat!("../../tests/fixtures/keys/", $name, ".pem"))
        };
    }

    fn headers(proof: &Proof) -> Vec<(&'static str, String)> {
        proof.headers(b"{}", "2026-05-12T10:24:00.9Z".parse().unwrap())
    }

    #[test]
    fn a_signature_is_over_the_time_and_the_body() {
        let proof = Proof::of_private_key(key!("rsa-2048.private")).unwrap();
        let headers = headers(&proof);
        assert_eq!(headers[0], ("x-recho-timestamp", "1778581440".to_owned()));
        let (name, signature) = &headers[1];
        assert_eq!(*name, "x-recho-signature");
        let signature = STANDARD.decode(signature).unwrap();
        let key = PublicKey::from_pem(key!("rsa-2048.spki")).unwrap();
        assert!(key.verifies(b"1778581440.{}", &signature));
        assert!(!key.verifies(b"1778581441.{}", &signature));
    }

    #[test]
    fn a_token_stands_behind_bearer() {
        let headers = headers(&Proof::Bearer(Secret::new("token")));
        assert_eq!(headers, [("authorization", "Bearer token".to_owned())]);
    }

    #[test]
    fn what_cannot_sign_is_refused() {
        for (pem, why) in [
            ("", NoKey::NoBlock),
            (key!("rsa-2048.spki"), NoKey::NoBlock),
            ("-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----", NoKey::NotBase64),
            ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----", NoKey::NotRsa),
        ] {
            assert_eq!(Proof::of_private_key(pem).err(), Some(why), "{pem}");
        }
    }
}

//! The keys of `tests/fixtures/keys/`, and the provider's side of signing.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};

macro_rules! key {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/keys/", $name, ".pem"))
    };
}

pub(super) const PRIVATE: &str = key!("rsa-2048.private");
pub(super) const RSA_2048: &str = key!("rsa-2048.spki");
pub(super) const PKCS1: &str = key!("rsa-2048.pkcs1");
pub(super) const CERTIFICATE: &str = key!("rsa-2048.certificate");
pub(super) const RSA_3072: &str = key!("rsa-3072.spki");
pub(super) const RSA_1024: &str = key!("rsa-1024.spki");
pub(super) const RSA_PSS: &str = key!("rsa-pss.spki");
pub(super) const P_256: &str = key!("p-256.spki");

/// Signs as the provider does.
pub(super) struct Signer(RsaKeyPair);

impl Signer {
    pub(super) fn rsa_2048() -> Self {
        Self::new(PRIVATE)
    }

    pub(super) fn rsa_3072() -> Self {
        Self::new(key!("rsa-3072.private"))
    }

    fn new(pem: &str) -> Self {
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(base64).expect("a key of the fixtures");
        Self(RsaKeyPair::from_pkcs8(&der).expect("a key of the fixtures"))
    }

    /// The value of `X-Recho-Signature`.
    pub(super) fn sign(&self, timestamp: &str, body: &[u8]) -> String {
        self.sign_message(&[timestamp.as_bytes(), b".", body].concat())
    }

    pub(super) fn sign_message(&self, message: &[u8]) -> String {
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .expect("there is randomness");
        STANDARD.encode(signature)
    }
}

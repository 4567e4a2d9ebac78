//! Signs deliveries as the provider does.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use callstate::clock::Clock;
use reqwest::RequestBuilder;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};

/// Where a key of `tests/fixtures/keys` is.
pub(crate) fn key_path(name: &str) -> String {
    format!("{}/tests/fixtures/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"))
}

/// A private key of the provider.
pub(crate) struct Signer(RsaKeyPair);

impl Signer {
    /// The one of that name in `tests/fixtures/keys`.
    pub(crate) fn new(name: &str) -> Self {
        let pem = std::fs::read_to_string(key_path(&format!("{name}.private"))).expect("a key");
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(base64).expect("a key in PEM");
        Self(RsaKeyPair::from_pkcs8(&der).expect("an RSA key"))
    }

    /// Adds the headers for a body that is signed so many seconds from now.
    pub(crate) fn sign(
        &self,
        request: RequestBuilder,
        body: &[u8],
        seconds: i64,
    ) -> RequestBuilder {
        let timestamp = (Clock::system().now().timestamp() + seconds).to_string();
        let message = [timestamp.as_bytes(), b".", body].concat();
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature)
            .expect("there is randomness");
        request
            .header("X-Recho-Timestamp", timestamp)
            .header("X-Recho-Signature", STANDARD.encode(signature))
    }
}

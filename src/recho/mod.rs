//! The provider's wire format, converted to domain events.
//!
//! [`read`] converts the bytes of one delivery to a [`call::Delivery`]. It is
//! liberal: only `eventType` and the call id must be usable; everything else may
//! be missing, of a wrong type, or new. Before that, an [`Authenticator`]
//! verifies the sender and [`encoding::decode`] removes compression.
//!
//! | file | contains |
//! | --- | --- |
//! | [`auth`] | authentication: bearer tokens, signatures, public keys |
//! | [`encoding`] | `Content-Encoding` |
//! | [`envelope`] | the members of the body and their meaning |
//! | [`read_error`] | why a body cannot be read |
//! | [`fingerprint`] | what makes two deliveries the same event |
//! | [`identifier`] | identifiers as they are given from outside |
//! | [`json`] | a JSON parser that accepts every text that the grammar allows |
//! | [`mentions`](mod@mentions) | which calls and clients a body names that cannot be read |
//! | [`time`] | the `Time:` line |
//! | [`time_zone`] | the time zone of that line |
//!
//! Deliberately absent: the database, and HTTP.
//!
//! [`call::Delivery`]: crate::call::Delivery

pub mod auth;
pub mod encoding;
pub mod envelope;
pub mod fingerprint;
pub mod identifier;
pub mod json;
pub mod mentions;
pub mod read_error;
#[cfg(test)]
mod tests;
pub mod time;
pub mod time_zone;

pub use auth::{AuthError, Authenticator, Credentials, PublicKey, SignatureVerifier, Tokens};
pub use encoding::DecodeError;
pub use envelope::{Reading, Receipt, read};
pub use read_error::ReadError;
pub use time::TimeReading;
pub use time_zone::ProviderTimeZone;

/// The endpoint of `POST /webhooks`, which names none.
pub const DEFAULT_ENDPOINT: &str = "default";

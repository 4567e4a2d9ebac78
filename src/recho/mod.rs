//! The provider's wire format, made into domain events.
//!
//! [`read`] takes the bytes of one delivery and gives a [`call::Delivery`] or
//! says why it cannot be understood. It is liberal: only `eventType` and the
//! call's id must be usable, everything else may be missing, of a wrong type,
//! or new. Before that, a [`Guard`] tells whether the delivery comes from where
//! the operator thinks.
//!
//! | file | holds |
//! | --- | --- |
//! | [`envelope`] | which member of the body means what |
//! | [`fingerprint`] | what makes two deliveries the same event |
//! | [`json`] | JSON as it arrives: every text that the grammar allows |
//! | [`time`] | the `Time:` line |
//! | [`proof`] | what an endpoint asks of a delivery, and why it refuses one |
//! | [`bearer`] | tokens |
//! | [`signature`] | signatures |
//! | [`key`] | the public keys that signatures are checked with |
//!
//! Deliberately absent: the database, and HTTP.
//!
//! [`call::Delivery`]: crate::call::Delivery

pub mod bearer;
pub mod envelope;
pub mod fingerprint;
#[cfg(test)]
mod fixtures;
pub mod json;
pub mod key;
pub mod proof;
pub mod signature;
pub mod time;

pub use bearer::Tokens;
pub use envelope::{Receipt, Unreadable, read};
pub use key::PublicKey;
pub use proof::{Guard, Refusal};
pub use signature::Verifier;

/// The endpoint of `POST /webhooks`, which names none.
pub const DEFAULT_ENDPOINT: &str = "default";

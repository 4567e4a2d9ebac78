//! The provider's wire format, made into domain events.
//!
//! [`read`] takes the bytes of one delivery and gives a [`call::Delivery`] or
//! says why it cannot be understood. It is liberal: only `eventType` and the
//! call's id must be usable, everything else may be missing, of a wrong type,
//! or new.
//!
//! | file | holds |
//! | --- | --- |
//! | [`envelope`] | which member of the body means what |
//! | [`fingerprint`] | what makes two deliveries the same event |
//! | [`json`] | JSON as it arrives: every text that the grammar allows |
//! | [`time`] | the `Time:` line |
//!
//! Deliberately absent: the database, and HTTP.
//!
//! [`call::Delivery`]: crate::call::Delivery

pub mod envelope;
pub mod fingerprint;
pub mod json;
pub mod time;

pub use envelope::{Receipt, Unreadable, read};

//! The routes: one file per resource. A file holds the handlers with their requests and
//! responses, and mirrors the file of [`store`](crate::store) that serves it.

pub mod calls;
pub(crate) mod erasure;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod metrics;
pub mod quarantine;
pub mod reports;
pub(crate) mod state_machine;
pub(crate) mod store_metrics;
pub mod streams;
pub mod webhooks;

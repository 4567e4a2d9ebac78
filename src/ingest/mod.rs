//! From a parsed delivery to its commit.
//!
//! | module | owns |
//! | --- | --- |
//! | [`queue`] | the bounded queues through which deliveries reach the writers |
//! | [`batch`] | deliveries that are committed together |
//! | [`writer`] | the writer: commits what has gathered as one batch, then answers all of it |
//! | [`connection`] | the connection of a writer |
//! | [`locks`] | calls that other sessions have locked |
//! | [`supervisor`] | restarting writers, and their health |
//! | [`quarantine`] | deliveries that could not be parsed |
//! | [`erasure`] | erasing calls and clients, in the quarantine too |
//! | [`retention`] | the task that removes what is old |
//! | [`clock_check`] | whether what is old may be dropped by the clocks |
//! | [`metrics`] | the metrics of the writers |
//!
//! What always holds: a delivery is answered with success only after its commit; an
//! accepted delivery is committed even if nobody waits for the answer any more; what
//! waits is bounded in number by [`Settings::queue`] for each writer, and in bytes by
//! [`queue::MAX_WAITING_BYTES`] for all.
//!
//! Deliberately absent: HTTP, and authentication.

mod batch;
mod clock_check;
mod connection;
pub mod erasure;
mod locks;
pub mod metrics;
pub mod quarantine;
pub mod queue;
pub mod retention;
mod supervisor;
mod writer;

pub use quarantine::Quarantine;
pub use queue::{Ingest, IngestError, PendingDelivery, Settings};
pub use retention::Retention;
pub use supervisor::Writers;

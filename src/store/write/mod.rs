//! The write path: a batch of deliveries and their effect.
//!
//! | module | owns |
//! | --- | --- |
//! | [`recorder`] | the steps: look up the calls, decide, write, again where another writer was first |
//! | [`change`] | the effect of a batch on one call, decided without the database |
//! | [`statement`] | the one statement that writes a batch |
//! | [`stored_events`] | changes of stored events: amended outcomes, and further deliveries |
//! | [`cache`] | the calls that a writer wrote last |
//! | [`refold`](mod@refold) | folding stored calls again, for `rebuild` |
//! | [`reread`](mod@reread) | reading stored payloads again, for `rebuild --from-payloads` |

mod cache;
mod change;
pub mod recorder;
pub mod refold;
pub mod reread;
mod statement;
mod stored_events;

pub use recorder::{RecordResult, Recorded, Recorder};
pub use refold::refold;
pub(super) use statement::CallRow;
pub(super) use stored_events::AmendedEvent;

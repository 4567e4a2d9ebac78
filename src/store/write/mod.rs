//! The write path: a batch of deliveries and their effect.
//!
//! | module | owns |
//! | --- | --- |
//! | [`recorder`] | the steps: look up the calls, decide, write, again where another writer was first |
//! | [`change`] | the effect of a batch on one call, decided without the database |
//! | [`statement`] | the one statement that writes a batch |
//! | [`cache`] | the calls that a writer wrote last |
//! | [`refold`](mod@refold) | folding stored calls again, for `rebuild` |

mod cache;
mod change;
pub mod recorder;
pub mod refold;
mod statement;

pub use recorder::{RecordResult, Recorded, Recorder};
pub use refold::refold;
pub(super) use statement::Summary;

//! Traffic: calls that never were, told as the provider would tell them, and
//! held to what should have become of them.
//!
//! | file | holds |
//! | --- | --- |
//! | [`scenario`] | the kinds of calls, and what happens in one |
//! | [`fault`] | what fails in calls |
//! | [`plan`] | seed → calls → deliveries, and what goes wrong on the way |
//! | [`payload`] | the body of a delivery |
//! | [`picture`] | what should have become of a call |
//! | [`proof`] | bearer tokens and signatures |
//! | [`target`] | where it goes, and the client |
//! | `pace` | when something is sent |
//! | [`sender`] | sends, tries again, keeps account |
//! | [`account`], [`latency`] | how it was answered |
//! | [`check`] | asks the service, and compares |
//! | [`report`] | the whole run, for people and for programs |
//!
//! From [`scenario`] to [`picture`] everything is a pure function of a seed;
//! the rest does what was planned. What a call should have become is known
//! from what happened in it, not from the state machine that is tested by it.
//!
//! Deliberately absent: the database, the store, and the service itself. All
//! of it goes through HTTP, as it would come from the provider.

pub mod account;
pub mod check;
pub mod fault;
pub mod latency;
mod pace;
pub mod payload;
pub mod picture;
pub mod plan;
pub mod proof;
pub mod report;
pub mod scenario;
pub mod sender;
pub mod target;
#[cfg(test)]
mod tests;

pub use pace::Halt;

//! The domain: what a call is, and how its events make it.
//!
//! Everything here is pure: no I/O, no clock, no randomness, and no other room
//! of the crate. A call is a function of the *set* of its events: [`fold`]
//! sorts them and applies one after the other, and [`Call::apply`] adds one
//! that sorts last. Both use the one table in [`mod@transition`].
//!
//! | file | holds |
//! | --- | --- |
//! | [`status`] | the statuses, their ranks and kinds, the directions |
//! | [`event`] | the 18 event types, an event, the order of events |
//! | [`mod@transition`] | **the state machine's table**: status × event → disposition |
//! | [`attempt`] | one dial of a call |
//! | [`state`] | the call, and one step of the fold |
//! | [`machine`] | the table as text, Mermaid, DOT and JSON |
//! | [`id`] | what names a project, a call, a dial, a client |
//!
//! Deliberately absent: where events come from, how they are stored, and any
//! notion of "now".

pub mod attempt;
pub mod event;
pub mod id;
pub mod machine;
mod name;
mod reason;
pub mod state;
pub mod status;
pub mod transition;

#[cfg(test)]
mod tests;

pub use attempt::Attempt;
pub use event::{
    CallError, Delivery, Event, EventType, Fingerprint, KnownEvent, Position, Receipts, event_id,
};
pub use id::{CallId, CallKey, CallSid, ClientId, InvalidIdentifier, ProjectId};
pub use name::UnknownName;
pub(crate) use name::named;
pub use state::{Call, Outcome, fold};
pub use status::{Direction, Kind, Rank, Status};
pub use transition::{Disposition, Relation, transition};

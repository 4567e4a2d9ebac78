//! The domain: what a call is, and how its events determine it.
//!
//! Everything here is pure: no I/O, no clock, no randomness, and no other module
//! of the crate. A call is a function of the *set* of its events: [`fold()`]
//! sorts them and applies one after the other. [`Call::apply`] adds one event
//! to a stored call where that gives the same result.
//!
//! | file | holds |
//! | --- | --- |
//! | [`status`] | the table of statuses, their ranks and kinds, the directions |
//! | [`event_type`] | the table of the 18 event types |
//! | [`event`] | an event, a delivery, the order of events |
//! | [`mod@transition`] | **the state machine's table**: status × event → disposition |
//! | [`attempt`] | one dial of a call |
//! | [`state`] | the call: its fields and how an event changes them |
//! | `facts` | what the table needs beside the two statuses |
//! | [`mod@fold`] | the fold of all events, and its single step |
//! | [`reason`] | why an event had its disposition, as a code |
//! | [`machine`] | the table as text, Mermaid, DOT and JSON |
//! | [`id`] | the ids of a project, a call, a dial, a client |
//!
//! Deliberately absent: where events come from, how they are stored, and any
//! notion of "now".

pub mod attempt;
pub mod event;
pub mod event_type;
mod facts;
pub mod fold;
pub mod id;
pub mod machine;
mod name;
pub mod reason;
pub mod state;
pub mod status;
pub mod transition;

#[cfg(test)]
mod tests;

pub use attempt::Attempt;
pub use event::{
    CallError, Delivery, Event, Fingerprint, Position, Receipts, TimeProblem, event_id,
};
pub use event_type::{EventType, EventTypeSpec, KnownEvent};
pub use fold::fold;
pub use id::{CallId, CallKey, CallSid, ClientId, InvalidIdentifier, ProjectId};
pub use name::UnknownName;
pub(crate) use name::named;
pub use reason::{Reason, ReasonCode};
pub use state::{Call, Outcome};
pub use status::{Direction, Kind, Rank, Status, StatusSpec};
pub use transition::{Disposition, Facts, Order, Relation, transition};

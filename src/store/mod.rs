//! All SQL, as free functions over a connection or a pool.
//!
//! | module | owns |
//! | --- | --- |
//! | [`write`](mod@write) | the write path: a batch of deliveries and their effect |
//! | [`calls`] | the table `calls`: rows, lookups, lists, calls as of a time |
//! | [`events`] | the table `events`: rows, the history of a call, the change feed |
//! | [`reports`] | figures over many calls, from the views in the schema `reporting` |
//! | [`quarantine`] | the table `quarantine` |
//! | [`api_keys`] | the table `api_keys` |
//! | [`verify`] | comparing stored calls with the fold of their events |
//! | [`retention`] | removing payloads and calls that are old |
//! | [`erasure`] | removing calls for good |
//! | [`gauges`] | figures of the present state, for metrics |
//! | [`export`] | whole ranges of calls, events and deliveries, as streams |
//! | [`spec`] | comparing the tables of statuses, event types and reasons with the program |
//! | [`connection`] | the settings of connections |
//! | [`statistics`] | planner statistics of a new database |
//! | [`error`](mod@error) | errors, classified by what happened |
//! | `codec` | domain types as Postgres types |
//!
//! What always holds: every statement is checked at compile time and names its
//! tables without a schema; times are parameters; a stored value that the
//! program cannot have written is an [`Error::Corrupt`] that names its table,
//! row and column, never a panic.
//!
//! # Errors
//!
//! Functions fail if the query fails or a stored row is invalid.
//!
//! Deliberately absent: the wire format, HTTP, and the current time.

#![expect(clippy::missing_errors_doc, reason = "this page says it once for all functions")]

pub mod api_keys;
pub mod calls;
mod codec;
pub mod connection;
pub mod erasure;
pub mod error;
pub mod events;
pub mod export;
pub mod gauges;
pub mod quarantine;
pub mod reports;
pub mod retention;
pub mod spec;
pub mod statistics;
pub mod verify;
pub mod write;

pub use error::Error;

/// The schema's migrations, the same files that `sqlx migrate run` applies.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

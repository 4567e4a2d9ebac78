//! Who may ask: API keys, and what each lets its bearer do and see.
//!
//! | file | holds |
//! | --- | --- |
//! | [`key`] | the key itself, which is shown once, and the hash that is kept |
//! | [`grant`] | what a key is good for, and for how long |
//! | [`projects`] | which projects a bearer may see |
//!
//! What always holds: a key is seen where it is made and where it is shown, and
//! nowhere else; neither `Debug` nor the store has it.
//!
//! Deliberately absent: the database, HTTP, and any notion of "now". Who may
//! *deliver* is another matter, and the wire format's.

pub mod grant;
pub mod key;
pub mod projects;

pub use grant::{Grant, KeyName, Scope, State};
pub use key::{ApiKey, KeyHash};
pub use projects::Projects;

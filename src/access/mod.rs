//! Who may ask: API keys, and what each lets its bearer do and see.
//!
//! | file | holds |
//! | --- | --- |
//! | [`key`] | the key itself, which is shown once, and the hash that is kept |
//! | [`key_record`] | what a key is good for, and for how long |
//! | [`projects`] | which projects a bearer may see |
//!
//! What always holds: a key is seen where it is made and where it is shown, and
//! nowhere else; neither `Debug` nor the store has it.
//!
//! Deliberately absent: the database, HTTP, and any notion of "now". Who may
//! *deliver* is another matter, and the wire format's.

pub mod key;
pub mod key_record;
pub mod projects;

pub use key::{ApiKey, KeyHash};
pub use key_record::{KeyName, KeyRecord, KeyState, Scope};
pub use projects::Projects;

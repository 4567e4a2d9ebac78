//! Calls: one by its id, lists, and the history of one.

pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod list;
pub mod reader;

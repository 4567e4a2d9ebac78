//! The table `calls`: one row for each call, the fold of its events.
//!
//! | module | owns |
//! | --- | --- |
//! | [`row`] | a row and the call in it |
//! | [`find`] | lookups by the provider's id |
//! | [`list`] | filtered lists, newest first |
//! | [`filter`] | which calls are listed |
//! | [`partition`] | the index partitions that lists are read from |
//! | [`as_of`] | calls as they were known at a time |

pub mod as_of;
pub mod filter;
pub mod find;
pub mod list;
pub mod partition;
pub mod row;

pub use row::StoredCall;

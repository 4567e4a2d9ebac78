//! The table `events`: append-only, one row for each distinct event of a call.
//!
//! | module | owns |
//! | --- | --- |
//! | [`row`] | a row, the event in it and its effect |
//! | [`history`] | the events of a call in fold order, and its errors |
//! | [`feed`] | the change feed: events in the order of commits |
//! | [`feed_details`] | the change feed with the details of its events |

pub mod feed;
pub mod feed_details;
pub mod history;
pub mod row;

pub use row::StoredEvent;

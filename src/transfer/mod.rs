//! Files that go out of callstate and come in: tables in three formats, and
//! deliveries as lines that make the same calls again.
//!
//! | file | holds |
//! | --- | --- |
//! | [`sheet`] | what a table is: columns with a name and a kind, rows of cells |
//! | [`tables`] | the tables: calls, events, attempts |
//! | [`writer`] | a table in one of the formats |
//! | [`json`] | as JSON lines |
//! | [`csv`] | as CSV |
//! | [`parquet`] | as Parquet |
//! | [`line`](mod@line) | a delivery as a line, there and back |
//! | [`lines`] | the lines of a file that comes in |
//! | [`file`](mod@file) | a file that is there when it is whole, and not before |
//!
//! What always holds: a table has the same columns under the same names in each
//! format, those that the HTTP interface and the tables of the store have; what
//! is held in memory is bounded, however long a file is.
//!
//! Deliberately absent: the database, and where a row comes from.

pub mod csv;
pub mod file;
pub mod json;
pub mod line;
pub mod lines;
pub mod parquet;
pub mod sheet;
pub mod tables;
pub mod writer;

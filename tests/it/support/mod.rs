//! What the tests stand on: a database for each, and the program as its users run it.
//!
//! `cargo test` on a fresh clone is enough. The first test that needs a database starts one throw-away cluster for all test
//! processes; the migrations run once, into a template; each test gets a copy of it, which is dropped with the test.
//! Nothing sleeps, nothing is tried twice, nothing is mocked.

mod client;
mod cluster;
mod database;
pub(crate) mod delivery;
pub(crate) mod encoding;
mod instance;
mod lock;
mod place;
mod program;
pub(crate) mod provider;
pub(crate) mod proxy;
mod raw;
mod signer;
mod stream;
mod supervisor;

pub(crate) use self::client::Answer;
pub(crate) use self::database::Database;
pub(crate) use self::instance::Instance;
pub(crate) use self::lock::Lock;
pub(crate) use self::place::Place;
pub(crate) use self::program::{Service, callstate, command};
pub(crate) use self::raw::RawAnswer;
pub(crate) use self::signer::{Signer, key_path};
pub(crate) use self::stream::Stream;

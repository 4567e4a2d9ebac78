//! Takes the webhooks of an AI phone platform, stores every event in Postgres
//! and answers where each call stands.
//!
//! | module | holds | may use |
//! | --- | --- | --- |
//! | [`call`] | the domain: statuses, the state machine's table, the fold | no other module |
//! | [`recho`] | the provider's wire format, made into domain events | `call` |
//! | [`access`] | who may ask: API keys and what they are good for | `call` |
//! | [`store`] | all SQL | `call`, `access` |
//! | [`ingest`] | receive, batch, commit, answer | `call`, `recho`, `store`, `clock`, `log_limit` |
//! | [`transfer`] | files that go out and come in | `call`, `recho`, `store` |
//! | [`http`] | the HTTP interface | `ingest`, `store`, `call`, `recho`, `access`, `clock`, `transfer`, `log_limit` |
//! | [`managed_postgres`] | a Postgres of our own | none |
//! | [`simulate`] | traffic for tests and trials, from outside | `call`, `clock`, `config` |
//! | [`cli`], `main` | the commands | every module |
//!
//! Besides these there are [`config`], [`database`], [`telemetry`], [`log_limit`] and [`clock`].
//! A test reads the `use` lines and fails where a module uses another that it may not.
//!
//! What the crate promises, and where each promise is kept: `ARCHITECTURE.md`.

pub mod access;
pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod database;
pub mod http;
pub mod ingest;
pub mod log_limit;
pub mod managed_postgres;
pub mod recho;
pub mod simulate;
pub mod store;
pub mod telemetry;
pub mod transfer;

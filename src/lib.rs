//! Takes the webhooks of an AI phone platform, stores every event in Postgres
//! and answers where each call stands.

pub mod api;
pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod database;
pub mod ingest;
pub mod postgres;
pub mod recho;
pub mod store;
pub mod telemetry;

//! Takes the webhooks of an AI phone platform, stores every event in Postgres
//! and answers where each call stands.

pub mod api;
pub mod call;
pub mod clock;
pub mod ingest;
pub mod recho;
pub mod store;

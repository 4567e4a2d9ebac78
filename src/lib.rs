//! Takes the webhooks of an AI phone platform, stores every event in Postgres
//! and answers where each call stands.

pub mod postgres;

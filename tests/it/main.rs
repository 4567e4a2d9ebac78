//! Tests of the whole program against a real Postgres.

mod asking;
mod audit;
mod authentication;
mod calls;
mod commands;
mod deliveries;
mod durability;
mod edge;
mod export;
mod fuzzing;
mod harness;
mod hostile;
mod import;
mod keyring;
mod keys;
mod list_plans;
mod lists;
mod managed_postgres;
mod metrics;
mod openapi;
mod quarantine;
mod quarantine_bounds;
mod rooms;
mod schema;
mod simulate;
mod support;

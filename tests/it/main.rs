//! Tests of the whole program against a real Postgres.

mod audit;
mod authentication;
mod calls;
mod deliveries;
mod durability;
mod harness;
mod managed_postgres;
mod quarantine;
mod quarantine_bounds;
mod rooms;
mod schema;
mod support;

//! Tests of the whole program against a real Postgres.

mod audit;
mod authentication;
mod calls;
mod commands;
mod deliveries;
mod durability;
mod harness;
mod keyring;
mod keys;
mod managed_postgres;
mod rooms;
mod schema;
mod simulate;
mod support;

//! Tests of the whole program against a real Postgres.

mod harness;
mod managed_postgres;
mod support;

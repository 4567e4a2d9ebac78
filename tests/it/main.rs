//! Tests of the whole program against a real Postgres.

mod managed_postgres;

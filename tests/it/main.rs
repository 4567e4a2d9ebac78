//! Tests of the whole program against a real Postgres.

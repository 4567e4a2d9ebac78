//! What is old is dropped by the database's clock, and not while a clock is wrong.

use std::time::Duration;

use callstate::{
    clock::Clock,
    ingest::Quarantine,
    store::{
        connection::server_time,
        quarantine::{Bounds, Quarantined, count, keep},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::Database;

const BOUNDS: Bounds =
    Bounds { max_entries: 100, max_bytes: u64::MAX, max_age: Duration::from_hours(24) };

/// Puts entries in that were received so many hours before the time.
async fn fill(pool: &PgPool, time: DateTime<Utc>, hours: &[i64]) {
    for (number, hours) in hours.iter().enumerate() {
        let entry = Quarantined {
            id: Uuid::from_u128(number as u128),
            endpoint: "default",
            reason: "a test",
            headers: &json!({}),
            body: b"body",
            received_at: time - TimeDelta::hours(*hours),
        };
        keep(pool, &entry).await.unwrap();
    }
}

#[tokio::test]
async fn entries_are_dropped_by_their_age() {
    for (max_age, left) in [(BOUNDS.max_age, 2), (Duration::from_mins(30), 1), (Duration::MAX, 4)] {
        let database = Database::create().await;
        let pool = database.pool().await;
        let time = server_time(&pool).await.unwrap();
        fill(&pool, time, &[0, 23, 25, 1000]).await;
        let quarantine = Quarantine::new(pool.clone(), Bounds { max_age, ..BOUNDS });
        let trimmer = quarantine.trimmer(Clock::fixed(time));
        assert_eq!(trimmer.trim().await.unwrap(), 4 - left, "{max_age:?}");
        assert_eq!(trimmer.trim().await.unwrap(), 0);
        assert_eq!(count(&pool).await.unwrap(), left as u64);
    }
}

#[tokio::test]
async fn nothing_is_dropped_by_age_while_the_clocks_differ() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let time = server_time(&pool).await.unwrap();
    fill(&pool, time, &[0, 23, 25, 1000]).await;
    let quarantine = Quarantine::new(pool.clone(), BOUNDS);
    let years = TimeDelta::days(3650);
    for wrong in [time + years, time - years, time + TimeDelta::minutes(10)] {
        let trimmer = quarantine.trimmer(Clock::fixed(wrong));
        assert_eq!(trimmer.trim().await.unwrap(), 0, "{wrong}");
    }
    // The number of entries is bounded by any clock.
    let bounds = Bounds { max_entries: 3, ..BOUNDS };
    let trimmer = Quarantine::new(pool.clone(), bounds).trimmer(Clock::fixed(time + years));
    assert_eq!(trimmer.trim().await.unwrap(), 1);
    // Once the clock is right, the rest follows.
    assert_eq!(quarantine.trimmer(Clock::fixed(time)).trim().await.unwrap(), 1);
}

//! The bounds of the quarantine: the oldest entries are dropped and counted, and deliveries do not wait for it.

use std::time::Duration;

use callstate::{
    clock::Clock,
    ingest::Quarantine,
    store::quarantine::{Bounds, Quarantined, keep},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{Database, Service};

/// How long the service may take to drop entries.
const TIMEOUT: Duration = Duration::from_mins(1);

const WIDE: Bounds =
    Bounds { max_entries: 1_000_000, max_bytes: u64::MAX, max_age: Duration::from_hours(1000) };

fn noon() -> DateTime<Utc> {
    "2026-05-12T12:00:00Z".parse().unwrap()
}

/// Adds entries of 10 bytes each, one a second until noon; the last is the newest.
async fn fill(pool: &PgPool, entries: u32) {
    for number in 0..entries {
        let body = format!("{number:10}");
        let entry = Quarantined {
            // In the reverse order of time.
            id: Uuid::from_u128((1000 - number).into()),
            endpoint: "default",
            reason: "a test",
            headers: &json!({}),
            body: body.as_bytes(),
            received_at: noon() - TimeDelta::seconds((entries - number).into()),
        };
        keep(pool, &entry).await.unwrap();
    }
}

/// The numbers of the entries that are left, the oldest first.
async fn left(pool: &PgPool) -> Vec<u32> {
    let bodies = sqlx::query_scalar!("select body from quarantine order by first_received_at, id");
    let bodies = bodies.fetch_all(pool).await.unwrap();
    bodies.iter().map(|body| str::from_utf8(body).unwrap().trim().parse().unwrap()).collect()
}

#[tokio::test]
async fn the_oldest_entries_are_dropped_beyond_each_bound() {
    for (bounds, kept) in [
        (WIDE, 0..12),
        (Bounds { max_entries: 12, ..WIDE }, 0..12),
        (Bounds { max_entries: 5, ..WIDE }, 7..12),
        (Bounds { max_bytes: 120, ..WIDE }, 0..12),
        (Bounds { max_bytes: 119, ..WIDE }, 1..12),
        (Bounds { max_bytes: 9, ..WIDE }, 12..12),
        (Bounds { max_entries: 8, max_bytes: 60, ..WIDE }, 6..12),
    ] {
        let database = Database::create().await;
        let pool = database.pool().await;
        fill(&pool, 12).await;
        let quarantine = Quarantine::new(pool.clone(), bounds);
        let trimmer = quarantine.trimmer(Clock::fixed(noon()));
        let dropped = trimmer.trim().await.unwrap();
        assert_eq!(left(&pool).await, kept.clone().collect::<Vec<_>>(), "{bounds:?}");
        assert_eq!(dropped, 12 - kept.len(), "{bounds:?}");
        assert_eq!(quarantine.dropped(), dropped as u64);
        assert_eq!(trimmer.trim().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn several_instances_together_drop_no_more_than_one() {
    let database = Database::create().await;
    let pool = database.pool().await;
    fill(&pool, 200).await;
    let bounds = Bounds { max_entries: 40, ..WIDE };
    let trimmers: Vec<_> = (0..8)
        .map(|_| Quarantine::new(pool.clone(), bounds).trimmer(Clock::fixed(noon())))
        .map(|trimmer| tokio::spawn(async move { trimmer.trim().await.unwrap() }))
        .collect();
    let mut dropped = 0;
    for trimmer in trimmers {
        dropped += trimmer.await.unwrap();
    }
    assert_eq!(dropped, 160);
    assert_eq!(left(&pool).await, (160..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_locked_entry_is_skipped() {
    let database = Database::create().await;
    let pool = database.pool().await;
    fill(&pool, 4).await;
    let trimmer = Quarantine::new(pool.clone(), Bounds { max_entries: 1, ..WIDE })
        .trimmer(Clock::fixed(noon()));
    let mut held = pool.begin().await.unwrap();
    sqlx::query!("update quarantine set count = count + 1 where body = $1", b"         1")
        .execute(&mut *held)
        .await
        .unwrap();
    assert_eq!(trimmer.trim().await.unwrap(), 2);
    held.commit().await.unwrap();
    assert_eq!(trimmer.trim().await.unwrap(), 1);
    assert_eq!(left(&pool).await, [3]);
}

#[tokio::test]
async fn the_service_enforces_the_bounds_and_logs_what_it_dropped() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_QUARANTINE_MAX_ENTRIES", "2");
    })
    .await;
    for number in 0..6 {
        service.deliver(number.to_string()).await.quarantined();
        // A retry is not another entry.
        service.deliver(number.to_string()).await.quarantined();
    }
    service.said("the oldest entries of the quarantine were dropped").await;
    // Entries may be dropped in several runs, of which the log shows the first. The metric
    // counts them all.
    let dropped = "\ncallstate_quarantine_dropped_total 4\n";
    let counted = async { while !service.get("/metrics").await.text.contains(dropped) {} };
    timeout(TIMEOUT, counted).await.expect("four entries are dropped");
    assert_eq!(left(&database.pool().await).await, [4, 5]);
}

//! What Postgres reads for writes and exports, whatever its statistics are.

use callstate::{
    access::Projects,
    call::Delivery,
    store::{
        connection,
        export::{self, Selection},
        statistics::{Countdown, analyze_if_missing},
        write::Recorder,
    },
};
use chrono::{DateTime, TimeDelta};
use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use crate::support::{
    Database,
    delivery::{delivery, parsed_at},
};

/// An event of a call that happened at this second; with an error, if it says so.
fn event(event_type: &str, call: u32, second: u32) -> Delivery {
    let mut body = delivery(event_type, &format!("call-{call}"), second, Some("CA1"));
    if event_type.ends_with("ERROR") {
        body["body"]["errors"] = serde_json::json!([{"code": "NETWORK_ERROR"}]);
    }
    parsed_at(&body.to_string(), DateTime::UNIX_EPOCH + TimeDelta::days(30_000))
}

async fn record(
    (recorder, countdown): &mut (Recorder, Countdown),
    conn: &mut PgConnection,
    batch: &[Delivery],
) {
    let mut results = vec![None; batch.len()];
    recorder.record(&mut *conn, batch, &mut results).await.unwrap();
    if countdown.is_due_after(batch.len()) {
        analyze_if_missing(conn).await.unwrap();
    }
}

/// How many entries of the indexes of events were read.
async fn read(conn: &mut PgConnection) -> i64 {
    sqlx::query!("select pg_stat_force_next_flush()").fetch_one(&mut *conn).await.unwrap();
    sqlx::query_scalar!(
        r#"
        select sum(idx_tup_read)::bigint as "read!"
        from pg_stat_user_indexes
        where relname = 'events'
        "#
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

#[tokio::test]
async fn late_events_read_few_index_entries_with_a_plan_made_for_empty_tables() {
    let database = Database::create().await;
    let mut conn = database.pool().await.acquire().await.unwrap().detach();
    let patience = std::time::Duration::from_secs(20);
    connection::for_writing(&mut conn, patience, patience).await.unwrap();
    let mut writer = (Recorder::default(), Countdown::default());
    let late = |call| [event("OUTBOUND_CALL_PENDING", call, 5)];

    // Plans all that a late event needs.
    record(&mut writer, &mut conn, &[event("OUTBOUND_CALL_CALLING", 0, 10)]).await;
    record(&mut writer, &mut conn, &late(0)).await;
    for event_type in ["REQUESTED", "CALLING", "CLOSING", "COMPLETED"] {
        let event_type = format!("OUTBOUND_CALL_{event_type}");
        let batch: Vec<Delivery> = (1..300).map(|call| event(&event_type, call, 10)).collect();
        record(&mut writer, &mut conn, &batch).await;
    }

    let before = read(&mut conn).await;
    for call in 1..=10 {
        record(&mut writer, &mut conn, &late(call)).await;
    }
    let entries = read(&mut conn).await - before;
    assert!(entries < 10 * 50, "{entries} entries for ten late events");
}

/// How many scans of whole tables there were.
async fn scans(conn: &mut PgConnection) -> i64 {
    sqlx::query!("select pg_stat_force_next_flush()").fetch_one(&mut *conn).await.unwrap();
    sqlx::query_scalar!(
        r#"
        select sum(seq_scan)::bigint as "scans!"
        from pg_stat_user_tables
        where relname in ('calls', 'events')
        "#
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

/// The statement is planned while the tables are empty, and keeps its plan as they grow.
#[tokio::test]
async fn the_write_statement_uses_its_indexes_from_the_first_delivery_on() {
    const CALLS: u32 = 2000;
    let database = Database::create().await;
    let mut conn = database.pool().await.acquire().await.unwrap().detach();
    let timeout = std::time::Duration::from_secs(20);
    connection::for_writing(&mut conn, timeout, timeout).await.unwrap();
    let scans_before = scans(&mut conn).await;
    let mut countdown = Countdown::default();
    for call in 0..20 {
        let mut writer = (Recorder::default(), countdown);
        record(&mut writer, &mut conn, &[event("OUTBOUND_CALL_PENDING", call, 1)]).await;
        countdown = writer.1;
    }
    for event_type in ["CALLING", "CLOSING", "CALLING", "COMPLETED"] {
        let event_type = format!("OUTBOUND_CALL_{event_type}");
        let batch: Vec<Delivery> = (0..CALLS).map(|call| event(&event_type, call, 10)).collect();
        // A new recorder has none of the calls in its cache.
        let mut writer = (Recorder::default(), countdown);
        let before = read(&mut conn).await;
        for batch in batch.chunks(500) {
            record(&mut writer, &mut conn, batch).await;
        }
        countdown = writer.1;
        let entries = read(&mut conn).await - before;
        assert!(entries <= 4 * i64::from(CALLS), "{entries} entries for {CALLS} {event_type}");
    }
    assert_eq!(scans(&mut conn).await, scans_before);
}

#[tokio::test]
async fn an_export_reads_the_errors_of_a_call_by_its_key() {
    const CALLS: u32 = 300;
    let database = Database::create().await;
    let mut conn = database.pool().await.acquire().await.unwrap().detach();
    let mut writer = (Recorder::default(), Countdown::default());
    for event_type in ["CALLING", "ERROR", "COMPLETED"] {
        let event_type = format!("OUTBOUND_CALL_{event_type}");
        let batch: Vec<Delivery> = (0..CALLS).map(|call| event(&event_type, call, 10)).collect();
        record(&mut writer, &mut conn, &batch).await;
    }
    analyze_if_missing(&mut conn).await.unwrap();

    let before = read(&mut conn).await;
    let all = Selection { from: None, to: None, projects: Projects::All, changed_after: None };
    let mut tx = export::snapshot(&mut conn, &all).await.unwrap();
    let calls: Vec<_> = export::calls(&mut tx, &all, 10).try_collect().await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(calls.iter().filter(|call| call.errors.len() == 1).count(), CALLS as usize);
    let entries = read(&mut conn).await - before;
    assert!(entries <= 3 * i64::from(CALLS), "{entries} entries for the errors of {CALLS} calls");
}

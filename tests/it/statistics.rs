//! What Postgres knows of its tables, and how much it reads by what it knows.

use callstate::{
    access::Projects,
    call::Delivery,
    recho::{self, Receipt},
    store::{
        Buckets, Recorder, connection,
        export::{self, Selection},
        statistics::{Watch, tend},
    },
};
use chrono::{DateTime, FixedOffset, TimeDelta};
use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use crate::support::{Database, delivery::delivery};

/// An event of a call that happened at this second; with an error, if it says so.
fn event(event_type: &str, call: u32, second: u32) -> Delivery {
    let mut body = delivery(event_type, &format!("call-{call}"), second, Some("CA1"));
    if event_type.ends_with("ERROR") {
        body["body"]["errors"] = serde_json::json!([{"code": "NETWORK_ERROR"}]);
    }
    let body = body.to_string();
    let receipt = Receipt {
        endpoint: "default",
        received_at: DateTime::UNIX_EPOCH + TimeDelta::days(30_000),
        provider_utc_offset: FixedOffset::east_opt(0).unwrap(),
    };
    recho::read(body.as_bytes(), receipt).unwrap()
}

async fn record(
    (recorder, watch): &mut (Recorder, Watch),
    conn: &mut PgConnection,
    batch: &[Delivery],
) {
    let bucket = Buckets::of_database(&mut *conn).await.unwrap().of(&batch[0].key);
    let mut became = vec![None; batch.len()];
    recorder.record(&mut *conn, bucket, batch, &mut became).await.unwrap();
    if watch.is_due_after(batch.len()) {
        tend(conn).await.unwrap();
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
async fn late_events_read_little_also_where_the_plan_was_made_while_there_was_nothing() {
    let database = Database::create().await;
    let mut conn = database.pool().await.acquire().await.unwrap().detach();
    let patience = std::time::Duration::from_secs(20);
    connection::for_writing(&mut conn, patience, patience).await.unwrap();
    let mut writer = (Recorder::default(), Watch::default());
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

#[tokio::test]
async fn an_export_of_all_looks_for_the_errors_of_each_call_by_its_key() {
    const CALLS: u32 = 300;
    let database = Database::create().await;
    let mut conn = database.pool().await.acquire().await.unwrap().detach();
    let mut writer = (Recorder::default(), Watch::default());
    for event_type in ["CALLING", "ERROR", "COMPLETED"] {
        let event_type = format!("OUTBOUND_CALL_{event_type}");
        let batch: Vec<Delivery> = (0..CALLS).map(|call| event(&event_type, call, 10)).collect();
        record(&mut writer, &mut conn, &batch).await;
    }
    tend(&mut conn).await.unwrap();

    let before = read(&mut conn).await;
    let all = Selection { from: None, to: None, projects: Projects::All };
    let mut tx = export::snapshot(&mut conn, &all).await.unwrap();
    let calls: Vec<_> = export::calls(&mut tx, 0, &all, 10).try_collect().await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(calls.iter().filter(|call| call.errors.len() == 1).count(), CALLS as usize);
    let entries = read(&mut conn).await - before;
    assert!(entries <= 3 * i64::from(CALLS), "{entries} entries for the errors of {CALLS} calls");
}

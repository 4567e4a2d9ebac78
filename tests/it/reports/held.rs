//! Reports that the database takes its time for.

use serde_json::Value;

use crate::support::{Database, Lock, Service, delivery::delivery};

const DAY: &str = "from=2026-05-12T00:00:00Z&to=2026-05-13T00:00:00Z";

#[tokio::test]
async fn a_report_that_nobody_waits_for_any_more_counts_until_the_database_is_done_with_it() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_HTTP_ANSWER_TIMEOUT", "500ms");
    })
    .await;
    let mut lock = Lock::take_before_reports(&database).await;
    for reports in 1..=2 {
        let mut line = service.line().await;
        let request = format!("GET /reports/outcomes?{DAY} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        line.send(request.as_bytes()).await;
        lock.so_many_wait(reports).await;
    }
    for _ in 0..3 {
        service.get(&format!("/reports/outcomes?{DAY}")).await.problem(503);
    }
    assert_eq!(lock.waiting().await, 2);
    service.get("/calls").await.ok();
    lock.release().await;
    service.get(&format!("/reports/outcomes?{DAY}")).await.ok();
}

#[tokio::test]
async fn a_report_is_of_one_moment_whatever_is_stored_meanwhile() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let tell = async |event_type, second| {
        let delivery = delivery(event_type, "call-1", second, None);
        service.deliver(delivery.to_string()).await.ok();
    };
    tell("OUTBOUND_CALL_CALLING", 0).await;
    let report = async || -> Value {
        let path = format!("/reports/concurrency?{DAY}");
        service.get(&path).await.ok()["rows"].clone()
    };
    let before = report().await;
    assert_eq!(before[0]["mean"], 0.5);
    let mut lock = Lock::take_before_reports(&database).await;
    let meanwhile = async {
        lock.so_many_wait(1).await;
        tell("OUTBOUND_CALL_CLOSING", 1800).await;
        lock.release().await;
    };
    let (held, ()) = tokio::join!(report(), meanwhile);
    assert_eq!(held, before);
    assert_ne!(report().await, before);
}

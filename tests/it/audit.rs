//! `callstate verify` and `callstate rebuild`.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use crate::{
    import::{import, log_of},
    support::{
        Database, Service, callstate,
        delivery::{delivery, fixture, fixtures},
    },
};

async fn database_with_the_samples() -> Database {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for name in fixtures() {
        service.deliver(fixture(&name)).await.ok();
    }
    service.stop().await;
    database
}

fn run(command: &str, database: &Database) -> (Option<i32>, String) {
    let output = callstate(&[command, "--database-url", &database.url()]);
    let printed = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), printed)
}

#[tokio::test]
async fn verify_finds_no_difference_in_calls_that_the_service_wrote() {
    let database = database_with_the_samples().await;
    let (status, printed) = run("verify", &database);
    assert_eq!(printed, "folded 25 events of 25 calls: no difference\n");
    assert_eq!(status, Some(0));
}

#[tokio::test]
async fn verify_prints_each_difference_and_rebuild_repairs_it() {
    let database = database_with_the_samples().await;
    for (table, change, difference) in [
        ("calls", "status = 4", "status is stored as 4, folded as 8"),
        ("calls", "status = 999", "status is stored as 999, folded as 8"),
        ("calls", "attempts = '[]'", "attempts is stored as []"),
        ("calls", "attempts = '[{}]'", "attempts is stored as [{}], folded as [{\"number\": 1, "),
        (
            "calls",
            "last_delivered_at = '2000-01-01'",
            "last_delivered_at is stored as 2000-01-01T00:00:00+00:00, folded as ",
        ),
        (
            "calls",
            "microseconds_in_status = '{7}'",
            "microseconds_in_status is stored as [7], folded as [",
        ),
        ("calls", "list_partition = 8", "list_partition is stored as 8, folded as 64"),
        ("calls", "statuses_seen = 1", "statuses_seen is stored as 1, folded as 256"),
        ("calls", "attempt_counts = '{1}'", "attempt_counts is stored as [1], folded as ["),
        ("calls", "durations = null", "durations is stored as null, folded as ["),
        ("calls", "total_microseconds = 1", "total_microseconds is stored as 1, folded as 0"),
        ("events", "disposition = 'late'", "disposition is stored as late, folded as advanced"),
        ("events", "to_status = null", "to_status is stored as null, folded as 8"),
        ("events", "attempt = 7", "attempt is stored as 7, folded as 1"),
        ("events", "reason_status = 1", "reason_status is stored as 1, folded as "),
    ] {
        let of_call = match table {
            "calls" => "call_id = 'out-08'",
            _ => "call = (select id from calls where call_id = 'out-08')",
        };
        tamper(&database, &format!("update {table} set {change} where {of_call}")).await;
        let (status, printed) = run("verify", &database);
        assert_eq!(status, Some(1), "{change}");
        assert!(printed.contains("call out-08") && printed.contains(difference), "{printed}");
        assert!(printed.ends_with(": 1 difference\n"), "{printed}");

        let (status, printed) = run("rebuild", &database);
        assert_eq!(status, Some(0), "{printed}");
        assert!(printed.ends_with("1 difference, 1 call rebuilt\n"), "{printed}");
        let (status, printed) = run("verify", &database);
        assert_eq!(status, Some(0), "after {change}: {printed}");
    }
}

/// Executes a statement that must change one row.
async fn tamper(database: &Database, statement: &str) {
    let mut connection = database.connect().await;
    let changed = connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    assert_eq!(changed.rows_affected(), 1, "{statement}");
}

#[tokio::test]
async fn a_call_without_events_is_deleted_by_rebuild() {
    let database = database_with_the_samples().await;
    let events = "call = (select id from calls where call_id = 'out-08')";
    tamper(&database, &format!("delete from events where {events}")).await;
    let (_, printed) = run("verify", &database);
    assert!(printed.contains("call out-08"), "{printed}");
    assert!(printed.contains(": call is stored as present, folded as absent\n"), "{printed}");
    assert_eq!(run("rebuild", &database).0, Some(0));
    assert_eq!(
        run("verify", &database),
        (Some(0), "folded 24 events of 24 calls: no difference\n".to_owned())
    );
}

#[tokio::test]
async fn events_without_their_call_are_found_and_not_rebuilt() {
    let database = database_with_the_samples().await;
    tamper(&database, "delete from calls where call_id = 'out-08'").await;
    for command in ["verify", "rebuild"] {
        let (status, printed) = run(command, &database);
        assert_eq!(status, Some(1), "{printed}");
        assert!(printed.contains("call number "), "{printed}");
        assert!(printed.contains(": call is stored as absent, so the call cannot be folded\n"));
    }
}

#[tokio::test]
async fn the_order_of_a_history_is_verified_and_rebuilt() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (second, event_type) in [
        (1, "OUTBOUND_CALL_PENDING"),
        (2, "OUTBOUND_CALL_CALLING"),
        (2, "OUTBOUND_CALL_REQUESTED"),
        (3, "OUTBOUND_CALL_COMPLETED"),
    ] {
        service.deliver(delivery(event_type, "c", second, None).to_string()).await.ok();
    }
    let right = service.get("/calls/c/history").await.ok();
    tamper(
        &database,
        "update events set effective_at = '2000-01-01'
        where event_type = (select id from event_type_spec where event_type = 'OUTBOUND_CALL_COMPLETED')",
    )
    .await;
    // Pages follow the stored order, so that no event is on two of them.
    assert_eq!(
        event_types(&paged(&service).await),
        ["COMPLETED", "PENDING", "REQUESTED", "CALLING"]
    );

    let (status, printed) = run("verify", &database);
    assert_eq!(status, Some(1));
    let difference =
        "effective_at is stored as 2000-01-01T00:00:00Z, folded as 2026-05-12T12:00:03Z";
    assert!(printed.contains(difference), "{printed}");
    assert!(printed.ends_with(": 1 difference\n"), "{printed}");
    assert_eq!(run("rebuild", &database).0, Some(0));
    let (status, printed) = run("verify", &database);
    assert_eq!(status, Some(0), "{printed}");

    let shown = paged(&service).await;
    assert_eq!(event_types(&shown), ["PENDING", "REQUESTED", "CALLING", "COMPLETED"]);
    assert_eq!(Value::Array(shown), right["events"]);
}

/// The history of the call `c`, an event to a page.
async fn paged(service: &Service) -> Vec<Value> {
    /// More pages than there are events.
    const MAX_PAGES: usize = 10;
    let mut events = Vec::new();
    let mut cursor = String::new();
    for _ in 0..MAX_PAGES {
        let page = service.get(&format!("/calls/c/history?limit=1&cursor={cursor}")).await.ok();
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return events,
        }
    }
    panic!("the pages do not end");
}

fn event_types(events: &[Value]) -> Vec<&str> {
    let names = events.iter().map(|event| event["event_type"].as_str().unwrap());
    names.map(|name| name.trim_start_matches("OUTBOUND_CALL_")).collect()
}

#[tokio::test]
async fn an_invalid_event_is_printed_and_other_calls_are_rebuilt() {
    let database = database_with_the_samples().await;
    tamper(
        &database,
        "update events set fingerprint = '\\x010203'
        where call = (select id from calls where call_id = 'out-08')",
    )
    .await;
    tamper(&database, "update calls set status = 4 where call_id = 'out-09'").await;
    let invalid = ": fingerprint is stored as an invalid value (a fingerprint has 32 bytes, \
                   this one has 3), so the call cannot be folded\n";
    let (status, printed) = run("verify", &database);
    assert_eq!(status, Some(1));
    assert!(printed.contains("call out-08") && printed.contains(invalid), "{printed}");
    assert!(printed.ends_with("folded 24 events of 25 calls: 2 differences\n"), "{printed}");

    let (status, printed) = run("rebuild", &database);
    assert_eq!(status, Some(1));
    assert!(printed.contains(invalid), "{printed}");
    let summary = ": 2 differences, 1 call rebuilt, 1 not: an event of each is invalid, \
                   or the row of the call is missing\n";
    assert!(printed.ends_with(summary), "{printed}");
    let (status, printed) = run("verify", &database);
    assert_eq!(status, Some(1));
    assert!(printed.ends_with(": 1 difference\n"), "{printed}");
}

#[tokio::test]
async fn rebuild_repeats_a_transaction_that_postgres_rolls_back() {
    let database = database_with_the_samples().await;
    let mut connection = database.connect().await;
    for statement in [
        "update calls set status = 4 where call_id = 'out-08'",
        "create sequence tries",
        "create function roll_back() returns trigger language plpgsql as $$
         begin
             -- a sequence is not rolled back
             if nextval('tries') < 3 then
                 raise exception using errcode = 'deadlock_detected';
             end if;
             return new;
         end
         $$",
        "create trigger roll_back before update on calls for each row execute function roll_back()",
    ] {
        connection.execute(statement).await.unwrap();
    }
    let (status, printed) = run("rebuild", &database);
    assert_eq!(status, Some(0), "{printed}");
    let row = connection.fetch_one("select last_value from tries").await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 3);
    assert_eq!(run("verify", &database).0, Some(0));
}

#[tokio::test]
async fn verify_prints_json() {
    let database = database_with_the_samples().await;
    let tampering = "update calls set anomaly_count = 9 where call_id = 'out-08'";
    database.connect().await.execute(tampering).await.unwrap();
    let output = callstate(&["verify", "--format", "json", "--database-url", &database.url()]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["calls"], 25);
    assert_eq!(report["difference_count"], 1);
    assert_eq!(report["differences"][0]["field"], "anomaly_count");
    assert_eq!(report["differences"][0]["stored"], "9");
    assert_eq!(report["differences_left_out"], 0);
}

#[tokio::test]
async fn differences_over_the_limit_of_json_are_counted_and_rebuilt() {
    let database = Database::create().await;
    let of_call = |call: u32| delivery("OUTBOUND_CALL_BUSY", &call.to_string(), 1, None);
    let bodies: Vec<String> = (0..520).map(|call| of_call(call).to_string()).collect();
    assert!(import(&database, log_of(&bodies).as_bytes(), &[]).status.success());
    let tampering = "update calls set anomaly_count = 9, event_count = 9";
    let changed = database.connect().await.execute(tampering).await.unwrap();
    assert_eq!(changed.rows_affected(), 520);

    let (status, printed) = run("verify", &database);
    assert_eq!(status, Some(1));
    assert_eq!(printed.lines().count(), 1041, "the text format has all");
    assert!(printed.ends_with(": 1040 differences\n"), "{printed}");

    let output = callstate(&["rebuild", "--format", "json", "--database-url", &database.url()]);
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["difference_count"], 1040);
    assert_eq!(report["differences"].as_array().unwrap().len(), 1000);
    assert_eq!(report["differences_left_out"], 40);
    assert_eq!(report["rebuilt"], 520);
    let (status, printed) = run("verify", &database);
    assert_eq!(status, Some(0), "{printed}");
}

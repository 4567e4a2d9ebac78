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
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), said)
}

#[tokio::test]
async fn verify_finds_no_difference_in_what_the_service_wrote() {
    let database = database_with_the_samples().await;
    let (status, said) = run("verify", &database);
    assert_eq!(said, "folded 25 events of 25 calls: no difference\n");
    assert_eq!(status, Some(0));
}

#[tokio::test]
async fn verify_tells_each_difference_and_rebuild_mends_it() {
    let database = database_with_the_samples().await;
    let newer = "alter type call_status add value 'NOWHERE'";
    database.connect().await.execute(newer).await.unwrap();
    for (tampering, difference) in [
        (
            "update calls set status = 'CALLING' where call_id = 'out-08'",
            "status is stored as CALLING, folded as BUSY",
        ),
        ("update calls set attempts = '[]' where call_id = 'out-08'", "attempts is stored as []"),
        (
            "update calls set last_delivered_at = '2000-01-01' where call_id = 'out-08'",
            "last_delivered_at is stored as 2000-01-01",
        ),
        (
            "update events set disposition = 'late' where call_id = 'out-08'",
            "disposition is stored as late, folded as advanced",
        ),
        (
            "update events set event_id = gen_random_uuid() where call_id = 'out-08'",
            "event_id is stored as ",
        ),
        ("update events set reason = 'none' where call_id = 'out-08'", "reason is stored as none"),
        (
            "update calls set attempts = '[{}]' where call_id = 'out-08'",
            "attempts is stored as what cannot be read (missing field `number` at line 1 column 3), \
             folded as [{\"number\":1,",
        ),
        (
            "update calls set microseconds_in_status = '{\"NOWHERE\": 1}' where call_id = 'out-08'",
            "microseconds_in_status is stored as what cannot be read (",
        ),
        (
            "update calls set status = 'NOWHERE' where call_id = 'out-08'",
            "call is stored as what cannot be read (",
        ),
        (
            "update calls set closed_shape = '[[],[]]' where call_id = 'out-08'",
            "closed_shape is stored as [[],[]], folded as [[\"BUSY\"],[\"BUSY\"]]",
        ),
        (
            "update calls set closed_stays = '{1}' where call_id = 'out-08'",
            "closed_stays is stored as [1], folded as [",
        ),
        (
            "delete from calls where call_id = 'out-08'",
            "call is stored as absent, folded as present",
        ),
        // Last: what is gone cannot be mended, so the call goes too.
        (
            "delete from events where call_id = 'out-08'",
            "call is stored as present, folded as absent",
        ),
    ] {
        let changed = database.connect().await.execute(AssertSqlSafe(tampering)).await.unwrap();
        assert_eq!(changed.rows_affected(), 1, "{tampering}");
        let (status, said) = run("verify", &database);
        assert_eq!(status, Some(1), "{tampering}");
        assert!(said.contains("call out-08") && said.contains(difference), "{said}");
        assert!(said.ends_with(": 1 difference\n"), "{said}");

        let (status, said) = run("rebuild", &database);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.ends_with("1 difference, 1 call rebuilt\n"), "{said}");
        let (status, said) = run("verify", &database);
        assert_eq!(status, Some(0), "after {tampering}: {said}");
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
    let mut connection = database.connect().await;
    for tampering in [
        // As by a release that does not know the type.
        "update events set rank = -1 where event_type = 'OUTBOUND_CALL_CALLING'",
        // As by no release.
        "update events set rank = 42 where event_type = 'OUTBOUND_CALL_PENDING'",
        "update events set effective_at = '2000-01-01' where event_type = 'OUTBOUND_CALL_COMPLETED'",
    ] {
        assert_eq!(connection.execute(tampering).await.unwrap().rows_affected(), 1, "{tampering}");
    }
    // The pages follow what is stored, so that none is shown twice or never.
    assert_eq!(
        event_types(&paged(&service).await),
        ["COMPLETED", "PENDING", "CALLING", "REQUESTED"],
    );

    let (status, said) = run("verify", &database);
    assert_eq!(status, Some(1));
    for difference in [
        "rank is stored as -1, folded as 2",
        "rank is stored as 42, folded as 0",
        "effective_at is stored as 2000-01-01T00:00:00Z, folded as 2026-05-12T12:00:03Z",
    ] {
        assert!(said.contains(difference), "{said}");
    }
    assert!(said.ends_with(": 3 differences\n"), "{said}");
    assert_eq!(run("rebuild", &database).0, Some(0));
    let (status, said) = run("verify", &database);
    assert_eq!(status, Some(0), "{said}");

    let shown = paged(&service).await;
    assert_eq!(event_types(&shown), ["PENDING", "REQUESTED", "CALLING", "COMPLETED"]);
    assert_eq!(Value::Array(shown), right["events"]);
}

/// The history of the call `c`, an event to a page.
async fn paged(service: &Service) -> Vec<Value> {
    let mut events = Vec::new();
    let mut cursor = String::new();
    // There are fewer.
    for _ in 0..10 {
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
async fn an_event_that_cannot_be_read_is_told_and_the_other_calls_are_rebuilt() {
    let database = database_with_the_samples().await;
    let mut connection = database.connect().await;
    for tampering in [
        "update events set fingerprint = '\\x010203' where call_id = 'out-08'",
        "update calls set status = 'CALLING' where call_id = 'out-09'",
    ] {
        assert_eq!(connection.execute(tampering).await.unwrap().rows_affected(), 1, "{tampering}");
    }
    let unreadable = ": fingerprint is stored as what cannot be read (a fingerprint has 32 bytes, \
                      this has 3), so the call cannot be folded\n";
    let (status, said) = run("verify", &database);
    assert_eq!(status, Some(1));
    assert!(said.contains("call out-08") && said.contains(unreadable), "{said}");
    assert!(said.ends_with("folded 24 events of 25 calls: 2 differences\n"), "{said}");

    let (status, said) = run("rebuild", &database);
    assert_eq!(status, Some(1));
    assert!(said.contains(unreadable), "{said}");
    let summary = ": 2 differences, 1 call rebuilt, 1 not: an event of each cannot be read\n";
    assert!(said.ends_with(summary), "{said}");
    let (status, said) = run("verify", &database);
    assert_eq!(status, Some(1));
    assert!(said.ends_with(": 1 difference\n"), "{said}");
}

#[tokio::test]
async fn rebuild_tries_again_what_postgres_rolls_back() {
    let database = database_with_the_samples().await;
    let mut connection = database.connect().await;
    for statement in [
        "update calls set status = 'CALLING' where call_id = 'out-08'",
        "create sequence tries",
        "create function roll_back() returns trigger language plpgsql as $$
         begin
             -- what a sequence counts is not rolled back
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
    let (status, said) = run("rebuild", &database);
    assert_eq!(status, Some(0), "{said}");
    let row = connection.fetch_one("select last_value from tries").await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 3);
    assert_eq!(run("verify", &database).0, Some(0));
}

#[tokio::test]
async fn verify_speaks_json() {
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
async fn of_more_differences_than_json_keeps_all_are_counted_and_rebuilt() {
    let database = Database::create().await;
    let of_call = |call: u32| delivery("OUTBOUND_CALL_BUSY", &call.to_string(), 1, None);
    let bodies: Vec<String> = (0..520).map(|call| of_call(call).to_string()).collect();
    assert!(import(&database, log_of(&bodies).as_bytes(), &[]).status.success());
    let tampering = "update calls set anomaly_count = 9, event_count = 9";
    let changed = database.connect().await.execute(tampering).await.unwrap();
    assert_eq!(changed.rows_affected(), 520);

    let (status, said) = run("verify", &database);
    assert_eq!(status, Some(1));
    assert_eq!(said.lines().count(), 1041, "all are told to people");
    assert!(said.ends_with(": 1040 differences\n"), "{said}");

    let output = callstate(&["rebuild", "--format", "json", "--database-url", &database.url()]);
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["difference_count"], 1040);
    assert_eq!(report["differences"].as_array().unwrap().len(), 1000);
    assert_eq!(report["differences_left_out"], 40);
    assert_eq!(report["rebuilt"], 520);
    let (status, said) = run("verify", &database);
    assert_eq!(status, Some(0), "{said}");
}

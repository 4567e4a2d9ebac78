//! Retention: by the service itself, and by `callstate prune`.

use std::time::Duration;

use callstate::{
    clock::Clock,
    ingest::{
        Retention,
        retention::{Periods, Removed},
    },
    store::connection::server_time,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::{Executor as _, PgPool, Row as _};

use crate::{
    import::import,
    support::{Database, Service, callstate, delivery::delivery},
};

const DAY: Duration = Duration::from_hours(24);

/// A delivery that was received some days ago, as a line to be imported.
fn line(event_type: &str, call_id: &str, at: DateTime<Utc>, payload: Option<Value>) -> String {
    let payload = payload.unwrap_or_else(|| delivery(event_type, call_id, 0, Some("A")));
    json!({"received_at": at, "occurred_at": at, "payload": payload}).to_string()
}

/// Imports calls that end with an event of this type, each some days ago.
async fn import_calls(database: &Database, calls: &[(&str, &str, i64)]) -> DateTime<Utc> {
    let now = server_time(&database.pool().await).await.unwrap();
    let lines = calls.iter().flat_map(|(call_id, event_type, days)| {
        let at = now - TimeDelta::days(*days);
        [
            line("OUTBOUND_CALL_PENDING", call_id, at - TimeDelta::minutes(1), None),
            line(event_type, call_id, at, None),
        ]
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let output = import(database, text.as_bytes(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    now
}

fn prune(database: &Database, options: &[&str]) -> Value {
    let mut command = crate::support::command();
    command.args(["prune", "--format", "json", "--database-url", &database.url()]).args(options);
    command.env("CALLSTATE_RETENTION_PAYLOADS", "10d").env("CALLSTATE_RETENTION_CALLS", "30d");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_verified(database: &Database) {
    let output = callstate(&["verify", "--database-url", &database.url()]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
}

fn ids(list: &Value, name: &str) -> Vec<String> {
    let items = list[name].as_array().unwrap().iter();
    items.map(|item| item["call_id"].as_str().unwrap().to_owned()).collect()
}

const CALLS: [(&str, &str, i64); 4] = [
    ("old", "OUTBOUND_CALL_COMPLETED", 31),
    ("live", "OUTBOUND_CALL_CALLING", 400),
    ("recent", "OUTBOUND_CALL_COMPLETED", 29),
    ("new", "OUTBOUND_CALL_BUSY", 9),
];

#[tokio::test]
async fn the_service_prunes_by_itself() {
    let database = Database::create().await;
    import_calls(&database, &CALLS).await;
    let before = Service::start(&database).await;
    let feed = before.get("/events").await.ok();
    let of_old = |event: &&Value| event["call_id"] == "old";
    let first = feed["events"].as_array().unwrap().iter().find(of_old).unwrap()["id"].clone();
    let first = first.as_str().unwrap();
    let position = |event: &Value| -> u64 {
        event["id"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap()
    };
    let after_first = position(&json!({"id": first}));
    before.stop().await;

    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_RETENTION_PAYLOADS", "10d").env("CALLSTATE_RETENTION_CALLS", "30d");
    })
    .await;
    service.counts("callstate_retention_calls_pruned_total", 1).await;
    let metrics = service.get("/metrics").await.text;
    assert!(metrics.contains("\ncallstate_retention_events_pruned_total 2\n"), "{metrics}");
    assert!(metrics.contains("\ncallstate_retention_payloads_removed_total 6\n"), "{metrics}");

    // A pruned call is as if it had never been stored.
    service.get("/calls/old").await.problem(404);
    service.get("/calls/old/history").await.problem(404);
    let listed = service.get("/calls").await.ok();
    assert_eq!(ids(&listed, "calls"), ["new", "recent", "live"]);
    // The feed begins with the oldest event that is left, for those who resume too.
    let feed = service.get("/events").await.ok();
    let mut calls = ids(&feed, "events");
    calls.sort();
    assert_eq!(calls, ["live", "live", "new", "new", "recent", "recent"]);
    let rest = feed["events"].as_array().unwrap().iter().filter(|it| position(it) > after_first);
    let rest: Vec<Value> = rest.cloned().collect();
    let resumed = service.get(&format!("/events?after={first}")).await.ok();
    assert_eq!(resumed["events"], json!(rest));
    let mut stream = service.listen_after("/stream", first).await;
    assert_eq!(stream.call().await["event_id"], rest[0]["event_id"]);

    // An event without its payload has everything else.
    for path in ["/calls/recent/history?include=payload", "/events?include=payload&after=now"] {
        let shown = service.get(path).await.ok();
        for event in shown["events"].as_array().unwrap() {
            assert_eq!(event["payload"], Value::Null);
            assert!(event["payload_removed_at"].is_string(), "{event}");
            assert_eq!(event["call_sid"], "A");
        }
    }
    let shown = service.get("/calls/recent/history?include=payload").await.ok();
    assert_eq!(shown["events"].as_array().unwrap().len(), 2);
    assert_eq!(shown["next_cursor"], Value::Null);
    let feed = service.get("/events?include=payload").await.ok();
    let kept = |event: &&Value| event["payload"].is_object();
    assert_eq!(feed["events"].as_array().unwrap().iter().filter(kept).count(), 2);
    let plain = service.get("/calls/recent/history").await.ok();
    assert_eq!(plain["events"][0].get("payload"), None);
    assert_eq!(plain["events"][0].get("payload_removed_at"), None);
    let kept = service.get("/calls/new/history?include=payload").await.ok();
    assert_eq!(kept["events"][1]["payload"]["eventType"], "OUTBOUND_CALL_BUSY");
    assert_eq!(kept["events"][1].get("payload_removed_at"), None);

    // A repeated delivery is found again, and its payload stays removed.
    let repeated = delivery("OUTBOUND_CALL_COMPLETED", "recent", 0, Some("A"));
    let answer = service.deliver(repeated.to_string()).await.ok();
    assert_eq!(answer["disposition"], "duplicate");
    let shown = service.get("/calls/recent/history?include=payload").await.ok();
    assert_eq!(shown["events"][1]["payload"], Value::Null);
    assert_eq!(shown["events"][1]["delivery_count"], 2);
    service.stop().await;
    assert_verified(&database);
    let output = callstate(&["rebuild", "--database-url", &database.url()]);
    assert_eq!(output.status.code(), Some(0));
    assert_verified(&database);
}

#[tokio::test]
async fn prune_counts_in_a_dry_run_what_it_removes() {
    let database = Database::create().await;
    import_calls(&database, &CALLS).await;
    assert_eq!(
        prune(&database, &["--dry-run"]),
        json!({"dry_run": true, "payloads": 6, "calls": 1})
    );
    assert_eq!(
        prune(&database, &["--dry-run"]),
        json!({"dry_run": true, "payloads": 6, "calls": 1})
    );
    assert_eq!(prune(&database, &[]), json!({"dry_run": false, "payloads": 6, "calls": 1}));
    assert_eq!(prune(&database, &[]), json!({"dry_run": false, "payloads": 0, "calls": 0}));
    assert_verified(&database);
    let output = callstate(&["prune", "--database-url", &database.url()]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "retention.payloads and retention.calls are forever: nothing is old\n"
    );
}

#[tokio::test]
async fn a_call_that_was_received_again_is_kept() {
    let database = Database::create().await;
    let now = import_calls(&database, &CALLS).await;
    // The same event, delivered again yesterday.
    let payload = delivery("OUTBOUND_CALL_COMPLETED", "old", 0, Some("A"));
    let again = line("OUTBOUND_CALL_COMPLETED", "old", now - TimeDelta::days(1), Some(payload));
    assert!(import(&database, again.as_bytes(), &[]).status.success());
    assert_eq!(prune(&database, &[])["calls"], 0);
    assert_verified(&database);
}

/// Makes all that is stored older by some days, behind the back of the service.
async fn age(pool: &PgPool, days: i32) {
    let sql = format!(
        "update events set received_at = received_at - interval '{days} days',
            effective_at = effective_at - interval '{days} days',
            occurred_at = occurred_at - interval '{days} days',
            last_delivered_at = last_delivered_at - interval '{days} days';
        update calls set first_event_at = first_event_at - interval '{days} days',
            last_event_at = last_event_at - interval '{days} days',
            status_since = status_since - interval '{days} days',
            updated_at = updated_at - interval '{days} days',
            last_delivered_at = last_delivered_at - interval '{days} days'"
    );
    pool.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
}

#[tokio::test]
async fn a_pruned_call_that_a_writer_has_cached_begins_anew() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (event_type, second) in [("OUTBOUND_CALL_CALLING", 1), ("OUTBOUND_CALL_BUSY", 9)] {
        service.deliver(delivery(event_type, "c", second, Some("A")).to_string()).await.ok();
    }
    let pool = database.pool().await;
    age(&pool, 1000).await;
    assert_eq!(prune(&database, &[])["calls"], 1);
    // An event that the writer has, a repetition by its cache, and one that it would apply.
    for (event_type, second, disposition) in [
        ("OUTBOUND_CALL_BUSY", 9, "advanced"),
        ("OUTBOUND_CALL_CALLING", 1, "advanced"),
        ("OUTBOUND_CALL_MAX_ATTEMPTS_REACHED", 20, "advanced"),
    ] {
        let body = delivery(event_type, "c", second, Some("A")).to_string();
        assert_eq!(service.deliver(body).await.ok()["disposition"], disposition, "{event_type}");
    }
    let call = service.get("/calls/c").await.ok();
    assert_eq!(
        (&call["event_count"], &call["status"]),
        (&json!(3), &json!("MAX_ATTEMPTS_REACHED"))
    );
    service.stop().await;
    assert_verified(&database);
}

fn retention(pool: &PgPool, clock: Clock) -> Retention {
    let periods = Periods { payloads: Some(10 * DAY), calls: Some(30 * DAY) };
    Retention::new(pool.clone(), periods, clock)
}

#[tokio::test]
async fn what_another_session_has_locked_is_left_for_the_next_run() {
    let database = Database::create().await;
    let now = import_calls(&database, &CALLS).await;
    let pool = database.pool().await;
    let retention = retention(&pool, Clock::fixed(now));
    let mut other = pool.begin().await.unwrap();
    other.execute("select from calls where call_id = 'old' for update").await.unwrap();
    other
        .execute(
            "select from events where call = (select id from calls where call_id = 'recent')
            for update",
        )
        .await
        .unwrap();
    // Payloads behind the locked ones wait for them, so that none is passed over.
    let removed = retention.run_once().await.unwrap();
    assert_eq!(removed, Removed { payloads: 4, calls: 0, events: 0 });
    other.rollback().await.unwrap();
    let removed = retention.run_once().await.unwrap();
    assert_eq!(removed, Removed { payloads: 2, calls: 1, events: 2 });
    assert_eq!(retention.run_once().await.unwrap(), Removed::default());
}

#[tokio::test]
async fn nothing_is_removed_while_the_clocks_differ() {
    let database = Database::create().await;
    let now = import_calls(&database, &CALLS).await;
    let pool = database.pool().await;
    for wrong in [TimeDelta::days(3650), TimeDelta::days(-3650), TimeDelta::minutes(10)] {
        let retention = retention(&pool, Clock::fixed(now + wrong));
        let error = retention.run_once().await.unwrap_err().to_string();
        assert!(error.contains("set the one that is wrong"), "{error}");
    }
    let removed = retention(&pool, Clock::fixed(now)).run_once().await.unwrap();
    assert_eq!(removed, Removed { payloads: 6, calls: 1, events: 2 });
}

#[tokio::test]
async fn an_event_that_a_wrong_clock_received_in_the_future_does_not_hold_up_the_others() {
    let database = Database::create().await;
    let now = import_calls(&database, &[("future", "OUTBOUND_CALL_BUSY", -400)]).await;
    import_calls(&database, &CALLS).await;
    let pool = database.pool().await;
    let removed = retention(&pool, Clock::fixed(now)).run_once().await.unwrap();
    assert_eq!(removed, Removed { payloads: 6, calls: 1, events: 2 });
}

#[tokio::test]
async fn long_texts_of_errors_are_cut_with_the_payload() {
    let database = Database::create().await;
    let now = server_time(&database.pool().await).await.unwrap();
    let mut payload = delivery("OUTBOUND_CALL_ERROR", "c", 0, Some("A"));
    payload["body"]["errors"] = json!([
        {"code": "NETWORK_ERROR", "message": "é".repeat(300), "phase": "CONNECTING", "where": "w".repeat(201)},
        {},
        {"code": "OTHER", "message": "short"},
    ]);
    let at = now - TimeDelta::days(11);
    let text = line("OUTBOUND_CALL_ERROR", "c", at, Some(payload));
    assert!(import(&database, text.as_bytes(), &[]).status.success());
    let service = Service::start(&database).await;
    let errors = async || service.get("/calls/c").await.ok()["errors"].clone();
    let before = errors().await;
    assert_eq!(prune(&database, &[]), json!({"dry_run": false, "payloads": 1, "calls": 0}));
    let after = errors().await;
    assert_eq!(after[0]["message"], "é".repeat(200));
    assert_eq!(after[0]["where"], "w".repeat(200));
    assert_eq!((&after[1], &after[2]), (&before[1], &before[2]));
    let code = |errors: &Value| (errors[0]["code"].clone(), errors[0]["phase"].clone());
    assert_eq!(code(&after), code(&before));
    assert_verified(&database);
}

/// Old events keep arriving, as by an import, while calls are pruned.
#[tokio::test]
async fn no_event_is_left_without_its_call_while_events_arrive() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let now = server_time(&pool).await.unwrap();
    let importing = async |event_type: &str| {
        let lines = (0..40).map(|number| {
            let at = now - TimeDelta::days(40) + TimeDelta::seconds(number);
            line(event_type, &format!("call-{number}"), at, None)
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let url = database.url();
        tokio::task::spawn_blocking(move || {
            let mut command = crate::support::command();
            command.args(["import", "-", "--format", "json", "--database-url", &url]);
            let mut child = command
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success());
        })
        .await
        .unwrap();
    };
    let importing = async {
        for event_type in ["OUTBOUND_CALL_BUSY", "OUTBOUND_CALL_ERROR", "OUTBOUND_CALL_UNREACHABLE"]
        {
            tokio::join!(importing(event_type), importing("OUTBOUND_CALL_NO_RESPONSE"));
        }
    };
    let mut importing = std::pin::pin!(importing);
    let retention = retention(&pool, Clock::fixed(now));
    let mut pruned = 0;
    loop {
        tokio::select! {
            biased;
            removed = retention.run_once() => pruned += removed.unwrap().calls,
            () = &mut importing => break,
        }
    }
    pruned += retention.run_once().await.unwrap().calls;
    assert!(pruned >= 40, "only {pruned} calls were pruned");
    let left = pool.fetch_one("select count(*) from events").await.unwrap().get::<i64, _>(0);
    assert_eq!(left, 0);
    assert_verified(&database);
}

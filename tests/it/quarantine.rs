//! `GET /quarantine`, `POST /quarantine/{id}/replay`, and `callstate quarantine`.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use callstate::{
    clock::Clock,
    store::quarantine::{Quarantined, keep},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::Executor as _;
use uuid::Uuid;

use crate::{
    durability::database_that_refuses_one,
    support::{
        Answer, Database, Service, callstate,
        delivery::{delivery, fixture},
    },
};

/// When the entries of these tests were first received.
static RECEIVED_AT: LazyLock<DateTime<Utc>> =
    LazyLock::new(|| Clock::system().now() - TimeDelta::hours(1));

/// Puts a body into the quarantine, like an earlier version that could not read it.
async fn put(database: &Database, endpoint: &str, body: &[u8]) -> Uuid {
    let mut connection = database.connect().await;
    let number: i64 = sqlx::query_scalar!(r#"select count(*) as "count!" from quarantine"#)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let entry = Quarantined {
        id: Uuid::from_u128(number.unsigned_abs().into()),
        endpoint,
        reason: "an earlier version could not read it",
        headers: &json!({}),
        body,
        received_at: *RECEIVED_AT,
    };
    assert!(keep(&mut connection, &entry).await.unwrap());
    entry.id
}

async fn replay(service: &Service, id: Uuid) -> Answer {
    service.send(service.request("POST", &format!("/quarantine/{id}/replay"))).await
}

/// The bodies in quarantine.
async fn bodies(database: &Database) -> Vec<Vec<u8>> {
    sqlx::query_scalar!("select body from quarantine order by first_received_at, id")
        .fetch_all(&database.pool().await)
        .await
        .unwrap()
}

/// A delivery without a `Time:` line, which is effective when it was received.
fn undated(call_id: &str) -> Vec<u8> {
    json!({"eventType": "OUTBOUND_CALL_BUSY", "callId": call_id}).to_string().into_bytes()
}

#[tokio::test]
async fn entries_are_listed_newest_first_and_pages_are_stable() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    assert_eq!(
        service.get("/quarantine").await.ok(),
        json!({"quarantine": [], "next_cursor": null}),
    );
    for number in 0..7 {
        service.deliver(format!("[{number}]")).await.quarantined();
    }
    let whole = service.get("/quarantine").await.ok();
    assert_eq!(whole["next_cursor"], Value::Null);

    let mut paged: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = service.get(&format!("/quarantine?limit=3&cursor={cursor}")).await.ok();
        paged.extend(page["quarantine"].as_array().unwrap().iter().cloned());
        // A new entry belongs before the first page; one that is received again keeps its position.
        service.deliver(format!("[{}]", 7 + paged.len())).await.quarantined();
        service.deliver("[0]").await.quarantined();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    let ids = |entries: &[Value]| -> Vec<Value> {
        entries.iter().map(|entry| entry["id"].clone()).collect()
    };
    assert_eq!(ids(&paged), ids(whole["quarantine"].as_array().unwrap()));
    assert_eq!(paged[6]["count"], 3, "the oldest was received twice more before its page was read");

    let newest = &whole["quarantine"][0];
    let members: Vec<&String> = newest.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        ["count", "endpoint", "first_received_at", "id", "last_received_at", "reason", "size"],
    );
    assert_eq!(
        (&newest["endpoint"], &newest["count"], &newest["size"]),
        (&json!("default"), &json!(1), &json!(3)),
    );
    let reason = "the body is an array; one delivery per request is expected";
    assert_eq!(newest["reason"], reason);
}

#[tokio::test]
async fn an_entry_is_returned_with_its_body_as_text_or_in_base64() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (body, text, encoding) in [
        (
            &b"{ \"a\": \"\\u0000\xc3\xa9\" "[..],
            "{ \"a\": \"\\u0000\u{e9}\" ".to_owned(),
            Value::Null,
        ),
        (b"\xff\xfe{}", STANDARD.encode(b"\xff\xfe{}"), json!("base64")),
        (b"", String::new(), Value::Null),
    ] {
        service.deliver(body).await.quarantined();
        let listed = service.get("/quarantine?limit=1").await.ok()["quarantine"][0].take();
        let mut shown =
            service.get(&format!("/quarantine/{}", listed["id"].as_str().unwrap())).await.ok();
        assert_eq!(shown["body"], text);
        assert_eq!(shown["encoding"], encoding);
        shown.as_object_mut().unwrap().retain(|name, _| name != "body" && name != "encoding");
        assert_eq!(shown, listed);
        assert_eq!(listed["size"], body.len());
    }
}

#[tokio::test]
async fn invalid_ids_parameters_and_methods_are_errors() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let unknown = Uuid::from_u128(5);
    service.get(&format!("/quarantine/{unknown}")).await.problem(404);
    replay(&service, unknown).await.problem(404);
    for id in ["5", "%ff", "%00", "00000000-0000-0000-0000-00000000000g"] {
        assert!(service.get(&format!("/quarantine/{id}")).await.problem(400).contains("id: "));
        let answer = service.send(service.request("POST", &format!("/quarantine/{id}/replay")));
        assert!(answer.await.problem(400).contains("id: "));
    }
    let detail = service.get("/quarantine?limit=501&cursor=x&colour=red").await.problem(400);
    for parameter in ["limit", "cursor", "colour"] {
        assert!(detail.contains(&format!("{parameter}: ")), "{parameter} is not named in {detail}");
    }
    for path in [format!("/quarantine/{unknown}"), format!("/quarantine/{unknown}/replay")] {
        let method = if path.ends_with("replay") { "POST" } else { "GET" };
        let request = service.request(method, &format!("{path}?force=1"));
        assert!(service.send(request).await.problem(400).contains("force: "));
        service.send(service.request("PUT", &path)).await.problem(405);
    }
}

#[tokio::test]
async fn a_replay_is_answered_like_a_delivery_and_has_the_time_of_the_first_receipt() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let id = put(&database, "default", &undated("repaired")).await;
    // It was received twice more, the last time an hour later.
    let again = "update quarantine
        set count = 3, last_received_at = first_received_at + interval '1 hour'";
    database.connect().await.execute(again).await.unwrap();
    let answer = replay(&service, id).await.ok();
    assert_eq!(
        (&answer["call_id"], &answer["project_id"], &answer["disposition"], &answer["status"]),
        (&json!("repaired"), &json!("default"), &json!("advanced"), &json!("BUSY")),
    );
    let history = service.get("/calls/repaired/history").await.ok();
    let event = &history["events"][0];
    assert_eq!(event["event_id"], answer["event_id"]);
    assert_eq!(event["endpoint"], "default");
    assert_eq!(
        (&event["received_at"], &event["effective_at"]),
        (&json!(*RECEIVED_AT), &json!(*RECEIVED_AT))
    );
    assert_eq!(
        (&event["delivery_count"], &event["last_delivered_at"]),
        (&json!(3), &json!(*RECEIVED_AT + TimeDelta::hours(1)))
    );

    replay(&service, id).await.problem(404);
    service.get(&format!("/quarantine/{id}")).await.problem(404);
    assert!(callstate(&["verify", "--database-url", &database.url()]).status.success());
}

#[tokio::test]
async fn an_entry_that_still_cannot_be_read_stays_unchanged() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for body in [&b"\xff{"[..], b"{", b"[]"] {
        let id = put(&database, "default", body).await;
        let before = service.get(&format!("/quarantine/{id}")).await.ok();
        replay(&service, id).await.problem(422);
        assert_eq!(service.get(&format!("/quarantine/{id}")).await.ok(), before);
    }
}

#[tokio::test]
async fn a_replay_is_limited_to_the_projects_that_its_endpoint_accepts_now() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_WEBHOOKS_PARTNER_AUTH", "none");
        command.env("CALLSTATE_WEBHOOKS_PARTNER_PROJECTS", "one");
    })
    .await;
    let body = |project_id| {
        json!({"eventType": "OUTBOUND_CALL_BUSY", "callId": project_id, "projectId": project_id})
            .to_string()
            .into_bytes()
    };
    let other = put(&database, "partner", &body("other")).await;
    assert_eq!(
        replay(&service, other).await.problem(403),
        "the endpoint partner does not accept the project other",
    );
    let gone = put(&database, "gone", &body("one")).await;
    assert_eq!(replay(&service, gone).await.problem(403), "there is no endpoint gone any more");
    assert_eq!(bodies(&database).await, [body("other"), body("one")]);

    let one = put(&database, "partner", &body("one")).await;
    replay(&service, one).await.ok();
    assert_eq!(bodies(&database).await, [body("other"), body("one")]);
}

#[tokio::test]
async fn a_replay_of_an_event_that_is_stored_is_a_duplicate() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let first = service.deliver(fixture("outbound_busy")).await.ok();
    // The same state as after a replay that ended between the commit and the removal.
    let id = put(&database, "default", &fixture("outbound_busy")).await;
    let answer = replay(&service, id).await.ok();
    assert_eq!(
        (&answer["disposition"], &answer["event_id"]),
        (&json!("duplicate"), &first["event_id"])
    );
    assert!(bodies(&database).await.is_empty());
}

#[tokio::test]
async fn concurrent_replays_store_one_event_and_do_not_fail() {
    let database = Database::create().await;
    let (one, other) = tokio::join!(Service::start(&database), Service::start(&database));
    let mut advanced = 0;
    for round in 0..10 {
        let id = put(&database, "default", &undated(&format!("raced-{round}"))).await;
        let answers = tokio::join!(
            replay(&one, id),
            replay(&other, id),
            replay(&one, id),
            replay(&other, id)
        );
        for answer in <[Answer; 4]>::from(answers) {
            match answer.status {
                200 if answer.json()["disposition"] == "advanced" => advanced += 1,
                200 => assert_eq!(answer.json()["disposition"], "duplicate"),
                _ => drop(answer.problem(404)),
            }
        }
    }
    assert_eq!(advanced, 10);
    assert!(bodies(&database).await.is_empty());
}

#[tokio::test]
async fn an_entry_whose_commit_fails_stays() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let id = put(&database, "default", &undated("unlucky")).await;
    let mut connection = database.connect().await;
    connection.execute("alter table events add constraint never check (false)").await.unwrap();
    replay(&service, id).await.problem(500);
    assert_eq!(bodies(&database).await, [undated("unlucky")]);
    connection.execute("alter table events drop constraint never").await.unwrap();
    replay(&service, id).await.ok();
    assert!(bodies(&database).await.is_empty());
}

#[tokio::test]
async fn an_entry_that_cannot_be_stored_stays_after_a_replay() {
    let database = database_that_refuses_one().await;
    let service = Service::start(&database).await;
    let body = undated("bad");
    let id = put(&database, "default", &body).await;
    replay(&service, id).await.problem(422);
    assert_eq!(bodies(&database).await, [body]);
}

/// Runs `callstate quarantine …`; returns its exit status and its standard output.
fn quarantine(database: &Database, arguments: &[&str]) -> (Option<i32>, String) {
    let url = database.url();
    let output = callstate(&[&["quarantine"], arguments, &["--database-url", &url]].concat());
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn entries_are_listed_and_shown_without_a_running_service() {
    let database = Database::create().await;
    let text = put(&database, "default", b"[\x1b[2J]").await.to_string();
    let bytes = put(&database, "partner", b"\xff").await.to_string();
    let at = RECEIVED_AT.format("%FT%TZ");
    let (status, said) = quarantine(&database, &["list"]);
    assert_eq!(status, Some(0));
    assert_eq!(
        said,
        format!(
            "{bytes}  {at}  1×  1 bytes  partner: an earlier version could not read it\n\
             {text}  {at}  1×  6 bytes  default: an earlier version could not read it\n"
        ),
    );
    let (_, said) = quarantine(&database, &["list", "--format", "json"]);
    let listed: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(listed["quarantine"][0]["id"], bytes);

    let (status, said) = quarantine(&database, &["show", &text]);
    assert_eq!(status, Some(0));
    assert!(said.ends_with("read it\n\n[\u{fffd}[2J]\n"), "{said:?}");
    let (_, said) = quarantine(&database, &["show", &bytes, "--format", "json"]);
    let shown: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&shown["body"], &shown["encoding"]), (&json!("/w=="), &json!("base64")));

    let (status, _) = quarantine(&database, &["show", &Uuid::from_u128(9).to_string()]);
    assert_eq!(status, Some(1));
    let (status, _) = quarantine(&database, &["show", "nonsense"]);
    assert_eq!(status, Some(2));
}

#[tokio::test]
async fn the_command_replays_one_entry_or_all_and_reports_how_many_stay() {
    let database = Database::create().await;
    let one = put(&database, "default", &undated("one")).await;
    let useless = put(&database, "default", b"[]").await;
    let dated = delivery("OUTBOUND_CALL_COMPLETED", "two", 5, None).to_string();
    put(&database, "default", dated.as_bytes()).await;
    put(&database, "gone", &undated("three")).await;

    let (status, said) = quarantine(&database, &["replay", &one.to_string()]);
    assert_eq!(status, Some(0));
    assert_eq!(
        said,
        format!(
            "{one} replayed: advanced, call one of project default is BUSY\n\
             1 replayed, 0 remain in quarantine\n"
        ),
    );
    let (status, _) = quarantine(&database, &["replay", &one.to_string()]);
    assert_eq!(status, Some(1), "it is gone");

    let (status, said) = quarantine(&database, &["replay", "--all", "--format", "json"]);
    assert_eq!(status, Some(1));
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["replayed"][0]["call_id"], "two");
    assert_eq!(report["replayed"][0]["disposition"], "advanced");
    assert_eq!(
        report["stay"],
        json!([
            {"id": useless, "reason": "the body is an array; one delivery per request is expected"},
            {"id": Uuid::from_u128(3), "reason": "there is no endpoint gone any more"},
        ]),
    );
    let (status, said) = quarantine(&database, &["replay", "--all"]);
    assert_eq!(status, Some(1));
    assert!(said.ends_with("\n0 replayed, 2 remain in quarantine\n"), "{said}");
    assert_eq!(bodies(&database).await, [b"[]".to_vec(), undated("three")]);

    let service = Service::start(&database).await;
    let history = service.get("/calls/one/history").await.ok();
    assert_eq!(history["events"][0]["received_at"], json!(*RECEIVED_AT));
    for arguments in [&["replay"][..], &["replay", "--all", &one.to_string()]] {
        assert_eq!(quarantine(&database, arguments).0, Some(2), "{arguments:?}");
    }
}

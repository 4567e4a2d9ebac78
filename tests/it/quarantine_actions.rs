//! What is done with an entry of the quarantine: it is shown, corrected or deleted.

use std::{io::Write as _, process::Stdio};

use callstate::{
    clock::Clock,
    store::quarantine::{Quarantined, keep},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Database, Place, Service, callstate, command, delivery::delivery};

/// An entry that cannot be understood.
async fn put(database: &Database, number: u128) -> Uuid {
    let entry = Quarantined {
        id: Uuid::from_u128(number),
        endpoint: "default",
        reason: "the body is not JSON",
        headers: &json!({"content-type": "application/json", "user-agent": "recho\u{1b}[31m"}),
        body: b"{",
        received_at: Clock::system().now(),
    };
    assert!(keep(&mut database.connect().await, &entry).await.unwrap());
    entry.id
}

async fn delete(service: &Service, id: &str, key: Option<&str>) -> Answer {
    let request = service.request("DELETE", &format!("/quarantine/{id}"));
    service.send(key.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth)).await
}

#[tokio::test]
async fn an_entry_is_deleted_once_and_no_other() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let (one, other) = (put(&database, 1).await, put(&database, 2).await);
    let answer = delete(&service, &one.to_string(), None).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    delete(&service, &one.to_string(), None).await.problem(404);
    assert!(delete(&service, "x", None).await.problem(400).contains("id: "));
    let detail = delete(&service, &format!("{other}?force=1"), None).await.problem(400);
    assert!(detail.contains("force: "), "{detail}");
    let listed = service.get("/quarantine").await.ok();
    assert_eq!(listed["quarantine"].as_array().unwrap().len(), 1);
    assert_eq!(listed["quarantine"][0]["id"], other.to_string());
}

#[tokio::test]
async fn only_an_administrator_of_all_projects_deletes_an_entry() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.arg("--require-key");
    })
    .await;
    let id = put(&database, 1).await.to_string();
    let url = database.url();
    let key = |name: &str, more: &[&str]| {
        let create = ["keys", "create", "--database-url", &url, "--name", name];
        let key = callstate(&[&create[..], more].concat());
        String::from_utf8(key.stdout).unwrap().trim().to_owned()
    };
    delete(&service, &id, None).await.problem(401);
    for (name, more) in [("read", &[][..]), ("one", &["--scope", "admin", "--project", "p"])] {
        delete(&service, &id, Some(&key(name, more))).await.problem(403);
    }
    let admin = key("admin", &["--scope", "admin"]);
    assert_eq!(delete(&service, &id, Some(&admin)).await.status, 204);
}

#[tokio::test]
async fn a_page_of_another_origin_deletes_nothing() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let id = put(&database, 1).await;
    let request = service.request("DELETE", &format!("/quarantine/{id}"));
    service.send(request.header("Origin", "https://elsewhere.example")).await.problem(403);
    service.get(&format!("/quarantine/{id}")).await.ok();
}

#[tokio::test]
async fn entries_are_dropped_and_the_missing_ones_are_named() {
    let database = Database::create().await;
    let (one, two) = (put(&database, 1).await.to_string(), put(&database, 2).await.to_string());
    let (absent, url) = (Uuid::from_u128(9).to_string(), database.url());
    let drop = ["quarantine", "drop", "--database-url", &url];
    let dropped = callstate(&[&drop[..], &[&one, &absent]].concat());
    assert_eq!(dropped.status.code(), Some(1));
    assert_eq!(String::from_utf8(dropped.stdout).unwrap(), format!("{one} dropped\n"));
    let said = String::from_utf8(dropped.stderr).unwrap();
    assert!(said.contains(&format!("there is no entry {absent}")), "{said}");

    let dropped = callstate(&[&drop[..], &[&two, "--format", "json"]].concat());
    assert!(dropped.status.success());
    let dropped: Value = serde_json::from_slice(&dropped.stdout).unwrap();
    assert_eq!(dropped, json!({ "dropped": [two] }));
    assert_eq!(callstate(&drop).status.code(), Some(2), "without an id it drops nothing");
}

#[tokio::test]
async fn the_kept_headers_are_shown_without_what_a_terminal_would_obey() {
    let database = Database::create().await;
    let (id, url) = (put(&database, 1).await.to_string(), database.url());
    let show = ["quarantine", "show", &id, "--database-url", &url];
    let shown = String::from_utf8(callstate(&show).stdout).unwrap();
    let lines: Vec<&str> = shown.lines().skip(1).collect();
    let agent = "user-agent: recho\u{fffd}[31m";
    assert_eq!(lines, ["content-type: application/json", agent, "", "{"]);
    let shown = callstate(&[&show[..], &["--format", "json"]].concat()).stdout;
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["headers"]["content-type"], "application/json");
    assert_eq!((&shown["id"], &shown["body"]), (&json!(id), &json!("{")));
}

#[tokio::test]
async fn an_entry_is_replayed_with_a_corrected_body_and_the_time_of_its_receipt() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let place = Place::new();
    let (wrong, right) = (place.0.join("wrong.json"), place.0.join("right.json"));
    std::fs::write(&wrong, "{}").unwrap();
    let body = json!({"eventType": "OUTBOUND_CALL_BUSY", "callId": "corrected"}).to_string();
    std::fs::write(&right, &body).unwrap();
    let (id, url) = (put(&database, 1).await.to_string(), database.url());
    let entry = service.get(&format!("/quarantine/{id}")).await.ok();
    let replay = ["quarantine", "replay", &id, "--database-url", &url, "--body"];

    let stays = callstate(&[&replay[..], &[wrong.to_str().unwrap()]].concat());
    assert_eq!(stays.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stays.stdout).contains("eventType is missing"));
    service.get(&format!("/quarantine/{id}")).await.ok();

    let replayed = callstate(&[&replay[..], &[right.to_str().unwrap()]].concat());
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    service.get(&format!("/quarantine/{id}")).await.problem(404);
    let history = service.get("/calls/corrected/history?include=payload").await.ok();
    let event = &history["events"][0];
    assert_eq!(event["received_at"], entry["first_received_at"]);
    assert_eq!(event["payload"], serde_json::from_str::<Value>(&body).unwrap());
}

#[tokio::test]
async fn a_corrected_body_is_for_one_entry_and_may_come_from_standard_input() {
    let database = Database::create().await;
    let (one, two) = (put(&database, 1).await.to_string(), put(&database, 2).await.to_string());
    let url = database.url();
    let replay = ["quarantine", "replay", "--database-url", &url, "--body"];
    for wrong in [&["-", &one, &two][..], &["-", "--all"]] {
        assert_eq!(callstate(&[&replay[..], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
    let missing = callstate(&[&replay[..], &["/nowhere", &one]].concat());
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.starts_with("callstate: cannot read /nowhere: "), "{said}");

    let mut child = command()
        .args([&replay[..], &["-", &one]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let body = delivery("OUTBOUND_CALL_BUSY", "piped", 1, None).to_string();
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let service = Service::start(&database).await;
    assert_eq!(service.get("/calls/piped").await.ok()["status"], "BUSY");
}

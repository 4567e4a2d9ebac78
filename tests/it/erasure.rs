//! Erasure: what is erased is gone everywhere, and stays erased.

use std::{fmt::Write as _, path::Path, process::Command, time::Duration};

use callstate::{
    access::Projects,
    call::{CallKey, ClientId, ProjectId},
    ingest::erasure::{ErasureRequest, of_client},
    managed_postgres::binaries::Programs,
    store::{
        connection::server_time,
        erasure::{Erased, ErasureState},
    },
};
use serde_json::{Value, json};
use sqlx::{Executor as _, PgConnection, Row as _};

use crate::{
    import::import,
    support::{Answer, Database, Lock, Service, callstate, delivery::delivery},
};

const PROJECT: &str = "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1";

/// A delivery whose texts are found in a dump.
fn secret(event_type: &str, call_id: &str, client_id: &str, second: u32) -> Value {
    let mut body = delivery(event_type, call_id, second, Some(&format!("sid-of-{call_id}")));
    body["body"]["data"]["clientId"] = client_id.into();
    body["body"]["errors"] = json!([{"code": "E", "message": format!("message of {client_id}")}]);
    body
}

async fn deliver(
    service: &Service,
    event_type: &str,
    call_id: &str,
    client_id: &str,
    second: u32,
) -> Value {
    service.deliver(secret(event_type, call_id, client_id, second).to_string()).await.ok()
}

async fn delete(service: &Service, path: &str) -> Answer {
    service.send(service.request("DELETE", path)).await
}

fn erase(database: &Database, options: &[&str]) -> (Option<i32>, Value) {
    let erase = ["erase", "--format", "json", "--database-url", &database.url()];
    let output = callstate(&[&erase[..], options].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), report)
}

fn numbers(calls: u64, events: u64, quarantine_entries: u64) -> Value {
    json!({"calls": calls, "events": events, "quarantine_entries": quarantine_entries})
}

/// All that a backup has of a database.
fn dump(database: &Database) -> String {
    let programs = Programs::installed(None, Path::new("/nowhere")).expect("Postgres is installed");
    let output = Command::new(programs[0].dir.join("pg_dump"))
        .args(["--inserts", "--dbname", &database.url()])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The lines of a dump that contain a text, as it is or in the hexadecimal form of bytes.
fn lines_with(dump: &str, text: &str) -> Vec<String> {
    let mut hex = String::new();
    for byte in text.bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    dump.lines().filter(|line| line.contains(text) || line.contains(&hex)).map(Into::into).collect()
}

fn assert_verified(database: &Database) {
    let output = callstate(&["verify", "--database-url", &database.url()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn an_erased_call_is_gone_everywhere() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (call_id, client_id) in [("gone-call", "gone-client"), ("kept-call", "kept-client")] {
        deliver(&service, "OUTBOUND_CALL_CALLING", call_id, client_id, 1).await;
        deliver(&service, "OUTBOUND_CALL_BUSY", call_id, client_id, 9).await;
        // Neither can be read, and both name the call.
        let mut unreadable = secret("", call_id, client_id, 2);
        unreadable.as_object_mut().unwrap().remove("eventType");
        service.deliver(unreadable.to_string()).await.quarantined();
        service.deliver(format!("callId: {call_id}\nmessage of {client_id}")).await.quarantined();
    }
    let mut same_name = secret("", "gone-call", "kept-client", 2);
    same_name["projectId"] = "another-project".into();
    same_name["body"]["data"]["callSid"] = Value::Null;
    same_name["eventType"] = Value::Null;
    service.deliver(same_name.to_string()).await.quarantined();

    let erased = delete(&service, "/calls/gone-call").await;
    assert_eq!(erased.ok(), numbers(1, 2, 2));
    service.get("/calls/gone-call").await.problem(404);
    delete(&service, "/calls/gone-call").await.problem(404);
    assert_eq!(service.get("/calls").await.ok()["calls"].as_array().unwrap().len(), 1);

    let dump = dump(&database);
    for text in ["gone-client", "sid-of-gone-call", "message of gone-client"] {
        assert_eq!(lines_with(&dump, text), Vec::<String>::new(), "{text}");
    }
    // The name of the call is in the change feed, and in the delivery of another project.
    let named = lines_with(&dump, "gone-call");
    assert_eq!(named.len(), 2, "{named:#?}");
    assert!(
        named.iter().any(|line| line.starts_with("INSERT INTO public.erased_calls")),
        "{named:#?}"
    );
    assert!(
        named.iter().any(|line| line.starts_with("INSERT INTO public.quarantine")),
        "{named:#?}"
    );
    assert_eq!(lines_with(&dump, "sid-of-kept-call").len(), 4);
    assert_verified(&database);
}

#[tokio::test]
async fn an_erased_call_stays_erased() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    deliver(&service, "OUTBOUND_CALL_CALLING", "c", "x", 1).await;
    let exported =
        callstate(&["export", "deliveries", "--output", "-", "--database-url", &database.url()]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    delete(&service, "/calls/c").await.ok();
    // A repetition, an event that would be applied, and one with which a call begins.
    for (event_type, second) in
        [("OUTBOUND_CALL_CALLING", 1), ("OUTBOUND_CALL_CLOSING", 3), ("OUTBOUND_CALL_PENDING", 4)]
    {
        let answer = deliver(&service, event_type, "c", "x", second).await;
        assert_eq!((&answer["disposition"], &answer["status"]), (&json!("erased"), &Value::Null));
        assert_eq!((&answer["call_id"], &answer["project_id"]), (&json!("c"), &json!(PROJECT)));
    }
    let imported = import(&database, &exported.stdout, &[]);
    let report: Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert_eq!((&report["new_events"], &report["erased"]), (&json!(0), &json!(1)));
    // A quarantined delivery whose stored body is then replaced by a readable one.
    let body = secret("OUTBOUND_CALL_BUSY", "c", "x", 9).to_string();
    let id = service.deliver("{}").await.quarantined()["quarantine_id"].clone();
    let mut connection = database.connect().await;
    sqlx::query!("update quarantine set body = $1", body.as_bytes())
        .execute(&mut connection)
        .await
        .unwrap();
    let path = format!("/quarantine/{}/replay", id.as_str().unwrap());
    let replayed = service.send(service.request("POST", &path)).await.ok();
    assert_eq!(replayed["disposition"], "erased");
    service.get(&format!("/quarantine/{}", id.as_str().unwrap())).await.problem(404);

    service.get("/calls/c").await.problem(404);
    for table in ["calls", "events", "quarantine"] {
        assert_eq!(count(&mut connection, table).await, 0, "{table}");
    }
    // Another call of the client, and another instance, which has looked nothing up yet.
    assert_eq!(
        deliver(&service, "OUTBOUND_CALL_PENDING", "d", "x", 1).await["disposition"],
        "advanced"
    );
    let other = Service::start(&database).await;
    assert_eq!(
        deliver(&other, "OUTBOUND_CALL_PENDING", "c", "x", 1).await["disposition"],
        "erased"
    );
    let metrics = service.get("/metrics").await.text;
    let counted = "callstate_deliveries_total{endpoint=\"default\",outcome=\"erased\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
    assert_verified(&database);
}

async fn count(connection: &mut PgConnection, table: &str) -> i64 {
    let count = format!("select count(*) from {table}");
    connection.fetch_one(sqlx::AssertSqlSafe(count)).await.unwrap().get(0)
}

#[tokio::test]
async fn an_erased_client_stays_erased_in_new_calls_too() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for call_id in ["c-1", "c-2"] {
        deliver(&service, "OUTBOUND_CALL_CALLING", call_id, "gone-client", 1).await;
    }
    // A call that has another client by now, and events that come out of order.
    deliver(&service, "OUTBOUND_CALL_CALLING", "c-3", "gone-client", 1).await;
    deliver(&service, "OUTBOUND_CALL_BUSY", "c-3", "other-client", 9).await;
    deliver(&service, "OUTBOUND_CALL_BUSY", "c-4", "other-client", 9).await;
    deliver(&service, "OUTBOUND_CALL_CALLING", "c-4", "gone-client", 1).await;
    deliver(&service, "OUTBOUND_CALL_BUSY", "kept", "other-client", 9).await;
    service.deliver(r#"{"clientId":"gone-client"}"#).await.quarantined();
    service.deliver(r#"{"clientId":"other-client"}"#).await.quarantined();

    assert_eq!(delete(&service, "/clients/gone-client").await.ok(), numbers(4, 6, 1));
    assert_eq!(delete(&service, "/clients/gone-client").await.ok(), numbers(0, 0, 0));
    assert_eq!(lines_with(&dump(&database), "gone-client"), Vec::<String>::new());
    let answer = deliver(&service, "OUTBOUND_CALL_PENDING", "new", "gone-client", 1).await;
    assert_eq!(answer["disposition"], "erased");
    service.get("/calls/new").await.problem(404);
    // A known call is not lost, only what names the client.
    let answer =
        deliver(&service, "OUTBOUND_CALL_MAX_ATTEMPTS_REACHED", "kept", "gone-client", 20).await;
    assert_eq!(answer["disposition"], "erased");
    assert_eq!(service.get("/calls/kept").await.ok()["status"], "BUSY");
    let answer =
        deliver(&service, "OUTBOUND_CALL_MAX_ATTEMPTS_REACHED", "kept", "other-client", 20).await;
    assert_eq!(answer["disposition"], "advanced");
    assert_verified(&database);
}

#[tokio::test]
async fn copies_can_follow_an_erasure() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut stream = service.listen("/stream?status=BUSY&direction=inbound").await;
    let mut other_project = service.listen("/stream?project_id=other").await;
    let start = stream.last_id.clone();
    deliver(&service, "OUTBOUND_CALL_CALLING", "c", "x", 1).await;
    delete(&service, "/calls/c").await.ok();
    deliver(&service, "OUTBOUND_CALL_CALLING", "d", "x", 1).await;
    let erased = stream.next().await.unwrap();
    assert_eq!(erased.event, "erased");
    let key = json!({"call_id": "c", "project_id": PROJECT});
    assert_eq!(serde_json::from_str::<Value>(&erased.data).unwrap(), key);

    // The same for one who resumes, and one who polls.
    let mut resumed = service.listen_after("/stream", &start).await;
    let resumed_at = resumed.next().await.unwrap();
    assert_eq!((resumed_at.event.as_str(), &resumed_at.id), ("erased", &erased.id));
    assert_eq!(resumed.call().await["call_id"], "d");
    let mut of_call = service.listen_after("/calls/c/stream", &start).await;
    assert_eq!(of_call.next().await.unwrap().id, erased.id);
    let page = service.get(&format!("/events?after={start}")).await.ok();
    let events = page["events"].as_array().unwrap();
    assert_eq!(
        events[0],
        json!({"event": "erased", "id": erased.id, "call_id": "c", "project_id": PROJECT})
    );
    assert_eq!((&events[1]["event"], &events[1]["call_id"]), (&json!("call"), &json!("d")));
    assert_eq!(events.len(), 2);
    let page = service.get(&format!("/events?after={start}&limit=1")).await.ok();
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    let rest = service
        .get(&format!("/events?after={}&limit=1", page["next"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(rest["events"][0]["call_id"], "d");
    let other = service.get(&format!("/events?after={start}&project_id=other")).await.ok();
    assert_eq!(other["events"], json!([]));
    // Nothing of it is sent to those who select another project.
    let mut marker = secret("OUTBOUND_CALL_CALLING", "e", "x", 1);
    marker["projectId"] = "other".into();
    service.deliver(marker.to_string()).await.ok();
    assert_eq!(other_project.call().await["call_id"], "e");
}

#[tokio::test]
async fn erasure_needs_the_scope_admin_and_the_project() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.arg("--require-key");
    })
    .await;
    deliver(&service, "OUTBOUND_CALL_CALLING", "c", "x", 1).await;
    let key = |more: &[&str]| {
        let create = ["keys", "create", "--name", "k", "--format", "json", "--database-url"];
        let output = callstate(&[&create[..], &[&database.url()], more].concat());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let delete = async |path: &str, key: &Value| {
        let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
        service.send(service.request("DELETE", path).header("Authorization", bearer)).await
    };
    service.send(service.request("DELETE", "/calls/c")).await.problem(401);
    let read = key(&["--scope", "read"]);
    let other = key(&["--scope", "admin", "--project", "other"]);
    let own = key(&["--scope", "admin", "--project", PROJECT]);
    for path in ["/calls/c", "/clients/x"] {
        delete(path, &read).await.problem(403);
    }
    delete("/calls/c", &other).await.problem(404);
    assert_eq!(delete("/clients/x", &other).await.ok(), numbers(0, 0, 0));
    delete(&format!("/calls/c?project_id={PROJECT}"), &other).await.problem(404);
    delete("/calls/c?colour=red", &own).await.problem(400);
    // A client of one project is erased there only.
    assert_eq!(
        deliver(&service, "OUTBOUND_CALL_CLOSING", "c", "x", 2).await["disposition"],
        "advanced"
    );
    assert_eq!(delete("/calls/c", &own).await.ok(), numbers(1, 2, 0));

    let audit = "select kind, api_key::text, calls, events from erasures order by id";
    let rows = database.connect().await.fetch_all(audit).await.unwrap();
    let rows: Vec<(String, Option<String>, i64, i64)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let id = |key: &Value| Some(key["id"].as_str().unwrap().to_owned());
    assert_eq!(rows, [("client".into(), id(&other), 0, 0), ("call".into(), id(&own), 1, 2)]);
}

#[tokio::test]
async fn the_command_erases_what_it_names() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for project in ["one", "two"] {
        let mut body = secret("OUTBOUND_CALL_CALLING", "c", "x", 1);
        body["projectId"] = project.into();
        service.deliver(body.to_string()).await.ok();
    }
    delete(&service, "/calls/c").await.problem(409);
    assert_eq!(erase(&database, &["--call", "unknown"]), (Some(0), numbers(0, 0, 0)));
    assert_eq!(erase(&database, &["--client", "unknown"]), (Some(0), numbers(0, 0, 0)));
    assert_eq!(erase(&database, &["--call", "c"]).0, Some(2));
    assert_eq!(erase(&database, &[]).0, Some(2));
    assert_eq!(erase(&database, &["--call", "c", "--client", "x"]).0, Some(2));
    assert_eq!(erase(&database, &["--call", "c", "--project", "one"]), (Some(0), numbers(1, 1, 0)));
    assert_eq!(
        erase(&database, &["--client", "x", "--project", "one"]),
        (Some(0), numbers(0, 0, 0))
    );
    assert_eq!(service.get("/calls/c").await.ok()["project_id"], "two");
    assert_eq!(erase(&database, &["--client", "x"]), (Some(0), numbers(1, 1, 0)));
    service.get("/calls/c").await.problem(404);
}

#[tokio::test]
async fn an_interrupted_erasure_leaves_whole_calls_and_is_completed_by_another_one() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for number in 0..5 {
        deliver(&service, "OUTBOUND_CALL_CALLING", &format!("c-{number}"), "x", 1).await;
    }
    let mut connection = database.connect().await;
    let refuse = "create function refuse() returns trigger language plpgsql as
            'begin raise exception ''no''; end';
        create trigger refuse before delete on calls for each row when (old.call_id = 'c-2')
            execute function refuse()";
    connection.execute(refuse).await.unwrap();
    delete(&service, "/clients/x").await.problem(500);
    assert_eq!(count(&mut connection, "calls").await, 3);
    assert_eq!(count(&mut connection, "events").await, 3);
    let audit = "select calls, events from erasures";
    let row = connection.fetch_one(audit).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (2, 2));
    assert_verified(&database);
    connection.execute("drop trigger refuse on calls").await.unwrap();
    assert_eq!(delete(&service, "/clients/x").await.ok(), numbers(3, 3, 0));
    assert_eq!(count(&mut connection, "erased_calls").await, 5);
}

/// Waits until so many transactions wait for locks.
async fn so_many_wait(watcher: &mut PgConnection, number: i64) {
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    let reached =
        async { while watcher.fetch_one(waiting).await.unwrap().get::<i64, _>(0) < number {} };
    tokio::time::timeout(Duration::from_mins(1), reached).await.expect("transactions wait");
}

#[tokio::test]
async fn a_call_that_is_being_committed_when_its_client_is_erased_is_erased() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let lock = Lock::take_after_writing(&database).await;
    let mut watcher = database.connect().await;
    let delivering = deliver(&service, "OUTBOUND_CALL_CALLING", "c", "x", 1);
    let erasing = async {
        so_many_wait(&mut watcher, 1).await;
        let erasing = delete(&service, "/clients/x");
        let release = async {
            so_many_wait(&mut database.connect().await, 2).await;
            lock.release().await;
        };
        tokio::join!(erasing, release).0
    };
    let (delivered, erased) = tokio::join!(delivering, erasing);
    assert_eq!(delivered["disposition"], "advanced");
    assert_eq!(erased.ok(), numbers(1, 1, 0));
    service.get("/calls/c").await.problem(404);
}

#[tokio::test]
async fn a_write_that_was_decided_before_an_erasure_is_decided_again() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    // So that the writer knows how often something was erased.
    deliver(&service, "OUTBOUND_CALL_CALLING", "other", "y", 1).await;
    let mut eraser = database.connect().await;
    let state = ErasureState::load(&mut eraser).await.unwrap();
    let key = CallKey {
        call_id: callstate::call::CallId::new("c").unwrap(),
        project_id: ProjectId::new(PROJECT).unwrap(),
    };
    eraser.execute("begin; update feed set erasures = erasures + 1").await.unwrap();
    let hash = state.of_call(&key).bytes();
    sqlx::query!("insert into erasure_hashes (hash) values ($1)", &hash[..])
        .execute(&mut eraser)
        .await
        .unwrap();
    let delivering = deliver(&service, "OUTBOUND_CALL_CALLING", "c", "x", 1);
    let committing = async {
        so_many_wait(&mut database.connect().await, 1).await;
        eraser.execute("commit").await.unwrap();
    };
    let (delivered, ()) = tokio::join!(delivering, committing);
    assert_eq!(delivered["disposition"], "erased");
    service.get("/calls/c").await.problem(404);
    assert_eq!(service.get("/calls/other").await.ok()["event_count"], 1);
    assert_verified(&database);
}

#[tokio::test]
async fn no_call_of_an_erased_client_is_left_however_deliveries_and_erasures_meet() {
    let database = Database::create().await;
    let services = [Service::start(&database).await, Service::start(&database).await];
    let pool = database.pool().await;
    let now = server_time(&pool).await.unwrap();
    for round in 0..20 {
        let client = format!("client-{round}");
        let delivering = async |service: &Service| {
            for second in 0..5 {
                let call_id = format!("c-{round}-{}", second % 2);
                deliver(service, "OUTBOUND_CALL_CALLING", &call_id, &client, second).await;
            }
        };
        let client_id = ClientId::new(client.clone()).unwrap();
        let request = ErasureRequest { api_key: None, now };
        let erasing = of_client(&pool, &client_id, &Projects::All, request, |_, _: Erased| {});
        let [one, other] = &services;
        let (erased, (), ()) = tokio::join!(erasing, delivering(one), delivering(other));
        erased.unwrap();
        let left = sqlx::query!("select call_id from calls where client_id = $1", client);
        assert!(left.fetch_all(&pool).await.unwrap().is_empty(), "round {round}");
    }
    let mut connection = database.connect().await;
    assert_eq!(count(&mut connection, "events").await, 0);
}

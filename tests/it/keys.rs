//! API keys: the commands, and what a key gives access to.

use std::process::Command;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use crate::support::{
    Answer, Database, Service, callstate,
    delivery::{delivery, fixture},
};

/// The response to every client without a valid key.
const UNAUTHORIZED: &str = concat!(
    r#"{"type":"urn:callstate:problem:key-needed","#,
    r#""title":"A good API key is needed","status":401,"#,
    r#""detail":"send a good API key as Authorization: Bearer"}"#,
);

/// The challenge to a request without a key, and to one with an invalid key.
const CHALLENGE: &str = "Bearer realm=\"callstate\"";
const INVALID: &str = "Bearer realm=\"callstate\", error=\"invalid_token\"";

fn with_keys(command: &mut Command) {
    command.arg("--require-key");
}

/// Runs `callstate keys …`: its exit status, standard output and standard error.
fn keys(database: &Database, arguments: &[&str]) -> (i32, String, String) {
    let url = database.url();
    let output = callstate(&[&["keys"], arguments, &["--database-url", &url]].concat());
    let text = |bytes| String::from_utf8(bytes).expect("it is UTF-8");
    (output.status.code().expect("it ended"), text(output.stdout), text(output.stderr))
}

/// Its output as JSON.
fn keys_json(database: &Database, arguments: &[&str]) -> Value {
    let (status, printed, said) = keys(database, &[arguments, &["--format", "json"]].concat());
    assert_eq!(status, 0, "{said}");
    serde_json::from_str(&printed).expect("it is JSON")
}

/// A new key.
fn create(database: &Database, arguments: &[&str]) -> String {
    let created = keys_json(database, &[&["create"], arguments].concat());
    created["key"].as_str().expect("it is text").to_owned()
}

async fn get(service: &Service, path: &str, key: &str) -> Answer {
    let request = service.request("GET", path).header("Authorization", format!("Bearer {key}"));
    service.send(request).await
}

/// Delivers an event of a call with that id in each of the projects.
async fn deliver(service: &Service, call_id: &str, projects: &[&str]) {
    for project_id in projects {
        let body =
            json!({"eventType": "OUTBOUND_CALL_BUSY", "callId": call_id, "projectId": project_id});
        service.deliver(body.to_string()).await.ok();
    }
}

async fn execute(database: &Database, statement: &str) {
    let done = database.connect().await.execute(AssertSqlSafe(statement.to_owned())).await;
    assert_eq!(done.expect("the statement is right").rows_affected(), 1, "{statement}");
}

#[tokio::test]
async fn with_require_key_only_the_open_routes_answer_without_a_key() {
    let database = Database::create().await;
    let service = Service::start_with(&database, with_keys).await;
    let key = create(&database, &["--name", "grafana"]);
    service.deliver(fixture("outbound_busy")).await.ok();

    for path in ["/calls/out-08", "/calls/out-08/history", "/calls/nobody", "/calls/%00?x=1"] {
        let answer = service.get(path).await;
        answer.problem(401);
        assert_eq!(answer.text, UNAUTHORIZED);
        assert_eq!(answer.header("www-authenticate"), CHALLENGE);
    }
    assert_eq!(get(&service, "/calls/out-08", &key).await.ok()["status"], "BUSY");
    assert_eq!(get(&service, "/calls/out-08/history", &key).await.ok()["call_id"], "out-08");
    get(&service, "/calls/nobody", &key).await.problem(404);
    get(&service, "/calls/%00", &key).await.problem(400);

    let post = || service.request("POST", "/calls/out-08");
    service.send(post()).await.problem(401);
    service.send(post().bearer_auth(&key)).await.problem(405);

    for path in ["/health/live", "/health/ready", "/state-machine", "/openapi.json"] {
        service.get(path).await.ok();
        get(&service, path, "of another service").await.ok();
    }
    assert_eq!(service.get("/docs").await.status, 200);
    service.get("/nowhere").await.problem(404);
    service.get("/calls/out-08/nowhere").await.problem(404);
}

#[tokio::test]
async fn every_invalid_key_has_the_same_response_and_the_log_names_the_cause() {
    let database = Database::create().await;
    let service = Service::start_with(&database, with_keys).await;
    let [good, expired, revoked] = ["good", "expired", "revoked"]
        .map(|name| create(&database, &["--name", name, "--expires", "90d"]));
    execute(
        &database,
        "update api_keys set expires_at = created_at - interval '1 us' where name = 'expired'",
    )
    .await;
    assert_eq!(keys(&database, &["revoke", "revoked"]).0, 0);
    let other_digit = if good.ends_with('0') { "1" } else { "0" };
    let unknown = format!("{}{other_digit}", &good[..good.len() - 1]);

    let bearer = |key: &str| vec![format!("Bearer {key}")];
    for (authorization, challenge, cause) in [
        (vec![], CHALLENGE, "no key"),
        (vec!["Basic b2xkLXRva2Vu".to_owned()], CHALLENGE, "no key"),
        (vec![good.clone()], CHALLENGE, "no key"),
        ([bearer(&good), bearer(&good)].concat(), CHALLENGE, "several Authorization headers"),
        (bearer(""), INVALID, "no key has that form"),
        (bearer("hunter2"), INVALID, "no key has that form"),
        (bearer(&good.to_uppercase()), INVALID, "no key has that form"),
        (bearer(&unknown), INVALID, "the key is unknown"),
        (bearer(&expired), INVALID, " is expired"),
        (bearer(&revoked), INVALID, " is revoked"),
    ] {
        // So that the log line is of this request.
        let path = format!("/calls/{}", cause.replace(' ', "_"));
        let mut request = service.request("GET", &path);
        for value in authorization {
            request = request.header("Authorization", value);
        }
        let answer = service.send(request).await;
        answer.problem(401);
        assert_eq!(answer.text, UNAUTHORIZED, "{cause}");
        assert_eq!(answer.header("www-authenticate"), challenge, "{cause}");
        let said = service.said(&format!(r#""path":"{path}""#)).await;
        assert!(said.contains(&format!(r#"{cause}""#)), "{cause}");
    }
    get(&service, "/calls/nobody", &good).await.problem(404);
}

#[tokio::test]
async fn the_scheme_bearer_is_accepted_in_any_case() {
    let database = Database::create().await;
    let service = Service::start_with(&database, with_keys).await;
    let key = create(&database, &["--name", "grafana"]);
    for scheme in ["Bearer", "bearer", "BEARER", "bEARER"] {
        let request = service.request("GET", "/calls/nobody");
        let request = request.header("Authorization", format!("{scheme} {key}"));
        service.send(request).await.problem(404);
    }
}

#[tokio::test]
async fn without_require_key_a_key_that_is_sent_must_be_valid_and_its_limits_apply() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    deliver(&service, "c", &["p-1"]).await;
    let limited = create(&database, &["--name", "limited", "--project", "p-2"]);
    service.get("/calls/c").await.ok();
    get(&service, "/calls/c", "hunter2").await.problem(401);
    get(&service, "/calls/c", &limited).await.problem(404);
    // Of a proxy that authenticates by password.
    let basic = service.request("GET", "/calls/c").header("Authorization", "Basic b2xkLXRva2Vu");
    service.send(basic).await.ok();
}

#[tokio::test]
async fn a_key_limited_to_projects_sees_nothing_of_the_others() {
    let database = Database::create().await;
    let service = Service::start_with(&database, with_keys).await;
    deliver(&service, "c", &["p-1", "p-2", "p-3"]).await;
    deliver(&service, "other", &["p-3"]).await;
    deliver(&service, "others", &["p-3", "p-4"]).await;
    let all = create(&database, &["--name", "all"]);
    let one = create(&database, &["--name", "one", "--project", "p-2"]);
    let two = create(&database, &["--name", "two", "--project", "p-2", "--project", "p-1"]);

    for suffix in ["", "/history"] {
        let path = |call_id: &str| format!("/calls/{call_id}{suffix}");
        let ambiguous = get(&service, &path("c"), &all).await;
        ambiguous.problem(409);
        assert_eq!(ambiguous.json()["project_ids"], json!(["p-1", "p-2", "p-3"]));
        let ambiguous = get(&service, &path("c"), &two).await;
        ambiguous.problem(409);
        assert_eq!(ambiguous.json()["project_ids"], json!(["p-1", "p-2"]));
        assert!(!ambiguous.text.contains("p-3"), "{}", ambiguous.text);
        assert_eq!(get(&service, &path("c"), &one).await.ok()["project_id"], "p-2");

        let of_project = |project_id: &str| format!("{}?project_id={project_id}", path("c"));
        assert_eq!(get(&service, &of_project("p-1"), &two).await.ok()["project_id"], "p-1");
        assert_eq!(get(&service, &of_project("p-3"), &all).await.ok()["project_id"], "p-3");
        // A hidden call and one that does not exist have the same response.
        for path in [of_project("p-3"), of_project("p-9")] {
            assert_eq!(get(&service, &path, &two).await.problem(404), "there is no call c");
        }
        for call_id in ["other", "others", "nobody"] {
            let detail = get(&service, &path(call_id), &two).await.problem(404);
            assert_eq!(detail, format!("there is no call {call_id}"));
        }
        assert_eq!(get(&service, &path("other"), &all).await.ok()["project_id"], "p-3");
    }
}

#[tokio::test]
async fn a_revoked_key_is_rejected_by_an_instance_that_has_not_cached_it() {
    let database = Database::create().await;
    let one = Service::start_with(&database, with_keys).await;
    let other = Service::start_with(&database, with_keys).await;
    let key = create(&database, &["--name", "grafana"]);
    get(&one, "/calls/nobody", &key).await.problem(404);
    assert_eq!(keys(&database, &["revoke", "grafana"]).0, 0);
    // This one has not cached the key. How long the first one may use its cache is tested with fixed clocks.
    get(&other, "/calls/nobody", &key).await.problem(401);
}

#[tokio::test]
async fn the_last_use_of_a_key_is_written_before_the_service_ends() {
    let database = Database::create().await;
    let service = Service::start_with(&database, with_keys).await;
    let [used, expired] = [&[][..], &["--expires", "1h"]]
        .map(|more| create(&database, &[&["--name", "grafana"], more].concat()));
    execute(&database, "update api_keys set expires_at = created_at where expires_at is not null")
        .await;
    get(&service, "/calls/nobody", &used).await.problem(404);
    get(&service, "/calls/nobody", &expired).await.problem(401);
    service.stop().await;
    let listed = keys_json(&database, &["list"]);
    assert!(listed["keys"][0]["last_used_at"].is_string(), "{listed}");
    assert_eq!(listed["keys"][1]["last_used_at"], Value::Null);
}

#[tokio::test]
async fn a_key_is_printed_once_and_never_stored_or_logged() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        with_keys(command);
        command.env("CALLSTATE_LOG", "trace");
    })
    .await;
    let (status, printed, said) = keys(&database, &["create", "--name", "grafana"]);
    assert_eq!(status, 0);
    let key = printed.trim_end();
    assert_eq!((printed.as_str(), key.len()), (format!("{key}\n").as_str(), 67));
    let secret = key.strip_prefix("cs_").expect("keys begin so");
    assert!(!said.contains(secret), "{said}");
    assert!(said.contains("named grafana: scope read, sees all projects, expires never"), "{said}");

    get(&service, "/calls/nobody", key).await.problem(404);
    get(&service, "/calls/nobody", &format!("cs_{}", "0".repeat(64))).await.problem(401);
    let said = service.said("the key is unknown").await;
    assert!(!said.contains(secret));
    assert!(!said.contains(&"0".repeat(64)));

    for arguments in [&["list"][..], &["list", "--format", "json"], &["revoke", key], &["list"]] {
        let (status, printed, said) = keys(&database, arguments);
        assert_eq!(status, 0, "{said}");
        assert!(!printed.contains(secret) && !said.contains(secret), "{arguments:?}");
    }
    let row: String = database
        .pool()
        .await
        .fetch_one("select api_keys::text from api_keys")
        .await
        .expect("there is one")
        .get(0);
    assert!(row.contains("grafana") && !row.contains(secret));
    let kept: bool = database
        .pool()
        .await
        .fetch_one(AssertSqlSafe(format!("select hash = sha256('{key}') from api_keys")))
        .await
        .expect("there is one")
        .get(0);
    assert!(kept, "the hash is that of the key as it is sent");
}

#[tokio::test]
async fn keys_are_created_listed_and_revoked() {
    let database = Database::create().await;
    assert_eq!(keys(&database, &["list"]).1, "there are no keys\n");
    let created = keys_json(
        &database,
        &["create", "--name", "ops", "--project", "b", "--project", "a", "--scope", "admin"],
    );
    let members: Vec<_> = created.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["expires_at", "id", "key", "name", "projects", "scope"]);
    assert_eq!(
        (&created["name"], &created["scope"], &created["projects"], &created["expires_at"]),
        (&json!("ops"), &json!("admin"), &json!(["a", "b"]), &Value::Null),
    );
    let other = keys_json(&database, &["create", "--name", "ops", "--expires", "90d"]);
    assert_eq!((&other["scope"], &other["projects"]), (&json!("read"), &Value::Null));
    assert!(other["expires_at"].is_string());
    execute(&database, "update api_keys set expires_at = created_at where expires_at is not null")
        .await;

    let how_they_are = || {
        let listed = keys_json(&database, &["list"]);
        let keys = listed["keys"].as_array().expect("an array").clone();
        keys.iter().map(|key| key["state"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(how_they_are(), ["active", "expired"]);
    let [id, other_id] = [&created, &other].map(|key| key["id"].as_str().expect("text").to_owned());

    let (status, printed, said) = keys(&database, &["revoke", "ops"]);
    assert_eq!((status, printed.as_str()), (1, ""));
    let ids = format!("{id}, {other_id}");
    assert_eq!(said, format!("callstate: 2 keys are named \"ops\", say which: {ids}\n"));

    let (status, printed, said) = keys(&database, &["revoke", "nobody", &other_id]);
    assert_eq!((status, printed), (1, format!("revoked ops, key {other_id}\n")));
    assert_eq!(said, "callstate: there is no key named \"nobody\"\n");
    assert_eq!(how_they_are(), ["active", "revoked"]);

    let revoked = keys_json(&database, &["revoke", "ops"]);
    assert_eq!(revoked["revoked"][0]["id"], id.as_str());
    assert_eq!(revoked["revoked"][0]["state"], "revoked");
    let (status, printed, _) = keys(&database, &["revoke", &id]);
    let revoked_at = keys_json(&database, &["list"])["keys"][0]["revoked_at"].clone();
    assert_eq!(revoked_at, revoked["revoked"][0]["revoked_at"], "once and for good");
    assert_eq!(status, 0);
    assert!(printed.starts_with(&format!("ops, key {id}, was revoked at 20")), "{printed}");
}

#[tokio::test]
async fn invalid_arguments_are_usage_errors() {
    let database = Database::create().await;
    for arguments in [
        &["create"][..],
        &["create", "--name", ""],
        &["create", "--name", "cs_x"],
        &["create", "--name", "a", "--scope", "write"],
        &["create", "--name", "a", "--expires", "soon"],
        &["create", "--name", "a", "--expires", "0s"],
        &["create", "--name", "a", "--project", ""],
        &["revoke"],
    ] {
        let (status, printed, said) = keys(&database, arguments);
        assert_eq!((status, printed.as_str()), (2, ""), "{arguments:?}: {said}");
    }
    assert_eq!(keys(&database, &["list"]).1, "there are no keys\n");
}

#[tokio::test]
async fn a_database_without_the_schema_is_an_error_that_names_migrate() {
    let database = Database::create().await;
    database.connect().await.execute("drop table api_keys").await.expect("it is there");
    for arguments in [&["list"][..], &["create", "--name", "a"], &["revoke", "a"]] {
        let (status, _, said) = keys(&database, arguments);
        assert_eq!(status, 1);
        assert!(said.contains("callstate migrate brings it"), "{said}");
    }
}

#[tokio::test]
async fn deliveries_need_no_api_key() {
    let database = Database::create().await;
    let service = Service::start_with(&database, with_keys).await;
    let body = delivery("OUTBOUND_CALL_CALLING", "c", 1, None).to_string();
    for path in ["/webhooks", "/webhooks/", "/webhooks/default"] {
        service.deliver_to(path, body.clone()).await.ok();
    }
    service.deliver_to("/webhooks/nowhere", body).await.problem(404);
}

#[tokio::test]
async fn the_quarantine_needs_an_admin_key_for_all_projects() {
    let database = Database::create().await;
    let service = Service::start_with(&database, with_keys).await;
    service.deliver("no JSON").await.quarantined();
    let reader = create(&database, &["--name", "reader"]);
    let of_one = create(&database, &["--name", "one", "--scope", "admin", "--project", "a"]);
    let admin = create(&database, &["--name", "admin", "--scope", "admin"]);
    service.get("/quarantine").await.problem(401);
    let entries = get(&service, "/quarantine", &admin).await.ok();
    let id = entries["quarantine"][0]["id"].as_str().expect("it is there").to_owned();
    for key in [&reader, &of_one] {
        for path in ["/quarantine", &format!("/quarantine/{id}")] {
            get(&service, path, key).await.problem(403);
        }
        let replay = service.request("POST", &format!("/quarantine/{id}/replay")).bearer_auth(key);
        service.send(replay).await.problem(403);
    }
    assert_eq!(get(&service, &format!("/quarantine/{id}"), &admin).await.ok()["body"], "no JSON");
    let replay = service.request("POST", &format!("/quarantine/{id}/replay")).bearer_auth(&admin);
    service.send(replay).await.problem(422);
}

#[tokio::test]
async fn simulate_checks_calls_with_a_key() {
    let database = Database::create().await;
    let service = Service::start_with(&database, with_keys).await;
    let key = create(&database, &["--name", "simulate"]);
    let url = format!("{}/webhooks", service.base_url());
    let simulate = ["simulate", "--url", &url, "--calls", "10"];
    let output = callstate(&[&simulate[..], &["--api-key", &key]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!callstate(&simulate).status.success(), "without a key it can check nothing");
}

//! Authentication of deliveries: bearer tokens, signatures, and their configuration.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};
use sqlx::{Executor as _, Row as _};

use crate::support::{
    Answer, Database, Service, Signer, callstate,
    delivery::{delivery, fixture},
    encoding::gzip,
    key_path,
};

/// An endpoint of each kind: `open`, `partner` with two tokens, `production` with two keys.
fn endpoints(command: &mut Command) {
    let keys =
        ["rsa-2048.certificate", "rsa-3072.spki"].map(|name| format!("file:{}", key_path(name)));
    command
        .env("CALLSTATE_WEBHOOKS_OPEN_AUTH", "none")
        .env("CALLSTATE_WEBHOOKS_PARTNER_AUTH", "bearer")
        .env("CALLSTATE_WEBHOOKS_PARTNER_TOKENS", "old-token,env:NEW_TOKEN")
        .env("NEW_TOKEN", "new-token")
        .env("CALLSTATE_WEBHOOKS_PRODUCTION_AUTH", "rsa-sha256")
        .env("CALLSTATE_WEBHOOKS_PRODUCTION_PUBLIC_KEYS", keys.join(","))
        .env("CALLSTATE_WEBHOOKS_PRODUCTION_PROJECTS", "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1");
}

/// The delivery of one event of a call.
fn body(call_id: &str) -> Vec<u8> {
    delivery("OUTBOUND_CALL_CALLING", call_id, 0, None).to_string().into_bytes()
}

fn post(service: &Service, endpoint: &str, body: &[u8]) -> RequestBuilder {
    service
        .request("POST", &format!("/webhooks/{endpoint}"))
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_owned())
}

#[tokio::test]
async fn a_delivery_with_a_token_or_signature_of_the_endpoint_is_accepted() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    for (call_id, authorization) in
        [("a", "Bearer old-token"), ("b", "Bearer new-token"), ("c", "bearer new-token")]
    {
        let request = post(&service, "partner", &body(call_id));
        service.send(request.header("Authorization", authorization)).await.ok();
    }
    for (call_id, key, seconds) in [
        ("d", "rsa-2048", 0),
        ("e", "rsa-3072", 0),
        ("f", "rsa-2048", -290),
        ("g", "rsa-2048", 290),
    ] {
        let body = body(call_id);
        let request = post(&service, "production", &body);
        service.send(Signer::new(key).sign(request, &body, seconds)).await.ok();
    }
    for call_id in ["a", "b", "c", "d", "e", "f", "g"] {
        service.get(&format!("/calls/{call_id}")).await.ok();
    }
}

#[tokio::test]
async fn the_signature_is_over_the_bytes_as_they_were_sent() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    let signer = Signer::new("rsa-2048");
    // White space is part of what is signed.
    let body = [b" \n", body("spaced").as_slice(), b"\r\n\t"].concat();
    service.send(signer.sign(post(&service, "production", &body), &body, 0)).await.ok();

    let other = signer.sign(post(&service, "production", &body), body.trim_ascii(), 0);
    service.send(other).await.problem(401);
}

#[tokio::test]
async fn every_failed_authentication_has_the_same_response_and_nothing_is_stored() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    let (body, old) = (fixture("outbound_busy"), Signer::new("rsa-2048"));
    let partner = |body: &[u8]| post(&service, "partner", body);
    let production = |body: &[u8]| post(&service, "production", body);
    let signed = |seconds| old.sign(production(&body), &body, seconds);
    let requests = [
        (partner(&body), "token_missing"),
        (partner(b"no JSON"), "token_missing"),
        (partner(&body).header("Authorization", "Basic b2xkLXRva2Vu"), "token_malformed"),
        (
            partner(&body)
                .header("Authorization", "Bearer old-token")
                .header("Authorization", "Bearer new-token"),
            "token_malformed",
        ),
        (partner(&body).header("Authorization", "Bearer hunter2"), "token_unknown"),
        (old.sign(partner(&body), &body, 0), "token_missing"),
        (production(&body), "timestamp_missing"),
        (production(&body).header("Authorization", "Bearer old-token"), "timestamp_missing"),
        (production(&body).header("X-Recho-Timestamp", "soon"), "timestamp_malformed"),
        (signed(0).header("X-Recho-Timestamp", "1778581440"), "timestamp_malformed"),
        (signed(0).header("X-Recho-Signature", "AAAA"), "signature_malformed"),
        (old.sign(production(b"no JSON"), &body, 0), "signature_wrong"),
        // Outside the window, and the signature is wrong.
        (old.sign(production(b"no JSON"), &body, -400), "signature_wrong"),
    ];
    let mut texts = Vec::new();
    for (request, cause) in requests {
        let answer = service.send(request).await;
        assert_eq!(answer.problem(401), "the delivery is not authentic");
        texts.push(answer.text.clone());
        let is_bearer = cause.starts_with("token");
        let challenge = if is_bearer { "Bearer realm=\"callstate\"" } else { "" };
        assert_eq!(answer.header("www-authenticate"), challenge, "{cause}");
        let endpoint = if is_bearer { "partner" } else { "production" };
        service.said(&format!(r#""endpoint":"{endpoint}","cause":"{cause}""#)).await;
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(stored(&database).await, 0);
}

/// The number of events and of entries in the quarantine.
async fn stored(database: &Database) -> i64 {
    let counts = "select (select count(*) from events) + (select count(*) from quarantine)";
    database.pool().await.fetch_one(counts).await.expect("the tables exist").get(0)
}

/// The only entry in the quarantine.
async fn quarantined(service: &Service) -> Value {
    let page = service.get("/quarantine").await.ok();
    assert_eq!(page["quarantine"].as_array().expect("a list").len(), 1, "{page}");
    let id = page["quarantine"][0]["id"].as_str().expect("a text");
    service.get(&format!("/quarantine/{id}")).await.ok()
}

async fn replay(service: &Service, entry: &Value) -> Answer {
    let id = entry["id"].as_str().expect("a text");
    service.send(service.request("POST", &format!("/quarantine/{id}/replay"))).await
}

#[tokio::test]
async fn a_stale_signature_is_answered_401_and_its_delivery_is_kept_and_can_be_replayed() {
    for seconds in [-400, 400] {
        let database = Database::create().await;
        let service = Service::start_with(&database, endpoints).await;
        let signer = Signer::new("rsa-2048");
        let body = body("stale");
        let send = async || {
            let request = post(&service, "production", &body);
            service.send(signer.sign(request, &body, seconds)).await
        };
        let answer = send().await;
        assert_eq!(answer.problem(401), "the delivery is not authentic");
        service.said(r#""endpoint":"production","cause":"stale_signature""#).await;
        // The provider sends it again.
        send().await.problem(401);
        service.get("/calls/stale").await.problem(404);

        let entry = quarantined(&service).await;
        assert_eq!(entry["reason"], "stale_signature");
        assert_eq!(entry["endpoint"], "production");
        assert_eq!(entry["count"], 2);
        assert_eq!(entry["body"], str::from_utf8(&body).expect("it is text"));

        let replayed = replay(&service, &entry).await.ok();
        assert_eq!(
            (&replayed["call_id"], &replayed["disposition"], &replayed["status"]),
            (&json!("stale"), &json!("advanced"), &json!("CALLING")),
        );
        let event = service.get("/calls/stale/history").await.ok()["events"][0].take();
        assert_eq!(event["delivery_count"], 2);
        assert_eq!(event["received_at"], entry["first_received_at"]);
        let page = service.get("/quarantine").await.ok();
        assert_eq!(page["quarantine"], json!([]));
    }
}

#[tokio::test]
async fn a_stale_delivery_is_kept_as_it_was_sent_and_decoded_when_it_is_replayed() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    let plain = body("stale");
    let twice = gzip(&gzip(&plain));
    let request = post(&service, "production", &twice)
        .header("Content-Encoding", "gzip")
        .header("Content-Encoding", "x-gzip");
    service.send(Signer::new("rsa-2048").sign(request, &twice, -400)).await.problem(401);
    let entry = quarantined(&service).await;
    assert_eq!(entry["encoding"], "base64");
    assert_eq!(entry["body"], STANDARD.encode(&twice));
    replay(&service, &entry).await.ok();
    let history = service.get("/calls/stale/history?include=payload").await;
    assert!(history.text.contains(str::from_utf8(&plain).expect("it is text")), "{}", history.text);
}

#[tokio::test]
async fn a_stale_delivery_of_a_project_that_is_not_accepted_cannot_be_replayed() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    let body = br#"{"projectId": "other", "eventType": "OUTBOUND_CALL_CALLING", "callId": "a"}"#;
    let request = post(&service, "production", body);
    service.send(Signer::new("rsa-2048").sign(request, body, -400)).await.problem(401);
    let entry = quarantined(&service).await;
    replay(&service, &entry).await.problem(403);
    assert_eq!(stored(&database).await, 1, "the entry stays");
}

#[tokio::test]
async fn a_stale_delivery_is_answered_503_where_it_cannot_be_kept() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    let body = body("stale");
    let signer = Signer::new("rsa-2048");
    database.close().await;
    let request = post(&service, "production", &body);
    service.send(signer.sign(request, &body, -400)).await.problem(503);
}

#[tokio::test]
async fn the_timestamp_tolerance_is_configured_up_to_7_days() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        endpoints(command);
        command.env("CALLSTATE_WEBHOOKS_PRODUCTION_TIMESTAMP_TOLERANCE", "7d");
    })
    .await;
    let signer = Signer::new("rsa-2048");
    let body = body("old");
    let send = async |seconds| {
        let request = post(&service, "production", &body);
        service.send(signer.sign(request, &body, seconds)).await
    };
    send(-7 * 86_400 - 60).await.problem(401);
    send(-7 * 86_400 + 60).await.ok();
}

#[tokio::test]
async fn no_token_is_logged() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        endpoints(command);
        command.env("CALLSTATE_LOG", "trace");
    })
    .await;
    let request = |authorization: &str| {
        post(&service, "partner", b"{}").header("Authorization", authorization)
    };
    service.send(request("Bearer hunter2")).await.problem(401);
    service.send(request("Bearer new-token")).await.quarantined();
    let said = service.said("kept in the quarantine").await;
    for secret in ["hunter2", "old-token", "new-token"] {
        assert!(!said.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn checks_are_made_in_the_order_of_the_contract() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        endpoints(command);
        command.env("CALLSTATE_MAX_DELIVERY_BYTES", "1024");
    })
    .await;
    let signer = Signer::new("rsa-2048");
    let large = vec![b' '; 1025];
    let request = |method: &str, endpoint: &str, body: &[u8]| {
        service
            .request(method, &format!("/webhooks/{endpoint}"))
            .header(CONTENT_TYPE, "text/plain")
            .body(body.to_owned())
    };
    let json = |body: &[u8]| signer.sign(post(&service, "production", body), body, 0);

    service.send(request("PUT", "nowhere", &large)).await.problem(404);
    service.send(request("PUT", "production", &large)).await.problem(405);
    service.send(request("POST", "production", &large)).await.problem(413);
    service.send(request("POST", "production", b"no JSON")).await.problem(401);
    let authentic = signer.sign(request("POST", "production", b"no JSON"), b"no JSON", 0);
    service.send(authentic).await.problem(415);
    let encoded = post(&service, "production", b"no JSON").header("Content-Encoding", "compress");
    service.send(signer.sign(encoded, b"no JSON", 0)).await.problem(415);
    service.send(json(b"no JSON")).await.quarantined();
    service.send(json(br#"{"projectId": "other"}"#)).await.quarantined();
    let other = br#"{"projectId": "other", "eventType": "OUTBOUND_CALL_CALLING", "callId": "a"}"#;
    service.send(json(other)).await.problem(403);
}

/// A folder with a configuration, removed with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("authentication-{}-{number}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("the folder is ours");
    }

    fn copy_key(&self, from: &str, to: &str) {
        fs::copy(key_path(from), self.0.join(to)).expect("a key");
    }

    fn config(&self) -> PathBuf {
        self.0.join("callstate.toml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn sighup_reloads_tokens_and_keys_and_a_bad_configuration_changes_nothing() {
    let folder = Folder::new();
    folder.write(
        "callstate.toml",
        "[webhooks.partner]\nauth = 'bearer'\ntokens = ['file:token']\n\
         [webhooks.production]\nauth = 'rsa-sha256'\npublic_keys = ['file:recho.pem']\n",
    );
    folder.write("token", "old-token\n");
    folder.copy_key("rsa-2048.spki", "recho.pem");
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.arg("--config").arg(folder.config());
    })
    .await;

    // An authentic delivery that is not JSON is answered 202.
    let token = async |token: &str| {
        let request = post(&service, "partner", b"no JSON");
        service.send(request.header("Authorization", format!("Bearer {token}"))).await.status
    };
    let key = async |key: &str| {
        let request = post(&service, "production", b"no JSON");
        service.send(Signer::new(key).sign(request, b"no JSON", 0)).await.status
    };
    assert_eq!((token("old-token").await, token("new-token").await), (202, 401));
    assert_eq!((key("rsa-2048").await, key("rsa-3072").await), (202, 401));

    folder.write("token", "new-token\n");
    folder.copy_key("rsa-1024.spki", "recho.pem");
    service.hang_up();
    let said = service.said("tokens and keys stay as they are").await;
    assert!(said.contains("webhooks.production.public_keys[0]: is an RSA key of 1024 bits"));
    assert_eq!((token("old-token").await, token("new-token").await), (202, 401));
    assert_eq!((key("rsa-2048").await, key("rsa-3072").await), (202, 401));

    folder.copy_key("rsa-3072.spki", "recho.pem");
    service.hang_up();
    let said = service.said("tokens and keys were read again").await;
    assert!(!said.contains("take effect at the next start"));
    assert_eq!((token("old-token").await, token("new-token").await), (401, 202));
    assert_eq!((key("rsa-2048").await, key("rsa-3072").await), (401, 202));
    service.stop().await;
}

#[tokio::test]
async fn sighup_opens_no_endpoint() {
    let folder = Folder::new();
    folder.write("callstate.toml", "[webhooks.partner]\nauth = 'bearer'\ntokens = ['token']\n");
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.arg("--config").arg(folder.config());
    })
    .await;
    folder.write(
        "callstate.toml",
        "[webhooks.partner]\nauth = 'none'\n[webhooks.more]\nauth = 'none'\n",
    );
    service.hang_up();
    service.said("take effect at the next start").await;
    service.said("tokens and keys were read again").await;
    service.send(post(&service, "partner", b"{}")).await.problem(401);
    service.send(post(&service, "more", b"{}")).await.problem(404);
}

#[test]
fn a_weak_key_is_an_error_at_startup() {
    let folder = Folder::new();
    folder.write(
        "callstate.toml",
        "[webhooks.production]\nauth = 'rsa-sha256'\npublic_keys = ['file:recho.pem']\n",
    );
    folder.copy_key("rsa-1024.spki", "recho.pem");
    let config = folder.config();
    let output = callstate(&["serve", "--config", config.to_str().expect("it is UTF-8")]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).expect("it is UTF-8");
    assert_eq!(
        said,
        format!(
            "callstate: {}: webhooks.production.public_keys[0]: is an RSA key of 1024 bits; it \
             must have 2048 to 8192\n",
            config.display()
        )
    );
}

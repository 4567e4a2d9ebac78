//! How deliveries prove where they come from, and what becomes of those that do not.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use sqlx::{Executor as _, Row as _};

use crate::support::{
    Database, Service, Signer, callstate,
    delivery::{delivery, fixture},
    key_path,
};

/// What every sender is told that is refused.
const REFUSED: &str = concat!(
    r#"{"type":"urn:callstate:problem:not-authentic","#,
    r#""title":"It is not proved where this comes from","status":401,"#,
    r#""detail":"the delivery does not prove where it comes from"}"#,
);

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
async fn what_a_token_or_a_key_of_the_endpoint_proves_is_taken() {
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
async fn the_bytes_that_came_are_what_is_signed() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    let signer = Signer::new("rsa-2048");
    // White space and order are as they came, and not as we would write them.
    let body = [b" \n", body("spaced").as_slice(), b"\r\n\t"].concat();
    service.send(signer.sign(post(&service, "production", &body), &body, 0)).await.ok();

    let other = signer.sign(post(&service, "production", &body), body.trim_ascii(), 0);
    service.send(other).await.problem(401);
}

#[tokio::test]
async fn whatever_is_wrong_the_answer_is_the_same_and_nothing_is_stored() {
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
        (signed(-400), "timestamp_too_old"),
        (signed(400), "timestamp_too_new"),
        (signed(0).header("X-Recho-Timestamp", "1778581440"), "timestamp_malformed"),
        (signed(0).header("X-Recho-Signature", "AAAA"), "signature_malformed"),
        (old.sign(production(b"no JSON"), &body, 0), "signature_wrong"),
    ];
    for (request, cause) in requests {
        let answer = service.send(request).await;
        answer.problem(401);
        assert_eq!(answer.text, REFUSED, "{cause}");
        let is_bearer = cause.starts_with("token");
        let challenge = if is_bearer { "Bearer realm=\"callstate\"" } else { "" };
        assert_eq!(answer.header("www-authenticate"), challenge, "{cause}");
        let endpoint = if is_bearer { "partner" } else { "production" };
        service.said(&format!(r#""endpoint":"{endpoint}","cause":"{cause}""#)).await;
    }

    let stored: i64 = database
        .pool()
        .await
        .fetch_one("select (select count(*) from events) + (select count(*) from quarantine)")
        .await
        .expect("the tables are there")
        .get(0);
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn no_secret_and_nothing_that_was_shown_is_logged() {
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
    service.send(request("Bearer new-token")).await.problem(422);
    let said = service.said("is in quarantine").await;
    for secret in ["hunter2", "old-token", "new-token"] {
        assert!(!said.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn what_is_checked_first_is_what_is_answered() {
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
    service.send(json(b"no JSON")).await.problem(400);
    service.send(json(br#"{"projectId": "other"}"#)).await.problem(422);
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
async fn tokens_and_keys_are_read_again_on_sighup_and_stay_where_there_is_a_mistake() {
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

    // 400 is what an authentic delivery gets that is no JSON.
    let token = async |token: &str| {
        let request = post(&service, "partner", b"no JSON");
        service.send(request.header("Authorization", format!("Bearer {token}"))).await.status
    };
    let key = async |key: &str| {
        let request = post(&service, "production", b"no JSON");
        service.send(Signer::new(key).sign(request, b"no JSON", 0)).await.status
    };
    assert_eq!((token("old-token").await, token("new-token").await), (400, 401));
    assert_eq!((key("rsa-2048").await, key("rsa-3072").await), (400, 401));

    folder.write("token", "new-token\n");
    folder.copy_key("rsa-1024.spki", "recho.pem");
    service.hang_up();
    let said = service.said("tokens and keys stay as they are").await;
    assert!(said.contains("webhooks.production.public_keys[0]: is an RSA key of 1024 bits"));
    assert_eq!((token("old-token").await, token("new-token").await), (400, 401));
    assert_eq!((key("rsa-2048").await, key("rsa-3072").await), (400, 401));

    folder.copy_key("rsa-3072.spki", "recho.pem");
    service.hang_up();
    let said = service.said("tokens and keys were read again").await;
    assert!(!said.contains("take effect at the next start"));
    assert_eq!((token("old-token").await, token("new-token").await), (401, 400));
    assert_eq!((key("rsa-2048").await, key("rsa-3072").await), (401, 400));
    service.stop().await;
}

#[tokio::test]
async fn no_endpoint_is_opened_by_sighup() {
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
fn a_weak_key_is_refused_at_the_start() {
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

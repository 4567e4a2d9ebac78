//! What holds for every request: limits, request ids, response headers, hosts, origins, proxies.

use std::process::Command;

use serde_json::Value;

use crate::support::{Answer, Database, Service, callstate, delivery::fixture};

const HOUR: &str = "1h";

/// A service with these values of `[http]`, each as `KEY=value`.
async fn service(database: &Database, values: &[(&str, &str)]) -> Service {
    Service::start_with(database, |command| http(command, values)).await
}

fn http(command: &mut Command, values: &[(&str, &str)]) {
    for (key, value) in values {
        command.env(format!("CALLSTATE_HTTP_{key}"), value);
    }
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

#[tokio::test]
async fn a_slow_request_is_cut_off() {
    let database = Database::create().await;
    let limits = [("READ_TIMEOUT", "200ms"), ("IDLE_TIMEOUT", HOUR)];
    let service = service(&database, &limits).await;
    for slow in ["", "GET", "GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Slow"] {
        assert_eq!(service.raw(slow.as_bytes()).await, [], "{slow:?}");
    }
    // The same goes for the second request of a connection.
    let mut line = service.line().await;
    line.send(&get("/health/live", "")).await;
    assert_eq!(line.answer().await.status, 200);
    line.send(b"GET /health").await;
    line.closes().await;

    let body = "{\"eventType\": \"OUTBOUND_CALL_BUSY\"";
    let post = format!("POST /webhooks HTTP/1.1\r\nHost: c\r\nContent-Length: 500\r\n\r\n{body}");
    let answers = service.raw(post.as_bytes()).await;
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0].status, 408, "{answers:?}");
    assert!(answers[0].body.contains("urn:callstate:problem:too-slow"), "{answers:?}");
    service.get("/health/ready").await.ok();
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let database = Database::create().await;
    let limits = [("READ_TIMEOUT", HOUR), ("IDLE_TIMEOUT", "200ms")];
    let service = service(&database, &limits).await;
    let answers = service.raw(&get("/health/live", "")).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_the_response_is_cut_off() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        // Enough time for the delivery.
        http(command, &[("READ_TIMEOUT", "5s"), ("IDLE_TIMEOUT", HOUR)]);
        command.env("CALLSTATE_LOG", "info,callstate=debug");
        command.env("CALLSTATE_MAX_DELIVERY_BYTES", "20000000");
    })
    .await;
    // More than the socket buffers hold.
    let padding = "x".repeat(16_000_000);
    let delivery =
        format!(r#"{{"eventType": "OUTBOUND_CALL_BUSY", "callId": "long", "x": "{padding}"}}"#);
    service.deliver(delivery).await.ok();
    let mut line = service.narrow_line().await;
    line.send(&get("/calls/long/history?include=payload", "")).await;
    service.said("\"waits_for\":\"Reader\"").await;
    drop(line);
    service.get("/calls/long").await.ok();
}

#[tokio::test]
async fn a_response_that_takes_too_long_is_a_503() {
    use sqlx::{Connection as _, Executor as _, Row as _};

    let database = Database::create().await;
    let limits = [("READ_TIMEOUT", HOUR), ("ANSWER_TIMEOUT", "1s")];
    let service = service(&database, &limits).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    let mut conn = database.connect().await;
    let mut lock = conn.begin().await.unwrap();
    lock.execute("lock table calls in access exclusive mode").await.unwrap();
    let answer = service.get("/calls/out-08").await;
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), "1");
    // Postgres has canceled the query, so the connection is free.
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    let waiting: i64 = lock.fetch_one(waiting).await.unwrap().get(0);
    assert_eq!(waiting, 0);
    lock.rollback().await.unwrap();
    service.get("/calls/out-08").await.ok();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let database = Database::create().await;
    let service = service(&database, &[("MAX_CONNECTIONS", "1")]).await;
    let mut first = service.line().await;
    first.send(&get("/health/live", "")).await;
    assert_eq!(first.answer().await.status, 200);

    let mut second = service.line().await;
    second.send(&get("/health/live", "Connection: close\r\n")).await;
    first.send(&get("/metrics", "")).await;
    let metrics = first.answer().await.body;
    assert!(metrics.contains("\ncallstate_http_connections 1\n"), "{metrics}");
    assert!(second.is_silent());
    drop(first);
    assert_eq!(second.answer().await.status, 200);
    second.closes().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_connections_without_a_request() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let silent = service.line().await;
    let mut slow = service.line().await;
    slow.send(b"GET /health").await;
    let mut idle = service.line().await;
    idle.send(&get("/health/live", "")).await;
    assert_eq!(idle.answer().await.status, 200);
    idle.send(b"GET /health").await;
    let mut said = service.hears();
    service.stop().await;
    silent.closes().await;
    slow.closes().await;
    idle.closes().await;
    let said = said.wait_for(|said| said.contains("stopped")).await.unwrap();
    assert!(!said.contains("did not end"), "{}", *said);
}

#[tokio::test]
async fn a_url_or_headers_that_are_too_long_are_an_error() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let fits = format!("/calls/c?{}", "x".repeat(8 * 1024 - 8));
    service.get(&fits).await.problem(400);
    service.get(&format!("{fits}x")).await.problem(414);
    let long = format!("/webhooks/{}", "x".repeat(9000));
    service.deliver_to(&long, fixture("outbound_busy")).await.problem(414);
    for headers in [
        (0..100).fold(String::new(), |all, number| all + &format!("X-{number}: x\r\n")),
        format!("X-Long: {}\r\n", "x".repeat(64 * 1024)),
    ] {
        let answers = service.raw(&get("/health/live", &headers)).await;
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].status, 431);
    }
}

#[tokio::test]
async fn a_response_and_its_log_lines_have_the_request_id() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_LOG", "info,callstate=debug");
    })
    .await;
    let with_id = async |path: &str, id: &str| {
        service.send(service.request("GET", path).header("X-Request-Id", id)).await
    };
    let id_of = |answer: &Answer| answer.header("x-request-id").to_owned();

    assert_eq!(id_of(&with_id("/calls/nobody", "mine-1").await), "mine-1");
    let line = line_with(&service, "mine-1").await;
    assert_eq!((&line["request_id"], &line["status"]), (&"mine-1".into(), &404.into()));

    let mut made = Vec::new();
    for insane in ["", "a b", &"x".repeat(129)] {
        made.push(id_of(&with_id("/health/live", insane).await));
    }
    made.push(id_of(&service.get("/health/live").await));
    made.push(id_of(&service.deliver(fixture("outbound_busy")).await));
    assert!(made.iter().all(|id| !id.is_empty() && id.len() < 40), "{made:?}");
    line_with(&service, &made[4]).await;
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 5);

    let odd = service.request("POST", "/webhooks").header("X-Request-Id", "mine-2").body("no JSON");
    service.send(odd).await.quarantined();
    let line = line_with(&service, "mine-2").await;
    assert_eq!(line["message"], "a delivery is kept in the quarantine");
}

/// The first log line that contains the text.
async fn line_with(service: &Service, text: &str) -> Value {
    let said = service.said(text).await;
    let line = said.lines().find(|line| line.contains(text)).expect("it was said");
    serde_json::from_str(line).expect("a log line is JSON")
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let database = Database::create().await;
    let service = service(&database, &[]).await;
    let foreign = service.request("POST", "/webhooks").header("Origin", "https://evil.example");
    let answers = [
        service.deliver(fixture("outbound_busy")).await,
        service.deliver("no JSON").await,
        service.get("/calls/out-08").await,
        service.get("/calls/nobody").await,
        service.get("/calls/out-08?wrong").await,
        service.get("/nowhere").await,
        service.get("/webhooks").await,
        service.get("/metrics").await,
        service.get("/state-machine").await,
        service.send(service.request("PUT", "/calls/out-08")).await,
        service.send(service.request("HEAD", "/health/live")).await,
        service.send(foreign).await,
        service.get(&format!("/{}", "x".repeat(9000))).await,
    ];
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 202, 200, 404, 400, 404, 405, 200, 200, 405, 200, 403, 414]);
    for answer in answers {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            // A response with an ETag may be stored and revalidated.
            (
                "cache-control",
                if answer.header("etag").is_empty() { "no-store" } else { "private, no-cache" },
            ),
            ("server", ""),
            ("access-control-allow-origin", ""),
        ] {
            assert_eq!(answer.header(name), value, "{name} of {answer:?}");
        }
        assert!(!answer.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn http_1_1_without_one_valid_host_is_a_bad_request() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let get = |version: &str, hosts: &str| {
        format!("GET /health/live HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n")
    };
    for (version, hosts, status) in [
        ("1.1", "", 400),
        ("1.1", "Host: localhost\r\nHost: localhost\r\n", 400),
        ("1.1", "Host: a b\r\n", 400),
        ("1.1", "Host: localhost/calls\r\n", 400),
        ("1.1", "Host: user@localhost\r\n", 400),
        ("1.1", "Host: localhost:http\r\n", 400),
        ("1.1", "Host: localhost\r\n", 200),
        ("1.1", "Host:\r\n", 200),
        ("1.1", "Host: [::1]:8080\r\n", 200),
        ("1.0", "", 200),
    ] {
        let answers = service.raw(get(version, hosts).as_bytes()).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [status], "{version} {hosts:?}: {answers:?}");
    }
    let delivery = "POST /webhooks HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let answers = service.raw(delivery.as_bytes()).await;
    assert!(answers[0].body.contains("urn:callstate:problem:bad-host"), "{answers:?}");
}

#[tokio::test]
async fn without_keys_requests_are_answered_for_configured_hosts_only() {
    let database = Database::create().await;
    let service = service(&database, &[("HOSTS", "callstate.internal")]).await;
    let delivered = service.request("POST", "/webhooks").header("Host", "abc.tunnel.example");
    service.send(delivered.body(fixture("outbound_busy"))).await.ok();
    let ask = async |path: &str, host: &str| {
        service.send(service.request("GET", path).header("Host", host)).await
    };
    for ours in ["localhost:1", "127.0.0.1", "[::1]:8080", "callstate.internal"] {
        ask("/calls/out-08", ours).await.ok();
    }
    for path in ["/calls/out-08", "/calls/out-08/history", "/quarantine", "/metrics"] {
        ask(path, "evil.example:8080").await.problem(421);
    }
    for open in ["/health/live", "/health/ready", "/state-machine"] {
        ask(open, "evil.example:8080").await.ok();
    }

    // A key authenticates, so the host does not matter.
    let key = callstate(&[
        "keys",
        "create",
        "--name",
        "one",
        "--database-url",
        &database.url(),
        "--format",
        "json",
    ]);
    let key: Value = serde_json::from_slice(&key.stdout).unwrap();
    let request = service.request("GET", "/calls/out-08").header("Host", "evil.example");
    let request =
        request.header("Authorization", format!("Bearer {}", key["key"].as_str().unwrap()));
    service.send(request).await.ok();
}

#[tokio::test]
async fn with_insecure_every_host_is_accepted() {
    let database = Database::create().await;
    let service = Service::start_on("0.0.0.0:0", &database, |command| {
        command.arg("--insecure");
    })
    .await;
    let request = service.request("GET", "/calls/nobody").header("Host", "callstate.example");
    service.send(request).await.problem(404);
}

#[tokio::test]
async fn pages_of_foreign_origins_write_nothing_and_read_only_with_cors() {
    let database = Database::create().await;
    let post = async |service: &Service, path: &str, origin: &str| {
        let request = service.request("POST", path).header("Origin", origin);
        service.send(request.body(fixture("outbound_busy"))).await
    };
    let preflight = |service: &Service| {
        service
            .request("OPTIONS", "/calls/out-08")
            .header("Origin", "https://grafana.example")
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "authorization")
    };
    let replay = "/quarantine/00000000-0000-0000-0000-000000000000/replay";

    let closed = service(&database, &[]).await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1", "https://grafana.example"]
    {
        post(&closed, "/webhooks", origin).await.problem(403);
        post(&closed, replay, origin).await.problem(403);
    }
    post(&closed, "/webhooks", closed.base_url()).await.ok();
    post(&closed, replay, closed.base_url()).await.problem(404);
    let rejected = closed.send(preflight(&closed)).await;
    assert_eq!((rejected.status, rejected.header("access-control-allow-origin")), (405, ""));

    let origins = "https://grafana.example,http://localhost:3000";
    let open = service(&database, &[("CORS_ORIGINS", origins)]).await;
    let allowed = open.send(preflight(&open)).await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://grafana.example");
    assert_eq!(allowed.header("access-control-allow-credentials"), "");
    assert!(allowed.header("access-control-allow-headers").contains("authorization"));
    let ask = async |origin: &str| {
        open.send(open.request("GET", "/calls/out-08").header("Origin", origin)).await
    };
    let answer = ask("http://localhost:3000").await;
    assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:3000");
    assert!(answer.header("access-control-expose-headers").contains("x-request-id"));
    for other in ["https://evil.example", "https://grafana.example.evil.example", "null"] {
        assert_eq!(ask(other).await.header("access-control-allow-origin"), "", "{other}");
    }
    post(&open, "/webhooks", "https://grafana.example").await.ok();
    post(&open, "/webhooks", "https://evil.example").await.problem(403);
}

#[tokio::test]
async fn rejected_requests_are_logged_with_the_client_that_trusted_proxies_report() {
    let database = Database::create().await;
    let logged_client = async |proxies: &[(&str, &str)], chain: &str| {
        let service = Service::start_with(&database, |command| {
            http(command, proxies);
            command.args(["--require-key"]).env("RECHO_WEBHOOK_TOKEN", "token");
        })
        .await;
        let request = |method, path| service.request(method, path).header("X-Forwarded-For", chain);
        service.send(request("POST", "/webhooks").body("{}")).await.problem(401);
        let delivery = line_with(&service, "a delivery is not authentic").await;
        service.send(request("GET", "/calls/c")).await.problem(401);
        let question = line_with(&service, "no key").await;
        assert_eq!(delivery["client"], question["client"]);
        assert!(delivery["request_id"].is_string() && question["request_id"].is_string());
        delivery["client"].as_str().unwrap().to_owned()
    };
    let chain = "198.51.100.7, 192.0.2.1, 10.0.0.1";
    assert_eq!(logged_client(&[], chain).await, "127.0.0.1");
    let trusted = [("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")];
    assert_eq!(logged_client(&trusted, chain).await, "192.0.2.1");
    assert_eq!(logged_client(&trusted, "198.51.100.7, nonsense").await, "127.0.0.1");
}

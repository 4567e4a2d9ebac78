//! Responses that are sent before the body is read, and the bound on the bytes of bodies that are held for senders that
//! are not authenticated yet.

use std::process::Command;

use crate::support::{Database, RawAnswer, Service, delivery::delivery, key_path};

const MEGABYTE: usize = 1024 * 1024;

/// `bearer`, with the token `token`; `signed`; and `open`.
fn endpoints(command: &mut Command) {
    command
        .env("CALLSTATE_WEBHOOKS_BEARER_AUTH", "bearer")
        .env("CALLSTATE_WEBHOOKS_BEARER_TOKENS", "token")
        .env("CALLSTATE_WEBHOOKS_SIGNED_AUTH", "rsa-sha256")
        .env(
            "CALLSTATE_WEBHOOKS_SIGNED_PUBLIC_KEYS",
            format!("file:{}", key_path("rsa-2048.certificate")),
        )
        .env("CALLSTATE_WEBHOOKS_OPEN_AUTH", "none")
        // Longer than any test here waits, so that no response is a timeout.
        .env("CALLSTATE_HTTP_READ_TIMEOUT", "20s");
}

/// The headers of a signature that is well-formed and wrong, so that the body is read.
const SIGNATURE: &str = "X-Recho-Timestamp: 1\r\nX-Recho-Signature: AAAA\r\n";

/// The head of a request, with more headers.
fn head(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

fn post(endpoint: &str, length: impl std::fmt::Display, headers: &str) -> String {
    let headers = format!("Content-Length: {length}\r\n{headers}");
    head("POST", &format!("/webhooks/{endpoint}"), &headers)
}

/// Checks the status of the only response, and that it announces the end of the connection.
fn is_last(answers: &[RawAnswer], status: u16) {
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [status], "{answers:?}");
    assert!(answers[0].head.contains("\r\nconnection: close"), "{answers:?}");
    let problem: serde_json::Value = serde_json::from_str(&answers[0].body).unwrap();
    assert_eq!(problem["status"], status);
}

#[tokio::test]
async fn what_the_headers_decide_is_answered_before_the_body_is_read() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    let wrong = "Authorization: Bearer wrong\r\n";
    let chunked = |headers: &str| {
        head("POST", "/webhooks/bearer", &format!("Transfer-Encoding: chunked\r\n{headers}"))
    };
    for (head, status) in [
        (post("nowhere", 1000, ""), 404),
        (head("PUT", "/webhooks/bearer", "Content-Length: 1000\r\n"), 405),
        (post("bearer", MEGABYTE + 1, "Authorization: Bearer token\r\n"), 413),
        (post("open", MEGABYTE + 1, "Expect: 100-continue\r\n"), 413),
        (post("bearer", 1000, ""), 401),
        (post("bearer", 1000, wrong), 401),
        (post("bearer", 1000, "Expect: 100-continue\r\n"), 401),
        (post("signed", 1000, ""), 401),
        (post("signed", 1000, "X-Recho-Timestamp: 1\r\n"), 401),
        (post("signed", 1000, "X-Recho-Timestamp: 1\r\nX-Recho-Signature: ?\r\n"), 401),
        (chunked(""), 401),
        (chunked(wrong), 401),
        (post("open", 1000, "Origin: https://evil.example\r\n"), 403),
    ] {
        is_last(&service.raw(head.as_bytes()).await, status);
    }
}

#[tokio::test]
async fn an_early_response_reaches_a_client_that_is_still_sending() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    let body = "x".repeat(6 * MEGABYTE);
    for (head, status) in [
        (post("open", body.len(), ""), 413),
        (post("signed", body.len(), SIGNATURE), 413),
        (post("bearer", MEGABYTE, ""), 401),
        (post("nowhere", body.len(), ""), 404),
    ] {
        let length = if status == 401 { MEGABYTE } else { body.len() };
        is_last(&service.raw(format!("{head}{}", &body[..length]).as_bytes()).await, status);
    }
    // The size of a chunked body is known only while it is read.
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let chunked = head("POST", "/webhooks/open", "Transfer-Encoding: chunked\r\n");
    is_last(&service.raw(format!("{chunked}{chunks}").as_bytes()).await, 413);
    // hyper rejects this one itself.
    let long = format!("GET / HTTP/1.1\r\nHost: c\r\nX-Long: {}\r\n\r\n", "x".repeat(2 * MEGABYTE));
    let answers = service.raw(long.as_bytes()).await;
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0].status, 431);
}

#[tokio::test]
async fn a_length_beyond_the_limit_is_too_large_however_many_digits_it_has() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    for length in [
        "1048577",
        "99999999999999",
        "9223372036854775808",
        "18446744073709551614",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999",
        &"9".repeat(200),
        &format!("000{}", "1".repeat(30)),
    ] {
        is_last(&service.raw(post("open", length, "").as_bytes()).await, 413);
    }
    // Leading zeros do not make a number large.
    let zeros = format!("{}2", "0".repeat(40));
    let request = post("open", zeros, "Connection: close\r\n") + "{}";
    let answers = service.raw(request.as_bytes()).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].status, 202);
    // The same text in a body is not changed.
    let text = format!("\r\nContent-Length: {}\r\n", "9".repeat(40));
    let name = "early";
    let mut body = delivery("OUTBOUND_CALL_BUSY", name, 0, None).to_string();
    body.insert_str(1, &text);
    let request = post("open", body.len(), "Connection: close\r\n") + &body;
    service.raw(request.as_bytes()).await;
    let kept = sqlx::query_scalar!("select body from quarantine order by first_received_at, id")
        .fetch_all(&database.pool().await)
        .await
        .unwrap();
    assert!(kept.contains(&body.into_bytes()), "{kept:?}");
}

#[tokio::test]
async fn a_connection_goes_on_after_a_body_that_was_read() {
    let database = Database::create().await;
    let service = Service::start_with(&database, endpoints).await;
    let mut line = service.line().await;
    for (number, headers) in ["Authorization: Bearer token\r\n"; 3].into_iter().enumerate() {
        let body = delivery("OUTBOUND_CALL_BUSY", &format!("call-{number}"), 0, None).to_string();
        line.send(post("bearer", body.len(), headers).as_bytes()).await;
        line.send(body.as_bytes()).await;
        let answer = line.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.head.contains("connection: close"), "{answer:?}");
    }
}

#[tokio::test]
async fn bodies_of_unauthenticated_senders_are_bounded_together() {
    const GAUGE: &str = "callstate_http_unauthenticated_body_bytes";
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        endpoints(command);
        command
            .env("CALLSTATE_MAX_DELIVERY_BYTES", "4096")
            .env("CALLSTATE_HTTP_MAX_UNAUTHENTICATED_BYTES", "8192");
    })
    .await;
    let (mut first, mut second) = (service.line().await, service.line().await);
    first.send(post("signed", 4096, SIGNATURE).as_bytes()).await;
    first.send(&[b' '; 4095]).await;
    second.send(post("open", 4096, "").as_bytes()).await;
    service.counts(GAUGE, 8192).await;

    let rejected = service.raw(post("signed", 1, SIGNATURE).as_bytes()).await;
    is_last(&rejected, 503);
    assert!(rejected[0].head.contains("\r\nretry-after: 1"), "{rejected:?}");
    // A body of an authenticated sender does not count.
    let body = delivery("OUTBOUND_CALL_BUSY", "call-1", 0, None).to_string();
    let proved = service.request("POST", "/webhooks/bearer").body(body);
    service.send(proved.bearer_auth("token")).await.ok();

    first.send(b" ").await;
    assert_eq!(first.answer().await.status, 401);
    service.counts(GAUGE, 4096).await;
    let unsigned = service.request("POST", "/webhooks/signed").body("{}");
    let unsigned = unsigned.header("X-Recho-Timestamp", "1").header("X-Recho-Signature", "AAAA");
    service.send(unsigned).await.problem(401);
    drop(second);
    service.counts(GAUGE, 0).await;
}

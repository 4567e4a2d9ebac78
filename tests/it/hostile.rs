//! Malformed and hostile requests: each has an exact status, and none affects the requests after it.

use std::collections::BTreeSet;

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::Value;

use crate::{
    fuzzing::odd_delivery,
    support::{Database, RawAnswer, Service, callstate, delivery::fixture},
};

/// What a value is where an identifier is expected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Name,
    Number,
    Neither,
    /// A missing value as an identifier, and no event type.
    Blank,
    /// A missing value as an identifier, and an unrecognized event type.
    Placeholder,
    /// Nested too deep for any field.
    TooDeep,
}

/// Values for every field.
fn odd_values() -> Vec<(String, Kind)> {
    let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
    let quoted = |text: &str| format!("\"{text}\"");
    vec![
        ("null".to_owned(), Kind::Null),
        ("true".to_owned(), Kind::Neither),
        ("5".to_owned(), Kind::Number),
        ("-0.0".to_owned(), Kind::Number),
        ("1e400".to_owned(), Kind::Number),
        ("9".repeat(255), Kind::Number),
        ("9".repeat(300), Kind::Neither),
        (quoted("x"), Kind::Name),
        (quoted(""), Kind::Blank),
        (quoted("undefined"), Kind::Placeholder),
        (quoted(&"é".repeat(255)), Kind::Name),
        (quoted(&"é".repeat(300)), Kind::Neither),
        (quoted("a\\u0000"), Kind::Neither),
        (quoted("a\\nb"), Kind::Neither),
        (quoted("\\u0085"), Kind::Blank),
        (quoted("\\ud800"), Kind::Neither),
        ("[]".to_owned(), Kind::Neither),
        ("{\"a\": 1, \"a\": 2}".to_owned(), Kind::Neither),
        (nested(400), Kind::Neither),
        (nested(512), Kind::TooDeep),
        (nested(100_000), Kind::TooDeep),
    ]
}

/// The answer that a delivery must get of which one field was replaced.
fn expected(path: &str, kind: Kind) -> u16 {
    let is_usable = match path {
        "/eventType" => matches!(kind, Kind::Name | Kind::Placeholder),
        "/projectId" => !matches!(kind, Kind::Neither | Kind::TooDeep),
        "/body/data/callId" => matches!(kind, Kind::Name | Kind::Number),
        // They contain the call id.
        "/body" | "/body/data" => false,
        _ => true,
    };
    match (kind, is_usable) {
        (Kind::TooDeep, _) | (_, false) => 202,
        (_, true) => 200,
    }
}

/// The paths of all members, as JSON pointers.
fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut note = |name: &str, inner: &Value| {
        let path = format!("{at}/{name}");
        paths(inner, &path, found);
        found.push(path);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, inner)| note(name, inner)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| note(&index.to_string(), item));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The bodies that are kept in quarantine.
async fn kept(database: &Database) -> BTreeSet<Vec<u8>> {
    let bodies = sqlx::query_scalar!("select body from quarantine order by first_received_at, id");
    bodies.fetch_all(&database.pool().await).await.unwrap().into_iter().collect()
}

/// Checks that the service still accepts deliveries, and that the stored calls are correct.
async fn still_serves(service: &Service, database: &Database) {
    service.get("/health/ready").await.ok();
    service.deliver(fixture("inbound_completed")).await.ok();
    let verified = callstate(&["verify", "--database-url", &database.url()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test]
async fn a_delivery_with_any_value_in_any_field_is_accepted_or_quarantined() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let sample: Value = serde_json::from_slice(&fixture("outbound_error")).unwrap();
    let mut all = Vec::new();
    paths(&sample, "", &mut all);
    assert!(all.len() > 20, "{all:?}");
    let mut unreadable = BTreeSet::new();
    for path in &all {
        let mut holed = sample.clone();
        *holed.pointer_mut(path).unwrap() = "HERE".into();
        let holed = holed.to_string();
        for (value, kind) in odd_values() {
            let body = holed.replace("\"HERE\"", &value).into_bytes();
            let answer = service.deliver(body.clone()).await;
            let shown: String = value.chars().take(40).collect();
            assert_eq!(answer.status, expected(path, kind), "{path} is {shown}: {}", answer.text);
            if answer.status != 200 {
                unreadable.insert(body);
            }
        }
    }
    assert_eq!(kept(&database).await, unreadable);
    still_serves(&service, &database).await;
}

#[tokio::test]
async fn a_delivery_with_odd_values_in_all_fields_is_accepted_or_quarantined() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut runner = TestRunner::deterministic();
    let mut unreadable = BTreeSet::new();
    for _ in 0..200 {
        let body = odd_delivery().new_tree(&mut runner).unwrap().current().into_bytes();
        match service.deliver(body.clone()).await.status {
            200 => {}
            202 => drop(unreadable.insert(body)),
            other => panic!("{other}: {}", String::from_utf8_lossy(&body)),
        }
    }
    assert!(!unreadable.is_empty());
    assert_eq!(kept(&database).await, unreadable);
    still_serves(&service, &database).await;
}

#[tokio::test]
async fn a_body_that_is_not_json_is_quarantined_byte_for_byte() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    // `{}` in gzip, without the header that says so.
    let gzip =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let utf_16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let brackets = vec![b'['; 1024 * 1024];
    let bodies: [&[u8]; 14] = [
        b"",
        b" ",
        b"\0",
        gzip,
        &utf_16,
        b"\xef\xbb\xbf{}",
        b"\xff",
        b"{\"eventType\": \"\xc3\x28\"}",
        b"{} {}",
        b"{\"a\": 01}",
        b"{\"a\": NaN}",
        b"{'a': 1}",
        b"{\"a\": \"\x01\"}",
        &brackets,
    ];
    for body in bodies {
        service.deliver(body).await.quarantined();
    }
    assert_eq!(kept(&database).await, bodies.into_iter().map(<[u8]>::to_vec).collect());
    still_serves(&service, &database).await;
}

#[tokio::test]
async fn the_stored_errors_of_a_delivery_are_bounded() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let errors = vec!["0"; 500_000].join(",");
    let body = format!(
        "{{\"eventType\": \"OUTBOUND_CALL_ERROR\", \"callId\": \"c\", \"body\": {{\"errors\": [{errors}]}}}}"
    );
    service.deliver(body.clone()).await.ok();
    let call = service.get("/calls/c").await.ok();
    assert_eq!(call["errors"].as_array().unwrap().len(), 1000);
    assert_eq!(call["errors"][0]["message"], "0");
    let history = service.get("/calls/c/history?include=payload").await;
    assert!(history.text.contains(&body), "the payload is complete");
    still_serves(&service, &database).await;
}

#[tokio::test]
async fn a_forged_cursor_is_a_bad_request_or_another_position() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    for microseconds in [
        i64::MIN,
        i64::MIN + 1,
        -300_000_000_000_000_000,
        -210_000_000_000_000_000,
        0,
        i64::MAX - 1,
        i64::MAX,
    ] {
        for (path, rest) in [("/calls/out-08/history", 34), ("/quarantine", 16)] {
            for byte in [0, 255] {
                let bytes = [&microseconds.to_be_bytes()[..], &vec![byte; rest]].concat();
                let cursor = URL_SAFE_NO_PAD.encode(bytes);
                let answer = service.get(&format!("{path}?cursor={cursor}")).await;
                assert!([200, 400].contains(&answer.status), "{path} {microseconds}: {answer:?}");
            }
        }
    }
    still_serves(&service, &database).await;
}

/// A delivery as bytes on a socket.
fn post(headers: &str, body: &str) -> String {
    format!("POST /webhooks HTTP/1.1\r\nHost: callstate\r\n{headers}\r\n{body}")
}

fn whole(headers: &str, body: &str) -> String {
    post(&format!("Content-Length: {}\r\n{headers}", body.len()), body)
}

fn event(call_id: &str) -> String {
    format!("{{\"eventType\": \"OUTBOUND_CALL_BUSY\", \"callId\": \"{call_id}\"}}")
}

fn statuses(answers: &[RawAnswer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut all = String::new();
    for number in 0..20 {
        all += &whole("", &event(&format!("piped-{number}")));
        all += &whole("", &format!("[{number}"));
    }
    all += &whole("Connection: close\r\n", &event("piped-20"));
    let answers = service.raw(all.as_bytes()).await;
    assert_eq!(answers.len(), 41);
    for (place, answer) in answers.iter().enumerate() {
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        if place % 2 == 0 {
            assert_eq!((answer.status, &body["status"]), (200, &"BUSY".into()), "{answer:?}");
            assert_eq!(body["call_id"], format!("piped-{}", place / 2));
        } else {
            assert_eq!(answer.status, 202, "{answer:?}");
        }
    }
    assert_eq!(kept(&database).await.len(), 20);
    still_serves(&service, &database).await;
}

#[tokio::test]
async fn a_wrong_content_length_affects_its_own_connection_only() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let body = event("liar");

    // Too short: the rest of the body is not a request.
    let answers = service.raw(post("Content-Length: 10\r\n", &body).as_bytes()).await;
    assert_eq!(statuses(&answers), [202, 400], "{answers:?}");
    assert_eq!(kept(&database).await, BTreeSet::from([body.as_bytes()[..10].to_vec()]));

    // Too long: the body ends early.
    let answers = service.raw_to_its_end(post("Content-Length: 1000\r\n", &body).as_bytes()).await;
    assert_eq!(statuses(&answers), [400], "{answers:?}");

    for lie in ["-1", "+5", "5 5", "0x10", "five", "5\r\nContent-Length: 6"] {
        let answers =
            service.raw(post(&format!("Content-Length: {lie}\r\n"), &body).as_bytes()).await;
        assert_eq!(statuses(&answers), [400], "{lie}: {answers:?}");
    }
    for chunks in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n{}",
        "2\r\n{}xx0\r\n\r\n",
    ] {
        let answers = service.raw(post("Transfer-Encoding: chunked\r\n", chunks).as_bytes()).await;
        assert_eq!(statuses(&answers), [400], "{chunks:?}: {answers:?}");
    }
    // With both headers the chunks count, and what follows them is not a request.
    let smuggled = "0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: callstate\r\n\r\n";
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    let answers = service.raw(post(both, smuggled).as_bytes()).await;
    assert_eq!(statuses(&answers), [202], "{answers:?}");
    assert!(answers[0].body.contains("the body is empty"), "{answers:?}");

    let events = sqlx::query_scalar!(r#"select count(*) as "count!" from events"#)
        .fetch_one(&database.pool().await)
        .await
        .unwrap();
    assert_eq!(events, 0);
    still_serves(&service, &database).await;
}

#[tokio::test]
async fn malformed_http_is_an_error_and_closes_the_connection() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let get =
        |headers: &str| format!("GET /health/live HTTP/1.1\r\nHost: callstate\r\n{headers}\r\n");
    let many = (0..200).fold(String::new(), |many, number| many + &format!("X-{number}: x\r\n"));
    for (bytes, status) in [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        (b"\0\0\0\0\r\n\r\n".to_vec(), 400),
        (b"nonsense\r\n\r\n".to_vec(), 400),
        (b"GET /health/live HTTP/9.9\r\n\r\n".to_vec(), 400),
        (b"G\x01T / HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET /\xff\x00 HTTP/1.1\r\n\r\n".to_vec(), 400),
        (get("no colon\r\n").into_bytes(), 400),
        (get("na me: x\r\n").into_bytes(), 400),
        (get("name: a\0b\r\n").into_bytes(), 400),
        (get(": x\r\n").into_bytes(), 400),
        (get(" folded: x\r\n").into_bytes(), 400),
        (get(&many).into_bytes(), 431),
        (get(&format!("X-Long: {}\r\n", "x".repeat(64 * 1024))).into_bytes(), 431),
        (get(&format!("X-Long: {}\r\n", "x".repeat(1024 * 1024))).into_bytes(), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: c\r\n\r\n", "x".repeat(70_000)).into_bytes(), 431),
    ] {
        let answers = service.raw(&bytes).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert_eq!(statuses(&answers), [status], "{shown:?}");
    }
    // A header that is not used may contain bytes that are not UTF-8.
    let odd =
        b"GET /health/live HTTP/1.1\r\nHost: c\r\nConnection: close\r\nX-Odd: \xff\xfe\r\n\r\n";
    assert_eq!(statuses(&service.raw(odd).await), [200]);
    still_serves(&service, &database).await;
}

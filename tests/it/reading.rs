//! How leniently a delivery is read: identifiers, the `Time:` line, encodings of the body.

use chrono::{NaiveDateTime, TimeDelta};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::support::{
    Answer, Database, Service, callstate,
    delivery::delivery,
    encoding::{bare_deflate, brotli, gzip, zlib, zstd},
};

/// The cases of `tests/fixtures/cases/reading.json`.
fn cases() -> Value {
    serde_json::from_str(include_str!("../fixtures/cases/reading.json")).expect("it is JSON")
}

fn list(value: &Value) -> &[Value] {
    let list = value.as_array().expect("a list");
    assert!(!list.is_empty());
    list
}

/// A delivery whose `body.text` is this.
fn with_text(call_id: &str, text: &str) -> String {
    let mut body = delivery("OUTBOUND_CALL_CALLING", call_id, 0, None);
    body["body"]["text"] = text.into();
    body.to_string()
}

async fn event(service: &Service, call_id: &str) -> Value {
    service.get(&format!("/calls/{call_id}/history")).await.ok()["events"][0].take()
}

#[tokio::test]
async fn identifiers_are_trimmed_and_placeholders_are_missing_values() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (number, case) in list(&cases()["identifier"]).iter().enumerate() {
        let (given, read) = (&case["given"], &case["read"]);
        let call_id = format!("optional-{number}");
        let mut body = delivery("OUTBOUND_CALL_CALLING", &call_id, 0, None);
        body["body"]["data"]["callSid"] = given.clone();
        body["body"]["data"]["clientId"] = given.clone();
        service.deliver(body.to_string()).await.ok();
        let call = service.get(&format!("/calls/{call_id}")).await.ok();
        assert_eq!((&call["call_sid"], &call["client_id"]), (read, read), "{given}");

        body["body"]["data"]["callId"] = given.clone();
        let answer = service.deliver(body.to_string()).await;
        if read.is_null() {
            let reason = answer.quarantined()["reason"].as_str().unwrap().to_owned();
            assert!(reason.starts_with("body.data.callId is missing: it is "), "{reason}");
        } else {
            assert_eq!(answer.ok()["call_id"], *read, "{given}");
        }
    }
}

#[tokio::test]
async fn a_project_id_has_one_form_in_deliveries_configuration_and_queries() {
    let database = Database::create().await;
    let cases = cases();
    let cases = list(&cases["project_id"]);
    let given: Vec<&str> = cases.iter().map(|case| case["given"].as_str().unwrap()).collect();
    let service = Service::start_with(&database, |command| {
        command
            .env("CALLSTATE_WEBHOOKS_DEFAULT_AUTH", "none")
            .env("CALLSTATE_WEBHOOKS_DEFAULT_PROJECTS", given.join(","));
    })
    .await;
    for (case, given) in cases.iter().zip(given) {
        let read = &case["read"];
        let mut body = delivery("OUTBOUND_CALL_CALLING", "c", 0, None);
        body["projectId"] = given.into();
        let answer = service.deliver(body.to_string()).await.ok();
        assert_eq!((&answer["project_id"], &answer["disposition"]), (read, &json!("advanced")));
        // The same event, in the form in which it is stored.
        body["projectId"] = read.clone();
        assert_eq!(service.deliver(body.to_string()).await.ok()["project_id"], *read);
        let in_query = given.trim();
        let found = service.get(&format!("/calls/c?project_id={in_query}")).await.ok();
        assert_eq!(found["project_id"], *read);
    }
    let mut body = delivery("OUTBOUND_CALL_CALLING", "c", 0, None);
    body["projectId"] = "other".into();
    service.deliver(body.to_string()).await.problem(403);
}

#[tokio::test]
async fn a_delivery_without_a_project_is_of_the_default_project_of_its_endpoint() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command
            .env("CALLSTATE_WEBHOOKS_DEFAULT_AUTH", "none")
            .env("CALLSTATE_WEBHOOKS_ACME_AUTH", "none")
            .env("CALLSTATE_WEBHOOKS_ACME_DEFAULT_PROJECT", " ACME-1 ")
            .env("CALLSTATE_WEBHOOKS_UUID_AUTH", "none")
            .env("CALLSTATE_WEBHOOKS_UUID_DEFAULT_PROJECT", "3C9ACFB1-C6B7-4BBC-B6C3-628AF54D56C1")
            .env("CALLSTATE_WEBHOOKS_LIMITED_AUTH", "none")
            .env("CALLSTATE_WEBHOOKS_LIMITED_DEFAULT_PROJECT", "not-accepted")
            .env("CALLSTATE_WEBHOOKS_LIMITED_PROJECTS", "accepted");
    })
    .await;
    let send = async |endpoint: &str, project_id: Value| -> Answer {
        let mut body = delivery("OUTBOUND_CALL_CALLING", "c", 0, None);
        body["projectId"] = project_id;
        service.deliver_to(&format!("/webhooks/{endpoint}"), body.to_string()).await
    };
    for missing in [Value::Null, json!(""), json!(" "), json!("undefined"), json!("NaN")] {
        for (endpoint, project_id) in [
            ("default", "default"),
            ("acme", "ACME-1"),
            ("uuid", "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1"),
        ] {
            let answer = send(endpoint, missing.clone()).await.ok();
            assert_eq!(answer["project_id"], project_id, "{missing} to {endpoint}");
        }
        send("limited", missing).await.problem(403);
    }
    assert_eq!(send("acme", json!("named")).await.ok()["project_id"], "named");
    assert_eq!(send("limited", json!("accepted")).await.ok()["project_id"], "accepted");
}

#[tokio::test]
async fn the_time_line_is_read_in_the_provider_time_zone() {
    let cases = cases();
    let cases = list(&cases["time_line"]);
    let mut zones: Vec<&str> = cases.iter().map(|case| case["zone"].as_str().unwrap()).collect();
    zones.sort_unstable();
    zones.dedup();
    assert!(zones.len() > 2, "{zones:?}");
    for zone in zones {
        let database = Database::create().await;
        let service = Service::start_with(&database, |command| {
            command.env("CALLSTATE_PROVIDER_TIME_ZONE", zone);
        })
        .await;
        for (number, case) in cases.iter().enumerate().filter(|(_, case)| case["zone"] == zone) {
            let call_id = format!("call-{number}");
            let line = case["line"].as_str().unwrap();
            let text = format!("[Recho] call\nTime: 2026-01-01 00:00:00\n{line}\ncallId: c\n");
            service.deliver(with_text(&call_id, &text)).await.ok();
            let event = event(&service, &call_id).await;
            assert_eq!(event["occurred_at"], case["occurred_at"], "{line} in {zone}");
            assert_eq!(event["time_problem"].is_null(), event["occurred_at"].is_string(), "{line}");
        }
    }
}

#[tokio::test]
async fn the_provider_time_zone_may_be_an_offset_and_an_option_of_the_command_line() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.args(["--provider-time-zone", "-05:30"]);
    })
    .await;
    service.deliver(with_text("c", "Time: 2026-05-12 10:00:00")).await.ok();
    assert_eq!(event(&service, "c").await["occurred_at"], "2026-05-12T15:30:00Z");
}

#[tokio::test]
async fn a_replay_reads_the_time_line_and_the_project_by_the_present_configuration() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let body = r#"{"eventType": "OUTBOUND_CALL_BUSY", "body": {"text": "Time: 2026-05-12 10:00"}}"#;
    let entry = service.deliver(body).await.quarantined();
    service.stop().await;
    let corrected = body.replace(r#""body": {"#, r#""callId": "c", "body": {"#);
    sqlx::query!("update quarantine set body = $1", corrected.as_bytes())
        .execute(&database.pool().await)
        .await
        .unwrap();
    let service = Service::start_with(&database, |command| {
        command
            .env("CALLSTATE_PROVIDER_TIME_ZONE", "Asia/Seoul")
            .env("CALLSTATE_WEBHOOKS_DEFAULT_AUTH", "none")
            .env("CALLSTATE_WEBHOOKS_DEFAULT_DEFAULT_PROJECT", "acme");
    })
    .await;
    let id = entry["quarantine_id"].as_str().unwrap();
    let replayed = service.request("POST", &format!("/quarantine/{id}/replay"));
    assert_eq!(service.send(replayed).await.ok()["project_id"], "acme");
    assert_eq!(event(&service, "c").await["occurred_at"], "2026-05-12T01:00:00Z");
}

#[tokio::test]
async fn a_time_that_is_not_used_is_counted_logged_and_shown_with_its_event() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (call_id, text, occurred_at, problem) in [
        ("read", "Time: 2026-05-12 10:00:00", json!("2026-05-12T10:00:00Z"), Value::Null),
        ("missing", "no such line", Value::Null, Value::Null),
        ("unreadable", "Time: half past ten", Value::Null, json!("unreadable")),
        ("implausible", "Time: 2999-01-01 00:00:00", Value::Null, json!("implausible")),
        ("too-early", "Time: 1999-12-31 23:59:59", Value::Null, json!("implausible")),
    ] {
        let body = with_text(call_id, text);
        service.deliver(body.clone()).await.ok();
        // A duplicate has the same event, and its time is not counted again.
        assert_eq!(service.deliver(body).await.ok()["disposition"], "duplicate");
        let event = event(&service, call_id).await;
        assert_eq!((&event["occurred_at"], &event["time_problem"]), (&occurred_at, &problem));
        let effective_at = if occurred_at.is_null() { &event["received_at"] } else { &occurred_at };
        assert_eq!(&event["effective_at"], effective_at, "{call_id}");
    }
    let metrics = service.get("/metrics").await.text;
    for (result, count) in [("read", 1), ("missing", 1), ("unreadable", 1), ("implausible", 2)] {
        let counter = format!("\ncallstate_event_times_total{{result=\"{result}\"}} {count}\n");
        assert!(metrics.contains(&counter), "{counter}: {metrics}");
    }
    // Once an hour for each cause, so the second implausible time is not logged.
    let log = service.said("\"cause\":\"implausible\"").await;
    assert!(log.contains("\"cause\":\"unreadable\""), "{log}");
    assert!(log.contains("half past ten") && log.contains("2999-01-01 00:00:00"), "{log}");
    assert!(!log.contains("1999-12-31"), "{log}");
}

/// Encodes a body.
type Encode = fn(&[u8]) -> Vec<u8>;

/// Sends a body with these `Content-Encoding` headers.
async fn send_encoded(service: &Service, encodings: &[&str], body: Vec<u8>) -> Answer {
    let mut request = service.request("POST", "/webhooks").header(CONTENT_TYPE, "application/json");
    for encoding in encodings {
        request = request.header(CONTENT_ENCODING, *encoding);
    }
    service.send(request.body(body)).await
}

#[tokio::test]
async fn an_encoded_body_is_decoded_and_stored_as_plain_text() {
    const ENCODINGS: [(&[&str], Encode); 10] = [
        (&["gzip"], gzip),
        (&["x-gzip"], gzip),
        (&["GZIP"], gzip),
        (&["deflate"], zlib),
        (&["deflate"], bare_deflate),
        (&["br"], brotli),
        (&["zstd"], zstd),
        (&["identity"], <[u8]>::to_vec),
        (&["gzip, br"], |body| brotli(&gzip(body))),
        (&["deflate", "zstd"], |body| zstd(&zlib(body))),
    ];
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (number, (encodings, encode)) in ENCODINGS.into_iter().enumerate() {
        let call_id = format!("call-{number}");
        let body = delivery("OUTBOUND_CALL_CALLING", &call_id, 0, None).to_string();
        let answer = send_encoded(&service, encodings, encode(body.as_bytes())).await;
        assert_eq!(answer.ok()["disposition"], "advanced", "{encodings:?}");
        let history = service.get(&format!("/calls/{call_id}/history?include=payload")).await;
        assert!(history.text.contains(&body), "{encodings:?}: {}", history.text);
        // It is the same event as without an encoding.
        assert_eq!(service.deliver(body).await.ok()["disposition"], "duplicate");
    }
}

#[tokio::test]
async fn an_unknown_encoding_is_answered_415_and_nothing_is_stored() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let body = delivery("OUTBOUND_CALL_CALLING", "c", 0, None).to_string();
    for encodings in
        [&["compress"][..], &["gzip;q=1"], &["gzip", "aes128gcm"], &["gzip, gzip, gzip, gzip"]]
    {
        let answer = send_encoded(&service, encodings, body.clone().into_bytes()).await;
        let detail = answer.problem(415);
        assert!(detail.contains("gzip, deflate, br, zstd"), "{detail}");
    }
    service.get("/calls/c").await.problem(404);
    assert_eq!(service.get("/quarantine").await.ok()["quarantine"], json!([]));
}

#[tokio::test]
async fn the_size_limit_holds_before_and_after_decoding() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_MAX_DELIVERY_BYTES", "4096");
    })
    .await;
    let of_size = |size: usize| {
        let mut body = delivery("OUTBOUND_CALL_CALLING", "c", 0, None);
        body["padding"] = "".into();
        let rest = size - body.to_string().len();
        body["padding"] = "x".repeat(rest).into();
        body.to_string().into_bytes()
    };
    let encodings: [(&str, Encode); 3] = [("gzip", gzip), ("deflate", zlib), ("zstd", zstd)];
    for (name, encode) in encodings {
        send_encoded(&service, &[name], encode(&of_size(4096))).await.ok();
        let too_large = encode(&of_size(4097));
        assert!(too_large.len() < 4096, "only the decoded body is too large");
        send_encoded(&service, &[name], too_large).await.problem(413);
    }
    // A megabyte of zeros has about a kilobyte in gzip.
    let bomb = gzip(&vec![0; 1024 * 1024]);
    assert!(bomb.len() < 4096);
    send_encoded(&service, &["gzip"], bomb).await.problem(413);
    assert_eq!(service.get("/quarantine").await.ok()["quarantine"], json!([]));
}

#[tokio::test]
async fn a_body_that_is_not_of_its_encoding_is_quarantined_as_it_was_sent() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let body = delivery("OUTBOUND_CALL_CALLING", "c", 0, None).to_string().into_bytes();
    let cut_off = |mut encoded: Vec<u8>| {
        encoded.pop();
        encoded
    };
    for (name, sent) in [
        ("gzip", cut_off(gzip(&body))),
        ("deflate", cut_off(zlib(&body))),
        ("br", cut_off(brotli(&body))),
        ("zstd", cut_off(zstd(&body))),
        ("gzip", body.clone()),
        ("gzip", Vec::new()),
    ] {
        let answer = send_encoded(&service, &[name], sent.clone()).await.quarantined();
        assert_eq!(answer["reason"], format!("the body is not valid {name}"));
        let id: uuid::Uuid = answer["quarantine_id"].as_str().unwrap().parse().unwrap();
        let kept = sqlx::query!("select body, headers from quarantine where id = $1", id)
            .fetch_one(&database.pool().await)
            .await
            .unwrap();
        assert_eq!(kept.body, sent);
        assert_eq!(kept.headers["content-encoding"], name);
        let replay = service.request("POST", &format!("/quarantine/{id}/replay"));
        let detail = service.send(replay).await.problem(422);
        assert_eq!(detail, format!("the body is not valid {name}"));
    }
}

#[tokio::test]
async fn an_unreadable_body_is_quarantined_without_its_encoding() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let answer = send_encoded(&service, &["gzip"], gzip(b"no JSON")).await.quarantined();
    // A retry without the encoding has the same entry.
    assert_eq!(service.deliver("no JSON").await.quarantined(), answer);
    let id = answer["quarantine_id"].as_str().unwrap();
    let entry = service.get(&format!("/quarantine/{id}")).await.ok();
    assert_eq!((&entry["body"], &entry["count"]), (&json!("no JSON"), &json!(2)));
}

#[tokio::test]
async fn a_byte_order_mark_is_ignored() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let body = delivery("OUTBOUND_CALL_CALLING", "c", 0, None).to_string();
    let with_mark = format!("\u{feff}{body}");
    assert_eq!(service.deliver(with_mark).await.ok()["disposition"], "advanced");
    assert_eq!(service.deliver(body).await.ok()["disposition"], "duplicate");
}

/// The deliveries of a case, their times shifted so that the first was a day ago.
fn shifted(deliveries: &[Value]) -> Vec<String> {
    const FORMAT: &str = "%Y-%m-%d %H:%M:%S";
    let time = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("Time: "))?;
        Some(NaiveDateTime::parse_from_str(line, FORMAT).expect("a time"))
    };
    let text = |delivery: &Value| delivery["body"]["text"].as_str().expect("a text").to_owned();
    let yesterday = callstate::clock::Clock::system().now().naive_utc() - TimeDelta::days(1);
    let shift = deliveries.iter().find_map(|it| time(&text(it))).map(|first| yesterday - first);
    let shift_text = |text: &str| match time(text) {
        None => text.to_owned(),
        Some(time) => {
            let shifted = time + shift.expect("there is a time");
            let subject = text.lines().next().expect("a line");
            format!("{subject}\nTime: {}", shifted.format(FORMAT))
        }
    };
    let deliveries = deliveries.iter().map(|delivery| {
        let mut delivery = delivery.clone();
        delivery["body"]["text"] = shift_text(&text(&delivery)).into();
        delivery.to_string()
    });
    deliveries.collect()
}

#[tokio::test]
async fn the_cases_from_use_give_the_expected_calls() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let cases: Value =
        serde_json::from_str(include_str!("../fixtures/cases/lifecycle.json")).expect("JSON");
    for case in list(&cases) {
        let (name, expected) = (&case["name"], &case["expect"]);
        let mut call_id = String::new();
        for body in shifted(list(&case["deliveries"])) {
            let answer = service.deliver(body).await.ok();
            call_id = answer["call_id"].as_str().unwrap().to_owned();
        }
        let call = service.get(&format!("/calls/{call_id}")).await.ok();
        for field in ["status", "terminal", "anomaly_count", "has_errors"] {
            assert_eq!(call[field], expected[field], "{field} of {name}");
        }
        let attempts: Vec<Value> = list(&call["attempts"])
            .iter()
            .map(|it| json!({"call_sid": it["call_sid"], "status": it["status"]}))
            .collect();
        assert_eq!(json!(attempts), expected["attempts"], "{name}");
        if !expected["time_in_status"].is_null() {
            assert_eq!(call["time_in_status"], expected["time_in_status"], "{name}");
        }
        let history = service.get(&format!("/calls/{call_id}/history")).await.ok();
        let dispositions: Vec<&Value> =
            list(&history["events"]).iter().map(|event| &event["disposition"]).collect();
        assert_eq!(json!(dispositions), expected["dispositions_in_fold_order"], "{name}");
    }
    let verified = callstate(&["verify", "--database-url", &database.url()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

//! `POST /webhooks`: what each kind of delivery is answered, and what is stored of it.

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::{
    durability::database_that_refuses_one,
    support::{
        Database, Service,
        delivery::{delivery, fixture, fixtures},
    },
};

#[tokio::test]
async fn every_sample_is_accepted_and_its_payload_is_returned_byte_for_byte() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for name in fixtures() {
        let body = fixture(&name);
        let answer = service.deliver(body.clone()).await.ok();
        if answer["disposition"] == "duplicate" {
            assert_eq!(name, "outbound_busy", "the same event as odd_second_endpoint");
            continue;
        }
        let event_id: uuid::Uuid = answer["event_id"].as_str().unwrap().parse().unwrap();
        let stored = sqlx::query_scalar!(
            r#"
            select payload::text as "payload!"
            from events join calls on calls.id = events.call
            where callstate_event_id(project_id, calls.call_id, fingerprint) = $1
            "#,
            event_id
        )
        .fetch_one(&database.pool().await)
        .await
        .unwrap();
        assert_eq!(stored.as_bytes(), body, "{name}");

        let call_id = answer["call_id"].as_str().unwrap();
        let history = service.get(&format!("/calls/{call_id}/history?include=payload")).await;
        assert_eq!(history.status, 200, "{name}: {}", history.text);
        assert!(history.text.contains(str::from_utf8(&body).unwrap().trim()), "{name}");
    }
}

#[tokio::test]
async fn the_samples_give_the_calls_that_were_reviewed() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut calls = Vec::new();
    for name in fixtures() {
        let answer = service.deliver(fixture(&name)).await.ok();
        let mut call =
            service.get(&format!("/calls/{}", answer["call_id"].as_str().unwrap())).await.ok();
        let mut history = service
            .get(&format!("/calls/{}/history", answer["call_id"].as_str().unwrap()))
            .await
            .ok();
        hide(&mut call, &["updated_at"]);
        if call["direction"].is_null() || call["first_event_at"].as_str().unwrap() > "2026-06" {
            hide(&mut call, &["first_event_at", "last_event_at", "started_at"]);
            hide(&mut history, &["effective_at"]);
        }
        hide(&mut history, &["received_at", "last_delivered_at"]);
        calls.push(json!({"sample": name, "answer": answer, "call": call, "history": history}));
    }
    insta::assert_json_snapshot!(calls);
}

/// Replaces the members of that name, which depend on the time of the test.
fn hide(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if names.contains(&name.as_str()) {
                    *member = "(time of the test)".into();
                } else {
                    hide(member, names);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn a_delivery_seen_before_is_a_duplicate_and_counted() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let first = service.deliver(fixture("outbound_busy")).await.ok();
    assert_eq!(first["disposition"], "advanced");
    let again = service.deliver(fixture("outbound_busy")).await.ok();
    assert_eq!(again["disposition"], "duplicate");
    assert_eq!(again["event_id"], first["event_id"]);
    assert_eq!(again["status"], "BUSY");
    // The copy for another endpoint of the project differs in the envelope only.
    let copy = service.deliver(fixture("odd_second_endpoint")).await.ok();
    assert_eq!(copy["disposition"], "duplicate");

    let history = service.get("/calls/out-08/history").await.ok();
    assert_eq!(history["events"].as_array().unwrap().len(), 1);
    assert_eq!(history["events"][0]["delivery_count"], 3);
    let (delivered, received) =
        (&history["events"][0]["last_delivered_at"], &history["events"][0]["received_at"]);
    assert!(delivered.as_str() > received.as_str());
}

#[tokio::test]
async fn an_unknown_event_type_is_kept_and_changes_nothing() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let answer = service.deliver(fixture("odd_unknown_event_type")).await.ok();
    assert_eq!(
        (&answer["disposition"], &answer["status"]),
        (&json!("unrecognized"), &json!("UNKNOWN"))
    );
    let call = service.get("/calls/odd-02").await.ok();
    assert_eq!(call["direction"], Value::Null);
    assert_eq!(call["anomaly_count"], 0, "a new type is no anomaly");
    let history = service.get("/calls/odd-02/history").await.ok();
    assert_eq!(history["events"][0]["status"], Value::Null);
}

/// Bodies that cannot be read as deliveries, each with its reason.
fn unreadable_bodies() -> Vec<(Vec<u8>, String)> {
    const MISSING: &str = "eventType is missing; body.data.callId is missing";
    let deep = [vec![b'['; 513], vec![b']'; 513]].concat();
    let long_id = json!({"eventType": "T", "callId": "x".repeat(256)}).to_string();
    [
        (&b""[..], "the body is empty"),
        (b" \r\n\t", "the body is empty"),
        (b"\xef\xbb\xbf", "the body is empty"),
        (b"\xff\xfe{}", "the body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0"),
        (b"{\"eventType\":", "the body is not JSON: EOF while parsing a value at line 1 column 13"),
        (b"{} {}", "the body is not JSON: trailing characters at line 1 column 4"),
        (&deep, "the body is nested deeper than 512 levels"),
        (b"[{}]", "the body is an array; one delivery per request is expected"),
        (b"\"{}\"", "the body is a string; an object is expected"),
        (b"5", "the body is a number; an object is expected"),
        (b"true", "the body is a boolean; an object is expected"),
        (b"null", "the body is null; an object is expected"),
        (b"{}", MISSING),
        (br#"{"eventType": null, "body": {"data": {"callId": null}}}"#, MISSING),
        (br#"{"eventType": "T", "projectId": "p"}"#, "body.data.callId is missing"),
        (br#"{"callId": "c"}"#, "eventType is missing"),
        (br#"{"eventType": 5, "callId": "c"}"#, "eventType must be a string, not a number"),
        (br#"{"eventType": "", "callId": "c"}"#, "eventType must not be empty"),
        (
            br#"{"eventType": "T", "body": {"data": {"callId": " Undefined "}}}"#,
            "body.data.callId is missing: it is \"undefined\"",
        ),
        (
            br#"{"eventType": "T", "body": {"data": {"callId": " "}}}"#,
            "body.data.callId is missing: it is blank",
        ),
        (
            br#"{"eventType": "T", "body": "text"}"#,
            "body.data.callId is missing; body must be an object, not a string",
        ),
        (
            br#"{"eventType": "T", "callId": []}"#,
            "callId must be a string or a number, not an array",
        ),
        (br#"{"eventType": "T", "callId": "\ud800"}"#, "callId must not contain a lone surrogate"),
        (
            br#"{"eventType": "T", "callId": "a\u0000"}"#,
            "callId must not contain control characters",
        ),
        (long_id.as_bytes(), "callId must not be longer than 255 characters"),
        (
            br#"{"eventType": true, "callId": {}, "projectId": {}}"#,
            "eventType must be a string, not a boolean; callId must be a string or a number, not \
             an object; projectId must be a string or a number, not an object",
        ),
    ]
    .map(|(body, reason)| (body.to_vec(), reason.to_owned()))
    .into()
}

#[tokio::test]
async fn an_unreadable_delivery_is_quarantined_and_answered_202() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (body, reason) in unreadable_bodies() {
        let first = service.deliver(body.clone()).await;
        let answer = first.quarantined();
        assert_eq!(answer["reason"], reason);
        assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
        let second = service.deliver(body.clone()).await;
        assert_eq!(second.text, first.text, "a retry has the same entry");
        let id: uuid::Uuid = answer["quarantine_id"].as_str().unwrap().parse().unwrap();
        let kept = sqlx::query!(
            "select count, reason, endpoint, headers, body from quarantine where id = $1",
            id
        )
        .fetch_one(&database.pool().await)
        .await
        .unwrap();
        assert_eq!((kept.count, kept.endpoint.as_str()), (2, "default"), "{reason}");
        assert_eq!((kept.body, kept.reason), (body, reason));
        assert_eq!(kept.headers, json!({"content-type": "application/json"}));
    }
    assert_eq!(stored_events(&database).await, 0);
}

/// The number of events in the database.
async fn stored_events(database: &Database) -> i64 {
    sqlx::query_scalar!(r#"select count(*) as "count!" from events"#)
        .fetch_one(&database.pool().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_delivery_that_cannot_be_stored_is_quarantined_and_answered_202() {
    let database = database_that_refuses_one().await;
    let service = Service::start(&database).await;
    let body = delivery("OUTBOUND_CALL_BUSY", "bad", 1, None).to_string();
    let answer = service.deliver(body.clone()).await.quarantined();
    let reason = "the delivery cannot be stored";
    assert_eq!(answer["reason"], reason);
    let id = answer["quarantine_id"].as_str().unwrap();
    let kept = service.get(&format!("/quarantine/{id}")).await.ok();
    assert_eq!(kept["body"], body);
    // The quarantine names the cause, the answer to the provider does not.
    let cause = kept["reason"].as_str().unwrap();
    assert!(cause.starts_with(reason) && cause.contains("this one is bad"), "{cause}");
    assert_eq!(stored_events(&database).await, 0);
    // The writer goes on with other deliveries.
    let good = delivery("OUTBOUND_CALL_BUSY", "good", 1, None).to_string();
    service.deliver(good).await.ok();
}

#[tokio::test]
async fn an_unreadable_delivery_is_answered_503_where_it_cannot_be_kept() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    database.close().await;
    let answer = service.deliver("no JSON").await;
    answer.problem(503);
    assert_ne!(answer.header("retry-after"), "");
}

#[tokio::test]
async fn a_delivery_needs_only_an_event_type_and_a_call_id() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (body, call_id, project_id) in [
        (
            json!({"eventType": "INBOUND_CALL_CALLING", "body": {"data": {"callId": "in-data"}}}),
            "in-data",
            "default",
        ),
        (
            json!({"eventType": "INBOUND_CALL_CALLING", "body": {"callId": "in-body"}}),
            "in-body",
            "default",
        ),
        (json!({"eventType": "INBOUND_CALL_CALLING", "callId": "on-top"}), "on-top", "default"),
        (json!({"eventType": "INBOUND_CALL_CALLING", "callId": 42, "projectId": 7}), "42", "7"),
        (
            json!({"eventType": "INBOUND_CALL_CALLING", "callId": "nulls", "projectId": null,
                "body": {"data": null, "errors": "none", "text": 5}}),
            "nulls",
            "default",
        ),
        (
            json!({"eventType": "INBOUND_CALL_CALLING", "callId": "wrong",
                "body": {"data": {"callSid": 5, "clientId": {}, "callStatus": []}}}),
            "wrong",
            "default",
        ),
    ] {
        let answer = service.deliver(body.to_string()).await.ok();
        assert_eq!(
            (&answer["call_id"], &answer["project_id"]),
            (&json!(call_id), &json!(project_id))
        );
        let call = service.get(&format!("/calls/{call_id}")).await.ok();
        assert_eq!(call["status"], "CALLING");
        for absent in ["call_sid", "client_id", "provider_status"] {
            assert_eq!(call[absent], Value::Null, "{absent}");
        }
        assert_eq!(call["has_errors"], false);
    }
}

#[tokio::test]
async fn an_identifier_has_up_to_255_characters_of_any_kind_but_control_characters() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for call_id in ["ü/ö?#&=%20 ✆😀".to_owned(), "é".repeat(255)] {
        let body = json!({"eventType": "OUTBOUND_CALL_BUSY", "callId": call_id});
        assert_eq!(service.deliver(body.to_string()).await.ok()["call_id"], json!(call_id));
        let path = form_urlencoded::byte_serialize(call_id.as_bytes())
            .collect::<String>()
            .replace('+', "%20");
        assert_eq!(service.get(&format!("/calls/{path}")).await.ok()["call_id"], json!(call_id));
    }
}

/// An index entry has at most 2,704 bytes after compression, so the identifiers are random.
#[tokio::test]
async fn the_longest_identifiers_fit_into_every_index() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut state = 1_u32;
    let mut longest = || -> String {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from_u32(0x2_0000 + (state >> 15)).unwrap()
        };
        (0..255).map(|_| next()).collect()
    };
    let (call_id, project_id, client_id, dial) = (longest(), longest(), longest(), longest());
    let deliver = |event_type: String, number: u32| {
        json!({
            "projectId": project_id,
            "eventType": event_type,
            "body": {"data": {
                "callId": call_id,
                "clientId": client_id,
                "callSid": if number == 0 { dial.clone() } else { format!("CA{number}") },
            }},
        })
        .to_string()
    };
    service.deliver(deliver(longest(), 0)).await.ok();
    for number in 0..40 {
        for status in ["CALLING", "BUSY"] {
            let answer = service.deliver(deliver(format!("OUTBOUND_CALL_{status}"), number)).await;
            assert_eq!(answer.ok()["status"], status);
        }
    }
    let answer =
        service.deliver(deliver("OUTBOUND_CALL_MAX_ATTEMPTS_REACHED".to_owned(), 39)).await;
    assert_eq!(answer.ok()["status"], "MAX_ATTEMPTS_REACHED");
    let client_id: String = form_urlencoded::byte_serialize(client_id.as_bytes()).collect();
    let listed = service.get(&format!("/calls?client_id={client_id}")).await.ok();
    assert_eq!(listed["calls"][0]["attempt_count"], 40);
    let report = service.get("/reports/outcomes").await.ok();
    assert_eq!(report["rows"][0]["calls"], 1);
    assert_eq!(report["rows"][0]["attempts"], 40);
}

#[tokio::test]
async fn endpoint_method_size_and_media_type_are_checked_in_this_order() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    // More than the socket buffers hold: the client receives the answer only if the service
    // discards the rest of the body.
    let too_large = vec![b'x'; 8 * 1024 * 1024];

    let nowhere = service.request("GET", "/webhooks/nowhere").body(too_large.clone());
    service.send(nowhere).await.problem(404);
    let got = service.request("PUT", "/webhooks/default").body(too_large.clone());
    let got = service.send(got).await;
    got.problem(405);
    assert_eq!(got.header("allow"), "POST");
    let large = service.request("POST", "/webhooks").header(CONTENT_TYPE, "text/plain");
    service.send(large.body(too_large)).await.problem(413);
    let plain = service.request("POST", "/webhooks").header(CONTENT_TYPE, "text/plain");
    service.send(plain.body("{}")).await.problem(415);

    for content_type in [
        None,
        Some(""),
        Some("application/json; charset=utf-8"),
        Some("application/cloudevents+json"),
    ] {
        let mut request = service.request("POST", "/webhooks/").body(fixture("outbound_pending"));
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        service.send(request).await.ok();
    }
}

#[tokio::test]
async fn a_body_of_the_largest_size_is_accepted() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut body = delivery("OUTBOUND_CALL_COMPLETED", "large", 1, None);
    body["transcript"] = "".into();
    let room = 1024 * 1024 - body.to_string().len();
    body["transcript"] = "x".repeat(room).into();
    assert_eq!(body.to_string().len(), 1024 * 1024);
    assert_eq!(service.deliver(body.to_string()).await.ok()["status"], "COMPLETED");
}

#[tokio::test]
async fn a_long_payload_is_compressed_with_lz4_where_the_server_supports_it() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut body = delivery("OUTBOUND_CALL_COMPLETED", "long", 1, None);
    body["transcript"] = "repeated text ".repeat(1000).into();
    service.deliver(body.to_string()).await.ok();
    let row = sqlx::query!(
        r#"
        select pg_column_compression(payload) as "compression!",
            case when 'lz4' = any(enumvals) then 'lz4' else 'pglz' end as "expected!"
        from events, pg_settings
        where name = 'default_toast_compression'
        "#
    );
    let row = row.fetch_one(&database.pool().await).await.unwrap();
    assert_eq!(row.compression, row.expected);
}

#[tokio::test]
async fn a_late_event_corrects_the_call_and_the_events_after_it() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let send = async |event_type, second, sid| {
        service.deliver(delivery(event_type, "c", second, sid).to_string()).await.ok()
    };
    assert_eq!(send("OUTBOUND_CALL_COMPLETED", 5, None).await["status"], "COMPLETED");
    let late = send("OUTBOUND_CALL_CALLING", 3, None).await;
    assert_eq!((&late["disposition"], &late["status"]), (&json!("advanced"), &json!("COMPLETED")));
    send("OUTBOUND_CALL_PENDING", 1, None).await;

    let history = service.get("/calls/c/history").await.ok();
    let seen: Vec<(&Value, &Value)> = history["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (&event["from_status"], &event["to_status"]))
        .collect();
    assert_eq!(
        seen,
        [
            (&Value::Null, &json!("PENDING")),
            (&json!("PENDING"), &json!("CALLING")),
            (&json!("CALLING"), &json!("COMPLETED")),
        ],
    );
    let call = service.get("/calls/c").await.ok();
    assert_eq!(call["time_in_status"], json!({"PENDING": 2.0, "CALLING": 2.0}));
    assert_eq!(call["attempts"][0]["started_at"], "2026-05-12T12:00:01Z");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    assert!(service.get("/nowhere").await.problem(404).contains("/nowhere"));
    let deleted = service.send(service.request("PUT", "/calls/c")).await;
    deleted.problem(405);
    assert!(deleted.header("allow").contains("GET"));
}

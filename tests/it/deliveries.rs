//! `POST /webhooks`: each row of the table of answers.

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::support::{
    Database, Service,
    delivery::{delivery, fixture, fixtures},
};

#[tokio::test]
async fn every_sample_is_taken_and_its_payload_comes_back_byte_for_byte() {
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
            r#"select payload::text as "payload!" from events where event_id = $1"#,
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

/// Replaces the members of that name, which tell of the time of the test.
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
    assert_eq!(call["anomaly_count"], 1);
    let history = service.get("/calls/odd-02/history").await.ok();
    assert_eq!(history["events"][0]["status"], Value::Null);
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_by_name_and_kept_in_quarantine() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let cases: [(&[u8], u16, &str); 9] = [
        (b"", 400, "the body is not JSON"),
        (b"{\"eventType\":", 400, "the body is not JSON"),
        (b"\xff\xfe{}", 400, "the body is not UTF-8"),
        (&deep, 400, "nested deeper than 512 levels"),
        (b"[]", 422, "eventType is missing; body.data.callId is missing"),
        (br#"{"eventType": 5, "callId": "c"}"#, 422, "eventType must be a string"),
        (br#"{"eventType": "T", "callId": "\ud800"}"#, 422, "lone surrogate"),
        (br#"{"eventType": "T", "callId": "a\u0000"}"#, 422, "control characters"),
        (
            br#"{"eventType": "T", "callId": "c", "projectId": {}}"#,
            422,
            "projectId must be a string",
        ),
    ];
    for (body, status, detail) in cases {
        let refused = service.deliver(body).await.problem(status);
        assert!(refused.contains(detail), "{refused}");
        // A retry finds its row.
        service.deliver(body).await.problem(status);
        let kept = sqlx::query!(
            "select count, reason, endpoint, headers from quarantine where body = $1",
            body
        )
        .fetch_one(&database.pool().await)
        .await
        .unwrap();
        assert_eq!((kept.count, kept.endpoint.as_str()), (2, "default"));
        assert!(kept.reason.contains(detail), "{}", kept.reason);
        assert_eq!(kept.headers["content-type"], "application/json");
    }
    let events = sqlx::query_scalar!(r#"select count(*) as "count!" from events"#)
        .fetch_one(&database.pool().await)
        .await
        .unwrap();
    assert_eq!(events, 0);
}

#[tokio::test]
async fn a_delivery_is_taken_with_as_little_as_a_type_and_a_call() {
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
            json!({"eventType": "INBOUND_CALL_CALLING", "callId": "null", "projectId": null,
                "body": {"data": null, "errors": "none", "text": 5}}),
            "null",
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
async fn an_identifier_may_have_any_255_characters_but_control_characters() {
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
    let body = json!({"eventType": "OUTBOUND_CALL_BUSY", "callId": "x".repeat(256)});
    service.deliver(body.to_string()).await.problem(422);
}

/// An entry of an index has 2,704 bytes, and is compressed before that is counted.
#[tokio::test]
async fn the_longest_identifiers_fit_into_every_index_however_random() {
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
            let taken = service.deliver(deliver(format!("OUTBOUND_CALL_{status}"), number)).await;
            assert_eq!(taken.ok()["status"], status);
        }
    }
    let taken = service.deliver(deliver("OUTBOUND_CALL_MAX_ATTEMPTS_REACHED".to_owned(), 39)).await;
    assert_eq!(taken.ok()["status"], "MAX_ATTEMPTS_REACHED");
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
    // More than fits into the sockets' buffers: a service that answered without
    // reading would cut off the client, which then would not hear why.
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
async fn the_largest_body_is_taken() {
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
async fn a_long_payload_is_compressed_by_lz4_where_the_server_can() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut body = delivery("OUTBOUND_CALL_COMPLETED", "long", 1, None);
    body["transcript"] = "said and said again ".repeat(1000).into();
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
    let deleted = service.send(service.request("DELETE", "/calls/c")).await;
    deleted.problem(405);
    assert!(deleted.header("allow").contains("GET"));
}

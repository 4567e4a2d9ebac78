//! `GET /calls/{call_id}`: `ETag`, `as_of`, ambiguous ids.

use serde_json::{Value, json};

use crate::support::{Answer, Database, Service, delivery::delivery};

async fn if_none_match(service: &Service, path: &str, tags: &[&str]) -> Answer {
    let mut request = service.request("GET", path);
    for tag in tags {
        request = request.header("If-None-Match", *tag);
    }
    service.send(request).await
}

#[tokio::test]
async fn a_request_with_the_current_etag_is_answered_304() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let other = Service::start(&database).await;
    let deliver = async |event_type: &str, second: u32| {
        service.deliver(delivery(event_type, "c", second, None).to_string()).await.ok();
    };
    deliver("OUTBOUND_CALL_CALLING", 1).await;
    let first = service.get("/calls/c").await;
    first.ok();
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "{tag}");
    assert_eq!(first.header("cache-control"), "private, no-cache");
    assert_eq!(first.header("content-type"), "application/json");

    let weak = format!("W/{tag}");
    let list = format!("\"x\", {tag}");
    for tags in [&[tag.as_str()][..], &[&weak], &[&list], &["*"], &["\"x\"", &tag]] {
        for service in [&service, &other] {
            let answer = if_none_match(service, "/calls/c", tags).await;
            assert_eq!((answer.status, answer.text.as_str()), (304, ""), "{tags:?}");
            assert_eq!(answer.header("etag"), tag);
            assert_eq!(answer.header("cache-control"), "private, no-cache");
        }
    }
    for tags in [&["\"x\""][..], &["x"], &[""], &[tag.trim_matches('"')]] {
        assert_eq!(if_none_match(&service, "/calls/c", tags).await.text, first.text, "{tags:?}");
    }

    // A duplicate does not change the call.
    deliver("OUTBOUND_CALL_CALLING", 1).await;
    assert_eq!(if_none_match(&service, "/calls/c", &[&tag]).await.status, 304);
    deliver("OUTBOUND_CALL_BUSY", 2).await;
    let second = if_none_match(&service, "/calls/c", &[&tag]).await;
    assert_eq!(second.ok()["status"], "BUSY");
    assert_ne!(second.header("etag"), tag);
    if_none_match(&service, "/calls/nobody", &["*"]).await.problem(404);
}

/// The call after each of its deliveries, with the time of its last change.
async fn states(service: &Service, deliveries: &[Value]) -> Vec<(String, Value)> {
    let mut states = Vec::new();
    for body in deliveries {
        service.deliver(body.to_string()).await.ok();
        let call = service.get("/calls/c").await.ok();
        states.push((call["updated_at"].as_str().unwrap().to_owned(), call));
    }
    states
}

#[tokio::test]
async fn as_of_returns_the_call_as_it_was_known_at_each_time() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut failed = delivery("OUTBOUND_CALL_ERROR", "c", 4, Some("A"));
    failed["body"]["errors"] = json!([{"code": "NETWORK_ERROR"}]);
    let states = states(
        &service,
        &[
            // An unknown type first; then a redial, a late event, errors, an anomaly.
            delivery("OUTBOUND_CALL_TRANSFERRED", "c", 0, None),
            delivery("OUTBOUND_CALL_CALLING", "c", 3, Some("A")),
            failed,
            delivery("OUTBOUND_CALL_PENDING", "c", 1, None),
            delivery("OUTBOUND_CALL_CALLING", "c", 9, Some("B")),
            delivery("OUTBOUND_CALL_COMPLETED", "c", 12, Some("B")),
            delivery("OUTBOUND_CALL_BUSY", "c", 13, Some("B")),
        ],
    )
    .await;
    let statuses: Vec<&Value> = states.iter().map(|(_, call)| &call["status"]).collect();
    assert_eq!(
        statuses,
        ["UNKNOWN", "CALLING", "ERROR", "ERROR", "CALLING", "COMPLETED", "COMPLETED"]
    );
    for (at, call) in &states {
        let known = service.get(&format!("/calls/c?as_of={at}")).await;
        assert_eq!(known.ok(), *call, "as of {at}");
        let tag = known.header("etag").to_owned();
        let again = if_none_match(&service, &format!("/calls/c?as_of={at}"), &[&tag]).await;
        assert_eq!(again.status, 304);
    }
    let (first, last) = (&states[0], &states[states.len() - 1]);
    let now = service.get("/calls/c").await;
    let future = service.get("/calls/c?as_of=2999-01-01T00:00:00%2B09:00").await;
    assert_eq!((future.ok(), future.header("etag")), (last.1.clone(), now.header("etag")));
    service.get("/calls/c?as_of=2026-01-01T00:00:00Z").await.problem(404);
    let before: chrono::DateTime<chrono::Utc> = first.0.parse().unwrap();
    let before = before - chrono::TimeDelta::microseconds(1);
    let path =
        format!("/calls/c?as_of={}", before.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
    assert_eq!(service.get(&path).await.problem(404), "there is no call c");
}

#[tokio::test]
async fn an_ambiguous_call_id_depends_on_as_of() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for project_id in ["p-1", "p-2"] {
        let mut body = delivery("OUTBOUND_CALL_CALLING", "c", 1, None);
        body["projectId"] = project_id.into();
        service.deliver(body.to_string()).await.ok();
    }
    let first = service.get("/calls/c?project_id=p-1").await.ok();
    let at = first["updated_at"].as_str().unwrap();
    assert_eq!(service.get(&format!("/calls/c?as_of={at}")).await.ok(), first);
    service.get("/calls/c?as_of=2999-01-01T00:00:00Z").await.problem(409);
    let path = format!("/calls/c?project_id=p-2&as_of={at}");
    service.get(&path).await.problem(404);
    let detail = service.get("/calls/c?as_of=yesterday&colour=red").await.problem(400);
    assert!(detail.contains("as_of: ") && detail.contains("colour: "), "{detail}");
}

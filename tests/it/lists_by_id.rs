//! `GET /calls?call_id=…`: the calls by these ids.

use serde_json::json;

use crate::{
    lists::{deliver, ids, listed},
    support::{Database, Service},
};

#[tokio::test]
async fn calls_are_listed_by_their_ids_the_newest_first() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (number, call_id) in ["a", "b", "c", "d"].into_iter().enumerate() {
        deliver(&service, "OUTBOUND_CALL_CALLING", call_id, u32::try_from(number).unwrap()).await;
    }
    deliver(&service, "OUTBOUND_CALL_BUSY", "b", 60).await;
    for (query, expected) in [
        ("call_id=a,c", &["c", "a"][..]),
        ("call_id=a&call_id=c", &["c", "a"]),
        ("call_id=c,a,c,nobody", &["c", "a"]),
        ("call_id=nobody", &[]),
        ("call_id=", &["d", "c", "b", "a"]),
        ("call_id=a,b,c&status=BUSY", &["b"]),
        ("call_id=a,b,c&terminal=false", &["c", "a"]),
        ("call_id=a,b,c&from=2026-05-12T12:00:01Z&to=2026-05-12T12:00:02Z", &["b"]),
        ("call_id=a,b&client_id=client-1", &["b", "a"]),
        ("call_id=a,b&client_id=client-2", &[]),
        ("call_id=a,b&call_sid=nobody", &[]),
        ("call_id=a,b&direction=inbound", &[]),
        ("call_id=a,b&project_id=3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1", &["b", "a"]),
        ("call_id=a,b&project_id=other", &[]),
    ] {
        assert_eq!(listed(&service, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn calls_of_several_projects_by_one_id_are_all_listed() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for project_id in ["p-1", "p-2", "p-3"] {
        let body =
            json!({"eventType": "INBOUND_CALL_CALLING", "callId": "c", "projectId": project_id});
        service.deliver(body.to_string()).await.ok();
    }
    assert_eq!(listed(&service, "call_id=c").await, ["c", "c", "c"]);
    assert_eq!(listed(&service, "call_id=c&project_id=p-2").await, ["c"]);
}

#[tokio::test]
async fn a_call_that_moves_between_pages_is_listed_once() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for number in 0..4 {
        deliver(&service, "OUTBOUND_CALL_CALLING", &format!("c-{number}"), 600 + number).await;
    }
    let query = "/calls?call_id=c-0,c-1,c-3&limit=1";
    let page = service.get(query).await.ok();
    assert_eq!(ids(&page), ["c-3"]);
    deliver(&service, "OUTBOUND_CALL_REQUESTED", "c-3", 1).await;
    deliver(&service, "OUTBOUND_CALL_REQUESTED", "c-2", 2).await;
    deliver(&service, "OUTBOUND_CALL_REQUESTED", "c-1", 3).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = service.get(&format!("{query}&cursor={cursor}")).await.ok();
    assert_eq!(ids(&page), ["c-1"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&service.get(&format!("{query}&cursor={cursor}")).await.ok()), ["c-0"]);
}

#[tokio::test]
async fn more_than_a_hundred_and_invalid_ids_are_refused() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let numbers =
        |count: u32| (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    listed(&service, &format!("call_id={}", numbers(100))).await;
    for wrong in [&numbers(101), "a,,b", "a,", "a,%00", "a, b", "+a"] {
        let wrong = wrong.replace(' ', "%20");
        let detail = service.get(&format!("/calls?call_id={wrong}")).await.problem(400);
        assert!(detail.contains("call_id: "), "{wrong}: {detail}");
    }
}

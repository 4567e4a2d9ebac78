//! `GET /events`: the change feed as pages, for clients that poll.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::Executor as _;

use crate::support::{
    Database, Service, callstate,
    delivery::{delivery, fixture, fixtures},
    provider::{Provider, shuffled},
};

/// What the page of the feed after a position has.
async fn page(service: &Service, query: &str) -> (Vec<Value>, String) {
    let page = service.get(&format!("/events?{query}")).await.ok();
    let next = page["next"].as_str().expect("it says where to go on").to_owned();
    (page["events"].as_array().expect("it has events").clone(), next)
}

/// All events from a position on, page by page.
async fn walk(service: &Service, query: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let (events, next) = page(service, &format!("{query}&after={after}")).await;
        all.extend(events);
        if next == after {
            return all;
        }
        after = next;
    }
}

fn of<'a>(events: &'a [Value], name: &str) -> Vec<&'a str> {
    events.iter().map(|event| event[name].as_str().expect("it is text")).collect()
}

/// An outbound call that is dialed and busy.
async fn deliver_busy(service: &Service, call_id: &str) {
    for (event_type, second) in [("OUTBOUND_CALL_CALLING", 1), ("OUTBOUND_CALL_BUSY", 2)] {
        service.deliver(delivery(event_type, call_id, second, Some("A")).to_string()).await.ok();
    }
}

#[tokio::test]
async fn an_event_has_the_fields_of_its_stream_message_and_of_its_history() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut stream = service.listen("/stream").await;
    let mut count = 0;
    for name in fixtures() {
        let answer = service.deliver(fixture(&name)).await.ok();
        count += usize::from(answer["disposition"] != "duplicate");
    }
    let (events, next) = page(&service, "").await;
    assert_eq!(events.len(), count);
    assert_eq!(of(&events, "id").last(), Some(&next.as_str()));
    for event in &events {
        let message = stream.next().await.expect("the stream goes on");
        assert_eq!(event["id"], message.id);
        for (name, value) in message.call().as_object().unwrap() {
            assert_eq!(&event[name], value, "{name}");
        }
        let call_id = event["call_id"].as_str().unwrap().replace('+', "%2B");
        let project_id = event["project_id"].as_str().unwrap();
        let path = format!("/calls/{call_id}/history?project_id={project_id}");
        let history = service.get(&path).await.ok();
        let history = history["events"].as_array().unwrap();
        let same = history.iter().find(|it| it["event_id"] == event["event_id"]);
        for (name, value) in same.expect("it is in the history").as_object().unwrap() {
            // `status` is that of the call, as in streams.
            let name = if name == "status" { "event_status" } else { name };
            assert_eq!(&event[name], value, "{name}");
        }
    }
}

#[tokio::test]
async fn the_answer_and_the_example_have_the_members_that_are_described() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for name in fixtures().into_iter().filter(|name| name != "odd_lone_surrogate") {
        service.deliver(fixture(&name)).await.ok();
    }
    let described = service.get("/openapi.json").await.ok();
    let schema = json!({
        "components": described["components"], "$ref": "#/components/schemas/FeedPage",
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    for query in ["", "?include=payload"] {
        let answer = service.get(&format!("/events{query}")).await.ok();
        let faults: Vec<String> = validator.iter_errors(&answer).map(|it| it.to_string()).collect();
        assert_eq!(faults, [""; 0]);
    }
    let content = "/paths/~1events/get/responses/200/content/application~1json/example/events/0";
    let members = |event: &Value| -> BTreeSet<String> {
        event.as_object().expect("it is an object").keys().cloned().collect()
    };
    let (events, _) = page(&service, "limit=1").await;
    assert_eq!(members(described.pointer(content).unwrap()), members(&events[0]));
}

#[tokio::test]
async fn pages_of_any_length_are_the_feed_in_the_order_of_the_stream() {
    let database = Database::create().await;
    let (here, there) = (Service::start(&database).await, Service::start(&database).await);
    let mut stream = here.listen("/stream").await;
    Provider::start(shuffled(12, 2), &[&here, &there]).finish().await;
    let (whole, next) = page(&there, "").await;
    let messages = stream.calls(whole.len()).await;
    let expected: Vec<(&str, &str)> =
        messages.iter().map(|(id, event_id)| (id.as_str(), event_id.as_str())).collect();
    let found: Vec<_> = of(&whole, "id").into_iter().zip(of(&whole, "event_id")).collect();
    assert_eq!(found, expected);
    for limit in [1, 7, whole.len(), 500] {
        assert_eq!(walk(&here, &format!("limit={limit}")).await, whole, "{limit} on a page");
    }
    // After any event, as a stream that resumes.
    let (rest, _) = page(&here, &format!("after={}", whole[4]["id"].as_str().unwrap())).await;
    assert_eq!(rest, whole[5..]);

    // At the end there is nothing, until something is stored.
    assert_eq!(page(&here, &format!("after={next}")).await, (vec![], next.clone()));
    assert_eq!(page(&here, "after=now").await, (vec![], next.clone()));
    repeated_delivery_is_one_event(&here, &next).await;
}

/// An event that is delivered twice is in the feed once.
async fn repeated_delivery_is_one_event(service: &Service, after: &str) {
    let body = delivery("OUTBOUND_CALL_CALLING", "new", 1, Some("A")).to_string();
    for _ in 0..2 {
        service.deliver(body.clone()).await.ok();
    }
    let (events, next) = page(service, &format!("after={after}")).await;
    assert_eq!(of(&events, "call_id"), ["new"]);
    assert_ne!(next, after);
}

#[tokio::test]
async fn an_empty_feed_has_a_next_that_the_first_event_follows() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let (events, next) = page(&service, "").await;
    assert_eq!(events, [json!(null); 0]);
    deliver_busy(&service, "c").await;
    let (events, _) = page(&service, &format!("after={next}")).await;
    assert_eq!(of(&events, "status"), ["CALLING", "BUSY"]);
}

#[tokio::test]
async fn filters_select_events_and_next_passes_over_the_others() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    deliver_busy(&service, "one").await;
    let other = json!({"eventType": "INBOUND_CALL_CALLING", "callId": "in", "projectId": "other"});
    service.deliver(other.to_string()).await.ok();
    deliver_busy(&service, "two").await;
    let (_, head) = page(&service, "after=now").await;
    for (filter, expected) in [
        ("status=BUSY", &["one", "two"][..]),
        ("status=BUSY&status=COMPLETED", &["one", "two"]),
        ("status=BUSY,CALLING&direction=inbound", &["in"]),
        ("project_id=other", &["in"]),
        ("project_id=other&direction=outbound", &[]),
        ("project_id=nobody", &[]),
        ("direction=&status=", &["one", "one", "in", "two", "two"]),
    ] {
        let (events, next) = page(&service, filter).await;
        assert_eq!(of(&events, "call_id"), expected, "{filter}");
        assert_eq!(next, head, "{filter}");
        assert_eq!(walk(&service, &format!("{filter}&limit=1")).await, events, "{filter}");
    }
}

#[tokio::test]
async fn a_page_examines_a_bounded_number_of_events() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(delivery("OUTBOUND_CALL_CALLING", "c", 1, None).to_string()).await.ok();
    let fill = r"
        insert into events
        select copy.*
        from events
        cross join generate_series(2, 45000) as number
        cross join lateral jsonb_populate_record(
            events,
            jsonb_build_object('position', number, 'fingerprint', '\x' || lpad(to_hex(number), 64, '0'))
        ) as copy
    ";
    database.connect().await.execute(fill).await.unwrap();
    database.connect().await.execute("select setval('feed_positions', 45000)").await.unwrap();
    let other = json!({"eventType": "INBOUND_CALL_CALLING", "callId": "in", "projectId": "other"});
    service.deliver(other.to_string()).await.ok();

    let (events, next) = page(&service, "project_id=other").await;
    assert_eq!(events, [json!(null); 0]);
    assert!(next.ends_with("-20000"), "{next}");
    assert_eq!(of(&walk(&service, "project_id=other").await, "call_id"), ["in"]);
}

#[tokio::test]
async fn a_key_reads_of_its_projects_only() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.arg("--require-key");
    })
    .await;
    for project_id in ["two", "one", "two"] {
        let event_type = format!("INBOUND_CALL_{project_id}");
        let body = json!({"eventType": event_type, "callId": "c", "projectId": project_id});
        service.deliver(body.to_string()).await.ok();
    }
    let url = database.url();
    let create = ["keys", "create", "--database-url", &url, "--name", "k", "--project", "one"];
    let key = String::from_utf8(callstate(&create).stdout).unwrap();
    service.get("/events").await.problem(401);
    for (query, expected) in [("", 1), ("?project_id=one", 1), ("?project_id=two", 0)] {
        let request = service.request("GET", &format!("/events{query}")).bearer_auth(key.trim());
        let page = service.send(request).await.ok();
        let events = page["events"].as_array().unwrap();
        assert_eq!(events.len(), expected, "{query}");
        assert!(events.iter().all(|event| event["project_id"] == "one"), "{query}");
    }
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let wrong = "after=x-1&limit=501&direction=sideways&status=ASLEEP&include=all&cursor=x";
    let detail = service.get(&format!("/events?{wrong}")).await.problem(400);
    for name in ["after", "limit", "direction", "status", "include", "cursor"] {
        assert!(detail.contains(&format!("{name}: ")), "{name} is not named in {detail}");
    }
    for after in ["0", "1-", "1--1", "1-9223372036854775808", "NOW"] {
        service.get(&format!("/events?after={after}")).await.problem(400);
    }
    service.send(service.request("POST", "/events")).await.problem(405);
}

#[tokio::test]
async fn a_position_that_is_not_of_the_feed_is_answered_with_its_head() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    deliver_busy(&service, "c").await;
    let (_, seen) = page(&service, "").await;
    let refused = async |reason: &str| {
        let answer = service.get(&format!("/events?after={seen}")).await;
        answer.problem(409);
        let problem = answer.json();
        assert_eq!(problem["type"], "urn:callstate:problem:feed-reset");
        assert_eq!(problem["reason"], reason);
        let (events, next) = page(&service, "after=now").await;
        assert_eq!(events, [json!(null); 0]);
        assert_eq!(problem["head"], next);
    };
    // A failover that lost the last event.
    let lose = "select setval('feed_positions', 1); delete from events where position > 1";
    sqlx::raw_sql(lose).execute(&mut database.connect().await).await.unwrap();
    refused("beyond_head").await;

    let marked = callstate(&["restore-mark", "--database-url", &database.url()]);
    assert!(marked.status.success(), "{}", String::from_utf8_lossy(&marked.stderr));
    refused("other_feed").await;
    assert_eq!(page(&service, "").await.0.len(), 1, "the feed can be read from its beginning");
}

#[tokio::test]
async fn payloads_are_as_they_came_and_end_a_page_before_it_is_too_large() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let small = r#"{ "eventType":"INBOUND_CALL_CALLING",  "callId":1.0, "note":"\u0000" }"#;
    service.deliver(small).await.ok();
    for number in 0..10 {
        let mut body = delivery("OUTBOUND_CALL_CALLING", &format!("c-{number}"), 1, None);
        body["body"]["note"] = "x".repeat(900_000).into();
        service.deliver(body.to_string()).await.ok();
    }
    let (without, _) = page(&service, "").await;
    assert_eq!(without.len(), 11);
    assert!(without.iter().all(|event| event.get("payload").is_none()));
    let answer = service.get("/events?include=payload&limit=1").await;
    assert!(answer.text.contains(&format!(r#""payload":{small}"#)), "{}", answer.text);

    // Retention may have removed a payload; the page goes on behind it.
    let remove = "update events set payload = null where position = 2";
    database.connect().await.execute(remove).await.unwrap();
    let (first, _) = page(&service, "include=payload").await;
    assert_eq!(first.len(), 1 + 1 + 9, "8 MiB are reached with nine of ten");
    let enlarge =
        "update events set payload = to_json(repeat('x', 9000000)) where position in (3, 4)";
    database.connect().await.execute(enlarge).await.unwrap();
    let (second, _) = page(&service, "include=payload").await;
    assert_eq!(second.len(), 2);
    let all = walk(&service, "include=payload").await;
    assert_eq!(of(&all, "id"), of(&without, "id"), "one that is too large alone is on a page");
}

//! `GET /calls`: which calls are listed, in which order, page by page.

use std::{collections::BTreeMap, process::Command};

use serde_json::{Value, json};

use crate::support::{
    Database, Service, callstate,
    delivery::{delivery, fixture, fixtures},
};

const PROJECT: &str = "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1";

/// The ids of the calls on a page.
pub(super) fn ids(page: &Value) -> Vec<String> {
    let calls = page["calls"].as_array().expect("a page has calls");
    calls.iter().map(|call| call["call_id"].as_str().expect("it is text").to_owned()).collect()
}

/// The ids that a list has on one page.
pub(super) async fn listed(service: &Service, filter: &str) -> Vec<String> {
    let page = service.get(&format!("/calls?limit=500&{filter}")).await.ok();
    assert_eq!(page["next_cursor"], Value::Null);
    ids(&page)
}

/// Delivers an event of a call at so many seconds past noon.
pub(super) async fn deliver(service: &Service, event_type: &str, call_id: &str, second: u32) {
    service.deliver(delivery(event_type, call_id, second, Some("CA1")).to_string()).await.ok();
}

#[tokio::test]
async fn a_list_shows_each_call_as_it_shows_alone() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for name in fixtures() {
        service.deliver(fixture(&name)).await;
    }
    let page = service.get("/calls").await.ok();
    let calls = page["calls"].as_array().unwrap();
    assert!(calls.len() > 15 && page["next_cursor"].is_null(), "{page}");
    for call in calls {
        let [call_id, project_id] =
            ["call_id", "project_id"].map(|key| call[key].as_str().unwrap());
        let alone = service.get(&format!("/calls/{call_id}?project_id={project_id}")).await.ok();
        assert_eq!(*call, alone);
    }
    let places: Vec<[&str; 3]> = calls
        .iter()
        .map(|call| {
            ["first_event_at", "call_id", "project_id"].map(|key| call[key].as_str().unwrap())
        })
        .collect();
    assert!(places.iter().rev().is_sorted(), "{places:?}");
}

#[tokio::test]
async fn a_list_shows_the_first_ten_errors_of_each_call() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (call_id, errors) in [("some", 2), ("without", 0), ("many", 15)] {
        let mut body = delivery("OUTBOUND_CALL_ERROR", call_id, 1, None);
        body["body"]["errors"] =
            (0..errors).map(|place| json!({"message": place.to_string()})).collect();
        service.deliver(body.to_string()).await.ok();
    }
    let page = service.get("/calls").await.ok();
    let shown: BTreeMap<&str, Vec<String>> = page["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| {
            let errors = call["errors"].as_array().unwrap().iter();
            // An ERROR without a list of errors counts as one error of which nothing is known.
            let message = |error: &Value| error["message"].as_str().map(str::to_owned);
            let errors = errors.map(|error| message(error).unwrap_or_default()).collect();
            (call["call_id"].as_str().unwrap(), errors)
        })
        .collect();
    let first_ten = (0..10).map(|place| place.to_string()).collect::<Vec<_>>();
    assert_eq!(shown["some"], ["0", "1"]);
    assert_eq!(shown["without"], [""]);
    assert_eq!(shown["many"], first_ten);
}

/// Some calls of each kind, so that every filter leaves some of them out.
pub(super) async fn varied(service: &Service) {
    for (call_id, second, events) in [
        ("answered", 10, &["PENDING", "CALLING", "COMPLETED"][..]),
        ("busy", 20, &["PENDING", "CALLING", "BUSY"]),
        ("canceled-late", 30, &["CALLING", "CANCELED"]),
        ("pending", 40, &["PENDING"]),
        ("calling", 50, &["PENDING", "CALLING"]),
    ] {
        for (at, event) in (second..).zip(events) {
            deliver(service, &format!("OUTBOUND_CALL_{event}"), call_id, at).await;
        }
    }
    let mut failed = delivery("INBOUND_CALL_ERROR", "failed", 60, Some("CA2"));
    failed["body"]["errors"] = json!([{"code": "NETWORK_ERROR"}]);
    failed["projectId"] = "other".into();
    failed["body"]["data"]["clientId"] = "client-2".into();
    service.deliver(failed.to_string()).await.ok();
    let mut unknown = delivery("OUTBOUND_CALL_TRANSFERRED", "unknown", 70, None);
    unknown["body"]["data"]["clientId"] = Value::Null;
    service.deliver(unknown.to_string()).await.ok();
    // Its last dial is another one than its first.
    for (second, event, sid) in
        [(80, "CALLING", "CA3"), (81, "BUSY", "CA3"), (82, "CALLING", "CA4")]
    {
        let event_type = format!("OUTBOUND_CALL_{event}");
        service
            .deliver(delivery(&event_type, "redialled", second, Some(sid)).to_string())
            .await
            .ok();
    }
    // The COMPLETED is of another leg of the same conversation, so no attempt has its call_sid.
    for (second, event, sid) in [(90, "COMPLETED", "CA5"), (89, "CALLING", "CA6")] {
        let event_type = format!("OUTBOUND_CALL_{event}");
        service.deliver(delivery(&event_type, "over", second, Some(sid)).to_string()).await.ok();
    }
}

#[tokio::test]
async fn each_filter_selects_its_calls() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    varied(&service).await;
    for (filter, expected) in [
        ("", "over redialled unknown failed calling pending canceled-late busy answered"),
        ("status=BUSY", "busy"),
        ("status=COMPLETED,BUSY", "over busy answered"),
        ("status=COMPLETED&status=BUSY", "over busy answered"),
        ("status=PENDING&status=&status=COMPLETED,BUSY", "over pending busy answered"),
        ("status=PENDING", "pending"),
        ("status=CALLING,BUSY", "redialled calling busy"),
        ("status=UNKNOWN", "unknown"),
        ("status=EXPIRED", ""),
        ("terminal=true", "over failed canceled-late busy answered"),
        ("terminal=false", "redialled unknown calling pending"),
        ("terminal=false&status=BUSY,CALLING", "redialled calling"),
        ("terminal=true&status=PENDING", ""),
        ("direction=inbound", "failed"),
        ("direction=outbound", "over redialled calling pending canceled-late busy answered"),
        ("has_errors=true", "failed"),
        ("has_errors=true&direction=outbound", ""),
        ("has_errors=false&terminal=true", "over canceled-late busy answered"),
        ("anomalous=true", "canceled-late"),
        ("anomalous=false&status=BUSY,CANCELED", "busy"),
        ("project_id=other", "failed"),
        ("project_id=nobody", ""),
        ("client_id=client-2", "failed"),
        ("client_id=client-1&status=PENDING,BUSY", "pending busy"),
        ("client_id=client-2&project_id=nobody", ""),
        ("call_sid=CA2", "failed"),
        ("call_sid=CA3", "redialled"),
        ("call_sid=CA4", "redialled"),
        ("call_sid=CA4&status=BUSY", ""),
        ("call_sid=CA5", ""),
        ("call_sid=CA6", "over"),
        ("call_sid=CA1&terminal=true", "canceled-late busy answered"),
        ("call_sid=CA1&client_id=client-2", ""),
        ("from=2026-05-12T12:01:10Z", "over redialled unknown"),
        ("to=2026-05-12T12:00:30Z", "busy answered"),
        (
            "from=2026-05-12T12:00:20Z&to=2026-05-12T14:01:00%2B02:00",
            "calling pending canceled-late busy",
        ),
        ("from=2026-05-12T12:00:00Z&to=2026-05-12T12:00:00Z", ""),
        ("client_id=client-1&from=2026-05-12T12:01:20Z", "over redialled"),
        ("stalled_for=1h", ""),
        ("stalled_for=0s", "redialled unknown calling pending"),
        ("stalled_for=0s&status=PENDING,BUSY", "pending"),
        ("stalled_for=0s&terminal=true", ""),
    ] {
        let expected: Vec<&str> = expected.split_whitespace().collect();
        assert_eq!(listed(&service, filter).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn each_dial_leads_to_its_call_in_whatever_order_its_events_come() {
    const EVENTS: [(&str, &str); 6] = [
        ("CALLING", "CA1"),
        ("BUSY", "CA1"),
        ("REQUESTED", "CA2"),
        ("CALLING", "CA2"),
        ("CLOSING", "CA2"),
        ("COMPLETED", "CA2"),
    ];
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (call_id, order) in [("in-order", [0, 1, 2, 3, 4, 5]), ("mixed-up", [5, 0, 3, 1, 4, 2])] {
        for place in order {
            let (event, sid) = EVENTS[place];
            let event_type = format!("OUTBOUND_CALL_{event}");
            let second = u32::try_from(place).unwrap();
            let sid = format!("{call_id}-{sid}");
            let sent = delivery(&event_type, call_id, second, Some(&sid));
            service.deliver(sent.to_string()).await.ok();
            let sids: Vec<String> =
                service.get(&format!("/calls/{call_id}")).await.ok()["attempts"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|attempt| attempt["call_sid"].as_str().unwrap().to_owned())
                    .collect();
            for sid in &sids {
                assert_eq!(listed(&service, &format!("call_sid={sid}")).await, [call_id]);
            }
            assert!(!sids.is_empty());
        }
    }
    // By one event each where they come in order.
    let leading = sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from events
        join calls on calls.id = events.call
        where calls.call_id = 'in-order' and call_sid is not null and not repeats_call_sid
        "#
    );
    assert_eq!(leading.fetch_one(&database.pool().await).await.unwrap(), 2);
}

#[tokio::test]
async fn a_call_is_stalled_for_as_long_as_no_delivery_comes_for_it() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    deliver(&service, "OUTBOUND_CALL_CALLING", "forgotten", 1).await;
    deliver(&service, "OUTBOUND_CALL_CALLING", "heard-of", 2).await;
    let later = "update calls set last_delivered_at = last_delivered_at - interval '20 minutes'";
    sqlx::Executor::execute(&mut database.connect().await, later).await.unwrap();
    // A delivery that is seen before counts too.
    deliver(&service, "OUTBOUND_CALL_CALLING", "heard-of", 2).await;
    assert_eq!(listed(&service, "stalled_for=15m").await, ["forgotten"]);
    assert_eq!(listed(&service, "stalled_for=25m").await, [""; 0]);
}

#[tokio::test]
async fn every_bad_parameter_of_a_list_is_named() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let detail = service
        .get(
            "/calls?status=BUSY,,busy&direction=up&project_id=%00&client_id=%00&call_sid=%00\
             &terminal=1&has_errors=yes&anomalous=TRUE&stalled_for=15&from=today&to=2026-05-12\
             &limit=501&cursor=AAAA&colour=red",
        )
        .await
        .problem(400);
    for parameter in [
        "status",
        "direction",
        "project_id",
        "client_id",
        "call_sid",
        "terminal",
        "has_errors",
        "anomalous",
        "stalled_for",
        "from",
        "to",
        "limit",
        "cursor",
        "colour",
    ] {
        assert!(detail.contains(&format!("{parameter}: ")), "{parameter} is not named in {detail}");
    }
    let empty = "/calls?status=&direction=&client_id=&limit=&cursor=&from=&stalled_for=";
    assert_eq!(service.get(empty).await.ok(), json!({"calls": [], "next_cursor": null}));
    for limit in ["0", "-1", "many"] {
        service.get(&format!("/calls?limit={limit}")).await.problem(400);
    }
}

#[tokio::test]
async fn a_span_that_ends_before_it_begins_is_refused() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let span = "from=2026-05-12T12:00:00.000001Z&to=2026-05-12T12:00:00Z";
    for path in ["/calls", "/reports/outcomes"] {
        let detail = service.get(&format!("{path}?{span}")).await.problem(400);
        assert!(detail.contains("from: must"), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_plus_sign_that_was_not_encoded_is_refused_with_a_hint() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut body = delivery("OUTBOUND_CALL_BUSY", "call-1", 0, None);
    body["body"]["data"]["clientId"] = "+49 30 1234".into();
    service.deliver(body.to_string()).await.ok();
    assert_eq!(listed(&service, "client_id=%2B49+30%201234").await, ["call-1"]);
    for query in ["/calls?client_id=+49+30+1234", "/calls?client_id=%2B49+30+1234+"] {
        let detail = service.get(query).await.problem(400);
        assert!(detail.contains("client_id: ") && detail.contains("%2B"), "{query}: {detail}");
    }
    for query in [
        "/calls?project_id=+a",
        "/calls?status=BUSY&status=%09ERROR",
        "/calls?status=BUSY,+ERROR",
        "/calls/call-1?project_id=a%20",
        "/calls/call-1/history?project_id=+",
        "/stream?status=+BUSY",
        "/reports/outcomes?group_by=direction+",
    ] {
        let detail = service.get(query).await.problem(400);
        assert!(detail.contains("%2B"), "{query}: {detail}");
    }
}

/// So many calls, of which ten begin at a time, each in two projects by turns.
pub(super) async fn many(service: &Service, calls: u32) {
    for number in 0..calls {
        let mut body = delivery(
            "OUTBOUND_CALL_CALLING",
            &format!("c-{}", number / 2),
            600 + number / 10,
            Some("CA1"),
        );
        body["projectId"] = ["p-1", "p-2"][number as usize % 2].into();
        service.deliver(body.to_string()).await.ok();
    }
}

/// Filters that leave all the calls, each found in another way.
pub(super) const WAYS: [&str; 4] =
    ["", "client_id=client-1", "call_sid=CA1", "direction=outbound&terminal=false"];

#[tokio::test]
async fn a_key_that_is_limited_to_projects_lists_nothing_of_the_others() {
    let database = Database::create().await;
    let with_keys = |command: &mut Command| {
        command.arg("--require-key");
    };
    let service = Service::start_with(&database, with_keys).await;
    many(&service, 40).await;
    let key = |projects: &[&str]| {
        let url = database.url();
        let mut arguments = vec!["keys", "create", "--name", "k", "--database-url", &url];
        for project_id in projects {
            arguments.extend(["--project", project_id]);
        }
        String::from_utf8(callstate(&arguments).stdout).unwrap().trim().to_owned()
    };
    let (all, one) = (key(&[]), key(&["p-2"]));
    let list = async |key: &str, filter: &str| {
        let request =
            service.request("GET", &format!("/calls?limit=500&{filter}")).bearer_auth(key);
        let page = service.send(request).await.ok();
        let calls = page["calls"].as_array().unwrap().clone();
        calls.iter().map(|call| call["project_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for way in WAYS {
        assert_eq!(list(&all, way).await.len(), 40, "{way}");
        assert_eq!(list(&one, way).await, vec!["p-2"; 20], "{way}");
        assert_eq!(list(&one, &format!("{way}&project_id=p-1")).await, [""; 0], "{way}");
    }
    // More projects than are merged.
    let names: Vec<String> = (2..40).map(|number| format!("p-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(list(&key(&names), "").await, vec!["p-2"; 20]);
    service.get("/calls").await.problem(401);
}

#[tokio::test]
async fn a_list_names_each_project_of_a_call_id() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for project_id in ["p-1", PROJECT, "p-2"] {
        let mut body = delivery("OUTBOUND_CALL_BUSY", "c", 1, None);
        body["projectId"] = project_id.into();
        service.deliver(body.to_string()).await.ok();
    }
    let page = service.get("/calls").await.ok();
    let projects: Vec<&Value> =
        page["calls"].as_array().unwrap().iter().map(|call| &call["project_id"]).collect();
    // At the same moment, the call that was stored last comes first.
    assert_eq!(projects, ["p-2", PROJECT, "p-1"]);
}

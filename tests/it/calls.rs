//! `GET /calls/{call_id}`, its history, the state machine and health.

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use crate::support::{
    Database, Service, callstate,
    delivery::{delivery, fixture},
};

#[tokio::test]
async fn a_redialled_call_has_an_attempt_for_each_dial() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (event_type, second, sid) in [
        ("OUTBOUND_CALL_CALLING", 1, "A"),
        ("OUTBOUND_CALL_BUSY", 2, "A"),
        ("OUTBOUND_CALL_CALLING", 9, "B"),
        ("OUTBOUND_CALL_COMPLETED", 12, "B"),
    ] {
        service
            .deliver(delivery(event_type, "redialled", second, Some(sid)).to_string())
            .await
            .ok();
    }
    let call = service.get("/calls/redialled").await.ok();
    assert_eq!((&call["status"], &call["attempt_count"]), (&json!("COMPLETED"), &json!(2)));
    assert_eq!(
        call["attempts"],
        json!([
            {"number": 1, "call_sid": "A", "status": "BUSY",
             "started_at": "2026-05-12T12:00:01Z", "ended_at": "2026-05-12T12:00:02Z"},
            {"number": 2, "call_sid": "B", "status": "COMPLETED",
             "started_at": "2026-05-12T12:00:09Z", "ended_at": "2026-05-12T12:00:12Z"},
        ]),
    );
    assert_eq!(call["call_sid"], "B");
    assert_eq!(call["ended_at"], "2026-05-12T12:00:12Z");
}

#[tokio::test]
async fn a_call_that_is_dialed_very_often_has_all_its_attempts() {
    let database = Database::create().await;
    let mut service = Service::start(&database).await;
    let deliver = async |service: &Service, event_type: &str, second: u32, dial: u32| {
        let dial = format!("dial-{dial}");
        let body = delivery(event_type, "often", second, Some(&dial));
        service.deliver(body.to_string()).await.ok();
    };
    for dial in 1..=40 {
        // Sometimes from the cache of the writer, sometimes from the database.
        if dial % 15 == 0 {
            service = Service::start(&database).await;
        }
        deliver(&service, "OUTBOUND_CALL_CALLING", 20 * dial, dial).await;
        deliver(&service, "OUTBOUND_CALL_BUSY", 20 * dial + 10, dial).await;
    }

    // A late outcome counts for its attempt.
    deliver(&service, "OUTBOUND_CALL_UNREACHABLE", 1000, 3).await;
    deliver(&service, "OUTBOUND_CALL_ERROR", 1001, 38).await;
    let is_verified = |events: u32| {
        let verified = callstate(&["verify", "--database-url", &database.url()]);
        let said = String::from_utf8(verified.stdout).unwrap();
        assert_eq!(said, format!("folded {events} events of 1 calls: no difference\n"));
    };
    is_verified(82);
    // One that happened before all others makes the call be folded again.
    deliver(&service, "OUTBOUND_CALL_REQUESTED", 19, 1).await;
    let call = service.get("/calls/often").await.ok();
    assert_eq!(call["attempt_count"], 40);
    for (attempt, dial) in call["attempts"].as_array().unwrap().iter().zip(1..) {
        assert_eq!(attempt["number"], dial);
        assert_eq!(attempt["call_sid"], format!("dial-{dial}"));
        assert_eq!(attempt["status"], "BUSY", "{dial}");
    }
    for dial in ["dial-2", "dial-39"] {
        let found = service.get(&format!("/calls?call_sid={dial}")).await.ok();
        assert_eq!(found["calls"][0]["call_id"], "often", "{dial}");
    }
    is_verified(83);
}

#[tokio::test]
async fn a_call_that_does_not_exist_is_404() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    assert_eq!(service.get("/calls/nobody").await.problem(404), "there is no call nobody");
    service.get("/calls/nobody/history").await.problem(404);
    service.deliver(fixture("outbound_busy")).await.ok();
    service.get("/calls/out-08?project_id=another").await.problem(404);
}

#[tokio::test]
async fn a_call_id_of_several_projects_is_409_until_the_project_is_said() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for project_id in ["p-2", "p-1"] {
        let body =
            json!({"eventType": "OUTBOUND_CALL_BUSY", "callId": "c", "projectId": project_id});
        service.deliver(body.to_string()).await.ok();
    }
    for path in ["/calls/c", "/calls/c/history"] {
        let answer = service.get(path).await;
        assert!(answer.problem(409).contains("p-1, p-2"));
        assert_eq!(answer.json()["project_ids"], json!(["p-1", "p-2"]));
        let one = service.get(&format!("{path}?project_id=p-2")).await.ok();
        assert_eq!(one["project_id"], "p-2");
    }
}

#[tokio::test]
async fn bad_parameters_are_all_named() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let detail = service
        .get("/calls/c/history?limit=0&include=all&cursor=x&colour=red&project_id=%00")
        .await
        .problem(400);
    for parameter in ["limit", "include", "cursor", "colour", "project_id"] {
        assert!(detail.contains(&format!("{parameter}: ")), "{parameter} is not named in {detail}");
    }
    assert!(service.get("/calls/%00").await.problem(400).contains("call_id"));
    assert!(service.get("/calls/%ff").await.problem(400).contains("call_id"));
    assert!(service.get("/health/live?verbose=1").await.problem(400).contains("verbose"));
    service.get("/calls/nobody?project_id=").await.problem(404);
}

#[tokio::test]
async fn a_history_comes_page_by_page_in_fold_order() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    // Backwards, and many at the same second.
    for place in (0..30).rev() {
        let event_type =
            if place % 2 == 0 { "OUTBOUND_CALL_CALLING" } else { "OUTBOUND_CALL_BUSY" };
        let mut body = delivery(event_type, "long", place / 10, None);
        body["body"]["place"] = place.into();
        service.deliver(body.to_string()).await.ok();
    }
    let whole = service.get("/calls/long/history").await.ok();
    assert_eq!(whole["next_cursor"], Value::Null);
    let mut paged: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = service.get(&format!("/calls/long/history?limit=7&cursor={cursor}")).await.ok();
        paged.extend(page["events"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(paged.len(), 30);
    assert_eq!(Value::Array(paged), whole["events"]);
}

#[tokio::test]
async fn a_page_with_payloads_ends_before_there_is_too_much_of_them() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_MAX_DELIVERY_BYTES", "20000000");
    })
    .await;
    let mut sent = Vec::new();
    for (second, megabytes) in [3, 4, 3, 9, 1, 1, 1].into_iter().enumerate() {
        let second = u32::try_from(second).unwrap();
        let mut body = delivery("OUTBOUND_CALL_CALLING", "large", second, None);
        body["padding"] = "x".repeat(megabytes << 20).into();
        service.deliver(body.to_string()).await.ok();
        sent.push(body);
    }
    for (limit, pages) in [("", vec![2, 1, 1, 3]), ("&limit=2", vec![2, 1, 1, 2, 1])] {
        let mut shown = Vec::new();
        let mut cursor = String::new();
        for length in pages {
            let path = format!("/calls/large/history?include=payload{limit}&cursor={cursor}");
            let page = service.get(&path).await.ok();
            let events = page["events"].as_array().unwrap();
            assert_eq!(events.len(), length, "after {}{limit}", shown.len());
            shown.extend(events.iter().map(|event| event["payload"].clone()));
            cursor = page["next_cursor"].as_str().unwrap_or_default().to_owned();
        }
        assert_eq!(cursor, "");
        assert!(shown == sent, "what is shown is not what was sent");
    }
    let without = service.get("/calls/large/history").await.ok();
    assert_eq!(without["events"].as_array().unwrap().len(), 7);
}

/// A delivery of a call that failed, with so many errors.
fn failure(call_id: &str, second: u32, errors: usize) -> String {
    let mut body = delivery("OUTBOUND_CALL_ERROR", call_id, second, None);
    body["body"]["errors"] = (0..errors)
        .map(|place| json!({"code": format!("{second}"), "message": format!("{place}")}))
        .collect();
    body.to_string()
}

#[tokio::test]
async fn a_call_shows_the_first_thousand_errors_in_fold_order() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    // The earlier event comes last.
    for second in [5, 9, 1] {
        service.deliver(failure("failed", second, 600)).await.ok();
    }
    let call = service.get("/calls/failed").await.ok();
    let errors = call["errors"].as_array().unwrap();
    let told: Vec<(&str, &str)> = errors
        .iter()
        .map(|error| (error["code"].as_str().unwrap(), error["message"].as_str().unwrap()))
        .collect();
    let places: Vec<String> = (0..600).map(|place| place.to_string()).collect();
    let of = |code| places.iter().map(move |place| (code, place.as_str()));
    assert_eq!(told, of("1").chain(of("5").take(400)).collect::<Vec<_>>());

    let history = service.get("/calls/failed/history").await.ok();
    let events = history["events"].as_array().unwrap();
    assert_eq!(errors[0]["event_id"], events[0]["event_id"]);
    assert_eq!(errors[999]["event_id"], events[1]["event_id"]);
    assert!(events.iter().all(|event| event["errors"].as_array().unwrap().len() == 600));
}

#[tokio::test]
async fn a_call_shows_no_error_of_an_event_that_came_after_it_was_read() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for second in [1, 2] {
        service.deliver(failure("failed", second, 1)).await.ok();
    }
    let later = "update events set received_at = received_at + interval '1 hour' \
                 where errors -> 0 ->> 'code' = '1'";
    database.connect().await.execute(later).await.unwrap();
    let call = service.get("/calls/failed").await.ok();
    let codes: Vec<&Value> =
        call["errors"].as_array().unwrap().iter().map(|error| &error["code"]).collect();
    assert_eq!(codes, ["2"]);
}

#[tokio::test]
async fn a_question_that_the_database_leaves_unanswered_is_503() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut other = database.connect().await;
    let mut tx = other.begin().await.unwrap();
    tx.execute("lock table calls in access exclusive mode").await.unwrap();
    assert_eq!(service.get("/calls/c").await.problem(503), "The database is away.");
    tx.rollback().await.unwrap();
    service.get("/calls/c").await.problem(404);
}

#[tokio::test]
async fn health_tells_whether_the_database_answers() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    assert_eq!(service.get("/health/live").await.ok(), json!({"status": "live"}));
    assert_eq!(service.get("/health/ready").await.ok(), json!({"status": "ready"}));
}

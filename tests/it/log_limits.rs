//! The number of log lines that a sender or a failing dependency can cause is bounded.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;

use crate::support::{Database, Service, delivery::delivery};

/// A delivery of a call with that number.
fn numbered(number: usize) -> String {
    delivery("OUTBOUND_CALL_BUSY", &format!("call {number}"), 1, None).to_string()
}

/// Sends deliveries for that long, many at a time, and returns the responses by status.
async fn flood(service: &Service, duration: Duration, body: impl Fn(usize) -> String) -> Vec<u16> {
    let end = Instant::now() + duration;
    let mut statuses = Vec::new();
    while Instant::now() < end {
        let sent = (0..50).map(|number| service.deliver(body(statuses.len() + number)));
        let answers = join_all(sent).await;
        statuses.extend(answers.iter().map(|answer| answer.status));
    }
    statuses
}

/// The log lines that are there now.
fn lines(service: &Service) -> Vec<Value> {
    let said = service.hears().borrow().clone();
    said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn an_outage_of_the_database_is_a_few_lines() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(numbered(0)).await.ok();
    database.close().await;
    let started = Instant::now();
    let statuses = flood(&service, Duration::from_millis(2500), numbered).await;
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    let refused = statuses.len();
    database.open().await;
    while service.deliver(numbered(0)).await.status != 200 {}
    service.said("the database can be written to again").await;
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();

    let lines = lines(&service);
    let about = |message: &str| {
        let about = lines.iter().filter(|line| line["message"] == message);
        about.cloned().collect::<Vec<_>>()
    };
    let begun = about("the database cannot be written to");
    let ongoing = about("the database still cannot be written to");
    let ended = about("the database can be written to again");
    assert_eq!((begun.len(), ended.len()), (1, 1), "{lines:?}");
    assert!((1..=seconds + 1).contains(&ongoing.len()), "{ongoing:?}");
    let counted = usize::try_from(ended[0]["refused"].as_u64().unwrap()).unwrap();
    assert!(counted >= refused, "{counted} of {refused}");
    for line in [&begun[0], &ongoing[0], &ended[0]] {
        assert_eq!(line["since"], begun[0]["since"]);
        assert!(line["why"].as_str().unwrap().contains("database"), "{line}");
    }
    // Those above, and few others, such as of requests that were under way.
    assert!(lines.len() <= 3 * (seconds + 2), "{} lines in {seconds} s", lines.len());
}

#[tokio::test]
async fn the_lines_about_deliveries_are_limited_and_counted() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command
            .env("CALLSTATE_WEBHOOKS_DEFAULT_AUTH", "none")
            .env("CALLSTATE_WEBHOOKS_DEFAULT_PROJECTS", "mine");
    })
    .await;
    let started = Instant::now();
    let quarantined = |number: usize| format!("no JSON {number}");
    let quarantined = flood(&service, Duration::from_millis(1500), quarantined).await;
    assert!(quarantined.iter().all(|status| *status == 202), "{quarantined:?}");
    let refused = flood(&service, Duration::from_millis(1500), numbered).await;
    assert!(refused.iter().all(|status| *status == 403), "{refused:?}");
    service.said(r#""kind":"project_not_accepted""#).await;
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    let mut said = service.hears();
    for (kind, message, deliveries) in [
        ("quarantined", "a delivery is kept in the quarantine", quarantined.len()),
        (
            "project_not_accepted",
            "a delivery is of a project that its endpoint does not accept",
            refused.len(),
        ),
    ] {
        let counted = |said: &String| {
            let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let lines: Vec<Value> = lines.collect();
            let written = lines.iter().filter(|line| line["message"] == message).count();
            let further = lines.iter().filter(|line| line["kind"] == kind);
            let further = further.map(|line| line["lines"].as_u64().unwrap()).sum::<u64>();
            written + usize::try_from(further).unwrap() == deliveries
        };
        let waiting = said.wait_for(counted);
        tokio::time::timeout(Duration::from_mins(1), waiting)
            .await
            .expect("all lines are written or counted in time")
            .expect("the sender is the service's");
    }
    let lines = lines(&service);
    assert!(lines.len() <= 3 * (seconds + 3), "{} lines in {seconds} s", lines.len());
}

#[tokio::test]
async fn the_lines_about_requests_without_a_key_are_limited() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_API_REQUIRE_KEY", "true");
    })
    .await;
    for _ in 0..200 {
        service.get("/calls/c").await.problem(401);
    }
    let mut said = service.hears();
    let counted = |said: &String| {
        let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = lines.collect();
        let written = lines.iter().filter(|line| line["message"] == "a request was refused");
        let further = lines.iter().filter(|line| line["kind"] == "request_refused");
        let further = further.map(|line| line["lines"].as_u64().unwrap()).sum::<u64>();
        written.count() as u64 + further == 200
    };
    let waiting = said.wait_for(counted);
    tokio::time::timeout(Duration::from_mins(1), waiting)
        .await
        .expect("all lines are written or counted in time")
        .expect("the sender is the service's");
    assert!(lines(&service).len() < 50, "{:?}", lines(&service));
}

//! `GET /calls/{call_id}?wait=SECONDS`: held until the call has ended, by whichever instance.

use serde_json::{Value, json};

use crate::support::{
    Database, Service,
    delivery::{delivery, fixture},
};

fn event(event_type: &str, call_id: &str, second: u32) -> String {
    delivery(event_type, call_id, second, Some("A")).to_string()
}

#[tokio::test]
async fn a_call_that_has_ended_is_not_waited_for() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    assert_eq!(service.get("/calls/out-08?wait=60").await.ok()["status"], "BUSY");
    assert_eq!(service.get("/calls/out-08?wait=0").await.ok()["status"], "BUSY");
}

#[tokio::test]
async fn when_the_time_is_up_the_call_is_shown_as_it_is() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        // Waiting on purpose takes no answer too long.
        command.env("CALLSTATE_HTTP_ANSWER_TIMEOUT", "100ms");
    })
    .await;
    service.deliver(event("OUTBOUND_CALL_CALLING", "c", 1)).await.ok();
    assert_eq!(service.get("/calls/c?wait=1").await.ok()["status"], "CALLING");
    service.get("/calls/nobody?wait=1").await.problem(404);
}

#[tokio::test]
async fn bad_waits_are_refused() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for wait in ["61", "-1", "1.5", "soon"] {
        let detail = service.get(&format!("/calls/c?wait={wait}")).await.problem(400);
        assert_eq!(detail, "wait: must be a number of seconds from 0 to 60", "{wait}");
    }
    service.get("/calls/c/history?wait=1").await.problem(400);
    let detail = service.get("/calls/c?wait=1&as_of=2026-05-12T12:00:00Z").await.problem(400);
    assert_eq!(detail, "wait: what was known as_of a time does not change");
}

#[tokio::test]
async fn an_ambiguous_call_is_not_waited_for() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for project_id in ["p-1", "p-2"] {
        let body =
            json!({"eventType": "INBOUND_CALL_CALLING", "callId": "c", "projectId": project_id});
        service.deliver(body.to_string()).await.ok();
    }
    assert!(service.get("/calls/c?wait=60").await.problem(409).contains("p-1, p-2"));
}

#[tokio::test]
async fn whoever_waits_hears_of_the_end_over_any_instance() {
    const CALLS: usize = 50;
    let database = Database::create().await;
    let (here, there) = (Service::start(&database).await, Service::start(&database).await);
    // Half of the calls are not known yet when they are asked for.
    let begin = async |number: usize| {
        here.deliver(event("OUTBOUND_CALL_CALLING", &format!("call-{number}"), 1)).await.ok()
    };
    for number in (0..CALLS).step_by(2) {
        begin(number).await;
    }
    let waiting: Vec<_> = (0..4 * CALLS)
        .map(|number| {
            let service = if number < 2 * CALLS { &here } else { &there };
            let request =
                service.request("GET", &format!("/calls/call-{}?wait=60", number % CALLS));
            tokio::spawn(request.send())
        })
        .collect();
    here.so_many_wait(2 * CALLS).await;
    there.so_many_wait(2 * CALLS).await;
    for number in 0..CALLS {
        // Of those that are known it is a delivery that was seen before.
        begin(number).await;
        here.deliver(event("OUTBOUND_CALL_COMPLETED", &format!("call-{number}"), 2)).await.ok();
    }
    for (number, answer) in waiting.into_iter().enumerate() {
        let answer = answer.await.unwrap().expect("it answers");
        assert_eq!(answer.status(), 200);
        let call: Value = answer.json().await.unwrap();
        assert_eq!(call["call_id"], format!("call-{}", number % CALLS));
        assert_eq!(call["status"], "COMPLETED");
    }
}

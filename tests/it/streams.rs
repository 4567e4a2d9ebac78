//! `GET /stream` and `GET /calls/{call_id}/stream`: what is told, to whom, and in which order.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, postgres::PgListener};

use crate::support::{
    Database, Service, Stream, callstate,
    delivery::{delivery, fixture},
    provider::{Provider, shuffled},
};

/// An outbound call that is dialled and found busy.
async fn deliver_busy(service: &Service, call_id: &str) {
    for (event_type, second) in [("OUTBOUND_CALL_CALLING", 1), ("OUTBOUND_CALL_BUSY", 2)] {
        service.deliver(delivery(event_type, call_id, second, Some("A")).to_string()).await.ok();
    }
}

fn short(call: &Value) -> (&str, &str) {
    (call["call_id"].as_str().unwrap(), call["status"].as_str().unwrap())
}

#[tokio::test]
async fn a_stream_tells_each_event_with_its_call_as_it_then_stood() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut stream = service.listen("/stream").await;
    let mut body = delivery("OUTBOUND_CALL_BUSY", "c", 9, Some("A"));
    body["body"]["errors"] = json!([{"code": "E"}]);
    let answer = service.deliver(body.to_string()).await.ok();
    let call = stream.call().await;
    let updated_at = &service.get("/calls/c").await.ok()["updated_at"];
    assert_eq!(
        call,
        json!({
            "call_id": "c", "project_id": "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1",
            "direction": "outbound", "status": "BUSY", "terminal": true, "attempt_count": 1,
            "has_errors": true, "event_id": answer["event_id"],
            "event_type": "OUTBOUND_CALL_BUSY", "disposition": "advanced",
            "updated_at": updated_at,
        }),
    );
    // A redial, then what was late, then what changes nothing, then what nobody knows.
    for (event_type, second, sid, expected) in [
        ("OUTBOUND_CALL_CALLING", 20, "B", ("redialed", "CALLING", 2, false)),
        ("OUTBOUND_CALL_PENDING", 1, "A", ("advanced", "CALLING", 2, false)),
        ("OUTBOUND_CALL_CALLING", 21, "B", ("repeated", "CALLING", 2, false)),
        ("OUTBOUND_CALL_SINGING", 22, "B", ("unrecognized", "CALLING", 2, false)),
        ("OUTBOUND_CALL_COMPLETED", 30, "B", ("advanced", "COMPLETED", 2, true)),
    ] {
        let body = delivery(event_type, "c", second, Some(sid)).to_string();
        service.deliver(body.clone()).await.ok();
        // Seen before, it is no event and not told.
        service.deliver(body).await.ok();
        let call = stream.call().await;
        let told = (
            call["disposition"].as_str().unwrap(),
            call["status"].as_str().unwrap(),
            call["attempt_count"].as_i64().unwrap(),
            call["terminal"].as_bool().unwrap(),
        );
        assert_eq!(told, expected, "{event_type}");
        assert_eq!((&call["event_type"], &call["has_errors"]), (&json!(event_type), &json!(true)));
    }
}

#[tokio::test]
async fn each_commit_that_stores_something_gives_the_instances_a_hint_and_no_other() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let pool = database.pool().await;
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("callstate_stored").await.unwrap();
    let body = delivery("OUTBOUND_CALL_BUSY", "c", 9, Some("A")).to_string();
    for _ in 0..2 {
        service.deliver(body.clone()).await.ok();
    }
    // Hints come in the order of commits, and the second delivery stored nothing.
    pool.execute("select pg_notify('callstate_stored', 'ours')").await.unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "");
    assert_eq!(listener.recv().await.unwrap().payload(), "ours");
}

#[tokio::test]
async fn a_stream_tells_what_it_is_asked_for() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let project = "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1";
    let mut of_call = service.listen("/calls/two/stream").await;
    let mut busy = service.listen("/stream?status=BUSY,COMPLETED").await;
    let mut inbound = service.listen("/stream?direction=inbound").await;
    let mut of_project = service.listen("/stream?project_id=other&status=").await;
    let mut of_both =
        service.listen(&format!("/calls/two/stream?project_id={project}&status=BUSY")).await;
    deliver_busy(&service, "one").await;
    deliver_busy(&service, "two").await;
    let other = json!({"eventType": "INBOUND_CALL_CALLING", "callId": "in", "projectId": "other"});
    service.deliver(other.to_string()).await.ok();

    assert_eq!(short(&of_call.call().await), ("two", "CALLING"));
    assert_eq!(short(&of_call.call().await), ("two", "BUSY"));
    assert_eq!(short(&busy.call().await), ("one", "BUSY"));
    assert_eq!(short(&busy.call().await), ("two", "BUSY"));
    assert_eq!(short(&of_both.call().await), ("two", "BUSY"));
    for stream in [&mut inbound, &mut of_project] {
        assert_eq!(short(&stream.call().await), ("in", "CALLING"));
    }
    // The same from the store, behind the first message of all.
    let first = "/stream?status=CALLING&direction=outbound";
    let mut all = service.listen(first).await;
    deliver_busy(&service, "three").await;
    assert_eq!(short(&all.call().await), ("three", "CALLING"));
    let mut again = service.listen_after("/calls/two/stream", &of_call.last_id).await;
    let mut behind = service.listen_after(first, &busy.last_id).await;
    assert_eq!(short(&behind.call().await), ("three", "CALLING"));
    deliver_busy(&service, "two").await;
    service.deliver(delivery("OUTBOUND_CALL_CALLING", "two", 9, Some("B")).to_string()).await.ok();
    assert_eq!(short(&again.call().await), ("two", "CALLING"));
}

#[tokio::test]
async fn bad_parameters_and_ids_are_refused_by_name() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let wrong = "direction=sideways&status=BUSY,ASLEEP&project_id=%00&limit=3";
    for path in ["/stream", "/calls/c/stream"] {
        let detail =
            service.may_not_listen_after(&format!("{path}?{wrong}"), "x").await.problem(400);
        for name in ["direction", "status", "project_id", "limit", "Last-Event-ID"] {
            assert!(detail.contains(&format!("{name}: ")), "{name} is not named in {detail}");
        }
    }
    for id in ["0", "x-1", "1-", "1-x", "1--1", "1-1-1", "1-9223372036854775808"] {
        service.may_not_listen_after("/stream", id).await.problem(400);
    }
    service.listen_after("/stream", "").await;
    for project_id in ["p-1", "p-2"] {
        let body =
            json!({"eventType": "INBOUND_CALL_ERROR", "callId": "c", "projectId": project_id});
        service.deliver(body.to_string()).await.ok();
    }
    assert!(service.get("/calls/c/stream").await.problem(409).contains("p-1, p-2"));
    service.listen("/calls/c/stream?project_id=p-1").await;
}

#[tokio::test]
async fn every_instance_tells_the_same_in_the_same_order() {
    let database = Database::create().await;
    let (here, there) = (Service::start(&database).await, Service::start(&database).await);
    let mut streams = [here.listen("/stream").await, there.listen("/stream").await];
    let deliver = async |service: &Service, name: &str| {
        for number in 0..20 {
            deliver_busy(service, &format!("{name}-{number}")).await;
        }
    };
    tokio::join!(deliver(&here, "a"), deliver(&there, "b"), deliver(&here, "c"));
    let [one, other] = &mut streams;
    let (one, other) = (one.calls(120).await, other.calls(120).await);
    assert_eq!(one, other);
    let events: BTreeSet<&String> = one.iter().map(|(_, event_id)| event_id).collect();
    assert_eq!(events.len(), 120);

    // From wherever one goes on, the rest is told, by either.
    for place in [0, 1, 59, 118] {
        let mut rest = there.listen_after("/stream", &one[place].0).await;
        assert_eq!(rest.calls(119 - place).await, one[place + 1..]);
    }
}

/// A transaction that stays open does not delay what others store.
#[tokio::test]
async fn an_open_transaction_delays_neither_streams_nor_waits() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut other = database.connect().await;
    let mut open = other.begin().await.unwrap();
    open.execute("select pg_current_xact_id()").await.unwrap();
    let mut stream = service.listen("/stream").await;
    deliver_busy(&service, "c").await;
    assert_eq!(stream.calls(2).await.len(), 2);
    assert_eq!(service.get("/calls/c?wait=60").await.ok()["status"], "BUSY");
    open.rollback().await.unwrap();
}

#[tokio::test]
async fn positions_are_distinct_however_many_instances_write() {
    const CALLS: usize = 40;
    let database = Database::create().await;
    let (here, there) = (Service::start(&database).await, Service::start(&database).await);
    Provider::start(shuffled(CALLS, 2), &[&here, &there]).finish().await;
    let events = i64::try_from(CALLS * 8).unwrap();
    let row = sqlx::query!(
        r#"
        select count(distinct events.position) as "positions!",
            max(events.position) as "last!", min(feed_head.position) as "head!"
        from events cross join feed_head
        "#
    )
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap();
    assert_eq!((row.positions, row.head), (events, row.last));
}

#[tokio::test]
async fn a_key_hears_of_its_projects_and_no_longer_than_it_is_good() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.arg("--require-key");
    })
    .await;
    let url = database.url();
    let key = |name: &str, more: &[&str]| {
        let create = ["keys", "create", "--database-url", &url, "--name", name];
        let key = callstate(&[&create[..], more].concat());
        String::from_utf8(key.stdout).unwrap().trim().to_owned()
    };
    let (one, all) = (key("one", &["--project", "one"]), key("all", &[]));
    let asked = |path: &str, key: &str| {
        service.request("GET", path).header("Authorization", format!("Bearer {key}"))
    };
    service.get("/stream").await.problem(401);
    let mut of_one = Stream::open(asked("/stream", &one)).await;
    let mut of_another = Stream::open(asked("/stream?project_id=two", &one)).await;
    let mut of_every = Stream::open(asked("/stream", &all)).await;
    for project_id in ["two", "one"] {
        let body =
            json!({"eventType": "INBOUND_CALL_CALLING", "callId": "c", "projectId": project_id});
        service.deliver(body.to_string()).await.ok();
    }
    assert_eq!(of_one.call().await["project_id"], "one");
    assert_eq!(of_every.call().await["project_id"], "two");

    let revoked = callstate(&["keys", "revoke", "one", "--database-url", &url]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    for stream in [&mut of_one, &mut of_another] {
        assert_eq!(stream.next().await.expect("a last word").end(), "key_refused");
        assert_eq!(stream.next().await, None);
    }
    assert_eq!(of_every.call().await["project_id"], "one");
    service.send(asked("/stream", &one)).await.problem(401);
}

#[tokio::test]
async fn a_thousand_listen_over_one_connection_to_the_database() {
    const LISTENERS: usize = 1000;
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_HTTP_MAX_CONNECTIONS", "2100");
        command.env("CALLSTATE_DATABASE_CONNECTIONS", "2");
    })
    .await;
    let opening = (0..LISTENERS).map(|number| {
        let path =
            if number % 2 == 0 { "/stream".to_owned() } else { format!("/calls/{number}/stream") };
        let service = &service;
        async move { service.listen(&path).await }
    });
    let mut streams = futures_util::future::join_all(opening).await;
    let metrics = service.get("/metrics").await.text;
    assert!(metrics.contains(&format!("\ncallstate_stream_listeners {LISTENERS}\n")), "{metrics}");
    let connections: i64 = sqlx::query_scalar!(
        r#"
        select count(*) as "connections!" from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
        "#
    )
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap();
    assert!(connections <= 4, "the pool, the writer and the streams need four, not {connections}");

    service.deliver(fixture("outbound_busy")).await.ok();
    deliver_busy(&service, "1").await;
    for (number, stream) in streams.iter_mut().enumerate() {
        match number {
            1 => assert_eq!(stream.calls(2).await.len(), 2),
            _ if number % 2 == 0 => assert_eq!(stream.calls(3).await.len(), 3),
            _ => {}
        }
    }
    let metrics = service.get("/metrics").await.text;
    let told = LISTENERS / 2 * 3 + 2;
    assert!(metrics.contains(&format!("\ncallstate_stream_messages_total {told}\n")), "{metrics}");
}

#[tokio::test]
async fn streams_and_waits_over_the_limit_are_refused() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_API_MAX_LISTENERS", "1");
    })
    .await;
    // One after the other there is room.
    for _ in 0..2 {
        service.get("/calls/c?wait=0").await.problem(404);
    }
    let _stream = service.listen("/stream").await;
    for path in ["/stream", "/calls/c/stream", "/calls/c?wait=1"] {
        let answer = service.get(path).await;
        assert_eq!(
            answer.problem(503),
            "The limit of open streams and waits is reached.",
            "{path}"
        );
        assert_eq!(answer.header("retry-after"), "1");
    }
    service.get("/calls/c").await.problem(404);
    // A refusal is not a failure of the service.
    let said = service.said("The limit of open streams and waits is reached.").await;
    assert!(said.contains("a request was refused") && !said.contains("ERROR"), "{said}");
}

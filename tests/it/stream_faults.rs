//! Streams when something breaks: no event is left out and none is sent twice.

use std::fs;

use callstate::managed_postgres::Claim;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::support::{
    Database, Place, Service, callstate,
    delivery::{delivery, fixture},
    provider::{Provider, shuffled},
};

/// The ids of all events that are stored, in the order in which they were.
async fn stored(database: &Database) -> Vec<String> {
    let ids = "select callstate_event_id(calls.project_id, calls.call_id, events.fingerprint)::text
        from events join calls on calls.id = events.call
        order by events.position";
    let rows = database.connect().await.fetch_all(ids).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_stream_is_taken_up_again_under_load_whenever_its_service_is_killed() {
    const ROUNDS: usize = 6;
    const CALLS: usize = 150;
    let database = Database::create().await;
    // One delivers to both, listens to the one that is killed, and to the other all the time.
    let (mut dies, lives) = (Service::start(&database).await, Service::start(&database).await);
    let (mut stream, mut whole) = (dies.listen("/stream").await, lives.listen("/stream").await);
    let deliveries = shuffled(CALLS, 1);
    let each_round = deliveries.len() / (ROUNDS + 1);
    let provider = Provider::start(deliveries, &[&lives, &dies]);
    let mut told = Vec::new();
    for round in 1..=ROUNDS {
        provider.answered(round * each_round).await;
        provider.goes_to(&lives);
        dies.kill_9();
        let (blocks, last_id) = stream.breaks().await;
        told.extend(
            blocks.iter().map(|block| block.call()["event_id"].as_str().unwrap().to_owned()),
        );
        dies = Service::start(&database).await;
        stream = dies.listen_after("/stream", &last_id).await;
        provider.goes_to(&dies);
    }
    let rest = stream.calls(CALLS * 8 - told.len()).await;
    told.extend(rest.into_iter().map(|(_, event_id)| event_id));
    provider.finish().await;
    assert_eq!(told, stored(&database).await);
    let whole: Vec<String> =
        whole.calls(CALLS * 8).await.into_iter().map(|(_, event_id)| event_id).collect();
    assert_eq!(told, whole);
}

/// Ends all connections of the database but this one.
async fn cut_connections(conn: &mut PgConnection) {
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    let cut: i64 = conn.fetch_one(cut).await.unwrap().get(0);
    assert!(cut > 0);
}

#[tokio::test]
async fn streams_stay_open_when_their_connections_to_the_database_are_cut() {
    const CALLS: usize = 40;
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut stream = service.listen("/stream").await;
    let mut conn = database.connect().await;
    let provider = Provider::start(shuffled(CALLS, 1), &[&service]);
    for round in 1..=4 {
        provider.answered(round * CALLS).await;
        cut_connections(&mut conn).await;
    }
    provider.finish().await;
    let told = stream.calls(CALLS * 8).await.into_iter().map(|(_, event_id)| event_id);
    assert_eq!(told.collect::<Vec<_>>(), stored(&database).await);
}

#[tokio::test]
async fn whoever_comes_when_nobody_was_there_is_told_and_only_what_is_new() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_DATABASE_CONNECTIONS", "1");
    })
    .await;
    let mut conn = database.connect().await;
    for round in 0..4 {
        let call_id = format!("call-{round}");
        let deliver = async |event_type: &str, second| {
            let body = delivery(event_type, &call_id, second, None).to_string();
            service.deliver(body).await.ok()
        };
        let mut stream = service.listen("/stream").await;
        let event_id = deliver("OUTBOUND_CALL_CALLING", 1).await["event_id"].clone();
        assert_eq!(stream.call().await["event_id"], event_id);
        let waiting = service.request("GET", &format!("/calls/{call_id}?wait=60")).send();
        let waiting = tokio::spawn(waiting);
        service.so_many_wait(1).await;
        deliver("OUTBOUND_CALL_BUSY", 2).await;
        assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
        stream.call().await;
        drop(stream);
        service.so_many_listen(0).await;
        if round % 2 == 0 {
            cut_connections(&mut conn).await;
            // Those for questions and of the writer are found out by who needs them; the hub's is needed by nobody.
            service.get("/calls/nobody").await;
            service.deliver(fixture("outbound_busy")).await;
        }
        // Nobody is told of this one.
        let unheard = delivery("OUTBOUND_CALL_CALLING", "unheard", round, None).to_string();
        service.deliver(unheard).await.ok();
    }
}

/// More than a page of events with an unknown status, and after them a valid one.
#[tokio::test]
async fn invalid_events_do_not_hide_those_after_them() {
    const INVALID: i64 = 600;
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut stream = service.listen("/stream").await;
    let before = stream.last_id.clone();
    let body = delivery("OUTBOUND_CALL_CALLING", "c", 1, None).to_string();
    service.deliver(body).await.ok();
    stream.call().await;
    let mut conn = database.connect().await;
    // The columns of the event, with another position, another fingerprint and another status.
    let columns = sqlx::query_scalar!(
        r#"
        select string_agg(
            case column_name
                when 'position' then 'position + number'
                when 'fingerprint' then 'sha256(number::text::bytea)'
                when 'call_status' then
                    format('case when number > %s then call_status else 999 end', $1::text)
                else quote_ident(column_name)
            end,
            ', ' order by ordinal_position
        ) as "columns!"
        from information_schema.columns
        where table_schema = 'public' and table_name = 'events'
        "#,
        INVALID.to_string(),
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    let insert = format!(
        "begin;
        insert into events select {columns} from events, generate_series(1, {INVALID} + 1) as number;
        select setval('feed_positions', (select max(position) from events));
        select pg_notify('callstate_stored', '');
        commit"
    );
    conn.execute(sqlx::AssertSqlSafe(insert)).await.unwrap();
    let (valid, _) = stream.calls(1).await.remove(0);
    assert!(valid.ends_with(&format!("-{}", INVALID + 2)), "{valid}");
    for path in ["/stream", "/calls/c/stream"] {
        let mut resumed = service.listen_after(path, &before).await;
        assert_eq!(resumed.calls(2).await[1].0, valid, "{path}");
    }
}

/// A delivery of which all that a stream tells is as long as may be.
fn long(number: usize) -> String {
    let name = |of: &str| format!("{of}{number:04}{}", "😀".repeat(250));
    json!({"eventType": name("E"), "callId": name("C"), "projectId": name("P")}).to_string()
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_so_and_goes_on_later() {
    // More than the systems and the service keep on the way, then more than the pages that are kept.
    const AT_ONCE: usize = 2500;
    const ONE_BY_ONE: usize = 300;
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_HTTP_READ_TIMEOUT", "1h");
    })
    .await;
    let mut slow = service.narrow_line().await;
    slow.send(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(slow.head().await.starts_with("http/1.1 200 "));
    let mut fast = service.listen("/stream").await;
    Provider::start((0..AT_ONCE).map(long).collect(), &[&service]).finish().await;
    let mut all = fast.calls(AT_ONCE).await;
    for number in AT_ONCE..AT_ONCE + ONE_BY_ONE {
        service.deliver(long(number)).await.ok();
        // Told by itself, it was a page by itself.
        all.extend(fast.calls(1).await);
    }

    let said = slow.chunks_until("{\"reason\":\"too_slow\"}\n\n").await;
    let ids = |text: &str| -> Vec<String> {
        let messages = text.split("\n\n").filter(|block| block.starts_with("event: call\n"));
        let id = |block: &str| {
            block.lines().find_map(|line| line.strip_prefix("id: ").map(str::to_owned))
        };
        messages.filter_map(id).collect()
    };
    let heard = ids(&said);
    assert!(!heard.is_empty() && heard.len() < all.len());
    let metrics = service.get("/metrics").await.text;
    assert!(metrics.contains("callstate_stream_ends_total{reason=\"too_slow\"} 1\n"), "{metrics}");

    let mut resumed = service.listen_after("/stream", heard.last().unwrap()).await;
    let rest = resumed.calls(all.len() - heard.len()).await;
    let told: Vec<String> = heard.into_iter().chain(rest.into_iter().map(|(id, _)| id)).collect();
    assert_eq!(told, all.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stop_ends_streams_and_waits_at_once() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let body = delivery("OUTBOUND_CALL_CALLING", "c", 1, None).to_string();
    service.deliver(body).await.ok();
    let mut stream = service.listen("/stream").await;
    let mut of_call = service.listen("/calls/c/stream").await;
    // One that takes nothing holds nobody up either.
    let mut deaf = service.narrow_line().await;
    deaf.send(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let waiting = tokio::spawn(service.request("GET", "/calls/c?wait=60").send());
    let nobody = tokio::spawn(service.request("GET", "/calls/nobody?wait=60").send());
    service.so_many_wait(2).await;
    let said = service.hears();
    service.stop().await;
    for stream in [&mut stream, &mut of_call] {
        assert_eq!(stream.next().await.expect("a last word").end(), "stopping");
        assert_eq!(stream.next().await, None);
    }
    let call: Value = waiting.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(call["status"], "CALLING");
    assert_eq!(nobody.await.unwrap().unwrap().status(), 404);
    assert!(!said.borrow().contains("did not end"), "{}", *said.borrow());
}

/// The database is restored from a copy that lacks the last events, and marked as restored.
#[tokio::test]
async fn a_stream_of_another_feed_is_reset() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut stream = service.listen("/stream").await;
    deliver_calls(&service, "before", 3).await;
    let ids: Vec<String> = stream.calls(3).await.into_iter().map(|(id, _)| id).collect();

    let marked = callstate(&["restore-mark", "--database-url", &database.url()]);
    assert!(marked.status.success(), "{}", String::from_utf8_lossy(&marked.stderr));
    stream.reset("other_feed").await;
    let mut resumed = service.listen_after("/stream", &ids[0]).await;
    let mut of_call = service.listen_after("/calls/before-1/stream", &ids[0]).await;
    for stream in [&mut resumed, &mut of_call] {
        let head = stream.reset("other_feed").await;
        assert!(head.ends_with("-3") && !ids.contains(&head), "{head}");
        assert_eq!(stream.last_id, head);
    }
    deliver_calls(&service, "after", 1).await;
    let last = resumed.calls(1).await;
    assert_eq!(stream.calls(1).await, last);
    assert!(last[0].0.ends_with("-4"), "{last:?}");
    // The new ids are valid from now on, at every instance.
    let other = Service::start(&database).await;
    let id = of_call.last_id.clone();
    assert_eq!(other.listen_after("/stream", &id).await.calls(1).await, last);
}

/// The files of the database are replaced by an older copy, and nobody marks it.
#[tokio::test]
async fn a_stream_beyond_the_head_of_a_restored_copy_is_reset() {
    let lost = Place::with_cluster().await;
    set(&lost, "fsync = off");
    let service = Service::start_in(&lost).await;
    deliver_calls(&service, "before", 2).await;
    service.stop().await;
    let copy = lost.copy();
    let service = Service::start_in(&lost).await;
    let mut stream = service.listen("/stream").await;
    let in_the_copy = stream.last_id.clone();
    deliver_calls(&service, "lost", 30).await;
    let lost_ids = stream.calls(30).await;
    service.stop().await;
    drop(lost);

    let service = Service::start_in(&copy).await;
    let mut reset = service.listen_after("/stream", &lost_ids[9].0).await;
    assert_eq!(reset.reset("beyond_head").await, in_the_copy);
    let mut continued = service.listen_after("/stream", &in_the_copy).await;
    deliver_calls(&service, "after", 5).await;
    let after = reset.calls(5).await;
    assert_eq!(continued.calls(5).await, after);
    service.stop().await;
}

/// While a stream is open, its database loses its last events.
#[tokio::test]
async fn an_open_stream_is_reset_where_its_database_has_lost_events() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_DATABASE_CONNECTIONS", "1");
    })
    .await;
    deliver_calls(&service, "before", 1).await;
    let mut stream = service.listen("/stream").await;
    let before = stream.last_id.clone();
    deliver_calls(&service, "lost", 3).await;
    stream.calls(3).await;

    let mut conn = database.connect().await;
    conn.execute(
        "begin;
        delete from events where position > 1;
        delete from calls where call_id not like 'before%';
        select setval('feed_positions', 1);
        commit",
    )
    .await
    .unwrap();
    cut_connections(&mut conn).await;
    // A connection that was cut is replaced when it is next used.
    service.get("/calls/nobody").await;
    Provider::start(calls("after", 1), &[&service]).finish().await;
    stream.reset("beyond_head").await;
    let mut resumed = service.listen_after("/stream", &before).await;
    assert_eq!(resumed.call().await["call_id"], "after-0");
    deliver_calls(&service, "later", 1).await;
    assert_eq!(stream.calls(1).await, resumed.calls(1).await);
}

/// So many calls, one event each.
fn calls(name: &str, number: usize) -> Vec<String> {
    let call = |number| delivery("OUTBOUND_CALL_CALLING", &format!("{name}-{number}"), 1, None);
    (0..number).map(|number| call(number).to_string()).collect()
}

async fn deliver_calls(service: &Service, name: &str, number: usize) {
    for body in calls(name, number) {
        service.deliver(body).await.ok();
    }
}

/// Sets the server of a place up, before it starts.
fn set(place: &Place, settings: &str) {
    fs::write(place.0.join("postgresql.local.conf"), settings).expect("a file of ours");
}

/// A process of the server is killed, whereupon the server restarts all of them.
#[tokio::test]
async fn positions_continue_after_a_crash_of_the_server() {
    const CALLS: usize = 50;
    let place = Place::with_cluster().await;
    let service = Service::start_in(&place).await;
    let server = place.acquire(Claim::Join).await;
    let mut conn = PgConnection::connect(server.url()).await.unwrap();
    deliver_calls(&service, "before", 1).await;
    let mut open = service.listen("/stream").await;
    let id = open.last_id.clone();

    let pid: i32 = conn.fetch_one("select pg_backend_pid()").await.unwrap().get(0);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).expect("it is ours");
    Provider::start(calls("after", CALLS), &[&service]).finish().await;
    let received = open.calls(CALLS).await;
    // At another instance, which has no connections from before the crash.
    service.stop().await;
    let service = Service::start_in(&place).await;
    let mut resumed = service.listen_after("/stream", &id).await;
    assert_eq!(resumed.calls(CALLS).await, received);
    service.stop().await;
    server.release().await.expect("it stops");
}

//! Streams when something breaks: nothing is lost and nothing told twice.

use std::{collections::HashSet, fs};

use callstate::postgres::Claim;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use crate::support::{
    Database, Place, Service,
    delivery::{delivery, fixture},
    provider::{Provider, shuffled},
};

/// The ids of all events that are stored, in the order in which they were.
async fn stored(database: &Database) -> Vec<String> {
    let ids = "select event_id::text from events order by transaction, place";
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

/// More than a page of events that say nothing of their call, as no release wrote them, and behind
/// them one that does.
#[tokio::test]
async fn what_cannot_be_told_keeps_nothing_from_being_told_that_follows() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut stream = service.listen("/stream").await;
    let before = stream.last_id.clone();
    let body = delivery("OUTBOUND_CALL_CALLING", "c", 1, None).to_string();
    service.deliver(body).await.ok();
    stream.call().await;
    let unreadable = "insert into events
        select bucket, call_id, project_id, sha256(number::text::bytea), gen_random_uuid(), event_type, rank,
            occurred_at, received_at, effective_at, disposition, reason, from_status, to_status,
            attempt, call_sid, client_id, provider_status, errors, endpoint, delivery_count,
            last_delivered_at, payload,
            pg_current_xact_id()::text::bigint + (select max(transaction_offset) from stream_epochs),
            number, call_direction, case when number > 600 then call_status end,
            call_attempt_count, call_has_errors, call_updated_at
        from events
        cross join generate_series(1, 601) as number
        where call_id = 'c';
        select pg_notify('callstate_stored', '')";
    database.connect().await.execute(unreadable).await.unwrap();
    let (told, _) = stream.calls(1).await.remove(0);
    assert!(told.ends_with("-601"), "{told}");
    // Nor for who reads up, of all or of the call.
    for path in ["/stream", "/calls/c/stream"] {
        let mut resumed = service.listen_after(path, &before).await;
        assert_eq!(resumed.calls(2).await[1].0, told, "{path}");
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

/// Where a dump is restored, transactions are counted anew.
#[tokio::test]
async fn a_database_that_moves_skips_nothing_and_tells_nothing_twice() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut stream = service.listen("/stream").await;
    service.deliver(fixture("outbound_busy")).await.ok();
    let body = delivery("OUTBOUND_CALL_CALLING", "before", 1, None).to_string();
    service.deliver(body).await.ok();
    let ids: Vec<String> = stream.calls(2).await.into_iter().map(|(id, _)| id).collect();
    service.stop().await;

    // As if it came from a cluster that was a million transactions ahead.
    let moved = |id: &str, by: i64| {
        let (rest, place) = id.rsplit_once('-').unwrap();
        let (epoch, transaction) = rest.rsplit_once('-').unwrap();
        format!("{epoch}-{}-{place}", transaction.parse::<i64>().unwrap() + by)
    };
    let mut conn = database.connect().await;
    conn.execute("update events set transaction = transaction + 1000000").await.unwrap();
    conn.execute("update stream_epochs set database = 'elsewhere'").await.unwrap();

    // Something is under way there since before the move is noticed.
    let mut older = database.connect().await;
    older.execute("begin; select pg_current_xact_id()").await.unwrap();
    let service = Service::start(&database).await;
    let mut stream = service.listen("/stream").await;
    older.execute("rollback").await.unwrap();
    // What was told there after the dump was taken is not here, and its number will be another event's.
    let mut behind_what_is_lost = service.listen_after("/stream", &moved(&ids[1], 1_000_000)).await;
    let mut far_behind = service.listen_after("/stream", &moved(&ids[1], 1_000_050)).await;
    let mut behind_the_first = service.listen_after("/stream", &moved(&ids[0], 1_000_000)).await;
    assert_eq!(behind_the_first.call().await["call_id"], "before");
    for number in 0..100 {
        let body = delivery("OUTBOUND_CALL_CALLING", &format!("after-{number}"), 1, None);
        service.deliver(body.to_string()).await.ok();
    }
    let whole = stream.calls(100).await;
    assert!(whole[0].0.starts_with("2-"), "{whole:?}");
    for stream in [&mut behind_what_is_lost, &mut far_behind, &mut behind_the_first] {
        assert_eq!(stream.calls(100).await, whole);
    }
    let told: HashSet<&String> = whole.iter().map(|(_, event_id)| event_id).collect();
    assert_eq!(told.len(), 100);
    // The move was noticed once, by whichever connection was first.
    assert_eq!(epochs(&mut conn).await, [1, 2]);
    service.stop().await;
    let service = Service::start(&database).await;
    service.listen_after("/stream", &whole[99].0).await;
    assert_eq!(epochs(&mut conn).await, [1, 2]);
}

async fn epochs(conn: &mut PgConnection) -> Vec<i32> {
    let rows = conn.fetch_all("select epoch from stream_epochs order by epoch").await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
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

/// A copy of the files is put back. What was lost with the others had begun epochs of its own, and
/// has told more than there is.
#[tokio::test]
async fn ids_of_what_was_lost_lead_to_all_that_came_since_the_copy() {
    let lost = Place::with_cluster().await;
    set(&lost, "fsync = off");
    let service = Service::start_in(&lost).await;
    deliver_calls(&service, "before", 1).await;
    service.stop().await;
    let copy = lost.copy();
    let mut ids = Vec::new();
    for start in ["one", "two"] {
        let service = Service::start_in(&lost).await;
        let mut stream = service.listen("/stream").await;
        ids.push(stream.last_id.clone());
        deliver_calls(&service, start, 30).await;
        let told = stream.calls(30).await;
        ids.extend([told[10].0.clone(), told[29].0.clone()]);
        service.stop().await;
    }
    drop(lost);

    let mut since = Vec::new();
    for start in ["one", "two", "three"] {
        let service = Service::start_in(&copy).await;
        let mut stream = service.listen("/stream").await;
        deliver_calls(&service, start, 20).await;
        since.extend(stream.calls(20).await.into_iter().map(|(_, event_id)| event_id));
        for id in &ids {
            let told = service.listen_after("/stream", id).await.calls(since.len()).await;
            let told: Vec<String> = told.into_iter().map(|(_, event_id)| event_id).collect();
            assert_eq!(told, since, "{id}");
        }
        service.stop().await;
    }
}

/// While a stream is open, its database is replaced by a copy that remembers fewer epochs.
#[tokio::test]
async fn an_open_stream_goes_on_with_what_was_put_back() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    deliver_calls(&service, "before", 1).await;
    let mut conn = database.connect().await;
    for _ in 0..2 {
        conn.execute("update stream_epochs set database = 'elsewhere'").await.unwrap();
        cut_connections(&mut conn).await;
        // Connections that were cut are found out by who needs them.
        service.get("/calls/nobody").await;
        Provider::start(calls("lost", 1), &[&service]).finish().await;
    }
    let mut stream = service.listen("/stream").await;
    Provider::start(calls("heard", 3), &[&service]).finish().await;
    stream.calls(3).await;
    assert_eq!(epochs(&mut conn).await, [1, 2, 3]);

    conn.execute(
        "begin;
        delete from events where call_id not like 'before%';
        delete from calls where call_id not like 'before%';
        delete from stream_epochs where epoch > 1;
        update stream_epochs set database = 'elsewhere';
        commit",
    )
    .await
    .unwrap();
    cut_connections(&mut conn).await;
    Provider::start(calls("after", 5), &[&service]).finish().await;
    let told: Vec<String> =
        stream.calls(5).await.into_iter().map(|(_, event_id)| event_id).collect();
    assert_eq!(told, stored(&database).await[1..]);
    assert_eq!(epochs(&mut conn).await, [1, 2]);
}

/// An id that a release handed out which noted no time.
#[tokio::test]
async fn ids_of_an_epoch_without_a_name_stay_good() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    deliver_calls(&service, "before", 1).await;
    let mut conn = database.connect().await;
    conn.execute("update stream_epochs set begun_at = null").await.unwrap();
    let mut stream = service.listen("/stream").await;
    deliver_calls(&service, "heard", 2).await;
    let ids: Vec<String> = stream.calls(2).await.into_iter().map(|(id, _)| id).collect();
    for id in &ids {
        assert_eq!(id.split('-').count(), 3, "{id}");
    }
    service.stop().await;
    conn.execute("update stream_epochs set database = 'elsewhere'").await.unwrap();
    let service = Service::start(&database).await;
    let mut resumed = service.listen_after("/stream", &ids[0]).await;
    deliver_calls(&service, "after", 1).await;
    for (call_id, parts) in [("heard-1", 4), ("after-0", 4)] {
        let block = resumed.next().await.expect("the stream goes on");
        assert_eq!(
            (&block.call()["call_id"], block.id.split('-').count()),
            (&json!(call_id), parts)
        );
    }
    // That of an epoch that is not known, as it was lost.
    let lost = format!("2-{}", ids[1].split_once('-').unwrap().1);
    let mut resumed = service.listen_after("/stream", &lost).await;
    assert_eq!(resumed.call().await["call_id"], "after-0");
}

/// Takes numbers of transactions that nothing is stored with.
async fn take_numbers(conn: &mut PgConnection, number: usize) {
    for _ in 0..number {
        conn.execute("begin; select pg_current_xact_id(); rollback").await.unwrap();
    }
}

#[tokio::test]
async fn no_id_is_of_more_than_is_stored() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    // Where nothing is, and where something is.
    for _ in 0..2 {
        let mut stream = service.listen("/stream").await;
        let mut conn = database.connect().await;
        take_numbers(&mut conn, 10).await;
        let mut later = service.listen("/stream").await;
        let newest = "select coalesce(max(transaction), 0) from events";
        let newest: i64 = conn.fetch_one(newest).await.unwrap().get(0);
        for id in [&stream.last_id, &later.last_id] {
            assert!(id.ends_with(&format!("-{newest}-{}", i32::MAX)), "{id}");
        }
        deliver_calls(&service, &newest.to_string(), 1).await;
        assert_eq!(stream.call().await, later.call().await);
    }
}

/// A process of the server is killed, whereupon it starts all of them anew, and takes numbers again
/// of transactions that were not on disk.
#[tokio::test]
async fn numbers_that_come_again_after_a_crash_keep_nothing_from_being_told() {
    const TAKEN: usize = 20;
    const CALLS: usize = 50;
    let place = Place::with_cluster().await;
    // Nothing reaches the disk that nobody waits for.
    let lazy =
        "wal_writer_delay = 10s\nwal_level = minimal\nmax_wal_senders = 0\nautovacuum = off\n";
    fs::write(place.0.join("postgresql.local.conf"), lazy).expect("a file of ours");
    let service = Service::start_in(&place).await;
    let server = place.acquire(Claim::Join).await;
    let mut conn = PgConnection::connect(server.url()).await.unwrap();
    deliver_calls(&service, "before", 1).await;
    take_numbers(&mut conn, TAKEN).await;
    let mut open = service.listen("/stream").await;
    let id = open.last_id.clone();

    let pid: i32 = conn.fetch_one("select pg_backend_pid()").await.unwrap().get(0);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).expect("it is ours");
    Provider::start(calls("after", CALLS), &[&service]).finish().await;
    let told = open.calls(CALLS).await;
    // At another instance, which has no connections from before the crash.
    service.stop().await;
    let service = Service::start_in(&place).await;
    let mut resumed = service.listen_after("/stream", &id).await;
    assert_eq!(resumed.calls(CALLS).await, told);
    service.stop().await;
    server.release().await.expect("it stops");
}

//! A 2xx means committed, whatever dies; and each event is there once, with its effect on the call.
//!
//! The faults are real: processes are killed, connections cut, the tables locked and the database closed.

use std::{collections::HashSet, process::Command};

use callstate::ingest::{Ingest, IngestError, Settings};
use chrono::DateTime;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::support::{
    Database, Lock, Place, Service, callstate,
    delivery::{delivery, fixture, parsed_at},
    provider::{Provider, shuffled},
    proxy::{Mode, Proxy},
};

/// The ids of all events that are stored.
async fn stored(conn: &mut PgConnection) -> HashSet<Uuid> {
    let ids = "select callstate_event_id(calls.project_id, calls.call_id, events.fingerprint)
        from events join calls on calls.id = events.call";
    let rows = conn.fetch_all(ids).await.expect("the tables exist");
    let ids: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids.len(), rows.len(), "no event is stored twice");
    ids
}

/// Sees that all events are there once, and that each call is the fold of its events.
async fn assert_whole(url: &str, calls: usize) {
    let mut conn = PgConnection::connect(url).await.expect("the database accepts");
    assert_eq!(stored(&mut conn).await.len(), calls * 8);
    let completed =
        "select count(*) from reporting.calls where status = 'COMPLETED' and event_count = 8
        and attempt_count = 2";
    let completed: i64 = conn.fetch_one(completed).await.unwrap().get(0);
    assert_eq!(usize::try_from(completed), Ok(calls));
    assert_no_difference(url);
}

fn assert_no_difference(url: &str) {
    let verified = callstate(&["verify", "--database-url", url]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test]
async fn an_accepted_delivery_survives_a_kill_of_the_service() {
    let database = Database::create().await;
    let mut service = Service::start(&database).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    service.kill_9();

    let service = Service::start(&database).await;
    assert_eq!(service.get("/calls/out-08").await.ok()["status"], "BUSY");
    let again = service.deliver(fixture("outbound_busy")).await.ok();
    assert_eq!(again["disposition"], "duplicate");
    assert_no_difference(&database.url());
}

#[tokio::test]
async fn no_event_is_lost_or_doubled_when_the_service_is_killed_under_load() {
    const ROUNDS: usize = 12;
    const CALLS: usize = 150;
    let database = Database::create().await;
    let mut conn = database.connect().await;
    let mut service = Service::start(&database).await;
    let deliveries = shuffled(CALLS, 2);
    let each_round = deliveries.len() / (ROUNDS + 1);
    let provider = Provider::start(deliveries, &[&service]);
    for round in 1..=ROUNDS {
        provider.answered(round * each_round).await;
        service.kill_9();
        let (answered, stored) = (provider.answered_so_far(), stored(&mut conn).await);
        assert!(answered.is_subset(&stored), "in round {round}");
        assert_no_difference(&database.url());
        service = Service::start(&database).await;
        provider.goes_to(&service);
    }
    provider.finish().await;
    assert_whole(&database.url(), CALLS).await;
}

#[tokio::test]
async fn no_event_is_lost_or_doubled_when_postgres_is_killed_under_load() {
    const ROUNDS: usize = 3;
    const CALLS: usize = 100;
    let place = Place::with_cluster().await;
    let service = Service::start_in(&place).await;
    let deliveries = shuffled(CALLS, 2);
    let each_round = deliveries.len() / (ROUNDS + 1);
    let provider = Provider::start(deliveries, &[&service]);
    for round in 1..=ROUNDS {
        provider.answered(round * each_round).await;
        place.kill_server();
        // It is there again when more is answered.
    }
    provider.finish().await;
    let url = callstate(&["db-url", "--data-dir", &place.0.to_string_lossy()]).stdout;
    assert_whole(String::from_utf8(url).unwrap().trim(), CALLS).await;
    service.stop().await;
}

#[tokio::test]
async fn no_event_is_lost_or_doubled_when_connections_are_cut() {
    const ROUNDS: usize = 20;
    const CALLS: usize = 100;
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let deliveries = shuffled(CALLS, 2);
    let each_round = deliveries.len() / (ROUNDS + 1);
    let provider = Provider::start(deliveries, &[&service]);
    let mut conn = database.connect().await;
    for round in 1..=ROUNDS {
        provider.answered(round * each_round).await;
        cut_connections(&mut conn).await;
    }
    provider.finish().await;
    assert_whole(&database.url(), CALLS).await;
}

#[tokio::test]
async fn three_instances_make_the_same_calls_of_the_same_traffic() {
    const CALLS: usize = 100;
    const COPIES: usize = 5;
    let database = Database::create().await;
    let two_writers = |command: &mut Command| {
        command.env("CALLSTATE_INGEST_WRITERS", "2");
    };
    let (a, b, c) = tokio::join!(
        Service::start_with(&database, two_writers),
        Service::start_with(&database, two_writers),
        Service::start(&database),
    );
    let answers = Provider::start(shuffled(CALLS, COPIES), &[&a, &b, &c]).finish().await;
    assert_whole(&database.url(), CALLS).await;
    let new = answers.iter().filter(|answer| answer["disposition"] != "duplicate").count();
    assert_eq!((answers.len(), new), (CALLS * 8 * COPIES, CALLS * 8));
    let counted = "select sum(delivery_count) from events";
    let counted: i64 = database.connect().await.fetch_one(counted).await.unwrap().get(0);
    assert_eq!(usize::try_from(counted), Ok(answers.len()), "every delivery is counted once");
    let misled = "
        select count(*)
        from calls
        cross join lateral (
            select call_status, call_attempt_count
            from events
            where events.call = calls.id
            order by position desc
            limit 1
        ) as last_in_feed
        where (call_status, call_attempt_count) <> (status, jsonb_array_length(attempts))";
    let misled: i64 = database.connect().await.fetch_one(misled).await.unwrap().get(0);
    assert_eq!(misled, 0, "the last event in the feed has the state of its call");
}

#[tokio::test]
async fn a_transaction_that_is_cut_off_is_answered_503_and_leaves_nothing() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut lock = Lock::take(&database).await;
    let under_way = service.deliver(fixture("outbound_busy"));
    let cut = async {
        lock.somebody_waits().await;
        lock.cut_who_waits().await;
    };
    let (answer, ()) = tokio::join!(under_way, cut);
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), "1");
    lock.release().await;
    assert!(stored(&mut database.connect().await).await.is_empty());
    assert_eq!(service.deliver(fixture("outbound_busy")).await.ok()["disposition"], "advanced");
}

#[tokio::test]
async fn while_the_database_is_away_it_says_so_and_then_goes_on() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    database.close().await;
    let answer = service.deliver(fixture("outbound_busy")).await;
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), "1");
    // What cannot be kept is not refused for good either.
    service.deliver("no JSON").await.problem(503);
    service.get("/health/ready").await.problem(503);
    service.get("/calls/out-08").await.problem(503);
    service.get("/health/live").await.ok();

    database.open().await;
    service.deliver(fixture("outbound_busy")).await.ok();
    service.get("/health/ready").await.ok();
    assert_eq!(service.get("/calls/out-08").await.ok()["status"], "BUSY");
}

/// A load balancer without a server behind it accepts connections and closes them.
#[tokio::test]
async fn while_a_proxy_closes_connections_deliveries_are_answered_503() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database).await;
    let service = Service::start_at(&proxy.url).await;
    for (mode, second) in [(Mode::Close, 1), (Mode::Garbage, 2)] {
        let body = delivery("OUTBOUND_CALL_CALLING", "c", second, None).to_string();
        proxy.set(mode);
        // The first one loses its connection, the second one finds none.
        for _ in 0..2 {
            let answer = service.deliver(body.clone()).await;
            answer.problem(503);
            assert_eq!(answer.header("retry-after"), "1");
            service.get("/health/ready").await.problem(503);
            service.get("/calls/c").await.problem(503);
        }
        proxy.set(Mode::Forward);
        assert_ne!(service.deliver(body).await.ok()["disposition"], "duplicate");
        service.get("/health/ready").await.ok();
    }
    assert_no_difference(&database.url());
}

#[tokio::test]
async fn a_database_that_only_reads_is_away_too() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut conn = database.connect().await;
    for (read_only, status) in [("on", 503), ("off", 200)] {
        // As a primary that was demoted, or whose disk is full.
        let alter = format!(
            "do $$ begin execute format('alter database %I set default_transaction_read_only = {read_only}',
                current_database()); end $$"
        );
        conn.execute("set default_transaction_read_only = off").await.unwrap();
        conn.execute(AssertSqlSafe(alter)).await.unwrap();
        cut_connections(&mut conn).await;
        // Whoever uses a connection first that was cut notices it.
        service.deliver(fixture("outbound_busy")).await;
        service.get("/health/ready").await;
        let answer = service.deliver(fixture("outbound_busy")).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert_eq!(service.get("/health/ready").await.status, status);
    }
}

#[tokio::test]
async fn deliveries_over_the_queue_limit_are_answered_503_at_once() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_INGEST_WRITERS", "1");
        command.env("CALLSTATE_INGEST_BATCH", "1");
        command.env("CALLSTATE_INGEST_QUEUE", "2");
    })
    .await;
    let lock = Lock::take(&database).await;
    let bodies = (0..8).map(|call| delivery("OUTBOUND_CALL_BUSY", &call.to_string(), 1, None));
    let mut answers: FuturesUnordered<_> =
        bodies.map(|body| service.deliver(body.to_string())).collect();
    // One is being written, one is the next batch, two are queued: four are over the limit.
    for _ in 0..4 {
        let answer = answers.next().await.expect("there are eight");
        assert_eq!(answer.problem(503), "The queue of deliveries is full.");
        assert_eq!(answer.header("retry-after"), "1");
    }
    lock.release().await;
    let taken = answers.filter(|answer| std::future::ready(answer.status == 200)).count().await;
    assert_eq!(stored(&mut database.connect().await).await.len(), taken);
    assert!((3..=4).contains(&taken), "{taken}");
}

#[tokio::test]
async fn an_accepted_delivery_is_committed_though_the_client_disconnects() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut lock = Lock::take(&database).await;
    tokio::select! {
        answer = service.deliver(fixture("outbound_busy")) => panic!("nobody could: {answer:?}"),
        () = lock.somebody_waits() => {}
    }
    // The request is dropped, and its connection with it.
    lock.release().await;
    service.stop().await;
    assert_eq!(stored(&mut database.connect().await).await.len(), 1);
}

#[tokio::test]
async fn a_stop_commits_and_answers_accepted_deliveries() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_INGEST_WRITERS", "2");
    })
    .await;
    let mut lock = Lock::take(&database).await;
    let bodies = (0..8).map(|call| delivery("OUTBOUND_CALL_BUSY", &call.to_string(), 1, None));
    let requests: Vec<_> = bodies
        .map(|body| {
            let request = service.request("POST", "/webhooks").body(body.to_string());
            tokio::spawn(request.send())
        })
        .collect();
    // Each call has its writer, so that eight calls keep both of them waiting.
    lock.so_many_wait(2).await;
    let stopping = tokio::spawn(service.stop());
    lock.release().await;
    let mut answered = 0;
    for request in requests {
        // One whose connection was not yet accepted was not taken either.
        if let Ok(response) = request.await.unwrap() {
            assert_eq!(response.status(), 200);
            answered += 1;
        }
    }
    stopping.await.expect("it ends with status 0");
    assert!(answered >= 2);
    assert_eq!(stored(&mut database.connect().await).await.len(), answered);
}

#[tokio::test]
async fn commits_are_synchronous_whatever_the_database_is_set_to() {
    for (set, used) in [
        ("off", "on"),
        ("local", "on"),
        ("remote_write", "on"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ] {
        let database = Database::create().await;
        let mut conn = database.connect().await;
        let note = format!(
            "create table noted (relation text, setting text);
            create function note() returns trigger language plpgsql as $$ begin
                insert into noted values (tg_relname, current_setting('synchronous_commit'));
                return new;
            end $$;
            create trigger note before insert on events for each row execute function note();
            create trigger note before insert on quarantine for each row execute function note();
            do $$ begin execute format(
                'alter database %I set synchronous_commit = {set}', current_database()
            ); end $$"
        );
        conn.execute(AssertSqlSafe(note)).await.unwrap();
        let service = Service::start(&database).await;
        service.deliver(fixture("outbound_busy")).await.ok();
        service.deliver("no JSON").await.quarantined();
        let noted = "select relation, setting from noted order by relation";
        let noted = conn.fetch_all(noted).await.unwrap();
        let noted: Vec<(&str, &str)> = noted.iter().map(|it| (it.get(0), it.get(1))).collect();
        assert_eq!(noted, [("events", used), ("quarantine", used)], "set to {set}");
    }
}

/// A database that cannot store the events of the call `bad`.
pub(crate) async fn database_that_refuses_one() -> Database {
    let database = Database::create().await;
    let trigger = "create function refuse() returns trigger language plpgsql as
            $$ begin raise 'this one is bad' using errcode = '22000'; end $$;
        create trigger refuse before insert on events for each row
            when (new.payload::text like '%bad%') execute function refuse()";
    database.connect().await.execute(trigger).await.unwrap();
    database
}

#[tokio::test]
async fn a_delivery_of_an_invalid_call_is_quarantined_and_replayed_after_repair() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(delivery("OUTBOUND_CALL_PENDING", "a", 1, None).to_string()).await.ok();
    // A value that the program never writes, and a service that does not have the call in its cache.
    let mut conn = database.connect().await;
    conn.execute("update calls set attempts = '7'").await.unwrap();
    drop(service);
    let service = Service::start(&database).await;
    for _ in 0..2 {
        let busy = delivery("OUTBOUND_CALL_BUSY", "a", 2, None).to_string();
        let answer = service.deliver(busy).await.quarantined();
        assert_eq!(answer["reason"], "the delivery cannot be processed");
    }
    service.deliver(delivery("OUTBOUND_CALL_BUSY", "b", 2, None).to_string()).await.ok();
    let kept = "select id, reason from quarantine where count = 2";
    let kept = conn.fetch_one(kept).await.unwrap();
    let (id, reason): (Uuid, String) = (kept.get(0), kept.get(1));
    assert!(reason.starts_with("the delivery cannot be processed: table calls"), "{reason}");
    conn.execute("update calls set attempts = '[]'").await.unwrap();
    let replayed = service.request("POST", &format!("/quarantine/{id}/replay"));
    assert_eq!(service.send(replayed).await.ok()["status"], "BUSY");
}

#[tokio::test]
async fn a_delivery_that_the_database_rejects_is_quarantined() {
    let database = database_that_refuses_one().await;
    let service = Service::start(&database).await;
    let answer = service.deliver(delivery("OUTBOUND_CALL_BUSY", "bad", 1, None).to_string()).await;
    let reason = answer.quarantined()["reason"].clone();
    // The message of Postgres is for the operator.
    assert_eq!(reason, "the delivery cannot be stored");
    let kept = "select convert_from(body, 'UTF8'), reason from quarantine";
    let kept = database.connect().await.fetch_one(kept).await.unwrap();
    assert!(kept.get::<String, _>(0).contains("\"bad\""));
    assert!(kept.get::<String, _>(1).contains("this one is bad"));
}

#[tokio::test]
async fn a_rejected_event_fails_alone() {
    let database = database_that_refuses_one().await;
    let pool = database.pool().await;
    let settings = Settings { writers: 1, batch: 512, queue: 512 };
    let (ingest, writers) = Ingest::start(settings, &pool.connect_options());
    // All are queued before the writer, which has the same thread, gets to run: they are one batch.
    let taken = ["a", "b", "bad", "c", "d", "e"].map(|call| {
        let body = delivery("OUTBOUND_CALL_BUSY", call, 1, None).to_string();
        ingest.commit(parsed_at(&body, DateTime::UNIX_EPOCH))
    });
    let taken = futures_util::future::join_all(taken).await;
    let refused: Vec<bool> = taken.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, false, true, false, false, false]);
    assert!(matches!(taken[2], Err(IngestError::InvalidValue(_))), "{:?}", taken[2]);
    assert_eq!(stored(&mut database.connect().await).await.len(), 5);
    assert_no_difference(&database.url());
    drop(ingest);
    writers.finish().await;
}

/// Ends all connections of the database but this one, whatever they are in the middle of.
async fn cut_connections(conn: &mut PgConnection) {
    conn.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()",
    )
    .await
    .expect("they are ours");
}

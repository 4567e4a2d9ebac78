//! A 2xx means committed, whatever dies; and each event is there once, with its effect on the call.
//!
//! The faults are real: processes are killed, connections cut, the tables locked and the database closed.

use std::{collections::HashSet, process::Command};

use callstate::{
    ingest::{Ingest, Refused, Settings},
    recho::{self, Receipt},
    store::Buckets,
};
use chrono::{DateTime, FixedOffset};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::support::{
    Database, Lock, Place, Service, callstate,
    delivery::{delivery, fixture},
    provider::{Provider, shuffled},
};

/// The ids of all events that are stored.
async fn stored(conn: &mut PgConnection) -> HashSet<Uuid> {
    let rows = conn.fetch_all("select event_id from events").await.expect("the table is there");
    let ids: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids.len(), rows.len(), "no event is stored twice");
    ids
}

/// Sees that all events are there once, and that each call is the fold of its events.
async fn assert_whole(url: &str, calls: usize) {
    let mut conn = PgConnection::connect(url).await.expect("the database accepts");
    assert_eq!(stored(&mut conn).await.len(), calls * 8);
    let completed = "select count(*) from calls where status = 'COMPLETED' and event_count = 8
        and jsonb_array_length(attempts) = 2";
    let completed: i64 = conn.fetch_one(completed).await.unwrap().get(0);
    assert_eq!(usize::try_from(completed), Ok(calls));
    assert_no_difference(url);
}

fn assert_no_difference(url: &str) {
    let verified = callstate(&["verify", "--database-url", url]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test]
async fn what_was_answered_survives_the_death_of_the_service() {
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
            where (events.bucket, events.call_id, events.project_id)
                = (calls.bucket, calls.call_id, calls.project_id)
            order by transaction desc, place desc
            limit 1
        ) as told_last
        where (call_status, call_attempt_count) <> (status, jsonb_array_length(attempts))";
    let misled: i64 = database.connect().await.fetch_one(misled).await.unwrap().get(0);
    assert_eq!(misled, 0, "who listens hears last how each call stands");
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
async fn more_than_can_be_held_is_refused_at_once() {
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
    // One is being written, one is ready to be and two wait, so that four find no place.
    for _ in 0..4 {
        let answer = answers.next().await.expect("there are eight");
        assert_eq!(answer.problem(503), "More is waiting than can be held.");
        assert_eq!(answer.header("retry-after"), "1");
    }
    lock.release().await;
    let taken = answers.filter(|answer| std::future::ready(answer.status == 200)).count().await;
    assert_eq!(stored(&mut database.connect().await).await.len(), taken);
    assert!((3..=4).contains(&taken), "{taken}");
}

#[tokio::test]
async fn what_was_taken_is_committed_though_the_client_has_gone() {
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
async fn a_stop_commits_and_answers_what_was_accepted() {
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
async fn what_is_answered_or_kept_is_on_disk_whatever_the_database_is_set_to() {
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
        service.deliver("no JSON").await.problem(400);
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
            when (new.call_id = 'bad') execute function refuse()";
    database.connect().await.execute(trigger).await.unwrap();
    database
}

#[tokio::test]
async fn what_cannot_be_decided_on_is_a_failure_and_kept_in_quarantine() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(delivery("OUTBOUND_CALL_PENDING", "a", 1, None).to_string()).await.ok();
    // What is no row of ours; and a service that does not remember the call.
    let mut conn = database.connect().await;
    conn.execute("update calls set attempts = '7'").await.unwrap();
    drop(service);
    let service = Service::start(&database).await;
    for _ in 0..2 {
        let busy = delivery("OUTBOUND_CALL_BUSY", "a", 2, None).to_string();
        service.deliver(busy).await.problem(500);
    }
    service.deliver(delivery("OUTBOUND_CALL_BUSY", "b", 2, None).to_string()).await.ok();
    let kept = "select id, reason from quarantine where count = 2";
    let kept = conn.fetch_one(kept).await.unwrap();
    let (id, reason): (Uuid, String) = (kept.get(0), kept.get(1));
    assert!(reason.starts_with("the delivery cannot be decided on: table calls"), "{reason}");
    conn.execute("update calls set attempts = '[]'").await.unwrap();
    let replayed = service.request("POST", &format!("/quarantine/{id}/replay"));
    assert_eq!(service.send(replayed).await.ok()["status"], "BUSY");
}

#[tokio::test]
async fn what_the_database_cannot_store_is_refused_and_kept_in_quarantine() {
    let database = database_that_refuses_one().await;
    let service = Service::start(&database).await;
    let answer = service.deliver(delivery("OUTBOUND_CALL_BUSY", "bad", 1, None).to_string()).await;
    let detail = answer.problem(422);
    assert!(!detail.contains("this one is bad"), "what Postgres says is for the log: {detail}");
    let kept = "select convert_from(body, 'UTF8'), reason from quarantine";
    let kept = database.connect().await.fetch_one(kept).await.unwrap();
    assert!(kept.get::<String, _>(0).contains("\"bad\""));
    assert!(kept.get::<String, _>(1).contains("this one is bad"));
}

const RECEIPT: Receipt<'static> = Receipt {
    endpoint: "default",
    received_at: DateTime::UNIX_EPOCH,
    provider_utc_offset: FixedOffset::east_opt(0).unwrap(),
};

#[tokio::test]
async fn a_bad_event_fails_alone() {
    let database = database_that_refuses_one().await;
    let pool = database.pool().await;
    let buckets = Buckets::of_database(&pool).await.unwrap();
    let settings = Settings { writers: 1, batch: 512, queue: 512 };
    let (ingest, writers) = Ingest::start(settings, &pool.connect_options(), buckets);
    // All are queued before the writer, which has the same thread, gets to run: they are one batch.
    let taken = ["a", "b", "bad", "c", "d", "e"].map(|call| {
        let body = delivery("OUTBOUND_CALL_BUSY", call, 1, None).to_string();
        ingest.take(recho::read(body.as_bytes(), RECEIPT).expect("it can be understood"))
    });
    let taken = futures_util::future::join_all(taken).await;
    let refused: Vec<bool> = taken.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, false, true, false, false, false]);
    assert!(matches!(taken[2], Err(Refused::Unstorable(_))), "{:?}", taken[2]);
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

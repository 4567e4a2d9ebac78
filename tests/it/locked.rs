//! A lock in the database delays only the deliveries that need it.

use std::time::Duration;

use callstate::{
    ingest::{Ingest, IngestError, Settings, Writers},
    store::{connection, write::Recorded},
};
use chrono::DateTime;
use futures_util::future::join_all;
use sqlx::{Executor as _, PgConnection, Row as _};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::support::{
    Database, callstate,
    delivery::{delivery, parsed_at},
};

/// A writer, and a session that holds locks.
struct Scene {
    database: Database,
    ingest: Ingest,
    writers: Writers,
    holder: PgConnection,
}

fn parsed(event_type: &str, call: &str, second: u32) -> callstate::call::Delivery {
    let body = delivery(event_type, call, second, None).to_string();
    parsed_at(&body, DateTime::UNIX_EPOCH)
}

async fn busy(ingest: &Ingest, call: &str, second: u32) -> Result<Recorded, IngestError> {
    ingest.commit(parsed("OUTBOUND_CALL_BUSY", call, second)).await
}

impl Scene {
    /// With these calls stored.
    async fn with(calls: &[&str]) -> Self {
        let database = Database::create().await;
        let pool = database.pool().await;
        let settings = Settings { writers: 1, batch: 512, queue: 512 };
        let (ingest, writers) = Ingest::start(settings, &pool.connect_options());
        for call in calls {
            ingest.commit(parsed("OUTBOUND_CALL_PENDING", call, 1)).await.unwrap();
        }
        let holder = database.connect().await;
        Self { database, ingest, writers, holder }
    }

    async fn hold(&mut self, sql: &'static str) {
        self.holder.execute("begin").await.unwrap();
        self.holder.execute(sql).await.unwrap();
    }

    /// Delivers an event of that call among those of twenty others, which make one batch: all are
    /// queued before the writer, which has the same thread, gets to run. Only the one is refused.
    async fn assert_fails_alone(&self, locked: &str, round: u32) {
        let free = (0..20).map(|number| format!("free {round} {number}"));
        let calls: Vec<String> = std::iter::once(locked.to_owned()).chain(free).collect();
        let results = join_all(calls.iter().map(|call| busy(&self.ingest, call, 2))).await;
        assert!(matches!(results[0], Err(IngestError::CallLocked)), "{:?}", results[0]);
        assert!(results[1..].iter().all(Result::is_ok), "{results:?}");
    }

    /// The number of transactions that were rolled back, as those are that wait for a lock for too long.
    async fn rolled_back(&mut self) -> i64 {
        let aborted =
            "select xact_rollback from pg_stat_database where datname = current_database()";
        self.holder.fetch_one(aborted).await.unwrap().get(0)
    }

    /// Ends the transaction that holds locks; then the call accepts deliveries.
    async fn assert_goes_on(mut self, end: &'static str, call: &str) {
        self.holder.execute(end).await.unwrap();
        busy(&self.ingest, call, 2).await.unwrap();
        let verified = callstate(&["verify", "--database-url", &self.database.url()]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        drop(self.ingest);
        self.writers.finish().await;
    }
}

#[tokio::test]
async fn a_locked_call_fails_alone() {
    let mut scene = Scene::with(&["locked"]).await;
    scene.hold("select from calls where call_id = 'locked' for update").await;
    scene.assert_fails_alone("locked", 0).await;
    scene.assert_goes_on("commit", "locked").await;
}

#[tokio::test]
async fn a_call_that_another_session_has_not_committed_fails_alone() {
    let mut scene = Scene::with(&["another"]).await;
    let copied = "insert into calls
        select (jsonb_populate_record(calls, '{\"id\": -1, \"call_id\": \"locked\"}')).*
        from calls where call_id = 'another'";
    scene.hold(copied).await;
    for round in 0..2 {
        scene.assert_fails_alone("locked", round).await;
    }
    scene.assert_goes_on("rollback", "locked").await;
}

#[tokio::test]
async fn deliveries_fail_while_another_session_locks_the_head_of_the_feed() {
    let mut scene = Scene::with(&[]).await;
    scene.hold("select from feed for update").await;
    let calls: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let results = join_all(calls.iter().map(|call| busy(&scene.ingest, call, 2))).await;
    assert!(results.iter().all(|it| matches!(it, Err(IngestError::CallLocked))), "{results:?}");
    scene.assert_goes_on("commit", "0").await;
}

#[tokio::test]
async fn a_repetition_of_a_locked_event_fails_alone() {
    let mut scene = Scene::with(&["locked"]).await;
    busy(&scene.ingest, "locked", 2).await.unwrap();
    scene.hold("select from events for update").await;
    for round in 0..2 {
        scene.assert_fails_alone("locked", round).await;
    }
    scene.assert_goes_on("commit", "locked").await;
}

/// A batch that waits for a row does not hold the lock of the feed, which all instances share.
#[tokio::test]
async fn a_locked_event_does_not_delay_another_instance() {
    let mut scene = Scene::with(&["locked", "other"]).await;
    busy(&scene.ingest, "locked", 2).await.unwrap();
    scene.hold("select from events for update").await;
    let options = scene.database.pool().await.connect_options();
    let settings = Settings { writers: 1, batch: 512, queue: 512 };
    let (other, other_writers) = Ingest::start(settings, &options);
    let repetition_and_event =
        async { tokio::join!(busy(&scene.ingest, "locked", 2), busy(&scene.ingest, "free", 2)) };
    let mut watcher = scene.database.connect().await;
    let while_it_waits = async {
        let waiting = async { while sessions_waiting(&mut watcher).await == 0 {} };
        timeout(Duration::from_mins(1), waiting).await.expect("a writer waits for the row");
        busy(&other, "other", 2).await.unwrap();
    };
    tokio::select! {
        biased;
        results = repetition_and_event => panic!("the other instance had to wait: {results:?}"),
        () = while_it_waits => {}
    }
    drop(other);
    other_writers.finish().await;
    scene.assert_goes_on("commit", "locked").await;
}

/// The number of sessions of the database that wait for a lock.
async fn sessions_waiting(conn: &mut PgConnection) -> i64 {
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    conn.fetch_one(waiting).await.unwrap().get(0)
}

#[tokio::test]
async fn an_idle_transaction_loses_its_locks() {
    let mut scene = Scene::with(&["locked"]).await;
    let patience = Duration::from_millis(100);
    connection::for_writing(&mut scene.holder, patience, patience).await.unwrap();
    scene.hold("select from calls where call_id = 'locked' for update").await;
    // Its connection is ended, and the next session gets the row.
    let mut other = scene.database.connect().await;
    other.execute("set lock_timeout = '10s'").await.unwrap();
    other.execute("select from calls where call_id = 'locked' for update").await.unwrap();
    let refused = scene.holder.execute("commit").await.map(drop);
    assert!(refused.is_err(), "it is no longer connected");
}

#[tokio::test]
async fn all_deliveries_fail_while_the_table_is_locked() {
    let mut scene = Scene::with(&[]).await;
    scene.hold("lock table calls in exclusive mode").await;
    let calls: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let results = join_all(calls.iter().map(|call| busy(&scene.ingest, call, 2))).await;
    assert!(results.iter().all(|it| matches!(it, Err(IngestError::CallLocked))), "{results:?}");
    scene.assert_goes_on("commit", "0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_call_is_waited_for_once() {
    let locked = ["locked 0", "locked 1", "locked 2", "locked 3"];
    let mut scene = Scene::with(&locked).await;
    scene.hold("select from calls for update").await;
    let (are_done, done) = watch::channel(false);
    let mut senders = JoinSet::new();
    // Each sends again after a failure, and so is in about every batch.
    for call in locked {
        let (ingest, done) = (scene.ingest.clone(), done.clone());
        senders.spawn(async move {
            while !*done.borrow() {
                let results = busy(&ingest, call, 2).await;
                assert!(matches!(results, Err(IngestError::CallLocked)), "{results:?}");
            }
        });
    }
    let free = join_all((0..20).map(|sender| {
        let ingest = scene.ingest.clone();
        tokio::spawn(async move {
            for number in 0..50 {
                busy(&ingest, &format!("free {sender} {number}"), 2).await.unwrap();
            }
        })
    }));
    assert!(free.await.iter().all(Result::is_ok));
    are_done.send_replace(true);
    senders.join_all().await;
    // At most one for each locked call.
    let rolled_back = scene.rolled_back().await;
    assert!((1..=4).contains(&rolled_back), "{rolled_back} statements waited for a lock");
    scene.assert_goes_on("commit", "locked 0").await;
}

//! Who holds a lock in the database keeps only those deliveries waiting that need what is locked.

use std::time::Duration;

use callstate::{
    ingest::{Ingest, Refused, Settings, Writers},
    recho::{self, Receipt},
    store::{Buckets, Recorded, Recorder, connection},
};
use chrono::{DateTime, FixedOffset};
use futures_util::future::join_all;
use sqlx::{Executor as _, PgConnection, Row as _};
use tokio::{sync::watch, task::JoinSet};

use crate::support::{Database, callstate, delivery::delivery};

/// A writer, and a connection of somebody who locks.
struct Scene {
    database: Database,
    ingest: Ingest,
    writers: Writers,
    holder: PgConnection,
}

fn understood(event_type: &str, call: &str, second: u32) -> callstate::call::Delivery {
    let receipt = Receipt {
        endpoint: "default",
        received_at: DateTime::UNIX_EPOCH,
        provider_utc_offset: FixedOffset::east_opt(0).unwrap(),
    };
    let body = delivery(event_type, call, second, None).to_string();
    recho::read(body.as_bytes(), receipt).expect("it can be understood")
}

async fn busy(ingest: &Ingest, call: &str, second: u32) -> Result<Recorded, Refused> {
    ingest.take(understood("OUTBOUND_CALL_BUSY", call, second)).await
}

impl Scene {
    /// With these calls stored.
    async fn with(calls: &[&str]) -> Self {
        let database = Database::create().await;
        let pool = database.pool().await;
        let buckets = Buckets::of_database(&pool).await.unwrap();
        let settings = Settings { writers: 1, batch: 512, queue: 512 };
        let (ingest, writers) = Ingest::start(settings, &pool.connect_options(), buckets);
        for call in calls {
            ingest.take(understood("OUTBOUND_CALL_PENDING", call, 1)).await.unwrap();
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
        let taken = join_all(calls.iter().map(|call| busy(&self.ingest, call, 2))).await;
        assert!(matches!(taken[0], Err(Refused::Locked)), "{:?}", taken[0]);
        assert!(taken[1..].iter().all(Result::is_ok), "{taken:?}");
    }

    /// How many statements ended in vain, which those do that wait for a lock for too long.
    async fn given_up(&mut self) -> i64 {
        let aborted =
            "select xact_rollback from pg_stat_database where datname = current_database()";
        self.holder.fetch_one(aborted).await.unwrap().get(0)
    }

    /// Ends the transaction of who locks; then the call takes what it was sent.
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
async fn a_call_that_somebody_has_locked_fails_alone() {
    let mut scene = Scene::with(&["locked"]).await;
    scene.hold("select from calls where call_id = 'locked' for update").await;
    scene.assert_fails_alone("locked", 0).await;
    scene.assert_goes_on("commit", "locked").await;
}

#[tokio::test]
async fn a_call_that_another_instance_has_not_committed_fails_alone() {
    // Whoever is the first in a database also notes where that is.
    let mut scene = Scene::with(&["another"]).await;
    scene.holder.execute("begin").await.unwrap();
    let event = [understood("OUTBOUND_CALL_PENDING", "locked", 1)];
    Recorder::default().record(&mut scene.holder, 0, &event, &mut [None]).await.unwrap();
    for round in 0..2 {
        scene.assert_fails_alone("locked", round).await;
    }
    scene.assert_goes_on("rollback", "locked").await;
}

#[tokio::test]
async fn a_repetition_of_an_event_that_somebody_has_locked_fails_alone() {
    let mut scene = Scene::with(&["locked"]).await;
    busy(&scene.ingest, "locked", 2).await.unwrap();
    scene.hold("select from events where call_id = 'locked' for update").await;
    for round in 0..2 {
        scene.assert_fails_alone("locked", round).await;
    }
    scene.assert_goes_on("commit", "locked").await;
}

#[tokio::test]
async fn an_instance_that_goes_silent_loses_what_it_has_locked() {
    let mut scene = Scene::with(&["locked"]).await;
    let patience = Duration::from_millis(100);
    connection::for_writing(&mut scene.holder, patience, patience).await.unwrap();
    scene.hold("select from calls where call_id = 'locked' for update").await;
    // It says nothing more; whoever waits gets the row.
    let mut other = scene.database.connect().await;
    other.execute("set lock_timeout = '10s'").await.unwrap();
    other.execute("select from calls where call_id = 'locked' for update").await.unwrap();
    let refused = scene.holder.execute("commit").await.map(drop);
    assert!(refused.is_err(), "it is no longer connected");
}

#[tokio::test]
async fn where_the_whole_table_is_locked_all_are_refused() {
    let mut scene = Scene::with(&[]).await;
    scene.hold("lock table calls in exclusive mode").await;
    let calls: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let taken = join_all(calls.iter().map(|call| busy(&scene.ingest, call, 2))).await;
    assert!(taken.iter().all(|it| matches!(it, Err(Refused::Locked))), "{taken:?}");
    scene.assert_goes_on("commit", "0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_somebody_has_locked_are_waited_for_once() {
    let locked = ["locked 0", "locked 1", "locked 2", "locked 3"];
    let mut scene = Scene::with(&locked).await;
    scene.hold("select from calls for update").await;
    let (are_done, done) = watch::channel(false);
    let mut senders = JoinSet::new();
    // They send again as soon as they are refused, and so are in about every batch.
    for call in locked {
        let (ingest, done) = (scene.ingest.clone(), done.clone());
        senders.spawn(async move {
            while !*done.borrow() {
                let taken = busy(&ingest, call, 2).await;
                assert!(matches!(taken, Err(Refused::Locked)), "{taken:?}");
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
    // At the most each in a batch of its own.
    let given_up = scene.given_up().await;
    assert!((1..=4).contains(&given_up), "{given_up} statements waited in vain");
    scene.assert_goes_on("commit", "locked 0").await;
}

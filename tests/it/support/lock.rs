//! Locks by which a test holds whoever writes, before it begins or in the midst of it, and whoever reports.

use std::time::Duration;

use sqlx::{Executor as _, PgConnection, Row as _};

use super::Database;

/// How long a test waits for a transaction to wait.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Keeps everybody from writing calls, from committing it, or from reporting on them.
pub(crate) struct Lock {
    holder: PgConnection,
    watcher: PgConnection,
}

impl Lock {
    /// Takes it.
    pub(crate) async fn take(database: &Database) -> Self {
        let mut holder = database.connect().await;
        holder.execute("begin; lock table calls in share mode").await.expect("it is free");
        Self { holder, watcher: database.connect().await }
    }

    /// Takes one that holds reports before they look at calls, and nobody who writes.
    pub(crate) async fn take_before_reports(database: &Database) -> Self {
        let mut holder = database.connect().await;
        let hold = "begin; alter view reported_calls set (security_barrier = false)";
        holder.execute(hold).await.expect("it is free");
        Self { holder, watcher: database.connect().await }
    }

    /// Takes one that holds who has written calls and events, before the commit.
    pub(crate) async fn take_after_writing(database: &Database) -> Self {
        let mut holder = database.connect().await;
        let hold = "
            create function hold() returns trigger language plpgsql as
            'begin perform pg_advisory_xact_lock_shared(1); return null; end';
            create trigger hold after insert on events execute function hold()";
        holder.execute(hold).await.expect("it is ours");
        holder.execute("begin; select pg_advisory_xact_lock(1)").await.expect("it is free");
        Self { holder, watcher: database.connect().await }
    }

    /// Waits until a transaction waits for it.
    pub(crate) async fn somebody_waits(&mut self) {
        self.so_many_wait(1).await;
    }

    /// Waits until so many transactions wait for it.
    pub(crate) async fn so_many_wait(&mut self, at_least: i64) {
        let reached = async { while self.waiting().await < at_least {} };
        tokio::time::timeout(TIMEOUT, reached).await.expect("transactions wait for the lock");
    }

    /// How many transactions wait for it.
    pub(crate) async fn waiting(&mut self) -> i64 {
        let waiting = "select count(*) from pg_locks where not granted
            and (
                relation in ('calls'::regclass, 'reported_calls'::regclass)
                or locktype = 'advisory'
            )
            and database = (select oid from pg_database where datname = current_database())";
        self.watcher.fetch_one(waiting).await.expect("it answers").get(0)
    }

    /// Ends the connections of those in the midst of whose transaction it is waited for.
    pub(crate) async fn cut_who_waits(&mut self) {
        let waiting = "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'";
        let cut = self.watcher.fetch_all(waiting).await.expect("they are ours");
        assert!(!cut.is_empty());
    }

    /// Lets them.
    pub(crate) async fn release(mut self) {
        self.holder.execute("commit").await.expect("it is held");
    }
}

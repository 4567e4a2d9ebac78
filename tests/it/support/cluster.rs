//! The one throw-away cluster of all test processes, kept by the library's own managed server.
//!
//! It lives in Cargo's folder for tests' files and survives between runs, stopped. It is fast and not durable: what makes
//! a commit wait for a disk is off. Locks say who is there, as the system lets go of them however a process ends:
//!
//! | file | held | says |
//! | --- | --- | --- |
//! | `tests.lock` | shared by each test process, for its life | the cluster is needed |
//! | `supervisor.lock` | exclusive by the [supervisor](super::supervisor) | somebody will stop it |
//! | `template.lock` | exclusive while the template is made | one at a time |
//!
//! Whoever gets `tests.lock` exclusively is alone, and clears the databases that killed tests left.

use std::{
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use callstate::managed_postgres::{Claim, Options, Server, acquire};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, migrate::Migrator,
};
use tokio::sync::OnceCell;

use super::supervisor;

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Settings of a cluster that nobody will miss. No vacuum comes by itself: the role may not end one, so that a database
/// could not be dropped while one is there.
const SETTINGS: &str = "\
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_connections = 400
shared_buffers = 256MB
max_wal_size = 1GB
min_wal_size = 80MB
";

/// The cluster as one test process sees it.
pub(super) struct Cluster {
    server: Server,
    template: String,
    /// Held for its lock.
    needed: File,
}

/// The cluster, started on the first call in a process.
pub(super) async fn cluster() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_init(Cluster::start).await
}

impl Cluster {
    async fn start() -> Self {
        fs::create_dir_all(data_dir()).expect("Cargo's folder for tests' files is writable");
        // Waits for a supervisor that is stopping the cluster, and nothing else: tests hold it shared.
        let needed = lock_file("tests.lock");
        let alone = needed.try_lock().is_ok();
        if !alone {
            needed.lock_shared().expect("a lock of the file system");
        }
        let settings = data_dir().join("postgresql.local.conf");
        if fs::read_to_string(&settings).ok().as_deref() != Some(SETTINGS) {
            fs::write(&settings, SETTINGS).expect("a file of ours");
        }
        let server = acquire(&options(), Claim::Join).await.expect("the throw-away cluster starts");
        let cluster = Self { server, template: template_name(), needed };
        if alone {
            cluster.clear().await;
            // From here on others may be there as well. Whoever slips in between finds nothing to clear.
            cluster
                .needed
                .unlock()
                .and_then(|()| cluster.needed.lock_shared())
                .expect("a lock of the file system");
        }
        supervisor::ensure();
        cluster.make_template().await;
        cluster
    }

    /// The URL of a database of the cluster.
    pub(super) fn url(&self, database: &str) -> String {
        let (server, _) = self.server.url().rsplit_once('/').expect("a URL with a database");
        format!("{server}/{database}")
    }

    /// The database that each test's is copied from.
    pub(super) fn template(&self) -> &str {
        &self.template
    }

    /// A connection for what is done to databases as wholes.
    pub(super) async fn connect(&self) -> PgConnection {
        PgConnection::connect(self.server.url()).await.expect("the throw-away cluster accepts")
    }

    /// Drops what killed tests left, and templates of other migrations.
    async fn clear(&self) {
        let mut connection = self.connect().await;
        let databases = connection
            .fetch_all("select datname from pg_database where datname ~ '^(test|template)_'")
            .await;
        for row in databases.expect("the databases") {
            let name: String = row.get(0);
            if name != self.template {
                drop_database(&mut connection, &name).await;
            }
        }
    }

    /// Runs the migrations into a database of another name, so that a template is complete or not there.
    async fn make_template(&self) {
        let one_at_a_time = lock_file("template.lock");
        one_at_a_time.lock().expect("a lock of the file system");
        let mut connection = self.connect().await;
        let name = &self.template;
        let there = connection
            .fetch_optional(AssertSqlSafe(format!(
                "select from pg_database where datname = '{name}'"
            )))
            .await
            .expect("the databases");
        if there.is_some() {
            return;
        }
        let unfinished = format!("{name}_unfinished");
        drop_database(&mut connection, &unfinished).await;
        execute(&mut connection, format!("create database {unfinished}")).await;
        let mut migrated =
            PgConnection::connect(&self.url(&unfinished)).await.expect("a new database");
        MIGRATOR.run(&mut migrated).await.expect("the migrations run");
        migrated.close().await.expect("an orderly end");
        execute(&mut connection, format!("alter database {unfinished} rename to {name}")).await;
    }
}

/// Runs a statement about a database as a whole.
pub(super) async fn execute(connection: &mut PgConnection, statement: String) {
    connection.execute(AssertSqlSafe(statement)).await.expect("the statement is right");
}

/// Drops a database, also under those who are still connected.
pub(super) async fn drop_database(connection: &mut PgConnection, name: &str) {
    execute(connection, format!("drop database if exists {name} with (force)")).await;
}

/// Where the cluster is.
pub(super) fn options() -> Options {
    Options { data_dir: data_dir(), bin_dir: None }
}

fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres")
}

/// One of the lock files; never removed, as a lock is on the file and not on its name.
pub(super) fn lock_file(name: &str) -> File {
    let path = data_dir().join(name);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .expect("a file of ours")
}

/// Named by what is in the migrations: other migrations, another template.
fn template_name() -> String {
    let mut hasher = DefaultHasher::new();
    for migration in MIGRATOR.iter() {
        (migration.version, &migration.checksum).hash(&mut hasher);
    }
    format!("template_{:016x}", hasher.finish())
}

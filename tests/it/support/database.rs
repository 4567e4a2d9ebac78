//! A database of its own for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection as _, PgConnection, PgPool};

use super::cluster::{cluster, drop_database, execute};

/// An empty, migrated database, dropped with this value.
pub(crate) struct Database {
    name: String,
    url: String,
}

impl Database {
    /// Copies the template.
    pub(crate) async fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let cluster = cluster().await;
        let mut connection = cluster.connect().await;
        // For a template of some megabytes copying the files is faster than writing each page to the log.
        let statement =
            format!("create database {name} template {} strategy file_copy", cluster.template());
        execute(&mut connection, statement).await;
        Self { url: cluster.url(&name), name }
    }

    /// Ends all connections and takes no more, as a database does that is being restored.
    pub(crate) async fn close(&self) {
        let mut connection = cluster().await.connect().await;
        let name = &self.name;
        execute(&mut connection, format!("alter database {name} allow_connections false")).await;
        let cut = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
        );
        execute(&mut connection, cut).await;
    }

    /// Takes connections again.
    pub(crate) async fn open(&self) {
        let mut connection = cluster().await.connect().await;
        let name = &self.name;
        execute(&mut connection, format!("alter database {name} allow_connections true")).await;
    }

    /// The URL, for programs.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// A pool of connections.
    pub(crate) async fn pool(&self) -> PgPool {
        PgPool::connect(&self.url).await.expect("the database accepts")
    }

    /// One connection.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("the database accepts")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        // The test's own runtime cannot be waited on from here.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut connection = cluster().await.connect().await;
                drop_database(&mut connection, &name).await;
            });
        });
        let dropped = dropped.join();
        assert!(
            dropped.is_ok() || std::thread::panicking(),
            "a test's database could not be dropped"
        );
    }
}

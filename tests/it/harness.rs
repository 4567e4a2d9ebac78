//! What the other tests rely on: each has a database of its own, which is dropped with it.

use sqlx::{Executor as _, Row as _};

use crate::support::Database;

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (one, other) = tokio::join!(Database::create(), Database::create());
    assert_ne!(one.url(), other.url());
    one.pool().await.execute("create table mine (note text)").await.expect("an empty database");
    other
        .pool()
        .await
        .execute("create table mine (note text)")
        .await
        .expect("another empty database");
}

#[tokio::test]
async fn a_database_is_dropped_with_its_test_even_with_open_connections() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let name: String =
        pool.fetch_one("select current_database()").await.expect("a database").get(0);
    drop(database);
    let other = Database::create().await;
    let rows = other
        .connect()
        .await
        .fetch_all("select datname from pg_database")
        .await
        .expect("the databases");
    assert!(rows.iter().all(|row| row.get::<String, _>(0) != name));
}

#[tokio::test]
async fn the_test_cluster_does_not_wait_for_the_disk() {
    let database = Database::create().await;
    let fsync: String = database
        .connect()
        .await
        .fetch_one("select current_setting('fsync')")
        .await
        .expect("a setting")
        .get(0);
    assert_eq!(fsync, "off");
}

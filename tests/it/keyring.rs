//! How long an instance believes what it knows of a key: the router itself, with clocks that are set.

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use callstate::{
    access::{ApiKey, KeyName, KeyRecord, Projects, Scope},
    store::api_keys,
};
use chrono::{DateTime, TimeDelta, Utc};
use ring::rand::SystemRandom;
use sqlx::{Executor as _, PgPool};
use uuid::Uuid;

use crate::support::{Database, Instance};

const NOON: DateTime<Utc> = DateTime::from_timestamp(1_779_624_000, 0).unwrap();

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

/// The status of an answer, and how long to wait before asking again.
async fn ask_at(
    instance: &Instance,
    now: DateTime<Utc>,
    key: &str,
) -> (StatusCode, Option<String>) {
    let request = Request::get("/calls/nobody")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .body(Body::empty())
        .expect("it is a request");
    let response = instance.ask_at(now, request).await;
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.map(|value| value.to_str().expect("a number").to_owned());
    (response.status(), retry_after)
}

/// Whether the key is taken: there is no such call, which only its bearer learns.
async fn takes_at(instance: &Instance, now: DateTime<Utc>, key: &str) -> bool {
    match ask_at(instance, now, key).await.0 {
        StatusCode::NOT_FOUND => true,
        StatusCode::UNAUTHORIZED => false,
        status => panic!("it answers {status}"),
    }
}

/// A key that expires an hour past noon.
async fn insert(pool: &PgPool, key: &ApiKey) -> Uuid {
    let record = KeyRecord {
        id: Uuid::from_u128(1),
        name: KeyName::new("grafana").expect("it is a name"),
        scope: Scope::Read,
        projects: Projects::All,
        created_at: NOON,
        expires_at: Some(NOON + seconds(3600)),
        revoked_at: None,
        last_used_at: None,
    };
    api_keys::insert(pool, &key.hash(), &record).await.expect("it is new");
    record.id
}

fn new_key() -> ApiKey {
    ApiKey::generate(&SystemRandom::new()).expect("there is randomness")
}

#[tokio::test]
async fn a_revoked_key_is_believed_for_two_seconds_at_most() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    let id = insert(&pool, &key).await;
    let [one, other] = [Instance::start(&pool, true), Instance::start(&pool, true)];
    assert!(takes_at(&one, NOON, key.expose()).await);
    api_keys::revoke(&pool, id, NOON).await.expect("it is there");
    assert!(!takes_at(&other, NOON, key.expose()).await);
    // Nothing is asked of the database in between.
    assert!(takes_at(&one, NOON + seconds(2) - TimeDelta::microseconds(1), key.expose()).await);
    assert!(!takes_at(&one, NOON + seconds(2), key.expose()).await);
    // Nor does a clock that is set back bring it to life again.
    assert!(!takes_at(&one, NOON - seconds(3600), key.expose()).await);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_key_expires_on_the_moment_however_lately_it_was_looked_up() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    insert(&pool, &key).await;
    let instance = Instance::start(&pool, true);
    let microsecond = TimeDelta::microseconds(1);
    assert!(takes_at(&instance, NOON + seconds(3600) - microsecond, key.expose()).await);
    assert!(!takes_at(&instance, NOON + seconds(3600), key.expose()).await);
    instance.stop().await;
}

#[tokio::test]
async fn a_key_that_was_guessed_before_it_was_made_counts_two_seconds_later() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    let instance = Instance::start(&pool, true);
    assert!(!takes_at(&instance, NOON, key.expose()).await);
    insert(&pool, &key).await;
    assert!(!takes_at(&instance, NOON + seconds(1), key.expose()).await);
    assert!(takes_at(&instance, NOON + seconds(2), key.expose()).await);
    instance.stop().await;
}

#[tokio::test]
async fn while_the_database_is_away_nobody_is_told_that_a_key_is_wrong() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    insert(&pool, &key).await;
    let instance = Instance::start(&pool, true);
    pool.close().await;
    let away = (StatusCode::SERVICE_UNAVAILABLE, Some("1".to_owned()));
    assert_eq!(ask_at(&instance, NOON, key.expose()).await, away);
    assert_eq!(ask_at(&instance, NOON, new_key().expose()).await, away);
    // What cannot be a key needs no database to be refused.
    assert!(!takes_at(&instance, NOON, "hunter2").await);
    instance.stop().await;
}

#[tokio::test]
async fn a_corrupt_key_opens_nothing() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    insert(&pool, &key).await;
    pool.execute("update api_keys set projects = '{\"\"}'").await.expect("it is there");
    let instance = Instance::start(&pool, true);
    let (status, _) = ask_at(&instance, NOON, key.expose()).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    instance.stop().await;
}

#[tokio::test]
async fn the_last_use_is_written_once_a_minute() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    insert(&pool, &key).await;
    let used_at = async |times: &[i64]| {
        let instance = Instance::start(&pool, true);
        for second in times {
            assert!(takes_at(&instance, NOON + seconds(*second), key.expose()).await);
        }
        instance.stop().await;
        api_keys::all(&pool).await.expect("it is there")[0].last_used_at
    };
    assert_eq!(used_at(&[0, 1, 1]).await, Some(NOON));
    assert_eq!(used_at(&[2, 30, 59]).await, Some(NOON));
    assert_eq!(used_at(&[60]).await, Some(NOON + seconds(60)));
    assert_eq!(used_at(&[119, 200]).await, Some(NOON + seconds(200)));
}

#[tokio::test]
async fn of_several_instances_that_see_a_key_used_one_writes() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    let id = insert(&pool, &key).await;
    let last_use = async || api_keys::all(&pool).await.expect("it is there")[0].last_used_at;
    for (second, known) in [(0, 0), (59, 0), (60, 60), (30, 60)] {
        api_keys::note_use(&pool, id, NOON + seconds(second)).await.expect("it is there");
        assert_eq!(last_use().await, Some(NOON + seconds(known)), "{second}");
    }
}

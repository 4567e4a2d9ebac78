//! How long an instance believes what it knows of a key: the router itself, with clocks that are set.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use callstate::{
    access::{ApiKey, Grant, KeyName, Projects, Scope},
    api::{
        Edge, Keyring, Lookup, Reports, Service, Streams, edge, keyring::Uses, router,
        tally::Deliveries, webhooks::Endpoints,
    },
    clock::Clock,
    ingest::{Ingest, Quarantine, Settings, Writers},
    store::{Buckets, api_keys, quarantine::Bounds},
};
use chrono::{DateTime, TimeDelta, Utc};
use ring::rand::SystemRandom;
use sqlx::{Executor as _, PgPool};
use tokio::sync::watch;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::support::Database;

const NOON: DateTime<Utc> = DateTime::from_timestamp(1_779_624_000, 0).unwrap();

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

/// Limits that are not reached.
fn edge() -> edge::Settings {
    edge::Settings {
        max_connections: 1,
        read_timeout: Duration::from_mins(1),
        idle_timeout: Duration::from_mins(1),
        answer_timeout: Duration::from_mins(1),
        hosts: None,
        cors_origins: Vec::new(),
        trusted_proxies: Vec::new(),
    }
}

/// An instance, of which one can ask what it answers at any time.
struct Instance {
    service: Service,
    writers: Writers,
    uses: Uses,
}

impl Instance {
    async fn start(pool: &PgPool) -> Self {
        let buckets = Buckets::of_database(pool).await.expect("the database answers");
        let settings = Settings { writers: 1, batch: 1, queue: 1 };
        let (ingest, writers) = Ingest::start(settings, &pool.connect_options(), buckets);
        let endpoints = Endpoints {
            by_name: BTreeMap::new(),
            provider_utc_offset: chrono::FixedOffset::east_opt(0).expect("it is UTC"),
            max_body: 0,
            deliveries: Deliveries::default(),
        };
        let (keyring, uses) = Keyring::start(pool.clone(), true);
        let bounds = Bounds { max_entries: 1, max_bytes: 1, max_age: Duration::ZERO };
        let service = Service {
            pool: pool.clone(),
            buckets,
            ingest,
            quarantine: Quarantine::new(pool.clone(), bounds),
            clock: Clock::fixed(NOON),
            endpoints: watch::Sender::new(Arc::new(endpoints)).subscribe(),
            keyring,
            edge: Arc::new(Edge::new(edge())),
            lookup: Lookup::start(pool, buckets),
            streams: Streams::start(&pool.connect_options(), buckets, 1, std::future::pending()).0,
            reports: Reports::default(),
        };
        Self { service, writers, uses }
    }

    /// The status of an answer, and how long to wait before asking again.
    async fn ask_at(&self, now: DateTime<Utc>, key: &str) -> (StatusCode, Option<String>) {
        let service = Service { clock: Clock::fixed(now), ..self.service.clone() };
        let request = Request::get("/calls/nobody")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .body(Body::empty())
            .expect("it is a request");
        let response = router(service).oneshot(request).await.expect("it always answers");
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.map(|value| value.to_str().expect("a number").to_owned());
        (response.status(), retry_after)
    }

    /// Whether the key is taken: there is no such call, which only its bearer learns.
    async fn takes_at(&self, now: DateTime<Utc>, key: &str) -> bool {
        match self.ask_at(now, key).await.0 {
            StatusCode::NOT_FOUND => true,
            StatusCode::UNAUTHORIZED => false,
            status => panic!("it answers {status}"),
        }
    }

    /// Ends it in order: what it has noted is written, and its writers are not left half connected, which the dropping
    /// of their database would wait for.
    async fn stop(self) {
        drop(self.service);
        self.writers.finish().await;
        self.uses.finish().await;
    }
}

/// A key that expires an hour past noon.
async fn insert(pool: &PgPool, key: &ApiKey) -> Uuid {
    let grant = Grant {
        id: Uuid::from_u128(1),
        name: KeyName::new("grafana").expect("it is a name"),
        scope: Scope::Read,
        projects: Projects::All,
        created_at: NOON,
        expires_at: Some(NOON + seconds(3600)),
        revoked_at: None,
        last_used_at: None,
    };
    api_keys::insert(pool, &key.hash(), &grant).await.expect("it is new");
    grant.id
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
    let [one, other] = [Instance::start(&pool).await, Instance::start(&pool).await];
    assert!(one.takes_at(NOON, key.expose()).await);
    api_keys::revoke(&pool, id, NOON).await.expect("it is there");
    assert!(!other.takes_at(NOON, key.expose()).await);
    // Nothing is asked of the database in between.
    assert!(one.takes_at(NOON + seconds(2) - TimeDelta::microseconds(1), key.expose()).await);
    assert!(!one.takes_at(NOON + seconds(2), key.expose()).await);
    // Nor does a clock that is set back bring it to life again.
    assert!(!one.takes_at(NOON - seconds(3600), key.expose()).await);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_key_expires_on_the_moment_however_lately_it_was_looked_up() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    insert(&pool, &key).await;
    let instance = Instance::start(&pool).await;
    let microsecond = TimeDelta::microseconds(1);
    assert!(instance.takes_at(NOON + seconds(3600) - microsecond, key.expose()).await);
    assert!(!instance.takes_at(NOON + seconds(3600), key.expose()).await);
    instance.stop().await;
}

#[tokio::test]
async fn a_key_that_was_guessed_before_it_was_made_counts_two_seconds_later() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    let instance = Instance::start(&pool).await;
    assert!(!instance.takes_at(NOON, key.expose()).await);
    insert(&pool, &key).await;
    assert!(!instance.takes_at(NOON + seconds(1), key.expose()).await);
    assert!(instance.takes_at(NOON + seconds(2), key.expose()).await);
    instance.stop().await;
}

#[tokio::test]
async fn while_the_database_is_away_nobody_is_told_that_a_key_is_wrong() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    insert(&pool, &key).await;
    let instance = Instance::start(&pool).await;
    pool.close().await;
    let away = (StatusCode::SERVICE_UNAVAILABLE, Some("1".to_owned()));
    assert_eq!(instance.ask_at(NOON, key.expose()).await, away);
    assert_eq!(instance.ask_at(NOON, new_key().expose()).await, away);
    // What cannot be a key needs no database to be refused.
    assert!(!instance.takes_at(NOON, "hunter2").await);
    instance.stop().await;
}

#[tokio::test]
async fn a_corrupt_key_opens_nothing() {
    let database = Database::create().await;
    let pool = database.pool().await;
    let key = new_key();
    insert(&pool, &key).await;
    pool.execute("update api_keys set projects = '{\"\"}'").await.expect("it is there");
    let instance = Instance::start(&pool).await;
    let (status, _) = instance.ask_at(NOON, key.expose()).await;
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
        let instance = Instance::start(&pool).await;
        for second in times {
            assert!(instance.takes_at(NOON + seconds(*second), key.expose()).await);
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

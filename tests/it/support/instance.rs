//! The router itself, with clocks that are set.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, header::HOST},
};
use callstate::{
    clock::Clock,
    http::{
        ApiKeyCache, CallReader, Endpoints, HttpServer, Reports, Service, Streams,
        auth::api_key_cache::LastUsedWriter, router, routes::webhooks::metrics::DeliveryMetrics,
        server,
    },
    ingest::{Ingest, Quarantine, Retention, Settings, Writers, retention::Periods},
    recho::ProviderTimeZone,
    store::quarantine::Bounds,
};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::watch;
use tower::ServiceExt as _;

/// Limits that are not reached.
fn edge() -> server::HttpSettings {
    server::HttpSettings {
        max_connections: 1,
        max_unauthenticated_bytes: 1024,
        read_timeout: Duration::from_mins(1),
        idle_timeout: Duration::from_mins(1),
        answer_timeout: Duration::from_mins(1),
        hosts: None,
        cors_origins: Vec::new(),
        trusted_proxies: Vec::new(),
    }
}

/// An instance, of which one can ask what it answers at any time.
pub(crate) struct Instance {
    service: Service,
    writers: Writers,
    uses: LastUsedWriter,
}

impl Instance {
    /// Starts it, with the database of that pool.
    pub(crate) fn start(pool: &PgPool, require_key: bool) -> Self {
        let settings = Settings { writers: 1, batch: 1, queue: 1 };
        let (ingest, writers) = Ingest::start(settings, &pool.connect_options());
        let endpoints = Endpoints {
            by_name: BTreeMap::new(),
            time_zone: ProviderTimeZone::UTC,
            max_body: 0,
            metrics: DeliveryMetrics::default(),
        };
        let (api_keys, uses) = ApiKeyCache::start(pool.clone(), require_key);
        let bounds = Bounds { max_entries: 1, max_bytes: 1, max_age: Duration::ZERO };
        let service = Service {
            pool: pool.clone(),
            ingest,
            quarantine: Quarantine::new(pool.clone(), bounds),
            stalled_after: Duration::from_hours(1),
            retention: Arc::new(Retention::new(
                pool.clone(),
                Periods::default(),
                Clock::fixed(DateTime::UNIX_EPOCH),
            )),
            clock: Clock::fixed(DateTime::UNIX_EPOCH),
            endpoints: watch::Sender::new(Arc::new(endpoints)).subscribe(),
            api_keys,
            server: Arc::new(HttpServer::new(edge())),
            calls: CallReader::start(pool),
            streams: Streams::start(&pool.connect_options(), 1, std::future::pending()).0,
            reports: Reports::default(),
        };
        Self { service, writers, uses }
    }

    /// What it answers at that time.
    pub(crate) async fn ask_at(
        &self,
        now: DateTime<Utc>,
        mut request: Request<Body>,
    ) -> Response<Body> {
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        let service = Service { clock: Clock::fixed(now), ..self.service.clone() };
        router(service).oneshot(request).await.expect("it always answers")
    }

    /// Ends it in order: what it has noted is written, and its writers are not left half connected, which the dropping
    /// of their database would wait for.
    pub(crate) async fn stop(self) {
        drop(self.service);
        self.writers.finish().await;
        self.uses.finish().await;
    }
}

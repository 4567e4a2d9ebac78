//! What must hold of all that a stranger can write, whatever it is.
//!
//! The fuzzer looks for bytes of which it does not; `cargo test` tries some
//! thousands in each run. Nothing was made public for this: a body and the
//! headers go to the functions that the handler calls, paths and parameters to
//! the router itself, which has no database to ask here.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, Uri},
};
use callstate::{
    call::{CallSid, ClientId, Delivery, ProjectId, id::MAX_CHARS},
    clock::Clock,
    http::{self, Service, routes::webhooks::endpoints::Endpoints},
    ingest::{Ingest, Quarantine, Retention, Settings, Writers, retention::Periods},
    recho::{
        self, Authenticator, Credentials, ProviderTimeZone, PublicKey, Receipt, SignatureVerifier,
        Tokens, auth::Header,
    },
    store::quarantine::Bounds,
};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::{runtime::Runtime, sync::watch};
use tower::ServiceExt as _;

const NOW: DateTime<Utc> = DateTime::from_timestamp_secs(1_778_581_440).unwrap();

/// The only token that is taken.
const TOKEN: &str = "token";

/// Asks for a signature by a key with which nothing here was signed.
static SIGNED: LazyLock<Authenticator> = LazyLock::new(|| {
    let key = include_str!("../tests/fixtures/keys/rsa-3072.spki.pem");
    let key = PublicKey::from_pem(key).expect("a key of the fixtures");
    Authenticator::Signature(SignatureVerifier::new(vec![key], Duration::from_mins(5)))
});

/// A body is understood or refused. What is understood can be stored, says the
/// same whatever white space is around it, and is kept byte for byte.
pub(crate) fn wire_format(body: &[u8]) {
    let read = |body: &[u8]| {
        recho::read(
            body,
            Receipt {
                endpoint: "default",
                received_at: NOW,
                time_zone: ProviderTimeZone::UTC,
                default_project: &ProjectId::unnamed(),
            },
        )
        .map(|reading| reading.delivery)
    };
    let delivery = match read(body) {
        Ok(delivery) => delivery,
        Err(unreadable) => {
            let reason = unreadable.to_string();
            assert!((1..1000).contains(&reason.len()), "{reason}");
            return;
        }
    };
    assert_eq!(delivery.payload.as_bytes(), body);
    let Delivery { key, event, errors, .. } = &delivery;
    let mut names = vec![key.call_id.as_str(), key.project_id.as_str(), event.event_type.as_str()];
    names.extend(event.call_sid.as_ref().map(CallSid::as_str));
    names.extend(event.client_id.as_ref().map(ClientId::as_str));
    names.extend(event.provider_status.as_deref());
    for name in names {
        assert!((1..=MAX_CHARS).contains(&name.chars().count()), "{name}");
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
    assert_eq!(event.has_errors, !errors.is_empty());
    for error in errors {
        let texts = [&error.code, &error.message, &error.phase, &error.location, &error.timestamp];
        assert!(!texts.into_iter().flatten().any(|text| text.contains('\0')), "{error:?}");
    }
    assert!(event.effective_at() <= NOW + TimeDelta::minutes(5));

    let padded = read(&[b" \r\n", body, b"\t "].concat()).expect("white space changes nothing");
    assert_eq!(padded.event_id, delivery.event_id);
    assert_eq!(padded.event, delivery.event);
}

/// Without the token or the key, no headers are accepted.
///
/// The first three lines of `data` are the headers, the rest is the body.
pub(crate) fn authentication(data: &[u8]) {
    let mut parts = data.splitn(4, |byte| *byte == b'\n');
    let [authorization, timestamp, signature] =
        std::array::from_fn(|_| parts.next().map_or(Header::Missing, Header::Once));
    let body = parts.next().unwrap_or_default();
    let credentials = Credentials { authorization, timestamp, signature };
    let is_accepted = |authenticator: &Authenticator| {
        authenticator.check_headers(&credentials, NOW).and_then(|rest| rest.check(body)).is_ok()
    };

    assert!(is_accepted(&Authenticator::None));
    let knows_the_token = match authorization {
        Header::Once(value) => {
            let value = value.to_ascii_lowercase();
            value.starts_with(b"bearer ") && value.trim_ascii_end().ends_with(TOKEN.as_bytes())
        }
        Header::Missing | Header::Repeated => false,
    };
    assert!(knows_the_token || !is_accepted(&Authenticator::Bearer(Tokens::new([TOKEN]))));
    assert!(!is_accepted(&SIGNED));
}

/// The routes that take parameters.
const ROUTES: [&str; 9] = [
    "/calls/",
    "/calls/c?",
    "/calls/c/history?",
    "/calls/c/history?cursor=",
    "/quarantine?",
    "/quarantine?cursor=",
    "/quarantine/",
    "/metrics?",
    "/",
];

/// A question is refused by what is wrong with it, or goes on to the database,
/// which is away. It never fails.
///
/// The first byte of `data` chooses a route, the rest follows it as it is.
pub(crate) fn question(data: &[u8]) {
    let Some((route, rest)) = data.split_first() else { return };
    let route = ROUTES[usize::from(*route) % ROUTES.len()];
    let Ok(uri) = Uri::try_from([route.as_bytes(), rest].concat()) else {
        // Not even the HTTP library takes it for one.
        return;
    };
    let Ok(request) = Request::builder()
        .method(Method::GET)
        .uri(uri)
        .header("Host", "localhost")
        .body(Body::empty())
    else {
        return;
    };
    thread_local! {
        static SERVICE: (Runtime, Router, Writers) = service();
    }
    SERVICE.with(|(runtime, router, _)| {
        let Ok(response) = runtime.block_on(router.clone().oneshot(request));
        let status = response.status().as_u16();
        assert!([200, 400, 404, 405, 414, 503].contains(&status), "{status}");
    });
}

/// A service whose database is away, and what it lives on.
fn service() -> (Runtime, Router, Writers) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system has what a runtime needs");
    let guard = runtime.enter();
    let options = PgConnectOptions::new_without_pgpass().socket("/nonexistent");
    let pool = PgPoolOptions::new().connect_lazy_with(options.clone());
    let (ingest, writers) = Ingest::start(Settings { writers: 1, batch: 1, queue: 1 }, &options);
    let bounds = Bounds { max_entries: 1, max_bytes: 1, max_age: Duration::ZERO };
    let endpoints = Endpoints {
        by_name: BTreeMap::new(),
        time_zone: ProviderTimeZone::UTC,
        max_body: 1024,
        metrics: http::routes::webhooks::metrics::DeliveryMetrics::default(),
    };
    let settings = http::server::HttpSettings {
        max_connections: 1,
        max_unauthenticated_bytes: 1024,
        read_timeout: Duration::from_mins(1),
        idle_timeout: Duration::from_mins(1),
        answer_timeout: Duration::from_mins(1),
        hosts: None,
        cors_origins: Vec::new(),
        trusted_proxies: Vec::new(),
    };
    let (api_keys, _) = http::ApiKeyCache::start(pool.clone(), false);
    let calls = http::CallReader::start(&pool);
    let (streams, _) = http::Streams::start(&options, 1, std::future::pending());
    let router = http::router(Service {
        quarantine: Quarantine::new(pool.clone(), bounds),
        stalled_after: Duration::from_hours(1),
        retention: Arc::new(Retention::new(pool.clone(), Periods::default(), Clock::fixed(NOW))),
        pool,
        ingest,
        clock: Clock::fixed(NOW),
        endpoints: watch::Sender::new(Arc::new(endpoints)).subscribe(),
        api_keys,
        server: Arc::new(http::HttpServer::new(settings)),
        calls,
        streams,
        reports: http::Reports::default(),
    });
    drop(guard);
    (runtime, router, writers)
}

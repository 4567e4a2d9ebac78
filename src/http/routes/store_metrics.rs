//! The metrics that are read from the database: what is stored, and how old it is.
//!
//! They are read when somebody asks for `/metrics`, and not again within a few seconds,
//! however many ask. While the database does not answer in time, `callstate_database_up` is
//! 0 and the others are missing: an old value would look like a present one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use prometheus::{GaugeVec, IntGauge, IntGaugeVec, Opts, Registry, proto::MetricFamily};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    call::Status,
    http::Service,
    store::{
        Error,
        gauges::{self, Gauges, last_receipts},
    },
};

/// How long what was read is reported before it is read again.
const READ_EVERY: Duration = Duration::from_secs(15);

/// How long the database may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The metrics of the store.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    up: IntGauge,
    /// What is reported only while the database answers.
    registry: Registry,
    calls: IntGaugeVec,
    stalled: IntGauge,
    quarantine: IntGauge,
    oldest_call: IntGauge,
    oldest_payload: IntGauge,
    feed_position: IntGauge,
    stream_lag: IntGauge,
    pending_migrations: IntGauge,
    database_bytes: IntGauge,
    last_event_age: GaugeVec,
    read: Arc<Mutex<LastRead>>,
}

/// What was read last.
#[derive(Debug, Default)]
struct LastRead {
    at: Option<Instant>,
    is_up: bool,
    feed_position: i64,
    /// When each endpoint received its last event.
    received_at: BTreeMap<String, DateTime<Utc>>,
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("the name is well-formed")
}

impl StoreMetrics {
    /// Registers them; the one that is always reported in `always`.
    pub(crate) fn new(always: &Registry) -> Self {
        let calls = Opts::new("callstate_calls", "Live calls by status.");
        let age = Opts::new(
            "callstate_last_event_age_seconds",
            "Time since an endpoint received its last new event.",
        );
        let metrics = Self {
            up: gauge("callstate_database_up", "Whether the database answers: 1 or 0."),
            registry: Registry::new(),
            calls: IntGaugeVec::new(calls, &["status"]).expect("the names are well-formed"),
            stalled: gauge(
                "callstate_calls_stalled",
                "Live calls of which nothing was received for metrics.stalled_after.",
            ),
            quarantine: gauge("callstate_quarantine_entries", "Entries of the quarantine."),
            oldest_call: gauge(
                "callstate_oldest_call_timestamp_seconds",
                "When the oldest stored call began, in Unix time; 0 without calls.",
            ),
            oldest_payload: gauge(
                "callstate_oldest_payload_timestamp_seconds",
                "When the oldest stored payload was received, in Unix time; 0 without payloads.",
            ),
            feed_position: gauge(
                "callstate_feed_position",
                "The last position of the change feed.",
            ),
            stream_lag: gauge(
                "callstate_stream_lag_positions",
                "Positions by which the streams of this instance are behind the change feed; 0 without streams.",
            ),
            pending_migrations: gauge(
                "callstate_migrations_pending",
                "Migrations of this release that the database lacks.",
            ),
            database_bytes: gauge("callstate_database_size_bytes", "Size of the database."),
            last_event_age: GaugeVec::new(age, &["endpoint"]).expect("the names are well-formed"),
            read: Arc::default(),
        };
        let registered = "each name is there once";
        always.register(Box::new(metrics.up.clone())).expect(registered);
        for gauge in [
            &metrics.stalled,
            &metrics.quarantine,
            &metrics.oldest_call,
            &metrics.oldest_payload,
            &metrics.feed_position,
            &metrics.stream_lag,
            &metrics.pending_migrations,
            &metrics.database_bytes,
        ] {
            metrics.registry.register(Box::new(gauge.clone())).expect(registered);
        }
        metrics.registry.register(Box::new(metrics.calls.clone())).expect(registered);
        metrics.registry.register(Box::new(metrics.last_event_age.clone())).expect(registered);
        metrics
    }

    /// Reads them unless they were read just now, and returns those that are known.
    pub(crate) async fn gather(&self, service: &Service) -> Vec<MetricFamily> {
        let mut last = self.read.lock().await;
        let now = service.clock.now();
        if last.at.is_none_or(|at| at.elapsed() >= READ_EVERY) {
            let read = timeout(TIMEOUT, self.read(service, &mut last, now)).await;
            last.is_up = matches!(read, Ok(Ok(())));
            // A database that is away is asked again by the next request.
            last.at = last.is_up.then(Instant::now);
        }
        self.up.set(i64::from(last.is_up));
        if !last.is_up {
            return Vec::new();
        }
        for (endpoint, received_at) in &last.received_at {
            let age = (now - *received_at).as_seconds_f64().max(0.0);
            self.last_event_age.with_label_values(&[endpoint]).set(age);
        }
        self.registry.gather()
    }

    async fn read(
        &self,
        service: &Service,
        last: &mut LastRead,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let mut conn = service.pool.acquire().await?;
        let stalled_after = TimeDelta::from_std(service.stalled_after).unwrap_or(TimeDelta::MAX);
        let stalled_since = now.checked_sub_signed(stalled_after).unwrap_or(DateTime::UNIX_EPOCH);
        let read = gauges::read(&mut conn, stalled_since).await?;
        for (endpoint, at) in last_receipts(&mut conn, last.feed_position).await? {
            let known = last.received_at.entry(endpoint).or_insert(at);
            *known = (*known).max(at);
        }
        last.feed_position = read.feed_position;
        let lag = service.streams.position().map_or(0, |position| read.feed_position - position);
        self.stream_lag.set(lag.max(0));
        self.set(&read);
        Ok(())
    }

    fn set(&self, read: &Gauges) {
        for status in Status::ALL.iter().filter(|status| !status.is_terminal()) {
            let calls = read.live_calls.get(status).copied().unwrap_or_default();
            self.calls.with_label_values(&[status.as_str()]).set(calls);
        }
        let time = |at: Option<DateTime<Utc>>| at.map_or(0, |at| at.timestamp());
        self.stalled.set(read.stalled_calls);
        self.quarantine.set(read.quarantine_entries);
        self.oldest_call.set(time(read.oldest_event_at));
        self.oldest_payload.set(time(read.oldest_payload_at));
        self.feed_position.set(read.feed_position);
        self.pending_migrations.set(read.pending_migrations);
        self.database_bytes.set(read.database_bytes);
    }
}

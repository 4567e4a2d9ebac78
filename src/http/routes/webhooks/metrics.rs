//! The metrics of deliveries, by endpoint.
//!
//! An accepted delivery costs a few atomic additions: its counters are looked up when
//! the endpoints are read. A rejected one may cost a lookup.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, Ordering},
};

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use prometheus::{IntCounter, IntCounterVec, Opts, core::Collector};

use crate::{
    call::{Disposition, TimeProblem},
    recho::{AuthError, TimeReading},
    store::write::RecordResult,
};

/// The outcome of a delivery whose event is stored already. No [`Disposition`] has this name.
pub(crate) const DUPLICATE: &str = "duplicate";

/// The outcome of a delivery of a call or client that was erased. No [`Disposition`] has this name.
pub(crate) const ERASED: &str = "erased";

/// The outcome of a delivery that is kept in the quarantine.
const QUARANTINED: &str = "quarantined";

/// The least time between two warnings of one endpoint about one problem with times.
const WARNING_INTERVAL: i64 = 60 * 60;

/// The metrics of all endpoints. They outlive the endpoints, which are created anew when
/// tokens and keys are read again.
#[derive(Debug, Clone)]
pub struct DeliveryMetrics {
    by_outcome: IntCounterVec,
    not_authentic: IntCounterVec,
    times: IntCounterVec,
}

impl Default for DeliveryMetrics {
    fn default() -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("the names are well-formed")
        };
        Self {
            by_outcome: counters(
                "callstate_deliveries_total",
                "Deliveries by outcome: the disposition of the event, or the status of the response.",
                &["endpoint", "outcome"],
            ),
            not_authentic: counters(
                "callstate_deliveries_not_authentic_total",
                "Deliveries that failed authentication, by the check that failed.",
                &["endpoint", "cause"],
            ),
            times: counters(
                "callstate_event_times_total",
                "Events by how the Time: line of their text was read.",
                &["result"],
            ),
        }
    }
}

impl DeliveryMetrics {
    /// The metrics of one endpoint.
    #[must_use]
    pub fn of_endpoint(&self, name: &str) -> EndpointMetrics {
        let counter = |outcome| self.by_outcome.with_label_values(&[name, outcome]);
        let time = |result| self.times.with_label_values(&[result]);
        EndpointMetrics {
            endpoint: name.to_owned(),
            all: self.clone(),
            accepted: Disposition::ALL.iter().map(|it| (*it, counter(it.as_str()))).collect(),
            duplicate: counter(DUPLICATE),
            erased: counter(ERASED),
            quarantined: counter(QUARANTINED),
            times_read: time("read"),
            times_missing: time("missing"),
            times_unreadable: time("unreadable"),
            times_implausible: time("implausible"),
            warned_at: [AtomicI64::new(i64::MIN), AtomicI64::new(i64::MIN)],
        }
    }

    /// All of them, to be registered.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.by_outcome.clone()),
            Box::new(self.not_authentic.clone()),
            Box::new(self.times.clone()),
        ]
    }
}

/// The metrics of one endpoint.
#[derive(Debug)]
pub struct EndpointMetrics {
    endpoint: String,
    all: DeliveryMetrics,
    accepted: BTreeMap<Disposition, IntCounter>,
    duplicate: IntCounter,
    erased: IntCounter,
    quarantined: IntCounter,
    times_read: IntCounter,
    times_missing: IntCounter,
    times_unreadable: IntCounter,
    times_implausible: IntCounter,
    /// When the last warning about a time was logged, in Unix seconds: unreadable, implausible.
    warned_at: [AtomicI64; 2],
}

impl EndpointMetrics {
    /// Counts an accepted delivery by the disposition of its event, as a duplicate, or as erased.
    pub(crate) fn accepted(&self, result: RecordResult) {
        let counter = match result {
            RecordResult::Stored(disposition, _) => self.accepted.get(&disposition),
            RecordResult::Duplicate(_) => Some(&self.duplicate),
            RecordResult::Erased => Some(&self.erased),
        };
        if let Some(counter) = counter {
            counter.inc();
        }
    }

    /// Counts a delivery that is kept in the quarantine.
    pub(crate) fn quarantined(&self) {
        self.quarantined.inc();
    }

    /// Counts a rejected delivery.
    pub(crate) fn rejected(&self, status: StatusCode) {
        self.all.by_outcome.with_label_values(&[self.endpoint.as_str(), status.as_str()]).inc();
    }

    /// Counts a delivery that failed authentication.
    pub(crate) fn not_authentic(&self, error: AuthError) {
        let labels = [self.endpoint.as_str(), error.as_str()];
        self.all.not_authentic.with_label_values(&labels).inc();
    }

    /// Counts how the time of an event was read. A time that cannot be used is logged, once
    /// an hour for each cause.
    pub(crate) fn time_read(&self, time: &TimeReading, received_at: DateTime<Utc>) {
        match time {
            TimeReading::Read(_) => self.times_read.inc(),
            TimeReading::Missing => self.times_missing.inc(),
            TimeReading::Unreadable { .. } => self.times_unreadable.inc(),
            TimeReading::Implausible { .. } => self.times_implausible.inc(),
        }
        let warned_at = match time.problem() {
            None => return,
            Some(TimeProblem::Unreadable) => &self.warned_at[0],
            Some(TimeProblem::Implausible) => &self.warned_at[1],
        };
        let now = received_at.timestamp();
        let is_due = |last: i64| (now.saturating_sub(last) >= WARNING_INTERVAL).then_some(now);
        if warned_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_ok() {
            tracing::warn!(
                endpoint = self.endpoint,
                cause = time.as_str(),
                example = time.example().unwrap_or_default(),
                "the Time: line of events cannot be used, so their receipt counts; \
                 check provider_time_zone",
            );
        }
    }
}

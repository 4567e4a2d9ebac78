//! What becomes of deliveries, counted by endpoint.
//!
//! What is taken costs one atomic addition: its counters are looked up when the
//! endpoints are read. What is refused may cost a look-up.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use prometheus::{IntCounter, IntCounterVec, Opts, core::Collector};

use crate::{call::Disposition, recho::proof::Refusal};

/// What [`Disposition`] is none: the event had been stored before.
pub(super) const DUPLICATE: &str = "duplicate";

/// The counters of all endpoints. They outlast the endpoints, which are made
/// anew when tokens and keys are read again.
#[derive(Debug, Clone)]
pub struct Deliveries {
    by_outcome: IntCounterVec,
    not_authentic: IntCounterVec,
}

impl Default for Deliveries {
    fn default() -> Self {
        let counters = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(name, help), &["endpoint", label])
                .expect("the names are well-formed")
        };
        Self {
            by_outcome: counters(
                "callstate_deliveries_total",
                "Deliveries by what became of them: what the event did, or the status of the refusal.",
                "outcome",
            ),
            not_authentic: counters(
                "callstate_deliveries_not_authentic_total",
                "Deliveries that did not prove where they come from, by the check that failed.",
                "cause",
            ),
        }
    }
}

impl Deliveries {
    /// The counters of one endpoint.
    #[must_use]
    pub fn of_endpoint(&self, name: &str) -> Tally {
        let counter = |outcome| self.by_outcome.with_label_values(&[name, outcome]);
        Tally {
            endpoint: name.to_owned(),
            all: self.clone(),
            taken: Disposition::ALL.iter().map(|it| (*it, counter(it.as_str()))).collect(),
            duplicate: counter(DUPLICATE),
        }
    }

    /// All of them, to be registered.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.by_outcome.clone()), Box::new(self.not_authentic.clone())]
    }
}

/// The counters of one endpoint.
#[derive(Debug)]
pub struct Tally {
    endpoint: String,
    all: Deliveries,
    taken: BTreeMap<Disposition, IntCounter>,
    duplicate: IntCounter,
}

impl Tally {
    /// Counts a delivery that was taken: what its event did, or `None` if it had
    /// been stored before.
    pub(super) fn taken(&self, disposition: Option<Disposition>) {
        let counter = disposition.and_then(|it| self.taken.get(&it)).unwrap_or(&self.duplicate);
        counter.inc();
    }

    /// Counts a delivery that was refused.
    pub(super) fn refused(&self, status: StatusCode) {
        self.all.by_outcome.with_label_values(&[self.endpoint.as_str(), status.as_str()]).inc();
    }

    /// Counts by what a delivery turned out not to be authentic.
    pub(super) fn not_authentic(&self, refusal: Refusal) {
        let labels = [self.endpoint.as_str(), refusal.as_str()];
        self.all.not_authentic.with_label_values(&labels).inc();
    }
}

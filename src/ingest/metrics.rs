//! The metrics of the writers: atomics, shared by all of them.

use prometheus::{Histogram, HistogramOpts, IntCounter, core::Collector};

/// Bounds of batches: powers of four, beyond the largest batch that can be configured.
const DELIVERIES: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// Bounds of commits, in seconds: from a disk that does not wait to a database that is
/// about to be given up.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The metrics of the writers.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) batch_deliveries: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) contended_rounds: IntCounter,
    pub(super) splits: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = |name: &str, help: &str, bounds: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            Histogram::with_opts(options).expect("the name is well-formed and the bounds increase")
        };
        Self {
            batch_deliveries: histogram(
                "callstate_ingest_batch_deliveries",
                "Deliveries written in one batch.",
                &DELIVERIES,
            ),
            commit_seconds: histogram(
                "callstate_ingest_commit_seconds",
                "Time from the start of writing a batch to its commit or failure.",
                &SECONDS,
            ),
            contended_rounds: counter(
                "callstate_ingest_contended_rounds_total",
                "Times that calls were decided again because another writer had changed them.",
            ),
            splits: counter(
                "callstate_ingest_splits_total",
                "Batches that were split because one of their deliveries failed.",
            ),
        }
    }
}

impl Metrics {
    /// All of them, to be registered.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.batch_deliveries.clone()),
            Box::new(self.commit_seconds.clone()),
            Box::new(self.contended_rounds.clone()),
            Box::new(self.splits.clone()),
        ]
    }
}

/// A counter.
pub(super) fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("the name is well-formed")
}

//! What the writers count, for whoever operates them.
//!
//! Each is a handful of atomics, shared by all writers; nothing here locks or
//! allocates once it is made.

use prometheus::{Histogram, HistogramOpts, IntCounter, core::Collector};

/// Bounds of batches: powers of four, up to the largest that can be configured
/// and beyond it.
const DELIVERIES: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// Bounds of commits, in seconds: from a disk that does not wait to a database
/// that is about to be given up.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What the writers count.
#[derive(Debug, Clone)]
pub struct Counters {
    pub(super) batch_deliveries: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) contended_rounds: IntCounter,
    pub(super) splits: IntCounter,
}

impl Default for Counters {
    fn default() -> Self {
        let histogram = |name: &str, help: &str, bounds: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            Histogram::with_opts(options).expect("the name is well-formed and the bounds rise")
        };
        Self {
            batch_deliveries: histogram(
                "callstate_ingest_batch_deliveries",
                "Deliveries that were written together.",
                &DELIVERIES,
            ),
            commit_seconds: histogram(
                "callstate_ingest_commit_seconds",
                "How long a batch had the connection, until the commit or the failure.",
                &SECONDS,
            ),
            contended_rounds: counter(
                "callstate_ingest_contended_rounds_total",
                "How often calls were decided again, since they were not as was thought.",
            ),
            splits: counter(
                "callstate_ingest_splits_total",
                "Batches that failed for what was in them and were split.",
            ),
        }
    }
}

impl Counters {
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

/// A counter that begins at zero.
pub(super) fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("the name is well-formed")
}

//! Latencies: counted, not kept, in buckets that are narrow enough.

use std::time::Duration;

/// Buckets for each doubling of the time: none is wider than 1/64 of it.
const BUCKETS_PER_OCTAVE: usize = 64;
const OCTAVES: usize = 32;

/// How long things took, to 2 %, from a microsecond to an hour.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS_PER_OCTAVE * OCTAVES], count: 0, max: Duration::ZERO }
    }
}

impl Latencies {
    /// Counts one.
    pub fn note(&mut self, latency: Duration) {
        let bucket = bucket(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        self.counts[bucket.min(BUCKETS_PER_OCTAVE * OCTAVES - 1)] += 1;
        self.count += 1;
        self.max = self.max.max(latency);
    }

    /// What that share of them did not exceed; `None` where there are none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_micros(upper_bound(bucket)).min(self.max))
    }

    /// The longest; `None` where there are none.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then_some(self.max)
    }
}

/// The first buckets are a microsecond wide; from then on each octave has as
/// many, twice as wide as those before.
fn bucket(microseconds: u64) -> usize {
    let per_octave = BUCKETS_PER_OCTAVE as u64;
    let octave = (microseconds / per_octave).checked_ilog2().map_or(0, |log| log + 1);
    let shift = octave.saturating_sub(1);
    let within = (microseconds >> shift) % per_octave;
    octave as usize * BUCKETS_PER_OCTAVE + usize::try_from(within).expect("less than an octave's")
}

/// The greatest number of microseconds that the bucket holds.
fn upper_bound(bucket: usize) -> u64 {
    let (octave, within) = (bucket / BUCKETS_PER_OCTAVE, bucket % BUCKETS_PER_OCTAVE);
    if octave == 0 {
        return within as u64;
    }
    let shift = octave - 1;
    (((BUCKETS_PER_OCTAVE + within + 1) as u64) << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_noted() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.percentile(50), latencies.max()), (None, None));
        (1..=50).for_each(|it| latencies.note(Duration::from_micros(it)));
        assert_eq!(latencies.percentile(50), Some(Duration::from_micros(25)));
        assert_eq!(latencies.percentile(99), Some(Duration::from_micros(50)));
        latencies.note(Duration::from_secs(2));
        assert_eq!(latencies.max(), Some(Duration::from_secs(2)));
        assert_eq!(latencies.percentile(100), Some(Duration::from_secs(2)));
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_falls_into_it_and_is_narrow(microseconds in 0..3_600_000_000u64) {
            let upper = upper_bound(bucket(microseconds));
            prop_assert!(upper >= microseconds);
            prop_assert!(upper - microseconds <= microseconds / 64);
            prop_assert!(bucket(upper) == bucket(microseconds));
            prop_assert!(bucket(upper + 1) == bucket(microseconds) + 1);
        }
    }
}

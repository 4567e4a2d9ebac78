//! The task that removes what is old: payloads, and calls that have ended.
//!
//! It works in small batches and rests after each for several times as long as the batch
//! took, so that ingest keeps the database for most of the time.
//!
//! What is old is decided by the database's clock. While a [`ClockCheck`] fails, nothing is
//! removed.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use prometheus::{IntCounter, core::Collector};
use sqlx::PgPool;
use tokio::time::sleep;

use super::{
    clock_check::{ClockCheck, ClockError},
    metrics::counter,
};
use crate::{
    clock::Clock,
    log_limit,
    store::{
        self,
        connection::server_time,
        erasure::forget,
        retention::{prune_next_calls, remove_next_payloads},
    },
};

/// How long the change feed keeps the erasure of a call, whose names are in it.
const ERASED_CALLS: Duration = Duration::from_hours(30 * 24);

/// How often it looks for what has become old.
const RUN_EVERY: Duration = Duration::from_mins(1);

/// How long it rests after a batch, as a multiple of the time that the batch took.
const REST: u32 = 4;

/// The shortest rest after a batch.
const SHORTEST_REST: Duration = Duration::from_millis(10);

/// How long things are kept; `None` for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Periods {
    /// How long payloads are kept after they were received.
    pub payloads: Option<Duration>,
    /// How long calls are kept after they ended and nothing was received of them.
    pub calls: Option<Duration>,
}

/// What a run has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// The number of payloads.
    pub payloads: u64,
    /// The number of calls.
    pub calls: u64,
    /// The number of events of these calls.
    pub events: u64,
}

/// Why nothing could be removed.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// A clock is wrong.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The database cannot be read or written.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The retention of a running program.
#[derive(Debug)]
pub struct Retention {
    pool: PgPool,
    periods: Periods,
    clock: Clock,
    clock_check: Mutex<ClockCheck>,
    metrics: Metrics,
}

/// The metrics of retention.
#[derive(Debug, Clone)]
struct Metrics {
    payloads: IntCounter,
    calls: IntCounter,
    events: IntCounter,
}

impl Metrics {
    fn new() -> Self {
        Self {
            payloads: counter(
                "callstate_retention_payloads_removed_total",
                "Payloads that retention has removed.",
            ),
            calls: counter(
                "callstate_retention_calls_pruned_total",
                "Calls that retention has pruned.",
            ),
            events: counter(
                "callstate_retention_events_pruned_total",
                "Events of calls that retention has pruned.",
            ),
        }
    }
}

impl Retention {
    /// The retention of that database.
    #[must_use]
    pub fn new(pool: PgPool, periods: Periods, clock: Clock) -> Self {
        Self { pool, periods, clock, clock_check: Mutex::default(), metrics: Metrics::new() }
    }

    /// Its metrics, to be registered.
    #[must_use]
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let Metrics { payloads, calls, events } = self.metrics.clone();
        vec![Box::new(payloads), Box::new(calls), Box::new(events)]
    }

    /// Removes what is old at once, and then from time to time.
    pub async fn run(&self) -> Infallible {
        loop {
            if let Err(error) = self.run_once().await
                && log_limit::admits("retention_failed", "")
            {
                tracing::warn!(%error, "nothing is removed because of its age");
            }
            sleep(RUN_EVERY).await;
        }
    }

    /// Removes what is old.
    ///
    /// # Errors
    ///
    /// Fails if a clock is wrong or a query fails. What was removed until then is counted.
    pub async fn run_once(&self) -> Result<Removed, RetentionError> {
        let mut removed = Removed::default();
        let now = self.trusted_time(server_time(&self.pool).await?)?;
        forget(&self.pool, older_than(now, ERASED_CALLS)).await?;
        if let Some(period) = self.periods.payloads {
            removed.payloads = self.remove_payloads(older_than(now, period), now).await?;
        }
        if let Some(period) = self.periods.calls {
            (removed.calls, removed.events) = self.prune_calls(older_than(now, period)).await?;
        }
        if removed != Removed::default() {
            let Removed { payloads, calls, events } = removed;
            tracing::info!(payloads, calls, events, "what was old was removed");
        }
        Ok(removed)
    }

    async fn remove_payloads(
        &self,
        received_before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<u64, store::Error> {
        let mut removed = 0;
        loop {
            let started = Instant::now();
            let mut connection = self.pool.acquire().await?;
            let batch = remove_next_payloads(&mut connection, received_before, now).await?;
            drop(connection);
            let Some(batch) = batch else {
                return Ok(removed);
            };
            removed += batch.removed;
            self.metrics.payloads.inc_by(batch.removed);
            if !batch.has_more {
                return Ok(removed);
            }
            rest(started).await;
        }
    }

    async fn prune_calls(&self, before: DateTime<Utc>) -> Result<(u64, u64), store::Error> {
        let (mut calls, mut events) = (0, 0);
        let mut after = None;
        loop {
            let started = Instant::now();
            let mut connection = self.pool.acquire().await?;
            let batch = prune_next_calls(&mut connection, after, before).await?;
            drop(connection);
            let Some(batch) = batch else {
                return Ok((calls, events));
            };
            calls += batch.calls;
            events += batch.events;
            self.metrics.calls.inc_by(batch.calls);
            self.metrics.events.inc_by(batch.events);
            if batch.last.is_none() {
                return Ok((calls, events));
            }
            after = batch.last;
            rest(started).await;
        }
    }

    /// The database's time, if the clocks are right.
    fn trusted_time(&self, server: DateTime<Utc>) -> Result<DateTime<Utc>, ClockError> {
        let mut check = self.clock_check.lock().unwrap_or_else(PoisonError::into_inner);
        check.check(server, self.clock.now(), Instant::now())?;
        Ok(server)
    }
}

/// The time of the database, if it agrees with the clock of this machine.
///
/// # Errors
///
/// Fails if the query fails or the clocks differ.
pub async fn trusted_time(pool: &PgPool, clock: &Clock) -> Result<DateTime<Utc>, RetentionError> {
    let server = server_time(pool).await?;
    ClockCheck::default().check(server, clock.now(), Instant::now())?;
    Ok(server)
}

/// The time before which things are older than a period.
#[must_use]
pub fn older_than(now: DateTime<Utc>, period: Duration) -> DateTime<Utc> {
    let period = TimeDelta::from_std(period).unwrap_or(TimeDelta::MAX);
    now.checked_sub_signed(period).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Rests after a batch.
async fn rest(started: Instant) {
    sleep((started.elapsed() * REST).max(SHORTEST_REST)).await;
}

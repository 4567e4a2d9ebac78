//! `GET /reports/…`: figures over many calls, as JSON or CSV.
//!
//! | file | holds |
//! | --- | --- |
//! | [`request`] | what may be asked of every report, and its bounds |
//! | [`table`] | an answer: its rows as JSON and as CSV |
//! | [`outcomes`], [`durations`], [`concurrency`], [`errors`], [`coverage`] | one report each |
//!
//! What always holds: a call counts in the bucket of its first event; a bucket
//! of which there is nothing is there and says zero, for each group that has
//! anything in the span; each report is of one moment; how many are computed at
//! a time is bounded, since each takes a processor or two of the database's, and
//! one whose reader has gone counts until the database is done with it.

pub(crate) mod concurrency;
pub(crate) mod coverage;
pub(crate) mod durations;
pub(crate) mod errors;
pub(crate) mod outcomes;
pub mod request;
mod table;

use std::{collections::BTreeSet, sync::Arc};

use sqlx::PgPool;
use tokio::sync::{OnceCell, Semaphore};

use crate::{
    http::Problem,
    store::{self, reports::span},
};

/// How many reports are computed at a time; more wait.
const MAX_AT_ONCE: usize = 2;

/// What reports share.
#[derive(Debug, Clone)]
pub struct Reports {
    turns: Arc<Semaphore>,
    /// Asked for once: the database reads a file for each.
    time_zones: Arc<OnceCell<BTreeSet<String>>>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(MAX_AT_ONCE)), time_zones: Arc::new(OnceCell::new()) }
    }
}

impl Reports {
    /// The names of the time zones that the database knows.
    async fn time_zones(&self, pool: &PgPool) -> Result<&BTreeSet<String>, store::Error> {
        self.time_zones.get_or_try_init(|| span::time_zones(pool)).await
    }

    /// Waits for a turn to compute a report, which ends with what it gives.
    async fn turn(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        turn.map_err(|_| Problem::internal("no report is computed any more"))
    }
}

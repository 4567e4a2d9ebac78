//! The calls that other sessions have locked in the database.
//!
//! The first batch with such a call waits for the lock, as writers hold their locks for
//! milliseconds. Then its deliveries fail, and the call is noted as locked: no batch
//! waits for it again. It is tried apart from the others, with a short lock timeout,
//! until it is free.
//!
//! Postgres reports which rows of `calls` are locked without waiting. It does not report
//! other locks that a delivery may wait for: a call that another transaction has inserted
//! and not committed, a row of `events`, a whole table.

use std::collections::BTreeSet;

use super::batch::Batch;
use crate::call::{CallKey, Delivery};

/// The most calls that are noted. With more, all are forgotten and waited for once more.
const MAX_CALLS: usize = 10_000;

/// The calls that were locked when they were last tried.
#[derive(Debug, Default)]
pub(super) struct LockedCalls(BTreeSet<CallKey>);

impl LockedCalls {
    /// Splits a batch into deliveries for calls that are not noted, and those that are.
    pub(super) fn split(&self, batch: Batch) -> (Batch, Batch) {
        if self.0.is_empty() { (batch, Batch::default()) } else { batch.split_by(&self.0) }
    }

    /// Notes that these calls are locked.
    pub(super) fn add(&mut self, keys: impl IntoIterator<Item = CallKey>) {
        self.0.extend(keys);
        if self.0.len() > MAX_CALLS {
            self.0.clear();
        }
    }

    /// Notes that these calls are free.
    pub(super) fn remove<'d>(&mut self, deliveries: impl Iterator<Item = &'d Delivery>) {
        if !self.0.is_empty() {
            deliveries.for_each(|delivery| {
                self.0.remove(&delivery.key);
            });
        }
    }
}

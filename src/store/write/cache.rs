//! The calls that a writer wrote last, so that it need not read them again.
//!
//! An entry may be out of date, as there are other writers. That does no harm: a
//! write replaces only the version that it was decided on.

use std::collections::HashMap;

use crate::{
    call::{CallKey, Fingerprint},
    store::calls::StoredCall,
};

/// The most events of a call that is cached.
const MAX_EVENTS: usize = 500;

/// A call and the fingerprints of all its events.
#[derive(Debug)]
pub(super) struct CachedCall {
    pub(super) stored: StoredCall,
    pub(super) fingerprints: Vec<Fingerprint>,
}

/// Calls by key, in two generations. When the younger one has its number of events,
/// it becomes the older one, whose calls are dropped.
#[derive(Debug)]
pub(super) struct CallCache {
    events_per_generation: usize,
    younger: HashMap<CallKey, CachedCall>,
    /// The number of events of the calls in the younger generation.
    events: usize,
    older: HashMap<CallKey, CachedCall>,
}

impl CallCache {
    pub(super) fn new(events_per_generation: usize) -> Self {
        let (younger, older) = (HashMap::new(), HashMap::new());
        Self { events_per_generation, younger, events: 0, older }
    }

    /// A call, which stays in the cache.
    pub(super) fn get(&self, key: &CallKey) -> Option<&CachedCall> {
        self.younger.get(key).or_else(|| self.older.get(key))
    }

    /// Removes a call.
    pub(super) fn take(&mut self, key: &CallKey) -> Option<CachedCall> {
        let call = self.younger.remove(key);
        if let Some(call) = &call {
            self.events -= call.fingerprints.len();
        }
        call.or_else(|| self.older.remove(key))
    }

    /// Adds a call that is not in the cache, unless it has very many events.
    pub(super) fn put(&mut self, call: CachedCall) {
        if call.fingerprints.len() > MAX_EVENTS {
            return;
        }
        if self.events >= self.events_per_generation {
            self.older = std::mem::take(&mut self.younger);
            self.events = 0;
        }
        self.events += call.fingerprints.len();
        if let Some(replaced) = self.younger.insert(call.stored.key.clone(), call) {
            self.events -= replaced.fingerprints.len();
        }
    }
}

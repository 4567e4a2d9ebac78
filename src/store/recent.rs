//! The calls that a writer wrote last, so that it need not read them again.
//!
//! What is remembered may be out of date, for there are other writers. That
//! does no harm: a call is written only over the version that was read, and who
//! wrote it changed the version.

use std::collections::HashMap;

use super::calls::StoredCall;
use crate::call::{CallKey, Fingerprint};

/// The most events of a call that is remembered.
const MAX_EVENTS: usize = 500;

/// A call and all the events that it has.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) stored: StoredCall,
    /// How many of its attempts are stored apart.
    pub(super) attempts_before: usize,
    pub(super) fingerprints: Vec<Fingerprint>,
}

/// Calls by key, with at most twice as many events as a generation has. When the
/// younger generation is full it becomes the older one, which is forgotten.
#[derive(Debug)]
pub(super) struct Recent {
    generation: usize,
    younger: HashMap<CallKey, Remembered>,
    /// How many events have been put into the younger generation.
    events: usize,
    older: HashMap<CallKey, Remembered>,
}

impl Recent {
    pub(super) fn new(generation: usize) -> Self {
        Self { generation, younger: HashMap::new(), events: 0, older: HashMap::new() }
    }

    /// Takes a call out.
    pub(super) fn take(&mut self, key: &CallKey) -> Option<Remembered> {
        let call = self.younger.remove(key);
        if let Some(call) = &call {
            self.events -= call.fingerprints.len();
        }
        call.or_else(|| self.older.remove(key))
    }

    /// Puts a call in, unless it has very many events.
    pub(super) fn put(&mut self, call: Remembered) {
        if call.fingerprints.len() > MAX_EVENTS {
            return;
        }
        if self.events >= self.generation {
            self.older = std::mem::take(&mut self.younger);
            self.events = 0;
        }
        self.events += call.fingerprints.len();
        // It is there already where two batches had it in hand at once.
        if let Some(replaced) = self.younger.insert(call.stored.key.clone(), call) {
            self.events -= replaced.fingerprints.len();
        }
    }
}

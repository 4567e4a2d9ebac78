//! The API keys as an instance knows them.
//!
//! A key is looked up by its hash and the result remembered for [`FRESH`]; so
//! a request seldom waits for the database, and a key that is revoked, wherever
//! that was done, is refused by every instance [`FRESH`] later at the latest.
//! When a key was last used is written beside the requests, by [`LastUsedWriter`].
//!
//! What always holds: a result is as old as the moment before its snapshot-up; what
//! is remembered is bounded, and guesses push out guesses only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio::{sync::mpsc, task::JoinHandle};
use uuid::Uuid;

use crate::{
    access::{KeyHash, KeyRecord, KeyState},
    log_limit,
    store::{self, api_keys},
};

/// How long a result is believed.
pub const FRESH: TimeDelta = TimeDelta::seconds(2);

/// The most results that are remembered of each kind: keys, and what is none.
const CAPACITY: usize = 1024;

/// The most uses that wait to be written. One that finds no room is written
/// when the key is looked up again.
const WAITING_USES: usize = 256;

/// Which keys are good.
#[derive(Debug, Clone)]
pub struct ApiKeyCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    is_required: bool,
    remembered: Mutex<Remembered>,
    uses: mpsc::Sender<Use>,
}

impl ApiKeyCache {
    /// Takes keys from the database from here on; and whether a request needs
    /// one.
    #[must_use]
    pub fn start(pool: PgPool, is_required: bool) -> (Self, LastUsedWriter) {
        let (uses, noted) = mpsc::channel(WAITING_USES);
        let writing = tokio::spawn(write(pool.clone(), noted));
        let remembered = Mutex::default();
        (Self(Arc::new(Inner { pool, is_required, remembered, uses })), LastUsedWriter(writing))
    }

    /// Whether a request needs a key.
    pub(crate) fn is_required(&self) -> bool {
        self.0.is_required
    }

    /// Looks up the key of that hash, be it good or not.
    ///
    /// # Errors
    ///
    /// Where the database would have to be asked and cannot.
    pub(crate) async fn find(
        &self,
        hash: KeyHash,
        now: DateTime<Utc>,
    ) -> Result<Found, store::Error> {
        if let Some(found) = self.remembered(|remembered| remembered.get(&hash, now)) {
            return Ok(found);
        }
        let found = match api_keys::by_hash(&self.0.pool, &hash).await? {
            Some(record) => Found::Key(Arc::new(record)),
            None => Found::Nothing,
        };
        if let Found::Key(record) = &found
            && record.state(now) == KeyState::Active
            && record.is_use_news(now)
        {
            // No room, or the service stops: it is told again or no more.
            let _ = self.0.uses.try_send(Use { id: record.id, at: now });
        }
        self.remembered(|remembered| remembered.put(hash, found.clone(), now));
        Ok(found)
    }

    fn remembered<T>(&self, work: impl FnOnce(&mut Remembered) -> T) -> T {
        // What is remembered is whole between any two statements.
        work(&mut self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A use of a key.
#[derive(Debug)]
struct Use {
    id: Uuid,
    at: DateTime<Utc>,
}

/// Writes down when keys were used.
#[derive(Debug)]
pub struct LastUsedWriter(JoinHandle<()>);

impl LastUsedWriter {
    /// Waits until all is written. Every [`ApiKeyCache`] must be gone, else this
    /// waits for more.
    pub async fn finish(self) {
        if let Err(panicked) = self.0.await {
            tracing::error!("the uses of keys were not all written: {panicked}");
        }
    }
}

async fn write(pool: PgPool, mut uses: mpsc::Receiver<Use>) {
    while let Some(Use { id, at }) = uses.recv().await {
        if let Err(error) = api_keys::note_use(&pool, id, at).await
            && log_limit::admits("key_use_not_written", "")
        {
            tracing::warn!(key = %id, "the use of a key was not written: {error}");
        }
    }
}

/// What a snapshot-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A key, and what it is good for.
    Key(Arc<KeyRecord>),
    /// No key has that hash: it was guessed.
    Nothing,
}

/// What was looked up of late.
#[derive(Debug, Default)]
struct Remembered {
    keys: HashMap<KeyHash, Dated<Arc<KeyRecord>>>,
    guesses: HashMap<KeyHash, Dated<()>>,
}

/// Something, and since when it may be out of date.
#[derive(Debug)]
struct Dated<T> {
    at: DateTime<Utc>,
    what: T,
}

impl<T> Dated<T> {
    /// Whether it is to be believed. A clock that was set back gives no key a
    /// longer life.
    fn is_fresh(&self, now: DateTime<Utc>) -> bool {
        (TimeDelta::zero()..FRESH).contains(&(now - self.at))
    }
}

impl Remembered {
    fn get(&self, hash: &KeyHash, now: DateTime<Utc>) -> Option<Found> {
        if let Some(key) = self.keys.get(hash).filter(|it| it.is_fresh(now)) {
            return Some(Found::Key(Arc::clone(&key.what)));
        }
        self.guesses.get(hash).filter(|it| it.is_fresh(now)).map(|_| Found::Nothing)
    }

    fn put(&mut self, hash: KeyHash, found: Found, at: DateTime<Utc>) {
        match found {
            Found::Key(record) => put(&mut self.keys, hash, Dated { at, what: record }),
            Found::Nothing => put(&mut self.guesses, hash, Dated { at, what: () }),
        }
    }
}

/// Puts a result in, in place of all where there is no room: they are out of
/// date soon anyway.
fn put<T>(results: &mut HashMap<KeyHash, Dated<T>>, hash: KeyHash, result: Dated<T>) {
    if results.len() >= CAPACITY && !results.contains_key(&hash) {
        results.clear();
    }
    results.insert(hash, result);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{KeyName, Projects, Scope};

    const NOON: DateTime<Utc> = DateTime::from_timestamp(1_779_624_000, 0).unwrap();

    fn hash(number: usize) -> KeyHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        KeyHash(hash)
    }

    fn key() -> Found {
        Found::Key(Arc::new(KeyRecord {
            id: Uuid::nil(),
            name: KeyName::new("grafana").unwrap(),
            scope: Scope::Read,
            projects: Projects::All,
            created_at: NOON,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        }))
    }

    #[test]
    fn what_was_found_is_believed_for_two_seconds() {
        let mut remembered = Remembered::default();
        assert_eq!(remembered.get(&hash(1), NOON), None);
        remembered.put(hash(1), key(), NOON);
        remembered.put(hash(2), Found::Nothing, NOON);
        let microsecond = TimeDelta::microseconds(1);
        for now in [NOON, NOON + TimeDelta::seconds(2) - microsecond] {
            assert_eq!(remembered.get(&hash(1), now), Some(key()));
            assert_eq!(remembered.get(&hash(2), now), Some(Found::Nothing));
        }
        for now in [NOON + TimeDelta::seconds(2), NOON - microsecond] {
            assert_eq!(remembered.get(&hash(1), now), None);
            assert_eq!(remembered.get(&hash(2), now), None);
        }
    }

    #[test]
    fn a_newer_result_takes_the_place_of_an_older_one() {
        let mut remembered = Remembered::default();
        remembered.put(hash(1), Found::Nothing, NOON);
        // Found while the other is still fresh, as when it is made meanwhile.
        remembered.put(hash(1), key(), NOON);
        assert_eq!(remembered.get(&hash(1), NOON), Some(key()));
    }

    #[test]
    fn guesses_are_bounded_and_push_out_no_key() {
        let mut remembered = Remembered::default();
        remembered.put(hash(0), key(), NOON);
        for number in 1..=3 * CAPACITY {
            remembered.put(hash(number), Found::Nothing, NOON);
            assert!(remembered.guesses.len() <= CAPACITY);
            assert_eq!(remembered.get(&hash(number), NOON), Some(Found::Nothing));
        }
        assert_eq!(remembered.get(&hash(0), NOON), Some(key()));
    }

    #[test]
    fn keys_are_bounded() {
        let mut remembered = Remembered::default();
        for number in 0..3 * CAPACITY {
            remembered.put(hash(number), key(), NOON);
            assert!(remembered.keys.len() <= CAPACITY);
            assert_eq!(remembered.get(&hash(number), NOON), Some(key()));
        }
    }
}

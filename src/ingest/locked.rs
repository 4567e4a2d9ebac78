//! The calls that somebody outside has locked in the database.
//!
//! The first batch with such a call waits for it, as writers hold their locks for
//! milliseconds. Then its deliveries are refused and the call is known to be locked:
//! no batch waits for it again, but tries it apart and hardly waits, until it is free.
//!
//! Which rows of `calls` are locked, Postgres tells without waiting. It does not tell what
//! else a delivery may have to wait for: a call that another transaction has inserted and
//! not committed, a row of `events`, a whole table.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    turn::{Patience, Turns, in_time},
    writer::Part,
};
use crate::{
    call::{CallKey, Delivery},
    store::{self, Line as _},
};

/// The most calls that are known to be locked. Where there are more they are forgotten, and
/// waited for once more.
const MOST: usize = 10_000;

/// Those that were locked when they were last tried.
#[derive(Debug, Default)]
pub(super) struct Locked(Mutex<BTreeSet<CallKey>>);

impl Locked {
    /// Parts a batch into what is for calls that are not known to be locked, and what is for
    /// those that are.
    pub(super) fn part(&self, batch: Part) -> (Part, Part) {
        let known = self.known();
        if known.is_empty() { (batch, Part::default()) } else { batch.split_by(&known) }
    }

    /// Looks which calls of these deliveries are locked, as far as can be seen, and knows
    /// it from then on.
    ///
    /// # Errors
    ///
    /// Where the database cannot be asked; with a lock timeout where the whole table is locked.
    pub(super) async fn look(
        &self,
        turns: &Turns,
        bucket: i32,
        deliveries: &[Delivery],
    ) -> Result<BTreeSet<CallKey>, store::Error> {
        let keys: BTreeSet<&CallKey> = deliveries.iter().map(|delivery| &delivery.key).collect();
        let keys: Vec<&CallKey> = keys.into_iter().collect();
        let locked = loop {
            let (mut turn, begun) = turns.next(turns.recorder(), 0, Patience::Short);
            let locked = in_time(begun, async {
                store::calls::locked(turn.connection().await?, bucket, &keys).await
            })
            .await;
            // Nothing was asked yet: the other hand's connection has failed, and there is another.
            let is_outdated = matches!(locked, Err(store::Error::Outdated));
            let leaves_it_sound = store::Error::leaves_the_connection_sound;
            if is_outdated || locked.as_ref().err().is_none_or(leaves_it_sound) {
                turn.ends_well();
            }
            if !is_outdated {
                break BTreeSet::from_iter(locked?);
            }
        };
        self.add(locked.iter().cloned());
        Ok(locked)
    }

    /// Knows that these calls are locked.
    pub(super) fn add(&self, keys: impl Iterator<Item = CallKey>) {
        let mut known = self.known();
        known.extend(keys);
        if known.len() > MOST {
            known.clear();
        }
    }

    /// Knows that these calls are free.
    pub(super) fn remove<'d>(&self, deliveries: impl Iterator<Item = &'d Delivery>) {
        let mut known = self.known();
        if !known.is_empty() {
            deliveries.for_each(|delivery| {
                known.remove(&delivery.key);
            });
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<CallKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

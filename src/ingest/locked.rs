//! The calls that somebody outside has locked in the database.
//!
//! The first batch with such a call waits for it, as writers hold their locks for
//! milliseconds. Then it is looked which calls it was; their deliveries are refused, and
//! no batch waits for them again until they are free.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::turn::{Turns, in_time};
use crate::{
    call::{CallKey, Delivery},
    store::{self, Line as _},
};

/// Those that were locked when they were last looked at, with their buckets.
#[derive(Debug, Default)]
pub(super) struct Locked(Mutex<BTreeSet<(i32, CallKey)>>);

impl Locked {
    /// Looks again at those of a bucket that were locked, and at others. Where the database
    /// cannot be asked, or the whole table is locked, none is known to be.
    pub(super) async fn look(&self, turns: &Turns, bucket: i32, others: &[Delivery]) {
        let mut keys: BTreeSet<CallKey> = others.iter().map(|it| it.key.clone()).collect();
        {
            let mut known = self.known();
            keys.extend(known.iter().filter(|it| it.0 == bucket).map(|it| it.1.clone()));
            known.retain(|it| it.0 != bucket);
        }
        if keys.is_empty() {
            return;
        }
        let (mut turn, begun) = turns.next(turns.recorder(), 0);
        let answer = in_time(begun, async {
            let keys: Vec<&CallKey> = keys.iter().collect();
            store::calls::locked(turn.connection().await?, bucket, &keys).await
        })
        .await;
        match answer {
            Ok(locked) => {
                turn.ends_well();
                self.known().extend(locked.into_iter().map(|key| (bucket, key)));
            }
            Err(error) if error.is_lock_timeout() => turn.ends_well(),
            Err(error) => tracing::warn!(%error, "it is not known which calls are locked"),
        }
    }

    /// Whether none is known to be.
    pub(super) fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    /// Parts deliveries, each with something, into those of free calls and of locked ones.
    pub(super) fn part<T>(
        &self,
        bucket: i32,
        deliveries: Vec<Delivery>,
        with: Vec<T>,
    ) -> ((Vec<Delivery>, Vec<T>), Vec<T>) {
        let known = self.known();
        let (mut free, mut locked) = ((Vec::new(), Vec::new()), Vec::new());
        for (delivery, with) in deliveries.into_iter().zip(with) {
            if known.contains(&(bucket, delivery.key.clone())) {
                locked.push(with);
            } else {
                free.0.push(delivery);
                free.1.push(with);
            }
        }
        (free, locked)
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<(i32, CallKey)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Deliveries that are committed together, and the senders of their results.

use std::collections::BTreeSet;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{connection::LockTimeout, queue::IngestError};
use crate::{
    call::{CallKey, Delivery},
    store::write::Recorded,
};

/// A delivery in a queue.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) delivery: Delivery,
    pub(super) result: ResultSender,
}

/// Sends the result of a delivery. Holds the permit for its bytes until then.
#[derive(Debug)]
pub(super) struct ResultSender {
    pub(super) sender: oneshot::Sender<Result<Recorded, IngestError>>,
    pub(super) _bytes: OwnedSemaphorePermit,
}

impl ResultSender {
    /// Nobody may wait any more; what is committed is committed all the same.
    pub(super) fn send(self, result: Result<Recorded, IngestError>) {
        let _ = self.sender.send(result);
    }
}

/// Deliveries that are committed together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) deliveries: Vec<Delivery>,
    results: Vec<ResultSender>,
    pub(super) lock_timeout: LockTimeout,
}

impl Batch {
    /// A batch of these jobs.
    pub(super) fn of(jobs: Vec<Job>) -> Self {
        let (deliveries, results) =
            jobs.into_iter().map(|Job { delivery, result }| (delivery, result)).unzip();
        Self { deliveries, results, lock_timeout: LockTimeout::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// The same batch with another lock timeout.
    pub(super) fn with_lock_timeout(self, lock_timeout: LockTimeout) -> Self {
        Self { lock_timeout, ..self }
    }

    /// The bytes of all payloads.
    pub(super) fn bytes(&self) -> usize {
        self.deliveries.iter().map(|delivery| delivery.payload.len()).sum()
    }

    /// The distinct calls.
    pub(super) fn keys(&self) -> BTreeSet<&CallKey> {
        self.deliveries.iter().map(|delivery| &delivery.key).collect()
    }

    /// Its two halves.
    pub(super) fn split(mut self) -> Vec<Self> {
        let middle = self.len() / 2;
        let deliveries = self.deliveries.split_off(middle);
        let results = self.results.split_off(middle);
        let other = Self { deliveries, results, lock_timeout: self.lock_timeout };
        vec![self, other]
    }

    /// The deliveries for other calls, and those for these calls.
    pub(super) fn split_by(self, keys: &BTreeSet<CallKey>) -> (Self, Self) {
        let empty = || Self { lock_timeout: self.lock_timeout, ..Self::default() };
        let (mut others, mut these) = (empty(), empty());
        for (delivery, result) in self.deliveries.into_iter().zip(self.results) {
            let batch = if keys.contains(&delivery.key) { &mut these } else { &mut others };
            batch.deliveries.push(delivery);
            batch.results.push(result);
        }
        (others, these)
    }

    /// Sends the results of the deliveries that are recorded; keeps the others.
    pub(super) fn send_recorded(&mut self, recorded: Vec<Option<Recorded>>) {
        let mut are_recorded = recorded.iter().map(Option::is_some);
        self.deliveries.retain(|_| !are_recorded.next().unwrap_or_default());
        let mut left = Vec::with_capacity(self.deliveries.len());
        for (result, recorded) in self.results.drain(..).zip(recorded) {
            match recorded {
                Some(recorded) => result.send(Ok(recorded)),
                None => left.push(result),
            }
        }
        self.results = left;
    }

    /// Sends an error to all.
    pub(super) fn fail(self, error: &IngestError) {
        for result in self.results {
            result.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use crate::call::{
        CallId, CallKey, Delivery, Event, EventType, Fingerprint, ProjectId, Receipts,
    };

    /// Any delivery.
    pub(crate) fn delivery() -> Delivery {
        Delivery {
            key: CallKey {
                call_id: CallId::new("c").unwrap(),
                project_id: ProjectId::new("p").unwrap(),
            },
            event_id: Uuid::nil(),
            event: Event {
                fingerprint: Fingerprint([0; 32]),
                event_type: EventType::of("x"),
                occurred_at: None,
                received_at: DateTime::UNIX_EPOCH,
                call_sid: None,
                client_id: None,
                provider_status: None,
                has_errors: false,
            },
            errors: Vec::new(),
            endpoint: "default".to_owned(),
            payload: "{}".to_owned(),
            receipts: Receipts::Once,
            time_problem: None,
        }
    }
}

//! Requests that wait for a call to end: `GET /calls/{call_id}?wait=SECONDS`.
//!
//! A wait is woken when its call has ended, whichever instance stored the event, and
//! looks the call up. It holds no connection: the dispatcher reads the feed for all, and
//! lookups are batched ([`lookup`](crate::http::routes::calls::reader)).

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};
use utoipa::{
    IntoParams,
    openapi::{
        ObjectBuilder, Type,
        path::{Parameter, ParameterIn},
    },
};

use crate::{
    call::CallId,
    http::{
        Problem, Service,
        auth::PresentedKey,
        query::parameter,
        routes::streams::{GaugeGuard, Streams, stopped},
        server::LONGEST_WAIT,
    },
    store::calls::{StoredCall, find::CallQuery},
};

/// The waits, by call.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<Registry>);

#[derive(Debug, Default)]
struct Registry {
    by_call: HashMap<CallId, Vec<Arc<Notify>>>,
    /// Whether the dispatcher reads the feed for them.
    is_watched: bool,
}

impl Waits {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // It is consistent between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are waits, for which the dispatcher reads the feed from now on.
    pub(crate) fn watch_if_any(&self) -> bool {
        let mut registry = self.registry();
        registry.is_watched = !registry.by_call.is_empty();
        registry.is_watched
    }

    /// Wakes the waits for these calls.
    pub(crate) fn wake<'e>(&self, ended: impl Iterator<Item = &'e CallId>) {
        let registry = self.registry();
        let woken = ended.filter_map(|call_id| registry.by_call.get(call_id)).flatten();
        woken.for_each(|waiter| waiter.notify_one());
    }

    /// Wakes all waits.
    pub(crate) fn wake_all(&self) {
        self.registry().by_call.values().flatten().for_each(|waiter| waiter.notify_one());
    }
}

/// A wait, from now on until it is dropped.
struct Waiter {
    streams: Streams,
    call_id: CallId,
    woken: Arc<Notify>,
}

impl Waiter {
    fn of(streams: &Streams, call_id: &CallId) -> Self {
        let woken = Arc::new(Notify::new());
        let is_watched = {
            let mut registry = streams.0.waits.registry();
            registry.by_call.entry(call_id.clone()).or_default().push(Arc::clone(&woken));
            registry.is_watched
        };
        if !is_watched {
            streams.0.demand.notify_one();
        }
        Self { streams: streams.clone(), call_id: call_id.clone(), woken }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut registry = self.streams.0.waits.registry();
        if let Some(waiters) = registry.by_call.get_mut(&self.call_id) {
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.woken));
            if waiters.is_empty() {
                registry.by_call.remove(&self.call_id);
            }
        }
    }
}

/// The calls of a query, once the only one has ended, there are several, or the time is
/// up.
pub(crate) async fn find_ended(
    service: &Service,
    query: CallQuery,
    pass: &PresentedKey,
    longest: Duration,
) -> Result<Vec<StoredCall>, Problem> {
    let streams = &service.streams;
    let _permit = streams.permit()?;
    let _counted = GaugeGuard::in_(&streams.0.metrics.waits);
    // Registered before the first lookup, so that no event after it is missed.
    let waiter = Waiter::of(streams, &query.call_id);
    let mut stopping = streams.stopping();
    let mut time_is_up = pin!(sleep(longest));
    let mut is_over = false;
    loop {
        let found = {
            let _looker = streams.0.lookers.acquire().await.expect("the semaphore is never closed");
            service.calls.find(query.clone()).await?
        };
        let is_settled = match found.as_slice() {
            [] => false,
            [stored] => stored.call.status.is_terminal(),
            _ => true,
        };
        if is_over || is_settled {
            // The key may have been revoked meanwhile.
            pass.check(&service.api_keys, service.clock.now()).await?;
            return Ok(found);
        }
        tokio::select! {
            () = stopped(&mut stopping) => is_over = true,
            () = &mut time_is_up => is_over = true,
            () = waiter.woken.notified() => {}
        }
    }
}

/// The parameter `wait`.
pub(crate) struct WaitParameter;

impl IntoParams for WaitParameter {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = "How many seconds to wait until the call has ended. The response is sent then, or when \
                       the time is up; a call that does not exist yet is waited for too.";
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .maximum(Some(LONGEST_WAIT.as_secs()));
        vec![parameter("wait", ParameterIn::Query, meaning, seconds)]
    }
}

/// Reads the parameter `wait`.
pub(crate) fn read_wait(seconds: &str) -> Result<Duration, String> {
    let longest = LONGEST_WAIT.as_secs();
    let wait = seconds.parse().map(Duration::from_secs).ok().filter(|it| *it <= LONGEST_WAIT);
    wait.ok_or_else(|| format!("must be a number of seconds from 0 to {longest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_minute_at_most() {
        assert_eq!(read_wait("0"), Ok(Duration::ZERO));
        assert_eq!(read_wait("60"), Ok(Duration::from_mins(1)));
        for wrong in ["61", "-1", "1.5", "60s", "99999999999999999999"] {
            assert!(read_wait(wrong).is_err(), "{wrong}");
        }
    }
}

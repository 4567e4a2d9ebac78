//! Those who wait for a call to end: `GET /calls/{call_id}?wait=SECONDS`.
//!
//! Who waits is woken when its call has ended, by whichever instance, and looks
//! for itself. It holds no connection: the hub hears for all, and questions are
//! gathered ([`lookup`](super::super::lookup)). An event need not be behind the horizon for that.

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

use super::{Counted, Streams, stopped};
use crate::{
    api::{Problem, Service, caller::Pass, edge::LONGEST_WAIT, query::parameter},
    call::CallId,
    store::calls::{StoredCall, Wanted},
};

/// Who waits for which call.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<Registry>);

#[derive(Debug, Default)]
struct Registry {
    by_call: HashMap<CallId, Vec<Arc<Notify>>>,
    /// Whether the hub watches for them.
    is_watched: bool,
}

impl Waits {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // It is whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody waits, for whom the hub watches from here on.
    pub(super) fn watch_if_any(&self) -> bool {
        let mut registry = self.registry();
        registry.is_watched = !registry.by_call.is_empty();
        registry.is_watched
    }

    /// Wakes those who wait for one of these calls.
    pub(super) fn wake(&self, ended: &[CallId]) {
        let registry = self.registry();
        let woken = ended.iter().filter_map(|call_id| registry.by_call.get(call_id)).flatten();
        woken.for_each(|waiter| waiter.notify_one());
    }

    /// Wakes all.
    pub(super) fn wake_all(&self) {
        self.registry().by_call.values().flatten().for_each(|waiter| waiter.notify_one());
    }
}

/// One who waits, from here on until it is dropped.
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

/// The calls that are wanted, once the only one has ended, there are several, or
/// the time is up.
pub(in crate::api) async fn find_ended(
    service: &Service,
    wanted: Wanted,
    pass: &Pass,
    longest: Duration,
) -> Result<Vec<StoredCall>, Problem> {
    let streams = &service.streams;
    let _place = streams.place()?;
    let _counted = Counted::in_(&streams.0.counters.waits);
    // It is told from here on, so nothing that comes after the first look goes unheard.
    let waiter = Waiter::of(streams, &wanted.call_id);
    let mut stopping = streams.stopping();
    let mut time_is_up = pin!(sleep(longest));
    let mut is_over = false;
    loop {
        let found = {
            let _looker = streams.0.lookers.acquire().await.expect("nobody closes it");
            service.lookup.find(wanted.clone()).await?
        };
        let is_settled = match found.as_slice() {
            [] => false,
            [stored] => stored.call.status.is_terminal(),
            _ => true,
        };
        if is_over || is_settled {
            // It may have been taken back meanwhile.
            pass.check(&service.keyring, service.clock.now()).await?;
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
pub(in crate::api) struct Waiting;

impl IntoParams for Waiting {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let meaning = "For how many seconds to wait until the call has ended. It is answered then, or as \
                       it is when they are up; a call that is not known yet is waited for too.";
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .maximum(Some(LONGEST_WAIT.as_secs()));
        vec![parameter("wait", ParameterIn::Query, meaning, seconds)]
    }
}

/// Reads the parameter `wait`.
pub(in crate::api) fn read_wait(seconds: &str) -> Result<Duration, String> {
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

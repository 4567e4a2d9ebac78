//! Calls as they were known at a time: the fold of the events received by then.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::find::names_by_call_id;
use crate::{
    access::Projects,
    call::{Call, CallId, CallKey, Event, fold},
    store::{Error, events::row::of_calls},
};

/// The calls of an id as they were known at that time, one in each of the
/// projects that had one, in the order of projects.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn known_at(
    pool: &PgPool,
    call_id: &CallId,
    projects: &Projects,
    at: DateTime<Utc>,
) -> Result<Vec<(i64, CallKey, Call)>, Error> {
    let names = names_by_call_id(pool, call_id, projects).await?;
    let ids: Vec<i64> = names.iter().map(|name| name.id).collect();
    let mut events = of_calls(pool, &ids).await?;
    let known = names.into_iter().filter_map(|name| {
        let events = events.remove(&name.id)?;
        let received = events.iter().map(|stored| &stored.event);
        let mut received: Vec<&Event> = received.filter(|event| event.received_at <= at).collect();
        let (call, _) = fold(&mut received)?;
        Some((name.id, name.key, call))
    });
    Ok(known.collect())
}

//! Calls as they were known at a time: the fold of the events received by then.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::find::{CallQuery, find};
use crate::{
    call::{Call, CallKey, Event, fold},
    store::{Error, events::row::of_calls},
};

/// The calls of an id as they were known at that time, one in each of the projects
/// that had one, in the order of projects.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn known_at(
    pool: &PgPool,
    query: &CallQuery,
    at: DateTime<Utc>,
) -> Result<Vec<(i64, CallKey, Call)>, Error> {
    let found: Vec<_> = find(pool, &[query]).await?.into_iter().flatten().collect();
    let ids: Vec<i64> = found.iter().map(|stored| stored.id).collect();
    let mut events = of_calls(pool, &ids).await?;
    let mut known = Vec::new();
    for stored in found {
        let events = events.remove(&stored.id).unwrap_or_else(|| Ok(Vec::new()))?;
        let received = events.iter().map(|stored| &stored.event);
        let mut received: Vec<&Event> = received.filter(|event| event.received_at <= at).collect();
        if let Some((call, _)) = fold(&mut received) {
            known.push((stored.id, stored.key, call));
        }
    }
    Ok(known)
}

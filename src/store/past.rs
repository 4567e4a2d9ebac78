//! Calls as they were known at a time: folded from the events that had been
//! received by then.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{
    Error,
    bucket::Buckets,
    calls::keys_by_call_id,
    events::{self, StoredEvent},
};
use crate::{
    access::Projects,
    call::{Call, CallId, CallKey, Event, fold},
};

/// The calls of that id as they were known at that time, one in each of those
/// projects that had one, in the order of their projects.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub async fn known_at(
    pool: &PgPool,
    buckets: Buckets,
    call_id: &CallId,
    projects: &Projects,
    at: DateTime<Utc>,
) -> Result<Vec<(CallKey, Call)>, Error> {
    let keys = keys_by_call_id(pool, buckets, call_id, projects).await?;
    let mut by_bucket: BTreeMap<i32, Vec<&CallKey>> = BTreeMap::new();
    for key in &keys {
        by_bucket.entry(buckets.of(key)).or_default().push(key);
    }
    let mut events: HashMap<CallKey, Vec<StoredEvent>> = HashMap::new();
    for (bucket, keys) in by_bucket {
        events.extend(events::of_calls(pool, bucket, &keys).await?);
    }
    let known = keys.into_iter().filter_map(|key| {
        let events = events.remove(&key)?;
        let received = events.iter().map(|stored| &stored.event);
        let mut received: Vec<&Event> = received.filter(|event| event.received_at <= at).collect();
        let (call, _) = fold(&mut received)?;
        Some((key, call))
    });
    Ok(known.collect())
}

//! Folding stored calls again, for `rebuild`.

use std::collections::BTreeMap;

use sqlx::{Connection as _, PgConnection};

use super::{
    change::{Change, Origin},
    recorder::commit,
};
use crate::{
    call::CallKey,
    store::{Error, calls::row::CallName, error::Class, events::row::of_calls},
};

/// How often calls are tried that Postgres rolls back in favor of other writers.
pub(super) const MAX_TRIES: u32 = 8;

/// Folds these calls again from their events and writes what differs from the store.
/// A call without events is removed. The rows of the calls may be invalid.
///
/// # Errors
///
/// Fails if a query fails or a row of their events is invalid.
pub async fn refold(conn: &mut PgConnection, calls: &[CallName]) -> Result<(), Error> {
    for _ in 0..MAX_TRIES {
        match try_refold(conn, calls).await {
            Err(error) if error.class() == Class::RolledBack => {}
            result => return result,
        }
    }
    Err(Error::Contended { rounds: MAX_TRIES })
}

/// Refolds in one transaction, in which the calls are locked.
async fn try_refold(conn: &mut PgConnection, calls: &[CallName]) -> Result<(), Error> {
    let mut tx = conn.begin().await?;
    let versions = lock_calls(&mut tx, calls).await?;
    refold_locked(&mut tx, calls, &versions).await?;
    tx.commit().await?;
    Ok(())
}

/// Locks the calls in the order of their numbers; returns the versions of those that
/// exist.
pub(super) async fn lock_calls(
    conn: &mut PgConnection,
    calls: &[CallName],
) -> Result<BTreeMap<i64, i32>, Error> {
    let ids: Vec<i64> = calls.iter().map(|call| call.id).collect();
    let rows = sqlx::query!(
        "select id, version from calls where id = any($1) order by id for update",
        &ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.version)).collect())
}

/// Refolds calls that the transaction has locked.
pub(super) async fn refold_locked(
    tx: &mut PgConnection,
    calls: &[CallName],
    versions: &BTreeMap<i64, i32>,
) -> Result<(), Error> {
    let ids: Vec<i64> = versions.keys().copied().collect();
    let mut events = of_calls(&mut *tx, &ids).await?;
    let mut changes: BTreeMap<&CallKey, Change<'_>> = BTreeMap::new();
    for CallName { id, key } in calls {
        // A call that was removed meanwhile is not created again.
        let Some(version) = versions.get(id) else {
            continue;
        };
        let mut change = Change::of(key);
        change.id = *id;
        change.origin = Origin::Stored(*version);
        change.fold_again(&events.remove(id).unwrap_or_else(|| Ok(Vec::new()))?);
        changes.insert(key, change);
    }
    // It stores no event, which an erasure would be in the way of.
    commit(tx, &mut changes, 0).await?;
    let empty: Vec<i64> = changes.values().filter(|it| it.call.is_none()).map(|it| it.id).collect();
    sqlx::query!("delete from calls where id = any($1)", &empty).execute(tx).await?;
    Ok(())
}

//! Lookups of calls by the provider's id.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgExecutor;

use super::row::{StoredCall, select_calls};
use crate::{
    access::Projects,
    call::{CallId, CallKey, ProjectId},
    store::{Error, codec::key},
};

/// A query for the calls of an id, one in each of the projects that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallQuery {
    /// The id.
    pub call_id: CallId,
    /// The projects that are searched.
    pub projects: Projects,
}

/// The results of some queries, in their order; each in the order of projects.
#[tracing::instrument(level = "debug", skip_all, fields(queries = queries.len()))]
pub async fn find(
    executor: impl PgExecutor<'_>,
    queries: &[&CallQuery],
) -> Result<Vec<Vec<StoredCall>>, Error> {
    // A call is read once, however many queries ask for it.
    let pairs: BTreeSet<(&str, Option<&str>)> = queries
        .iter()
        .flat_map(|CallQuery { call_id, projects }| {
            let ids = projects.ids();
            let ids = ids.map_or_else(|| vec![None], |ids| ids.into_iter().map(Some).collect());
            ids.into_iter().map(|project_id| (call_id.as_str(), project_id))
        })
        .collect();
    let (call_ids, project_ids): (Vec<&str>, Vec<Option<&str>>) = pairs.into_iter().unzip();
    let rows = select_calls!(
        "
        from unnest($1::text[], $2::text[]) as wanted (call_id, project_id)
        join calls on calls.call_id = wanted.call_id
            and (wanted.project_id is null or calls.project_id = wanted.project_id)
        ",
        &call_ids as &[&str],
        &project_ids as &[Option<&str>],
    )
    .fetch_all(executor)
    .await?;
    let mut found: BTreeMap<CallId, BTreeMap<ProjectId, StoredCall>> = BTreeMap::new();
    for row in rows {
        let stored = StoredCall::try_from(row)?;
        let CallKey { call_id, project_id } = stored.key.clone();
        found.entry(call_id).or_default().insert(project_id, stored);
    }
    let result = |CallQuery { call_id, projects }: &CallQuery| {
        let of_id = found.get(call_id).into_iter().flatten();
        of_id
            .filter(|(project_id, _)| projects.contains(project_id))
            .map(|(_, stored)| stored.clone())
            .collect()
    };
    Ok(queries.iter().map(|query| result(query)).collect())
}

/// Those of the calls that another session has locked against writing. Waits for
/// none of them.
///
/// # Errors
///
/// Fails with a lock timeout if the whole table is locked.
#[tracing::instrument(level = "debug", skip_all)]
pub async fn locked(
    executor: impl PgExecutor<'_>,
    keys: &[&CallKey],
) -> Result<Vec<CallKey>, Error> {
    let (call_ids, project_ids) = columns(keys);
    sqlx::query!(
        r#"
        with
        wanted as (
            select call_id, project_id
            from unnest($1::text[], $2::text[]) as wanted (call_id, project_id)
        ),
        free as (
            select id
            from calls
            join wanted using (call_id, project_id)
            for no key update of calls skip locked
        )
        select calls.call_id, calls.project_id
        from wanted
        join calls using (call_id, project_id)
        where (calls.id in (select id from free)) is not true
        order by calls.call_id, calls.project_id
        "#,
        &call_ids as &[&str],
        &project_ids as &[&str],
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(|row| key("calls", row.project_id, row.call_id))
    .collect()
}

/// The two columns of call keys.
pub(in crate::store) fn columns<'k>(keys: &[&'k CallKey]) -> (Vec<&'k str>, Vec<&'k str>) {
    keys.iter().map(|key| (key.call_id.as_str(), key.project_id.as_str())).unzip()
}

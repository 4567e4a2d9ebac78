//! The table `api_keys`: who may ask.
//!
//! A key is found by its hash; what comes out never includes it.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Error;
use crate::{
    access::{KeyHash, KeyName, KeyRecord, Projects, key_record::USE_PRECISION},
    call::{ProjectId, UnknownName},
};

/// A row of `api_keys`, without the hash.
struct KeyRow {
    id: Uuid,
    name: String,
    scope: String,
    projects: Option<Vec<String>>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl TryFrom<KeyRow> for KeyRecord {
    type Error = Error;

    fn try_from(row: KeyRow) -> Result<Self, Error> {
        let corrupt = |column, problem: &dyn Display| Error::Corrupt {
            table: "api_keys",
            column,
            row: format!("key {}", row.id),
            problem: problem.to_string(),
        };
        let projects = row.projects.map_or(Ok(Projects::All), |projects| {
            projects.into_iter().map(ProjectId::new).collect::<Result<_, _>>().map(Projects::Only)
        });
        Ok(Self {
            id: row.id,
            name: KeyName::new(row.name).map_err(|problem| corrupt("name", &problem))?,
            scope: row.scope.parse().map_err(|problem: UnknownName| corrupt("scope", &problem))?,
            projects: projects.map_err(|problem| corrupt("projects", &problem))?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        })
    }
}

/// Keeps a new key.
pub async fn insert(
    executor: impl PgExecutor<'_>,
    hash: &KeyHash,
    record: &KeyRecord,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into api_keys (
            id, name, hash, scope, projects, created_at, expires_at, revoked_at, last_used_at
        )
        values ($1, $2, $3, $4::text::api_key_scope, $5, $6, $7, $8, $9)
        "#,
        record.id,
        record.name.as_str(),
        &hash.0[..],
        record.scope.as_str(),
        record.projects.ids() as Option<Vec<&str>>,
        record.created_at,
        record.expires_at,
        record.revoked_at,
        record.last_used_at,
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// What the key of that hash is good for, if there is one.
pub async fn by_hash(
    executor: impl PgExecutor<'_>,
    hash: &KeyHash,
) -> Result<Option<KeyRecord>, Error> {
    sqlx::query_as!(
        KeyRow,
        r#"
        select id, name, scope::text as "scope!", projects, created_at, expires_at, revoked_at,
            last_used_at
        from api_keys
        where hash = $1
        "#,
        &hash.0[..],
    )
    .fetch_optional(executor)
    .await?
    .map(KeyRecord::try_from)
    .transpose()
}

/// All keys, revoked ones included, in the order in which they were made.
pub async fn all(executor: impl PgExecutor<'_>) -> Result<Vec<KeyRecord>, Error> {
    sqlx::query_as!(
        KeyRow,
        r#"
        select id, name, scope::text as "scope!", projects, created_at, expires_at, revoked_at,
            last_used_at
        from api_keys
        order by created_at, id
        "#,
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(KeyRecord::try_from)
    .collect()
}

/// Takes a key back, unless that was done before.
pub async fn revoke(
    executor: impl PgExecutor<'_>,
    id: Uuid,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update api_keys set revoked_at = $2 where id = $1 and revoked_at is null",
        id,
        at
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// Writes down that a key was used, unless that is known to within
/// [`USE_PRECISION`]: of the instances that see it used, one writes.
pub async fn note_use(
    executor: impl PgExecutor<'_>,
    id: Uuid,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        update api_keys set last_used_at = $2
        where id = $1 and (last_used_at is null or last_used_at <= $3)
        "#,
        id,
        at,
        at - USE_PRECISION,
    )
    .execute(executor)
    .await?;
    Ok(())
}

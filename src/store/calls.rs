//! The table `calls`: a row and the call that it holds.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, types::Json};

use super::{
    Error,
    bucket::Buckets,
    codec::{Row, count, fingerprint, key},
};
use crate::call::{
    Attempt, Call, CallError, CallId, CallKey, Direction, Position, ProjectId, Status,
};

/// A call as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCall {
    /// What names it.
    pub key: CallKey,
    /// The version that a writer must replace.
    pub version: i64,
    /// The fold of its events.
    pub call: Call,
    /// When a delivery for it last came, repeated ones included.
    pub last_delivered_at: DateTime<Utc>,
}

/// A row of `calls`, as Postgres gives it.
pub(super) struct CallRow {
    pub(super) project_id: String,
    pub(super) call_id: String,
    pub(super) version: i64,
    pub(super) direction: Option<Direction>,
    pub(super) status: Status,
    pub(super) attempts: Json<Vec<Attempt>>,
    pub(super) client_id: Option<String>,
    pub(super) provider_status: Option<String>,
    pub(super) has_errors: bool,
    pub(super) event_count: i32,
    pub(super) anomaly_count: i32,
    pub(super) microseconds_in_status: Json<BTreeMap<Status, i64>>,
    pub(super) status_since: Option<DateTime<Utc>>,
    pub(super) first_event_at: DateTime<Utc>,
    pub(super) last_event_at: DateTime<Utc>,
    pub(super) last_event_rank: i16,
    pub(super) last_event_fingerprint: Vec<u8>,
    pub(super) ended_at: Option<DateTime<Utc>>,
    pub(super) updated_at: DateTime<Utc>,
    pub(super) last_delivered_at: DateTime<Utc>,
}

impl TryFrom<CallRow> for StoredCall {
    type Error = Error;

    fn try_from(row: CallRow) -> Result<Self, Error> {
        let key = key("calls", row.project_id, row.call_id)?;
        let at = Row { table: "calls", key: &key };
        let call = Call {
            direction: row.direction,
            status: row.status,
            attempts: row.attempts.0,
            client_id: at.read("client_id", row.client_id.map(TryInto::try_into).transpose())?,
            provider_status: row.provider_status,
            has_errors: row.has_errors,
            event_count: at.read("event_count", count(row.event_count))?,
            anomaly_count: at.read("anomaly_count", count(row.anomaly_count))?,
            microseconds_in_status: row.microseconds_in_status.0,
            status_since: row.status_since,
            first_event_at: row.first_event_at,
            ended_at: row.ended_at,
            updated_at: row.updated_at,
            last: Position {
                effective_at: row.last_event_at,
                rank: at.read("last_event_rank", row.last_event_rank.try_into())?,
                fingerprint: at
                    .read("last_event_fingerprint", fingerprint(&row.last_event_fingerprint))?,
            },
        };
        Ok(Self { version: row.version, last_delivered_at: row.last_delivered_at, call, key })
    }
}

/// An error of a call, with the event that told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldError {
    /// The event.
    pub event_id: uuid::Uuid,
    /// What it told.
    pub error: CallError,
}

/// The calls of that id, one in each project that has one, in the order of
/// their projects.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub async fn by_call_id(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    call_id: &CallId,
    project_id: Option<&ProjectId>,
) -> Result<Vec<StoredCall>, Error> {
    sqlx::query_as!(
        CallRow,
        r#"
        select project_id, call_id, version,
            direction as "direction: Direction", status as "status: Status",
            attempts as "attempts: Json<Vec<Attempt>>", client_id, provider_status,
            has_errors, event_count, anomaly_count,
            microseconds_in_status as "microseconds_in_status: Json<BTreeMap<Status, i64>>",
            status_since, first_event_at, last_event_at, last_event_rank,
            last_event_fingerprint, ended_at, updated_at, last_delivered_at
        from calls
        where bucket = any($1) and call_id = $2 and ($3::text is null or project_id = $3)
        order by project_id
        "#,
        &buckets.all(),
        call_id.as_str(),
        project_id.map(ProjectId::as_str),
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(TryInto::try_into)
    .collect()
}

/// The errors that the events of a call told, in fold order.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn errors(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    key: &CallKey,
) -> Result<Vec<ToldError>, Error> {
    let told = sqlx::query!(
        r#"
        select event_id, errors as "errors!: Json<Vec<CallError>>"
        from events
        where bucket = $1 and call_id = $2 and project_id = $3 and errors is not null
        order by effective_at, rank, fingerprint
        "#,
        buckets.of(key),
        key.call_id.as_str(),
        key.project_id.as_str(),
    )
    .fetch_all(executor)
    .await?;
    Ok(told
        .into_iter()
        .flat_map(|row| {
            let event_id = row.event_id;
            row.errors.0.into_iter().map(move |error| ToldError { event_id, error })
        })
        .collect())
}

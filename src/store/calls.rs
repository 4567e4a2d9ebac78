//! The table `calls`: a row and the call that it holds.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, types::Json};
use uuid::Uuid;

use super::{
    Error,
    bucket::Buckets,
    codec::{Row, count, fingerprint, key},
    events::columns,
};
use crate::{
    access::Projects,
    call::{Attempt, Call, CallError, CallId, CallKey, Direction, Position, Status},
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
    pub event_id: Uuid,
    /// What it told.
    pub error: CallError,
}

/// A call as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCall {
    /// The call.
    pub stored: StoredCall,
    /// The errors that its events told, in fold order.
    pub errors: Vec<ToldError>,
}

/// A question for a call: the calls of that id, one in each of those projects
/// that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The id.
    pub call_id: CallId,
    /// The projects that may be shown.
    pub projects: Projects,
}

/// The answers to some questions, in their order; each in the order of projects.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub async fn find(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    wanted: &[&Wanted],
) -> Result<Vec<Vec<FoundCall>>, Error> {
    let (mut places, mut call_ids, mut project_ids) = (Vec::new(), Vec::new(), Vec::new());
    for (place, Wanted { call_id, projects }) in (0..).zip(wanted) {
        let ids = projects.ids();
        let ids = ids.map_or_else(|| vec![None], |ids| ids.into_iter().map(Some).collect());
        for project_id in ids {
            places.push(place);
            call_ids.push(call_id.as_str());
            project_ids.push(project_id);
        }
    }
    let rows = sqlx::query!(
        r#"
        select wanted.place as "place!", found.project_id, found.call_id, version,
            direction as "direction: Direction", status as "status: Status",
            attempts as "attempts: Json<Vec<Attempt>>", client_id, provider_status,
            has_errors, event_count, anomaly_count,
            microseconds_in_status as "microseconds_in_status: Json<BTreeMap<Status, i64>>",
            status_since, first_event_at, last_event_at, last_event_rank,
            last_event_fingerprint, ended_at, updated_at, last_delivered_at,
            -- told in the same statement, so that call and errors are of one moment
            case when has_errors then (
                select jsonb_agg(
                    jsonb_build_array(event_id, errors) order by effective_at, rank, fingerprint
                )
                from events
                where events.bucket = found.bucket
                    and events.call_id = found.call_id
                    and events.project_id = found.project_id
                    and errors is not null
            ) end as "told: Json<Vec<(Uuid, Vec<CallError>)>>"
        from unnest($2::int[], $3::text[], $4::text[]) as wanted (place, call_id, project_id)
        cross join lateral (
            select *
            from calls
            where bucket = any($1) and call_id = wanted.call_id
                and (wanted.project_id is null or project_id = wanted.project_id)
            -- looked up one by one, whatever the statistics say
            offset 0
        ) as found
        "#,
        &buckets.all(),
        &places,
        &call_ids as &[&str],
        &project_ids as &[Option<&str>],
    )
    .fetch_all(executor)
    .await?;
    let mut answers: Vec<Vec<FoundCall>> = wanted.iter().map(|_| Vec::new()).collect();
    for row in rows {
        let told = row.told.map_or_else(Vec::new, |told| told.0);
        let stored = CallRow {
            project_id: row.project_id,
            call_id: row.call_id,
            version: row.version,
            direction: row.direction,
            status: row.status,
            attempts: row.attempts,
            client_id: row.client_id,
            provider_status: row.provider_status,
            has_errors: row.has_errors,
            event_count: row.event_count,
            anomaly_count: row.anomaly_count,
            microseconds_in_status: row.microseconds_in_status,
            status_since: row.status_since,
            first_event_at: row.first_event_at,
            last_event_at: row.last_event_at,
            last_event_rank: row.last_event_rank,
            last_event_fingerprint: row.last_event_fingerprint,
            ended_at: row.ended_at,
            updated_at: row.updated_at,
            last_delivered_at: row.last_delivered_at,
        }
        .try_into()?;
        let errors = told
            .into_iter()
            .flat_map(|(event_id, errors)| {
                errors.into_iter().map(move |error| ToldError { event_id, error })
            })
            .collect();
        if let Some(answer) = usize::try_from(row.place).ok().and_then(|at| answers.get_mut(at)) {
            answer.push(FoundCall { stored, errors });
        }
    }
    for answer in &mut answers {
        answer.sort_unstable_by(|a, b| a.stored.key.cmp(&b.stored.key));
    }
    Ok(answers)
}

/// The keys of the calls of that id, one in each of those projects that has one,
/// in the order of their projects.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub async fn keys_by_call_id(
    executor: impl PgExecutor<'_>,
    buckets: Buckets,
    call_id: &CallId,
    projects: &Projects,
) -> Result<Vec<CallKey>, Error> {
    sqlx::query!(
        r#"
        select project_id, call_id
        from calls
        where bucket = any($1) and call_id = $2 and ($3::text[] is null or project_id = any($3))
        order by project_id
        "#,
        &buckets.all(),
        call_id.as_str(),
        projects.ids() as Option<Vec<&str>>,
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(|row| key("calls", row.project_id, row.call_id))
    .collect()
}

/// Those of the calls that exist.
///
/// # Errors
///
/// Where the database cannot be asked, or a row cannot be.
pub(super) async fn of_keys(
    executor: impl PgExecutor<'_>,
    bucket: i32,
    keys: &[&CallKey],
) -> Result<HashMap<CallKey, StoredCall>, Error> {
    let (call_ids, project_ids) = columns(keys);
    sqlx::query_as!(
        CallRow,
        r#"
        select calls.project_id, calls.call_id, version,
            direction as "direction: Direction", status as "status: Status",
            attempts as "attempts: Json<Vec<Attempt>>", client_id, provider_status,
            has_errors, event_count, anomaly_count,
            microseconds_in_status as "microseconds_in_status: Json<BTreeMap<Status, i64>>",
            status_since, first_event_at, last_event_at, last_event_rank,
            last_event_fingerprint, ended_at, updated_at, last_delivered_at
        from unnest($2::text[], $3::text[]) as wanted (call_id, project_id)
        join calls using (call_id, project_id)
        where bucket = $1
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(|row| {
        let stored = StoredCall::try_from(row)?;
        Ok((stored.key.clone(), stored))
    })
    .collect()
}

/// Removes calls.
///
/// # Errors
///
/// Where the database refuses.
pub(super) async fn remove(
    conn: &mut PgConnection,
    bucket: i32,
    keys: &[&CallKey],
) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let (call_ids, project_ids) = columns(keys);
    sqlx::query!(
        r#"
        delete from calls
        using unnest($2::text[], $3::text[]) as removed (call_id, project_id)
        where calls.bucket = $1
            and calls.call_id = removed.call_id
            and calls.project_id = removed.project_id
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

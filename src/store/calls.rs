//! The table `calls`: a row and the call that it holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use super::{
    Error,
    bucket::Buckets,
    codec::{Row, count, fingerprint, key},
    events::columns,
};
use crate::{
    access::Projects,
    call::{Call, CallId, CallKey, Direction, Position, ProjectId, Status},
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

macro_rules! rows {
    ($($column:ident: $type:ty),+ $(,)?) => {
        /// A row of `calls`, as Postgres gives it; the JSON as text, so that who reads
        /// it can say in which column it is wrong.
        pub(super) struct CallRow {
            $(pub(super) $column: $type,)+
        }

        /// One of a call that has moved, and where it stood.
        pub(super) struct MovedRow {
            $(pub(super) $column: $type,)+
            pub(super) stood_at: DateTime<Utc>,
        }

        impl MovedRow {
            pub(super) fn split(self) -> (DateTime<Utc>, CallRow) {
                (self.stood_at, CallRow { $($column: self.$column,)+ })
            }
        }
    };
}

rows! {
    project_id: String,
    call_id: String,
    version: i64,
    direction: Option<Direction>,
    status: Status,
    attempts: String,
    client_id: Option<String>,
    provider_status: Option<String>,
    has_errors: bool,
    event_count: i32,
    anomaly_count: i32,
    microseconds_in_status: String,
    status_since: Option<DateTime<Utc>>,
    first_event_at: DateTime<Utc>,
    last_event_at: DateTime<Utc>,
    last_event_rank: i16,
    last_event_fingerprint: Vec<u8>,
    ended_at: Option<DateTime<Utc>>,
    updated_at: DateTime<Utc>,
    last_delivered_at: DateTime<Utc>,
}

impl TryFrom<CallRow> for StoredCall {
    type Error = Error;

    fn try_from(row: CallRow) -> Result<Self, Error> {
        let key = key("calls", row.project_id, row.call_id)?;
        let at = Row { table: "calls", key: &key };
        let call = Call {
            direction: row.direction,
            status: row.status,
            attempts: at.read("attempts", serde_json::from_str(&row.attempts))?,
            client_id: at.read("client_id", row.client_id.map(TryInto::try_into).transpose())?,
            provider_status: row.provider_status,
            has_errors: row.has_errors,
            event_count: at.read("event_count", count(row.event_count))?,
            anomaly_count: at.read("anomaly_count", count(row.anomaly_count))?,
            microseconds_in_status: at.read(
                "microseconds_in_status",
                serde_json::from_str(&row.microseconds_in_status),
            )?,
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

/// Selects calls as [`CallRow`]s, or as `$row` with `$more` columns: the columns,
/// written once for what follows them and its arguments. What follows may come in
/// pieces.
macro_rules! select_calls {
    ($($following:literal)+, $($argument:expr),+ $(,)?) => {
        select_calls!(CallRow: "", $($following)+, $($argument),+)
    };
    ($row:ident: $more:literal, $($following:literal)+, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            $row,
            r#"
            select calls.project_id as "project_id!", calls.call_id as "call_id!",
                calls.version as "version!", calls.direction as "direction: Direction",
                calls.status as "status!: Status",
                callstate_attempts(calls.attempts_before, calls.attempts)::text as "attempts!",
                calls.client_id, calls.provider_status, calls.has_errors as "has_errors!",
                calls.event_count as "event_count!", calls.anomaly_count as "anomaly_count!",
                calls.microseconds_in_status::text as "microseconds_in_status!",
                calls.status_since, calls.first_event_at as "first_event_at!",
                calls.last_event_at as "last_event_at!",
                calls.last_event_rank as "last_event_rank!",
                calls.last_event_fingerprint as "last_event_fingerprint!", calls.ended_at,
                calls.updated_at as "updated_at!", calls.last_delivered_at as "last_delivered_at!"
            "# + $more $(+ $following)+,
            $($argument),+
        )
    };
}
pub(super) use select_calls;

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
) -> Result<Vec<Vec<StoredCall>>, Error> {
    // Asked for once, however many ask for it.
    let pairs: BTreeSet<(&str, Option<&str>)> = wanted
        .iter()
        .flat_map(|Wanted { call_id, projects }| {
            let ids = projects.ids();
            let ids = ids.map_or_else(|| vec![None], |ids| ids.into_iter().map(Some).collect());
            ids.into_iter().map(|project_id| (call_id.as_str(), project_id))
        })
        .collect();
    let (call_ids, project_ids): (Vec<&str>, Vec<Option<&str>>) = pairs.into_iter().unzip();
    let rows = select_calls!(
        r#"
        from unnest($2::text[], $3::text[]) as wanted (call_id, project_id)
        cross join lateral (
            select project_id, call_id, version, direction, status, attempts_before, attempts,
                client_id, provider_status, has_errors, event_count, anomaly_count,
                microseconds_in_status, status_since, first_event_at, last_event_at,
                last_event_rank, last_event_fingerprint, ended_at, updated_at, last_delivered_at
            from calls
            where bucket = any($1) and call_id = wanted.call_id
                and (wanted.project_id is null or project_id = wanted.project_id)
            -- looked up one by one, whatever the statistics say
            offset 0
        ) as calls
        "#,
        &buckets.all(),
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
    let answer = |Wanted { call_id, projects }: &Wanted| {
        let of_id = found.get(call_id).into_iter().flatten();
        of_id
            .filter(|(project_id, _)| projects.contains(project_id))
            .map(|(_, stored)| stored.clone())
            .collect()
    };
    Ok(wanted.iter().map(|wanted| answer(wanted)).collect())
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
    select_calls!(
        r#"
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

/// The versions of those of the calls that exist, whatever else their rows say.
///
/// # Errors
///
/// Where the database cannot be asked.
pub(super) async fn versions(
    executor: impl PgExecutor<'_>,
    bucket: i32,
    keys: &[&CallKey],
) -> Result<HashMap<CallKey, i64>, Error> {
    let (call_ids, project_ids) = columns(keys);
    sqlx::query!(
        r#"
        select calls.project_id, calls.call_id, version
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
    .map(|row| Ok((key("calls", row.project_id, row.call_id)?, row.version)))
    .collect()
}

/// Those of the calls that somebody has locked against being written. Waits for none of
/// them.
///
/// # Errors
///
/// Where the database cannot be asked.
pub async fn locked(
    executor: impl PgExecutor<'_>,
    bucket: i32,
    keys: &[&CallKey],
) -> Result<Vec<CallKey>, Error> {
    let (call_ids, project_ids) = columns(keys);
    sqlx::query!(
        r#"
        with
        wanted as (
            select call_id, project_id
            from unnest($2::text[], $3::text[]) as wanted (call_id, project_id)
        ),
        free as (
            select call_id, project_id
            from calls
            join wanted using (call_id, project_id)
            where bucket = $1
            for no key update of calls skip locked
        )
        select calls.call_id, calls.project_id
        from wanted
        join calls using (call_id, project_id)
        where bucket = $1
            and ((calls.call_id, calls.project_id) in (select call_id, project_id from free))
                is not true
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(|row| key("calls", row.project_id, row.call_id))
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

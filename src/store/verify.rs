//! What `callstate verify` compares: each stored call with the fold of its events.
//!
//! [`check`] takes the calls in the order of their numbers, some at a time, each time
//! from one snapshot of the database, so that it may run while the service does.
//! [`refold`](super::write::refold()) repairs what it finds.
//!
//! What always holds: an invalid row is a difference like any other, and hides none
//! of another call.

use std::{collections::HashMap, fmt};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use super::{
    Error,
    calls::{StoredCall, find::CallName, partition::ListPartition, row::select_calls},
    codec::{by_status_id, key},
    events::row::{Derived, StoredEvent, of_calls},
    write::Summary,
};
use crate::call::{Call, Fingerprint, Outcome, fold};

/// A value that is stored and differs from the fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The call; `None` where its row is missing.
    pub call: Option<CallName>,
    /// The number of the call.
    pub call_number: i64,
    /// The event, where it is about one.
    pub event: Option<Fingerprint>,
    /// The column; `call` where the whole call is missing or superfluous, `call` or
    /// `event` where the invalid column is unknown.
    pub field: &'static str,
    /// What is stored.
    pub stored: String,
    /// What the fold gives; `None` where the call can be neither folded nor repaired.
    pub folded: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, call_number, event, field, stored, folded } = self;
        match call {
            Some(call) => write!(f, "{}", call.key)?,
            None => write!(f, "call number {call_number}")?,
        }
        if let Some(event) = event {
            write!(f, ", event {event}")?;
        }
        write!(f, ": {field} is stored as {stored}, ")?;
        match folded {
            Some(folded) => write!(f, "folded as {folded}"),
            None => f.write_str("so the call cannot be folded"),
        }
    }
}

/// Why a row is invalid.
#[derive(Debug)]
struct Invalid {
    /// The column, where it is known.
    column: Option<&'static str>,
    problem: String,
}

impl Invalid {
    /// What is wrong with a row, if that is the error.
    fn of(error: Error) -> Result<Self, Error> {
        match error {
            Error::Corrupt { column, problem, .. } => Ok(Self { column: Some(column), problem }),
            Error::Database(
                problem @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)),
            ) => Ok(Self { column: None, problem: problem.to_string() }),
            error => Err(error),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an invalid value ({})", self.problem)
    }
}

/// The result of comparing some calls.
#[derive(Debug, Default)]
pub struct Findings {
    /// The number of calls that were folded.
    pub calls: usize,
    /// The number of their events.
    pub events: usize,
    /// The differences.
    pub differences: Vec<Difference>,
    /// The last call that was compared; `None` where there were no more.
    pub last: Option<i64>,
}

/// About how many calls there are: the planner's estimate.
pub async fn estimate(conn: &mut PgConnection) -> Result<u64, Error> {
    let calls = sqlx::query_scalar!(
        r#"
        select greatest(reltuples, 0)::bigint as "calls!"
        from pg_class
        where oid = 'calls'::regclass
        "#
    )
    .fetch_one(conn)
    .await?;
    Ok(calls.unsigned_abs())
}

/// Compares the next `limit` calls after the one with number `after`.
pub async fn check(
    conn: &mut PgConnection,
    after: Option<i64>,
    limit: u16,
) -> Result<Findings, Error> {
    let mut tx = conn.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read, read only")
        .execute(&mut *tx)
        .await?;
    let calls = next_calls(&mut tx, after, limit).await?;
    let ids: Vec<i64> = calls.iter().map(|(id, _)| *id).collect();
    let mut stored = each(&ids, async |ids| stored_calls(&mut tx, ids).await).await?;
    let mut derived = derived_columns(&mut tx, &ids).await?;
    let mut events = each(&ids, async |ids| of_calls(&mut *tx, ids).await).await?;
    tx.commit().await?;

    let mut findings = Findings { calls: calls.len(), ..Findings::default() };
    for (id, call) in &calls {
        let history = events.remove(id).unwrap_or_else(|| Ok(Vec::new()));
        findings.events += history.as_ref().map_or(0, Vec::len);
        let stored = stored.remove(id).zip(derived.remove(id));
        compare(*id, call.as_ref(), stored, history, &mut findings.differences);
    }
    findings.last = ids.last().copied();
    Ok(findings)
}

/// Reads something of these calls: of all at once; where a row is invalid, of each
/// alone, so that the others are read.
async fn each<T>(
    ids: &[i64],
    mut read: impl AsyncFnMut(&[i64]) -> Result<HashMap<i64, T>, Error>,
) -> Result<HashMap<i64, Result<T, Invalid>>, Error> {
    match read(ids).await {
        Ok(found) => return Ok(found.into_iter().map(|(id, it)| (id, Ok(it))).collect()),
        Err(error) => Invalid::of(error)?,
    };
    let mut found = HashMap::new();
    for &id in ids {
        match read(&[id]).await {
            Ok(one) => found.extend(one.into_iter().map(|(id, it)| (id, Ok(it)))),
            Err(error) => {
                found.insert(id, Err(Invalid::of(error)?));
            }
        }
    }
    Ok(found)
}

async fn stored_calls(
    conn: &mut PgConnection,
    ids: &[i64],
) -> Result<HashMap<i64, StoredCall>, Error> {
    let rows = select_calls!("from calls where calls.id = any($1)", ids).fetch_all(conn).await?;
    rows.into_iter().map(|row| Ok((row.id, row.try_into()?))).collect()
}

/// The columns of a call that are derived from others, for lists and reports.
struct DerivedColumns {
    list_partition: i16,
    statuses_seen: Option<i64>,
    total_microseconds: Option<i64>,
    attempt_counts: Option<Vec<Option<i32>>>,
    durations: Option<Vec<Option<i64>>>,
}

async fn derived_columns(
    conn: &mut PgConnection,
    ids: &[i64],
) -> Result<HashMap<i64, DerivedColumns>, Error> {
    let rows = sqlx::query!(
        r#"
        select id, list_partition, statuses_seen, total_microseconds,
            attempt_counts as "attempt_counts: Vec<Option<i32>>",
            durations as "durations: Vec<Option<i64>>"
        from calls
        where id = any($1)
        "#,
        ids,
    )
    .fetch_all(conn)
    .await?;
    let columns = rows.into_iter().map(|row| {
        let derived = DerivedColumns {
            list_partition: row.list_partition,
            statuses_seen: row.statuses_seen,
            total_microseconds: row.total_microseconds,
            attempt_counts: row.attempt_counts,
            durations: row.durations,
        };
        (row.id, derived)
    });
    Ok(columns.collect())
}

/// The numbers of calls, and those of events whose call is missing.
async fn next_calls(
    conn: &mut PgConnection,
    after: Option<i64>,
    limit: u16,
) -> Result<Vec<(i64, Option<CallName>)>, Error> {
    let rows = sqlx::query!(
        r#"
        with
        of_calls as (
            select id
            from calls
            where id > $1
            order by id
            limit $2
        ),
        -- the events between the same bounds, so that an event without a call is found
        of_events as (
            select distinct call
            from events
            where call > $1
                and call <= (
                    select case when count(*) < $2 then 9223372036854775807 else max(id) end
                    from of_calls
                )
        ),
        numbers as (
            select id from of_calls
            union
            select call from of_events
            order by 1
            limit $2
        )
        select numbers.id as "id!", calls.project_id as "project_id?", calls.call_id as "call_id?"
        from numbers
        left join calls using (id)
        order by numbers.id
        "#,
        after.unwrap_or(i64::MIN),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let name = row.project_id.zip(row.call_id).map(|(project_id, call_id)| {
                Ok::<_, Error>(CallName { id: row.id, key: key("calls", project_id, call_id)? })
            });
            Ok((row.id, name.transpose()?))
        })
        .collect()
}

/// Compares a stored call with the fold of its events.
fn compare(
    call_number: i64,
    name: Option<&CallName>,
    stored: Option<(Result<StoredCall, Invalid>, DerivedColumns)>,
    history: Result<Vec<StoredEvent>, Invalid>,
    differences: &mut Vec<Difference>,
) {
    let mut differ = |event, field, stored: String, folded: Option<String>| {
        if folded.as_ref() != Some(&stored) {
            let call = name.cloned();
            differences.push(Difference { call, call_number, event, field, stored, folded });
        }
    };
    let mut history = match history {
        Ok(history) => history,
        Err(invalid) => {
            differ(None, invalid.column.unwrap_or("event"), invalid.to_string(), None);
            return;
        }
    };
    if name.is_none() {
        differ(None, "call", "absent".to_owned(), None);
        return;
    }
    history.sort_by_key(|stored| stored.event.position());
    let folded = fold(&mut history.iter().map(|stored| &stored.event).collect::<Vec<_>>());

    let Some((call, outcomes)) = folded else {
        differ(None, "call", "present".to_owned(), Some("absent".to_owned()));
        return;
    };
    let delivered_at = history.iter().map(|event| event.last_delivered_at).max();
    let folded_fields =
        fields_of_call(&call).into_iter().chain([("last_delivered_at", time(delivered_at))]);
    match stored {
        None => {}
        Some((Ok(stored), derived)) => {
            let delivered_at = Some(stored.last_delivered_at);
            let stored_fields = fields_of_call(&stored.call)
                .into_iter()
                .chain([("last_delivered_at", time(delivered_at))]);
            for (stored, folded) in stored_fields.zip(folded_fields) {
                differ(None, stored.0, stored.1, Some(folded.1));
            }
            let folded = derived_fields(&DerivedColumns::of(&call));
            for (stored, folded) in derived_fields(&derived).into_iter().zip(folded) {
                differ(None, stored.0, stored.1, Some(folded.1));
            }
        }
        Some((Err(invalid), _)) => {
            let of_column = |(column, _): &Field| Some(*column) == invalid.column;
            let (field, folded) =
                folded_fields.into_iter().find(of_column).unwrap_or(("call", "present".to_owned()));
            differ(None, field, invalid.to_string(), Some(folded));
        }
    }
    for (StoredEvent { event, derived, .. }, outcome) in history.iter().zip(outcomes) {
        let folded = Derived::of(event, outcome);
        let event = Some(event.fingerprint);
        for (stored, folded) in fields_of_event(derived).into_iter().zip(fields_of_event(&folded)) {
            differ(event, stored.0, stored.1, Some(folded.1));
        }
    }
}

type Field = (&'static str, String);

fn fields_of_call(call: &Call) -> [Field; 16] {
    // Destructured, so that a new field cannot be forgotten here.
    let Call {
        direction,
        status,
        attempts,
        client_id,
        provider_status,
        has_errors,
        event_count,
        anomaly_count,
        microseconds_in_status,
        status_since,
        is_status_since_reported,
        first_event_at,
        updated_at,
        last,
    } = call;
    [
        ("direction", shown(*direction)),
        ("status", status.to_string()),
        ("attempts", serde_json::to_string(attempts).unwrap_or_default()),
        ("client_id", shown(client_id.as_ref())),
        ("provider_status", shown(provider_status.as_ref())),
        ("has_errors", has_errors.to_string()),
        ("event_count", event_count.to_string()),
        ("anomaly_count", anomaly_count.to_string()),
        (
            "microseconds_in_status",
            serde_json::to_string(microseconds_in_status).unwrap_or_default(),
        ),
        ("status_since", time(*status_since)),
        ("is_status_since_reported", is_status_since_reported.to_string()),
        ("first_event_at", time(Some(*first_event_at))),
        ("last_event_at", time(Some(last.effective_at))),
        ("last_event_rank", last.rank.get().to_string()),
        ("last_event_fingerprint", last.fingerprint.to_string()),
        ("updated_at", time(Some(*updated_at))),
    ]
}

impl DerivedColumns {
    fn of(call: &Call) -> Self {
        let summary = Summary::of(call);
        let times = call.microseconds_in_status.iter();
        let times = by_status_id(times.map(|(status, time)| (*status, Some(*time))), &None);
        Self {
            list_partition: ListPartition::of(call).number(),
            statuses_seen: summary.as_ref().map(|it| it.statuses_seen),
            total_microseconds: summary.as_ref().map(|it| it.total_microseconds),
            durations: summary.is_some().then_some(times),
            attempt_counts: summary.map(|it| it.attempt_counts.into_iter().map(Some).collect()),
        }
    }
}

fn derived_fields(columns: &DerivedColumns) -> [Field; 5] {
    let array = |array: Option<String>| shown(array);
    [
        ("list_partition", columns.list_partition.to_string()),
        ("statuses_seen", shown(columns.statuses_seen)),
        ("total_microseconds", shown(columns.total_microseconds)),
        ("attempt_counts", array(columns.attempt_counts.as_ref().map(|it| format!("{it:?}")))),
        ("durations", array(columns.durations.as_ref().map(|it| format!("{it:?}")))),
    ]
}

fn fields_of_event(derived: &Derived) -> [Field; 7] {
    let Derived { event_type, effective_at, outcome } = derived;
    let Outcome { disposition, from_status, to_status, attempt, reason } = outcome;
    [
        ("event_type", event_type.to_string()),
        ("effective_at", time(Some(*effective_at))),
        ("disposition", disposition.to_string()),
        ("from_status", shown(*from_status)),
        ("to_status", shown(*to_status)),
        ("attempt", shown(*attempt)),
        (
            "reason",
            format!("{} ({}, {})", reason.code, shown(reason.status), shown(reason.attempt)),
        ),
    ]
}

fn shown(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn time(at: Option<DateTime<Utc>>) -> String {
    shown(at.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)))
}

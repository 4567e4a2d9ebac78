//! What `callstate verify` compares: each call against the fold of its events.
//!
//! [`check`] takes the calls in key order, some at a time, each time from one
//! snapshot of the database, so that it may run while the service does.
//! [`super::refold`] repairs what it finds.
//!
//! What always holds: a row that cannot be read is a difference as any other, and
//! hides none of another call.

use std::{collections::HashMap, fmt};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use super::{
    Error,
    calls::{self, StoredCall},
    closed::Closed,
    codec::key,
    events::{self, Derived, StoredEvent, columns},
};
use crate::call::{Call, CallKey, Fingerprint, Outcome, fold};

/// Something that the store says and the fold does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The call.
    pub key: CallKey,
    /// The event, where it is about one.
    pub event: Option<Fingerprint>,
    /// The column; `call` where the whole call is missing or too much, `call` or
    /// `event` where it is not known which column cannot be read.
    pub field: &'static str,
    /// What is stored.
    pub stored: String,
    /// What the fold gives; `None` where an event of the call cannot be read, so
    /// that the call can be neither folded nor repaired.
    pub folded: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, event, field, stored, folded } = self;
        write!(f, "{key}")?;
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

/// Why a row cannot be read.
#[derive(Debug)]
struct Unreadable {
    /// The column, where that is known.
    column: Option<&'static str>,
    problem: String,
}

impl Unreadable {
    /// What is wrong with a row, if it is that.
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

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what cannot be read ({})", self.problem)
    }
}

/// What was found out about some calls.
#[derive(Debug, Default)]
pub struct Findings {
    /// How many calls were folded.
    pub calls: usize,
    /// How many events they have.
    pub events: usize,
    /// What differs.
    pub differences: Vec<Difference>,
    /// The last call that was looked at; `None` where there were no more.
    pub last: Option<CallKey>,
}

/// How many calls and events there are, roughly: what the planner believes.
///
/// # Errors
///
/// Where the database cannot be asked.
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

/// Folds the next `limit` calls of a bucket after `after`.
///
/// # Errors
///
/// Where the database cannot be asked, or what names a call cannot be.
pub async fn check(
    conn: &mut PgConnection,
    bucket: i32,
    after: Option<&CallKey>,
    limit: u16,
) -> Result<Findings, Error> {
    let mut tx = conn.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read, read only")
        .execute(&mut *tx)
        .await?;
    let keys = next_keys(&mut tx, bucket, after, limit).await?;
    let wanted: Vec<&CallKey> = keys.iter().collect();
    let mut stored =
        each(&wanted, async |keys| calls::of_keys(&mut *tx, bucket, keys).await).await?;
    let mut closed = closed(&mut tx, bucket, &wanted).await?;
    let mut events =
        each(&wanted, async |keys| events::of_calls(&mut *tx, bucket, keys).await).await?;
    tx.commit().await?;

    let mut findings = Findings { calls: keys.len(), ..Findings::default() };
    for key in &keys {
        let history = events.remove(key).unwrap_or_else(|| Ok(Vec::new()));
        findings.events += history.as_ref().map_or(0, Vec::len);
        let stored = stored.remove(key).map(|stored| (stored, closed.remove(key)));
        compare(key, stored, history, &mut findings.differences);
    }
    findings.last = keys.into_iter().next_back();
    Ok(findings)
}

/// Reads something of these calls: of all at once; where a row cannot be read, of
/// each alone, so that the others are.
async fn each<T>(
    keys: &[&CallKey],
    mut read: impl AsyncFnMut(&[&CallKey]) -> Result<HashMap<CallKey, T>, Error>,
) -> Result<HashMap<CallKey, Result<T, Unreadable>>, Error> {
    match read(keys).await {
        Ok(found) => return Ok(found.into_iter().map(|(key, it)| (key, Ok(it))).collect()),
        Err(error) => Unreadable::of(error)?,
    };
    let mut found = HashMap::new();
    for &key in keys {
        match read(&[key]).await {
            Ok(one) => found.extend(one.into_iter().map(|(key, it)| (key, Ok(it)))),
            Err(error) => {
                found.insert(key.clone(), Err(Unreadable::of(error)?));
            }
        }
    }
    Ok(found)
}

/// The columns of which [`Closed`] is made.
struct StoredClosed {
    shape: Option<String>,
    stays: Option<Vec<i64>>,
}

/// What is written of those calls for reports. Where nothing is, they take it out of
/// the call's JSON, which is as good.
async fn closed(
    conn: &mut PgConnection,
    bucket: i32,
    keys: &[&CallKey],
) -> Result<HashMap<CallKey, StoredClosed>, Error> {
    let (call_ids, project_ids) = columns(keys);
    let rows = sqlx::query!(
        r#"
        select calls.project_id, calls.call_id, closed_shape, closed_stays
        from unnest($2::text[], $3::text[]) as wanted (call_id, project_id)
        join calls using (call_id, project_id)
        where bucket = $1 and closed_shape is not null
        "#,
        bucket,
        &call_ids as &[&str],
        &project_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let closed = StoredClosed { shape: row.closed_shape, stays: row.closed_stays };
            Ok((key("calls", row.project_id, row.call_id)?, closed))
        })
        .collect()
}

/// The keys of calls, and of events of which the call is missing.
async fn next_keys(
    conn: &mut PgConnection,
    bucket: i32,
    after: Option<&CallKey>,
    limit: u16,
) -> Result<Vec<CallKey>, Error> {
    let (call_id, project_id) =
        after.map_or(("", ""), |key| (key.call_id.as_str(), key.project_id.as_str()));
    let rows = sqlx::query!(
        r#"
        with
        of_calls as (
            select call_id, project_id
            from calls
            where bucket = $1 and (call_id, project_id) > ($2, $3)
            order by call_id, project_id
            limit $4
        ),
        -- the events between the same bounds: an event without a call shows here
        of_events as (
            select call_id, project_id
            from events
            where bucket = $1 and (call_id, project_id) > ($2, $3)
                and (
                    (select count(*) from of_calls) < $4
                    or (call_id, project_id) <= (
                        select call_id, project_id
                        from of_calls
                        order by call_id desc, project_id desc
                        limit 1
                    )
                )
            group by call_id, project_id
        )
        select call_id as "call_id!", project_id as "project_id!"
        from (select * from of_calls union select * from of_events) as keys
        order by call_id, project_id
        limit $4
        "#,
        bucket,
        call_id,
        project_id,
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| key("calls", row.project_id, row.call_id)).collect()
}

/// Compares a call as it is stored with the fold of its events.
fn compare(
    key: &CallKey,
    stored: Option<(Result<StoredCall, Unreadable>, Option<StoredClosed>)>,
    history: Result<Vec<StoredEvent>, Unreadable>,
    differences: &mut Vec<Difference>,
) {
    let mut differ = |event, field, stored: String, folded: Option<String>| {
        if folded.as_ref() != Some(&stored) {
            differences.push(Difference { key: key.clone(), event, field, stored, folded });
        }
    };
    let mut history = match history {
        Ok(history) => history,
        Err(unreadable) => {
            differ(None, unreadable.column.unwrap_or("event"), unreadable.to_string(), None);
            return;
        }
    };
    history.sort_by_key(|stored| stored.event.position());
    let folded = fold(&mut history.iter().map(|stored| &stored.event).collect::<Vec<_>>());

    let Some((call, outcomes)) = folded else {
        if stored.is_some() {
            differ(None, "call", "present".to_owned(), Some("absent".to_owned()));
        }
        return;
    };
    let delivered_at = history.iter().map(|event| event.last_delivered_at).max();
    let folded_fields =
        fields_of_call(&call).into_iter().chain([("last_delivered_at", time(delivered_at))]);
    match stored {
        None => differ(None, "call", "absent".to_owned(), Some("present".to_owned())),
        Some((Ok(stored), closed)) => {
            let delivered_at = Some(stored.last_delivered_at);
            let stored_fields = fields_of_call(&stored.call)
                .into_iter()
                .chain([("last_delivered_at", time(delivered_at))]);
            for (stored, folded) in stored_fields.zip(folded_fields) {
                differ(None, stored.0, stored.1, Some(folded.1));
            }
            if let Some(stored) = closed {
                let folded =
                    Closed::of(&call).map(|Closed { shape, stays }| (shape, stays)).unzip();
                differ(None, "closed_shape", shown(stored.shape), Some(shown(folded.0)));
                let [stored, folded] = [stored.stays, folded.1]
                    .map(|stays| shown(stays.map(|stays| format!("{stays:?}"))));
                differ(None, "closed_stays", stored, Some(folded));
            }
        }
        Some((Err(unreadable), _)) => {
            let of_column = |(column, _): &Field| Some(*column) == unreadable.column;
            let (field, folded) =
                folded_fields.into_iter().find(of_column).unwrap_or(("call", "present".to_owned()));
            differ(None, field, unreadable.to_string(), Some(folded));
        }
    }
    for (StoredEvent { event, derived, .. }, outcome) in history.iter().zip(outcomes) {
        let folded = Derived::of(key, event, outcome);
        let event = Some(event.fingerprint);
        let stored_fields = fields_of_event(derived);
        for (stored, folded) in stored_fields.into_iter().zip(fields_of_event(&folded)) {
            differ(event, stored.0, stored.1, Some(folded.1));
        }
    }
}

type Field = (&'static str, String);

fn fields_of_call(call: &Call) -> [Field; 16] {
    // Taken apart, so that a new member cannot be forgotten here.
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
        first_event_at,
        ended_at,
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
        ("first_event_at", time(Some(*first_event_at))),
        ("last_event_at", time(Some(last.effective_at))),
        ("last_event_rank", last.rank.get().to_string()),
        ("last_event_fingerprint", last.fingerprint.to_string()),
        ("ended_at", time(*ended_at)),
        ("updated_at", time(Some(*updated_at))),
    ]
}

fn fields_of_event(derived: &Derived) -> [Field; 8] {
    let Derived { event_id, effective_at, rank, outcome } = derived;
    let Outcome { disposition, from_status, to_status, attempt, reason } = outcome;
    [
        ("event_id", event_id.to_string()),
        ("effective_at", time(Some(*effective_at))),
        ("rank", rank.to_string()),
        ("disposition", disposition.to_string()),
        ("from_status", shown(*from_status)),
        ("to_status", shown(*to_status)),
        ("attempt", shown(*attempt)),
        ("reason", reason.clone()),
    ]
}

fn shown(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn time(at: Option<DateTime<Utc>>) -> String {
    shown(at.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)))
}

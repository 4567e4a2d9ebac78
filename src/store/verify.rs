//! What `callstate verify` compares: each stored call with the fold of its events.
//!
//! [`check`] takes the calls in the order of their numbers, some at a time, each time
//! from one snapshot of the database, so that it may run while the service does.
//! [`refold`](super::write::refold()) repairs what it finds.
//!
//! The fold is compared as the rows that a writer would write, column by column as
//! Postgres shows them.
//!
//! What always holds: an invalid row is a difference like any other, and hides none
//! of another call.

use std::{collections::HashMap, fmt};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use super::{
    Error,
    calls::row::CallName,
    codec::key,
    events::row::{Derived, StoredEvent, of_calls},
    write::{AmendedEvent, CallRow},
};
use crate::call::{Call, CallKey, Fingerprint, fold};

/// A value that is stored and differs from the fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The call; `None` where its row is missing.
    pub call: Option<CallName>,
    /// The number of the call.
    pub call_number: i64,
    /// The event, where it is about one.
    pub event: Option<Fingerprint>,
    /// The column; `call` where the row of the call is missing or has no events.
    pub field: String,
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
    let ids: Vec<i64> = calls.iter().map(|call| call.id).collect();
    let mut events = of_calls(&mut *tx, &ids).await?;
    let mut findings =
        Findings { calls: calls.len(), last: ids.last().copied(), ..Findings::default() };
    let mut folded = Vec::new();
    for call in &calls {
        let history = events.remove(&call.id).unwrap_or_else(|| Ok(Vec::new()));
        folded.extend(call.fold(history, &mut findings)?);
    }
    compare_rows(&mut tx, &calls, &folded, &mut findings).await?;
    tx.commit().await?;
    Ok(findings)
}

/// The columns of `calls` that differ from the fold. Postgres compares them, so that a
/// stored value need not be valid.
async fn compare_rows(
    conn: &mut PgConnection,
    calls: &[ListedCall],
    folded: &[(i64, Call, DateTime<Utc>)],
    findings: &mut Findings,
) -> Result<(), Error> {
    let calls: HashMap<i64, &ListedCall> = calls.iter().map(|call| (call.id, call)).collect();
    let folded_rows = folded.iter().filter_map(|(id, call, last_delivered_at)| {
        let (key, version) = calls.get(id)?.stored.as_ref()?;
        Some(CallRow::of(*id, key, *version, call, *last_delivered_at))
    });
    let folded_rows: Vec<CallRow<'_>> = folded_rows.collect();
    let differences = sqlx::query!(
        r#"
        select calls.id as "id!", folded.key as "column!", rows.stored ->> folded.key as stored,
            folded.value as folded
        from unnest($1::call_row[]) as folded_call
        join calls on calls.id = folded_call.id
        cross join lateral (
            select to_jsonb(calls) as stored, to_jsonb(folded_call) as folded
            -- computed once for each call
            offset 0
        ) as rows
        cross join lateral jsonb_each_text(rows.folded) as folded
        where rows.stored ->> folded.key is distinct from folded.value
        order by calls.id, folded.key
        "#,
        &folded_rows as &[CallRow<'_>],
    )
    .fetch_all(conn)
    .await?;
    for row in differences {
        let null = || "null".to_owned();
        let (stored, folded) = (row.stored.unwrap_or_else(null), row.folded.unwrap_or_else(null));
        if let Some(call) = calls.get(&row.id) {
            findings.differences.push(call.difference(None, &row.column, stored, Some(folded)));
        }
    }
    Ok(())
}

/// A call that has a row, or events.
struct ListedCall {
    id: i64,
    /// The key and the version of the row; `None` where it is missing.
    stored: Option<(CallKey, i32)>,
}

impl ListedCall {
    fn difference(
        &self,
        event: Option<Fingerprint>,
        field: &str,
        stored: String,
        folded: Option<String>,
    ) -> Difference {
        let name = |(key, _): &(CallKey, i32)| CallName { id: self.id, key: key.clone() };
        let (call, field) = (self.stored.as_ref().map(name), field.to_owned());
        Difference { call, call_number: self.id, event, field, stored, folded }
    }

    /// Folds the events of the call and compares their derived columns. Returns the
    /// fold, with the time of the last delivery, unless the call cannot be folded.
    fn fold(
        &self,
        history: Result<Vec<StoredEvent>, Error>,
        findings: &mut Findings,
    ) -> Result<Option<(i64, Call, DateTime<Utc>)>, Error> {
        let mut history = match history {
            Ok(history) => history,
            Err(Error::Corrupt { column, problem, .. }) => {
                let stored = format!("an invalid value ({problem})");
                findings.differences.push(self.difference(None, column, stored, None));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        findings.events += history.len();
        if self.stored.is_none() {
            findings.differences.push(self.difference(None, "call", "absent".to_owned(), None));
            return Ok(None);
        }
        history.sort_by_key(|stored| stored.event.position());
        let folded = fold(&mut history.iter().map(|stored| &stored.event).collect::<Vec<_>>());
        let last_delivered_at = history.iter().map(|stored| stored.last_delivered_at).max();
        let (Some((call, outcomes)), Some(last_delivered_at)) = (folded, last_delivered_at) else {
            let (stored, folded) = ("present".to_owned(), Some("absent".to_owned()));
            findings.differences.push(self.difference(None, "call", stored, folded));
            return Ok(None);
        };
        for (StoredEvent { event, derived, .. }, outcome) in history.iter().zip(outcomes) {
            let folded = Derived::of(event, outcome);
            if *derived == folded {
                continue;
            }
            let columns = |derived| {
                let row = AmendedEvent::of(self.id, &event.fingerprint, &event.event_type, derived);
                serde_json::to_value(row).unwrap_or_default()
            };
            let (stored, folded) = (columns(*derived), columns(folded));
            for (column, stored) in stored.as_object().into_iter().flatten() {
                let folded = &folded[column];
                if stored != folded {
                    let (stored, folded) = (text(stored), Some(text(folded)));
                    let event = Some(event.fingerprint);
                    findings.differences.push(self.difference(event, column, stored, folded));
                }
            }
        }
        Ok(Some((self.id, call, last_delivered_at)))
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The numbers of calls, and those of events whose call is missing.
async fn next_calls(
    conn: &mut PgConnection,
    after: Option<i64>,
    limit: u16,
) -> Result<Vec<ListedCall>, Error> {
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
        select numbers.id as "id!", calls.project_id as "project_id?", calls.call_id as "call_id?",
            calls.version as "version?"
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
            let names = row.project_id.zip(row.call_id).zip(row.version);
            let stored = names.map(|((project_id, call_id), version)| {
                Ok::<_, Error>((key("calls", project_id, call_id)?, version))
            });
            Ok(ListedCall { id: row.id, stored: stored.transpose()? })
        })
        .collect()
}

//! The events of a call in fold order, and the errors of calls.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::{PgExecutor, types::Json};
use uuid::Uuid;

use super::row::{StoredEvent, name_of, select_events};
use crate::{
    call::{CallError, CallKey, Position, TimeProblem, event_id},
    store::{
        Error,
        codec::{Row, fingerprint},
    },
};

/// An event as a call's history shows it.
#[derive(Debug)]
pub struct HistoryEvent {
    /// The call.
    pub key: CallKey,
    /// The event and its effect.
    pub stored: StoredEvent,
    /// The number of its deliveries.
    pub delivery_count: u32,
    /// The endpoint that received its first delivery.
    pub endpoint: String,
    /// Why its `Time:` line was not used.
    pub time_problem: Option<TimeProblem>,
    /// The errors that it carries.
    pub errors: Vec<CallError>,
    /// The body of its first delivery, where it was requested.
    pub payload: Option<Payload>,
}

/// The body of the first delivery of an event.
#[derive(Debug)]
pub struct Payload {
    /// The body; `None` where it was removed.
    pub body: Option<Box<RawValue>>,
    /// When retention removed it.
    pub removed_at: Option<DateTime<Utc>>,
}

impl HistoryEvent {
    /// The id of the event.
    #[must_use]
    pub fn event_id(&self) -> Uuid {
        event_id(&self.key, self.stored.event.fingerprint)
    }

    /// Its position in the history, by the stored columns.
    #[must_use]
    pub fn position(&self) -> Position {
        let StoredEvent { event, derived, .. } = &self.stored;
        Position { effective_at: derived.effective_at, ..event.position() }
    }
}

/// A page of a history.
#[derive(Debug)]
pub struct HistoryPage {
    /// In fold order.
    pub events: Vec<HistoryEvent>,
    /// Whether there are events after the page.
    pub has_more: bool,
}

/// The events of a call in fold order, those after `after`, at most `limit`. With
/// `payload_bytes` they have their payloads, and the page ends before these exceed so
/// many bytes; it has one event at least.
#[tracing::instrument(level = "debug", skip_all, fields(call))]
pub async fn history(
    executor: impl PgExecutor<'_>,
    call: i64,
    key: &CallKey,
    after: Option<Position>,
    limit: u16,
    payload_bytes: Option<u32>,
) -> Result<HistoryPage, Error> {
    let rows = select_events!(
        names "null::text as call_id, null::text as project_id",
        payloads up to "$5",
        "
        from events
        left join event_type_spec on event_type_spec.id = events.event_type
        left join status_spec on status_spec.id = event_type_spec.status
        where call = $1
            and (
                $2::timestamptz is null
                or (effective_at, coalesce(rank, -1::smallint), fingerprint) > ($2, $3, $4)
            )
        window page as (
            order by effective_at, coalesce(rank, -1::smallint), fingerprint
            rows unbounded preceding
        )
        order by effective_at, coalesce(rank, -1::smallint), fingerprint
        limit $6
        ",
        call,
        after.map(|position| position.effective_at),
        after.map_or(0, |position| position.rank.get()),
        after.map_or_else(Vec::new, |position| position.fingerprint.0.to_vec()),
        payload_bytes.map(i64::from),
        i64::from(limit) + 1,
    )
    .fetch_all(executor)
    .await?;
    let found = rows.len();
    let page = rows.into_iter().take(limit.into()).take_while(|row| row.is_within_limit);
    let events: Vec<HistoryEvent> =
        page.map(|row| row.history(key.clone())).collect::<Result<_, _>>()?;
    Ok(HistoryPage { has_more: events.len() < found, events })
}

/// An error of a call and the event that carried it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedError {
    /// The event.
    pub event_id: Uuid,
    /// The error.
    pub error: CallError,
}

/// A call whose errors are wanted, of the events received by a time.
#[derive(Debug, Clone, Copy)]
pub struct ErrorsOf<'a> {
    /// The call.
    pub id: i64,
    /// The provider's names of it.
    pub key: &'a CallKey,
    /// Events received after this are left out.
    pub received_by: DateTime<Utc>,
}

/// The first errors of some calls, in fold order, at most `limit` of each. The
/// results are in the order of the calls.
#[tracing::instrument(level = "debug", skip_all, fields(calls = calls.len()))]
pub async fn errors(
    executor: impl PgExecutor<'_>,
    calls: &[ErrorsOf<'_>],
    limit: u16,
) -> Result<Vec<Vec<ReportedError>>, Error> {
    let mut errors: Vec<Vec<ReportedError>> = calls.iter().map(|_| Vec::new()).collect();
    if calls.is_empty() {
        return Ok(errors);
    }
    let ids: Vec<i64> = calls.iter().map(|call| call.id).collect();
    let received_by: Vec<DateTime<Utc>> = calls.iter().map(|call| call.received_by).collect();
    let rows = sqlx::query!(
        r#"
        select wanted.number as "number!", fingerprint as "fingerprint!",
            error as "error!: Json<CallError>"
        from unnest($1::bigint[], $2::timestamptz[]) with ordinality
            as wanted (call, received_by, number)
        cross join lateral (
            select fingerprint, error
            from (
                select fingerprint, errors
                from events
                left join event_type_spec on event_type_spec.id = events.event_type
                left join status_spec on status_spec.id = event_type_spec.status
                where call = wanted.call and errors is not null
                    and received_at <= wanted.received_by
                order by effective_at, status_spec.rank nulls first, fingerprint
                -- each has one error at least
                limit $3
            ) as carriers
            -- expanded one after the other, in their order, until there are enough
            cross join lateral jsonb_array_elements(errors) as error
            limit $3
        ) as carried
        "#,
        &ids,
        &received_by,
        i64::from(limit),
    )
    .fetch_all(executor)
    .await?;
    for row in rows {
        let number = usize::try_from(row.number - 1).ok();
        let Some((call, errors)) =
            number.and_then(|number| Some((calls.get(number)?, errors.get_mut(number)?)))
        else {
            continue;
        };
        let name = name_of(call.id, &row.fingerprint);
        let at = Row { table: "events", key: &name };
        let fingerprint = at.read("fingerprint", fingerprint(&row.fingerprint))?;
        errors
            .push(ReportedError { event_id: event_id(call.key, fingerprint), error: row.error.0 });
    }
    Ok(errors)
}

//! The events of a call in fold order, and the errors of calls.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::{PgExecutor, types::Json};
use uuid::Uuid;

use super::row::{EventRow, StoredEvent, name_of};
use crate::{
    call::{CallError, CallKey, Fingerprint, TimeProblem, event_id},
    store::{
        Error,
        calls::find::CallName,
        codec::{Row, count, fingerprint},
    },
};

/// The position of an event in the history of its call, by what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPosition {
    /// When the event happened.
    pub effective_at: DateTime<Utc>,
    /// The rank of the status that it reports.
    pub rank: i16,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

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
    /// The body of its first delivery, where it was requested and fits.
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

    /// Its position in the history.
    #[must_use]
    pub fn position(&self) -> HistoryPosition {
        let StoredEvent { event, derived, .. } = &self.stored;
        let rank = event.status().rank().get();
        HistoryPosition { effective_at: derived.effective_at, rank, fingerprint: event.fingerprint }
    }
}

/// A row of `events` as a history shows it.
pub(in crate::store) struct HistoryRow {
    pub(in crate::store) call: i64,
    pub(in crate::store) fingerprint: Vec<u8>,
    pub(in crate::store) event_type: i16,
    pub(in crate::store) unrecognized_type: Option<String>,
    pub(in crate::store) occurred_at: Option<DateTime<Utc>>,
    pub(in crate::store) time_problem: Option<i16>,
    pub(in crate::store) received_at: DateTime<Utc>,
    pub(in crate::store) effective_at: DateTime<Utc>,
    pub(in crate::store) call_sid: Option<String>,
    pub(in crate::store) client_id: Option<String>,
    pub(in crate::store) provider_status: Option<String>,
    pub(in crate::store) errors: Option<Json<Vec<CallError>>>,
    pub(in crate::store) disposition: String,
    pub(in crate::store) reason: i16,
    pub(in crate::store) reason_status: Option<i16>,
    pub(in crate::store) reason_attempt: Option<i32>,
    pub(in crate::store) from_status: Option<i16>,
    pub(in crate::store) to_status: Option<i16>,
    pub(in crate::store) attempt: Option<i32>,
    pub(in crate::store) delivery_count: i32,
    pub(in crate::store) last_delivered_at: DateTime<Utc>,
    pub(in crate::store) endpoint: String,
    /// Whether the payload was requested and fits.
    pub(in crate::store) shows_payload: bool,
    pub(in crate::store) payload: Option<String>,
    pub(in crate::store) payload_removed_at: Option<DateTime<Utc>>,
}

impl HistoryRow {
    pub(in crate::store) fn read(self, key: CallKey) -> Result<HistoryEvent, Error> {
        let name = name_of(self.call, &self.fingerprint);
        let errors = self.errors.map_or_else(Vec::new, |errors| errors.0);
        let stored = EventRow {
            call: self.call,
            fingerprint: self.fingerprint,
            event_type: self.event_type,
            unrecognized_type: self.unrecognized_type,
            occurred_at: self.occurred_at,
            received_at: self.received_at,
            effective_at: self.effective_at,
            call_sid: self.call_sid,
            client_id: self.client_id,
            provider_status: self.provider_status,
            has_errors: !errors.is_empty(),
            disposition: self.disposition,
            reason: self.reason,
            reason_status: self.reason_status,
            reason_attempt: self.reason_attempt,
            from_status: self.from_status,
            to_status: self.to_status,
            attempt: self.attempt,
            last_delivered_at: self.last_delivered_at,
        }
        .read()?;
        let at = Row { table: "events", key: &name };
        let body = self.payload.map(RawValue::from_string).transpose();
        let payload =
            Payload { body: at.read("payload", body)?, removed_at: self.payload_removed_at };
        Ok(HistoryEvent {
            key,
            stored,
            delivery_count: at.read("delivery_count", count(self.delivery_count))?,
            endpoint: self.endpoint,
            time_problem: at.read("time_problem", time_problem(self.time_problem))?,
            errors,
            payload: self.shows_payload.then_some(payload),
        })
    }
}

/// The time problem of a stored number.
pub(in crate::store) fn time_problem(id: Option<i16>) -> Result<Option<TimeProblem>, String> {
    let known = |id| TimeProblem::from_id(id).ok_or_else(|| format!("{id} is not a known problem"));
    id.map(known).transpose()
}

/// The events of a call in fold order, at most `limit`, those after `after`. With
/// `payload_bytes` they have their payloads, of at most so many bytes in all: the
/// first event has its payload in any case, and the events after the last one that
/// fits have none.
#[tracing::instrument(level = "debug", skip_all, fields(call = call.id))]
pub async fn history(
    executor: impl PgExecutor<'_>,
    call: &CallName,
    after: Option<HistoryPosition>,
    limit: u16,
    payload_bytes: Option<u32>,
) -> Result<Vec<HistoryEvent>, Error> {
    let rows = sqlx::query_as!(
        HistoryRow,
        r#"
        with
        of_call as (
            select events.*, coalesce(status_spec.rank, -1::smallint) as rank
            from events
            left join event_type_spec on event_type_spec.id = events.event_type
            left join status_spec on status_spec.id = event_type_spec.status
            where call = $1
        ),
        -- each with whether its payload was requested and fits
        shown as (
            select *,
                $5::bigint is not null
                and (
                    row_number() over up_to_it = 1
                    or coalesce(
                        sum(octet_length(case when $5 is not null then payload::text end))
                            over up_to_it,
                        0
                    ) <= $5
                ) as shows_payload
            from of_call
            where $2::timestamptz is null or (effective_at, rank, fingerprint) > ($2, $3, $4)
            window up_to_it as (order by effective_at, rank, fingerprint rows unbounded preceding)
        )
        select call as "call!", fingerprint as "fingerprint!", event_type as "event_type!",
            unrecognized_type, occurred_at, time_problem, received_at as "received_at!",
            effective_at as "effective_at!", call_sid, client_id, provider_status,
            errors as "errors: Json<Vec<CallError>>", disposition::text as "disposition!",
            reason as "reason!", reason_status, reason_attempt, from_status, to_status, attempt,
            delivery_count as "delivery_count!", last_delivered_at as "last_delivered_at!",
            endpoint as "endpoint!",
            shows_payload as "shows_payload!",
            case when shows_payload then payload::text end as payload, payload_removed_at
        from shown
        order by effective_at, rank, fingerprint
        limit $6
        "#,
        call.id,
        after.map(|position| position.effective_at),
        after.map_or(0, |position| position.rank),
        after.map_or_else(Vec::new, |position| position.fingerprint.0.to_vec()),
        payload_bytes.map(i64::from),
        i64::from(limit),
    )
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(|row| row.read(call.key.clone())).collect()
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

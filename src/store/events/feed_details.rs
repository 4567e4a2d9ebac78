//! The change feed with the details of its events, for readers that poll.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};

use super::{
    feed::{ErasedCall, FeedEvent, FeedRow, erasures},
    history::{HistoryEvent, HistoryRow},
};
use crate::{
    call::{CallError, Direction},
    store::Error,
};

/// The most events that are examined for one page, however few of them the filter selects.
const MAX_EXAMINED: i64 = 20_000;

/// Which events of the feed are selected.
#[derive(Debug)]
pub struct FeedFilter<'a> {
    /// The projects of the calls; `None` for all.
    pub projects: Option<Vec<&'a str>>,
    /// The direction of the calls.
    pub direction: Option<Direction>,
    /// The ids of the statuses of the calls after the event.
    pub statuses: Option<Vec<i16>>,
}

/// An event in the feed, and its details.
#[derive(Debug)]
pub struct DetailedEvent {
    /// The event and its call, after the event was stored.
    pub feed: FeedEvent,
    /// The event as the history of its call has it.
    pub details: HistoryEvent,
}

/// What the feed contains.
#[derive(Debug)]
pub enum DetailedItem {
    /// An event that was stored.
    Event(Box<DetailedEvent>),
    /// A call that was erased.
    Erased(ErasedCall),
}

/// A part of the feed.
#[derive(Debug)]
pub struct DetailedPage {
    /// In order. An invalid row is an error of its own, so that it hides no other.
    pub items: Vec<Result<DetailedItem, Error>>,
    /// The position up to which the feed was read.
    pub last: i64,
}

/// A row of `events` with all that is shown of it.
struct DetailedRow {
    position: i64,
    call: i64,
    call_id: Option<String>,
    project_id: Option<String>,
    call_direction: Option<String>,
    call_status: i16,
    call_attempt_count: i32,
    call_has_errors: bool,
    call_updated_at: Option<DateTime<Utc>>,
    fingerprint: Vec<u8>,
    event_type: i16,
    unrecognized_type: Option<String>,
    occurred_at: Option<DateTime<Utc>>,
    time_problem: Option<i16>,
    received_at: DateTime<Utc>,
    effective_at: DateTime<Utc>,
    call_sid: Option<String>,
    client_id: Option<String>,
    provider_status: Option<String>,
    errors: Option<Json<Vec<CallError>>>,
    disposition: String,
    reason: i16,
    reason_status: Option<i16>,
    reason_attempt: Option<i32>,
    from_status: Option<i16>,
    to_status: Option<i16>,
    attempt: Option<i32>,
    delivery_count: i32,
    last_delivered_at: DateTime<Utc>,
    endpoint: String,
    is_within_bytes: bool,
    shows_payload: bool,
    payload: Option<String>,
    payload_removed_at: Option<DateTime<Utc>>,
}

impl DetailedRow {
    fn read(self) -> Result<DetailedEvent, Error> {
        let feed = FeedRow {
            position: self.position,
            call: self.call,
            call_id: self.call_id.clone(),
            project_id: self.project_id.clone(),
            fingerprint: self.fingerprint.clone(),
            event_type: self.event_type,
            unrecognized_type: self.unrecognized_type.clone(),
            disposition: self.disposition.clone(),
            received_at: self.received_at,
            call_direction: self.call_direction,
            call_status: self.call_status,
            call_attempt_count: self.call_attempt_count,
            call_has_errors: self.call_has_errors,
            call_updated_at: self.call_updated_at,
        }
        .read()?;
        let details = HistoryRow {
            call: self.call,
            fingerprint: self.fingerprint,
            event_type: self.event_type,
            unrecognized_type: self.unrecognized_type,
            occurred_at: self.occurred_at,
            time_problem: self.time_problem,
            received_at: self.received_at,
            effective_at: self.effective_at,
            call_sid: self.call_sid,
            client_id: self.client_id,
            provider_status: self.provider_status,
            errors: self.errors,
            disposition: self.disposition,
            reason: self.reason,
            reason_status: self.reason_status,
            reason_attempt: self.reason_attempt,
            from_status: self.from_status,
            to_status: self.to_status,
            attempt: self.attempt,
            delivery_count: self.delivery_count,
            last_delivered_at: self.last_delivered_at,
            endpoint: self.endpoint,
            shows_payload: self.shows_payload,
            payload: self.payload,
            payload_removed_at: self.payload_removed_at,
        }
        .read(feed.key.clone())?;
        Ok(DetailedEvent { feed, details })
    }
}

/// The events after one position and up to another that the filter selects, the first
/// `limit` of the first 20,000 examined, and the erasures of calls of its projects. With `payload_bytes` they have their
/// payloads, and the page ends before these exceed so many bytes; its first event is
/// in it in any case.
///
/// # Errors
///
/// Fails if the query fails.
#[tracing::instrument(level = "debug", skip_all, fields(after, limit))]
pub async fn page(
    conn: &mut PgConnection,
    after: i64,
    up_to: i64,
    filter: &FeedFilter<'_>,
    limit: u16,
    payload_bytes: Option<u32>,
) -> Result<DetailedPage, Error> {
    let up_to = up_to.min(after.saturating_add(MAX_EXAMINED));
    let mut rows = sqlx::query_as!(
        DetailedRow,
        r#"
        with
        selected as (
            select events.*, calls.call_id, calls.project_id
            from (
                select *
                from events
                where position > $1 and position <= $2
                    and ($4::text is null or call_direction::text = $4)
                    and ($5::smallint[] is null or call_status = any($5))
                order by position
            ) as events
            left join lateral (
                select call_id, project_id
                from calls
                where id = events.call
                -- one index lookup each, whatever the statistics say
                offset 0
            ) as calls on true
            where $6::text[] is null or calls.project_id = any($6)
            order by events.position
            limit $3
        )
        select position as "position!", call as "call!", call_id, project_id,
            call_direction::text as call_direction, call_status as "call_status!",
            call_attempt_count as "call_attempt_count!", call_has_errors as "call_has_errors!",
            call_updated_at, fingerprint as "fingerprint!", event_type as "event_type!",
            unrecognized_type, occurred_at, time_problem, received_at as "received_at!",
            effective_at as "effective_at!", call_sid, client_id, provider_status,
            errors as "errors: Json<Vec<CallError>>", disposition::text as "disposition!",
            reason as "reason!", reason_status, reason_attempt, from_status, to_status, attempt,
            delivery_count as "delivery_count!", last_delivered_at as "last_delivered_at!",
            endpoint as "endpoint!",
            (
                $7::bigint is null
                or row_number() over up_to_it = 1
                or coalesce(
                    sum(octet_length(case when $7 is not null then payload::text end))
                        over up_to_it,
                    0
                ) <= $7
            ) as "is_within_bytes!",
            $7 is not null as "shows_payload!",
            case when $7 is not null then payload::text end as payload, payload_removed_at
        from selected
        window up_to_it as (order by position rows unbounded preceding)
        order by position
        "#,
        after,
        up_to,
        i64::from(limit),
        filter.direction.map(Direction::as_str),
        filter.statuses.as_deref() as Option<&[i16]>,
        filter.projects.as_deref() as Option<&[&str]>,
        payload_bytes.map(i64::from),
    )
    .fetch_all(&mut *conn)
    .await?;
    let within = rows.iter().take_while(|row| row.is_within_bytes).count();
    let is_cut = within < rows.len() || within >= limit.into();
    rows.truncate(within);
    let last = rows.last().filter(|_| is_cut).map_or(up_to, |row| row.position);
    let erased = erasures(conn, after, last, None, limit).await?;
    let last = erased.last;
    let is_in_project = |erased: &ErasedCall| {
        let project_id = erased.key.project_id.as_str();
        filter.projects.as_ref().is_none_or(|projects| projects.contains(&project_id))
    };
    let erased = erased.calls.into_iter().filter(is_in_project);
    let erased = erased.map(|it| (it.position, Ok(DetailedItem::Erased(it))));
    let events = rows.into_iter().take_while(|row| row.position <= last).map(|row| {
        let event = |event| DetailedItem::Event(Box::new(event));
        (row.position, row.read().map(event))
    });
    let mut items: Vec<(i64, Result<DetailedItem, Error>)> = events.chain(erased).collect();
    items.sort_by_key(|(position, _)| *position);
    Ok(DetailedPage { items: items.into_iter().map(|(_, item)| item).collect(), last })
}

//! The change feed with the details of its events, for readers that poll.

use sqlx::PgConnection;

use super::{
    feed::{ErasedCall, Erasures, FeedEvent, erasures, in_order},
    history::HistoryEvent,
    row::{EventRow, select_events},
};
use crate::{call::Direction, store::Error};

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

/// The events after one position and up to another that the filter selects, the first
/// `limit` of the first 20,000 examined, and the erasures of calls of its projects. With
/// `payload_bytes` the events have their payloads, and the page ends before these exceed so
/// many bytes; its first event is in it in any case.
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
    let mut rows = select_events!(
        names "calls.call_id as \"call_id?\", calls.project_id as \"project_id?\"",
        payloads up to "$7",
        "
        from events
        left join calls on calls.id = events.call
        where position > $1 and position <= $2
            and ($4::text is null or call_direction::text = $4)
            and ($5::smallint[] is null or call_status = any($5))
            and ($6::text[] is null or project_id = any($6))
        window page as (order by position rows unbounded preceding)
        order by position
        limit $3
        ",
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
    let within = rows.iter().take_while(|row| row.is_within_limit).count();
    let is_cut = within < rows.len() || within >= limit.into();
    rows.truncate(within);
    let last = rows.last().filter(|_| is_cut).map_or(up_to, |row| row.position);
    let Erasures { calls, last } = erasures(conn, after, last, None, limit).await?;
    let is_in_project = |erased: &ErasedCall| {
        let project_id = erased.key.project_id.as_str();
        filter.projects.as_ref().is_none_or(|projects| projects.contains(&project_id))
    };
    let erased = calls.into_iter().filter(is_in_project);
    let erased = erased.map(|it| (it.position, Ok(DetailedItem::Erased(it))));
    let detailed = |row: EventRow| {
        let key = row.key()?;
        let event = DetailedEvent { feed: row.feed(key.clone())?, details: row.history(key)? };
        Ok(DetailedItem::Event(Box::new(event)))
    };
    let events = rows.into_iter().take_while(|row| row.position <= last);
    let events = events.map(|row| (row.position, detailed(row)));
    Ok(DetailedPage { items: in_order(events.chain(erased)), last })
}

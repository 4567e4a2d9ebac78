//! The change feed with the details of its events, for readers that poll.

use sqlx::PgExecutor;

use super::{
    feed::FeedEvent,
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

/// A part of the feed.
#[derive(Debug)]
pub struct DetailedPage {
    /// In order. An invalid row is an error of its own, so that it hides no other.
    pub events: Vec<Result<DetailedEvent, Error>>,
    /// The position up to which the feed was read.
    pub last: i64,
}

/// The events after one position and up to another that the filter selects, the first
/// `limit` of the first 20,000 examined. With `payload_bytes` they have their
/// payloads, and the page ends before these exceed so many bytes; its first event is
/// in it in any case.
///
/// # Errors
///
/// Fails if the query fails.
#[tracing::instrument(level = "debug", skip_all, fields(after, limit))]
pub async fn page(
    executor: impl PgExecutor<'_>,
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
    .fetch_all(executor)
    .await?;
    let within = rows.iter().take_while(|row| row.is_within_limit).count();
    let is_cut = within < rows.len() || within >= limit.into();
    rows.truncate(within);
    let last = rows.last().filter(|_| is_cut).map_or(up_to, |row| row.position);
    let detailed = |row: EventRow| {
        let key = row.key()?;
        Ok(DetailedEvent { feed: row.feed(key.clone())?, details: row.history(key)? })
    };
    Ok(DetailedPage { events: rows.into_iter().map(detailed).collect(), last })
}

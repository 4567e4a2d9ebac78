//! `GET /events`: the change feed as pages of JSON, for clients that poll.
//!
//! What always holds: the events are those of `GET /stream`, in the same order, and a
//! client that goes on from `next` gets each of them once. An invalid row is logged and
//! left out, as in streams.

use axum::{Json, extract::State, http::Uri};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{
    IntoParams, IntoResponses, PartialSchema as _, ToSchema,
    openapi::{
        ObjectBuilder, Type,
        path::{Parameter, ParameterIn},
    },
};

use crate::{
    call::{CallId, Direction, ProjectId, Status},
    http::{
        Problem, Shared,
        auth::ApiClient,
        openapi::{
            answers::{Responses, problems},
            example,
        },
        pagination::read_limit,
        query::{Query, parameter},
        routes::{
            calls::history::{
                EventDetails, Include, MAX_PAYLOAD_BYTES, read_include, reported_status,
            },
            streams::{
                filter::{Filter, FilterParameters},
                page::name_of,
            },
        },
    },
    store::{
        self,
        events::{
            feed::{self, Discontinuity, ErasedCall, FeedPosition},
            feed_details::{DetailedEvent, DetailedItem, page},
        },
    },
};

/// The most events on a page, and their number where it is not given.
const MAX_LIMIT: u16 = 500;

/// The value of `after` that means the end of the feed.
const NOW: &str = "now";

/// A page of the change feed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeedPage)]
pub(crate) struct FeedDocument {
    /// The events and erasures, in the order in which they were stored.
    events: Vec<FeedItemDocument>,
    /// The `after` of the next page. Where it is the `after` of this page, nothing new was stored.
    next: String,
}

/// An event, or the erasure of a call.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = FeedItem)]
enum FeedItemDocument {
    /// An event.
    Event(Box<FeedEventDocument>),
    /// An erasure.
    Erased(ErasureDocument),
}

/// The erasure of a call: copies of it should be deleted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeedErasure)]
struct ErasureDocument {
    /// `erased`, as in streams.
    #[schema(value_type = String, pattern = "^erased$")]
    event: &'static str,
    /// The position of the erasure: the `id` of its message in streams.
    id: String,
    /// The provider's name of the call.
    call_id: CallId,
    /// The project of the call.
    project_id: ProjectId,
}

impl FeedItemDocument {
    fn new(feed_id: i64, item: DetailedItem) -> Self {
        match item {
            DetailedItem::Event(event) => {
                Self::Event(Box::new(FeedEventDocument::new(feed_id, *event)))
            }
            DetailedItem::Erased(ErasedCall { position, key }) => Self::Erased(ErasureDocument {
                event: "erased",
                id: FeedPosition { feed_id, position }.to_string(),
                call_id: key.call_id,
                project_id: key.project_id,
            }),
        }
    }
}

/// An event, and its call after the event was stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeedEvent)]
struct FeedEventDocument {
    /// `call`, as in streams.
    #[schema(value_type = String, pattern = "^call$")]
    event: &'static str,
    /// The position of the event: the `id` of its message in streams.
    id: String,
    /// The provider's name of the call.
    call_id: CallId,
    /// The project of the call.
    project_id: ProjectId,
    /// Who dialled; null where it is not known.
    direction: Option<Direction>,
    /// The status of the call after the event was stored.
    status: Status,
    /// Whether the call had ended, at least for now.
    terminal: bool,
    /// The number of attempts of the call.
    attempt_count: u32,
    /// Whether the call had errors.
    has_errors: bool,
    /// When the newest of the call's events was received, of those stored by then.
    updated_at: DateTime<Utc>,
    /// The status that the event reports; null where its type is unknown.
    event_status: Option<Status>,
    #[serde(flatten)]
    details: EventDetails,
}

impl FeedEventDocument {
    fn new(feed_id: i64, event: DetailedEvent) -> Self {
        let DetailedEvent { feed, details } = event;
        Self {
            event: "call",
            id: FeedPosition { feed_id, position: feed.position }.to_string(),
            call_id: feed.key.call_id,
            project_id: feed.key.project_id,
            direction: feed.direction,
            status: feed.status,
            terminal: feed.status.is_terminal(),
            attempt_count: feed.attempt_count,
            has_errors: feed.has_errors,
            updated_at: feed.updated_at,
            event_status: reported_status(&details),
            details: details.into(),
        }
    }
}

/// The parameters of a page of the feed, except those of its filter.
pub(crate) struct PageParameters;

impl IntoParams for PageParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let after =
            ObjectBuilder::new().schema_type(Type::String).examples(["1f0c53a8d2e4-872", NOW]);
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MAX_LIMIT))
            .default(Some(MAX_LIMIT.into()));
        let include = format!(
            "Adds the payloads. The page then ends before its payloads exceed {} MiB, but has one \
             event at least.",
            MAX_PAYLOAD_BYTES >> 20
        );
        let query = ParameterIn::Query;
        vec![
            parameter(
                "after",
                query.clone(),
                "The position after which the page begins: the `next` of a page, the `id` of an \
                 event or of a message of a stream, or `now` for the end of the feed. Without it, \
                 the page begins with the oldest event.",
                after,
            ),
            parameter("limit", query.clone(), "The most events on the page.", limit),
            parameter("include", query, &include, Include::schema()),
        ]
    }
}

/// The position is not one of this feed, or a parameter is invalid.
pub(crate) struct NotContinued;

impl IntoResponses for NotContinued {
    fn responses() -> Responses {
        let head = FeedPosition { feed_id: 0x1f0c_53a8_d2e4, position: 872 };
        let resets = [Discontinuity::OtherFeed, Discontinuity::BeyondHead];
        let resets = resets.map(|reason| reset(reason, head));
        problems(resets.into_iter().chain([Problem::bad_parameter("colour: is no parameter here")]))
    }
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Position(FeedPosition),
    Now,
}

/// The change feed
///
/// The events of all calls in the order in which they were stored, as in `GET /stream`, page by
/// page. To stay current, read on from `next` at once while it differs from `after`, and then from
/// time to time; store `next` together with what was read. A page may be empty and `next` differ from
/// `after`: the filter selected none of the events that were examined. Where `after` is not a position
/// of this feed, because the database was restored or lost events, the answer is 409 with `reason` and
/// the `head` of the feed: the client decides where to go on.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "list_events",
    tag = "calls",
    params(FilterParameters, PageParameters),
    responses(
        (status = 200, description = "A page of events.", body = FeedDocument,
         example = json!(example(include_str!("../openapi/examples/events.json")))),
        NotContinued,
    ),
    security((), ("api_key" = [])),
)]
pub(crate) async fn show(
    State(service): State<Shared>,
    caller: ApiClient,
    uri: Uri,
) -> Result<Json<FeedDocument>, Problem> {
    let mut query = Query::of(&uri);
    let filter = Filter::read(&mut query, &caller, None);
    let with_payload = query.take("include", read_include).is_some();
    let limit = query.take("limit", |limit| read_limit(limit, MAX_LIMIT)).unwrap_or(MAX_LIMIT);
    let after = query.take("after", read_after);
    query.finish()?;

    let end = feed::head(&service.pool).await?;
    let after = match after {
        Some(After::Position(after)) => after,
        Some(After::Now) => end.last,
        None => FeedPosition { position: 0, ..end.last },
    };
    let head = end.last;
    if let Some(reason) = end.discontinuity(after) {
        return Err(reset(reason, head));
    }
    // The last events may have been deleted.
    if after.position >= head.position {
        return Ok(Json(FeedDocument { events: Vec::new(), next: after.to_string() }));
    }
    let payload_bytes = with_payload.then_some(MAX_PAYLOAD_BYTES);
    let (position, up_to) = (after.position, head.position);
    let mut connection = service.pool.acquire().await.map_err(store::Error::from)?;
    let page =
        page(&mut connection, position, up_to, &filter.of_feed(), limit, payload_bytes).await?;
    let events = valid(page.items);
    Ok(Json(FeedDocument {
        events: events.map(|event| FeedItemDocument::new(head.feed_id, event)).collect(),
        next: FeedPosition { position: page.last, ..head }.to_string(),
    }))
}

/// The valid events; the others are logged.
fn valid(read: Vec<Result<DetailedItem, store::Error>>) -> impl Iterator<Item = DetailedItem> {
    read.into_iter().filter_map(|event| {
        event
            .inspect_err(|error| tracing::error!(%error, "an event is missing in the change feed"))
            .ok()
    })
}

fn read_after(after: &str) -> Result<After, String> {
    if after == NOW {
        return Ok(After::Now);
    }
    after
        .parse()
        .map(After::Position)
        .map_err(|_| "must be the id of an event, a next of this service, or now".to_owned())
}

fn reset(reason: Discontinuity, head: FeedPosition) -> Problem {
    let detail = match reason {
        Discontinuity::OtherFeed => "after: is a position of another feed",
        Discontinuity::BeyondHead => "after: is beyond the end of the feed",
    };
    Problem::feed_reset(detail).with("reason", name_of(reason)).with("head", head.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_after_a_position_or_now() {
        let position = FeedPosition { feed_id: 31, position: 12 };
        assert_eq!(read_after("1f-12"), Ok(After::Position(position)));
        assert_eq!(read_after("now"), Ok(After::Now));
        for wrong in ["NOW", "12", "1f-", "1f--1", "1F-12", "1f-012"] {
            assert!(read_after(wrong).is_err(), "{wrong}");
        }
    }
}

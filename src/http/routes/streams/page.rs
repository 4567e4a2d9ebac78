//! A page of the change feed as Server-DeliverySchema Events, written once for all streams.

use std::ops::Range;

use axum::body::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    call::{CallId, CallKey, Direction, Disposition, ProjectId, Status},
    http::routes::streams::filter::Filter,
    store::events::feed::{Discontinuity, ErasedCall, FeedEvent, FeedItem, FeedPosition},
};

/// Why the service ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Its client fell behind the pages that are kept.
    TooSlow,
    /// Its key is no longer valid.
    KeyRefused,
    /// The service stops.
    Stopping,
    /// The feed cannot be read.
    Unavailable,
}

impl EndReason {
    pub(crate) const ALL: [Self; 4] =
        [Self::TooSlow, Self::KeyRefused, Self::Stopping, Self::Unavailable];

    /// The reason as it is sent.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::TooSlow => "too_slow",
            Self::KeyRefused => "key_refused",
            Self::Stopping => "stopping",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The data of an `event: call` of a stream: the short form of a call, and the event that was
/// stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamMessage)]
pub(in crate::http) struct StreamMessage<'a> {
    /// The provider's name of the call.
    #[schema(value_type = CallId)]
    call_id: &'a CallId,
    /// The project that the call is of.
    #[schema(value_type = ProjectId)]
    project_id: &'a ProjectId,
    /// Who dialled; null where it is not known.
    direction: Option<Direction>,
    /// Where the call stood when the event was stored.
    status: Status,
    /// Whether it had ended, at least for now.
    terminal: bool,
    /// How many attempts it had.
    attempt_count: u32,
    /// Whether anything had gone wrong in it.
    has_errors: bool,
    /// Identifies the event.
    event_id: Uuid,
    /// What the event is called, be it known or not.
    #[schema(value_type = String)]
    event_type: &'a str,
    /// What the state machine did with it.
    disposition: Disposition,
    /// When the newest of the call's events was received, of those that had come.
    updated_at: DateTime<Utc>,
}

/// The data of an `event: erased` of a stream: the call that was erased.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamErasure)]
pub(in crate::http) struct ErasureMessage<'a> {
    /// The provider's name of the call.
    #[schema(value_type = CallId)]
    call_id: &'a CallId,
    /// The project of the call.
    #[schema(value_type = ProjectId)]
    project_id: &'a ProjectId,
}

/// Events and erasures in order, and their text.
#[derive(Debug)]
pub(crate) struct Page {
    text: Bytes,
    /// Each with the end of its text.
    items: Vec<(FeedItem, usize)>,
    /// The position up to which nothing is missing.
    pub(crate) last: FeedPosition,
}

/// A part of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) text: Bytes,
    pub(crate) messages: u64,
}

impl Page {
    /// Writes events, which are all up to `last`.
    pub(crate) fn of(items: Vec<FeedItem>, last: FeedPosition) -> Self {
        let mut text = String::with_capacity(items.len() * 512);
        let items = items
            .into_iter()
            .map(|item| {
                match &item {
                    FeedItem::Event(event) => write_event(&mut text, last.feed_id, event),
                    FeedItem::Erased(erased) => write_erased(&mut text, last.feed_id, erased),
                }
                (item, text.len())
            })
            .collect();
        Self { text: text.into(), items, last }
    }

    /// The events after a position that a filter selects.
    pub(super) fn select(&self, after: i64, filter: &Filter) -> Selection {
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut messages = 0;
        let mut start = 0;
        for (item, end) in &self.items {
            if item.position() > after && filter.selects(item) {
                messages += 1;
                match parts.last_mut() {
                    Some(part) if part.end == start => part.end = *end,
                    _ => parts.push(start..*end),
                }
            }
            start = *end;
        }
        let text = match parts.as_slice() {
            [part] => self.text.slice(part.clone()),
            parts => parts
                .iter()
                .map(|part| &self.text[part.clone()])
                .collect::<Vec<_>>()
                .concat()
                .into(),
        };
        Selection { text, messages }
    }
}

fn write_event(text: &mut String, feed_id: i64, event: &FeedEvent) {
    let data = StreamMessage {
        call_id: &event.key.call_id,
        project_id: &event.key.project_id,
        direction: event.direction,
        status: event.status,
        terminal: event.status.is_terminal(),
        attempt_count: event.attempt_count,
        has_errors: event.has_errors,
        event_id: event.event_id,
        event_type: &event.event_type,
        disposition: event.disposition,
        updated_at: event.updated_at,
    };
    write_message(text, "call", FeedPosition { feed_id, position: event.position }, &data);
}

fn write_erased(text: &mut String, feed_id: i64, erased: &ErasedCall) {
    let CallKey { call_id, project_id } = &erased.key;
    let data = ErasureMessage { call_id, project_id };
    write_message(text, "erased", FeedPosition { feed_id, position: erased.position }, &data);
}

fn write_message(text: &mut String, event: &str, id: FeedPosition, data: &impl Serialize) {
    // Line feeds in it are escaped, so that it is one line.
    let data = serde_json::to_string(data).expect("names, texts and numbers are valid JSON");
    for part in ["event: ", event, "\nid: ", &id.to_string(), "\ndata: ", &data, "\n\n"] {
        text.push_str(part);
    }
}

/// The beginning of a stream: how soon to reconnect after it broke, in milliseconds, and
/// its position.
pub(crate) fn write_beginning(position: FeedPosition) -> Bytes {
    format!("retry: 1000\n{}", heartbeat(position)).into()
}

/// A heartbeat: a comment, and the position up to which nothing was missed, so that a
/// client that selects few events does not read far when it resumes.
pub(crate) fn write_heartbeat(position: FeedPosition) -> Bytes {
    heartbeat(position).into()
}

fn heartbeat(position: FeedPosition) -> String {
    format!(":\nid: {position}\n\n")
}

/// The message that the client's position is not one of this feed, whose head is given.
pub(crate) fn write_reset(reason: Discontinuity, head: FeedPosition) -> Bytes {
    let reason = name_of(reason);
    format!("event: reset\nid: {head}\ndata: {{\"reason\":\"{reason}\",\"head\":\"{head}\"}}\n\n")
        .into()
}

/// The reason as it is sent.
pub(in crate::http) const fn name_of(reason: Discontinuity) -> &'static str {
    match reason {
        Discontinuity::OtherFeed => "other_feed",
        Discontinuity::BeyondHead => "beyond_head",
    }
}

/// The last message of a stream that the service ends.
pub(crate) fn write_end(end: EndReason) -> Bytes {
    format!("event: end\ndata: {{\"reason\":\"{}\"}}\n\n", end.as_str()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{auth::ApiClient, query::Query};

    fn at(position: i64) -> FeedPosition {
        FeedPosition { feed_id: 0x1f, position }
    }

    fn event(position: i64, call_id: &str, status: Status) -> FeedItem {
        FeedItem::Event(FeedEvent {
            position,
            key: CallKey {
                call_id: CallId::new(call_id).unwrap(),
                project_id: ProjectId::new("default").unwrap(),
            },
            direction: Some(Direction::Outbound),
            status,
            attempt_count: 1,
            has_errors: false,
            event_id: Uuid::nil(),
            event_type: "OUTBOUND_CALL_\nBUSY".to_owned(),
            disposition: Disposition::Advanced,
            updated_at: DateTime::UNIX_EPOCH,
        })
    }

    fn filter(query: &str) -> Filter {
        let uri = format!("/stream?{query}").parse().unwrap();
        Filter::read(&mut Query::of(&uri), &ApiClient::Anonymous, None)
    }

    #[test]
    fn a_message_is_one_block_with_one_line_of_data() {
        let page = Page::of(vec![event(3, "c", Status::Busy)], at(3));
        let Selection { text, messages } = page.select(2, &filter(""));
        assert_eq!(messages, 1);
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            "event: call\nid: 1f-3\ndata: {\"call_id\":\"c\",\"project_id\":\"default\",\
             \"direction\":\"outbound\",\"status\":\"BUSY\",\"terminal\":true,\"attempt_count\":1,\
             \"has_errors\":false,\"event_id\":\"00000000-0000-0000-0000-000000000000\",\
             \"event_type\":\"OUTBOUND_CALL_\\nBUSY\",\"disposition\":\"advanced\",\
             \"updated_at\":\"1970-01-01T00:00:00Z\"}\n\n",
        );
    }

    #[test]
    fn an_erasure_is_a_message_whatever_direction_and_status_are_selected() {
        let key = event(4, "c", Status::Busy).key().clone();
        let page = Page::of(vec![FeedItem::Erased(ErasedCall { position: 4, key })], at(4));
        let text =
            "event: erased\nid: 1f-4\ndata: {\"call_id\":\"c\",\"project_id\":\"default\"}\n\n";
        for query in ["", "status=BUSY", "direction=inbound"] {
            let selection = page.select(3, &filter(query));
            assert_eq!(std::str::from_utf8(&selection.text).unwrap(), text);
        }
        assert_eq!(page.select(3, &filter("project_id=other")).messages, 0);
    }

    #[test]
    fn a_reset_has_its_reason_and_the_head_and_is_resumed_from() {
        let text = write_reset(Discontinuity::OtherFeed, at(7));
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            "event: reset\nid: 1f-7\ndata: {\"reason\":\"other_feed\",\"head\":\"1f-7\"}\n\n",
        );
    }

    #[test]
    fn a_selection_has_the_events_after_a_position_that_the_filter_selects() {
        let statuses = [Status::Busy, Status::Calling, Status::Busy, Status::Busy];
        let events = (1..).zip(statuses).map(|(position, status)| event(position, "c", status));
        let page = Page::of(events.collect(), at(9));
        let ids = |after, query: &str| {
            let selection = page.select(after, &filter(query));
            let text = String::from_utf8(selection.text.to_vec()).unwrap();
            let ids: Vec<String> =
                text.lines().filter_map(|line| Some(line.strip_prefix("id: ")?.into())).collect();
            assert_eq!(ids.len() as u64, selection.messages);
            ids
        };
        assert_eq!(ids(0, ""), ["1f-1", "1f-2", "1f-3", "1f-4"]);
        assert_eq!(ids(2, ""), ["1f-3", "1f-4"]);
        assert_eq!(ids(0, "status=BUSY"), ["1f-1", "1f-3", "1f-4"]);
        assert_eq!(ids(0, "status=BUSY,CALLING&direction=inbound"), [""; 0]);
        assert_eq!(ids(0, "project_id=other"), [""; 0]);
        assert_eq!(ids(4, ""), [""; 0]);
    }
}

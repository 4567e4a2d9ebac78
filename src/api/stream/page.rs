//! What was stored together, as Server-Sent Events: written once, for all who
//! listen.

use std::ops::Range;

use axum::body::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::filter::Filter;
use crate::{
    call::{CallId, Direction, Disposition, ProjectId, Status},
    store::{
        epoch,
        stream::{Bookmark, Message},
    },
};

/// Why we end a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its reader fell behind what is kept for who reads slowly.
    TooSlow,
    /// Its key is no longer good.
    KeyRefused,
    /// The service stops.
    Stopping,
    /// What it missed cannot be read.
    Unavailable,
}

impl End {
    pub(super) const ALL: [Self; 4] =
        [Self::TooSlow, Self::KeyRefused, Self::Stopping, Self::Unavailable];

    /// As clients are told.
    pub(super) const fn as_str(self) -> &'static str {
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
pub(in crate::api) struct Data<'a> {
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

/// Messages in their order, and their text.
#[derive(Debug)]
pub(super) struct Page {
    text: Bytes,
    /// Each with the place where its text ends.
    messages: Vec<(Message, usize)>,
    /// Up to where nothing is missing.
    pub(super) last: Bookmark,
}

/// Some of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) text: Bytes,
    pub(super) messages: u64,
}

impl Page {
    /// Writes messages, which are all up to `last`.
    pub(super) fn of(messages: Vec<Message>, last: Bookmark) -> Self {
        let mut text = String::with_capacity(messages.len() * 512);
        let messages = messages
            .into_iter()
            .map(|message| {
                write_message(&mut text, &message);
                (message, text.len())
            })
            .collect();
        Self { text: text.into(), messages, last }
    }

    /// Those of the messages behind a place that a filter takes.
    pub(super) fn select(&self, after: Bookmark, filter: &Filter) -> Selection {
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut messages = 0;
        let mut begin = 0;
        for (message, end) in &self.messages {
            if message.at > after && filter.takes(message) {
                messages += 1;
                match parts.last_mut() {
                    Some(part) if part.end == begin => part.end = *end,
                    _ => parts.push(begin..*end),
                }
            }
            begin = *end;
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

fn write_message(text: &mut String, message: &Message) {
    let data = Data {
        call_id: &message.key.call_id,
        project_id: &message.key.project_id,
        direction: message.direction,
        status: message.status,
        terminal: message.status.is_terminal(),
        attempt_count: message.attempt_count,
        has_errors: message.has_errors,
        event_id: message.event_id,
        event_type: &message.event_type,
        disposition: message.disposition,
        updated_at: message.updated_at,
    };
    // Its line feeds are escaped, so that it is one line.
    let data = serde_json::to_string(&data).expect("names, texts and numbers make JSON");
    text.push_str("event: call\nid: ");
    text.push_str(&write_id(message.at));
    text.push_str("\ndata: ");
    text.push_str(&data);
    text.push_str("\n\n");
}

/// What a stream begins with: how soon to come back after it broke, in
/// milliseconds, and where it begins.
pub(super) fn write_beginning(at: Bookmark) -> Bytes {
    format!("retry: 1000\n{}", heartbeat(at)).into()
}

/// A sign of life: a comment, and up to where nothing was missed, so that who
/// listens to little does not read far when it comes back.
pub(super) fn write_heartbeat(at: Bookmark) -> Bytes {
    heartbeat(at).into()
}

fn heartbeat(at: Bookmark) -> String {
    format!(":\nid: {}\n\n", write_id(at))
}

/// The last message of a stream that we end.
pub(super) fn write_end(end: End) -> Bytes {
    format!("event: end\ndata: {{\"reason\":\"{}\"}}\n\n", end.as_str()).into()
}

/// A place, as it is sent with each message. One of an epoch that began before
/// that was noted has no such part.
fn write_id(at: Bookmark) -> String {
    let Bookmark { epoch: epoch::Name { number, begun_at }, transaction, place } = at;
    match begun_at.map(|it| it.timestamp_micros()) {
        Some(begun_at) => format!("{number}-{begun_at:x}-{transaction}-{place}"),
        None => format!("{number}-{transaction}-{place}"),
    }
}

/// Reads it as it was written.
pub(super) fn read_id(id: &str) -> Option<Bookmark> {
    let parts: Vec<&str> = id.splitn(5, '-').collect();
    let (number, begun_at, transaction, place) = match *parts {
        [number, begun_at, transaction, place] => (number, Some(begun_at), transaction, place),
        [number, transaction, place] => (number, None, transaction, place),
        _ => return None,
    };
    let begun_at = match begun_at {
        Some(begun_at) => Some(read_moment(begun_at)?),
        None => None,
    };
    let at = Bookmark {
        epoch: epoch::Name { number: number.parse().ok()?, begun_at },
        transaction: transaction.parse().ok()?,
        place: place.parse().ok()?,
    };
    (write_id(at) == id).then_some(at)
}

fn read_moment(micros: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(i64::from_str_radix(micros, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        api::{caller::Caller, query::Query},
        call::CallKey,
    };

    fn at(transaction: i64, place: i32) -> Bookmark {
        Bookmark { epoch: epoch::Name { number: 1, begun_at: None }, transaction, place }
    }

    fn message(place: i32, call_id: &str, status: Status) -> Message {
        Message {
            at: at(7, place),
            key: CallKey {
                call_id: CallId::new(call_id).unwrap(),
                project_id: ProjectId::unnamed(),
            },
            direction: Some(Direction::Outbound),
            status,
            attempt_count: 1,
            has_errors: false,
            event_id: Uuid::nil(),
            event_type: "OUTBOUND_CALL_\nBUSY".to_owned(),
            disposition: Disposition::Advanced,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    fn filter(query: &str) -> Filter {
        let uri = format!("/stream?{query}").parse().unwrap();
        Filter::read(&mut Query::of(&uri), &Caller::Anyone, None)
    }

    #[test]
    fn a_message_is_one_block_with_one_line_of_data() {
        let page = Page::of(vec![message(3, "c", Status::Busy)], at(7, 3));
        let Selection { text, messages } = page.select(at(7, 2), &filter(""));
        assert_eq!(messages, 1);
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            "event: call\nid: 1-7-3\ndata: {\"call_id\":\"c\",\"project_id\":\"default\",\
             \"direction\":\"outbound\",\"status\":\"BUSY\",\"terminal\":true,\"attempt_count\":1,\
             \"has_errors\":false,\"event_id\":\"00000000-0000-0000-0000-000000000000\",\
             \"event_type\":\"OUTBOUND_CALL_\\nBUSY\",\"disposition\":\"advanced\",\
             \"updated_at\":\"1970-01-01T00:00:00Z\"}\n\n",
        );
    }

    #[test]
    fn a_selection_has_what_is_behind_a_place_and_matches() {
        let statuses = [Status::Busy, Status::Calling, Status::Busy, Status::Busy];
        let messages = (0..).zip(statuses).map(|(place, status)| message(place, "c", status));
        let page = Page::of(messages.collect(), at(9, 0));
        let ids = |after, query: &str| {
            let selection = page.select(after, &filter(query));
            let text = String::from_utf8(selection.text.to_vec()).unwrap();
            let ids: Vec<String> =
                text.lines().filter_map(|line| Some(line.strip_prefix("id: ")?.into())).collect();
            assert_eq!(ids.len() as u64, selection.messages);
            ids
        };
        assert_eq!(ids(at(6, 0), ""), ["1-7-0", "1-7-1", "1-7-2", "1-7-3"]);
        assert_eq!(ids(at(7, 1), ""), ["1-7-2", "1-7-3"]);
        assert_eq!(ids(at(6, 0), "status=BUSY"), ["1-7-0", "1-7-2", "1-7-3"]);
        assert_eq!(ids(at(6, 0), "status=BUSY,CALLING&direction=inbound"), [""; 0]);
        assert_eq!(ids(at(6, 0), "project_id=other"), [""; 0]);
        assert_eq!(ids(at(7, 3), ""), [""; 0]);
    }

    proptest! {
        #[test]
        fn an_id_reads_as_it_was_written(
            number in 0i32..,
            // Until the year 9999.
            begun_at in prop::option::of(0i64..253_402_300_800_000_000),
            transaction in 0i64..,
            place in 0i32..,
        ) {
            let begun_at = begun_at.and_then(DateTime::from_timestamp_micros);
            let at = Bookmark { epoch: epoch::Name { number, begun_at }, transaction, place };
            prop_assert_eq!(read_id(&write_id(at)), Some(at));
        }

        #[test]
        fn an_id_with_a_character_too_many_is_refused(
            numbers in [0i32.., 0i32.., 0i32..],
            which in 0..3usize,
            (before, after) in prop::sample::select(vec![
                ("+", ""), ("-", ""), ("0", ""), (" ", ""),
                ("", "-"), ("", " "), ("", "\n"), ("", "."), ("", "x"),
            ]),
        ) {
            let mut parts = numbers.map(|number| number.to_string());
            parts[which] = format!("{before}{}{after}", parts[which]);
            prop_assert_eq!(read_id(&parts.join("-")), None);
        }
    }

    #[test]
    fn an_id_is_written_in_one_way() {
        for id in ["1-2-3", "1-65199d8a01a37-2-3"] {
            assert_eq!(read_id(id).map(write_id).as_deref(), Some(id));
        }
        for wrong in [
            "",
            "1",
            "1-2",
            "+1-2-3",
            "01-2-3",
            "1-2-",
            "1--2-3",
            " 1-2-3",
            "1-A-2-3",
            "1-0a-2-3",
            "1-+a-2-3",
            "1--2-3-4",
            "1-ffffffffffffffff-2-3",
            "1-7fffffffffffffff-2-3",
            "1-2-3-4-5",
        ] {
            assert_eq!(read_id(wrong), None, "{wrong:?}");
        }
    }
}

//! The renderings as reviewed, and the table against what calls really do.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Format, Machine, describe};
use crate::call::{
    Call, CallSid, Direction, Event, EventType, Fingerprint, KnownEvent, Relation, Status,
};

#[test]
fn the_text_is_as_reviewed() {
    insta::assert_snapshot!(describe().text());
}

#[test]
fn the_mermaid_drawing_is_as_reviewed() {
    insta::assert_snapshot!(describe().mermaid());
}

#[test]
fn the_drawing_in_the_architecture_page_is_the_machines() {
    let page = include_str!("../../../ARCHITECTURE.md");
    assert!(
        page.contains(&format!("```mermaid\n{}```\n", describe().mermaid())),
        "paste what `callstate state-machine --format mermaid` prints",
    );
}

#[test]
fn the_drawing_for_graphviz_is_as_reviewed() {
    insta::assert_snapshot!(describe().dot());
}

/// A line for each row, so that a change shows as one. Of the transitions those
/// of inbound calls stand for all: the text shows what each of them does.
#[test]
fn the_json_is_as_reviewed() {
    let Machine { statuses, events, dispositions, relations, mut transitions } = describe();
    transitions.retain(|row| row.direction == Direction::Inbound);
    let json = [
        lines("statuses", &statuses),
        lines("events", &events),
        lines("dispositions", &dispositions),
        lines("relations", &relations),
        lines("transitions", &transitions),
    ]
    .concat();
    insta::assert_snapshot!(json);
}

fn lines(member: &str, rows: &[impl Serialize]) -> String {
    let rows = rows.iter().map(|row| format!("  {}\n", serde_json::to_string(row).unwrap()));
    format!("{member}:\n{}", rows.collect::<String>())
}

#[test]
fn the_json_has_the_members_that_the_snapshot_names() {
    let machine = serde_json::to_value(describe()).unwrap();
    let members: Vec<&String> = machine.as_object().unwrap().keys().collect();
    assert_eq!(members, ["dispositions", "events", "relations", "statuses", "transitions"]);
}

#[test]
fn no_line_of_the_text_is_too_wide_or_ends_in_blanks() {
    for line in describe().text().lines() {
        assert!(line.chars().count() <= 160, "{line}");
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn the_formats_go_by_their_names() {
    let names: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
    assert_eq!(names, ["text", "mermaid", "dot", "json"]);
}

/// The rows of the table are those that some call can show, no more and no
/// less, and say what it then does.
#[test]
fn the_table_has_just_what_can_happen() {
    type Key = (Direction, Option<Status>, KnownEvent, Relation);
    let mut seen: BTreeSet<Key> = BTreeSet::new();
    let machine = describe();
    let mut check = |from: Option<&Call>, event: &Event| {
        let EventType::Known(event_type) = event.event_type else { return };
        let mut call = from.cloned();
        let direction = call.as_ref().and_then(|call| call.direction);
        if direction.is_some_and(|direction| direction != event_type.direction()) {
            return;
        }
        let relation = call.as_ref().map_or(Relation::Current, |call| call.relation(event).0);
        let outcome = match &mut call {
            Some(call) => call.apply(event),
            None => {
                let (begun, outcome) = Call::begin(event);
                call = Some(begun);
                outcome
            }
        };
        let key = (event_type.direction(), from.map(|call| call.status), event_type, relation);
        let row = machine
            .transitions
            .iter()
            .find(|row| (row.direction, row.from, row.event_type, row.relation) == key)
            .unwrap_or_else(|| panic!("no row for {key:?}"));
        assert_eq!(row.disposition, outcome.disposition, "{key:?}");
        assert_eq!(Some(row.to), call.map(|call| call.status), "{key:?}");
        seen.insert(key);
    };

    // Two attempts, a status after them, and an event after that are enough to
    // show every row.
    let beginnings: [&[(&str, Option<&str>)]; 4] = [
        &[],
        &[("TRANSFERRED", None)],
        &[("OUTBOUND_CALL_BUSY", Some("A")), ("OUTBOUND_CALL_PENDING", Some("B"))],
        &[("INBOUND_CALL_CONNECTING", Some("A"))],
    ];
    let all = KnownEvent::ALL
        .iter()
        .flat_map(|event| [None, Some("A"), Some("B"), Some("C")].map(|sid| (event.as_str(), sid)));
    let all: Vec<(&str, Option<&str>)> = all.collect();
    for beginning in beginnings {
        let begun = beginning
            .iter()
            .enumerate()
            .fold(None, |call, (index, (name, sid))| Some(after(call, &event(index, name, *sid))));
        for (name, sid) in &all {
            let first = event(10, name, *sid);
            check(begun.as_ref(), &first);
            let call = after(begun.clone(), &first);
            for (name, sid) in &all {
                check(Some(&call), &event(11, name, *sid));
            }
        }
    }

    let rows: BTreeSet<Key> = machine
        .transitions
        .iter()
        .map(|row| (row.direction, row.from, row.event_type, row.relation))
        .collect();
    assert_eq!(rows.len(), machine.transitions.len());
    assert_eq!(rows.difference(&seen).collect::<Vec<_>>(), Vec::<&Key>::new());
}

fn after(call: Option<Call>, event: &Event) -> Call {
    match call {
        Some(mut call) => {
            let _ = call.apply(event);
            call
        }
        None => Call::begin(event).0,
    }
}

fn event(second: usize, name: &str, sid: Option<&str>) -> Event {
    let second = i64::try_from(second).unwrap();
    Event {
        fingerprint: Fingerprint([0; 32]),
        event_type: EventType::of(name),
        occurred_at: None,
        received_at: chrono::DateTime::from_timestamp(second, 0).unwrap(),
        call_sid: sid.map(|sid| CallSid::new(sid).unwrap()),
        client_id: None,
        provider_status: None,
        has_errors: false,
    }
}

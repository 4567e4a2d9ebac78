//! The renderings as reviewed, and the table against the fold.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Format, Machine, TransitionRow, describe};
use crate::call::{
    Call, CallSid, Direction, Event, EventType, Fingerprint, KnownEvent, Order, Outcome, Relation,
    Status, fold::Fold,
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
fn the_drawing_in_the_documentation_is_that_of_the_machine() {
    let page = include_str!("../../../docs/concepts.md");
    assert!(
        page.contains(&format!("```mermaid\n{}```\n", describe().mermaid())),
        "paste the output of `callstate state-machine --format mermaid`",
    );
}

#[test]
fn the_drawing_for_graphviz_is_as_reviewed() {
    insta::assert_snapshot!(describe().dot());
}

/// A line per row, so that a change shows as one. Only the transitions of inbound
/// calls are here: the text shows all of them.
#[test]
fn the_json_is_as_reviewed() {
    let Machine { statuses, events, dispositions, relations, orders, mut transitions } = describe();
    transitions.retain(|row| row.direction == Direction::Inbound);
    let json = [
        lines("statuses", &statuses),
        lines("events", &events),
        lines("dispositions", &dispositions),
        lines("relations", &relations),
        lines("orders", &orders),
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
    assert_eq!(
        members,
        ["dispositions", "events", "orders", "relations", "statuses", "transitions"]
    );
}

#[test]
fn no_line_of_the_text_is_too_wide_or_ends_in_blanks() {
    for line in describe().text().lines() {
        assert!(line.chars().count() <= 160, "{line}");
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn the_formats_have_their_names() {
    let names: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
    assert_eq!(names, ["text", "mermaid", "dot", "json"]);
}

type Key = (Direction, Option<Status>, Option<Status>, KnownEvent, Relation, Order);

/// A call with what its fold remembers.
#[derive(Clone, Default)]
struct Folded {
    call: Option<Call>,
    fold: Fold,
    clock: i64,
}

impl Folded {
    /// What decides about the next event.
    fn situation(&self) -> String {
        let Some(call) = &self.call else { return String::new() };
        let attempts: Vec<_> =
            call.attempts.iter().map(|it| (&it.call_sid, it.status, &it.statuses)).collect();
        let has_time = call.is_status_since_reported;
        format!("{:?} {} {has_time} {attempts:?}", call.direction, call.status)
    }

    /// Applies an event a second later; `None` if it is of the other direction.
    fn step(&mut self, name: &str, sid: Option<&str>, has_time: bool) -> Option<(Key, Outcome)> {
        self.clock += 1;
        let event = event(self.clock, name, sid, has_time);
        let mut call = self.call.take().unwrap_or_else(|| Call::before(&event));
        let from = (call.event_count > 0).then_some(call.status);
        let facts = self.fold.facts(&call, &event);
        let outcome = self.fold.step(&mut call, &event);
        self.call = Some(call);
        let event_type = event.event_type.known()?;
        let interrupted = facts.interrupted.filter(|_| from == Some(Status::Error));
        let key =
            (event_type.direction(), from, interrupted, event_type, facts.relation, facts.order);
        (facts.relation != Relation::Opposite).then_some((key, outcome))
    }
}

/// The rows of the table are those that some call can show, no more and no
/// less, and say what it then does.
#[test]
fn the_table_has_exactly_what_is_possible() {
    let machine = describe();
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    let mut check = |folded: &mut Folded, name: &str, sid: Option<&str>, has_time: bool| {
        let Some((key, outcome)) = folded.step(name, sid, has_time) else { return };
        let (direction, from, interrupted, event_type, relation, order) = key;
        let is_of_key = |row: &TransitionRow| {
            (row.direction, row.from, row.interrupted) == (direction, from, interrupted)
                && (row.event_type, row.relation) == (event_type, relation)
                && row.order.is_none_or(|it| it == order)
        };
        let index = machine
            .transitions
            .iter()
            .position(is_of_key)
            .unwrap_or_else(|| panic!("no row for {key:?}"));
        let row = &machine.transitions[index];
        assert_eq!(row.disposition, outcome.disposition, "{key:?}");
        assert_eq!(Some(row.to), folded.call.as_ref().map(|call| call.status), "{key:?}");
        seen.insert(index);
    };

    let beginnings: [&[(&str, Option<&str>)]; 6] = [
        &[],
        &[("TRANSFERRED", None)],
        &[("OUTBOUND_CALL_BUSY", Some("A")), ("OUTBOUND_CALL_PENDING", Some("B"))],
        // The call is live again although its attempt has ended.
        &[
            ("OUTBOUND_CALL_PENDING", Some("A")),
            ("OUTBOUND_CALL_EXPIRED", None),
            ("OUTBOUND_CALL_ERROR", Some("A")),
        ],
        &[("INBOUND_CALL_CONNECTING", Some("A"))],
        &[("INBOUND_CALL_CALLING", Some("A"))],
    ];
    let all: Vec<(&str, Option<&str>, bool)> = KnownEvent::ALL
        .iter()
        .flat_map(|event| [None, Some("A"), Some("B"), Some("C")].map(|sid| (event.as_str(), sid)))
        .flat_map(|(name, sid)| [true, false].map(|has_time| (name, sid, has_time)))
        .collect();
    let mut explored = BTreeSet::new();
    for beginning in beginnings {
        let mut begun = Folded::default();
        for (name, sid) in beginning {
            let _ = begun.step(name, *sid, true);
        }
        for (name, sid, has_time) in &all {
            let mut second = begun.clone();
            check(&mut second, name, *sid, *has_time);
            for (name, sid, has_time) in &all {
                let mut third = second.clone();
                check(&mut third, name, *sid, *has_time);
                if !explored.insert(third.situation()) {
                    continue;
                }
                for (name, sid, has_time) in &all {
                    check(&mut third.clone(), name, *sid, *has_time);
                }
            }
        }
    }

    let unseen: Vec<&TransitionRow> = machine
        .transitions
        .iter()
        .enumerate()
        .filter(|(index, _)| !seen.contains(index))
        .map(|(_, row)| row)
        .collect();
    assert_eq!(unseen, Vec::<&TransitionRow>::new());
}

fn event(second: i64, name: &str, sid: Option<&str>, has_time: bool) -> Event {
    let at = chrono::DateTime::from_timestamp(second, 0).unwrap();
    Event {
        fingerprint: Fingerprint([0; 32]),
        event_type: EventType::of(name),
        occurred_at: has_time.then_some(at),
        received_at: at,
        call_sid: sid.map(|sid| CallSid::new(sid).unwrap()),
        client_id: None,
        provider_status: None,
        has_errors: false,
    }
}

//! What holds for any events at all.

use proptest::prelude::*;

use super::{
    given::{at, deliver, fold, fold_in, given},
    model,
};
use crate::call::{
    Attempt, Call, CallSid, ClientId, Direction, Disposition, Event, EventType, Fingerprint,
    KnownEvent, Outcome, Status,
};

/// The greatest number of events of one call.
const MOST_EVENTS: usize = 12;

/// Some events of one call: mostly of one direction, with few dials and few
/// times, so that they meet.
fn some_events() -> impl Strategy<Value = Vec<Event>> {
    let direction = prop_oneof![4 => Just(Direction::Outbound), 1 => Just(Direction::Inbound)];
    // Some calls have no times and some no call_sids, as in some projects.
    let kind = (direction, prop::bool::weighted(0.8), prop::bool::weighted(0.7));
    kind.prop_flat_map(|(direction, timed, has_sids)| {
        prop::collection::vec(event_of(direction, timed, has_sids), 1..=MOST_EVENTS)
    })
    .prop_map(|mut events| {
        for (index, event) in (0_u8..).zip(&mut events) {
            // Distinct, and in no order that follows the list.
            event.fingerprint.0[0] ^= index.wrapping_mul(101);
            event.fingerprint.0[31] = index;
        }
        events
    })
}

fn event_of(
    direction: Direction,
    timed: bool,
    has_sids: bool,
) -> impl Strategy<Value = Event> + use<> {
    let event_type = prop_oneof![
        12 => of_direction(direction),
        1 => of_direction(opposite(direction)),
        1 => prop::sample::select(vec!["OUTBOUND_CALL_TRANSFERRED", "PENDING", ""])
            .prop_map(EventType::of),
    ];
    let stated_time = prop::option::weighted(0.85, 0_i64..12);
    let sids = prop::sample::select(vec!["A", "B", "C"]);
    let sid = prop::option::weighted(0.7, sids);
    let client = prop::option::weighted(0.3, prop::sample::select(vec!["x", "y"]));
    let provider = prop::option::weighted(0.3, prop::sample::select(vec!["CALLING", "DONE"]));
    (event_type, stated_time, 0_i64..16, sid, client, provider, any::<bool>(), any::<u8>())
        .prop_map(
            move |(event_type, stated_time, received, sid, client, provider, has_errors, byte)| {
                Event {
                    fingerprint: Fingerprint([byte; 32]),
                    event_type,
                    occurred_at: stated_time.filter(|_| timed).map(at),
                    received_at: at(received),
                    call_sid: sid.filter(|_| has_sids).map(|sid| CallSid::new(sid).unwrap()),
                    client_id: client.map(|id| ClientId::new(id).unwrap()),
                    provider_status: provider.map(str::to_owned),
                    has_errors,
                }
            },
        )
}

fn of_direction(direction: Direction) -> impl Strategy<Value = EventType> + use<> {
    let events: Vec<KnownEvent> =
        KnownEvent::ALL.iter().copied().filter(|event| event.direction() == direction).collect();
    prop::sample::select(events).prop_map(EventType::Known)
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Outbound => Direction::Inbound,
        Direction::Inbound => Direction::Outbound,
    }
}

/// Some events and their deliveries: every event at least once, some again, in
/// any order.
fn events_and_deliveries() -> impl Strategy<Value = (Vec<Event>, Vec<usize>)> {
    some_events().prop_flat_map(|events| {
        let count = events.len();
        let again = prop::collection::vec(0..count, 0..=count);
        let deliveries =
            again.prop_map(move |again| (0..count).chain(again).collect::<Vec<_>>()).prop_shuffle();
        (Just(events), deliveries)
    })
}

/// The events in fold order.
fn sorted(events: &[Event]) -> Vec<&Event> {
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| event.position());
    sorted
}

/// The call after each of its events, in fold order, and what that event did at
/// that time.
fn steps(events: &[Event]) -> Vec<(Call, Outcome)> {
    let sorted = sorted(events);
    let prefixes = (1..=sorted.len()).map(|count| fold_in(&sorted[..count]));
    prefixes.map(|(call, outcomes)| (call, outcomes[outcomes.len() - 1])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_fold_is_what_the_model_says(events in some_events()) {
        let (call, outcomes) = fold(&events);
        prop_assert_eq!(Some(model::view(&call, &outcomes)), model::fold(&events));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_order_and_any_repetition_give_the_same_call((events, deliveries) in events_and_deliveries()) {
        let deliveries: Vec<&Event> = deliveries.iter().map(|index| &events[*index]).collect();
        prop_assert_eq!(deliver(&deliveries), fold(&events));
    }

    #[test]
    fn the_order_in_which_events_are_given_does_not_matter(events in some_events().prop_shuffle()) {
        let reversed: Vec<&Event> = events.iter().rev().collect();
        prop_assert_eq!(fold_in(&reversed), fold(&events));
    }

    #[test]
    fn the_outcomes_are_in_the_order_to_which_the_events_are_sorted(events in some_events()) {
        let mut given: Vec<&Event> = events.iter().collect();
        let (_, outcomes) = crate::call::fold(&mut given).unwrap();
        prop_assert_eq!(outcomes.len(), given.len());
        prop_assert_eq!(given, sorted(&events));
    }

    /// An event that sorts last is applied to the stored call alone, unless that
    /// is in ERROR; the result is that of the fold.
    #[test]
    fn applying_where_possible_gives_the_same_as_the_fold(events in some_events()) {
        let sorted = sorted(&events);
        for count in 1..sorted.len() {
            let (mut call, _) = fold_in(&sorted[..count]);
            let event = sorted[count];
            if !call.can_apply(event) {
                prop_assert_eq!(call.status, Status::Error);
                continue;
            }
            let outcome = call.apply(event);
            let (folded, outcomes) = fold_in(&sorted[..=count]);
            prop_assert_eq!(&call, &folded);
            prop_assert_eq!(outcome, outcomes[count]);
            let (_, before) = fold_in(&sorted[..count]);
            prop_assert_eq!(&before[..], &outcomes[..count]);
        }
    }

    #[test]
    fn an_event_that_does_not_sort_last_cannot_be_applied(events in some_events()) {
        let (call, _) = fold(&events);
        for event in &events {
            prop_assert!(!call.can_apply(event));
        }
    }

    #[test]
    fn a_final_status_is_left_only_by_a_forced_event_that_happened_later(events in some_events()) {
        let mut last: Option<Call> = None;
        for ((call, outcome), event) in steps(&events).into_iter().zip(sorted(&events)) {
            if let Some(before) = last.filter(|before| before.status.is_final())
                && (outcome.disposition.changes_status() || call.status != before.status)
            {
                prop_assert_eq!(outcome.disposition, Disposition::Forced);
                prop_assert!(before.is_status_since_reported);
                prop_assert!(event.occurred_at > before.status_since);
            }
            last = Some(call);
        }
    }

    /// A live call may have a lower status than its attempt: one that went on
    /// from the ERROR that it began with, after a late event of a higher rank.
    #[test]
    fn a_call_that_was_never_final_ends_when_its_current_attempt_ends(events in some_events()) {
        for (call, _) in steps(&events) {
            if call.status.is_final() {
                break;
            }
            match call.attempts.last() {
                Some(current) if current.status.ends_attempt() || call.status.is_terminal() => {
                    prop_assert_eq!(call.status, current.status);
                    prop_assert_eq!(call.ended_at(), current.ended_at);
                }
                Some(current) => {
                    prop_assert!(current.statuses.contains(&call.status));
                    prop_assert!(current.status.rank() >= call.status.rank());
                }
                None => prop_assert_eq!(call.status, Status::Unknown),
            }
        }
    }

    #[test]
    fn only_an_error_that_the_call_went_on_from_is_nonfatal(events in some_events()) {
        let (_, outcomes) = fold(&events);
        for (outcome, event) in outcomes.iter().zip(sorted(&events)) {
            if outcome.disposition == Disposition::Nonfatal {
                prop_assert_eq!(event.status(), Status::Error);
            }
        }
    }

    #[test]
    fn attempts_are_numbered_from_1_and_no_two_have_one_call_sid(events in some_events()) {
        for (call, outcome) in steps(&events) {
            let numbers: Vec<u32> = call.attempts.iter().map(|attempt| attempt.number).collect();
            let expected: Vec<u32> = (1..).take(numbers.len()).collect();
            prop_assert_eq!(&numbers, &expected);
            prop_assert!(outcome.attempt.is_none_or(|number| numbers.contains(&number)));
            let sids: Vec<_> = call.attempts.iter().filter_map(|it| it.call_sid.as_ref()).collect();
            for (index, sid) in sids.iter().enumerate() {
                prop_assert!(!sids[..index].contains(sid));
            }
        }
    }

    #[test]
    fn an_attempt_goes_back_only_from_an_error_and_its_end_is_not_before_its_start(events in some_events()) {
        let mut before: Vec<Attempt> = Vec::new();
        for (call, _) in steps(&events) {
            prop_assert!(call.attempts.len() >= before.len());
            for (then, now) in before.iter().zip(&call.attempts) {
                let is_forward = now.status.rank() >= then.status.rank();
                prop_assert!(is_forward || then.status == Status::Error);
                prop_assert!(now.statuses.is_superset(&then.statuses));
                prop_assert!(then.call_sid.is_none() || now.call_sid == then.call_sid);
                prop_assert_eq!(now.started_at, then.started_at);
            }
            for (index, attempt) in call.attempts.iter().enumerate() {
                let is_followed = index + 1 < call.attempts.len();
                let has_ended = attempt.status.ends_attempt() || is_followed;
                prop_assert!(attempt.statuses.contains(&attempt.status));
                prop_assert_eq!(attempt.ended_at.is_some(), has_ended);
                prop_assert!(attempt.ended_at.is_none_or(|end| end >= attempt.started_at));
                prop_assert!(has_ended || !attempt.is_end_by_receipt);
            }
            before = call.attempts;
        }
    }

    #[test]
    fn a_stored_attempt_is_read_back_as_it_was(events in some_events()) {
        for attempt in fold(&events).0.attempts {
            let json = serde_json::to_string(&attempt).unwrap();
            prop_assert_eq!(json.contains("is_end_by_receipt"), attempt.is_end_by_receipt);
            prop_assert_eq!(serde_json::from_str::<Attempt>(&json).unwrap(), attempt);
        }
    }

    #[test]
    fn an_inbound_call_has_at_most_one_attempt(events in some_events()) {
        let (call, _) = fold(&events);
        prop_assert!(call.direction != Some(Direction::Inbound) || call.attempts.len() <= 1);
    }

    #[test]
    fn events_and_anomalies_are_counted(events in some_events()) {
        let (call, outcomes) = fold(&events);
        prop_assert_eq!(call.event_count as usize, events.len());
        let anomalies = outcomes.iter().filter(|outcome| outcome.disposition.is_anomaly()).count();
        prop_assert_eq!(call.anomaly_count as usize, anomalies);
    }

    #[test]
    fn the_times_in_status_add_up_to_no_more_than_the_call(events in some_events()) {
        let (call, _) = fold(&events);
        let length = call.last_event_at() - call.first_event_at;
        let total: i64 = call.microseconds_in_status.values().sum();
        prop_assert!(call.microseconds_in_status.values().all(|time| *time >= 0));
        prop_assert!(total <= length.num_microseconds().unwrap());
        prop_assert!(!call.microseconds_in_status.contains_key(&Status::Unknown));
    }

    #[test]
    fn every_reason_makes_a_whole_sentence(events in some_events()) {
        let (_, outcomes) = fold(&events);
        for (outcome, event) in outcomes.iter().zip(sorted(&events)) {
            let template = outcome.reason.code.template();
            let values = [
                ("{status}", outcome.reason.status.is_some()),
                ("{attempt}", outcome.reason.attempt.is_some()),
                ("{event_attempt}", outcome.attempt.is_some()),
            ];
            for (placeholder, is_known) in values {
                prop_assert!(is_known || !template.contains(placeholder), "{}", template);
            }
            let sentence = outcome.reason.sentence(event.status(), outcome.attempt);
            prop_assert!(!sentence.contains(['{', '}']), "{}", sentence);
            prop_assert!(sentence.len() <= 160, "{}", sentence);
        }
    }

    #[test]
    fn each_step_continues_from_the_one_before(events in some_events()) {
        let (call, outcomes) = fold(&events);
        let mut status = None;
        for (index, (outcome, event)) in outcomes.iter().zip(sorted(&events)).enumerate() {
            if outcome.disposition.changes_status() {
                let before = status.or((index > 0).then_some(Status::Unknown));
                prop_assert_eq!(outcome.from_status, before);
                prop_assert_eq!(outcome.to_status, Some(event.status()));
                status = outcome.to_status;
            } else {
                prop_assert_eq!((outcome.from_status, outcome.to_status), (None, None));
            }
        }
        prop_assert_eq!(call.status, status.unwrap_or(Status::Unknown));
    }
}

/// Every sequence of three events that arrive one after the other, without
/// times, with times, and with a time in the last two.
#[test]
fn the_fold_is_what_the_model_says_of_every_three_events() {
    let mut lines: Vec<String> = Vec::new();
    for word in Status::ALL {
        lines.extend(["", " A", " B"].map(|sid| format!("{word}{sid}")));
    }
    lines.extend(["inbound CALLING", "inbound CALLING A", "inbound COMPLETED B"].map(String::from));
    for first in &lines {
        for second in &lines {
            for third in &lines {
                let without = given(&[first, second, third]);
                let mut with_times = without.clone();
                for event in &mut with_times {
                    event.occurred_at = Some(event.received_at);
                }
                let mut with_some = with_times.clone();
                with_some[0].occurred_at = None;
                for events in [without, with_times, with_some] {
                    let (call, outcomes) = fold(&events);
                    assert_eq!(
                        Some(model::view(&call, &outcomes)),
                        model::fold(&events),
                        "{first}, {second}, {third}",
                    );
                }
            }
        }
    }
}

#[test]
fn no_events_are_no_call() {
    assert_eq!(crate::call::fold(&mut []), None);
}

#[test]
#[should_panic(expected = "fold the call again")]
fn an_event_that_does_not_sort_last_is_never_applied() {
    let events = given(&["PENDING @1", "CALLING @2"]);
    let (mut call, _) = Call::begin(&events[1]);
    let _ = call.apply(&events[0]);
}

#[test]
#[should_panic(expected = "fold the call again")]
fn an_event_is_never_applied_twice() {
    let events = given(&["PENDING @1"]);
    let (mut call, _) = Call::begin(&events[0]);
    let _ = call.apply(&events[0]);
}

#[test]
#[should_panic(expected = "fold the call again")]
fn an_event_that_may_show_that_a_call_in_error_went_on_is_never_applied() {
    let events = given(&["CALLING @1", "ERROR @2", "COMPLETED @3"]);
    let (mut call, _) = fold(&events[..2]);
    let _ = call.apply(&events[2]);
}

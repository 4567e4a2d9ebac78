//! What holds for any events at all.

use proptest::prelude::*;

use super::{
    given::{at, deliver, fold, fold_in, given},
    model,
};
use crate::call::{
    Call, CallSid, ClientId, Direction, Event, EventType, Fingerprint, KnownEvent, Outcome, Status,
};

/// The longest soup of events.
const MOST_EVENTS: usize = 12;

/// A handful of events that may belong together: mostly of one direction, of
/// few dials and few moments, so that they meet.
fn soup() -> impl Strategy<Value = Vec<Event>> {
    let direction = prop_oneof![4 => Just(Direction::Outbound), 1 => Just(Direction::Inbound)];
    // Some soups have no times and some no dials, as some projects have none.
    let kind = (direction, prop::bool::weighted(0.8), prop::bool::weighted(0.7));
    kind.prop_flat_map(|(direction, timed, dialled)| {
        prop::collection::vec(ingredient(direction, timed, dialled), 1..=MOST_EVENTS)
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

fn ingredient(
    direction: Direction,
    timed: bool,
    dialled: bool,
) -> impl Strategy<Value = Event> + use<> {
    let event_type = prop_oneof![
        12 => of_direction(direction),
        1 => of_direction(opposite(direction)),
        1 => prop::sample::select(vec!["OUTBOUND_CALL_TRANSFERRED", "PENDING", ""])
            .prop_map(EventType::of),
    ];
    let said_time = prop::option::weighted(0.9, 0_i64..6);
    let sids = prop::sample::select(vec!["A", "B", "C"]);
    let sid = prop::option::weighted(0.7, sids);
    let client = prop::option::weighted(0.3, prop::sample::select(vec!["x", "y"]));
    let provider = prop::option::weighted(0.3, prop::sample::select(vec!["CALLING", "DONE"]));
    (event_type, said_time, 0_i64..12, sid, client, provider, any::<bool>(), any::<u8>()).prop_map(
        move |(event_type, said_time, received, sid, client, provider, has_errors, byte)| Event {
            fingerprint: Fingerprint([byte; 32]),
            event_type,
            occurred_at: said_time.filter(|_| timed).map(at),
            received_at: at(received),
            call_sid: sid.filter(|_| dialled).map(|sid| CallSid::new(sid).unwrap()),
            client_id: client.map(|id| ClientId::new(id).unwrap()),
            provider_status: provider.map(str::to_owned),
            has_errors,
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

/// A soup and its deliveries: every event at least once, some again, in any
/// order.
fn soup_and_deliveries() -> impl Strategy<Value = (Vec<Event>, Vec<usize>)> {
    soup().prop_flat_map(|events| {
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

/// The call after each of its events, in fold order.
fn steps(events: &[Event]) -> Vec<(Call, Outcome)> {
    let sorted = sorted(events);
    let (mut call, outcome) = Call::begin(sorted[0]);
    let mut steps = vec![(call.clone(), outcome)];
    for event in &sorted[1..] {
        let outcome = call.apply(event);
        steps.push((call.clone(), outcome));
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_fold_is_what_the_model_says(events in soup()) {
        let (call, outcomes) = fold(&events);
        prop_assert_eq!(Some(model::sight(&call, &outcomes)), model::fold(&events));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_order_and_any_repetition_give_the_same_call((events, deliveries) in soup_and_deliveries()) {
        let deliveries: Vec<&Event> = deliveries.iter().map(|index| &events[*index]).collect();
        prop_assert_eq!(deliver(&deliveries), fold(&events));
    }

    #[test]
    fn the_order_in_which_events_are_given_is_of_no_account(events in soup().prop_shuffle()) {
        let reversed: Vec<&Event> = events.iter().rev().collect();
        prop_assert_eq!(fold_in(&reversed), fold(&events));
    }

    #[test]
    fn the_outcomes_are_in_the_order_to_which_the_events_are_sorted(events in soup()) {
        let mut given: Vec<&Event> = events.iter().collect();
        let (_, outcomes) = crate::call::fold(&mut given).unwrap();
        prop_assert_eq!(outcomes.len(), given.len());
        prop_assert_eq!(given, sorted(&events));
    }

    #[test]
    fn a_final_status_is_never_left(events in soup()) {
        let mut ended = None;
        for (call, outcome) in steps(&events) {
            if let Some(status) = ended {
                prop_assert_eq!(call.status, status);
                prop_assert!(!outcome.disposition.changes_status());
            }
            ended = call.status.is_final().then_some(call.status);
        }
    }

    #[test]
    fn a_call_that_is_not_final_stands_where_its_current_attempt_stands(events in soup()) {
        for (call, _) in steps(&events) {
            match call.attempts.last() {
                Some(current) if !call.status.is_final() => {
                    prop_assert_eq!(call.status, current.status);
                    prop_assert_eq!(call.ended_at, current.ended_at);
                }
                Some(_) => {}
                None => prop_assert!(call.status == Status::Unknown || call.status.is_final()),
            }
        }
    }

    #[test]
    fn attempts_are_numbered_from_1_and_no_two_have_one_call_sid(events in soup()) {
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
    fn an_attempt_never_goes_back_and_its_end_is_not_before_its_start(events in soup()) {
        let mut before: Vec<crate::call::Attempt> = Vec::new();
        for (call, _) in steps(&events) {
            prop_assert!(call.attempts.len() >= before.len());
            for (then, now) in before.iter().zip(&call.attempts) {
                prop_assert!(now.status.rank() >= then.status.rank());
                prop_assert!(now.statuses.is_superset(&then.statuses));
                prop_assert!(then.call_sid.is_none() || now.call_sid == then.call_sid);
                prop_assert_eq!(now.started_at, then.started_at);
            }
            for attempt in &call.attempts {
                prop_assert!(attempt.statuses.contains(&attempt.status));
                prop_assert_eq!(attempt.ended_at.is_some(), attempt.status.ends_attempt());
                prop_assert!(attempt.ended_at.is_none_or(|end| end >= attempt.started_at));
            }
            before = call.attempts;
        }
    }

    #[test]
    fn an_inbound_call_has_at_most_one_attempt(events in soup()) {
        let (call, _) = fold(&events);
        prop_assert!(call.direction != Some(Direction::Inbound) || call.attempts.len() <= 1);
    }

    #[test]
    fn events_and_anomalies_are_counted(events in soup()) {
        let (call, outcomes) = fold(&events);
        prop_assert_eq!(call.event_count as usize, events.len());
        let anomalies = outcomes.iter().filter(|outcome| outcome.disposition.is_anomaly()).count();
        prop_assert_eq!(call.anomaly_count as usize, anomalies);
    }

    #[test]
    fn the_stays_add_up_to_no_more_than_the_call(events in soup()) {
        let (call, _) = fold(&events);
        let length = call.last_event_at() - call.first_event_at;
        let stays: i64 = call.microseconds_in_status.values().sum();
        prop_assert!(call.microseconds_in_status.values().all(|stay| *stay >= 0));
        prop_assert!(stays <= length.num_microseconds().unwrap());
        prop_assert!(!call.microseconds_in_status.contains_key(&Status::Unknown));
    }

    #[test]
    fn every_outcome_has_a_sentence_for_a_reason(events in soup()) {
        for outcome in fold(&events).1 {
            let reason = outcome.reason;
            prop_assert!(reason.split(' ').count() >= 4, "{}", reason);
            prop_assert!(reason.starts_with(char::is_lowercase), "{}", reason);
            prop_assert!(!reason.ends_with('.'), "{}", reason);
            prop_assert!(reason.len() <= 160, "{}", reason);
        }
    }

    #[test]
    fn each_step_goes_on_from_where_the_last_one_ended(events in soup()) {
        let mut status = None;
        for ((call, outcome), event) in steps(&events).into_iter().zip(sorted(&events)) {
            if outcome.disposition.changes_status() {
                prop_assert_eq!(outcome.from_status, status);
                prop_assert_eq!(outcome.to_status, Some(event.status()));
                prop_assert_eq!(Some(call.status), outcome.to_status);
            } else {
                prop_assert_eq!((outcome.from_status, outcome.to_status), (None, None));
                prop_assert_eq!(call.status, status.unwrap_or(Status::Unknown));
            }
            status = Some(call.status);
        }
    }
}

/// Every sequence of three events that arrive one after the other, without
/// times: nothing that three events can do is left to chance.
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
                let events = given(&[first, second, third]);
                let (call, outcomes) = fold(&events);
                assert_eq!(
                    Some(model::sight(&call, &outcomes)),
                    model::fold(&events),
                    "{first}, {second}, {third}",
                );
            }
        }
    }
}

#[test]
fn no_events_are_no_call() {
    assert_eq!(crate::call::fold(&mut []), None);
}

#[test]
#[should_panic(expected = "does not sort last")]
fn an_event_that_does_not_sort_last_is_never_applied() {
    let events = given(&["PENDING @1", "CALLING @2"]);
    let (mut call, _) = Call::begin(&events[1]);
    let _ = call.apply(&events[0]);
}

#[test]
#[should_panic(expected = "does not sort last")]
fn an_event_is_never_applied_twice() {
    let events = given(&["PENDING @1"]);
    let (mut call, _) = Call::begin(&events[0]);
    let _ = call.apply(&events[0]);
}

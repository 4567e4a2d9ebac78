//! The tables of statuses, event types and codes.

use std::collections::BTreeSet;

use crate::call::{Direction, EventType, KnownEvent, ReasonCode, Status, TimeProblem};

/// Checks that the ids are distinct and that `from_id` inverts `id`.
fn check_ids<T: Copy + PartialEq + std::fmt::Debug>(
    all: &[T],
    first: i16,
    id: impl Fn(T) -> i16,
    from_id: impl Fn(i16) -> Option<T>,
) {
    let ids: Vec<i16> = all.iter().map(|it| id(*it)).collect();
    let expected: Vec<i16> = (first..).take(all.len()).collect();
    assert_eq!(ids, expected, "{all:?}");
    for value in all {
        assert_eq!(from_id(id(*value)), Some(*value));
    }
    let beyond = first + i16::try_from(all.len()).unwrap();
    for unused in [first - 1, beyond, i16::MIN, i16::MAX] {
        assert_eq!(from_id(unused), None);
    }
}

#[test]
fn all_ids_are_distinct_and_from_id_inverts_id() {
    check_ids(Status::ALL, 0, Status::id, Status::from_id);
    check_ids(KnownEvent::ALL, 1, KnownEvent::id, KnownEvent::from_id);
    check_ids(ReasonCode::ALL, 1, ReasonCode::id, ReasonCode::from_id);
    check_ids(TimeProblem::ALL, 1, TimeProblem::id, TimeProblem::from_id);
}

#[test]
fn the_tables_have_a_row_for_each_value_in_the_order_of_the_enum() {
    for status in Status::ALL {
        assert_eq!((status.spec().status, status.spec().name), (*status, status.as_str()));
    }
    for event in KnownEvent::ALL {
        assert_eq!((event.spec().event_type, event.spec().name), (*event, event.as_str()));
    }
}

/// The ids as the contract between program and store has them.
#[test]
fn the_ids_of_statuses_never_change() {
    let ids: Vec<String> = Status::ALL.iter().map(|it| format!("{it} {}", it.id())).collect();
    assert_eq!(
        ids.join(", "),
        "UNKNOWN 0, PENDING 1, REQUESTED 2, CONNECTING 3, CALLING 4, CLOSING 5, ERROR 6, \
         NO_RESPONSE 7, BUSY 8, UNREACHABLE 9, COMPLETED 10, CANCELED 11, EXPIRED 12, \
         MAX_ATTEMPTS_REACHED 13, CONCURRENCY_LIMIT_EXCEEDED 14",
    );
}

#[test]
fn ranks_0_to_6_belong_to_an_attempt_and_4_to_6_end_it() {
    for status in Status::ALL {
        let rank = status.rank().get();
        assert_eq!(status.belongs_to_attempt(), (0..=6).contains(&rank), "{status}");
        assert_eq!(status.ends_attempt(), (4..=6).contains(&rank), "{status}");
        assert_eq!(status.is_terminal(), rank >= 4, "{status}");
        assert_eq!(status.is_final(), rank >= 6, "{status}");
    }
}

#[test]
fn the_flags_of_reports_are_set_for_one_status_each() {
    let of = |flag: fn(&Status) -> bool| -> Vec<Status> {
        Status::ALL.iter().copied().filter(flag).collect()
    };
    assert_eq!(of(|it| it.spec().is_completed), [Status::Completed]);
    assert_eq!(of(|it| it.spec().is_in_conversation), [Status::Calling]);
    assert_eq!(of(|it| it.spec().is_turned_away), [Status::ConcurrencyLimitExceeded]);
}

#[test]
fn a_type_that_is_not_one_of_the_18_has_the_id_0() {
    assert_eq!(EventType::of("OUTBOUND_CALL_TRANSFERRED").id(), 0);
    assert_eq!(EventType::of("OUTBOUND_CALL_PENDING").id(), 1);
    assert_eq!(KnownEvent::from_id(0), None);
}

#[test]
fn there_are_12_outbound_and_6_inbound_events_named_by_direction_and_status() {
    let outbound =
        KnownEvent::ALL.iter().filter(|event| event.direction() == Direction::Outbound).count();
    assert_eq!((outbound, KnownEvent::ALL.len()), (12, 18));
    for event in KnownEvent::ALL {
        let prefix = format!("{}_CALL_", event.direction().as_str().to_uppercase());
        assert_eq!(event.as_str().strip_prefix(&prefix), Some(event.status().as_str()));
    }
}

#[test]
fn calls_begin_with_pending_or_connecting_and_dials_start_in_outbound_calls_only() {
    let of = |flag: fn(&KnownEvent) -> bool| -> Vec<KnownEvent> {
        KnownEvent::ALL.iter().copied().filter(flag).collect()
    };
    assert_eq!(
        of(|it| it.spec().begins_call),
        [KnownEvent::OutboundPending, KnownEvent::InboundConnecting],
    );
    assert_eq!(
        of(|it| it.spec().starts_dial),
        [KnownEvent::OutboundPending, KnownEvent::OutboundRequested, KnownEvent::OutboundCalling],
    );
    for event in KnownEvent::ALL.iter().filter(|it| it.direction() == Direction::Outbound) {
        assert_eq!(event.spec().starts_dial, event.status().spec().starts_dial, "{event}");
    }
}

#[test]
fn an_event_type_leads_to_statuses_of_its_direction_and_of_higher_rank() {
    for event in KnownEvent::ALL {
        let leads_to: BTreeSet<&Status> = event.spec().leads_to.iter().collect();
        assert_eq!(leads_to.len(), event.spec().leads_to.len(), "{event}");
        for status in leads_to {
            assert!(status.rank() > event.status().rank(), "{event} leads to {status}");
            let is_of_direction = |it: &&KnownEvent| it.direction() == event.direction();
            let mut events = KnownEvent::ALL.iter().filter(is_of_direction);
            assert!(events.any(|it| it.status() == *status), "{event} leads to {status}");
        }
    }
}

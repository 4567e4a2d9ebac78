//! Events written in one line each, and the orders in which they may arrive.

use chrono::{DateTime, TimeDelta, Utc};

use crate::call::{Call, CallSid, ClientId, Event, EventType, Fingerprint, KnownEvent, Outcome};

/// So many seconds after the start of the tests.
pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap() + TimeDelta::seconds(seconds)
}

/// Events, in the order in which they are received, a second apart from the
/// hundredth second on. Each is a line of words:
///
/// | word | means |
/// | --- | --- |
/// | `BUSY` | the outbound event that reports it, or else the inbound one, or else the unknown type `OUTBOUND_CALL_BUSY` |
/// | `inbound BUSY` | the inbound one |
/// | `A` | its `call_sid`: any single letter |
/// | `@5` | it happened at the fifth second |
/// | `received@5` | it was received at the fifth second |
/// | `errors` | it carries errors |
/// | `client=x`, `provider=X` | its `client_id`, its `provider_status` |
pub(super) fn given(lines: &[&str]) -> Vec<Event> {
    (0_u8..).zip(lines).map(|(index, line)| event(index, line)).collect()
}

fn event(index: u8, line: &str) -> Event {
    let mut event = Event {
        fingerprint: Fingerprint([index; 32]),
        event_type: EventType::Unrecognized(String::new()),
        occurred_at: None,
        received_at: at(100 + i64::from(index)),
        call_sid: None,
        client_id: None,
        provider_status: None,
        has_errors: false,
    };
    let mut inbound = false;
    let seconds = |text: &str| at(text.parse().unwrap());
    for word in line.split(' ') {
        match word.split_once(['@', '=']) {
            Some(("", time)) => event.occurred_at = Some(seconds(time)),
            Some(("received", time)) => event.received_at = seconds(time),
            Some(("client", id)) => event.client_id = Some(ClientId::new(id).unwrap()),
            Some(("provider", status)) => event.provider_status = Some(status.to_owned()),
            Some(_) => panic!("{word:?} is no word of a line"),
            None if word == "inbound" => inbound = true,
            None if word == "errors" => event.has_errors = true,
            None if word.len() == 1 => event.call_sid = Some(CallSid::new(word).unwrap()),
            None => event.event_type = event_type(word, inbound),
        }
    }
    event
}

fn event_type(word: &str, inbound: bool) -> EventType {
    let names = [format!("OUTBOUND_CALL_{word}"), format!("INBOUND_CALL_{word}")];
    let known: Option<KnownEvent> =
        names[usize::from(inbound)..].iter().find_map(|name| name.parse().ok());
    known.map_or_else(|| EventType::of(&names[0]), EventType::Known)
}

/// The call of these events and the outcome of each, in fold order.
pub(super) fn fold(events: &[Event]) -> (Call, Vec<Outcome>) {
    fold_in(&events.iter().collect::<Vec<_>>())
}

/// The same for events in another order.
pub(super) fn fold_in(order: &[&Event]) -> (Call, Vec<Outcome>) {
    crate::call::fold(&mut order.to_vec()).expect("at least one event")
}

/// What a store has after these deliveries: a known one does nothing, one that
/// can be applied is applied, and for any other the call is folded again. The
/// outcomes are in fold order.
pub(super) fn deliver(deliveries: &[&Event]) -> (Call, Vec<Outcome>) {
    let (first, rest) = deliveries.split_first().expect("at least one delivery");
    let mut known = vec![*first];
    let (mut call, outcome) = Call::begin(first);
    let mut outcomes = vec![outcome];
    for event in rest {
        if known.iter().any(|it| it.fingerprint == event.fingerprint) {
            continue;
        }
        known.push(event);
        if call.can_apply(event) {
            outcomes.push(call.apply(event));
        } else {
            (call, outcomes) = fold_in(&known);
        }
    }
    (call, outcomes)
}

/// Every order of so many things, as their indexes.
pub(super) fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![vec![]] };
    let mut orders = Vec::new();
    for order in self::orders(last) {
        for place in 0..=last {
            let mut order = order.clone();
            order.insert(place, last);
            orders.push(order);
        }
    }
    orders
}

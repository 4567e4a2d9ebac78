//! The generator held to its promises, and the scenario's expectation to the
//! state machine.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use ring::digest::{Context, SHA256};

use crate::call::{self, Call, Delivery, EventType, KnownEvent, ProjectId};
use crate::recho::{self, ProviderTimeZone, Receipt};

use super::payload::AuthType;
use super::picture::{AttemptPicture, Picture};
use super::plan::{Faults, Plan, PlannedCall, Settings, Timing};
use super::scenario::KINDS;

fn settings(seed: u64) -> Settings {
    Settings {
        seed,
        at: "2026-05-12T10:24:00Z".parse().unwrap(),
        timing: Timing::Past { past: TimeDelta::hours(1) },
        projects: 3,
        faults: Faults::default(),
        auth_type: AuthType::None,
        time_zone: ProviderTimeZone::UTC,
    }
}

fn plan(seed: u64) -> Plan {
    Plan::new(settings(seed))
}

fn faulty(seed: u64, faults: Faults) -> Plan {
    Plan::new(Settings { faults, ..settings(seed) })
}

/// Everything that goes wrong, often.
fn all_faults() -> Faults {
    Faults {
        duplicates: 0.2,
        reorder: 0.3,
        drop: 0.15,
        unknown: 0.1,
        switched_off: BTreeSet::new(),
    }
}

fn calls(plan: &Plan, count: u64) -> impl Iterator<Item = PlannedCall> {
    (0..count).map(|number| plan.call(number))
}

fn read_at(body: &[u8], received_at: DateTime<Utc>, time_zone: ProviderTimeZone) -> Delivery {
    let default_project = &ProjectId::unnamed();
    let receipt = Receipt { endpoint: "default", received_at, time_zone, default_project };
    recho::read(body, receipt).unwrap().delivery
}

fn read(body: &[u8], received_at: DateTime<Utc>) -> Delivery {
    read_at(body, received_at, ProviderTimeZone::UTC)
}

/// The state machine's picture of the events that `arrived` is true of.
fn folded(call: &PlannedCall, arrived: impl Fn(usize) -> bool) -> Option<Picture> {
    let events: Vec<call::Event> = (0..call.events.len())
        .filter(|index| arrived(*index))
        .map(|index| read(&call.body_of(index, false), call.events[index].at).event)
        .collect();
    let mut events: Vec<&call::Event> = events.iter().collect();
    call::fold(&mut events).map(|(call, _)| picture(&call))
}

fn picture(call: &Call) -> Picture {
    #[expect(clippy::cast_precision_loss, reason = "a stay of 285 years is still exact")]
    let seconds = |microseconds: i64| microseconds as f64 / 1e6;
    let attempts = call.attempts.iter().map(|attempt| AttemptPicture {
        call_sid: attempt.call_sid.as_ref().map(ToString::to_string),
        status: attempt.status,
        started_at: attempt.started_at,
        ended_at: attempt.ended_at,
    });
    let stays = call.microseconds_in_status.iter();
    Picture {
        direction: call.direction,
        status: call.status,
        attempts: attempts.collect(),
        call_sid: call.call_sid().map(ToString::to_string),
        client_id: call.client_id.as_ref().map(ToString::to_string),
        provider_status: call.provider_status.clone(),
        has_errors: call.has_errors,
        time_in_status: stays.map(|(status, stay)| (*status, seconds(*stay))).collect(),
        event_count: call.event_count,
        anomaly_count: call.anomaly_count,
        first_event_at: call.first_event_at,
        last_event_at: call.last_event_at(),
        ended_at: call.ended_at(),
    }
}

fn bytes(plan: &Plan, count: u64) -> String {
    let mut hash = Context::new(&SHA256);
    for call in calls(plan, count) {
        for delivery in &call.deliveries {
            hash.update(&call.body(delivery));
        }
    }
    let hash = hash.finish();
    call::Fingerprint(hash.as_ref().try_into().unwrap()).to_string()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let plan = || faulty(7, all_faults());
    assert_eq!(bytes(&plan(), 100), bytes(&plan(), 100));
    assert_ne!(bytes(&plan(), 100), bytes(&faulty(8, all_faults()), 100));
    // The traffic of a seed is kept for good: a change of it shows in review.
    insta::assert_snapshot!(bytes(&plan(), 100));
}

#[test]
fn the_same_seed_at_another_time_makes_the_same_traffic_of_other_calls() {
    let later = Plan::new(Settings { at: settings(7).at + TimeDelta::days(1), ..settings(7) });
    for (one, other) in calls(&plan(7), 200).zip(calls(&later, 200)) {
        assert_eq!(one.kind, other.kind);
        assert_eq!(one.key.project_id, other.key.project_id);
        assert_ne!(one.key.call_id, other.key.call_id);
        let told = |call: &PlannedCall| -> Vec<EventType> {
            call.deliveries.iter().map(|it| call.events[it.event].event_type.clone()).collect()
        };
        assert_eq!(told(&one), told(&other));
    }
}

#[test]
fn faults_change_what_arrives_and_not_what_happens() {
    for (whole, torn) in calls(&plan(7), 200).zip(calls(&faulty(7, all_faults()), 200)) {
        assert_eq!((whole.kind, &whole.key, &whole.sids), (torn.kind, &torn.key, &torn.sids));
        let happened = |call: &PlannedCall| -> Vec<_> {
            let known =
                call.events.iter().filter(|it| matches!(it.event_type, EventType::Known(_)));
            known.map(|it| (it.at, it.step)).collect()
        };
        assert_eq!(happened(&whole), happened(&torn));
    }
}

#[test]
fn every_kind_of_call_and_every_project_occurs() {
    let kinds: BTreeSet<_> = calls(&plan(3), 1000).map(|call| call.kind).collect();
    let projects: BTreeSet<_> = calls(&plan(3), 1000).map(|call| call.key.project_id).collect();
    assert_eq!((kinds.len(), projects.len()), (KINDS.len(), 3));
}

#[test]
fn calls_are_told_apart_by_their_project_where_they_share_an_id() {
    let keys: Vec<_> = calls(&plan(3), 1000).map(|call| call.key).collect();
    let distinct: BTreeSet<_> = keys.iter().collect();
    let ids: BTreeSet<_> = keys.iter().map(|key| &key.call_id).collect();
    assert_eq!((distinct.len(), ids.len()), (1000, 980));
}

/// Of so many events, how many times something is counted.
#[expect(clippy::cast_precision_loss, reason = "a share of some thousands")]
fn share(faults: Faults, count: impl Fn(&PlannedCall) -> (usize, usize)) -> f64 {
    let plan = faulty(5, faults);
    let (counted, of) = calls(&plan, 3000)
        .map(|call| count(&call))
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    counted as f64 / of as f64
}

fn assert_near(share: f64, wanted: f64) {
    assert!((share - wanted).abs() < 0.02, "{share} is not {wanted}");
}

#[test]
fn shares_are_honoured() {
    let duplicates = share(Faults { duplicates: 0.2, ..Faults::default() }, |call| {
        (call.deliveries.iter().filter(|it| it.is_copy).count(), call.events.len())
    });
    assert_near(duplicates, 0.2);
    let drop = share(Faults { drop: 0.1, ..Faults::default() }, |call| {
        (call.events.len() - call.deliveries.len(), call.events.len())
    });
    assert_near(drop, 0.1);
    let unknown = share(Faults { unknown: 0.1, ..Faults::default() }, |call| {
        let unknown = |it: &&_| matches!(it, EventType::Unrecognized(_));
        let unknown = call.events.iter().map(|it| &it.event_type).filter(unknown).count();
        (unknown, call.events.len() - unknown)
    });
    assert_near(unknown, 0.1);
    // The last event of a call cannot be held back behind another.
    let reorder = share(Faults { reorder: 0.1, ..Faults::default() }, |call| {
        let is_overtaken = |it: usize| {
            let later = |at: &usize| call.deliveries[*at].event > call.deliveries[it].event;
            (0..it).any(|at| later(&at))
        };
        let overtaken = (0..call.deliveries.len()).filter(|it| is_overtaken(*it)).count();
        (overtaken, call.events.len() - 1)
    });
    assert_near(reorder, 0.1);
}

#[test]
fn without_faults_each_event_is_delivered_once_and_in_order() {
    for call in calls(&plan(5), 500) {
        let delivered: Vec<usize> = call.deliveries.iter().map(|it| it.event).collect();
        assert_eq!(delivered, (0..call.events.len()).collect::<Vec<_>>());
    }
}

#[test]
fn a_type_that_is_switched_off_never_comes() {
    let off = BTreeSet::from([KnownEvent::OutboundCalling, KnownEvent::InboundCompleted]);
    let plan = faulty(5, Faults { switched_off: off.clone(), ..all_faults() });
    for call in calls(&plan, 500) {
        for delivery in &call.deliveries {
            let event_type = &call.events[delivery.event].event_type;
            assert!(!off.iter().any(|off| *event_type == EventType::Known(*off)));
        }
    }
}

#[test]
fn every_payload_is_read_and_is_about_as_large_as_the_providers() {
    let plan = faulty(9, all_faults());
    let mut sizes = Vec::new();
    for call in calls(&plan, 500) {
        for delivery in &call.deliveries {
            let event = &call.events[delivery.event];
            let body = call.body(delivery);
            sizes.push(body.len());
            let read = read(&body, event.at);
            assert_eq!(read.key, call.key);
            assert_eq!(read.event.event_type, event.event_type);
            assert_eq!(read.event.occurred_at, Some(event.at));
            assert_eq!(read.errors.len(), event.step.faults.len());
        }
    }
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    assert!((1000..1200).contains(&mean), "{mean} bytes");
}

#[test]
fn times_are_written_in_the_time_zone_of_the_provider() {
    for time_zone in ["America/New_York", "+09:00"].map(|name| name.parse().unwrap()) {
        let call = Plan::new(Settings { time_zone, ..settings(9) }).call(1);
        let at = call.events[0].at;
        let read = read_at(&call.body_of(0, false), at, time_zone);
        assert_eq!(read.event.occurred_at, Some(at), "{time_zone}");
        assert_ne!(
            read_at(&call.body_of(0, false), at, ProviderTimeZone::UTC).event.occurred_at,
            Some(at)
        );
    }
}

#[test]
fn copies_are_of_the_same_event_and_others_are_not() {
    let plan = faulty(9, all_faults());
    for call in calls(&plan, 200) {
        let fingerprint = |event, second| {
            read(&call.body_of(event, second), call.events[event].at).event.fingerprint
        };
        let events = 0..call.events.len();
        let distinct: BTreeSet<_> = events.clone().map(|event| fingerprint(event, false)).collect();
        assert_eq!(distinct.len(), call.events.len());
        assert!(events.into_iter().all(|it| fingerprint(it, false) == fingerprint(it, true)));
    }
}

#[test]
fn calls_of_the_past_lie_in_it() {
    let Settings { at, .. } = settings(4);
    let longest = TimeDelta::hours(8);
    for call in calls(&faulty(4, all_faults()), 2000) {
        let (first, last) = (&call.events[0], &call.events[call.events.len() - 1]);
        assert!(last.at <= at && last.at > at - TimeDelta::hours(1) - TimeDelta::seconds(2));
        assert!(first.at > at - longest);
    }
}

#[test]
fn in_a_window_nothing_is_told_before_it_happens_or_after_the_window_closes() {
    let length = TimeDelta::days(1);
    for scale in [1.0, 60.0, 1440.0] {
        let timing = Timing::Window { length, calls: 500, scale };
        let settings = Settings { timing, faults: all_faults(), ..settings(4) };
        let (at, plan) = (settings.at, Plan::new(settings));
        for call in calls(&plan, 500) {
            for delivery in &call.deliveries {
                let offset = plan.offset(delivery.due).unwrap();
                let told_at = at + TimeDelta::from_std(offset).unwrap();
                // To the second, as the provider writes it.
                assert!(call.events[delivery.event].at <= told_at + TimeDelta::seconds(1));
                assert!(offset.as_secs_f64() <= 86_400.0 / scale + 1.0);
            }
            assert!(call.deliveries.is_sorted_by_key(|it| it.due));
        }
    }
}

#[test]
fn what_should_become_of_a_whole_call_is_what_the_state_machine_says() {
    for call in calls(&plan(11), 2000) {
        assert_eq!(Picture::of_scenario(&call, |_| true), folded(&call, |_| true), "{call:#?}");
    }
}

#[test]
fn a_sample_is_about_as_large_as_its_share() {
    let plan = plan(1);
    let sampled = (0..2000).filter(|number| plan.is_sampled(*number, 0.25)).count();
    assert!((420..580).contains(&sampled), "{sampled}");
    assert!((0..100).all(|number| plan.is_sampled(number, 1.0)));
}

proptest! {
    #[test]
    fn what_should_become_of_any_part_of_a_call_is_what_the_state_machine_says(
        number: u32,
        unknown in 0.0..0.5f64,
        arrived: u32,
    ) {
        let call = faulty(13, Faults { unknown, ..Faults::default() }).call(number.into());
        let arrived = |event: usize| arrived & (1 << (event % 32)) != 0;
        prop_assert_eq!(Picture::of_scenario(&call, arrived), folded(&call, arrived), "{:#?}", call);
    }
}

//! `GET /calls`, page by page: each call comes once, whatever happens between the pages.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use sqlx::Executor as _;

use crate::{
    lists::{WAYS, deliver, ids, listed, many, varied},
    support::{Database, Lock, Service, delivery::delivery, provider::Provider},
};

/// Every page of a list, from the first on.
async fn walk(service: &Service, filter: &str, limit: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page =
            service.get(&format!("/calls?{filter}&limit={limit}&cursor={cursor}")).await.ok();
        let on_page = ids(&page);
        assert!(on_page.len() <= limit);
        seen.extend(on_page);
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return seen,
        }
    }
}

#[tokio::test]
async fn pages_of_any_length_are_the_list_also_among_equal_times() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    many(&service, 60).await;
    let whole = listed(&service, "").await;
    assert_eq!(whole.len(), 60);
    for way in WAYS {
        for limit in [1, 7, 10, 59, 60] {
            assert_eq!(walk(&service, way, limit).await, whole, "{way}, {limit} on a page");
        }
    }
    let of_project = walk(&service, "project_id=p-2", 7).await;
    assert_eq!(of_project, listed(&service, "project_id=p-2").await);
    assert_eq!(of_project.len(), 30);
}

#[tokio::test]
async fn a_cursor_goes_on_from_its_place_in_a_list_with_another_filter() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    varied(&service).await;
    let page = service.get("/calls?limit=3").await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = listed(&service, &format!("status=CALLING,BUSY&cursor={cursor}")).await;
    assert_eq!(rest, ["calling", "busy"]);
    let none = listed(&service, &format!("from=2026-05-12T12:01:15Z&cursor={cursor}")).await;
    assert_eq!(none, [""; 0]);
    let below = listed(&service, &format!("to=2026-05-12T12:00:25Z&cursor={cursor}")).await;
    assert_eq!(below, ["busy", "answered"]);
}

/// [`WAYS`], and that of a project.
fn all_ways() -> impl Iterator<Item = &'static str> {
    WAYS.into_iter().chain(["project_id=3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1"])
}

/// Between two pages, calls that were seen and ones that were not move to the end of the list.
#[tokio::test]
async fn a_call_that_changes_place_while_the_list_is_read_comes_once() {
    for way in all_ways() {
        let database = Database::create().await;
        let service = Service::start(&database).await;
        for number in 0..20 {
            deliver(&service, "OUTBOUND_CALL_CALLING", &format!("c-{number:02}"), 600 + number)
                .await;
        }
        let expected: Vec<String> = (0..20).rev().map(|number| format!("c-{number:02}")).collect();
        let mut seen = Vec::new();
        let mut cursor = String::new();
        for round in 0.. {
            let path = format!("/calls?{way}&limit=3&cursor={cursor}");
            let page = service.get(&path).await.ok();
            seen.extend(ids(&page));
            let Some(next) = page["next_cursor"].as_str() else { break };
            next.clone_into(&mut cursor);
            // One that was just seen, one that comes next, one that is far off; some of them again.
            for place in [seen.len() - 1, seen.len(), 19, 10] {
                let call_id = &expected[place.min(19)];
                let second = 500 - 20 * round - u32::try_from(place).unwrap();
                deliver(&service, "OUTBOUND_CALL_REQUESTED", call_id, second).await;
            }
            // And new ones, before and behind.
            for (call_id, second) in [("new-late", 900 + round), ("new-early", 300 - 2 * round)] {
                let call_id = format!("{call_id}-{round}");
                deliver(&service, "OUTBOUND_CALL_CALLING", &call_id, second).await;
            }
        }
        seen.retain(|call_id| !call_id.starts_with("new"));
        assert_eq!(seen, expected, "{way}");
        // A list that is begun now has them where they stand now.
        let now = walk(&service, way, 3).await;
        assert_ne!(now.first(), expected.first());
        assert_eq!(now, listed(&service, way).await);
    }
}

/// What moves it was received before the first page was read, and is committed after: a transaction
/// that had not begun then, or that was under way.
#[tokio::test]
async fn a_call_whose_move_is_being_committed_when_the_list_is_begun_comes_once() {
    for is_under_way in [false, true] {
        let database = Database::create().await;
        let service = Service::start(&database).await;
        for number in 0..6 {
            deliver(&service, "OUTBOUND_CALL_CALLING", &format!("c-{number}"), 600 + number).await;
        }
        let mut lock = if is_under_way {
            Lock::take_after_writing(&database).await
        } else {
            Lock::take(&database).await
        };
        let begun = async {
            lock.somebody_waits().await;
            // One that begins later is over sooner.
            database.connect().await.execute("select pg_current_xact_id()").await.unwrap();
            let mut cursors = Vec::new();
            for way in all_ways() {
                let page = service.get(&format!("/calls?{way}&limit=3")).await.ok();
                assert_eq!(ids(&page), ["c-5", "c-4", "c-3"], "{way}");
                cursors.push((way, page["next_cursor"].as_str().unwrap().to_owned()));
            }
            lock.release().await;
            cursors
        };
        let moved = deliver(&service, "OUTBOUND_CALL_REQUESTED", "c-5", 100);
        let (cursors, ()) = tokio::join!(begun, moved);
        for (way, cursor) in cursors {
            let rest = service.get(&format!("/calls?{way}&cursor={cursor}")).await.ok();
            assert_eq!(ids(&rest), ["c-2", "c-1", "c-0"], "{way}, under way: {is_under_way}");
            let now = listed(&service, way).await;
            assert_eq!(now, ["c-4", "c-3", "c-2", "c-1", "c-0", "c-5"], "{way}");
        }
    }
}

#[tokio::test]
async fn the_rest_of_a_list_that_was_begun_long_ago_is_read_as_of_now() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for number in 0..4 {
        deliver(&service, "OUTBOUND_CALL_CALLING", &format!("c-{number}"), 600 + number).await;
    }
    let page = service.get("/calls?limit=2").await.ok();
    let cursor = URL_SAFE_NO_PAD.decode(page["next_cursor"].as_str().unwrap()).unwrap();
    deliver(&service, "OUTBOUND_CALL_REQUESTED", "c-3", 100).await;
    for (age, rest) in [
        (TimeDelta::hours(23), &["c-1", "c-0"][..]),
        (TimeDelta::hours(25), &["c-1", "c-0", "c-3"]),
    ] {
        let mut cursor = cursor.clone();
        let begun_at: &mut [u8; 8] = cursor.first_chunk_mut().unwrap();
        *begun_at = (i64::from_be_bytes(*begun_at) - age.num_microseconds().unwrap()).to_be_bytes();
        let cursor = URL_SAFE_NO_PAD.encode(cursor);
        assert_eq!(ids(&service.get(&format!("/calls?cursor={cursor}")).await.ok()), rest);
    }
}

/// The same without taking turns.
#[tokio::test]
async fn each_call_comes_once_while_deliveries_come_and_calls_change_place() {
    for (way, limit) in [("", 1), ("client_id=client-1", 3), ("call_sid=CA1", 2), ("", 7)] {
        let database = Database::create().await;
        let service = Service::start(&database).await;
        let started = (0..120).map(|number| {
            let event = delivery(
                "OUTBOUND_CALL_CALLING",
                &format!("c-{number}"),
                900 + number / 4,
                Some("CA1"),
            );
            event.to_string()
        });
        Provider::start(started.collect(), &[&service]).finish().await;

        let path = |cursor: &str| format!("/calls?{way}&limit={limit}&cursor={cursor}");
        let first = service.get(&path("")).await.ok();
        let mut seen = ids(&first);
        let mut next = first["next_cursor"].as_str().map(str::to_owned);
        let meanwhile = (0..120u32).flat_map(|number| {
            let known = format!("c-{}", number * 77 % 120);
            [
                delivery("OUTBOUND_CALL_REQUESTED", &known, 800 - number, Some("CA1")),
                delivery("OUTBOUND_CALL_CLOSING", &known, 1000, Some("CA1")),
                delivery("OUTBOUND_CALL_PENDING", &known, 600 - number, Some("CA1")),
                delivery(
                    "OUTBOUND_CALL_CALLING",
                    &format!("new-{number}"),
                    850 + number,
                    Some("CA1"),
                ),
            ]
        });
        let provider =
            Provider::start(meanwhile.map(|event| event.to_string()).collect(), &[&service]);
        while let Some(cursor) = next {
            let page = service.get(&path(&cursor)).await.ok();
            seen.extend(ids(&page));
            next = page["next_cursor"].as_str().map(str::to_owned);
        }
        provider.finish().await;
        seen.retain(|call_id| call_id.starts_with("c-"));
        seen.sort_unstable();
        let mut expected: Vec<String> = (0..120).map(|number| format!("c-{number}")).collect();
        expected.sort_unstable();
        assert_eq!(seen, expected, "{way}, {limit} on a page");
    }
}

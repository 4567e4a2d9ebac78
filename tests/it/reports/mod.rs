//! Reports and views against an independent computation over the same simulated calls.

mod bounds;
mod expected;
mod held;
mod interface;
mod readme;
mod simulated;

use std::{collections::BTreeMap, time::Duration};

use callstate::{
    call::{Direction, Status},
    store::reports,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use self::{
    expected::Ask,
    simulated::{SimulatedCall, end, month},
};
use crate::support::{
    Database, Service,
    delivery::{delivery, fixture},
    provider::Provider,
};

/// A service that has received a month of simulated calls.
async fn simulated(calls: u64) -> (Database, Service, Vec<SimulatedCall>) {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let (deliveries, simulated) = month(calls);
    Provider::start(deliveries, &[&service]).finish().await;
    (database, service, simulated)
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The whole span of the simulated calls, with time before and after.
fn whole(bucket: &'static str) -> Ask {
    Ask {
        from: end() - TimeDelta::days(32),
        to: end() + TimeDelta::days(1),
        bucket,
        by_project: false,
        by_direction: false,
        project_id: None,
        direction: None,
    }
}

/// Asserts that two values are the same, but for the last digits of fractions.
fn assert_same(found: &Value, expected: &Value, what: &str) {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{what}: {a} is not {b}");
        }
        (Value::Object(a), Value::Object(b)) => {
            let names = |object: &serde_json::Map<String, Value>| -> Vec<String> {
                let mut names: Vec<String> = object.keys().cloned().collect();
                names.sort();
                names
            };
            assert_eq!(names(a), names(b), "{what}");
            for (name, value) in a {
                assert_same(value, &b[name], &format!("{what}, {name} of {found}"));
            }
        }
        _ => assert_eq!(found, expected, "{what}"),
    }
}

fn assert_same_rows(found: &Value, expected: &[Value], what: &str) {
    let found = found["rows"].as_array().unwrap();
    for (found, expected) in found.iter().zip(expected) {
        assert_same(found, expected, what);
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

#[tokio::test]
async fn every_report_says_what_was_told() {
    let (_database, service, calls) = simulated(300).await;
    let project_id = calls[0].key.project_id.to_string();
    let around_the_change =
        Ask { from: at("2026-03-28T22:30:00Z"), to: at("2026-03-29T04:10:00Z"), ..whole("hour") };
    for ask in [
        whole("none"),
        whole("week"),
        Ask { by_project: true, by_direction: true, ..whole("day") },
        Ask { project_id: Some(project_id), by_direction: true, ..whole("week") },
        Ask { direction: Some(Direction::Inbound), by_project: true, ..whole("none") },
        Ask { by_direction: true, ..around_the_change.clone() },
        around_the_change,
        Ask { to: at("2026-02-01T00:00:00Z"), from: at("2026-01-31T00:00:00Z"), ..whole("hour") },
    ] {
        for (report, expected) in [
            ("outcomes", ask.outcomes(&calls)),
            ("durations", ask.durations(&calls)),
            ("concurrency", ask.concurrency(&calls)),
            ("errors", ask.errors(&calls)),
            ("coverage", ask.coverage(&calls)),
        ] {
            let path = format!("/reports/{report}?{}", ask.query());
            assert_same_rows(&service.get(&path).await.ok(), &expected, &path);
        }
    }
}

/// What the program writes of a call that has ended is what the view computes of live calls.
#[tokio::test]
async fn the_columns_that_reports_count_agree_with_the_attempts_of_the_call() {
    let (database, service, _) = simulated(300).await;
    for second in 0..40 {
        let body = delivery("OUTBOUND_CALL_BUSY", "often", second, Some(&format!("dial-{second}")));
        service.deliver(body.to_string()).await.ok();
    }
    let counts = sqlx::query!(
        r#"
        with
        expected as (
            select calls.*,
                (
                    select coalesce(bit_or(1::bigint << status_spec.id), 0)
                    from jsonb_path_query(attempts, '$[*].statuses[*]') as seen (status)
                    join status_spec on status_spec.status = seen.status #>> '{}'
                ) as expected_seen,
                (
                    select jsonb_object_agg(status, attempts)
                    from (
                        select attempt ->> 'status' as status, count(*) as attempts
                        from jsonb_array_elements(attempts) as attempt
                        group by 1
                    ) as by_status
                ) as expected_counts,
                (
                    select jsonb_object_agg(status_spec.status, attempts)
                    from unnest(attempt_counts) with ordinality as counted (attempts, id)
                    join status_spec using (id)
                    where attempts > 0
                ) as written_counts
            from calls
            join status_spec as present on present.id = calls.status and present.terminal
        )
        select count(*) as "ended!",
            count(*) filter (
                where statuses_seen is distinct from expected_seen
                    or written_counts is distinct from expected_counts
                    or durations is distinct from microseconds_in_status
                    or total_microseconds
                        <> extract(epoch from status_since - first_event_at) * 1000000
            ) as "wrong!"
        from expected
        "#
    )
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap();
    assert_eq!(counts.wrong, 0);
    assert!(counts.ended > 200, "{}", counts.ended);
    let written = sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from calls
        join status_spec on status_spec.id = calls.status
        where not terminal
            and num_nonnulls(statuses_seen, total_microseconds, attempt_counts, durations) > 0
        "#
    );
    let written = written.fetch_one(&mut database.connect().await).await.unwrap();
    assert_eq!(written, 0, "while a call is live its indexed columns do not change");
}

#[tokio::test]
async fn coverage_is_the_same_with_one_connection_as_with_two() {
    let (database, service, calls) = simulated(100).await;
    let lone = Service::start_with(&database, |command| {
        command.env("CALLSTATE_DATABASE_CONNECTIONS", "1");
    })
    .await;
    for bucket in ["none", "day"] {
        let ask = whole(bucket);
        let path = format!("/reports/coverage?{}", ask.query());
        let expected = ask.coverage(&calls);
        for service in [&service, &lone] {
            assert_same_rows(&service.get(&path).await.ok(), &expected, &path);
        }
    }
}

#[tokio::test]
async fn two_connections_that_compute_a_report_see_the_same() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let pool = database.pool().await;
    let timeout = Duration::from_secs(30);
    let mut first = reports::begin(&pool, timeout).await.unwrap();
    service.deliver(fixture("outbound_busy")).await.ok();
    let second = reports::beside(&pool, &mut first, timeout).await.unwrap();
    let mut second = second.expect("there is a connection for it");
    let mut after = reports::begin(&pool, timeout).await.unwrap();
    let mut seen = Vec::new();
    for look in [&mut first, &mut second, &mut after] {
        let events = sqlx::query_scalar!(r#"select count(*) as "count!" from reporting.events"#);
        seen.push(events.fetch_one(&mut **look).await.unwrap());
    }
    assert_eq!(seen, [0, 0, 1]);
}

#[tokio::test]
async fn the_views_of_outcomes_say_what_the_report_says() {
    let (database, service, _) = simulated(300).await;
    let mut sql = database.connect().await;
    let hourly = sqlx::query_scalar!(
        r#"
        select to_jsonb(outcomes) as "row!"
        from reporting.outcomes_hourly_wide as outcomes
        order by bucket_start, project_id, direction nulls first
        "#
    );
    let daily = sqlx::query_scalar!(
        r#"
        select to_jsonb(outcomes) as "row!"
        from reporting.outcomes_daily_wide as outcomes
        order by bucket_start, project_id, direction nulls first
        "#
    );
    for (bucket, rows) in [
        ("hour", hourly.fetch_all(&mut sql).await.unwrap()),
        ("day", daily.fetch_all(&mut sql).await.unwrap()),
    ] {
        let path = format!(
            "/reports/outcomes?from=2026-03-09T00:00:00Z&to=2026-04-11T00:00:00Z&bucket={bucket}\
             &group_by=project_id,direction"
        );
        let report = service.get(&path).await.ok();
        let simulated = report["rows"].as_array().unwrap().iter().filter(|row| row["calls"] != 0);
        let simulated: Vec<&Value> = simulated.collect();
        assert_eq!(rows.len(), simulated.len());
        for (row, simulated) in rows.iter().zip(simulated) {
            let row = row.as_object().unwrap();
            let start = |value: &Value| -> DateTime<Utc> { at(value.as_str().unwrap()) };
            assert_eq!(start(&row["bucket_start"]), start(&simulated["bucket_start"]));
            for (name, value) in row.iter().filter(|(name, _)| *name != "bucket_start") {
                let status = name.to_uppercase();
                // The report leaves out those that no call has.
                let simulated = if Status::ALL.iter().any(|it| it.as_str() == status) {
                    simulated["by_status"].get(&status).cloned().unwrap_or_else(|| json!(0))
                } else {
                    simulated[name].clone()
                };
                assert_same(value, &simulated, &format!("{name}, {path}"));
            }
        }
    }
}

#[tokio::test]
async fn the_views_add_up_to_what_the_reports_say() {
    let (database, service, _) = simulated(300).await;
    let mut sql = database.connect().await;
    let ask = whole("none");
    let durations = service.get(&format!("/reports/durations?{}", ask.query())).await.ok();
    for row in durations["rows"].as_array().unwrap() {
        let stays = sqlx::query!(
            r#"
            select count(*) as "count!",
                percentile_cont(0.9) within group (order by seconds) as p90
            from reporting.durations
            where status = $1
            "#,
            row["status"].as_str(),
        )
        .fetch_one(&mut sql)
        .await
        .unwrap();
        assert_eq!(row["count"], stays.count);
        assert_same(&json!(stays.p90), &row["p90_seconds"], "p90");
    }

    let by_both = Ask { by_project: true, by_direction: true, ..ask.clone() };
    let concurrency = service.get(&format!("/reports/concurrency?{}", by_both.query())).await.ok();
    for row in concurrency["rows"].as_array().unwrap() {
        let peak = sqlx::query_scalar!(
            r#"
            select max(calling)
            from reporting.concurrency
            where project_id = $1 and direction::text = $2
            "#,
            row["project_id"].as_str(),
            row["direction"].as_str(),
        )
        .fetch_one(&mut sql)
        .await
        .unwrap();
        assert_eq!(row["peak"], peak.unwrap_or_default());
    }

    let errors = sqlx::query_scalar!(
        r#"
        select jsonb_build_object(
            'project_id', project_id, 'direction', direction, 'code', code, 'phase', phase,
            'errors', count(*), 'calls', count(distinct call_id)
        ) as "row!"
        from reporting.errors
        group by project_id, direction, code, phase
        "#
    )
    .fetch_all(&mut sql)
    .await
    .unwrap();
    let report = service.get(&format!("/reports/errors?{}", by_both.query())).await.ok();
    let simulated = report["rows"].as_array().unwrap().iter().filter(|row| row["errors"] != 0);
    let in_order = |mut rows: Vec<Value>| {
        rows.sort_by_key(Value::to_string);
        rows
    };
    assert!(errors.len() > 10);
    assert_eq!(in_order(errors), in_order(simulated.cloned().collect()));

    let coverage = service.get(&format!("/reports/coverage?{}", ask.query())).await.ok();
    let rows = sqlx::query_scalar!(
        r#"
        select to_jsonb(coverage) - array['first_seen_at', 'last_seen_at'] as "row!"
        from reporting.coverage
        order by project_id, event_type
        "#
    )
    .fetch_all(&mut sql)
    .await
    .unwrap();
    let mut simulated = coverage["rows"].as_array().unwrap().clone();
    for row in &mut simulated {
        let row = row.as_object_mut().unwrap();
        row.remove("first_seen_at");
        row.remove("last_seen_at");
    }
    let place = |row: &Value| (row["project_id"].to_string(), row["event_type"].to_string());
    simulated.sort_by_key(place);
    assert_eq!(rows, simulated);
}

#[tokio::test]
async fn the_transitions_of_a_call_add_up_to_its_time_in_status() {
    let (database, service, calls) = simulated(300).await;
    let mut sql = database.connect().await;
    for simulated in &calls {
        let (project_id, call_id) =
            (simulated.key.project_id.as_str(), simulated.key.call_id.as_str());
        let stays = sqlx::query!(
            r#"
            select from_status::text as "status!", sum(seconds_in_from_status) as "seconds!"
            from reporting.transitions
            where project_id = $1 and call_id = $2 and seconds_in_from_status is not null
            group by from_status
            "#,
            project_id,
            call_id,
        )
        .fetch_all(&mut sql)
        .await
        .unwrap();
        let stays: BTreeMap<String, f64> =
            stays.into_iter().map(|stay| (stay.status, stay.seconds)).collect();
        let path = format!("/calls/{call_id}?project_id={project_id}").replace(' ', "%20");
        let call = service.get(&path).await.ok();
        assert_same(&json!(stays), &call["time_in_status"], &path);
        let of_view = sqlx::query_scalar!(
            r#"
            select time_in_status as "time_in_status!"
            from reporting.calls
            where project_id = $1 and call_id = $2
            "#,
            project_id,
            call_id,
        )
        .fetch_one(&mut sql)
        .await
        .unwrap();
        assert_same(&of_view, &call["time_in_status"], &path);
    }
}

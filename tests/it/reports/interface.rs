//! What holds for every report: who sees what, in what form, and what is refused; and the role that reads the views.

use axum::{body::Body, http::Request};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use super::simulated;
use crate::support::{
    Answer, Database, Instance, Service, callstate,
    delivery::{delivery, fixture},
};

const REPORTS: [&str; 5] = ["outcomes", "durations", "concurrency", "errors", "coverage"];

/// The whole month.
const MONTH: &str = "from=2026-03-01T00:00:00Z&to=2026-04-30T00:00:00Z";

async fn get_with(service: &Service, path: &str, header: (&str, &str)) -> Answer {
    service.send(service.request("GET", path).header(header.0, header.1)).await
}

#[tokio::test]
async fn a_key_limited_to_a_project_sees_the_figures_of_that_project() {
    let (database, service, calls) = simulated(60).await;
    let (own, other) =
        (&calls[0].key.project_id, calls.iter().map(|simulated| &simulated.key.project_id));
    let other = other.clone().find(|it| *it != own).expect("there are two projects");
    let created = callstate(&[
        "keys",
        "create",
        "--name",
        "one",
        "--project",
        own.as_str(),
        "--format",
        "json",
        "--database-url",
        &database.url(),
    ]);
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    let bearer = format!("Bearer {}", created["key"].as_str().unwrap());
    for report in REPORTS {
        for query in ["", "&group_by=project_id", "&bucket=week&format=csv"] {
            let path = format!("/reports/{report}?{MONTH}{query}");
            let seen = get_with(&service, &path, ("Authorization", &bearer)).await;
            let asked = service.get(&format!("{path}&project_id={own}")).await;
            assert_eq!((seen.status, &seen.text), (200, &asked.text), "{path}");
            assert_ne!(seen.text, service.get(&path).await.text, "{path}");
            let path = format!("{path}&project_id={other}");
            let seen = get_with(&service, &path, ("Authorization", &bearer)).await;
            let nothing = service.get(&path.replace(other.as_str(), "nobody")).await;
            assert_eq!(seen.text, nothing.text, "{path}");
        }
    }
}

/// The JSON of a row as a record of CSV has it, but for the maps of which it has each member.
fn flattened(row: &Value, column: &str) -> String {
    let value = match column.split_once('.') {
        Some((map, member)) => row[map].get(member).unwrap_or(&Value::Null).clone(),
        None => row[column].clone(),
    };
    match value {
        Value::Null if column.contains('.') => "0".to_owned(),
        Value::Null => String::new(),
        Value::String(text) if text.starts_with('=') => format!("'{text}"),
        Value::String(text) if column.ends_with("_at") || column == "bucket_start" => {
            let at: DateTime<Utc> = text.parse().expect("it is a time");
            at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
        }
        Value::String(text) => text,
        value => value.to_string(),
    }
}

#[tokio::test]
async fn csv_says_the_same_as_json() {
    let (_database, service, _) = simulated(60).await;
    for report in REPORTS {
        let path = format!("/reports/{report}?{MONTH}&bucket=week&group_by=direction,project_id");
        let rows = service.get(&path).await.ok()["rows"].as_array().unwrap().clone();
        let answer = get_with(&service, &path, ("Accept", "text/csv")).await;
        assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8; header=present");
        assert_eq!(answer.header("vary"), "Accept");
        assert_eq!(answer.text, service.get(&format!("{path}&format=csv")).await.text);
        assert_eq!(answer.text.matches('\n').count(), answer.text.matches("\r\n").count());
        let mut reader = csv::Reader::from_reader(answer.text.as_bytes());
        let columns = reader.headers().unwrap().clone();
        let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), rows.len());
        for (record, row) in records.iter().zip(&rows) {
            for (column, value) in columns.iter().zip(record) {
                let expected = flattened(row, column);
                // A fraction that was read may differ in its last digit from the one written.
                let numbers = (value.parse::<f64>(), expected.parse::<f64>());
                let same = value == expected
                    || matches!(numbers, (Ok(a), Ok(b)) if (a - b).abs() <= 1e-12 * b.abs());
                assert!(same, "{column} of {report} is {value}, not {expected}");
            }
        }
    }
    let errors = service.get(&format!("/reports/errors?{MONTH}&format=csv")).await.text;
    assert!(errors.contains("\r\n'=SUM(A1),CALLING,1,1\r\n"), "{errors}");
    assert!(errors.contains("\r\n\"E,\"\"2\"\"\",CALLING,1,1\r\n"), "{errors}");
}

#[tokio::test]
async fn a_month_begins_with_its_first_day_in_the_time_zone() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for (second, call_id) in [(0, "call-1"), (1, "call-2")] {
        let body = delivery("OUTBOUND_CALL_BUSY", call_id, second, None);
        service.deliver(body.to_string()).await.ok();
    }
    let span = "from=2026-02-15T00:00:00Z&to=2026-06-02T00:00:00Z&time_zone=Europe/Berlin";
    let report = service.get(&format!("/reports/outcomes?{span}&bucket=month")).await.ok();
    assert_eq!(report["bucket"], "month");
    let rows = report["rows"].as_array().unwrap();
    let months: Vec<_> = rows.iter().map(|row| (&row["bucket_start"], &row["calls"])).collect();
    let [february, march, april, may, june] = [
        "2026-01-31T23:00:00Z",
        "2026-02-28T23:00:00Z",
        "2026-03-31T22:00:00Z",
        "2026-04-30T22:00:00Z",
        "2026-05-31T22:00:00Z",
    ]
    .map(Value::from);
    let [none, two] = [json!(0), json!(2)];
    assert_eq!(
        months,
        [(&february, &none), (&march, &none), (&april, &none), (&may, &two), (&june, &none)]
    );
    for report in REPORTS {
        for format in ["json", "csv"] {
            let path = format!("/reports/{report}?{span}&bucket=month&format={format}");
            assert_eq!(service.get(&path).await.status, 200, "{path}");
        }
    }
    // As far as a century has months, and no further than there may be buckets.
    let long = "/reports/outcomes?from=1000-01-01T00:00:00Z&to=1833-04-01T00:00:00Z&bucket=month";
    service.get(long).await.ok();
    let detail = service.get(&long.replace("1833-04", "1833-06")).await.problem(400);
    assert_eq!(detail, "bucket: there would be more than 10000");
}

#[tokio::test]
async fn groups_are_separated_by_commas_or_given_each_by_itself() {
    let (_database, service, _) = simulated(10).await;
    let path = format!("/reports/outcomes?{MONTH}&group_by=");
    let both = service.get(&format!("{path}project_id,direction")).await.ok();
    assert!(both["rows"][0]["project_id"].is_string());
    assert_eq!(service.get(&format!("{path}project_id&group_by=direction")).await.ok(), both);
}

#[tokio::test]
async fn what_cannot_be_reported_is_refused() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for report in REPORTS {
        let path = format!("/reports/{report}");
        let detail = service
            .get(&format!("{path}?from=x&to=y&bucket=z&time_zone=Mars&group_by=a&format=b&c=d"))
            .await
            .problem(400);
        for name in ["from", "to", "bucket", "time_zone", "group_by", "format", "c"] {
            assert!(detail.contains(&format!("{name}: ")), "{name} is not named in {detail}");
        }
        // A year has 8,760 hours.
        let years =
            |years: &str| format!("{path}?from=2024-01-01T00:00:00Z&to={years}&bucket=hour");
        service.get(&years("2025-02-20T16:00:00Z")).await.ok();
        let detail = service.get(&years("2025-02-20T17:00:00Z")).await.problem(400);
        assert_eq!(detail, "bucket: there would be more than 10000");
        // What Postgres takes for the abbreviation of an offset has no changes of the clock.
        for zone in ["CET", "UTC+3", "Europe", "europe/berlin", "posix/UTC"] {
            let zone = format!("{path}?time_zone={}", zone.replace('+', "%2B"));
            assert!(service.get(&zone).await.problem(400).contains("time_zone: "), "{zone}");
        }
        service.get(&format!("{path}?time_zone=Asia/Kolkata&bucket=hour")).await.ok();
    }
}

#[tokio::test]
async fn a_late_event_changes_the_figures_of_the_day_on_which_it_happened() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let outcomes = "/reports/outcomes?from=2026-05-12T00:00:00Z&to=2026-05-13T00:00:00Z";
    let row = async || service.get(outcomes).await.ok()["rows"][0].clone();
    assert_eq!(row().await["calls"], 0);
    let tell = async |event_type, second, sid| {
        service.deliver(delivery(event_type, "late", second, Some(sid)).to_string()).await.ok();
    };
    tell("OUTBOUND_CALL_BUSY", 100, "A").await;
    assert_eq!(row().await["by_status"], json!({"BUSY": 1}));
    tell("OUTBOUND_CALL_CALLING", 90, "A").await;
    let concurrency = outcomes.replace("outcomes", "concurrency");
    let concurrency = async || service.get(&concurrency).await.ok()["rows"][0].clone();
    assert_eq!(concurrency().await["peak"], 1);
    tell("OUTBOUND_CALL_COMPLETED", 200, "B").await;
    let now = row().await;
    assert_eq!(now["by_status"], json!({"COMPLETED": 1}));
    assert_eq!(now["attempts_by_status"], json!({"BUSY": 1, "COMPLETED": 1}));
    // It never was in CALLING so long: the dial was over before.
    tell("OUTBOUND_CALL_CLOSING", 95, "A").await;
    let seconds = concurrency().await["mean"].as_f64().unwrap() * 86_400.0;
    assert!((seconds - 5.0).abs() < 1e-6, "{seconds}");
}

#[tokio::test]
async fn a_call_that_goes_on_counts_until_now_and_not_until_the_end_of_the_span() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let calling = delivery("OUTBOUND_CALL_CALLING", "call-1", 0, None);
    service.deliver(calling.to_string()).await.ok();
    let pool = database.pool().await;
    let instance = Instance::start(&pool, false);
    let path = "/reports/concurrency?from=2026-05-12T00:00:00Z&to=2026-05-14T00:00:00Z&bucket=day";
    for (now, means) in [
        ("2026-05-12T11:00:00Z", [0.0, 0.0]),
        ("2026-05-12T16:00:00Z", [0.25, 0.0]),
        ("2026-05-13T10:00:00Z", [0.5, 1.0]),
        ("2026-05-20T00:00:00Z", [0.5, 1.0]),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = instance.ask_at(now.parse().unwrap(), request).await;
        let report = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        let found: Vec<_> =
            report["rows"].as_array().unwrap().iter().map(|it| &it["mean"]).collect();
        assert_eq!(found, means, "at {now}");
    }
    instance.stop().await;
}

#[tokio::test]
async fn the_role_of_those_who_report_reads_the_views_and_nothing_else() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(fixture("odd_nul_in_stacktrace")).await.ok();
    let mut connection = database.connect().await;
    let relations = sqlx::query!(
        r#"
        select relnamespace::regnamespace::text as "schema!", relname::text as "name!"
        from pg_class
        where relnamespace in ('public'::regnamespace, 'reporting'::regnamespace)
            and relkind in ('r', 'v', 'S')
        "#
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(relations.len() > 15);
    connection.execute("set role callstate_reporting").await.unwrap();
    for relation in relations {
        let name = format!("{}.{}", relation.schema, relation.name);
        let mut tx = connection.begin().await.unwrap();
        let read = tx.fetch_all(sqlx::AssertSqlSafe(format!("select * from {name}"))).await;
        let may = relation.schema == "reporting" && relation.name != "payloads";
        assert_eq!(read.is_ok(), may, "{name}");
        tx.rollback().await.unwrap();
    }
    for written in ["delete from reporting.events", "create table reporting.mine ()"] {
        assert!(connection.execute(written).await.is_err(), "{written}");
    }
}

#[tokio::test]
async fn a_payload_is_read_whatever_is_in_it() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    for name in ["odd_nul_in_stacktrace", "odd_lone_surrogate", "outbound_busy"] {
        service.deliver(fixture(name)).await.ok();
    }
    let mut connection = database.connect().await;
    let unread = sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from reporting.payloads
        where reporting.payload_text(payload, 'eventType') is distinct from event_type
        "#
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(unread, 0);
    let text = sqlx::query_scalar!(
        r#"
        select reporting.payload_text(
            '{"a": {"b": ["\u0000\u0000 \\u0000 \ud800 \ud83d\ude00 \udc00"]}}', 'a', 'b', '0'
        )
        "#
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(text.as_deref(), Some("\u{fffd}\u{fffd} \\u0000 \u{fffd} \u{1f600} \u{fffd}"));
}

/// Texts of up to four of the pieces: as JSON has them, and in UTF-16.
fn texts(pieces: &[(&str, Vec<u16>)]) -> Vec<(String, Vec<u16>)> {
    let mut texts = vec![(String::new(), Vec::new())];
    let mut longest = 0..1;
    for _ in 0..4 {
        for text in longest.clone() {
            for (piece, said) in pieces {
                let (json, units) = &texts[text];
                texts.push((format!("{json}{piece}"), [&units[..], said].concat()));
            }
        }
        longest = longest.end..texts.len();
    }
    texts
}

#[tokio::test]
async fn a_payload_is_read_whatever_escapes_stand_side_by_side() {
    let database = Database::create().await;
    let escaped = [r"\\", r"\u005C", r"\u0000", r"\ud83d", r"\uDE00"].into_iter();
    let escaped = escaped.zip([0x5c, 0x5c, 0, 0xd83d, 0xde00].map(|unit| vec![unit]));
    // What would be the rest of an escape, and what stands for one while a payload is read.
    let plain = ["ud83d", "uDE00", "u~"].map(|text| (text, text.encode_utf16().collect()));
    let texts = texts(&escaped.chain(plain).collect::<Vec<_>>());
    let json: Vec<&str> = texts.iter().map(|(json, _)| json.as_str()).collect();
    // Whether a backslash escapes between apostrophes is for the session to say.
    for setting in ["on", "off"] {
        let mut connection = database.connect().await;
        let set = format!("set standard_conforming_strings = {setting}");
        connection.execute(sqlx::AssertSqlSafe(set)).await.unwrap();
        let read = sqlx::query_scalar!(
            r#"
            select reporting.payload_text(format('{"of": "%s"}', text)::json, 'of') as "text!"
            from unnest($1::text[]) with ordinality as texts (text, place)
            order by place
            "#,
            &json as &[&str]
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(read.len(), texts.len());
        for ((json, units), read) in texts.iter().zip(read) {
            let text = String::from_utf16_lossy(units).replace('\0', "\u{fffd}");
            assert_eq!(read, text, "{json}, {setting}");
        }
    }
}

#[tokio::test]
async fn the_views_know_the_types_of_events_and_where_they_lead() {
    use callstate::call::{KnownEvent, Status};
    let database = Database::create().await;
    let types = sqlx::query!(
        r#"
        select event_type as "event_type!", direction::text as "direction!",
            status::text as "status!", leads_to::text[] as "leads_to!"
        from reporting.event_types
        "#
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap();
    let found: Vec<(&str, &str, &str)> =
        types.iter().map(|it| (&*it.event_type, &*it.direction, &*it.status)).collect();
    let known = KnownEvent::ALL
        .iter()
        .map(|it| (it.as_str(), it.direction().as_str(), it.status().as_str()));
    assert_eq!(found, known.collect::<Vec<_>>());
    for known in types {
        let rank = |status: &str| status.parse::<Status>().unwrap().rank();
        assert!(known.leads_to.iter().all(|it| rank(it) > rank(&known.status)));
    }
}

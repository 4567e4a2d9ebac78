//! The schema: as the program expects it, and documented.

use std::{collections::BTreeSet, path::Path, process::Command};

use callstate::{
    access::Scope,
    call::{Direction, Disposition},
    managed_postgres::binaries::Programs,
    store::{
        MIGRATOR,
        calls::partition::{self, ListPartition},
        spec,
    },
};
use sqlx::{Executor as _, Row as _};

use crate::support::{
    Database, Service, callstate,
    delivery::{delivery, fixture},
};

#[tokio::test]
async fn every_table_and_column_has_a_comment() {
    let database = Database::create().await;
    let silent: Vec<String> = sqlx::query_scalar!(
        r#"
        select format('%s.%s', relname, coalesce(attname, '(table)')) as "name!"
        from pg_class
        cross join lateral (
            select null::name as attname, 0 as attnum
            union all
            select attname, attnum from pg_attribute
            where attrelid = pg_class.oid and attnum > 0 and not attisdropped
        ) as part
        where relnamespace in ('public'::regnamespace, 'reporting'::regnamespace)
            and relkind in ('r', 'v')
            and relname <> '_sqlx_migrations'
            and col_description(pg_class.oid, attnum) is null
            and (attnum > 0 or obj_description(pg_class.oid, 'pg_class') is null)
        "#
    )
    .fetch_all(&database.pool().await)
    .await
    .unwrap();
    assert_eq!(silent, Vec::<String>::new());
}

#[tokio::test]
async fn the_enums_of_postgres_have_the_names_of_the_program() {
    let database = Database::create().await;
    let names = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>();
    for (name, values) in [
        ("api_key_scope", names(Scope::ALL.iter().map(|it| it.as_str()).collect())),
        ("call_direction", names(Direction::ALL.iter().map(|it| it.as_str()).collect())),
        ("event_disposition", names(Disposition::ALL.iter().map(|it| it.as_str()).collect())),
    ] {
        let mut stored: Vec<String> = sqlx::query_scalar!(
            r#"select enumlabel as "label!" from pg_enum where enumtypid = to_regtype($1)"#,
            name
        )
        .fetch_all(&database.pool().await)
        .await
        .unwrap();
        stored.sort();
        let mut values = values;
        values.sort();
        assert_eq!(stored, values, "{name}");
    }
}

#[tokio::test]
async fn the_tables_of_statuses_event_types_and_reasons_are_those_of_the_program() {
    let database = Database::create().await;
    let pool = database.pool().await;
    assert_eq!(spec::compare(&pool).await.unwrap(), []);
    let change = "
        update status_spec set label = 'Besetzt' where status = 'BUSY';
        delete from event_type_spec where event_type = 'INBOUND_CALL_ERROR';
        insert into reason_spec (id, reason, template) values (999, 'because', 'because')";
    pool.execute(change).await.unwrap();
    let mismatches = spec::compare(&pool).await.unwrap();
    let names: Vec<&str> = mismatches.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["BUSY", "INBOUND_CALL_ERROR", "because"]);
    // The service does not start with another vocabulary than its own.
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", &database.url()];
    let output = callstate(&serve);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("status_spec says of BUSY"), "{said}");
}

/// One insert each, as a migration that adds a status and an event type does.
const MADE_UP_STATUS: &str = "
    insert into status_spec values
        (20, 'VOICEMAIL', 'Voicemail', 5, 'redialable', true, false, true, 20, false, false, false);
    insert into event_type_spec values (40, 'OUTBOUND_CALL_VOICEMAIL', 'outbound', 20, false, false, '{}')";

#[tokio::test]
async fn views_and_reports_follow_a_status_that_is_added() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut conn = database.connect().await;
    for (event_type, second) in [("OUTBOUND_CALL_CALLING", 1), ("OUTBOUND_CALL_BUSY", 11)] {
        service.deliver(delivery(event_type, "c", second, Some("A")).to_string()).await.ok();
    }
    conn.execute(MADE_UP_STATUS).await.unwrap();
    conn.execute("select callstate_create_wide_views()").await.unwrap();
    // The call as a program that knows the status would have written it.
    let becomes = r#"
        update calls set status = 20, list_partition = 8 * 20, statuses_seen = (1::bigint << 4) | (1::bigint << 20),
            attempt_counts = array_append(array_fill(0, array[19]), 1),
            attempts = jsonb_set(attempts, '{0,status}', '"VOICEMAIL"');
        update events set event_type = 40, to_status = 20, call_status = 20 where event_type = 9"#;
    conn.execute(becomes).await.unwrap();
    for (query, expected) in [
        ("select status from reporting.calls", "VOICEMAIL"),
        ("select terminal::text from reporting.calls", "true"),
        ("select status from reporting.attempts", "VOICEMAIL"),
        ("select to_status from reporting.transitions where from_status = 'CALLING'", "VOICEMAIL"),
        (
            "select event_type from reporting.events where to_status = 'VOICEMAIL'",
            "OUTBOUND_CALL_VOICEMAIL",
        ),
        (
            "select status from reporting.outcomes_daily where calls = 1 and attempts = 1",
            "VOICEMAIL",
        ),
        ("select voicemail::text from reporting.outcomes_daily_wide", "1"),
        (
            "select events::text from reporting.coverage where event_type = 'OUTBOUND_CALL_VOICEMAIL'",
            "1",
        ),
        ("select seconds::text from reporting.durations where status = 'CALLING'", "10"),
        ("select sum(change)::text from reporting.calling_changes", "0"),
    ] {
        let row = conn.fetch_one(query).await.unwrap_or_else(|error| panic!("{error}: {query}"));
        assert_eq!(row.get::<String, _>(0), expected, "{query}");
    }
    let span = "from=2026-05-12T00:00:00Z&to=2026-05-13T00:00:00Z";
    let report = service.get(&format!("/reports/outcomes?{span}")).await.ok();
    let row = &report["rows"][0];
    assert_eq!(row["by_status"], serde_json::json!({"VOICEMAIL": 1}));
    assert_eq!(row["attempts_by_status"], serde_json::json!({"VOICEMAIL": 1}));
    assert_eq!((&row["terminal"], &row["live"]), (&1.into(), &0.into()));
    // The program itself does not know it: an error that names the value, no panic.
    service.get("/calls/c").await.problem(500);
    let said = service.said("20 is not the id of a known status").await;
    assert!(said.contains("table calls, call c of project"), "{said}");
    assert!(said.contains("column status"), "{said}");
}

#[tokio::test]
async fn sql_gives_the_ids_and_the_reasons_of_events_as_the_program_does() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let cases = include_str!("../fixtures/cases/lifecycle.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(cases).unwrap();
    for case in &cases {
        for body in case["deliveries"].as_array().unwrap() {
            service.deliver(body.to_string()).await;
        }
    }
    let rows =
        "select call_id, project_id, event_id::text, reason from reporting.events order by 1, 2, 3";
    let rows = database.connect().await.fetch_all(rows).await.unwrap();
    let mut reasons = BTreeSet::new();
    for row in &rows {
        let (call_id, project_id): (String, String) = (row.get(0), row.get(1));
        let path = format!("/calls/{call_id}/history?project_id={project_id}");
        let history = service.get(&path).await.ok();
        let event = history["events"].as_array().unwrap().iter();
        let mut event = event.filter(|event| event["event_id"] == row.get::<String, _>(2));
        let event = event.next().expect("the history has the event by the same id");
        assert_eq!(event["reason"], row.get::<String, _>(3));
        assert!(!row.get::<String, _>(3).contains(['{', '}']), "a parameter is missing");
        reasons.insert(row.get::<String, _>(3));
    }
    assert!(rows.len() > 30 && reasons.len() > 8, "{} events, {reasons:?}", rows.len());
}

#[tokio::test]
async fn every_call_is_in_the_index_partition_that_the_program_searches() {
    let database = Database::create().await;
    let stored: Vec<i16> = sqlx::query_scalar!(
        r#"select list_partition as "list_partition!" from list_partitions order by 1"#
    )
    .fetch_all(&database.pool().await)
    .await
    .unwrap();
    for partition in partition::all() {
        assert!(stored.contains(&partition.number()), "{partition:?}");
        assert_eq!(partition.number() >= 16, partition.outcome.is_terminal(), "{partition:?}");
    }
    let numbers: BTreeSet<i16> = partition::all().map(ListPartition::number).collect();
    assert_eq!(numbers.len(), partition::all().count());
}

#[tokio::test]
async fn the_migrations_are_all_applied_and_named_as_they_are_kept() {
    let database = Database::create().await;
    let applied = sqlx::query_scalar!("select version from _sqlx_migrations order by version")
        .fetch_all(&database.pool().await)
        .await
        .unwrap();
    let known: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    assert_eq!(applied, known);
    assert!(known.is_sorted());
}

#[tokio::test]
async fn nothing_is_taken_before_the_last_migration_has_run() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.get("/health/ready").await.ok();
    let mut connection = database.connect().await;
    let forget = "delete from _sqlx_migrations
        where version = (select max(version) from _sqlx_migrations)";
    connection.execute(forget).await.unwrap();
    let detail = service.get("/health/ready").await.problem(503);
    assert_eq!(detail, "The database lacks the schema of this callstate.");
    let serve = ["serve", "--no-migrate", "--listen", "127.0.0.1:0", "--database-url"];
    for forget in ["select", "drop schema reporting cascade; drop schema public cascade"] {
        connection.execute(forget).await.unwrap();
        let output = callstate(&[&serve[..], &[&database.url()]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("callstate migrate"), "{said}");
    }
}

/// As `pg_dump` and `pg_restore` do it, functions are found by no search path.
#[tokio::test]
async fn a_dump_can_be_restored() {
    let (from, to) = (Database::create().await, Database::create().await);
    let service = Service::start(&from).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    let clear = "drop schema reporting cascade; drop schema public cascade; create schema public";
    to.connect().await.execute(clear).await.unwrap();

    let programs = Programs::installed(None, Path::new("/nowhere")).expect("Postgres is installed");
    let run = |program: &str, arguments: &[&str]| {
        let path = programs[0].dir.join(program);
        let output = Command::new(path).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let dump = run("pg_dump", &["--no-owner", "--dbname", &from.url()]);
    let file = format!("{}/dump-{}.sql", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::write(&file, dump).unwrap();
    let quiet = ["--quiet", "--set", "ON_ERROR_STOP=1", "--output", "/dev/null"];
    run("psql", &[&quiet[..], &["--file", &file, &to.url()]].concat());
    std::fs::remove_file(&file).unwrap();
    let restored = Service::start(&to).await;
    assert_eq!(restored.get("/calls/out-08").await.ok()["status"], "BUSY");
    assert_eq!(restored.deliver(fixture("outbound_busy")).await.ok()["disposition"], "duplicate");
}

//! The number of rows that a list reads, whatever its filters are.
//!
//! Each test has one connection, so that the statistics of Postgres show what a list has read.

use std::{collections::BTreeSet, path::Path, process::Command};

use callstate::{
    access::Projects,
    call::{CallId, CallSid, ClientId, Direction, ProjectId, Status},
    managed_postgres::binaries::Programs,
    store::{
        calls::{
            filter::Filter,
            list::{ListPosition, ListStart, page},
            partition,
        },
        connection,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::support::Database;

/// How many calls are stored, and how many of them are under way.
const CALLS: u32 = 30_000;
const LIVE: u32 = 3_000;

const PAGE: u16 = 50;

/// Stores the calls that the benchmark of lists does, fewer of them.
async fn filled() -> Database {
    let database = Database::create().await;
    let programs = Programs::installed(None, Path::new("/nowhere")).expect("Postgres is installed");
    let loader = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/load/calls.sql");
    let output = Command::new(programs[0].dir.join("psql"))
        .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"])
        .args(["--set", &format!("calls={CALLS}"), "--set", &format!("live={LIVE}")])
        .args(["--file", loader, &database.url()])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    database
}

/// A connection as the service has it.
async fn connect(database: &Database) -> PgPool {
    PgPoolOptions::new()
        .max_connections(1)
        .after_connect(|connection, _| Box::pin(connection::for_reading(connection)))
        .connect(&database.url())
        .await
        .expect("the database accepts")
}

/// How many scans of whole tables there have been, and how many rows were fetched by indexes.
async fn read(pool: &PgPool) -> (i64, i64) {
    sqlx::query!("select pg_stat_force_next_flush()").fetch_one(pool).await.unwrap();
    let row = sqlx::query!(
        r#"
        select sum(seq_scan)::bigint as "scans!", sum(idx_tup_fetch)::bigint as "fetched!"
        from pg_stat_user_tables
        where relname in ('calls', 'events')
        "#
    )
    .fetch_one(pool)
    .await
    .unwrap();
    (row.scans, row.fetched)
}

fn everything() -> Filter {
    Filter {
        projects: Projects::All,
        statuses: Status::ALL.iter().copied().collect(),
        direction: None,
        call_ids: None,
        client_id: None,
        call_sid: None,
        has_errors: None,
        is_anomalous: None,
        delivered_by: None,
        from: None,
        to: None,
    }
}

#[tokio::test]
async fn a_list_reads_no_more_than_a_page_of_each_index_partition() {
    let database = filled().await;
    let pool = connect(&database).await;
    let busiest = sqlx::query_scalar!(
        r#"
        select client_id as "client_id!" from calls
        where client_id is not null group by client_id order by count(*) desc limit 1
        "#
    );
    let client_id = ClientId::new(busiest.fetch_one(&pool).await.unwrap()).unwrap();
    let dial = sqlx::query_scalar!(r#"select call_sid as "call_sid!" from events limit 1"#);
    let call_sid = CallSid::new(dial.fetch_one(&pool).await.unwrap()).unwrap();
    let now = sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&pool).await.unwrap();
    let start = ListStart::now(&pool, now).await.unwrap();

    let projects = |numbers: &[u32]| {
        let id = |number: &u32| ProjectId::new(format!("project-{number:02}")).unwrap();
        Projects::Only(numbers.iter().map(id).collect())
    };
    let statuses = |statuses: &[Status]| statuses.iter().copied().collect();
    let all = everything;
    let inbound = Some(Direction::Inbound);
    let frequent = [Status::Completed, Status::NoResponse];
    let partitions = partition::all().count();
    for (name, filter, merges) in [
        ("everything", all(), 1),
        ("frequent statuses", Filter { statuses: statuses(&frequent), ..all() }, 1),
        ("a rare status", Filter { statuses: statuses(&[Status::Expired]), ..all() }, 1),
        ("inbound", Filter { direction: inbound, ..all() }, 1),
        (
            "inbound errors",
            Filter { direction: inbound, statuses: statuses(&[Status::Error]), ..all() },
            1,
        ),
        ("with errors", Filter { has_errors: Some(true), ..all() }, 1),
        (
            "completed with errors",
            Filter { has_errors: Some(true), statuses: statuses(&[Status::Completed]), ..all() },
            1,
        ),
        ("anomalous", Filter { is_anomalous: Some(true), ..all() }, 1),
        ("a small project", Filter { projects: projects(&[40]), ..all() }, 1),
        (
            "a rare status of a large project",
            Filter { projects: projects(&[1]), statuses: statuses(&[Status::Canceled]), ..all() },
            1,
        ),
        ("three projects", Filter { projects: projects(&[1, 2, 40]), ..all() }, 3),
        (
            "a client",
            Filter { client_id: Some(client_id), statuses: statuses(&frequent), ..all() },
            1,
        ),
        ("a dial", Filter { call_sid: Some(call_sid), ..all() }, 1),
        ("some days", Filter { to: Some(now - TimeDelta::days(100)), ..all() }, 1),
    ] {
        let asked = async |after: Option<ListPosition>| {
            let before = read(&pool).await;
            let shown = page(&pool, &filter, start, after, PAGE).await.unwrap();
            let after = read(&pool).await;
            assert_eq!(after.0, before.0, "{name}: a table was scanned");
            let fetched = usize::try_from(after.1 - before.1).unwrap();
            // A page of each partition is merged, and a page of the result is read.
            let most = (merges * partitions + 1) * usize::from(PAGE);
            assert!(fetched <= most, "{name}: {fetched} rows for {}", shown.len());
            shown
        };
        let first = asked(None).await;
        assert!(!first.is_empty(), "{name}: the list is empty");
        let (last, _) = &first[first.len() / 2];
        asked(Some(*last)).await;
    }
}

#[tokio::test]
async fn stalled_calls_are_not_searched_among_calls_that_have_just_begun() {
    let database = filled().await;
    let pool = connect(&database).await;
    let now: DateTime<Utc> =
        sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&pool).await.unwrap();
    let live = Status::ALL.iter().copied().filter(|status| !status.is_terminal()).collect();
    let delivered_by = Some(now - TimeDelta::minutes(30));
    let filter = Filter { statuses: live, delivered_by, ..everything() };
    let start = ListStart::now(&pool, now).await.unwrap();
    let before = read(&pool).await;
    let shown = page(&pool, &filter, start, None, PAGE).await.unwrap();
    let after = read(&pool).await;
    assert_eq!(shown.len(), usize::from(PAGE));
    assert_eq!(after.0, before.0);
    // There are eight partitions of live calls.
    assert!(after.1 - before.1 <= 9 * i64::from(PAGE), "{} rows", after.1 - before.1);
}

#[tokio::test]
async fn a_list_of_call_ids_reads_only_those_calls() {
    let database = filled().await;
    let pool = connect(&database).await;
    let stored = sqlx::query_scalar!(r#"select call_id from calls order by call_id limit 20"#);
    let ids: Vec<String> = stored.fetch_all(&pool).await.unwrap();
    let call_ids: BTreeSet<CallId> =
        ids.iter().map(|id| CallId::new(id.as_str()).unwrap()).collect();
    let project = Projects::Only([ProjectId::new("project-01").unwrap()].into());
    let start = ListStart::now(&pool, DateTime::UNIX_EPOCH).await.unwrap();
    for (projects, count) in [(Projects::All, Some(20)), (project, None)] {
        let filter = Filter { call_ids: Some(call_ids.clone()), projects, ..everything() };
        let before = read(&pool).await;
        let listed = page(&pool, &filter, start, None, PAGE).await.unwrap();
        let after = read(&pool).await;
        assert!(count.is_none_or(|count| listed.len() == count), "{} calls", listed.len());
        assert_eq!(after.0, before.0, "a table was scanned");
        // Each is read once for the filters and once for the page.
        assert!(after.1 - before.1 <= 2 * 20, "{} rows", after.1 - before.1);
    }
}

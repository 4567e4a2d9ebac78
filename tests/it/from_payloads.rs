//! `callstate rebuild --from-payloads`: stored payloads are read again with the present
//! configuration.

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio::{task::block_in_place, time::timeout};

use crate::{
    export::{export, lines},
    import::import_with,
    support::{
        Database, Service, callstate, command,
        delivery::{delivery, fixture, fixtures},
        provider::{Provider, shuffled},
    },
};

/// A month of calls, more events than one page of the command.
const MONTH: &str = "--calls 300 --projects 2 --backdate 30d --duplicates 10% --reorder 20% --drop 5% \
                     --unknown 3% --seed 8 --at 2026-05-12T10:24:00Z --check none";

/// How long a command may take to reach a lock.
const TIMEOUT: Duration = Duration::from_mins(1);

const WRONG_ZONE: &str = "America/New_York";
const RIGHT_ZONE: &str = "Asia/Tokyo";

/// A database with a month of calls, stored with the wrong time zone.
async fn month_in_the_wrong_zone() -> Database {
    let database = Database::create().await;
    let service = Service::start_with(&database, in_zone(WRONG_ZONE)).await;
    let url = format!("{}/webhooks", service.base_url());
    let arguments = ["simulate", "--url", &url].into_iter().chain(MONTH.split_whitespace());
    let sent = callstate(&arguments.collect::<Vec<_>>());
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    for name in fixtures() {
        service.deliver(fixture(&name)).await.ok();
    }
    service.stop().await;
    database
}

fn in_zone(zone: &'static str) -> impl FnOnce(&mut Command) {
    move |command| {
        command.args(["--provider-time-zone", zone]);
    }
}

/// The command that reads all payloads again with the right time zone.
fn rebuild_command(database: &Database) -> Command {
    let mut command = command();
    command.args(["rebuild", "--from-payloads", "--database-url", &database.url()]);
    command.env("CALLSTATE_PROVIDER_TIME_ZONE", RIGHT_ZONE);
    command
}

fn rebuild(database: &Database, format: &str) -> Output {
    rebuild_command(database).args(["--format", format]).output().unwrap()
}

/// The report of a run that succeeds.
fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A database into which the payloads of another are imported with the right time zone.
async fn fresh_import(database: &Database) -> Database {
    let fresh = Database::create().await;
    let deliveries = lines(database, "deliveries").into_iter().map(|mut delivery| {
        delivery.as_object_mut().unwrap().remove("occurred_at");
        delivery.to_string()
    });
    let text = deliveries.collect::<Vec<_>>().join("\n");
    let output = import_with(&fresh, text.as_bytes(), |command| {
        command.env("CALLSTATE_PROVIDER_TIME_ZONE", RIGHT_ZONE);
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fresh
}

fn assert_same(one: &Database, other: &Database) {
    for what in ["calls", "events", "attempts", "deliveries"] {
        let [one, other] = [one, other].map(|it| String::from_utf8(export(it, what)).unwrap());
        assert!(one.lines().count() > 0);
        let differing = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(differing, None);
        assert_eq!(one.len(), other.len());
    }
}

fn assert_verified(database: &Database) {
    let output = callstate(&["verify", "--database-url", &database.url()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The columns that do not follow from the payload.
async fn receipts(database: &Database) -> Vec<String> {
    let query = "select row(call, fingerprint, position, received_at, endpoint, delivery_count,
            last_delivered_at, payload::text)::text
        from events order by position";
    let rows = database.pool().await.fetch_all(query).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_with_the_wrong_time_zone_becomes_the_same_as_a_fresh_import() {
    let database = month_in_the_wrong_zone().await;
    let fresh = fresh_import(&database).await;
    let before = receipts(&database).await;
    let wrong = export(&database, "events");

    let first = report(&rebuild(&database, "json"));
    let read = &first["from_payloads"];
    assert_eq!(read["events"], before.len());
    assert!(read["corrected"].as_u64().unwrap() > 1000, "{read}");
    assert_eq!(read["left_count"], 0, "{read}");
    assert_eq!(first["difference_count"], 0);

    assert_ne!(export(&database, "events"), wrong);
    assert_same(&database, &fresh);
    assert_eq!(receipts(&database).await, before);
    assert_verified(&database);

    let second = report(&rebuild(&database, "json"));
    assert_eq!(second["from_payloads"]["corrected"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_is_completed_by_the_next_while_the_service_runs() {
    let database = month_in_the_wrong_zone().await;
    // The last call of all is locked, so the command has committed the pages before.
    let mut holder = database.connect().await;
    holder.execute("begin; select from calls where id = (select max(call) from events where effective_at <> received_at) for update").await.unwrap();
    let mut first =
        rebuild_command(&database).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut watcher = database.connect().await;
    let waits = "select 1 from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    let waiting = async { while watcher.fetch_optional(waits).await.unwrap().is_none() {} };
    timeout(TIMEOUT, waiting).await.expect("the command waits for the lock");
    first.kill().unwrap();
    first.wait().unwrap();
    holder.execute("commit").await.unwrap();
    assert_verified(&database);

    let service = Service::start_with(&database, in_zone(RIGHT_ZONE)).await;
    let provider = Provider::start(shuffled(40, 2), &[&service]);
    let second = block_in_place(|| report(&rebuild(&database, "json")));
    assert!(second["from_payloads"]["corrected"].as_u64().unwrap() > 0);
    provider.finish().await;
    service.stop().await;

    assert_verified(&database);
    assert_same(&database, &fresh_import(&database).await);
}

#[tokio::test]
async fn events_that_cannot_be_read_again_are_left_and_named() {
    let database = Database::create().await;
    let service = Service::start_with(&database, in_zone(WRONG_ZONE)).await;
    for call in ["removed", "unreadable", "other", "corrected"] {
        service.deliver(delivery("OUTBOUND_CALL_BUSY", call, 7, None).to_string()).await.ok();
    }
    service.stop().await;
    let other = delivery("OUTBOUND_CALL_BUSY", "another", 7, None).to_string();
    for (call, payload) in
        [("removed", "null"), ("unreadable", "'[]'"), ("other", &format!("'{other}'"))]
    {
        let tamper = format!(
            "update events set payload = {payload} where call = (select id from calls where call_id = '{call}')"
        );
        database.pool().await.execute(AssertSqlSafe(tamper)).await.unwrap();
    }

    let output = rebuild(&database, "text");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for (call, problem) in [
        ("removed", "its payload was removed"),
        ("unreadable", "the body is an array"),
        ("other", "its payload names the call "),
    ] {
        let is_of_call = |line: &&str| line.contains(&format!("/{call}, event "));
        let line = said.lines().find(is_of_call).unwrap_or_else(|| panic!("{call}: {said}"));
        assert!(line.contains("left as it is, ") && line.contains(problem), "{line}");
    }
    assert!(
        said.contains("read 4 payloads again: 1 events corrected, 3 left as they are\n"),
        "{said}"
    );
    assert_verified(&database);
}

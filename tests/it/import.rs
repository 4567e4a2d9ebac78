//! `callstate import`: exported deliveries give the same calls again.

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    durability::database_that_refuses_one,
    export::{export, fill, lines},
    support::{
        Database, Place, Service, callstate, command,
        delivery::delivery,
        provider::{Provider, shuffled},
    },
};

/// Imports a text from standard input.
pub(crate) fn import(database: &Database, text: &[u8], options: &[&str]) -> Output {
    import_with(database, text, |command| {
        command.args(options);
    })
}

pub(crate) fn import_with(
    database: &Database,
    text: &[u8],
    more: impl FnOnce(&mut Command),
) -> Output {
    let mut command = command();
    command.args(["import", "-", "--format", "json", "--database-url", &database.url()]);
    more(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = text.to_owned();
    // An import that stops at a bad line does not read the rest.
    let writing = std::thread::spawn(move || stdin.write_all(&text));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join().unwrap();
    output
}

/// A log of webhook bodies: lines with a payload only.
pub(crate) fn log_of(bodies: &[String]) -> String {
    let lines: Vec<String> = bodies.iter().map(|it| format!("{{\"payload\":{it}}}")).collect();
    lines.join("\n")
}

/// The counts of a run that must succeed: deliveries, new events, known events.
fn imported(output: &Output) -> [u64; 3] {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    counts(output)
}

fn counts(output: &Output) -> [u64; 3] {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    ["deliveries", "new_events", "known_events"].map(|name| report[name].as_u64().unwrap())
}

fn verify(database: &Database) {
    let output = callstate(&["verify", "--database-url", &database.url()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Every export.
fn everything(database: &Database) -> [String; 4] {
    ["calls", "events", "attempts", "deliveries"]
        .map(|what| String::from_utf8(export(database, what)).unwrap())
}

#[tokio::test]
async fn an_import_of_an_export_gives_the_same_store_however_often_it_runs() {
    let original = Database::create().await;
    let service = Service::start(&original).await;
    fill(&service).await;
    // The exported file contains the time zone of each delivery, so the import needs no option.
    let elsewhere = delivery("OUTBOUND_CALL_BUSY", "elsewhere", 7, None).to_string();
    service.stop().await;
    let there = |command: &mut Command| {
        command.args(["--provider-time-zone", "+09:00"]);
    };
    let service = Service::start_with(&original, there).await;
    service.deliver_to("/webhooks/default/", elsewhere).await.ok();
    service.stop().await;

    let all = everything(&original);
    let deliveries = &all[3];
    let events = deliveries.lines().count() as u64;
    assert!(deliveries.contains(r"\\ud800") && deliveries.contains(r"\\u0000"));
    assert!(deliveries.contains("\"delivery_count\":2"));

    let copy = Database::create().await;
    let first = import(&copy, deliveries.as_bytes(), &[]);
    assert_eq!(imported(&first), [events, events, 0]);
    assert_eq!(everything(&copy), all);
    verify(&copy);

    let second = import(&copy, deliveries.as_bytes(), &[]);
    assert_eq!(imported(&second), [events, 0, events]);
    assert_eq!(everything(&copy), all);
    verify(&copy);

    // The order of the lines, the batch size and the number of writers do not matter.
    let mut reversed: Vec<&str> = deliveries.lines().rev().collect();
    reversed.push("");
    let place = Place::new();
    let file = place.0.join("reversed.jsonl");
    fs::write(&file, reversed.join("\n")).unwrap();
    let copy = Database::create().await;
    let output = command()
        .args(["import", file.to_str().unwrap(), "--database-url", &copy.url()])
        .envs([("CALLSTATE_INGEST_BATCH", "3"), ("CALLSTATE_INGEST_WRITERS", "3")])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{events} deliveries imported: {events} new events, 0 already stored\n"),
    );
    assert_eq!(everything(&copy), all);
    verify(&copy);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_and_the_service_may_store_the_same_events_concurrently() {
    let original = Database::create().await;
    let service = Service::start(&original).await;
    let sent = shuffled(40, 2);
    Provider::start(sent.clone(), &[&service]).finish().await;
    service.stop().await;
    let deliveries = export(&original, "deliveries");

    let other = Database::create().await;
    let service = Service::start(&other).await;
    let provider = Provider::start(sent, &[&service]);
    let copy = &other;
    let importing = tokio::task::block_in_place(|| import(copy, &deliveries, &[]));
    provider.finish().await;
    let [deliveries, new, known] = imported(&importing);
    assert_eq!((deliveries, new + known), (320, 320));
    verify(&other);

    let essence = |database: &Database| {
        let mut rows = lines(database, "calls");
        for row in &mut rows {
            // The times of receipt differ.
            row.as_object_mut().unwrap().remove("updated_at");
        }
        rows
    };
    assert_eq!(essence(&other), essence(&original));
    for event in lines(&other, "events") {
        // Two by the provider and two in the file, which may be the same receipts.
        let count = event["delivery_count"].as_u64().unwrap();
        assert!((2..=4).contains(&count), "{count}");
    }
}

#[tokio::test]
async fn an_import_counts_receipts_that_are_stored_once() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let body = delivery("OUTBOUND_CALL_BUSY", "c", 1, None).to_string();
    service.deliver(body.clone()).await.ok();
    let shown = || lines(&database, "deliveries").remove(0);
    let received_at = shown()["received_at"].clone();
    let late = "2099-01-01T00:00:00Z";
    for (count, then, last) in [(1, 1, &received_at), (3, 3, &late.into()), (2, 3, &late.into())] {
        let mut line = shown();
        line["delivery_count"] = count.into();
        line["last_delivered_at"] = last.clone();
        let output = import(&database, line.to_string().as_bytes(), &[]);
        assert_eq!(imported(&output), [1, 0, 1]);
        assert_eq!(shown()["delivery_count"], then);
        assert_eq!(shown()["last_delivered_at"], *last);
    }
    // A delivery to the service is one more.
    service.deliver(body).await.ok();
    assert_eq!(shown()["delivery_count"], 4);
    assert_eq!(shown()["received_at"], received_at);
    verify(&database);
}

#[tokio::test]
async fn a_log_of_webhooks_can_be_imported() {
    let database = Database::create().await;
    let bodies: Vec<String> = [("OUTBOUND_CALL_PENDING", 1), ("OUTBOUND_CALL_BUSY", 9)]
        .map(|(event_type, second)| delivery(event_type, "c", second, None).to_string())
        .into();
    let log = log_of(&bodies);
    assert_eq!(imported(&import(&database, log.as_bytes(), &[])), [2, 2, 0]);
    let exported = lines(&database, "deliveries");
    let payloads: Vec<_> = exported.iter().map(|line| line["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads, bodies);
    let call = lines(&database, "calls").remove(0);
    assert_eq!(
        (&call["status"], &call["ended_at"]),
        (&json!("BUSY"), &json!("2026-05-12T12:00:09Z"))
    );
}

#[tokio::test]
async fn a_bad_line_is_named_and_stops_the_import_unless_keep_going_is_set() {
    let good = |call_id: &str| {
        json!({ "payload": delivery("OUTBOUND_CALL_BUSY", call_id, 1, None) }).to_string()
    };
    // Near the end of the range of times, so that five minutes more are beyond it.
    let far = json!({
        "payload": delivery("OUTBOUND_CALL_BUSY", "far", 1, None),
        "received_at": "+262142-12-31T23:59:00Z",
    });
    let bad = [
        (
            "{\"payload\": {}}".to_owned(),
            "has a payload that cannot be understood: eventType is missing",
        ),
        ("cut off in the midd".to_owned(), "is no delivery"),
        (far.to_string(), "received_at must be a time of RFC 3339"),
        (good("bad"), "the delivery cannot be stored"),
    ];
    for (line, why) in &bad {
        let file = [&good("a"), "", line, &good("b")].join("\n");
        let database = database_that_refuses_one().await;
        let stopped = import(&database, file.as_bytes(), &[]);
        let said = String::from_utf8_lossy(&stopped.stderr);
        assert_eq!(stopped.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("line 3 {why}")), "{said}");
        assert!(said.contains("stopped at line 3; the lines before it are imported"), "{said}");
        assert!(lines(&database, "calls").iter().any(|call| call["call_id"] == "a"));

        let gone_on = import(&database, file.as_bytes(), &["--keep-going"]);
        assert_eq!(gone_on.status.code(), Some(1));
        assert_eq!(counts(&gone_on)[0], 2);
        let report: Value = serde_json::from_slice(&gone_on.stdout).unwrap();
        assert_eq!(report["bad_lines"], 1);
        let calls = lines(&database, "calls");
        let ids: Vec<_> = calls.iter().map(|call| call["call_id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["a", "b"]);
        verify(&database);
    }
}

#[tokio::test]
async fn an_import_larger_than_the_queue_waits_for_the_writers() {
    let database = Database::create().await;
    let filling = "x".repeat(1 << 20);
    let bodies: Vec<String> = (0..70)
        .map(|number| {
            let mut body = delivery("OUTBOUND_CALL_BUSY", &format!("call-{number}"), 1, None);
            body["filling"] = filling.as_str().into();
            body.to_string()
        })
        .collect();
    let log = log_of(&bodies);
    assert_eq!(imported(&import(&database, log.as_bytes(), &[])), [70, 70, 0]);

    let bodies: Vec<String> = (0..300)
        .map(|number| {
            delivery("OUTBOUND_CALL_BUSY", &format!("small-{number}"), 1, None).to_string()
        })
        .collect();
    let narrow = |command: &mut Command| {
        command.envs([("CALLSTATE_INGEST_BATCH", "1"), ("CALLSTATE_INGEST_QUEUE", "1")]);
    };
    let output = import_with(&database, log_of(&bodies).as_bytes(), narrow);
    assert_eq!(imported(&output), [300, 300, 0]);
}

#[tokio::test]
async fn a_missing_file_is_an_error_before_the_database_is_opened() {
    let output =
        callstate(&["import", "none.jsonl", "--database-url", "postgres://x@127.0.0.1:1/x"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("callstate: cannot read none.jsonl"), "{said}");
}

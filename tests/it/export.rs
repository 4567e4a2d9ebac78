//! `callstate export`: the same tables in three formats, read back by other programs' libraries.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Output, Stdio},
};

use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::{Field, Row},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use crate::support::{
    Database, Place, Service, callstate, command,
    delivery::{delivery, fixture, fixtures},
    provider::{Provider, shuffled},
};

const TABLES: [&str; 3] = ["calls", "events", "attempts"];

/// Has a service take calls of every kind: the samples, and calls that were redialled, out of order and twice.
pub(crate) async fn fill(service: &Service) {
    for name in fixtures() {
        service.deliver(fixture(&name)).await.ok();
    }
    Provider::start(shuffled(12, 2), &[service]).finish().await;
    let mut tempting = delivery("OUTBOUND_CALL_ERROR", "=1+1", 0, Some("@sum"));
    tempting["body"]["data"]["clientId"] = "+49 30 1234, \"Berlin\"".into();
    tempting["body"]["errors"] = json!([{"code": "-1", "message": "two\r\nlines, \"quoted\""}, {}]);
    service.deliver(tempting.to_string()).await.ok();
}

/// Exports to standard output.
pub(crate) fn export(database: &Database, arguments: &str) -> Vec<u8> {
    let url = database.url();
    let arguments = arguments.split_whitespace().chain(["--database-url", &url]);
    let output = callstate(&["export"].into_iter().chain(arguments).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The lines of an export.
pub(crate) fn lines(database: &Database, arguments: &str) -> Vec<Value> {
    let text = String::from_utf8(export(database, arguments)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_lines_say_what_the_interface_answers() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    fill(&service).await;
    let calls = lines(&database, "calls");
    assert_eq!(calls.len(), 25 + 12 + 1);
    let (mut attempts, mut events) = (Vec::new(), Vec::new());
    for call in &calls {
        let id = call["call_id"].as_str().unwrap().replace('+', "%2B");
        let of_project = format!("?project_id={}", call["project_id"].as_str().unwrap());
        assert_eq!(*call, service.get(&format!("/calls/{id}{of_project}")).await.ok());
        let of_call = |shown: &Value, name: &str| {
            let mut row = shown.clone();
            for member in ["call_id", "project_id", name] {
                row[member] = call[member].clone();
            }
            row
        };
        for attempt in call["attempts"].as_array().unwrap() {
            let mut attempt = of_call(attempt, "direction");
            attempt["client_id"] = call["client_id"].clone();
            attempts.push(attempt);
        }
        let history = service.get(&format!("/calls/{id}/history{of_project}")).await.ok();
        events
            .extend(history["events"].as_array().unwrap().iter().map(|it| of_call(it, "call_id")));
    }
    assert_eq!(lines(&database, "attempts"), attempts);
    let mut exported = lines(&database, "events");
    for event in &mut exported {
        let event = event.as_object_mut().unwrap();
        // Of these SQL tells, and the interface for the call.
        assert!(event.remove("client_id").is_some() && event.remove("provider_status").is_some());
    }
    assert_eq!(exported, events);
}

#[tokio::test]
async fn every_format_has_the_same_columns_and_the_same_rows() {
    let database = Database::create().await;
    let place = Place::new();
    for is_filled in [false, true] {
        if is_filled {
            let service = Service::start(&database).await;
            fill(&service).await;
            service.stop().await;
        }
        for table in TABLES {
            let rows = lines(&database, table);
            assert_eq!(rows.is_empty(), !is_filled);

            let parquet = place.0.join(format!("{table}-{is_filled}.parquet"));
            // The name says the format.
            export(&database, &format!("{table} -o {}", parquet.display()));
            let reader = SerializedFileReader::new(File::open(&parquet).unwrap()).unwrap();
            let columns = reader.metadata().file_metadata().schema().get_fields().to_vec();
            let columns: Vec<_> = columns.iter().map(|it| it.name().to_owned()).collect();
            let typed = reader.get_row_iter(None).unwrap().map(|row| of_row(&row.unwrap()));
            assert_eq!(typed.collect::<Vec<_>>(), rows, "{table}");

            let text = export(&database, &format!("{table} --format csv"));
            let mut csv = csv::Reader::from_reader(&text[..]);
            assert_eq!(csv.headers().unwrap().iter().collect::<Vec<_>>(), columns);
            let records: Vec<_> = csv.records().map(Result::unwrap).collect();
            assert_eq!(records.len(), rows.len());
            for (record, row) in records.iter().zip(&rows) {
                for (column, cell) in columns.iter().zip(record) {
                    assert_eq!(of_cell(cell, &row[column]), row[column], "{table} {column} {cell}");
                }
            }
        }
    }
}

/// A row of a Parquet file as the lines have it.
fn of_row(row: &Row) -> Value {
    row.get_column_iter().map(|(name, field)| (name.clone(), of_field(name, field))).collect()
}

fn of_field(name: &str, field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(flag) => (*flag).into(),
        Field::Long(number) => (*number).into(),
        Field::Double(number) => (*number).into(),
        Field::Str(text) => text.as_str().into(),
        Field::TimestampMicros(at) => json!(chrono::DateTime::from_timestamp_micros(*at)),
        Field::ListInternal(list) => list.elements().iter().map(|it| of_field("", it)).collect(),
        Field::Group(row) if name == "time_in_status" => {
            let mut row = of_row(row);
            // Each status has a column.
            assert_eq!(row.as_object().unwrap().len(), 15);
            row.as_object_mut().unwrap().retain(|_, seconds| !seconds.is_null());
            row
        }
        Field::Group(row) => of_row(row),
        field => panic!("{name} is {field:?}"),
    }
}

/// A field of a CSV file as the lines have it, read as what the lines have there.
fn of_cell(cell: &str, like: &Value) -> Value {
    match like {
        Value::Null => {
            assert_eq!(cell, "");
            Value::Null
        }
        Value::String(text) if cell != text => {
            match cell.parse::<chrono::DateTime<chrono::Utc>>() {
                Ok(at) => {
                    assert_eq!(cell.len(), "2026-05-12T12:00:00.000000Z".len());
                    json!(at)
                }
                // No spreadsheet takes it for a formula.
                Err(_) => cell.strip_prefix('\'').unwrap_or_else(|| panic!("{cell}")).into(),
            }
        }
        Value::String(_) => {
            assert!(!cell.starts_with(['=', '+', '-', '@']), "{cell}");
            cell.into()
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            serde_json::from_str(cell).unwrap()
        }
    }
}

#[tokio::test]
async fn two_ranges_that_meet_are_the_whole() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    fill(&service).await;
    for (what, bounded_by) in [
        ("calls", "first_event_at"),
        ("attempts", ""),
        ("events", "received_at"),
        ("deliveries", "received_at"),
    ] {
        let whole = lines(&database, what);
        // A moment at which something happened: it belongs to the later half, and to that alone.
        let at = match what {
            "attempts" => "2026-05-12T12:00:02Z".to_owned(),
            _ => {
                let mut times: Vec<_> =
                    whole.iter().map(|row| row[bounded_by].as_str().unwrap()).collect();
                times.sort_unstable();
                times[times.len() / 2].to_owned()
            }
        };
        let before = lines(&database, &format!("{what} --to {at}"));
        let after = lines(&database, &format!("{what} --from {at}"));
        assert!(!before.is_empty() && !after.is_empty(), "{what}");
        if !bounded_by.is_empty() {
            assert!(before.iter().all(|row| row[bounded_by].as_str() < Some(at.as_str())));
            assert!(after.iter().any(|row| row[bounded_by] == at.as_str()));
        }
        let sorted = |rows: &[&[Value]]| {
            let mut rows: Vec<String> = rows.concat().iter().map(Value::to_string).collect();
            rows.sort_unstable();
            rows
        };
        assert_eq!(sorted(&[&before, &after]), sorted(&[&whole]), "{what}");

        // So are the projects.
        let mut by_project: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for row in &whole {
            by_project.entry(row["project_id"].as_str().unwrap()).or_default().push(row.clone());
        }
        assert!(by_project.len() > 1);
        for (project, rows) in by_project {
            assert_eq!(lines(&database, &format!("{what} --project {project}")), rows);
        }
    }
}

#[tokio::test]
async fn an_export_is_of_one_moment() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    fill(&service).await;
    let before = lines(&database, "events");
    let mut lock = database.connect().await;
    let mut held = lock.begin().await.unwrap();
    held.execute("lock table events in access exclusive mode").await.unwrap();
    let (child, mut said) = spawn_slow(&database, &["events", "--format", "jsonl"]);
    wait_for(&mut said, "the snapshot is taken");
    // This is committed after the export began, and before it reads the first row.
    held.execute(
        "delete from events using calls where calls.id = events.call and call_id = '=1+1'",
    )
    .await
    .unwrap();
    held.commit().await.unwrap();
    let output = child.wait_with_output().unwrap();
    let exported: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(exported, before);
}

/// Starts an export that says when it has begun.
fn spawn_slow(
    database: &Database,
    arguments: &[&str],
) -> (std::process::Child, BufReader<std::process::ChildStderr>) {
    let mut command = command();
    command.arg("export").args(arguments).args(["--database-url", &database.url()]);
    command.env("CALLSTATE_LOG", "callstate=debug").stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap());
    (child, said)
}

fn wait_for(said: &mut impl std::io::BufRead, text: &str) {
    let line = said.lines().map(Result::unwrap).find(|line| line.contains(text));
    assert!(line.is_some(), "it says {text:?}");
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn an_export_that_is_cut_short_leaves_no_half_file() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    fill(&service).await;
    let place = Place::new();
    let file = place.0.join("calls.csv");
    let arguments = ["calls", "--force", "-o", file.to_str().unwrap()];

    // Whether there was a file before or not.
    for before in [None, Some("as it was\n")] {
        if let Some(text) = before {
            fs::write(&file, text).unwrap();
        }
        let names: Vec<String> = before.map(|_| "calls.csv".to_owned()).into_iter().collect();
        let mut lock = database.connect().await;
        let mut held = lock.begin().await.unwrap();
        held.execute("lock table calls in access exclusive mode").await.unwrap();

        let (mut child, mut said) = spawn_slow(&database, &arguments);
        wait_for(&mut said, "the snapshot is taken");
        assert_eq!(names_in(&place.0).len(), names.len() + 1, "it is being written");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert_eq!(names_in(&place.0), names, "what was written is taken away");

        let (mut child, mut said) = spawn_slow(&database, &arguments);
        wait_for(&mut said, "the snapshot is taken");
        child.kill().unwrap();
        child.wait().unwrap();
        held.rollback().await.unwrap();
        let text = fs::read_to_string(&file).ok();
        assert_eq!(text.as_deref(), before, "what is left is under another name");
        for name in names_in(&place.0).iter().filter(|name| *name != "calls.csv") {
            assert!(name.starts_with(".calls.csv.") && name.ends_with(".unfinished"), "{name}");
            fs::remove_file(place.0.join(name)).unwrap();
        }

        // The last call in the order of the file cannot be read.
        let spoil =
            "update calls set attempts = '[{}]' where call_id = (select max(call_id) from calls)";
        database.connect().await.execute(spoil).await.unwrap();
        let mut failing = vec!["export", "--database-url"];
        let url = database.url();
        failing.push(&url);
        failing.extend(arguments);
        let output = callstate(&failing);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("column attempts"), "{said}");
        assert_eq!(names_in(&place.0), names);
        assert!(callstate(&["rebuild", "--database-url", &url]).status.success());
    }
    export(&database, &arguments.join(" "));
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1 + 38);
}

#[test]
fn what_cannot_be_exported_is_a_mistake() {
    let place = Place::new();
    let file = place.0.join("there.csv");
    fs::write(&file, "as it was\n").unwrap();
    let (file, folder) = (file.to_str().unwrap(), place.0.to_str().unwrap());
    // Nobody listens there: all this is told before the database is asked.
    let url = "postgres://nobody@127.0.0.1:1/none";
    for (arguments, status, said) in [
        (vec!["deliveries", "--format", "csv"], 2, "deliveries are exported as jsonl only"),
        (vec!["deliveries", "-o", "d.parquet"], 2, "deliveries are exported as jsonl only"),
        (
            vec!["calls", "--from", "2026-05-12T00:00:00Z", "--to", "2026-05-12T00:00:00Z"],
            2,
            "--from: must be before --to",
        ),
        (vec!["calls", "--from", "yesterday"], 2, "--from <TIME>"),
        (vec!["calls", "-o", file], 1, "there.csv is there (--force replaces it)"),
        (vec!["calls", "--force", "-o", folder], 1, "it is there, and is no file"),
        (vec!["calls", "--force", "-o", "/dev/null"], 1, "it is there, and is no file"),
        (vec!["calls", "-o", "/nowhere/calls.csv"], 1, "cannot write /nowhere/calls.csv"),
    ] {
        let mut all = vec!["export", "--database-url", url];
        all.extend(&arguments);
        let output = callstate(&all);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(said), "{arguments:?}: {told}");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "as it was\n");
    assert_eq!(names_in(&place.0), ["there.csv"]);
}

/// The position that an export of calls prints.
fn position(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said.lines().find_map(|line| line.strip_prefix("position ")).unwrap().to_owned()
}

#[tokio::test]
async fn changed_after_exports_the_calls_with_later_events() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let export_after = |arguments: &[&str]| {
        let url = database.url();
        callstate(&[&["export", "calls", "--database-url", &url], arguments].concat())
    };
    let call_ids = |output: &Output| {
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["call_id"].clone();
        lines.lines().map(id).collect::<Vec<_>>()
    };
    for call in ["first", "second"] {
        service.deliver(delivery("OUTBOUND_CALL_PENDING", call, 1, None).to_string()).await.ok();
    }
    let all = export_after(&[]);
    assert_eq!(call_ids(&all), ["first", "second"]);
    let start = position(&all);

    let nothing = export_after(&["--changed-after", &start]);
    assert_eq!((call_ids(&nothing).len(), position(&nothing)), (0, start.clone()));

    for (call, event_type) in [("third", "PENDING"), ("first", "CALLING")] {
        let event_type = format!("OUTBOUND_CALL_{event_type}");
        service.deliver(delivery(&event_type, call, 2, None).to_string()).await.ok();
    }
    let changed = export_after(&["--changed-after", &start]);
    assert_eq!(call_ids(&changed), ["first", "third"]);
    // The position is the id of the last event in the feed.
    let feed = service.get(&format!("/events?after={start}")).await.ok();
    assert_eq!(feed["next"], position(&changed));

    // A position that this database cannot continue from.
    let (feed_id, _) = start.split_once('-').unwrap();
    for (wrong, said, status) in [
        ("1-1", "is a position of another feed", 1),
        (&*format!("{feed_id}-99"), "is after the end of the feed", 1),
        ("yesterday", "not a position of the change feed", 2),
    ] {
        let output = export_after(&["--changed-after", wrong]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    let url = database.url();
    let events =
        callstate(&["export", "events", "--changed-after", &start, "--database-url", &url]);
    assert_eq!(events.status.code(), Some(2));
}

#[tokio::test]
async fn an_export_whose_reader_has_enough_ends_without_an_error() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    fill(&service).await;
    service.stop().await;
    for table in TABLES {
        for format in ["csv", "jsonl", "parquet"] {
            let mut command = command();
            command.args(["export", table, "--format", format, "--database-url", &database.url()]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            drop(child.stdout.take());
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{table} as {format}");
        }
    }
}

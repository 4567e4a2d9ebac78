//! What commands say where a person made a small mistake.

use std::{fs, net::TcpListener, process::Output};

use serde_json::Value;

use crate::support::{Database, Place, Service, callstate, delivery::fixture};

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn only_serve_creates_a_cluster() {
    let place = Place::new();
    for data_dir in [place.0.join("absent"), place.0.clone()] {
        let path = data_dir.to_str().unwrap();
        for command in [
            &["migrate"][..],
            &["verify"],
            &["keys", "list"],
            &["quarantine", "list"],
            &["export", "calls"],
            &["import", "/dev/null"],
        ] {
            let output = callstate(&[command, &["--data-dir", path]].concat());
            assert_eq!(output.status.code(), Some(1), "{command:?}");
            let said = said(&output);
            let expected = format!("there is no database in the data directory {path};");
            assert!(said.contains(&expected) && said.contains("callstate serve"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0, "nothing was created");
}

#[tokio::test]
async fn an_export_to_an_unknown_extension_names_the_known_ones() {
    let database = Database::create().await;
    let (place, url) = (Place::new(), database.url());
    let export = |name: &str, more: &[&str]| {
        let file = place.0.join(name);
        let file = file.to_str().unwrap();
        let arguments = ["export", "calls", "--database-url", &url, "-o", file];
        (callstate(&[&arguments[..], more].concat()), place.0.join(name).exists())
    };
    let (output, is_there) = export("calls.xlsx", &[]);
    assert_eq!((output.status.code(), is_there), (Some(2), false));
    let said = said(&output);
    assert!(said.contains(".xlsx") && said.contains(".csv, .jsonl, .parquet"), "{said}");
    for (name, more) in
        [("calls", &[][..]), ("calls.CSV", &[]), ("calls.xlsx", &["--format", "csv"])]
    {
        let (output, is_there) = export(name, more);
        assert!(output.status.success() && is_there, "{name}");
    }
}

#[tokio::test]
async fn an_import_names_the_export_that_a_file_is_of() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    let (place, url) = (Place::new(), database.url());
    let import = |file: &str| callstate(&["import", "--database-url", &url, file]);
    for table in ["calls", "events", "attempts"] {
        for format in ["jsonl", "csv", "parquet"] {
            let file = place.0.join(format!("{table}.{format}"));
            let file = file.to_str().unwrap();
            let export = callstate(&["export", table, "--database-url", &url, "-o", file]);
            assert!(export.status.success(), "{}", said(&export));
            let output = import(file);
            assert_eq!(output.status.code(), Some(1), "{file}");
            let said = said(&output);
            let name = match format {
                "parquet" => "a Parquet file".to_owned(),
                _ => format!("an export of {table}"),
            };
            let expected = format!(
                "line 1 is of {name}; import takes the JSON lines of `callstate export deliveries`"
            );
            assert!(said.contains(&expected), "{file}: {said}");
        }
    }
    let file = place.0.join("empty.jsonl");
    for text in ["", "\n\n"] {
        fs::write(&file, text).unwrap();
        let output = import(file.to_str().unwrap());
        assert!(output.status.success(), "{}", said(&output));
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, "there are no deliveries in the file\n");
    }
}

#[tokio::test]
async fn a_database_without_the_schema_is_one_line_that_names_migrate() {
    let database = Database::create().await;
    let drop =
        "drop schema if exists reporting cascade; drop schema public cascade; create schema public";
    sqlx::raw_sql(drop).execute(&mut database.connect().await).await.unwrap();
    let url = database.url();
    for command in [
        &["verify"][..],
        &["keys", "list"],
        &["keys", "create", "--name", "k"],
        &["quarantine", "list"],
        &["quarantine", "replay", "--all"],
        &["export", "events"],
        &["restore-mark"],
        &["serve", "--no-migrate", "--listen", "127.0.0.1:0"],
    ] {
        let output = callstate(&[command, &["--database-url", &url]].concat());
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let said = said(&output);
        assert!(said.contains("callstate migrate"), "{command:?}: {said}");
        assert!(!said.contains("relation"), "{command:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{command:?}: {said}");
    }
}

#[tokio::test]
async fn a_port_that_is_in_use_names_the_option() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let database = Database::create().await;
    let output = callstate(&["serve", "--listen", &address, "--database-url", &database.url()]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
}

#[test]
fn the_option_port_is_answered_with_listen() {
    for arguments in [&["--port", "9000"][..], &["serve", "--port", "9000"]] {
        let output = callstate(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = said(&output);
        assert!(said.contains("--listen"), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn an_admin_key_that_is_limited_to_projects_is_made_with_a_warning() {
    let database = Database::create().await;
    let url = database.url();
    for (more, is_warned) in [
        (&["--scope", "admin", "--project", "p"][..], true),
        (&["--scope", "admin"], false),
        (&["--project", "p"], false),
    ] {
        let create = ["keys", "create", "--name", "k", "--format", "json", "--database-url", &url];
        let output = callstate(&[&create[..], more].concat());
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).expect("the warning is not on stdout");
        assert_eq!(said(&output).contains("cannot use the quarantine"), is_warned, "{more:?}");
    }
}

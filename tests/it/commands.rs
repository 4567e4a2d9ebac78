//! The commands other than `serve`.

use serde_json::Value;

use crate::support::{Database, Service, callstate};

/// The output of a command that must succeed.
fn printed(arguments: &[&str]) -> String {
    let output = callstate(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("it prints text")
}

#[tokio::test]
async fn the_state_machine_is_the_same_printed_and_served() {
    let text = printed(&["state-machine"]);
    assert!(text.starts_with("STATUSES, by rank"), "{text}");
    assert!(printed(&["state-machine", "--format", "mermaid"]).starts_with("stateDiagram-v2\n"));
    assert!(printed(&["state-machine", "--format", "dot"]).starts_with("digraph "));
    let json: Value =
        serde_json::from_str(&printed(&["state-machine", "--format", "json"])).unwrap();
    assert_eq!(json["events"].as_array().unwrap().len(), 18);

    let service = Service::start(&Database::create().await).await;
    assert_eq!(service.get("/state-machine").await.ok(), json);
}

#[tokio::test]
async fn migrate_runs_pending_migrations_once() {
    let database = Database::create().await;
    sqlx::raw_sql(
        "drop schema if exists reporting cascade; drop schema public cascade; create schema public",
    )
    .execute(&mut database.connect().await)
    .await
    .unwrap();
    for command in [&["verify"][..], &["export", "calls"], &["export", "deliveries"]] {
        let output = callstate(&[command, &["--database-url", &database.url()]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("callstate migrate brings it"), "{command:?}: {said}");
    }
    let migrate = ["migrate", "--database-url", &database.url()];
    let first = printed(&migrate);
    assert!(first.contains("create calls"), "{first}");
    let second = printed(&migrate);
    assert!(!second.contains("create calls"), "{second}");
    printed(&["verify", "--database-url", &database.url()]);
}

#[tokio::test]
async fn db_url_prints_a_url_that_connects() {
    use sqlx::Connection as _;

    let database = Database::create().await;
    let url = printed(&["db-url", "--database-url", &database.url()]);
    sqlx::PgConnection::connect(url.trim()).await.expect("it is of a running server");
}

#[test]
fn config_check_opens_neither_socket_nor_database() {
    let checked =
        printed(&["config", "check", "--listen", "127.0.0.1:1", "--data-dir", "/nowhere"]);
    assert!(checked.contains("127.0.0.1:1") && checked.contains("/nowhere"), "{checked}");

    let output = callstate(&["config", "check", "--listen", "nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("callstate: --listen: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_database_url_without_a_user_names_the_user_of_the_process() {
    let check = ["config", "check", "--database-url", "postgres://127.0.0.1/calls"];
    let checked = callstate(&check);
    let checked = String::from_utf8(checked.stdout).unwrap();
    let user = std::process::Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(user.stdout).unwrap();
    assert!(checked.contains(&format!("postgres://{}@127.0.0.1", user.trim())), "{checked}");
}

#[test]
fn a_mistyped_argument_is_named_with_exit_status_2() {
    for (arguments, mistake) in [
        (&["sevre"][..], "sevre"),
        (&["export", "calls", "--from", "2026-05-12"], "is not a time, such as 2026-"),
        (&["serve", "--lisen", "x"], "--lisen"),
        (&["state-machine", "--format", "xml"], "xml"),
    ] {
        let output = callstate(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(mistake), "{said}");
    }
}

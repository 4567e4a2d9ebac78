//! The files for running it: alerts, dashboard, backup, completions.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use callstate::managed_postgres::binaries::Programs;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::{Database, Place, Service, callstate, delivery::fixture};

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The names of metrics in an expression of Prometheus.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let is_metric = |word: &&str| word.starts_with("callstate_") || word.starts_with("process_");
    words.filter(is_metric).map(str::to_owned).collect()
}

/// The names of the metrics of a service that has received something.
async fn metrics() -> BTreeSet<String> {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("RECHO_WEBHOOK_TOKEN", "token");
    })
    .await;
    let request = service.request("POST", "/webhooks").body(fixture("outbound_busy"));
    service.send(request.header("Authorization", "Bearer token")).await.ok();
    service.deliver("{}").await.problem(401);
    let text = service.get("/metrics").await.text;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

/// The alerts: each name with its expression.
fn alerts() -> Vec<(String, String)> {
    let rules = file("deploy/prometheus/alerts.yaml");
    let values = |key: &str| -> Vec<String> {
        rules.lines().filter_map(|line| line.trim().strip_prefix(key)).map(str::to_owned).collect()
    };
    let (names, expressions) = (values("- alert: "), values("expr: "));
    assert_eq!(names.len(), expressions.len());
    names.into_iter().zip(expressions).collect()
}

/// The targets of the panels of the dashboard, with the titles of the panels.
fn targets() -> Vec<(String, Value)> {
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/callstate.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap().to_owned();
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.map(move |target| (title.clone(), target.clone()))
        })
        .collect()
}

#[tokio::test]
async fn every_metric_of_an_alert_or_a_panel_exists() {
    let metrics = metrics().await;
    let panels = targets()
        .into_iter()
        .filter_map(|(title, target)| Some((title, target["expr"].as_str()?.to_owned())));
    let mut used = 0;
    for (name, expression) in alerts().into_iter().chain(panels) {
        for metric in metrics_in(&expression) {
            used += 1;
            assert!(metrics.contains(&metric), "{name}: there is no {metric}");
        }
    }
    assert!(used > 40, "only {used} metrics were found");
}

#[test]
fn every_alert_is_explained() {
    let page = file("docs/operations.md");
    let rules = file("deploy/prometheus/alerts.yaml");
    for (name, _) in alerts() {
        assert!(page.contains(&format!("\n### {name}\n")), "{name}");
        let anchor = name.to_lowercase();
        assert!(rules.contains(&format!("runbook: docs/operations.md#{anchor}\n")), "{name}");
    }
}

#[tokio::test]
async fn the_statements_of_the_dashboard_run_as_the_reporting_role() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(fixture("outbound_error")).await.ok();
    let mut connection = database.connect().await;
    let mut statements = 0;
    for (title, target) in targets() {
        let Some(sql) = target["rawSql"].as_str() else { continue };
        // As Grafana fills it in.
        let sql: String = sql
            .split("$__timeFilter(")
            .enumerate()
            .map(|(number, part)| match (number, part.split_once(')')) {
                (0, _) | (_, None) => part.to_owned(),
                (_, Some((column, rest))) => {
                    format!("{column} between '2020-01-01' and '2040-01-01'{rest}")
                }
            })
            .collect();
        let sql = format!("set local role callstate_reporting; {sql}");
        connection.execute("begin").await.unwrap();
        let result = connection.execute(AssertSqlSafe(sql)).await;
        assert!(result.is_ok(), "{title}: {result:?}");
        connection.execute("rollback").await.unwrap();
        statements += 1;
    }
    assert_eq!(statements, 4);
}

/// The blocks of shell commands of a page.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Runs commands of a page with a database.
fn run(commands: &str, database: &Database, folder: &Place) {
    let programs = Programs::installed(None, Path::new("/nowhere")).expect("Postgres is installed");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_callstate"));
    let path = [programs[0].dir.as_path(), program.parent().unwrap()];
    let path: Vec<String> = path.iter().map(|it| it.display().to_string()).collect();
    let path = format!("{}:{}", path.join(":"), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .env_clear()
        .env("PATH", path)
        .env("DATABASE_URL", database.url())
        .current_dir(&folder.0)
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{said}");
}

#[tokio::test]
async fn a_backup_is_made_and_restored_by_the_commands_of_its_page() {
    let (from, to) = (Database::create().await, Database::create().await);
    let folder = Place::new();
    let service = Service::start(&from).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    let commands = commands(&file("docs/backup.md"));
    let [dump, restore, export] = commands.as_slice() else {
        panic!("the page has three blocks of commands: {commands:?}");
    };
    run(dump, &from, &folder);
    run(export, &from, &folder);
    run(restore, &to, &folder);
    let restored = Service::start(&to).await;
    assert_eq!(restored.get("/calls/out-08").await.ok()["status"], "BUSY");
    assert_eq!(restored.deliver(fixture("outbound_busy")).await.ok()["disposition"], "duplicate");
    // A client that followed the original notices.
    let feed = |page: Value| page["next"].as_str().unwrap().split('-').next().unwrap().to_owned();
    let original = feed(service.get("/events").await.ok());
    assert_ne!(feed(restored.get("/events").await.ok()), original);
    let exported = fs::read_to_string(folder.0.join("deliveries.jsonl")).unwrap();
    assert_eq!(exported.lines().count(), 1);
}

#[test]
fn completions_are_scripts_that_know_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = callstate(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        for command in ["serve", "erase", "quarantine", "restore-mark"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        if shell == "bash" {
            let checked = Command::new("bash").args(["-n", "-c", &script]).status().unwrap();
            assert!(checked.success());
        }
    }
    assert_eq!(callstate(&["completions", "cmd"]).status.code(), Some(2));
}

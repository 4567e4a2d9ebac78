//! `GET /metrics`.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Database, Lock, Service, callstate, delivery::fixture};

/// The samples, by name and labels as they are written.
async fn counted(service: &Service) -> BTreeMap<String, String> {
    let answer = service.get("/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    samples(&answer.text)
}

/// Reads the text format line by line, as a scraper does.
fn samples(text: &str) -> BTreeMap<String, String> {
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let mut described = BTreeSet::new();
    let (mut family, mut kind) = ("", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(!help.is_empty(), "{line}");
            assert!(described.insert(name), "{name} is described twice");
            family = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of_kind) = rest.split_once(' ').expect(line);
            assert_eq!(name, family, "the type follows the help");
            assert!(["counter", "gauge", "histogram"].contains(&of_kind), "{line}");
            assert_eq!(of_kind == "counter", name.ends_with("_total"), "{line}");
            kind = of_kind;
        } else {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(labels.ends_with('}'), "{line}");
            let suffix = name.strip_prefix(family).expect(line);
            match kind {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                _ => assert_eq!(suffix, "", "{line}"),
            }
            value.parse::<f64>().expect(line);
            let earlier = samples.insert(series.to_owned(), value.to_owned());
            assert!(earlier.is_none(), "{series} is there twice");
        }
    }
    samples
}

fn outcome(outcome: &str) -> String {
    format!("callstate_deliveries_total{{endpoint=\"default\",outcome=\"{outcome}\"}}")
}

fn requests(route: &str, status: &str) -> String {
    format!("callstate_http_requests_total{{route=\"{route}\",status=\"{status}\"}}")
}

#[tokio::test]
async fn deliveries_are_counted_by_outcome() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("RECHO_WEBHOOK_TOKEN", "token").env("CALLSTATE_MAX_DELIVERY_BYTES", "2048");
    })
    .await;
    let before = counted(&service).await;
    assert_eq!(before[&outcome("advanced")], "0");
    let post = async |token: &str, body: Vec<u8>| {
        let request = service.request("POST", "/webhooks").body(body);
        service.send(request.header("Authorization", format!("Bearer {token}"))).await.status
    };
    assert_eq!(post("token", fixture("outbound_busy")).await, 200);
    assert_eq!(post("token", fixture("outbound_busy")).await, 200);
    assert_eq!(post("wrong", fixture("outbound_busy")).await, 401);
    assert_eq!(post("token", b"no JSON".to_vec()).await, 202);
    assert_eq!(post("token", b"no JSON".to_vec()).await, 202);
    assert_eq!(post("token", b"{}".to_vec()).await, 202);
    assert_eq!(post("token", vec![b' '; 3000]).await, 413);
    service.deliver(fixture("outbound_busy")).await.problem(401);
    service.deliver_to("/webhooks/nowhere", "{}").await.problem(404);
    // A reload of the tokens does not reset the counters.
    service.hang_up();
    service.said("tokens and keys were read again").await;
    assert_eq!(post("token", fixture("outbound_busy")).await, 200);

    let counted = counted(&service).await;
    for (expected, is) in [
        ("advanced", "1"),
        ("duplicate", "2"),
        ("late", "0"),
        ("quarantined", "3"),
        ("401", "2"),
        ("413", "1"),
    ] {
        assert_eq!(counted[&outcome(expected)], is, "{expected}");
    }
    let not_authentic = |cause: &str| {
        let name = "callstate_deliveries_not_authentic_total";
        &counted[&format!("{name}{{cause=\"{cause}\",endpoint=\"default\"}}")]
    };
    assert_eq!(not_authentic("token_unknown"), "1");
    assert_eq!(not_authentic("token_missing"), "1");
    assert_eq!(counted["callstate_quarantine_kept_total"], "2");
    assert_eq!(counted["callstate_quarantine_dropped_total"], "0");
    assert_eq!(counted["callstate_ingest_batch_deliveries_count"], "3");
    assert_eq!(counted["callstate_ingest_batch_deliveries_sum"], "3");
    assert_eq!(counted["callstate_ingest_commit_seconds_count"], "3");
    assert_eq!(counted["callstate_ingest_waiting_deliveries"], "0");
    assert_eq!(counted["callstate_ingest_waiting_bytes"], "0");
    assert_eq!(counted["callstate_ingest_splits_total"], "0");
    assert!(counted.contains_key("callstate_ingest_contended_rounds_total"));
    assert_eq!(counted[&requests("/webhooks", "2xx")], "6");
    assert_eq!(counted[&requests("/webhooks", "4xx")], "3");
    assert_eq!(counted[&requests("/webhooks/{endpoint}", "4xx")], "1");
    assert!(!counted.keys().any(|series| series.contains("nowhere")));
}

#[tokio::test]
async fn bytes_of_a_delivery_are_counted_until_it_is_committed() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let mut lock = Lock::take(&database).await;
    let body = fixture("outbound_busy");
    let under_way = service.deliver(body.clone());
    let meanwhile = async {
        lock.somebody_waits().await;
        let counted = counted(&service).await;
        lock.release().await;
        counted
    };
    let (answer, meanwhile) = tokio::join!(under_way, meanwhile);
    answer.ok();
    assert_eq!(meanwhile["callstate_ingest_waiting_bytes"], body.len().to_string());
    assert_eq!(counted(&service).await["callstate_ingest_waiting_bytes"], "0");
}

#[tokio::test]
async fn requests_are_counted_by_route_template() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    service.deliver(fixture("outbound_busy")).await.ok();
    service.get("/calls/out-08").await.ok();
    service.get("/calls/nobody").await.problem(404);
    service.get("/calls/nobody/history").await.problem(404);
    service.get("/made/up").await.problem(404);
    let counted = counted(&service).await;
    assert_eq!(counted[&requests("/calls/{call_id}", "2xx")], "1");
    assert_eq!(counted[&requests("/calls/{call_id}", "4xx")], "1");
    assert_eq!(counted[&requests("/calls/{call_id}/history", "4xx")], "1");
    assert_eq!(counted[&requests("none", "4xx")], "1");
    let took = "callstate_http_request_seconds_count{route=\"/calls/{call_id}\"}";
    assert_eq!(counted[took], "2");
    assert_eq!(counted["callstate_http_connections"], "1");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(counted[&format!("callstate_build_info{{version=\"{version}\"}}")], "1");
    let held = ["idle", "in_use"]
        .map(|state| &counted[&format!("callstate_database_connections{{state=\"{state}\"}}")]);
    assert_ne!(held, ["0", "0"]);
    let routes: BTreeSet<&str> = counted
        .keys()
        .filter_map(|series| series.split("route=\"").nth(1)?.split('"').next())
        .collect();
    assert_eq!(routes.len(), 25, "{routes:?}");
}

#[tokio::test]
async fn a_key_limited_to_projects_cannot_read_the_metrics() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.arg("--require-key");
    })
    .await;
    let status = async |more: &[&str]| {
        let name = ["keys", "create", "--name", "one", "--database-url"];
        let key = callstate(&[&name[..], &[&database.url()], more].concat());
        let key = String::from_utf8(key.stdout).unwrap();
        let request = service.request("GET", "/metrics");
        let request = request.header("Authorization", format!("Bearer {}", key.trim()));
        service.send(request).await.status
    };
    service.get("/metrics").await.problem(401);
    assert_eq!(status(&["--scope", "read"]).await, 200);
    assert_eq!(status(&["--project", "one"]).await, 403);
}

#[tokio::test]
async fn the_state_of_the_store_is_measured() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command.env("CALLSTATE_METRICS_STALLED_AFTER", "2h");
    })
    .await;
    service.deliver(fixture("outbound_busy")).await.ok();
    service.deliver(fixture("outbound_calling")).await.ok();
    service.deliver(fixture("inbound_calling")).await.ok();
    service.deliver("{}").await.quarantined();
    sqlx::query!(
        "update calls set last_delivered_at = now() - interval '3 hours' where direction = 'inbound'"
    )
        .execute(&mut database.connect().await)
        .await
        .unwrap();
    let counted = counted(&service).await;
    for (metric, is) in [
        ("callstate_calls{status=\"CALLING\"}", "2"),
        ("callstate_calls{status=\"PENDING\"}", "0"),
        ("callstate_calls{status=\"UNKNOWN\"}", "0"),
        ("callstate_calls_stalled", "1"),
        ("callstate_quarantine_entries", "1"),
        ("callstate_migrations_pending", "0"),
        ("callstate_feed_position", "3"),
        ("callstate_stream_lag_positions", "0"),
        ("callstate_database_up", "1"),
        ("callstate_ingest_healthy", "1"),
    ] {
        assert_eq!(counted[metric], is, "{metric}");
    }
    assert!(!counted.contains_key("callstate_calls{status=\"BUSY\"}"));
    let number = |metric: &str| counted[metric].parse::<f64>().unwrap();
    assert!(number("callstate_database_size_bytes") > 1e6);
    assert!(number("callstate_last_event_age_seconds{endpoint=\"default\"}") < 3600.0);
    // The samples happened in May 2026.
    assert!((1.77e9..1.79e9).contains(&number("callstate_oldest_call_timestamp_seconds")));
    assert!(number("callstate_oldest_payload_timestamp_seconds") > 1.7e9);
    assert!(number("process_open_fds") > 0.0);
}

#[tokio::test]
async fn while_the_database_is_away_its_metrics_are_missing() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    database.close().await;
    let away = counted(&service).await;
    assert_eq!(away["callstate_database_up"], "0");
    assert!(!away.contains_key("callstate_quarantine_entries"));
    database.open().await;
    service.counts("callstate_database_up", 1).await;
    let back = counted(&service).await;
    assert_eq!(back["callstate_quarantine_entries"], "0");
}

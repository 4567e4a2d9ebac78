//! `callstate simulate` against a real service.

use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::{Database, Service, callstate, key_path};

/// Some hundred calls of which everything goes wrong.
const CALLS: &str = "--calls 150 --connections 8 --projects 3 --duplicates 15% --reorder 20% \
                     --drop 10% --unknown 5% --format json";

/// What a run says, and how it ended.
fn simulate(url: &str, options: &str) -> (serde_json::Value, Option<i32>, String) {
    let arguments: Vec<&str> =
        ["simulate", "--url", url].into_iter().chain(options.split_whitespace()).collect();
    let output = callstate(&arguments);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (report, output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn webhooks(service: &Service) -> String {
    format!("{}/webhooks", service.base_url())
}

#[tokio::test]
async fn whatever_goes_wrong_on_the_way_every_call_is_as_it_should_be() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let (report, status, said) = simulate(&webhooks(&service), &format!("{CALLS} --seed 1"));
    assert_eq!((status, said.as_str()), (Some(0), ""), "{report:#}");
    let count = |pointer: &str| report.pointer(pointer).unwrap().as_u64().unwrap();
    assert_eq!((count("/check/calls"), count("/check/difference_count")), (150, 0));
    assert!(count("/deliveries/copies") > 50 && count("/events/lost") > 50);
    let verified = callstate(&["verify", "--database-url", &database.url()]);
    assert!(verified.status.success());
}

#[tokio::test]
async fn a_run_again_at_the_same_time_is_a_run_of_duplicates() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let options = format!("{CALLS} --seed 2 --at 2026-05-12T10:24:00Z");
    let (first, ..) = simulate(&webhooks(&service), &options);
    let (again, status, _) = simulate(&webhooks(&service), &options);
    assert_eq!(status, Some(0), "{again:#}");
    assert_eq!(first["deliveries"], again["deliveries"]);
    let verified = callstate(&["verify", "--database-url", &database.url()]);
    let said = String::from_utf8(verified.stdout).unwrap();
    let events = &first["events"]["taken"];
    assert!(said.starts_with(&format!("folded {events} events of ")), "{said}");
}

#[tokio::test]
async fn what_is_not_as_it_should_be_is_told() {
    let options = format!("{CALLS} --seed 3 --at 2026-05-12T10:24:00Z");
    for (tampering, what, by) in [
        ("update calls set status = 'CALLING' where status = 'COMPLETED'", "status", "scenario"),
        ("update calls set attempts = '[]' where status = 'BUSY'", "attempts", "scenario"),
        (
            "update calls set anomaly_count = 9 where status = 'EXPIRED'",
            "anomaly_count",
            "scenario",
        ),
        ("delete from calls where status = 'CANCELED'", "call", "scenario"),
        (
            "update events set delivery_count = delivery_count - 1 where delivery_count > 2",
            "delivery_count of ",
            "answers",
        ),
    ] {
        let database = Database::create().await;
        let service = Service::start(&database).await;
        simulate(&webhooks(&service), &options);
        let mut connection = database.connect().await;
        // Each event has been told; it is told once more, and looked at.
        let tampered = connection.execute(AssertSqlSafe(tampering)).await.unwrap();
        assert!(tampered.rows_affected() > 0, "{tampering}");
        let again = format!("{options} --check all");
        let (report, status, _) = simulate(&webhooks(&service), &again);
        let difference = &report["check"]["differences"][0];
        assert_eq!(status, Some(1), "{tampering}");
        assert!(difference["what"].as_str().unwrap().starts_with(what), "{difference:#}");
        assert_eq!(difference["expected_by"], by);
    }
}

#[tokio::test]
async fn days_go_by_in_seconds() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let options = "--calls 100 --backdate 2d --time-scale 172800 --duplicates 10% --format json";
    let (report, status, said) = simulate(&webhooks(&service), options);
    assert_eq!((status, said.as_str()), (Some(0), ""), "{report:#}");
    assert!(report["seconds"].as_f64().unwrap() >= 0.5);
}

#[tokio::test]
async fn deliveries_prove_where_they_come_from() {
    let database = Database::create().await;
    let service = Service::start_with(&database, |command| {
        command
            .env("CALLSTATE_WEBHOOKS_PARTNER_AUTH", "bearer")
            .env("CALLSTATE_WEBHOOKS_PARTNER_TOKENS", "right-token")
            .env("CALLSTATE_WEBHOOKS_PRODUCTION_AUTH", "rsa-sha256")
            .env(
                "CALLSTATE_WEBHOOKS_PRODUCTION_PUBLIC_KEYS",
                format!("file:{}", key_path("rsa-2048.spki")),
            );
    })
    .await;
    let (partner, production) =
        (format!("{}/partner", webhooks(&service)), format!("{}/production", webhooks(&service)));
    let signed = format!("--calls 5 --private-key {}", key_path("rsa-2048.private"));
    assert_eq!(simulate(&partner, "--calls 5 --token right-token").1, Some(0));
    assert_eq!(simulate(&production, &signed).1, Some(0));

    for (url, options) in [(&partner, "--token wrong-token"), (&production, "")] {
        let (report, status, _) = simulate(url, &format!("{options} --format json"));
        assert_eq!(status, Some(1));
        assert_eq!(report["ended_early"], "the service refuses every delivery: 401");
        assert_eq!(report["events"]["taken"], 0);
    }
}

#[tokio::test]
async fn where_nothing_answers_the_run_ends() {
    // Bound, but not listening: whoever connects is refused.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/webhooks", nobody.local_addr().unwrap());
    let (report, status, _) = simulate(&url, "--patience 50ms --format json");
    assert_eq!(status, Some(1));
    assert!(report["ended_early"].as_str().unwrap().starts_with("no delivery was taken for "));
    assert_eq!(report["check"], serde_json::Value::Null);
}

#[test]
fn another_machine_is_spared() {
    for url in ["http://callstate.example.com/webhooks", "https://10.0.0.1/webhooks"] {
        let (_, status, said) = simulate(url, "");
        assert_eq!(status, Some(2));
        assert!(said.contains("is not this machine") && said.contains("--yes-really"), "{said}");
    }
}

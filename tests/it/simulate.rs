//! `callstate simulate` against a running service.

use axum::{
    Router,
    http::{StatusCode, header},
};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::support::{Database, Service, callstate, command, key_path};

/// 150 calls whose deliveries are duplicated, reordered and lost.
const CALLS: &str = "--calls 150 --connections 8 --projects 3 --duplicates 15% --reorder 20% \
                     --drop 10% --unknown 5% --format json";

/// The report of a run, its exit status, and its standard error without progress.
fn simulate(url: &str, options: &str) -> (serde_json::Value, Option<i32>, String) {
    let arguments: Vec<&str> =
        ["simulate", "--url", url].into_iter().chain(options.split_whitespace()).collect();
    let output = callstate(&arguments);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let said = String::from_utf8(output.stderr).unwrap();
    (report, output.status.code(), said.lines().filter(|line| !is_progress(line)).collect())
}

/// Whether a line reports progress, as in a run that takes long.
fn is_progress(line: &str) -> bool {
    line.ends_with(" calls checked") || line.ends_with(" deliveries taken")
}

fn webhooks(service: &Service) -> String {
    format!("{}/webhooks", service.base_url())
}

#[tokio::test]
async fn every_call_is_correct_although_deliveries_are_duplicated_reordered_and_lost() {
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
async fn a_second_run_with_the_same_seed_and_time_sends_duplicates() {
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

/// Makes the database change rows that the service writes. In the SQL, `status_id` is the id of a status.
async fn tamper(database: &Database, trigger: &str, what: &str) {
    let sql = format!(
        "create function status_id(name text) returns smallint language sql stable as
            'select id from public.status_spec where status = name';
        create function tamper() returns trigger language plpgsql as $$ begin {what} end $$;
        create trigger tamper {trigger} execute function tamper()"
    );
    database.connect().await.execute(AssertSqlSafe(sql)).await.unwrap();
}

#[tokio::test]
async fn differences_from_the_expected_calls_are_reported() {
    const CALL: &str = "before insert or update on calls for each row";
    const EVENT: &str = "before update on events for each row";
    for (trigger, when, then, what, by) in [
        (
            CALL,
            "new.status = status_id('COMPLETED')",
            "new.status = status_id('EXPIRED')",
            "status",
            "scenario",
        ),
        (
            CALL,
            "new.status = status_id('BUSY')",
            "new.attempts = jsonb_set(new.attempts, '{0,status}', '\"CALLING\"')",
            "attempts",
            "scenario",
        ),
        (
            CALL,
            "new.status = status_id('EXPIRED')",
            "new.anomaly_count = 9",
            "anomaly_count",
            "scenario",
        ),
        (EVENT, "true", "new.delivery_count = 1", "delivery_count of ", "answers"),
    ] {
        let database = Database::create().await;
        let service = Service::start(&database).await;
        let trigger = format!("{trigger} when ({when})");
        tamper(&database, &trigger, &format!("{then}; return new;")).await;
        let (report, status, _) = simulate(&webhooks(&service), &format!("{CALLS} --seed 3"));
        let differences = report["check"]["differences"].as_array().unwrap();
        assert_eq!((status, differences.is_empty()), (Some(1), false), "{then}");
        for difference in differences {
            assert!(difference["what"].as_str().unwrap().starts_with(what), "{difference:#}");
            assert_eq!(difference["expected_by"], by);
        }
    }
}

#[tokio::test]
async fn a_missing_call_is_reported() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let lose = "delete from events where call = new.id;
        delete from calls where id = new.id;
        return null;";
    let when =
        "after insert or update on calls for each row when (new.status = status_id('EXPIRED'))";
    tamper(&database, when, lose).await;
    let (report, status, _) = simulate(&webhooks(&service), "--calls 150 --seed 5 --format json");
    assert_eq!(status, Some(1));
    let differences = report["check"]["differences"].as_array().unwrap();
    assert!(!differences.is_empty());
    assert_eq!(report["calls_by_kind"]["expired"], differences.len());
    for difference in differences {
        assert_eq!((&difference["what"], &difference["kind"]), (&"call".into(), &"expired".into()));
        assert_eq!(difference["expected"], "a call that is EXPIRED");
        assert_eq!(difference["found"], "no such call");
    }
}

#[tokio::test]
async fn deliveries_that_are_not_answered_2xx_are_sent_again() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    // A sequence is not rolled back with its transaction.
    database.connect().await.execute("create sequence tries").await.unwrap();
    let fail = "if nextval('tries') <= 20 then raise 'not yet'; end if; return new;";
    tamper(&database, "before insert on events for each row", fail).await;
    let (report, status, said) = simulate(&webhooks(&service), &format!("{CALLS} --seed 4"));
    assert_eq!((status, said.as_str()), (Some(0), ""), "{report:#}");
    let count = |pointer: &str| report.pointer(pointer).unwrap().as_u64().unwrap();
    let answers = report["answers"].as_object().unwrap();
    let refusals = answers.iter().filter(|(status, _)| *status != "200");
    let refusals: u64 = refusals.map(|(_, count)| count.as_u64().unwrap()).sum();
    assert!(refusals > 0);
    assert_eq!((count("/deliveries/retries"), count("/deliveries/given_up")), (refusals, 0));
    assert_eq!((count("/check/calls"), count("/check/undecided")), (150, 0));
}

#[tokio::test]
async fn a_run_may_be_bounded_by_its_duration() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let options = "--duration 300ms --connections 2 --check 10% --format json";
    let (report, status, said) = simulate(&webhooks(&service), options);
    assert_eq!((status, said.as_str()), (Some(0), ""), "{report:#}");
    let count = |pointer: &str| report.pointer(pointer).unwrap().as_u64().unwrap();
    assert!(count("/calls") > 0 && count("/check/calls") <= count("/calls"), "{report:#}");
}

#[tokio::test]
async fn the_time_scale_compresses_days_into_seconds() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let options = "--calls 100 --backdate 2d --time-scale 172800 --duplicates 10% --format json";
    let (report, status, said) = simulate(&webhooks(&service), options);
    assert_eq!((status, said.as_str()), (Some(0), ""), "{report:#}");
    assert!(report["seconds"].as_f64().unwrap() >= 0.5);
}

#[tokio::test]
async fn deliveries_are_sent_with_a_token_or_a_signature() {
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
async fn a_run_ends_if_no_service_answers() {
    // Bound, but not listening: connections are refused.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/webhooks", nobody.local_addr().unwrap());
    let (report, status, _) = simulate(&url, "--patience 50ms --format json");
    assert_eq!(status, Some(1));
    let why = report["ended_early"].as_str().unwrap();
    assert!(why.starts_with("no delivery was taken for "), "{why}");
    assert!(why.contains(": no connection (Connection refused"), "{why}");
    assert_eq!(report["check"], serde_json::Value::Null);
}

#[tokio::test]
async fn without_a_url_the_configured_address_is_used() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    let address = webhooks(&service).replace("http://", "").replace("/webhooks", "");
    let run = |listen: &str| {
        let output =
            command().args(["simulate", "--calls", "3"]).env("CALLSTATE_LISTEN", listen).output();
        let output = output.unwrap();
        let said = |text| String::from_utf8(text).unwrap();
        (output.status.code(), said(output.stdout), said(output.stderr))
    };
    let (status, report, _) = run(&address);
    assert_eq!(status, Some(0));
    assert!(report.starts_with(&format!("to          http://{address}/webhooks\n")), "{report}");
    let (status, _, said) = run("127.0.0.1:0");
    assert_eq!(status, Some(2));
    assert!(said.contains("--url: is needed"), "{said}");
}

#[tokio::test]
async fn a_retry_after_beyond_the_patience_is_tried_once_more() {
    let busy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks", busy.local_addr().unwrap());
    let later = Router::new()
        .fallback(async || (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "3600")]));
    let server = tokio::spawn(axum::serve(busy, later).into_future());
    let run = move || simulate(&url, "--calls 1 --patience 1s --format json");
    let (report, status, _) = tokio::task::spawn_blocking(run).await.unwrap();
    assert_eq!(status, Some(1));
    let why = report["ended_early"].as_str().unwrap();
    assert!(why.starts_with("no delivery was taken for ") && why.ends_with(" s: 503"), "{why}");
    assert_eq!(report["answers"]["503"], 2);
    server.abort();
}

#[tokio::test]
async fn another_machine_needs_a_confirmation() {
    let database = Database::create().await;
    let service = Service::start(&database).await;
    // An address that is not known to be this machine, but leads to it.
    let url = webhooks(&service).replace("127.0.0.1", "0.0.0.0");
    assert_eq!(simulate(&url, "--calls 5").1, Some(2));
    assert_eq!(simulate(&url, "--calls 5 --yes-really").1, Some(0));

    for url in ["http://callstate.example.com/webhooks", "https://10.0.0.1/webhooks"] {
        let (_, status, said) = simulate(url, "");
        assert_eq!(status, Some(2));
        assert!(said.contains("is not this machine") && said.contains("--yes-really"), "{said}");
    }
}

#[test]
fn a_bad_option_is_an_error_of_one_line_that_names_it() {
    let no_key = format!("--private-key {}", key_path("rsa-2048.spki"));
    for (options, said_of_it) in [
        ("--duplicates 2", "is not a share"),
        ("--check some", "is not all, none or a share"),
        ("--rate 0", "is not a number from 0.001"),
        ("--time-scale 0.5", "is not a number from 1 "),
        ("--backdate yesterday", "is not a duration"),
        ("--calls 0", "--calls"),
        ("--switched-off OUTBOUND_CALL_LOST", "--switched-off"),
        ("--time-scale 2 --duration 1s --backdate 1h", "--duration and --backdate"),
        ("--time-scale 1e6 --duration 1d", "--duration × --time-scale"),
        ("--at 2999-01-01T00:00:00Z", "--at: "),
        ("--at 0000-05-12T10:24:00Z", "is before 1970"),
        ("--at noon", "is not a time, such as 2026"),
        ("--token env:NOT_THERE", "--token: the variable NOT_THERE is not set"),
        ("--api-key file:not-there", "--api-key: cannot read not-there"),
        ("--private-key not-there", "--private-key: not-there cannot be read"),
        (&no_key, "is not a private key in PEM"),
    ] {
        let (_, status, said) = simulate("http://127.0.0.1:1/webhooks", options);
        assert_eq!(status, Some(2), "{options}");
        assert!(said.contains(said_of_it), "{options}: {said}");
    }
    for url in ["127.0.0.1:1", "http://127.0.0.1:1/calls"] {
        let (_, status, said) = simulate(url, "");
        assert_eq!(status, Some(2));
        assert!(said.starts_with(&format!("callstate: --url: \"{url}\" is not")), "{said}");
    }
}

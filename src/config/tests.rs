use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::call::ProjectId;
use crate::http::server;
use crate::recho::{ProviderTimeZone, PublicKey};
use crate::store::quarantine::Bounds;

use super::{
    Auth, Config, DatabaseSource, Endpoint, Environment, Flags, Ingest, Inputs, Key, LogFormat,
    Mistakes, Secret, key,
};

mod errors;
mod http;
mod keys;
mod reference;
mod variables;

const RSA_KEY: &str = include_str!("../../tests/fixtures/keys/rsa-2048.spki.pem");

/// Everything a configuration is read from, set up by a test.
struct World {
    flags: Flags,
    environment: Environment,
    files: BTreeMap<PathBuf, String>,
    reads_endpoints: bool,
}

impl World {
    fn new() -> Self {
        Self {
            flags: Flags::default(),
            environment: Environment::default(),
            files: BTreeMap::new(),
            reads_endpoints: true,
        }
    }

    fn without_endpoints(mut self) -> Self {
        self.reads_endpoints = false;
        self
    }

    fn flag(mut self, key: &'static Key, value: &str) -> Self {
        self.flags.set(key, Some(value.to_owned()));
        self
    }

    fn config(mut self, path: &str) -> Self {
        self.flags.config = Some(path.into());
        self
    }

    fn environment<const N: usize>(mut self, variables: [(&str, &str); N]) -> Self {
        self.environment = variables.into();
        self
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.to_owned());
        self
    }

    fn toml(self, text: &str) -> Self {
        self.file("callstate.toml", text)
    }

    fn read(&self) -> Result<Config, Mistakes> {
        Config::read(&Inputs {
            flags: &self.flags,
            environment: &self.environment,
            read_file: &|path: &Path| {
                let text = self.files.get(path).cloned();
                text.ok_or_else(|| io::ErrorKind::NotFound.into())
            },
            default_data_dir: Some("/home/someone/data".into()),
            reads_endpoints: self.reads_endpoints,
        })
    }

    #[track_caller]
    fn right(&self) -> Config {
        self.read().expect("this configuration is right")
    }

    /// The lines of a configuration that is wrong.
    #[track_caller]
    fn wrong(&self) -> Vec<String> {
        let mistakes = self.read().expect_err("this configuration is wrong");
        mistakes.iter().map(ToString::to_string).collect()
    }
}

fn bearer(tokens: &[&str]) -> Auth {
    Auth::Bearer { tokens: tokens.iter().copied().map(Secret::new).collect() }
}

fn public_key(pem: &str) -> PublicKey {
    PublicKey::from_pem(pem).expect("a key of the fixtures")
}

#[test]
fn without_anything_it_is_open_to_this_machine_alone() {
    let config = World::new().right();
    assert_eq!(config.file, None);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    let database =
        DatabaseSource::Managed { data_dir: "/home/someone/data".into(), postgres_bin_dir: None };
    assert_eq!(config.database, database);
    assert!(config.migrate);
    assert_eq!(config.provider_time_zone, ProviderTimeZone::UTC);
    assert_eq!(config.max_delivery_bytes, 1 << 20);
    let default_project = ProjectId::unnamed();
    let endpoint = Endpoint { auth: Auth::None, default_project, projects: None };
    assert_eq!(config.webhooks, BTreeMap::from([("default".to_owned(), endpoint)]));
    let quarantine =
        Bounds { max_entries: 10_000, max_bytes: 1 << 30, max_age: Duration::from_hours(90 * 24) };
    assert_eq!(config.quarantine, quarantine);
    assert!(!config.api.require_key);
    assert_eq!(config.log.format, None);
    assert_eq!(config.exposure(), Ok(()));
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let mut world = World::new();
    assert_eq!(world.right().listen.port(), 8080);
    world = world.toml("listen = '127.0.0.1:1'");
    assert_eq!(world.right().listen.port(), 1);
    world = world.environment([("CALLSTATE_LISTEN", "127.0.0.1:2")]);
    assert_eq!(world.right().listen.port(), 2);
    world = world.flag(&key::LISTEN, "localhost:3");
    assert_eq!(world.right().listen.to_string(), "127.0.0.1:3");
}

#[test]
fn a_value_that_is_overridden_may_be_wrong() {
    let world = World::new().toml("listen = 'nonsense'").flag(&key::LISTEN, "127.0.0.1:3");
    assert_eq!(world.right().listen.port(), 3);
}

#[test]
fn every_key_of_the_file_is_read() {
    let config = World::new()
        .config("etc/callstate.toml")
        .file("etc/recho.pem", RSA_KEY)
        .file(
            "etc/callstate.toml",
            r#"
            listen = "0.0.0.0:80"
            data_dir = "data"
            postgres_bin_dir = "/opt/postgres/bin"
            database_connections = 20
            no_migrate = true
            provider_time_zone = "asia/seoul"
            max_delivery_bytes = 2048
            insecure = true
            log = "debug"
            log_format = "json"

            [quarantine]
            max_entries = 5
            max_bytes = 67108864
            max_age = "36h"

            [api]
            require_key = true

            [http]
            max_connections = 9
            max_unauthenticated_bytes = 9999999
            read_timeout = "5s"
            answer_timeout = "6s"
            idle_timeout = "7s"
            hosts = ["callstate.example"]
            cors_origins = ["https://grafana.example:3000"]
            trusted_proxies = ["10.0.0.0/8"]

            [ingest]
            writers = 3
            batch = 100
            queue = 1000

            [webhooks.default]
            auth = "none"

            [webhooks.production]
            auth = "rsa-sha256"
            public_keys = ["file:recho.pem"]
            timestamp_tolerance = "90s"
            default_project = " 3C9ACFB1-C6B7-4BBC-B6C3-628AF54D56C1"
            projects = ["one", "3C9ACFB1-C6B7-4BBC-B6C3-628AF54D56C1 "]

            [webhooks.partner]
            auth = "bearer"
            tokens = ["one", "env:SECOND"]
            "#,
        )
        .environment([("SECOND", "two")])
        .right();
    assert_eq!(config.listen.to_string(), "0.0.0.0:80");
    let database = DatabaseSource::Managed {
        data_dir: "etc/data".into(),
        postgres_bin_dir: Some("/opt/postgres/bin".into()),
    };
    assert_eq!(config.database, database);
    assert_eq!(config.database_connections, 20);
    assert!(!config.migrate);
    assert_eq!(config.provider_time_zone.to_string(), "Asia/Seoul");
    assert_eq!(config.max_delivery_bytes, 2048);
    assert!(config.insecure);
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.log.format, Some(LogFormat::Json));
    let quarantine =
        Bounds { max_entries: 5, max_bytes: 64 << 20, max_age: Duration::from_hours(36) };
    assert_eq!(config.quarantine, quarantine);
    assert!(config.api.require_key);
    let http = server::HttpSettings {
        max_connections: 9,
        max_unauthenticated_bytes: 9_999_999,
        read_timeout: Duration::from_secs(5),
        answer_timeout: Duration::from_secs(6),
        idle_timeout: Duration::from_secs(7),
        hosts: Some(vec!["callstate.example".to_owned()]),
        cors_origins: vec!["https://grafana.example:3000".to_owned()],
        trusted_proxies: vec!["10.0.0.0/8".parse().expect("it is a network")],
    };
    assert_eq!(config.http, http);
    assert_eq!(config.ingest, Ingest { writers: 3, batch: 100, queue: 1000 });
    assert_eq!(config.webhooks.len(), 3);
    assert_eq!(config.webhooks["default"].auth, Auth::None);
    assert_eq!(config.webhooks["partner"].auth, bearer(&["one", "two"]));
    let production = &config.webhooks["production"];
    let auth = Auth::RsaSha256 {
        public_keys: vec![public_key(RSA_KEY)],
        timestamp_tolerance: Duration::from_secs(90),
    };
    assert_eq!(production.auth, auth);
    let projects = production.projects.as_ref().expect("projects");
    let uuid = "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1";
    assert!(projects.iter().map(ProjectId::as_str).eq([uuid, "one"]));
    assert_eq!(production.default_project.as_str(), uuid);
    assert_eq!(config.webhooks["partner"].default_project, ProjectId::unnamed());
}

#[test]
fn every_key_has_a_variable_named_after_it() {
    for key in key::ALL {
        let name = format!("CALLSTATE_{}", key.path.to_uppercase().replace('.', "_"));
        assert_eq!(key.variables[0], name);
    }
    let config = World::new()
        .environment([
            ("CALLSTATE_API_REQUIRE_KEY", "yes"),
            ("CALLSTATE_MAX_DELIVERY_BYTES", "4096"),
            ("CALLSTATE_NO_MIGRATE", "1"),
            ("CALLSTATE_WEBHOOKS_PARTNER_AUTH", "bearer"),
            ("CALLSTATE_WEBHOOKS_PARTNER_TOKENS", "one, env:SECOND"),
            ("SECOND", "two"),
        ])
        .right();
    assert!(config.api.require_key);
    assert_eq!(config.max_delivery_bytes, 4096);
    assert!(!config.migrate);
    assert_eq!(config.webhooks.len(), 1);
    assert_eq!(config.webhooks["partner"].auth, bearer(&["one", "two"]));
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let config = World::new().environment([("CALLSTATE_LISTEN", ""), ("DATABASE_URL", "")]).right();
    assert_eq!(config.listen.port(), 8080);
    assert!(matches!(config.database, DatabaseSource::Managed { .. }));
}

#[test]
fn variables_that_a_platform_sets_by_itself_are_ignored() {
    let config = World::new()
        .environment([
            ("CALLSTATE_PORT", "tcp://10.0.0.1:8080"),
            ("CALLSTATE_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("CALLSTATE_WEBHOOKS_SERVICE_HOST", "10.0.0.1"),
        ])
        .right();
    assert_eq!(config.unknown_variables, []);
}

#[test]
fn variables_that_mean_nothing_are_told_with_what_they_probably_should() {
    let config = World::new()
        .environment([
            ("CALLSTATE_API_REQUIRE_KEYS", "true"),
            ("CALLSTATE_FOO", "1"),
            ("CALLSTATE_KEY", "for curl"),
            ("CALLSTATE_LISTEN", "127.0.0.1:1"),
            ("CALLSTATE_REQUIRE_KEY", "true"),
            ("CALLSTATE_WEBHOOKS_MY_PARTNER_TOKEN", "abc"),
            ("CALLSTATE_WEBHOOKS_OTHER_AUTH", "none"),
        ])
        .right();
    let told: Vec<String> = config.unknown_variables.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "CALLSTATE_API_REQUIRE_KEYS: means nothing (did you mean CALLSTATE_API_REQUIRE_KEY?)",
            "CALLSTATE_FOO: means nothing",
            "CALLSTATE_REQUIRE_KEY: means nothing (did you mean CALLSTATE_API_REQUIRE_KEY?)",
            "CALLSTATE_WEBHOOKS_MY_PARTNER_TOKEN: means nothing \
             (did you mean CALLSTATE_WEBHOOKS_MY_PARTNER_TOKENS?)",
        ]
    );
}

#[test]
fn a_database_url_wins_over_a_data_directory() {
    let config = World::new()
        .environment([
            ("DATABASE_URL", "postgres://generic/"),
            ("CALLSTATE_DATABASE_URL", "postgres://ours/"),
        ])
        .flag(&key::DATA_DIR, "/data")
        .right();
    let url = DatabaseSource::Url(Secret::new("postgres://ours/"));
    assert_eq!(config.database, url);
}

#[test]
fn the_token_of_the_environment_guards_the_default_endpoint() {
    let token = [("RECHO_WEBHOOK_TOKEN", "secret")];
    let config = World::new().environment(token).right();
    assert_eq!(config.webhooks["default"].auth, bearer(&["secret"]));

    let config = World::new().environment(token).toml("[webhooks.other]\nauth = 'none'").right();
    assert_eq!(config.webhooks["other"].auth, Auth::None);

    for token in ["", "  ", "two words", "naïve"] {
        let wrong = World::new().environment([("RECHO_WEBHOOK_TOKEN", token)]);
        let text = "RECHO_WEBHOOK_TOKEN: is no token: one consists of visible ASCII characters \
                    without spaces";
        assert_eq!(wrong.wrong(), [text]);
    }
}

#[test]
fn it_refuses_to_serve_strangers() {
    let exposed = |toml: &str| {
        let result = World::new().toml(toml).right().exposure();
        result.map_err(|mistakes| mistakes.to_string())
    };
    let wrong = exposed("listen = '0.0.0.0:80'").expect_err("open to all");
    assert_eq!(
        wrong,
        "callstate.toml: listen: refuses to listen on 0.0.0.0:80, which others may reach, while \
         webhooks.default.auth is \"none\" and api.require_key is false; change that, listen on \
         127.0.0.1, or say --insecure"
    );
    let authenticated = "[webhooks.default]\nauth = 'bearer'\ntokens = ['one']";
    let key = "[api]\nrequire_key = true";
    assert!(exposed(&format!("listen = '[::]:80'\n{authenticated}")).is_err());
    assert!(exposed(&format!("listen = '[::]:80'\n{key}")).is_err());
    for toml in [
        format!("listen = '[::]:80'\n{authenticated}\n{key}"),
        "listen = '0.0.0.0:80'\ninsecure = true".to_owned(),
        "listen = '127.0.0.2:80'".to_owned(),
        "listen = '[::1]:80'".to_owned(),
        "listen = '[::ffff:127.0.0.1]:80'".to_owned(),
    ] {
        assert_eq!(exposed(&toml), Ok(()), "{toml}");
    }
}

#[test]
fn the_quarantine_has_bounds_that_are_bounded() {
    let wrong = World::new()
        .toml("[quarantine]\nmax_entries = 0\nmax_bytes = 1\nmax_age = '11y'\nmax_agee = '1d'")
        .wrong();
    assert_eq!(
        wrong,
        [
            "callstate.toml: quarantine.max_agee: unknown key (did you mean \"max_age\"?)",
            "callstate.toml: quarantine.max_entries: 0 is not between 1 and 1000000",
            "callstate.toml: quarantine.max_bytes: 1 is not between 67108864 and 1099511627776",
            "callstate.toml: quarantine.max_age: 11y is not between 1h and 10years",
        ],
    );
}

#[test]
fn the_time_zone_is_a_name_or_an_offset() {
    let time_zone = |text: &str| {
        let world = World::new().flag(&key::PROVIDER_TIME_ZONE, text);
        world.read().map(|config| config.provider_time_zone.to_string())
    };
    assert_eq!(time_zone("UTC").as_deref(), Ok("UTC"));
    assert_eq!(time_zone("Asia/Seoul").as_deref(), Ok("Asia/Seoul"));
    assert_eq!(time_zone("-05:30").as_deref(), Ok("-05:30"));
    for wrong in ["", "9", "+9", "+09:60", "+24:00", "Seoul", "+é:00"] {
        assert!(time_zone(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_signature_may_be_a_week_old_where_that_is_configured() {
    let tolerance = |text: &str| {
        let toml = format!(
            "[webhooks.a]\nauth = 'rsa-sha256'\npublic_keys = ['file:recho.pem']\n\
             timestamp_tolerance = '{text}'"
        );
        World::new().toml(&toml).file("recho.pem", RSA_KEY)
    };
    let Auth::RsaSha256 { timestamp_tolerance, .. } = tolerance("7d").right().webhooks["a"].auth
    else {
        panic!("it is configured so");
    };
    assert_eq!(timestamp_tolerance, Duration::from_hours(7 * 24));
    let text = "callstate.toml: webhooks.a.timestamp_tolerance: 169h is not between 1s and 7days";
    assert_eq!(tolerance("169h").wrong(), [text]);
}

#[test]
fn who_has_nothing_to_do_with_the_endpoints_does_not_need_their_secrets() {
    let toml = "listen = \"127.0.0.1:1\"\n[webhooks.partner]\nauth = \"bearer\"\n\
                tokens = [\"env:NOT_THERE\"]\n";
    assert_eq!(World::new().toml(toml).wrong().len(), 1);
    let config = World::new().toml(toml).without_endpoints().right();
    assert_eq!((config.listen.port(), config.webhooks.len()), (1, 0));
    // Its other mistakes are told all the same.
    let wrong = World::new().toml(&format!("lisen = 1\n{toml}")).without_endpoints().wrong();
    assert!(wrong[0].contains("lisen"), "{wrong:?}");
}

#[test]
fn an_endpoint_whose_name_cannot_be_one_is_told_once() {
    let wrong = World::new().toml("[webhooks.\"a b\"]\nauth = \"none\"\n").wrong();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("webhooks.a b: an endpoint's name has 1 to 64 letters"), "{wrong:?}");
}

#[test]
fn retention_is_a_day_at_least_and_of_payloads_no_longer_than_of_calls() {
    let day = Duration::from_hours(24);
    for (toml, payloads, calls) in [
        ("", None, None),
        ("payloads = '90d'\ncalls = '3y'", Some(90 * day), Some(1095 * day + 18 * day / 24)),
        ("payloads = '1d'", Some(day), None),
        ("calls = '1d'", None, Some(day)),
        ("payloads = '30d'\ncalls = 'forever'", Some(30 * day), None),
        ("payloads = '30d'\ncalls = '30d'", Some(30 * day), Some(30 * day)),
        ("payloads = 'forever'\ncalls = 'forever'", None, None),
    ] {
        let config = World::new().toml(&format!("[retention]\n{toml}")).right();
        assert_eq!(config.retention, crate::config::Retention { payloads, calls }, "{toml}");
    }
    for (toml, mistake) in [
        ("payloads = '23h'", "payloads: 23h is not between 1day and 100years"),
        ("calls = '0s'", "calls: 0s is not between 1day and 100years"),
        (
            "calls = 90",
            "calls: expected a duration such as \"90d\", or \"forever\", found a whole number",
        ),
        ("payloads = '31d'\ncalls = '30d'", "payloads: is longer than retention.calls"),
        ("payloads = 'forever'\ncalls = '30d'", "payloads: is longer than retention.calls"),
    ] {
        let wrong = World::new().toml(&format!("[retention]\n{toml}")).wrong();
        assert_eq!(wrong, [format!("callstate.toml: retention.{mistake}")], "{toml}");
    }
}

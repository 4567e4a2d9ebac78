use std::time::Duration;

use super::{Environment, World};

#[test]
fn the_names_of_the_loopback_are_known_and_others_only_when_given() {
    let hosts = |toml: &str| World::new().toml(toml).right().http.hosts;
    assert_eq!(hosts(""), Some(Vec::new()));
    assert_eq!(hosts("listen = '[::1]:80'"), Some(Vec::new()));
    assert_eq!(hosts("listen = '0.0.0.0:80'"), None);
    let named = Some(vec!["callstate.example".to_owned(), "[fd00::1]".to_owned()]);
    for listen in ["127.0.0.1:80", "0.0.0.0:80"] {
        let toml = "[http]\nhosts = ['Callstate.Example', '[fd00::1]']";
        assert_eq!(hosts(&format!("listen = '{listen}'\n{toml}")), named);
    }
}

#[test]
fn lists_may_be_variables() {
    let environment: Environment = [
        ("CALLSTATE_HTTP_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1, fd00::/8, ::1"),
        ("CALLSTATE_HTTP_CORS_ORIGINS", "https://grafana.example, http://localhost:3000"),
        ("CALLSTATE_HTTP_READ_TIMEOUT", "250ms"),
    ]
    .into();
    let config = World { environment, ..World::new() }.right();
    let proxies: Vec<String> =
        config.http.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8", "::1/128"]);
    assert_eq!(config.http.cors_origins, ["https://grafana.example", "http://localhost:3000"]);
    assert_eq!(config.http.read_timeout, Duration::from_millis(250));
}

#[test]
fn what_is_nearly_right_is_a_mistake() {
    let wrong = |key: &str, value: &str| {
        let toml = format!("[http]\n{key} = ['{value}']");
        !World::new().toml(&toml).wrong().is_empty()
    };
    for host in ["", "https://a.example", "a.example:80", "*", "*.a.example", ".a", "a.", "a/b"] {
        assert!(wrong("hosts", host), "{host}");
    }
    for origin in [
        "",
        "*",
        "null",
        "a.example",
        "https://a.example/",
        "https://A.example",
        "https://*.a.example",
        "https://a.example:443",
        "http://a.example:80",
        "http://a.example:port",
        "ftp://a.example",
        "https://user@a.example",
    ] {
        assert!(wrong("cors_origins", origin), "{origin}");
    }
    for network in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "fd00::1/8", "all", "*"] {
        assert!(wrong("trusted_proxies", network), "{network}");
    }
    let small = "max_delivery_bytes = 2048\n[http]\nmax_unauthenticated_bytes = 2047";
    assert_eq!(
        World::new().toml(small).wrong(),
        [
            "callstate.toml: http.max_unauthenticated_bytes: 2047 is not between 2048 and 1099511627776"
        ],
    );
    let wrong = World::new().toml("[http]\nread_timeout = '1ms'\nmax_connections = 0").wrong();
    assert_eq!(
        wrong,
        [
            "callstate.toml: http.read_timeout: 1ms is not between 100ms and 1h",
            "callstate.toml: http.max_connections: 0 is not between 1 and 1000000",
        ],
    );
}

//! Errors of the configuration.

use super::{World, key};

#[test]
fn an_error_names_the_key_and_its_source() {
    let text = "\"nonsense\" is not an address with a port, such as 127.0.0.1:8080";
    let wrong = World::new().toml("listen = 'nonsense'").wrong();
    assert_eq!(wrong, [format!("callstate.toml: listen: {text}")]);
    let wrong = World::new().environment([("CALLSTATE_LISTEN", "nonsense")]);
    assert_eq!(wrong.wrong(), [format!("CALLSTATE_LISTEN: {text}")]);
    let wrong = World::new().flag(&key::LISTEN, "nonsense").wrong();
    assert_eq!(wrong, [format!("--listen: {text}")]);
}

#[test]
fn all_errors_are_reported_on_a_line_each() {
    let wrong = World::new()
        .toml(
            r#"
            listne = "127.0.0.1:1"
            provider_time_zone = "+9"
            database_connections = "ten"
            quarantine = { max_age = 90 }
            max_delivery_bytes = 1
            log_format = "xml"
            log = "a=b=c"
            no_migrate = "true"
            data_dir = 5
            entirely_other = 1
            api = { requirekey = true }

            [webhooks.partner]
            auth = "basic"

            [webhooks.forgetful]
            tokens = ["one"]

            [webhooks.empty]
            auth = "bearer"

            [webhooks.confused]
            auth = "none"
            token = ["one"]
            tokens = ["one"]
            projects = []

            [webhooks.signed]
            auth = "rsa-sha256"
            public_keys = ["file:missing.pem", "recho.pem", "env:MISSING"]
            timestamp_tolerance = "8 days"
            default_project = "undefined"
            projects = [5]

            [webhooks."a/b"]
            auth = "none"
            "#,
        )
        .wrong();
    insta::assert_snapshot!(wrong.join("\n"));
}

#[test]
fn a_syntax_error_names_its_line_and_not_its_text() {
    let wrong =
        World::new().toml("listen = '127.0.0.1:1'\n[webhooks.default]\ntokens = hunter2\n").wrong();
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].starts_with("callstate.toml: line 3: "), "{wrong:?}");
    assert!(!wrong[0].contains("hunter2"), "{wrong:?}");
}

#[test]
fn a_file_that_is_named_must_exist() {
    let wrong = World::new().config("no.toml").wrong();
    assert_eq!(wrong, ["--config: cannot read no.toml: entity not found"]);
    let wrong = World::new().environment([("CALLSTATE_CONFIG", "no.toml")]);
    assert_eq!(wrong.wrong(), ["CALLSTATE_CONFIG: cannot read no.toml: entity not found"]);
}

#[test]
fn no_error_and_no_debug_output_contains_a_secret() {
    const SECRET: &str = "hunter2";
    let world = |toml: &str| World::new().toml(&toml.replace("SECRET", SECRET));
    for toml in [
        "database_url = 'mysql://me:SECRET@host/db'",
        "database_url = 'postgres://me:SECRET@host:port/db'",
        "database_url = 'postgres://me:SECRET@host/db?sslmode=odd'",
        "database_url = { SECRET = 'SECRET' }",
        "[webhooks.a]\nauth = 'bearer'\ntokens = 'SECRET'",
        "[webhooks.a]\nauth = 'bearer'\ntokens = ['SECRET ä']",
        "[webhooks.a]\nauth = 'bearer'\ntokens = [['SECRET']]",
        "[webhooks.a]\nauth = 'none'\ntokens = ['SECRET']",
        "[webhooks.a]\nauth = 'none\ntokens = ['SECRET']",
        "[webhooks.a]\nauth = 'bearer'\ntokens = ['SECRET'",
        "[webhooks.a]\nauth = 'bearer'\ntokens = [SECRET]",
        "[webhooks.a]\nauth = 'bearer'\ntokens = 'a'\ntokens = 'SECRET'",
    ] {
        let wrong = world(toml).wrong().join("\n");
        assert!(!wrong.contains(SECRET), "{toml}: {wrong}");
    }
    let config = world(
        "database_url = 'postgres://me:SECRET@host/db'\n\
         [webhooks.a]\nauth = 'bearer'\ntokens = ['SECRET']",
    )
    .right();
    let debug = format!("{config:?}");
    assert!(!debug.contains(SECRET), "{debug}");
}

#[test]
fn an_error_is_one_line_even_if_the_value_has_several() {
    let wrong = World::new().flag(&key::LISTEN, "a\nb").wrong();
    assert!(!wrong[0].contains('\n'), "{wrong:?}");
    let wrong = World::new().toml("\"a\\nb\" = 1").wrong();
    assert_eq!(wrong, ["callstate.toml: a\\nb: unknown key"]);
}

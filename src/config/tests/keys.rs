//! Public keys, and what is taken over of a configuration that is read later.

use super::{RSA_KEY, World, public_key};
use crate::config::Auth;

macro_rules! key {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/keys/", $name, ".pem"))
    };
}

#[test]
fn a_public_key_may_come_in_any_usual_wrapping() {
    let world = World::new()
        .toml(
            "[webhooks.default]\nauth = 'rsa-sha256'\n\
             public_keys = ['file:spki.pem', 'file:pkcs1.pem', 'file:certificate.pem', 'env:KEY']",
        )
        .file("spki.pem", RSA_KEY)
        .file("pkcs1.pem", key!("rsa-2048.pkcs1"))
        .file("certificate.pem", key!("rsa-2048.certificate"))
        .environment([("KEY", key!("rsa-3072.spki"))]);
    let Auth::RsaSha256 { public_keys, .. } = &world.right().webhooks["default"].auth else {
        panic!("it is configured so");
    };
    let [small, large] = [RSA_KEY, key!("rsa-3072.spki")].map(public_key);
    assert_eq!(*public_keys, [small.clone(), small.clone(), small, large]);
}

#[test]
fn a_key_that_cannot_check_signatures_is_a_mistake_that_names_it() {
    let wrong = |key: &str| {
        let world = World::new().environment([
            ("CALLSTATE_WEBHOOKS_DEFAULT_AUTH", "rsa-sha256"),
            ("CALLSTATE_WEBHOOKS_DEFAULT_PUBLIC_KEYS", key),
        ]);
        world.wrong().join("\n")
    };
    let two = format!("{RSA_KEY}{RSA_KEY}");
    let short = RSA_KEY.replace("IDAQAB", "");
    let garbled = "-----BEGIN PUBLIC KEY-----\n%%%%\n-----END PUBLIC KEY-----";
    let keys = [
        key!("rsa-1024.spki"),
        key!("p-256.spki"),
        key!("rsa-pss.spki"),
        &two,
        &short,
        key!("rsa-2048.private"),
        garbled,
        "recho.pem",
        "recho",
    ];
    insta::assert_snapshot!(keys.map(wrong).join("\n"));
}

#[test]
fn a_weak_key_in_a_file_is_a_mistake_that_names_the_key() {
    let wrong = World::new()
        .toml(
            "[webhooks.production]\nauth = 'rsa-sha256'\n\
             public_keys = ['file:new.pem', 'file:old.pem']",
        )
        .file("new.pem", RSA_KEY)
        .file("old.pem", key!("rsa-1024.spki"))
        .wrong();
    assert_eq!(
        wrong,
        [
            "callstate.toml: webhooks.production.public_keys[1]: is an RSA key of 1024 bits; it must \
          have 2048 to 8192"
        ]
    );
}

#[test]
fn tokens_and_keys_can_be_taken_over_and_nothing_else() {
    let toml = |port: u16, token: &str, tolerance: &str, more: &str| {
        let toml = format!(
            "listen = '127.0.0.1:{port}'\n\
             [webhooks.partner]\nauth = 'bearer'\ntokens = ['{token}']\n\
             [webhooks.production]\nauth = 'rsa-sha256'\npublic_keys = ['file:recho.pem']\n\
             timestamp_tolerance = '{tolerance}'\n\
             [webhooks.open]\n{more}"
        );
        World::new().toml(&toml)
    };
    let running = toml(1, "old", "5m", "auth = 'none'").file("recho.pem", RSA_KEY).right();
    let later = toml(2, "new", "1h", "auth = 'bearer'\ntokens = ['new']\nprojects = ['one']")
        .file("recho.pem", key!("rsa-3072.spki"))
        .right();
    let expected =
        toml(1, "new", "5m", "auth = 'none'").file("recho.pem", key!("rsa-3072.spki")).right();
    assert_eq!(running.with_secrets_of(&later), expected);
}

#[test]
fn an_endpoint_that_is_gone_or_has_another_method_keeps_its_tokens() {
    let running = World::new()
        .toml(
            "[webhooks.a]\nauth = 'bearer'\ntokens = ['a']\n\
             [webhooks.b]\nauth = 'bearer'\ntokens = ['b']",
        )
        .right();
    let later = World::new()
        .toml("[webhooks.a]\nauth = 'none'\n[webhooks.c]\nauth = 'bearer'\ntokens = ['c']")
        .right();
    assert_eq!(running.with_secrets_of(&later), running);
}

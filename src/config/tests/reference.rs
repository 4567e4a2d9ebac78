//! The configuration as docs/configuration.md describes it.

use super::{RSA_KEY, World, key};

#[test]
fn the_page_lists_every_key_with_its_names() {
    let page = include_str!("../../../docs/configuration.md");
    let names = |names: &[&str]| {
        let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        quoted.join(", ")
    };
    for key in key::ALL {
        let flag = key.flag.map(|flag| format!(" `--{flag}`")).unwrap_or_default();
        let row = format!("| `{}` | {} |{flag} |", key.path, names(key.variables));
        assert!(page.contains(&row), "no row begins with {row}");
    }
    for field in super::super::webhooks::FIELDS {
        assert!(page.contains(&format!("\n| `{field}` |")), "{field}");
    }
}

#[test]
fn the_example_of_the_page_is_valid() {
    let page = include_str!("../../../docs/configuration.md");
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let world = World::new().toml(example).file("recho.pem", RSA_KEY);
    let config = world.environment([("PARTNER_TOKEN", "token")]).right();
    assert_eq!(config.webhooks.len(), 2);
}

//! Which module of the crate may use which: read from the paths in its code.

use std::{collections::BTreeSet, fs, path::Path};

const MODULES: [&str; 15] = [
    "access",
    "http",
    "call",
    "cli",
    "clock",
    "config",
    "database",
    "ingest",
    "log_limit",
    "managed_postgres",
    "recho",
    "store",
    "telemetry",
    "simulate",
    "transfer",
];

/// A module, and the others that it may use.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("call", &[]),
    ("recho", &["call"]),
    ("access", &["call"]),
    ("store", &["call", "access"]),
    ("managed_postgres", &[]),
    ("clock", &[]),
    ("log_limit", &["clock"]),
    ("ingest", &["call", "recho", "store", "access", "clock", "log_limit"]),
    ("http", &["ingest", "store", "call", "recho", "access", "clock", "transfer", "log_limit"]),
    ("simulate", &["call", "recho", "clock", "config"]),
    ("transfer", &["call", "recho", "store"]),
];

/// A module, and the crates that it must not use.
const NEVER: [(&str, &[&str]); 6] = [
    ("call", &["tokio", "sqlx", "axum", "tracing", "serde_json", "utoipa"]),
    ("recho", &["tokio", "sqlx", "axum"]),
    ("access", &["tokio", "sqlx", "axum", "tracing"]),
    ("store", &["axum"]),
    ("simulate", &["sqlx", "axum"]),
    ("transfer", &["sqlx", "axum", "tokio"]),
];

/// The code of a module, without comments and tests.
fn code(module: &str) -> String {
    fn read(path: &Path, out: &mut String) {
        if path.ends_with("tests") {
            return;
        }
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                read(&entry.unwrap().path(), out);
            }
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            let source = fs::read_to_string(path).unwrap();
            let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut out = String::new();
    let (folder, file) = (src.join(module), src.join(format!("{module}.rs")));
    read(if folder.exists() { &folder } else { &file }, &mut out);
    assert!(!out.is_empty(), "there is no module {module}");
    out
}

/// The modules that code names as `crate::module` or in `crate::{…}`.
fn used(text: &str) -> BTreeSet<&'static str> {
    let mut used = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        let names = match after.strip_prefix('{') {
            Some(group) => top_level(group),
            None => vec![after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()],
        };
        used.extend(MODULES.iter().filter(|module| names.contains(module)));
    }
    used
}

/// The first names in a group of imports: `a::{b}, c` gives a and c.
fn top_level(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut names = Vec::new();
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                names.push(group[start..at].trim().split("::").next().unwrap());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

#[test]
fn modules_use_only_what_they_may() {
    for (module, may_use) in MAY_USE {
        let others: Vec<&str> = used(&code(module))
            .into_iter()
            .filter(|other| *other != module && !may_use.contains(other))
            .collect();
        assert_eq!(others, Vec::<&str>::new(), "{module} may use {may_use:?} only");
    }
}

#[test]
fn modules_use_no_crate_that_they_must_not() {
    for (module, never) in NEVER {
        let code = code(module);
        for name in never {
            assert!(!code.contains(&format!("{name}::")), "{module} uses {name}");
        }
    }
}

#[test]
fn used_finds_paths_and_groups() {
    let text = "use crate::{call::{Call, CallKey}, store, recho::read};\nuse crate::http::Problem;";
    assert_eq!(used(text), BTreeSet::from(["http", "call", "recho", "store"]));
}

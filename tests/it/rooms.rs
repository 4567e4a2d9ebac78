//! Which room of the crate may use which: read from the `use` lines.

use std::{collections::BTreeSet, fs, path::Path};

const ROOMS: [&str; 14] = [
    "access",
    "api",
    "call",
    "cli",
    "clock",
    "config",
    "database",
    "ingest",
    "postgres",
    "recho",
    "store",
    "telemetry",
    "simulate",
    "transfer",
];

/// A room, and the others that it may use.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("call", &[]),
    ("recho", &["call"]),
    ("access", &["call"]),
    ("store", &["call", "access"]),
    ("postgres", &[]),
    ("clock", &[]),
    ("ingest", &["call", "recho", "store", "clock"]),
    ("api", &["ingest", "store", "call", "recho", "access", "clock", "transfer"]),
    ("simulate", &["call", "clock", "config"]),
    ("transfer", &["call", "recho", "store"]),
];

/// A room, and the crates that it must do without.
const NEVER: [(&str, &[&str]); 6] = [
    ("call", &["tokio", "sqlx", "axum", "tracing", "serde_json", "utoipa"]),
    ("recho", &["tokio", "sqlx", "axum"]),
    ("access", &["tokio", "sqlx", "axum", "tracing"]),
    ("store", &["axum"]),
    ("simulate", &["sqlx", "axum"]),
    ("transfer", &["sqlx", "axum", "tokio"]),
];

/// The text of a room, less its comments and its tests.
fn text(room: &str) -> String {
    fn read(path: &Path, out: &mut String) {
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
    let (folder, file) = (src.join(room), src.join(format!("{room}.rs")));
    read(if folder.exists() { &folder } else { &file }, &mut out);
    assert!(!out.is_empty(), "there is no room {room}");
    out
}

/// The rooms that a text names as `crate::room` or in `crate::{…}`.
fn used(text: &str) -> BTreeSet<&'static str> {
    let mut used = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        let names = match after.strip_prefix('{') {
            Some(group) => top_level(group),
            None => vec![after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()],
        };
        used.extend(ROOMS.iter().filter(|room| names.contains(room)));
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
fn no_room_reaches_where_it_may_not() {
    for (room, may_use) in MAY_USE {
        let reaches: Vec<&str> = used(&text(room))
            .into_iter()
            .filter(|other| *other != room && !may_use.contains(other))
            .collect();
        assert_eq!(reaches, Vec::<&str>::new(), "{room} may use {may_use:?} only");
    }
}

#[test]
fn no_room_uses_a_crate_that_it_must_do_without() {
    for (room, never) in NEVER {
        let text = text(room);
        for name in never {
            assert!(!text.contains(&format!("{name}::")), "{room} uses {name}");
        }
    }
}

#[test]
fn the_reader_of_imports_sees_what_is_there() {
    let text = "use crate::{call::{Call, CallKey}, store, recho::read};\nuse crate::api::Problem;";
    assert_eq!(used(text), BTreeSet::from(["api", "call", "recho", "store"]));
}

//! What is given and means nothing: keys of the file, which are mistakes, and variables,
//! which are told.

use super::FILE_VARIABLE;
use super::key;
use super::layers::{Environment, Reader};
use super::mistake::{Mistake, Source};
use super::suggest::{did_you_mean, nearest};
use super::webhooks::{FIELDS, variable_name};

/// Notes every key of the file that means nothing. Those of the endpoints are
/// looked at with them.
pub(super) fn note_keys(reader: &mut Reader<'_>) {
    const WEBHOOKS: &str = "webhooks";
    let mut unknown = Vec::new();
    let known = || key::ALL.iter().map(|key| key.path);
    for (name, value) in &reader.file.table {
        if name == WEBHOOKS || known().any(|path| path == name) {
            continue;
        }
        let prefix = format!("{name}.");
        let fields: Vec<_> = known().filter_map(|path| path.strip_prefix(&prefix)).collect();
        let place = |path: &str| Source::file(&reader.file.name, path);
        match value {
            _ if fields.is_empty() => {
                let tops =
                    known().map(|path| path.split('.').next().unwrap_or(path)).chain([WEBHOOKS]);
                let text = format!("unknown key{}", did_you_mean(name, tops));
                unknown.push(place(name).mistake(text));
            }
            toml::Value::Table(table) => {
                for field in table.keys().filter(|field| !fields.contains(&field.as_str())) {
                    let text =
                        format!("unknown key{}", did_you_mean(field, fields.iter().copied()));
                    unknown.push(place(&format!("{prefix}{field}")).mistake(text));
                }
            }
            _ => unknown.push(
                place(name)
                    .mistake(format!("expected a table with the keys {}", fields.join(", "))),
            ),
        }
    }
    reader.mistakes.append(&mut unknown);
}

/// What all our variables begin with.
const PREFIX: &str = "CALLSTATE_";

/// Variables that are ours and of no key: the file's, and the one that examples for the shell
/// take a key from.
const OTHERS: [&str; 2] = [FILE_VARIABLE, "CALLSTATE_KEY"];

/// The variables that begin as ours do and mean nothing, each with what was probably meant. No
/// mistakes, as others may set such names; those that container platforms make of the name of
/// a service (`CALLSTATE_SERVICE_HOST`, `CALLSTATE_PORT_8080_TCP`) are passed over.
pub(super) fn variables(environment: &Environment) -> Vec<Mistake> {
    let known: Vec<&str> =
        key::ALL.iter().flat_map(|key| key.variables).chain(&OTHERS).copied().collect();
    environment
        .names()
        .filter(|name| !known.contains(name))
        .filter_map(|name| Some((name, name.strip_prefix(PREFIX)?)))
        .filter(|(_, rest)| !is_of_platform(rest) && !is_of_endpoint(rest))
        .map(|(name, rest)| {
            let meant = field_of_endpoint(rest).or_else(|| {
                let known = || known.iter().filter_map(|it| it.strip_prefix(PREFIX));
                // Or the table is left out.
                let is_longer =
                    |it: &&str| it.strip_suffix(rest).is_some_and(|table| table.ends_with('_'));
                nearest(rest, known()).or_else(|| known().find(is_longer)).map(str::to_owned)
            });
            let meant = meant.map(|it| format!(" (did you mean {PREFIX}{it}?)"));
            let text = format!("means nothing{}", meant.unwrap_or_default());
            Source::variable(name).mistake(text)
        })
        .collect()
}

fn is_of_platform(rest: &str) -> bool {
    rest.split('_').any(|word| word == "PORT" || word == "SERVICE")
}

/// What stands before the fields of endpoints.
const WEBHOOKS: &str = "WEBHOOKS_";

/// Whether it is `WEBHOOKS_<NAME>_<FIELD>`.
fn is_of_endpoint(rest: &str) -> bool {
    let ends_with = |field| rest.ends_with(&format!("_{}", variable_name(field)));
    rest.starts_with(WEBHOOKS) && FIELDS.into_iter().any(ends_with)
}

/// What `WEBHOOKS_<NAME>_<FIELD>` was probably meant to be.
fn field_of_endpoint(rest: &str) -> Option<String> {
    let fields = FIELDS.map(variable_name);
    let endpoint = rest.strip_prefix(WEBHOOKS)?;
    endpoint.match_indices('_').find_map(|(at, _)| {
        let (name, field) = (&endpoint[..at], &endpoint[at + 1..]);
        let field = nearest(field, fields.iter().map(String::as_str))?;
        Some(format!("{WEBHOOKS}{name}_{field}"))
    })
}

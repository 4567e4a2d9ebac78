//! `callstate keys create`, `list` and `revoke`: API keys.
//!
//! A key is printed once, when it is made, and alone on stdout, so that
//! `KEY=$(callstate keys create --name …)` takes it. What is revoked may be
//! named by its id, its name, or by the key itself, which is all that somebody
//! has who finds one where it should not be; a key is never printed back.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::{Args, Subcommand};
use ring::rand::{SecureRandom, SystemRandom, generate};
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::access::{ApiKey, KeyHash, KeyName, KeyRecord, KeyState, Projects, Scope, key::PREFIX};
use crate::call::ProjectId;
use crate::clock::Clock;
use crate::config::Config;
use crate::database::Database;
use crate::managed_postgres::Claim;
use crate::recho::identifier::project_id;
use crate::store::api_keys;
use crate::telemetry;

use super::failure::Failure;
use super::output::{self, Format};

/// The longest life of a key that ends at all.
const LONGEST_LIFE: Duration = Duration::from_hours(100 * 366 * 24);

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key and print it, this once
    Create(CreateOptions),
    /// List the keys, revoked ones included
    List(ListOptions),
    /// Take keys back, for good
    Revoke(RevokeOptions),
}

/// The options of `keys create`.
#[derive(Debug, Args)]
pub(super) struct CreateOptions {
    #[arg(long, value_parser = |text: &str| KeyName::new(text), help = "What to call it, such as who uses it")]
    name: KeyName,
    #[arg(
        long = "project",
        value_name = "PROJECT",
        value_parser = project_id,
        help = "A project that it is limited to; may be given several times [default: all projects]"
    )]
    projects: Vec<ProjectId>,
    #[arg(long, value_parser = scope, default_value_t = Scope::Read, help = "What it is good for: read or admin; limited to projects, admin cannot use the quarantine")]
    scope: Scope,
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = life,
        help = "After how long it expires, such as 12h or 90d [default: never]"
    )]
    expires: Option<TimeDelta>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The options of `keys list`.
#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The options of `keys revoke`.
#[derive(Debug, Args)]
pub(super) struct RevokeOptions {
    /// What to revoke: ids, names, or the keys themselves
    #[arg(required = true, value_name = "ID|NAME")]
    keys: Vec<String>,
    /// How to print what was revoked
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|_| "must be read or admin".to_owned())
}

fn life(text: &str) -> Result<TimeDelta, String> {
    let life = humantime::parse_duration(text)
        .map_err(|_| "is not a duration, such as 12h or 90d".to_owned())?;
    if life.is_zero() || life > LONGEST_LIFE {
        return Err("must be more than nothing and at most 100 years".to_owned());
    }
    TimeDelta::from_std(life).map_err(|error| error.to_string())
}

/// A new key, for `--format json`.
#[derive(Serialize)]
struct CreatedDocument<'a> {
    id: Uuid,
    name: &'a str,
    key: &'a str,
    scope: Scope,
    /// Null for all.
    projects: Option<Vec<&'a str>>,
    expires_at: Option<DateTime<Utc>>,
}

/// A key that was made before, for `--format json`.
#[derive(Serialize)]
struct KeyDocument<'a> {
    id: Uuid,
    name: &'a str,
    state: KeyState,
    scope: Scope,
    /// Null for all.
    projects: Option<Vec<&'a str>>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct ListDocument<'a> {
    keys: Vec<KeyDocument<'a>>,
}

#[derive(Serialize)]
struct RevokedDocument<'a> {
    revoked: Vec<KeyDocument<'a>>,
}

impl<'a> KeyDocument<'a> {
    fn of(record: &'a KeyRecord, now: DateTime<Utc>) -> Self {
        Self {
            id: record.id,
            name: record.name.as_str(),
            state: record.state(now),
            scope: record.scope,
            projects: record.projects.ids(),
            created_at: record.created_at,
            expires_at: record.expires_at,
            revoked_at: record.revoked_at,
            last_used_at: record.last_used_at,
        }
    }
}

/// Why keys could not be worked with.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the system gives no randomness")]
    Randomness,
    #[error("{0}")]
    NotRevoked(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}

/// Does it.
pub(super) async fn run(command: Command, config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log);
    let database = Database::open(&config, Claim::Join).await?;
    let now = Clock::system().now();
    let done = match command {
        Command::Create(options) => create(options, database.pool(), now).await,
        Command::List(options) => list(&options, database.pool(), now).await,
        Command::Revoke(options) => revoke(&options, database.pool(), now).await,
    };
    let closed = database.close().await;
    done?;
    Ok(closed?)
}

async fn create(options: CreateOptions, pool: &PgPool, now: DateTime<Utc>) -> Result<(), Failure> {
    let CreateOptions { name, projects, scope, expires, format } = options;
    let random = SystemRandom::new();
    let key = ApiKey::generate(&random).map_err(|_| Error::Randomness)?;
    let record = KeyRecord {
        id: id(&random)?,
        name,
        scope,
        projects: if projects.is_empty() {
            Projects::All
        } else {
            Projects::Only(projects.into_iter().collect())
        },
        created_at: now,
        expires_at: expires.map(|life| now + life),
        revoked_at: None,
        last_used_at: None,
    };
    api_keys::insert(pool, &key.hash(), &record).await?;
    if record.scope == Scope::Admin && record.projects != Projects::All {
        eprintln!(
            "callstate: a key with the scope admin that is limited to projects cannot use the quarantine, \
             which is of all projects"
        );
    }
    match format {
        Format::Text => {
            eprintln!("{}", description(&record));
            output::line(key.expose())
        }
        Format::Json => output::json(&CreatedDocument {
            id: record.id,
            name: record.name.as_str(),
            key: key.expose(),
            scope: record.scope,
            projects: record.projects.ids(),
            expires_at: record.expires_at,
        }),
    }
}

/// A random id: it tells nothing of the key, nor when it was made.
fn id(random: &dyn SecureRandom) -> Result<Uuid, Error> {
    let bytes: [u8; 16] = generate(random).map_err(|_| Error::Randomness)?.expose();
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// A new key for people.
fn description(record: &KeyRecord) -> String {
    let KeyRecord { id, name, scope, expires_at, .. } = record;
    let expires = expires_at.map_or_else(|| "never".to_owned(), time);
    format!(
        "key {id}, named {name}: scope {scope}, sees {}, expires {expires}; it is shown this once",
        projects(&record.projects)
    )
}

async fn list(options: &ListOptions, pool: &PgPool, now: DateTime<Utc>) -> Result<(), Failure> {
    let records = api_keys::all(pool).await?;
    match options.format {
        Format::Text if records.is_empty() => output::line("there are no keys"),
        Format::Text => table(&records, now).iter().try_for_each(|line| output::line(line)),
        Format::Json => {
            let keys = records.iter().map(|record| KeyDocument::of(record, now)).collect();
            output::json(&ListDocument { keys })
        }
    }
}

/// Keys for people: a line each under a line of headings, in columns.
fn table(records: &[KeyRecord], now: DateTime<Utc>) -> Vec<String> {
    const HEADINGS: [&str; 7] =
        ["ID", "NAME", "STATE", "SCOPE", "LAST USED", "EXPIRES", "PROJECTS"];
    let never = |at: Option<DateTime<Utc>>| at.map_or_else(|| "never".to_owned(), time);
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(records.iter().map(|record| {
        [
            record.id.to_string(),
            record.name.to_string(),
            record.state(now).to_string(),
            record.scope.to_string(),
            never(record.last_used_at),
            never(record.expires_at),
            projects(&record.projects),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; HEADINGS.len()] =
        std::array::from_fn(|column| width(column).unwrap_or_default());
    let line = |row: &[String; HEADINGS.len()]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn projects(projects: &Projects) -> String {
    projects.ids().map_or_else(|| "all projects".to_owned(), |ids| ids.join(", "))
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Revokes each key that is named clearly, and then fails if another is not:
/// who misspells one of two must not be left with both in use.
async fn revoke(options: &RevokeOptions, pool: &PgPool, now: DateTime<Utc>) -> Result<(), Failure> {
    let records = api_keys::all(pool).await?;
    let mut revoked = Vec::new();
    let mut faults = Vec::new();
    for named in &options.keys {
        let found = match KeyHash::of_presented(named.as_bytes()) {
            Some(hash) => api_keys::by_hash(pool, &hash)
                .await?
                .ok_or_else(|| "there is no such key".to_owned()),
            None => find(&records, named).cloned(),
        };
        match found {
            Ok(mut record) => {
                if options.format == Format::Text {
                    output::line(&match record.revoked_at {
                        None => format!("revoked {}, key {}", record.name, record.id),
                        Some(at) => {
                            format!(
                                "{}, key {}, was revoked at {}",
                                record.name,
                                record.id,
                                time(at)
                            )
                        }
                    })?;
                }
                api_keys::revoke(pool, record.id, now).await?;
                record.revoked_at.get_or_insert(now);
                revoked.push(record);
            }
            Err(fault) => faults.push(fault),
        }
    }
    if options.format == Format::Json {
        let revoked = revoked.iter().map(|record| KeyDocument::of(record, now)).collect();
        output::json(&RevokedDocument { revoked })?;
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::NotRevoked(faults.join("; ")).into()) }
}

/// The key of that id or name. Of several by one name it is the one that is not
/// revoked yet.
fn find<'a>(records: &'a [KeyRecord], named: &str) -> Result<&'a KeyRecord, String> {
    if let Ok(id) = Uuid::parse_str(named) {
        let found = records.iter().find(|record| record.id == id);
        return found.ok_or_else(|| format!("there is no key {id}"));
    }
    let by_name = || records.iter().filter(|record| record.name.as_str() == named);
    let good: Vec<_> = by_name().filter(|record| record.revoked_at.is_none()).collect();
    match *good {
        [one] => Ok(one),
        [] => by_name().next_back().ok_or_else(|| {
            if named.starts_with(PREFIX) {
                // Part of a key, perhaps.
                "what begins as keys do is no key".to_owned()
            } else {
                format!("there is no key named {named:?}")
            }
        }),
        [..] => {
            let ids: Vec<_> = good.iter().map(|record| record.id.to_string()).collect();
            Err(format!("{} keys are named {named:?}, say which: {}", ids.len(), ids.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: DateTime<Utc> = DateTime::from_timestamp(1_779_624_000, 0).unwrap();

    fn record(id: u128, name: &str, revoked_at: Option<DateTime<Utc>>) -> KeyRecord {
        KeyRecord {
            id: Uuid::from_u128(id),
            name: KeyName::new(name).unwrap(),
            scope: Scope::Read,
            projects: Projects::All,
            created_at: NOON,
            expires_at: None,
            revoked_at,
            last_used_at: None,
        }
    }

    #[test]
    fn a_key_is_named_by_its_id_or_by_a_name_that_one_good_key_has() {
        let records = [
            record(1, "grafana", Some(NOON)),
            record(2, "grafana", None),
            record(3, "twin", None),
            record(4, "twin", None),
            record(5, "gone", Some(NOON)),
            record(6, "gone", Some(NOON)),
        ];
        let id_of = |named: &str| find(&records, named).map(|record| record.id.as_u128());
        assert_eq!(id_of("grafana"), Ok(2));
        assert_eq!(id_of("00000000-0000-0000-0000-000000000001"), Ok(1));
        assert_eq!(id_of("00000000-0000-0000-0000-00000000000A").unwrap_err(), {
            "there is no key 00000000-0000-0000-0000-00000000000a"
        });
        assert_eq!(id_of("gone"), Ok(6));
        assert_eq!(id_of("Grafana").unwrap_err(), r#"there is no key named "Grafana""#);
        assert_eq!(
            id_of("twin").unwrap_err(),
            "2 keys are named \"twin\", say which: 00000000-0000-0000-0000-000000000003, \
             00000000-0000-0000-0000-000000000004",
        );
    }

    #[test]
    fn a_fault_never_repeats_what_may_be_a_key() {
        assert!(!find(&[], "cs_0123").unwrap_err().contains("0123"));
    }

    #[test]
    fn a_life_is_a_duration_within_bounds() {
        assert_eq!(life("90d"), Ok(TimeDelta::days(90)));
        assert_eq!(life("1h 30m"), Ok(TimeDelta::minutes(90)));
        for wrong in ["", "90", "soon", "-1d", "0s", "101y", "99999999999999999y"] {
            assert!(life(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_key() {
        let limited = KeyRecord {
            projects: Projects::Only([ProjectId::new("p").unwrap()].into()),
            expires_at: Some(NOON),
            last_used_at: Some(NOON),
            scope: Scope::Admin,
            ..record(2, "é", None)
        };
        assert_eq!(
            table(&[record(1, "grafana", Some(NOON)), limited], NOON).join("\n"),
            "\
ID                                    NAME     STATE    SCOPE  LAST USED             EXPIRES               PROJECTS
00000000-0000-0000-0000-000000000001  grafana  revoked  read   never                 never                 all projects
00000000-0000-0000-0000-000000000002  é        expired  admin  2026-05-24T12:00:00Z  2026-05-24T12:00:00Z  p"
        );
    }
}

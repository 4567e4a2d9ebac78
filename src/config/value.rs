//! How the values of the configuration are written: addresses, time zones,
//! durations, names, keys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

use crate::call::ProjectId;
use crate::recho::auth::KeyError;
use crate::recho::identifier::{normalize, project_id};
use crate::recho::time_zone::TimeZoneError;
use crate::recho::{ProviderTimeZone, PublicKey};

use super::LogFormat;
use super::layers::{Environment, Given, ReadFile};
use super::mistake::Mistake;
use super::secret::Secret;

/// An address to listen on: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
pub(super) fn address(given: &Given) -> Result<SocketAddr, Mistake> {
    let text = given.text_of("an address such as \"127.0.0.1:8080\"")?;
    let local = text
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok())
        .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    local.or_else(|| text.parse().ok()).ok_or_else(|| {
        given.mistake(format!("{text:?} is not an address with a port, such as 127.0.0.1:8080"))
    })
}

/// A time zone: an IANA name such as `Asia/Seoul`, or an offset such as `+09:00`.
pub(super) fn time_zone(given: &Given) -> Result<ProviderTimeZone, Mistake> {
    let text = given.text_of("a time zone such as \"Asia/Seoul\" or \"+09:00\"")?;
    text.parse().map_err(|error: TimeZoneError| given.mistake(format!("{text:?} {error}")))
}

/// A span of time within bounds: `90s`, `5m`, `1h`.
pub(super) fn duration(
    given: &Given,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, Mistake> {
    let text = given.text_of("a duration such as \"30s\"")?;
    let duration = humantime::parse_duration(text).map_err(|_| {
        given.mistake(format!("{text:?} is not a duration such as \"30s\", \"5m\" or \"1h\""))
    })?;
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let (low, high) = bounds.into_inner();
    Err(given.mistake(format!(
        "{text} is not between {} and {}",
        humantime::format_duration(low),
        humantime::format_duration(high)
    )))
}

/// A span of time within bounds, or `forever`, which is `None`.
pub(super) fn duration_or_forever(
    given: &Given,
    bounds: RangeInclusive<Duration>,
) -> Result<Option<Duration>, Mistake> {
    match given.text_of("a duration such as \"90d\", or \"forever\"")? {
        "forever" => Ok(None),
        _ => duration(given, bounds).map(Some),
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(given: &Given, words: &[(&str, T)]) -> Result<T, Mistake> {
    let text = given.text()?;
    let known = words.iter().find(|(word, _)| *word == text);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        given.mistake(format!("unknown value {text:?}, expected one of {}", words.join(", ")))
    })
}

/// How log lines are written.
pub(super) fn log_format(given: &Given) -> Result<LogFormat, Mistake> {
    one_of(given, &[("human", LogFormat::Human), ("json", LogFormat::Json)])
}

/// A filter of log lines, in the notation of `RUST_LOG`.
pub(super) fn log_filter(given: &Given) -> Result<String, Mistake> {
    let text = given.text()?;
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| given.mistake(format!("{text:?} is not a filter: {error}")))?;
    Ok(text.to_owned())
}

/// The URL of a Postgres database. A mistake does not quote it, since it may
/// hold a password.
pub(super) fn database_url(
    given: &Given,
    environment: &Environment,
    read_file: ReadFile<'_>,
) -> Result<Secret, Mistake> {
    let url = given.secret(environment, read_file)?;
    let text = url.expose();
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Err(given.mistake("is not a URL that begins with postgres://"));
    }
    match text.parse::<PgConnectOptions>() {
        Ok(_) => Ok(url),
        // The cause of sqlx names the part that is wrong, never the text.
        Err(sqlx::Error::Configuration(cause)) => {
            Err(given.mistake(format!("is not the URL of a database: {cause}")))
        }
        Err(_) => Err(given.mistake("is not the URL of a database")),
    }
}

/// A bearer token: what can stand in a header behind `Bearer`.
pub(super) fn token(
    given: &Given,
    environment: &Environment,
    read_file: ReadFile<'_>,
) -> Result<Secret, Mistake> {
    let token = given.secret(environment, read_file)?;
    if is_token(token.expose()) {
        Ok(token)
    } else {
        Err(given.mistake("a token consists of visible ASCII characters without spaces"))
    }
}

/// Whether a text can be a bearer token.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A project's id.
pub(super) fn project(given: &Given) -> Result<ProjectId, Mistake> {
    const EXPECTED: &str = "the id of a project such as \"3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1\"";
    let text = given.text_of(EXPECTED)?;
    if normalize(text).is_none() {
        return Err(given.mistake(format!("{text:?} is not {EXPECTED}")));
    }
    project_id(text).map_err(|error| given.mistake(error))
}

/// An RSA public key as PEM text.
pub(super) fn public_key(
    given: &Given,
    environment: &Environment,
    read_file: ReadFile<'_>,
) -> Result<PublicKey, Mistake> {
    let text = given.secret(environment, read_file)?;
    let text = text.expose();
    PublicKey::from_pem(text).map_err(|error| {
        if error == KeyError::NoPem && Path::new(text).extension().is_some() {
            given.mistake(format!("{error}; if it names a file, write \"file:{text}\""))
        } else {
            given.mistake(error)
        }
    })
}

//! How the values of the configuration are written: addresses, offsets,
//! durations, names, keys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::FixedOffset;
use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

use crate::call::ProjectId;

use super::LogFormat;
use super::layers::{Environment, Given, ReadFile};
use super::mistake::Mistake;
use super::secret::Secret;

/// An address to listen on: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
pub(super) fn address(given: &Given) -> Result<SocketAddr, Mistake> {
    let text = given.text()?;
    let local = text
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok())
        .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    local.or_else(|| text.parse().ok()).ok_or_else(|| {
        given.mistake(format!("{text:?} is not an address with a port, such as 127.0.0.1:8080"))
    })
}

/// An offset from UTC: `+09:00`, or `Z`.
pub(super) fn offset(given: &Given) -> Result<FixedOffset, Mistake> {
    let text = given.text()?;
    // `FixedOffset` itself is laxer than an option should be: it takes `+9`.
    let well_formed = text.len() == "+00:00".len() && text.as_bytes()[3] == b':';
    match text {
        "Z" => "+00:00".parse().ok(),
        _ if well_formed => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| {
        given.mistake(format!("{text:?} is not an offset from UTC, such as +09:00 or -05:30"))
    })
}

/// A span of time within bounds: `90s`, `5m`, `1h`.
pub(super) fn duration(
    given: &Given,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, Mistake> {
    let text = given.text()?;
    let duration = humantime::parse_duration(text)
        .map_err(|_| given.mistake(format!("{text:?} is not a duration, such as 90s, 5m or 1h")))?;
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
    ProjectId::new(given.text()?).map_err(|error| given.mistake(error))
}

/// The start of what is wrapped in every SPKI of an RSA key: the object
/// identifier 1.2.840.113549.1.1.1 and NULL (RFC 8017, appendix A.1).
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// An RSA public key as PEM text with one SPKI block (RFC 7468, section 13).
/// The wrapping is checked here, the numbers where the key is used.
pub(super) fn public_key(
    given: &Given,
    environment: &Environment,
    read_file: ReadFile<'_>,
) -> Result<String, Mistake> {
    let text = given.secret(environment, read_file)?.expose().to_owned();
    match check_public_key(&text) {
        Ok(()) => Ok(text),
        Err(_) if !text.contains("-----") && Path::new(&text).extension().is_some() => Err(given
            .mistake(format!(
                "is not a public key in PEM; if it names a file, write \"file:{text}\""
            ))),
        Err(wrong) => Err(given.mistake(wrong)),
    }
}

fn check_public_key(text: &str) -> Result<(), &'static str> {
    if text.contains("PRIVATE KEY-----") {
        return Err("is a private key; give the public one (openssl pkey -pubout)");
    }
    if text.contains("BEGIN RSA PUBLIC KEY-----") {
        return Err("is a PKCS#1 key; give it as SPKI (openssl rsa -RSAPublicKey_in -pubout)");
    }
    if text.contains("BEGIN CERTIFICATE-----") {
        return Err("is a certificate; give its public key (openssl x509 -pubkey -noout)");
    }
    let body = text
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
        .ok_or("is not a public key in PEM (-----BEGIN PUBLIC KEY-----)")?;
    if body.contains("-----") {
        return Err("holds more than one key; give each as an item of the list");
    }
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD
        .decode(body)
        .map_err(|_| "is damaged: what stands between the PEM lines is not Base64")?;
    let content = sequence(&der).ok_or("is damaged: it is no DER sequence of that length")?;
    if content.starts_with(&RSA_ALGORITHM) { Ok(()) } else { Err("is not an RSA key") }
}

/// The content of a DER sequence that is all of `der`.
fn sequence(der: &[u8]) -> Option<&[u8]> {
    let rest = der.strip_prefix(&[0x30])?;
    let (&first, rest) = rest.split_first()?;
    let (length, content) = match first {
        0..=0x7f => (usize::from(first), rest),
        // No RSA key needs more than two bytes for its length: 64 KiB.
        0x81 | 0x82 => {
            let (bytes, content) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, content)
        }
        _ => return None,
    };
    (content.len() == length).then_some(content)
}

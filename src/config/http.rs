//! How the service meets its clients: limits, our names, other origins, proxies.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::http::server::HttpSettings;

use super::layers::{Given, Reader};
use super::mistake::Mistake;
use super::{key, value};

/// What a usual limit of 1024 file descriptors leaves room for.
const DEFAULT_MAX_CONNECTIONS: usize = 512;
const MAX_CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
/// The largest delivery that can be configured, or many usual ones.
const DEFAULT_MAX_UNAUTHENTICATED_BYTES: usize = 64 * 1024 * 1024;
/// As much as memory may have.
const LARGEST_UNAUTHENTICATED_BYTES: usize = 1024 * 1024 * 1024 * 1024;
/// A megabyte in that time is a slow line.
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than proxies keep a connection to use again: who closes first never
/// loses a request.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_mins(3);
/// Longer than any question should take, and than most senders wait.
const DEFAULT_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// What a test may need, to what is as good as none.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);

/// Reads all of it. On the loopback our names are known. The bodies of unauthenticated senders
/// have room for the largest delivery at least.
pub(super) fn read(
    reader: &mut Reader<'_>,
    is_loopback: bool,
    max_delivery_bytes: usize,
) -> HttpSettings {
    let unauthenticated_bytes = max_delivery_bytes..=LARGEST_UNAUTHENTICATED_BYTES;
    let hosts = reader.read(&key::HTTP_HOSTS, |given| given.each(host));
    let mut timeout = |key, default| {
        reader.read(key, |given| value::duration(given, TIMEOUTS)).unwrap_or(default)
    };
    HttpSettings {
        read_timeout: timeout(&key::HTTP_READ_TIMEOUT, DEFAULT_READ_TIMEOUT),
        idle_timeout: timeout(&key::HTTP_IDLE_TIMEOUT, DEFAULT_IDLE_TIMEOUT),
        answer_timeout: timeout(&key::HTTP_ANSWER_TIMEOUT, DEFAULT_ANSWER_TIMEOUT),
        max_connections: reader
            .read(&key::HTTP_MAX_CONNECTIONS, |given| given.number(MAX_CONNECTIONS))
            .unwrap_or(DEFAULT_MAX_CONNECTIONS),
        max_unauthenticated_bytes: reader
            .read(&key::HTTP_MAX_UNAUTHENTICATED_BYTES, |given| given.number(unauthenticated_bytes))
            .unwrap_or(DEFAULT_MAX_UNAUTHENTICATED_BYTES),
        hosts: hosts.or_else(|| is_loopback.then(Vec::new)),
        cors_origins: reader
            .read(&key::HTTP_CORS_ORIGINS, |given| given.each(origin))
            .unwrap_or_default(),
        trusted_proxies: reader
            .read(&key::HTTP_TRUSTED_PROXIES, |given| given.each(network))
            .unwrap_or_default(),
    }
}

/// A name of ours, without scheme and port.
fn host(given: &Given) -> Result<String, Mistake> {
    let text = given.text()?;
    if is_host(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(given.mistake(format!(
            "{text:?} is not a host's name or address without a port, such as callstate.example"
        )))
    }
}

fn is_host(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !text.is_empty()
                && !text.starts_with('.')
                && !text.ends_with('.')
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

/// An origin as browsers write it: scheme, host, and the port unless it is the
/// scheme's own.
fn origin(given: &Given) -> Result<String, Mistake> {
    let text = given.text()?;
    let is_origin = [("https://", ":443"), ("http://", ":80")].into_iter().any(|(scheme, port)| {
        text.strip_prefix(scheme).is_some_and(|rest| {
            let (host, number) = match rest.rsplit_once(':') {
                Some((host, number)) if !number.ends_with(']') => (host, Some(number)),
                _ => (rest, None),
            };
            is_host(host)
                && !text.bytes().any(|byte| byte.is_ascii_uppercase())
                && !text.ends_with(port)
                && number.is_none_or(|number| number.parse::<u16>().is_ok())
        })
    });
    if is_origin {
        Ok(text.to_owned())
    } else {
        Err(given.mistake(format!(
            "{text:?} is not an origin as browsers write it, such as https://grafana.example"
        )))
    }
}

/// A network such as `10.0.0.0/8`, or an address, which is a network of one.
fn network(given: &Given) -> Result<IpNet, Mistake> {
    let text = given.text()?;
    let network = match text.parse::<std::net::IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse().ok(),
    };
    let network = network.ok_or_else(|| {
        given.mistake(format!("{text:?} is not a network such as 10.0.0.0/8, or an address"))
    })?;
    if network == network.trunc() {
        Ok(network)
    } else {
        Err(given
            .mistake(format!("{text:?} has bits beyond its prefix; is it {}?", network.trunc())))
    }
}

//! What a browser may do here that visits somebody else's page.
//!
//! Where no key is asked for, being on this machine is what lets a client in,
//! and a browser on this machine runs whatever its pages tell it. Two tricks are
//! refused. A page whose name is made to point here (DNS rebinding) asks under
//! that name, so questions without a key are answered only under [names of
//! ours](BrowserPolicy). And any page may post a form here, with its own origin on it, so
//! what changes something is refused from [other origins](BrowserPolicy::is_foreign).
//!
//! Programs that are no browser send no `Origin`, and whatever `Host` they like:
//! deliveries are taken under any name.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, Method, Uri, Version, header, uri::Authority};

/// What we are called.
#[derive(Debug, Default)]
pub(super) struct BrowserPolicy {
    /// The names that were configured, in lower case, without ports; `None` where
    /// we cannot know our names.
    pub(super) hosts: Option<Vec<String>>,
    /// The origins that may ask from elsewhere.
    pub(super) origins: Vec<HeaderValue>,
}

impl BrowserPolicy {
    /// Whether a request is to one of our names. What names nobody is no
    /// browser's.
    pub(super) fn are_meant(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        if let Some(authority) = uri.authority() {
            return self.contains(authority);
        }
        headers.get_all(header::HOST).iter().all(|host| {
            Authority::try_from(host.as_bytes()).is_ok_and(|authority| self.contains(&authority))
        })
    }

    /// Whether a request would change something and was made by a page that is
    /// neither ours nor of an origin that may.
    pub(super) fn is_foreign(&self, method: &Method, headers: &HeaderMap) -> bool {
        !method.is_safe()
            && headers.get_all(header::ORIGIN).iter().any(|origin| {
                !self.origins.contains(origin) && !self.is_own(origin, headers.get(header::HOST))
            })
    }

    /// Whether an origin is the place itself that its page asks.
    fn is_own(&self, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
        let authority = |text: &[u8]| Authority::try_from(text).ok();
        let of_origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let of_origin = of_origin.and_then(|(_, text)| authority(text.as_bytes()));
        let of_host = host.and_then(|host| authority(host.as_bytes()));
        of_origin.is_some_and(|origin| Some(&origin) == of_host.as_ref() && self.contains(&origin))
    }

    /// Whether it is a name of ours, at any port: a tunnel may have another.
    fn contains(&self, authority: &Authority) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let host = authority.host();
        let host = host.strip_suffix('.').unwrap_or(host);
        is_loopback(host) || hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Whether a request has one valid `Host`, or none before HTTP/1.1 ([RFC 9112, 3.2]).
///
/// [RFC 9112, 3.2]: https://www.rfc-editor.org/rfc/rfc9112#section-3.2
pub(super) fn has_valid_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => is_valid_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a value is empty, or a host with or without a port.
fn is_valid_host(value: &[u8]) -> bool {
    if value.is_empty() {
        return true;
    }
    let Ok(authority) = Authority::try_from(value) else { return false };
    // The host is the whole, or a colon and a port follow it. Before it there would be a user.
    match authority.as_str().strip_prefix(authority.host()) {
        Some("" | ":") => true,
        Some(port) => authority.port_u16().is_some() && port.starts_with(':'),
        None => false,
    }
}

/// Whether a host is this machine to itself: `localhost` and what is below it
/// ([RFC 6761]), an address of the loopback, or the one that stands for none and
/// leads here too.
///
/// [RFC 6761]: https://www.rfc-editor.org/rfc/rfc6761#section-6.3
fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let address = address.to_canonical();
        return address.is_loopback() || address.is_unspecified();
    }
    let (_, last) = host.rsplit_once('.').unwrap_or(("", host));
    last.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BrowserPolicy {
        BrowserPolicy {
            hosts: Some(vec!["callstate.internal".to_owned()]),
            origins: vec![HeaderValue::from_static("https://grafana.example")],
        }
    }

    fn headers(given: &[(header::HeaderName, &str)]) -> HeaderMap {
        given.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn this_machine_and_what_was_configured_are_our_names() {
        let uri = Uri::from_static("/calls");
        let meant = |host: &str| names().are_meant(&uri, &headers(&[(header::HOST, host)]));
        for host in [
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
            "0.0.0.0:8080",
            "[::]:8080",
            "callstate.internal",
            "Callstate.Internal:443",
        ] {
            assert!(meant(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "192.0.2.1",
            "callstate.internal.evil.example",
            "a b",
        ] {
            assert!(!meant(host), "{host}");
        }
        assert!(names().are_meant(&uri, &HeaderMap::new()));
        let both = [(header::HOST, "localhost"), (header::HOST, "evil.example")];
        let mut twice = headers(&both[..1]);
        twice.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(!names().are_meant(&uri, &twice));
        let absolute = Uri::from_static("http://evil.example/calls");
        assert!(!names().are_meant(&absolute, &headers(&both[..1])));
        assert!(
            BrowserPolicy::default().are_meant(&uri, &headers(&both[1..])),
            "they are not known"
        );
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for valid in
            ["", "localhost", "a.example:80", "a_b", "192.0.2.1:8080", "[::1]", "[::1]:1", "a:"]
        {
            assert!(is_valid_host(valid.as_bytes()), "{valid}");
        }
        for invalid in [
            "a b", "a/b", "user@a", "user@a:1", "a@a", "a:b", "a:99999", "a:1:2", "é", "http://a",
            "::1", "[::1", "a?", "a#", ":80x",
        ] {
            assert!(!is_valid_host(invalid.as_bytes()), "{invalid}");
        }
    }

    #[test]
    fn what_changes_something_is_refused_from_a_page_of_another_origin() {
        let foreign = |method: Method, origin: &str, host: &str| {
            let headers = headers(&[(header::ORIGIN, origin), (header::HOST, host)]);
            names().is_foreign(&method, &headers)
        };
        let here = "127.0.0.1:8080";
        for origin in ["https://evil.example", "null", "http://127.0.0.1:3000", "127.0.0.1:8080"] {
            assert!(foreign(Method::POST, origin, here), "{origin}");
            assert!(!foreign(Method::GET, origin, here), "{origin}");
        }
        assert!(!foreign(Method::POST, "http://127.0.0.1:8080", here));
        assert!(!foreign(Method::POST, "https://grafana.example", here));
        // A name that was made to point here is its own origin, and not ours.
        assert!(foreign(Method::POST, "http://evil.example:8080", "evil.example:8080"));
        let headers = headers(&[(header::HOST, "evil.example")]);
        assert!(!names().is_foreign(&Method::POST, &headers), "no browser");
    }
}

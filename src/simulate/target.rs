//! Where the traffic goes, and the way there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An endpoint of a callstate, and the API beside it.
#[derive(Debug, Clone)]
pub struct Target {
    endpoint: Url,
    api: Url,
}

/// Why a text is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// It is no URL.
    #[error("is not a URL, such as http://127.0.0.1:8080/webhooks")]
    NotUrl,
    /// It is a URL of something else.
    #[error("is not the URL of an endpoint, which ends in /webhooks or /webhooks/NAME")]
    NotEndpoint,
}

impl Target {
    /// Reads the URL of an endpoint.
    ///
    /// # Errors
    ///
    /// Where it is none.
    pub fn read(url: &str) -> Result<Self, NoTarget> {
        let endpoint: Url = url.parse().map_err(|_| NoTarget::NotUrl)?;
        if !matches!(endpoint.scheme(), "http" | "https") || !endpoint.has_host() {
            return Err(NoTarget::NotUrl);
        }
        let path = endpoint.path().trim_end_matches('/');
        let (before, after) = path.rsplit_once("/webhooks").ok_or(NoTarget::NotEndpoint)?;
        let is_endpoint =
            after.is_empty() || (after.starts_with('/') && after.rfind('/') == Some(0));
        if !is_endpoint || endpoint.query().is_some() || endpoint.fragment().is_some() {
            return Err(NoTarget::NotEndpoint);
        }
        let mut api = endpoint.clone();
        api.set_path(&format!("{before}/"));
        Ok(Self { endpoint, api })
    }

    /// Where deliveries go.
    #[must_use]
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The URL of a route of the API.
    ///
    /// # Panics
    ///
    /// Never: an `http` URL takes a path.
    #[must_use]
    pub fn route(&self, segments: &[&str]) -> Url {
        let mut url = self.api.clone();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(segments);
        url
    }

    /// Whether nothing leaves this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.endpoint.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.map_or(host == "localhost", |address| address.is_loopback())
    }

    /// A client for that many connections at a time.
    ///
    /// # Errors
    ///
    /// Where the machine's certificates, which `https` needs, cannot be read.
    pub fn client(&self, connections: usize) -> reqwest::Result<reqwest::Client> {
        // It may be there already, and is the same then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let localhost = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            .map(|address| SocketAddr::new(address, 0));
        let builder = reqwest::Client::builder()
            .user_agent(concat!("callstate-simulate/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(connections)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // What is meant for the loopback goes there, whatever the environment,
            // a redirection or the resolver say.
            .no_proxy()
            .redirect(Policy::none())
            .resolve_to_addrs("localhost", &localhost);
        if self.endpoint.scheme() == "https" {
            builder.build()
        } else {
            // A machine without certificates will do.
            builder.tls_certs_only([]).build()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_beside_the_endpoint() {
        for (endpoint, call) in [
            ("http://127.0.0.1:8080/webhooks", "http://127.0.0.1:8080/calls/a%2Fb"),
            ("http://127.0.0.1:8080/webhooks/", "http://127.0.0.1:8080/calls/a%2Fb"),
            ("https://example.com/at/webhooks/main", "https://example.com/at/calls/a%2Fb"),
        ] {
            let target = Target::read(endpoint).unwrap();
            assert_eq!(target.endpoint().as_str(), endpoint);
            assert_eq!(target.route(&["calls", "a/b"]).as_str(), call);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for (text, why) in [
            ("8080", NoTarget::NotUrl),
            ("localhost:8080/webhooks", NoTarget::NotUrl),
            ("ftp://127.0.0.1/webhooks", NoTarget::NotUrl),
            ("http://127.0.0.1:8080", NoTarget::NotEndpoint),
            ("http://127.0.0.1:8080/calls", NoTarget::NotEndpoint),
            ("http://127.0.0.1:8080/webhooks/a/b", NoTarget::NotEndpoint),
            ("http://127.0.0.1:8080/webhooksville", NoTarget::NotEndpoint),
            ("http://127.0.0.1:8080/webhooks?a=b", NoTarget::NotEndpoint),
        ] {
            assert_eq!(Target::read(text).err(), Some(why), "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_the_loopback() {
        let is_loopback =
            |host: &str| Target::read(&format!("http://{host}/webhooks")).unwrap().is_loopback();
        for host in ["127.0.0.1", "127.9.9.9:8080", "[::1]:80", "localhost:8080", "LOCALHOST"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "0.0.0.0",
            "10.0.0.1",
            "[::]",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}

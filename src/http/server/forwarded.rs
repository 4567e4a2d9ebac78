//! Whose request it is: the peer's address, or, behind proxies that are trusted,
//! the one that they tell.
//!
//! Each proxy adds the address that it saw to the end of `Forwarded` ([RFC 7239])
//! or `X-Forwarded-For`, and anybody may have written what stands before. So the
//! chain is read from its end: past the proxies that are trusted, to the first
//! address that is not. What cannot be read ends the chain there, and a client
//! can never choose what is told of it, only hide behind the last proxy.
//!
//! [RFC 7239]: https://www.rfc-editor.org/rfc/rfc7239

use std::net::{IpAddr, SocketAddr};

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

/// What most proxies send.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a request comes from: an extension of it, set for each connection and
/// then put right for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct ClientAddress(pub(super) IpAddr);

impl ClientAddress {
    /// Who is at the other end of a connection.
    pub(super) fn at(peer: SocketAddr) -> Self {
        Self(peer.ip().to_canonical())
    }

    /// The address, for log lines; `None` where a request came by no connection.
    pub(in crate::http) fn of(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().map(|client| client.0)
    }
}

/// The proxies that are trusted to tell whose request it is.
#[derive(Debug, Default)]
pub(super) struct TrustedProxies(pub(super) Vec<IpNet>);

impl TrustedProxies {
    /// The address that a request comes from, which `peer` handed to us.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        let forwarded = values(headers, &header::FORWARDED);
        let x_forwarded_for = values(headers, &X_FORWARDED_FOR);
        match (forwarded.is_empty(), x_forwarded_for.is_empty()) {
            (true, true) => peer,
            (false, true) => self.first_untrusted(peer, &forwarded, forwarded_chain),
            (true, false) => self.first_untrusted(peer, &x_forwarded_for, x_forwarded_for_chain),
            // A proxy writes one of them, so the other may be the client's.
            (false, false) => peer,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The last address that is not a trusted proxy's. Each line is read by
    /// itself: what is wrong with one says nothing of those after it.
    fn first_untrusted(
        &self,
        peer: IpAddr,
        lines: &[&[u8]],
        chain: fn(&[u8]) -> Vec<Option<IpAddr>>,
    ) -> IpAddr {
        let mut nearest = peer;
        for line in lines.iter().rev() {
            for address in chain(line).into_iter().rev() {
                match address {
                    None => return nearest,
                    Some(address) if self.trusts(address) => nearest = address,
                    Some(address) => return address,
                }
            }
        }
        nearest
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// The addresses of a line of `X-Forwarded-For`, `None` for what is none.
fn x_forwarded_for_chain(line: &[u8]) -> Vec<Option<IpAddr>> {
    line.split(|byte| *byte == b',').map(|node| address(node.trim_ascii())).collect()
}

/// The addresses of a line of `Forwarded`, `None` for an element without one.
/// One that is not well-formed has none at all: who leaves a quotation open
/// could swallow what a proxy wrote behind it.
fn forwarded_chain(line: &[u8]) -> Vec<Option<IpAddr>> {
    elements(line).unwrap_or_else(|| vec![None])
}

/// The addresses of the elements of a line that is well-formed.
fn elements(line: &[u8]) -> Option<Vec<Option<IpAddr>>> {
    let mut chain = Vec::new();
    let mut node = None;
    let mut rest = line.trim_ascii();
    loop {
        // An element may be empty, and a pair too.
        if !matches!(rest.first(), None | Some(b';' | b',')) {
            let equals = rest.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&rest[..equals], &rest[equals + 1..]);
            if name.is_empty() || !name.iter().copied().all(is_token) {
                return None;
            }
            let (value, after) = take_value(value)?;
            if name.eq_ignore_ascii_case(b"for") && node.replace(value).is_some() {
                return None;
            }
            rest = after.trim_ascii_start();
        }
        match rest.split_first() {
            Some((b';', after)) => rest = after.trim_ascii_start(),
            Some((b',', after)) => {
                chain.push(node.take().and_then(|node: Vec<u8>| address(&node)));
                rest = after.trim_ascii_start();
            }
            Some(_) => return None,
            None => {
                chain.push(node.take().and_then(|node| address(&node)));
                return Some(chain);
            }
        }
    }
}

/// A value, without the quotation around it, and what follows.
fn take_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some((b'"', quoted)) = text.split_first() else {
        let end = text.iter().position(|byte| !is_token(*byte)).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return (!value.is_empty()).then(|| (value.to_vec(), after));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().copied().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[at + 1..])),
            b'\\' => value.push(bytes.next()?.1),
            _ => value.push(byte),
        }
    }
    None
}

/// Whether a byte may stand in a token ([RFC 9110, 5.6.2]), or in an address
/// that somebody forgot to quote.
///
/// [RFC 9110, 5.6.2]: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:[]".contains(&byte)
}

/// The address of a node: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:80`. A name that hides one is none.
fn address(node: &[u8]) -> Option<IpAddr> {
    let node = str::from_utf8(node).ok()?;
    let parsed = node
        .parse::<IpAddr>()
        .or_else(|_| node.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()
        .or_else(|| node.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6))?;
    Some(parsed.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    /// Who is told to ask, of a request that a peer handed over.
    fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let proxies =
            TrustedProxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    fn forwarded(value: &str) -> String {
        client(PROXY, &[("forwarded", value)])
    }

    fn x_forwarded_for(value: &str) -> String {
        client(PROXY, &[("x-forwarded-for", value)])
    }

    #[test]
    fn who_is_not_trusted_is_told_by_its_own_address_whatever_it_says() {
        for header in ["forwarded", "x-forwarded-for"] {
            assert_eq!(client("192.0.2.9", &[(header, "for=192.0.2.1")]), "192.0.2.9");
            assert_eq!(client("192.0.2.9", &[(header, "192.0.2.1")]), "192.0.2.9");
        }
        assert_eq!(client(PROXY, &[]), PROXY);
    }

    #[test]
    fn the_last_address_that_is_not_trusted_counts() {
        assert_eq!(x_forwarded_for("192.0.2.1"), "192.0.2.1");
        assert_eq!(x_forwarded_for("198.51.100.7, 192.0.2.1"), "192.0.2.1");
        assert_eq!(x_forwarded_for("127.0.0.1,192.0.2.1 , 10.9.9.9,10.1.1.1"), "192.0.2.1");
        assert_eq!(x_forwarded_for("fd00::1"), "fd00::1");
        assert_eq!(x_forwarded_for("10.3.3.3, 10.2.2.2"), "10.3.3.3");
        assert_eq!(forwarded("for=198.51.100.7, for=192.0.2.1, for=10.1.1.1"), "192.0.2.1");
    }

    #[test]
    fn several_lines_are_one_chain() {
        let lines = [
            ("x-forwarded-for", "203.0.113.1, 192.0.2.1"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-for", "10.2.2.2"),
        ];
        assert_eq!(client(PROXY, &lines), "192.0.2.1");
    }

    #[test]
    fn addresses_are_written_in_many_ways() {
        for (node, address) in [
            ("192.0.2.43", "192.0.2.43"),
            ("192.0.2.43:47011", "192.0.2.43"),
            ("2001:db8:cafe::17", "2001:db8:cafe::17"),
            ("[2001:db8:cafe::17]", "2001:db8:cafe::17"),
            ("[2001:db8:cafe::17]:4711", "2001:db8:cafe::17"),
            ("::ffff:192.0.2.43", "192.0.2.43"),
        ] {
            assert_eq!(x_forwarded_for(node), address, "{node}");
            assert_eq!(forwarded(&format!("for=\"{node}\"")), address, "{node}");
            assert_eq!(forwarded(&format!("FOR={node};proto=https")), address, "{node}");
        }
        // The examples of RFC 7239.
        assert_eq!(forwarded("For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
        assert_eq!(forwarded("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
        assert_eq!(forwarded("for=192.0.2.43, for=198.51.100.17"), "198.51.100.17");
        assert_eq!(forwarded("for=\"1\\92.0.2.43\" ; host=\"a;b,c\\\"\""), "192.0.2.43");
    }

    #[test]
    fn what_cannot_be_read_ends_the_chain() {
        for node in ["unknown", "_hidden", "", "192.0.2", "192.0.2.1:port", "[::1", "a b", "é"] {
            assert_eq!(x_forwarded_for(&format!("192.0.2.1, {node}, 10.1.1.1")), "10.1.1.1");
            assert_eq!(x_forwarded_for(node), PROXY, "{node}");
            assert_eq!(x_forwarded_for(&format!("{node}, 192.0.2.1")), "192.0.2.1");
        }
        assert_eq!(forwarded("for=192.0.2.1, for=unknown, for=10.1.1.1"), "10.1.1.1");
        assert_eq!(forwarded("for=192.0.2.1, by=203.0.113.43"), PROXY);
        assert_eq!(forwarded("for=192.0.2.1,"), PROXY);
    }

    #[test]
    fn nobody_swallows_what_a_proxy_wrote_behind_it() {
        for spoof in
            ["for=\"", "for=\"x", "for=198.51.100.7;by=\"", "for=\"198.51.100.7\\", "for=", "\""]
        {
            for written in ["for=192.0.2.1", "for=\"[2001:db8::1]\";by=\"[fd00::2]\""] {
                // What the proxy wrote may be told, or the proxy itself.
                let told = forwarded(&format!("{spoof}, {written}"));
                assert!([PROXY, "192.0.2.1", "2001:db8::1"].contains(&&*told), "{spoof}: {told}");
            }
            let lines = [("forwarded", spoof), ("forwarded", "for=192.0.2.1")];
            assert_eq!(client(PROXY, &lines), "192.0.2.1", "{spoof}");
        }
        assert_eq!(forwarded("for=198.51.100.7;for=192.0.2.1"), PROXY);
    }

    #[test]
    fn of_two_headers_one_may_be_the_clients_so_neither_counts() {
        for [first, second] in [["198.51.100.7", "192.0.2.1"], ["192.0.2.1", "198.51.100.7"]] {
            let headers = [("forwarded", &*format!("for={first}")), ("x-forwarded-for", second)];
            assert_eq!(client(PROXY, &headers), PROXY);
        }
    }
}

//! Where `ringyard healthcheck` asks: a URL that is given, or `/healthz` of a broker that listens at an address.
//!
//! Not responsible for asking ([`healthcheck`](crate::server::healthcheck)).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where to ask: `http://host:port/path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// With its port, as the request names it.
    pub(crate) host: String,
    pub(crate) path: String,
}

impl Url {
    /// `/healthz` of the broker that listens at `address`, seen from this machine, in the order to ask at. For every
    /// address of both families there are two: on either loopback it may be that nothing can be reached.
    #[must_use]
    pub fn health(address: SocketAddr) -> Vec<Self> {
        let first = from_here(address);
        let other = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port());
        let is_both = address.is_ipv6() && address.ip().is_unspecified();
        let all = [Some(first), is_both.then_some(other)];
        all.into_iter().flatten().map(|at| Self { host: at.to_string(), path: "/healthz".to_owned() }).collect()
    }

    /// The field Host: the address without its zone, which is this machine's affair (RFC 6874 §1).
    pub(crate) fn host_field(&self) -> String {
        match self.host.parse() {
            Ok(SocketAddr::V6(address)) => format!("[{}]:{}", address.ip(), address.port()),
            _ => self.host.clone(),
        }
    }

    /// Reads `http://host[:port][/path]`; without a path it is `/healthz`, without a port 80.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let sentence = || "a URL is http://host:port, such as http://127.0.0.1:8081".to_owned();
        let rest = text.trim().strip_prefix("http://").ok_or_else(sentence)?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let authority = host.parse::<axum::http::uri::Authority>().map_err(|_| sentence())?;
        let port = authority.as_str().strip_prefix(authority.host()).ok_or_else(sentence)?;
        if authority.host().is_empty() || path.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(sentence());
        }
        let host = match (port, authority.port_u16()) {
            ("", _) => format!("{host}:80"),
            (_, Some(_)) => host.to_owned(),
            (_, None) => return Err(sentence()),
        };
        Ok(Self { host, path: if path.len() > 1 { path } else { "/healthz" }.to_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

/// Where this machine reaches what listens at `address`: an unspecified address is no destination. `[::]` is both
/// families, of which the loopback of IPv4 is there in a network of IPv6 only too.
#[must_use]
pub fn from_here(address: SocketAddr) -> SocketAddr {
    if address.ip().to_canonical().is_unspecified() {
        return (Ipv4Addr::LOCALHOST, address.port()).into();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, expected) in [
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081/healthz"),
            ("http://localhost", "http://localhost:80/healthz"),
            ("http://[::1]:80/readyz", "http://[::1]:80/readyz"),
            ("http://a:1/", "http://a:1/healthz"),
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "https://a", "a:1", "http://", "http://:1", "http://a:b", "http://a:99999", "http://a/ b"] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        for (address, expected) in [
            ("0.0.0.0:8", &["127.0.0.1:8"][..]),
            ("[::]:8", &["127.0.0.1:8", "[::1]:8"]),
            ("[::1]:8", &["[::1]:8"]),
            ("10.0.0.1:8", &["10.0.0.1:8"]),
            ("[::ffff:10.0.0.1]:8", &["[::ffff:10.0.0.1]:8"]),
        ] {
            let hosts: Vec<_> = Url::health(address.parse().unwrap()).into_iter().map(|url| url.host).collect();
            assert_eq!(hosts, expected, "{address}");
        }
    }

    #[test]
    fn a_zone_is_not_sent_to_the_broker() {
        let of = |address: &str| Url::health(address.parse().unwrap()).remove(0);
        assert_eq!(of("[fe80::1%2]:8").host_field(), "[fe80::1]:8");
        assert_eq!(of("[fe80::1%2]:8").host, "[fe80::1%2]:8");
        assert_eq!(of("127.0.0.1:8").host_field(), "127.0.0.1:8");
        assert_eq!(Url::parse("http://name:8").unwrap().host_field(), "name:8");
    }
}

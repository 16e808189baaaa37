//! Where to connect: an address, a path, and the request head that asks for a WebSocket there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result};

/// A key and its answer, both from RFC 6455, section 1.3: a load generator needs no secret.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Connections per source address: far below the number of ports, so that the kernel finds a free one at once.
const PER_SOURCE: usize = 1000;

/// A `ws://` address.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    host: String,
    path: String,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("ws://").with_context(|| format!("{url}: an address begins with ws://"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let address = address
            .to_socket_addrs()
            .with_context(|| format!("{url}: {host} is no host and port"))?
            .next()
            .with_context(|| format!("{url}: {host} has no address"))?;
        Ok(Self { address, host: host.to_owned(), path: format!("/{path}") })
    }

    /// The upgrade request (RFC 6455, section 4.1).
    pub(crate) fn request(&self) -> Vec<u8> {
        let Self { host, path, .. } = self;
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .into_bytes()
    }

    /// Whether `head` accepts [`Target::request`].
    pub(crate) fn accepted(head: &[u8]) -> bool {
        let head = String::from_utf8_lossy(head);
        head.starts_with("HTTP/1.1 101 ")
            && head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT)
    }

    /// The address that connection `index` of process `process` comes from: `127.x.y.z`, so that ports do not
    /// run out. Nothing to bind to when the target is elsewhere.
    pub(crate) fn source(&self, process: usize, index: usize) -> Option<SocketAddr> {
        let IpAddr::V4(ip) = self.address.ip() else {
            return None;
        };
        let group = index / PER_SOURCE;
        let source = Ipv4Addr::new(127, 1 + process as u8, (group / 250) as u8, 1 + (group % 250) as u8);
        ip.is_loopback().then(|| SocketAddr::from((source, 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let target = Target::parse("ws://127.0.0.1:8080/sub/a/b").unwrap();
        assert_eq!((target.address.port(), &target.path[..]), (8080, "/sub/a/b"));
        assert_eq!(target.source(0, 1500).unwrap().to_string(), "127.1.0.2:0");
        assert_eq!(Target::parse("ws://127.0.0.1").unwrap().address.port(), 80);
        assert!(Target::parse("http://127.0.0.1/").is_err());
    }

    #[test]
    fn answers() {
        let head = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-ACCEPT:  {ACCEPT}\r\n\r\n");
        assert!(Target::accepted(head.as_bytes()));
        assert!(!Target::accepted(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
        assert!(!Target::accepted(head.replace("101", "200").as_bytes()));
    }
}

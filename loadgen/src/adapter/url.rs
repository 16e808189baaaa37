//! A server's address as the user writes it: `ws://host[:port][/path][?query]`, or `wss://` (RFC 6455, section 3).
//!
//! The host is resolved once, before the run.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, ensure};
use rustls_pki_types::ServerName;

use super::Duty;

/// What stands in a path for a topic's name.
pub(super) const TOPIC: &str = "{topic}";

/// Where to connect and what to ask for.
#[derive(Clone, Debug)]
pub(super) struct Url {
    pub(super) address: SocketAddr,
    /// As in the URL: the value of `Host` (RFC 9110, section 7.2).
    pub(super) host: String,
    /// Whom the certificate must name, with `wss://`.
    pub(super) server_name: Option<ServerName<'static>>,
    /// Path and query; `/` when there is neither.
    pub(super) path: String,
}

/// What comes behind `scheme://`, in which upper and lower case are the same (RFC 3986, section 3.1).
pub(crate) fn without_scheme<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let (given, rest) = url.split_once("://")?;
    given.eq_ignore_ascii_case(scheme).then_some(rest)
}

impl Url {
    pub(super) fn parse(url: &str) -> Result<Self> {
        let secure = without_scheme(url, "wss");
        let rest = secure
            .or_else(|| without_scheme(url, "ws"))
            .with_context(|| format!("{url}: an address begins with ws:// or wss://"))?;
        ensure!(
            url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('#'),
            "{url}: an address has no spaces, no '#' and no bytes beyond ASCII (percent-encode them)"
        );
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        ensure!(!host.is_empty() && !host.contains('@'), "{url}: a host, and no user, comes behind ws://");
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if secure.is_some() { 443 } else { 80 };
        let address = if has_port { host.to_owned() } else { format!("{host}:{port}") };
        let server_name = secure.map(|_| server_name(host, has_port)).transpose()?;
        let address = address
            .to_socket_addrs()
            .with_context(|| format!("{url}: {host} is no host and port"))?
            .next()
            .with_context(|| format!("{url}: {host} has no address"))?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        // Upper and lower case are the same in a host (RFC 3986, section 3.2.2).
        Ok(Self { address, host: host.to_ascii_lowercase(), server_name, path })
    }

    /// Whether the user left the path to the protocol.
    pub(super) fn is_bare(&self) -> bool {
        self.path == "/"
    }

    /// The same server, with another path.
    pub(super) fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// The same with the path's first segment `/sub` made another, if it has one.
    pub(super) fn with_segment(&self, segment: &str) -> Self {
        let end = self.path.find('?').unwrap_or(self.path.len());
        let found = self.path[..end]
            .match_indices("/sub")
            .map(|(at, found)| (at, at + found.len()))
            .find(|(_, after)| *after == end || self.path.as_bytes()[*after] == b'/');
        match found {
            Some((at, after)) => self.with_path(&format!("{}{segment}{}", &self.path[..at], &self.path[after..])),
            None => self.clone(),
        }
    }

    /// Whether the path names a topic.
    pub(super) fn names_topic(&self) -> bool {
        self.path.contains(TOPIC)
    }
}

/// The host without its port: a name or an address.
fn server_name(host: &str, has_port: bool) -> Result<ServerName<'static>> {
    let name = if has_port { host.rsplit_once(':').map_or(host, |(name, _)| name) } else { host };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(name.to_ascii_lowercase());
    name.with_context(|| format!("{host}: a certificate cannot name this host"))
}

/// Where the clients of one run connect to, where paths name topics.
#[derive(Debug)]
pub(super) struct Urls {
    subscribe: Url,
    publish: Url,
    /// For those that are both.
    both: Url,
}

impl Urls {
    /// The usual paths of subscribers, publishers and those that are both, unless the user gave others.
    pub(super) fn new(url: &Url, publish: Option<&Url>, topics: u32, usual: &[String; 3]) -> Result<Self> {
        let given = |url: &Url, bare: &str, segment: Option<&str>| match segment {
            _ if url.is_bare() => url.with_path(bare),
            Some(segment) => url.with_segment(segment),
            None => url.clone(),
        };
        let urls = Self {
            subscribe: given(url, &usual[0], None),
            publish: match publish {
                Some(publish) => given(publish, &usual[1], None),
                None => given(url, &usual[1], Some("/pub")),
            },
            both: given(url, &usual[2], Some("/bus")),
        };
        if let Some(url) = [&urls.subscribe, &urls.publish, &urls.both].into_iter().find(|url| !url.names_topic()) {
            ensure!(
                topics == 1,
                "{topics} topics need {TOPIC} in the path, where each one's name is put: {} has none",
                url.path
            );
        }
        Ok(urls)
    }

    /// The one for a connection with this duty.
    pub(super) fn of(&self, duty: &Duty) -> &Url {
        match (duty.subscribes.count, duty.publishes.count) {
            (0, _) => &self.publish,
            (_, 0) => &self.subscribe,
            _ => &self.both,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parts = |url: &str| {
            let url = Url::parse(url).unwrap();
            (url.address.to_string(), url.host, url.path)
        };
        let expected = |address: &str, host: &str, path: &str| (address.to_owned(), host.to_owned(), path.to_owned());
        assert_eq!(parts("ws://127.0.0.1"), expected("127.0.0.1:80", "127.0.0.1", "/"));
        assert_eq!(parts("ws://127.0.0.1:8080/a/b?c/d"), expected("127.0.0.1:8080", "127.0.0.1:8080", "/a/b?c/d"));
        assert_eq!(parts("ws://[::1]:81?x"), expected("[::1]:81", "[::1]:81", "/?x"));
        assert_eq!(parts("ws://[::1]/"), expected("[::1]:80", "[::1]", "/"));
        assert_eq!(parts("WS://LocalHost:81/A?B").1, "localhost:81");
        assert_eq!(parts("Ws://127.0.0.1:81/A?B"), expected("127.0.0.1:81", "127.0.0.1:81", "/A?B"));
        assert_eq!(parts("WSS://127.0.0.1/x"), expected("127.0.0.1:443", "127.0.0.1", "/x"));
        let named = |url: &str| Url::parse(url).unwrap().server_name.map(|name| name.to_str().into_owned());
        assert_eq!(named("ws://localhost:81"), None);
        for (url, name) in
            [("wss://LocalHost:81", "localhost"), ("wss://[::1]:81", "::1"), ("wss://127.0.0.1", "127.0.0.1")]
        {
            assert_eq!(named(url).as_deref(), Some(name));
        }
        for bad in [
            "",
            "http://a/",
            "https://127.0.0.1/",
            "wss://",
            "ws://",
            "ws:///x",
            "ws://u@127.0.0.1/",
            "ws://127.0.0.1:x/",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        for bad in ["ws://127.0.0.1/a b", "ws://127.0.0.1/\u{e4}", "ws://127.0.0.1/a#b", "ws://127.0.0.1/\r\nX: y"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn segments() {
        let turned = |path: &str| Url::parse(&format!("ws://127.0.0.1{path}")).unwrap().with_segment("/pub").path;
        assert_eq!(turned("/sub/a"), "/pub/a");
        assert_eq!(turned("/x/sub?id=/sub"), "/x/pub?id=/sub");
        assert_eq!(turned("/submarine/sub"), "/submarine/pub");
        assert_eq!(turned("/sub/sub/a"), "/pub/sub/a");
        assert_eq!(turned("/other?x=/sub/"), "/other?x=/sub/");
    }
}

//! Which host names requests may be addressed to: the check against DNS rebinding.
//!
//! A page of any site can have its own host name lead to this broker's address, and its requests then look to the
//! browser like requests to the page's own site: no check of `Origin` helps, for origin and host agree. What gives
//! them away is the name. An IP address cannot be led elsewhere, nor can `localhost` (RFC 6761, section 6.3).

use std::net::{Ipv4Addr, Ipv6Addr};

use protocol::head::authority_parts;

use crate::observe::refused::printable;

/// The sentence for a client whose `host` is not allowed.
#[must_use]
pub fn sentence(host: &str) -> String {
    // What a browser would not show as it is, nobody has to read.
    let shown = printable(host);
    format!("This broker is not known as {shown}: start it with --allow-host and that name.")
}

/// Whether requests to `host`, with its port if one was given, pass: an IP address, localhost, or listed in
/// `allowed` (in lower case; with a port, then this one only; or `*`).
#[must_use]
pub fn allowed(host: &str, allowed: &[String]) -> bool {
    if allowed.iter().any(|listed| listed == "*") {
        return true;
    }
    let Some((name, port)) = authority_parts(host) else { return false };
    if let Some(literal) = name.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<Ipv4Addr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || allowed.iter().any(|listed| is_listed(listed, &name, port))
}

fn is_listed(listed: &str, name: &str, port: Option<u16>) -> bool {
    let Some((listed_name, listed_port)) = authority_parts(listed) else { return false };
    // A host without a port has the default port of its scheme, which a proxy may know and we do not.
    let is_port = |listed: u16| port.map_or(listed == 80 || listed == 443, |port| port == listed);
    listed_name.strip_suffix('.').unwrap_or(listed_name) == name && listed_port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_always_pass() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "203.0.113.7:80",
            "[::1]",
            "[2001:db8::1]:8080",
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "app.localhost:3000",
        ] {
            assert!(allowed(host, &[]), "{host}");
        }
    }

    #[test]
    fn names_pass_that_are_listed() {
        let listed = ["broker.example", "other.example:8080", "tls.example:443"].map(str::to_owned);
        for host in [
            "broker.example",
            "BROKER.example:1234",
            "broker.example.",
            "other.example:8080",
            "tls.example",
            "tls.example:443",
        ] {
            assert!(allowed(host, &listed), "{host}");
        }
        for host in ["other.example", "other.example:80", "sub.broker.example", "broker.example.evil", "tls.example:80"]
        {
            assert!(!allowed(host, &listed), "{host}");
        }
        assert!(allowed("anything:1", &["*".to_owned()]));
    }

    #[test]
    fn nothing_else_passes() {
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "[::1",
            "[::1%25lo]",
            "[127.0.0.1]",
            "::1",
            "127.0.0.1:x",
            "a@localhost",
            "localhost/evil.example",
        ] {
            assert!(!allowed(host, &[]), "{host}");
        }
    }

    #[test]
    fn the_sentence_names_the_option_and_nothing_strange() {
        let text = sentence("evil.example\r\n<script>");
        assert!(text.contains("evil.example<script>") && text.contains("--allow-host"), "{text}");
        assert!(sentence(&"x".repeat(9000)).len() < 200);
    }
}

//! Is the page's origin (RFC 6454 §7) the very host it calls? Then it is the broker's own page, or one
//! behind the same proxy. Other origins are a matter of configuration, which is not here.

/// Is the `Origin` the same authority as the `Host`: the same name, in any case, and the same port, where a
/// missing one is the default of the origin's scheme? An opaque origin (`null`) never is.
#[must_use]
pub fn origin_is_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => 80,
        _ if scheme.eq_ignore_ascii_case("https") => 443,
        _ => return false,
    };
    match (authority_parts(authority), authority_parts(host)) {
        (Some((name, port)), Some((host_name, host_port))) => {
            name.eq_ignore_ascii_case(host_name) && port.unwrap_or(default_port) == host_port.unwrap_or(default_port)
        }
        _ => false,
    }
}

/// Name and port of an authority; an IPv6 literal keeps its brackets (RFC 3986 §3.2.2). `None` if malformed.
#[must_use]
pub fn authority_parts(authority: &str) -> Option<(&str, Option<u16>)> {
    let name_len = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (name, rest) = authority.split_at(name_len);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        // An empty port is none (RFC 3986 §3.2.3).
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    let plain = !name.is_empty() && !name.contains(['/', '?', '#', '@', '\\', ' ']);
    plain.then_some((name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_authority() {
        let cases = [
            ("http://localhost:8080", "localhost:8080"),
            ("http://Example.ORG", "example.org"),
            ("http://example.org", "example.org:80"),
            ("http://example.org:80", "example.org"),
            ("https://example.org", "example.org:443"),
            ("https://example.org:443", "example.org"),
            ("https://example.org", "example.org"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://[FE80::A]", "[fe80::a]:80"),
        ];
        for (origin, host) in cases {
            assert!(origin_is_host(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn another_authority() {
        let cases = [
            ("null", "null"),
            ("null", "localhost"),
            ("", ""),
            ("http://", ""),
            ("http://a", "b"),
            ("http://a:81", "a"),
            ("https://a", "a:80"),
            ("http://a", "a:443"),
            ("http://a.b", "a"),
            ("http://a", "a.b"),
            ("http://[::1]", "[::2]"),
            ("http://[::1", "[::1"),
            ("http://[::1]x", "[::1]x"),
            ("http://a:x", "a:x"),
            ("http://a:+80", "a"),
            ("http://a:99999", "a:99999"),
            ("http://a/b", "a/b"),
            ("http://u@a", "u@a"),
            ("file://", "a"),
            ("ftp://a", "a"),
        ];
        for (origin, host) in cases {
            assert!(!origin_is_host(origin, host), "{origin} {host}");
        }
    }
}

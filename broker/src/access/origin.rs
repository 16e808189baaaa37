//! Which web pages may connect: RFC 6454's origins, checked on upgrades and on requests of the HTTP API.
//!
//! A request without `Origin` comes from no web page and passes: the check protects visitors of foreign
//! pages, and is no authentication.
//!
//! A listed origin is one of these; `config/origins.rs` takes no other:
//!
//! | listed | passes |
//! | --- | --- |
//! | `https://app.example`, `null`, `file://` | this very origin |
//! | `https://*.app.example` | one level in place of `*`: `https://a.app.example`, neither `https://app.example` nor `https://a.b.app.example` |
//! | `http://localhost:*` | every port, the default one included |
//! | `*` | every origin |
//!
//! Cost: a comparison per listed origin; nothing is allocated.

use protocol::head::{authority_parts, origin_is_host};

/// Whether a request from `origin` to `host` passes: from the page's own host, or listed in `allowed`.
#[must_use]
pub fn allowed(origin: Option<&str>, host: &str, allowed: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    origin_is_host(origin, host) || allowed.iter().any(|listed| is_listed(listed, origin))
}

fn is_listed(listed: &str, origin: &str) -> bool {
    listed == "*" || listed.eq_ignore_ascii_case(origin) || (listed.contains('*') && matches(listed, origin))
}

/// Whether `origin` is one of those that a pattern with a scheme stands for.
fn matches(pattern: &str, origin: &str) -> bool {
    let (Some((listed_scheme, listed)), Some((scheme, authority))) =
        (pattern.split_once("://"), origin.split_once("://"))
    else {
        return false;
    };
    let (listed, any_port) = match listed.strip_suffix(":*") {
        Some(host) => (host, true),
        None => (listed, false),
    };
    let (Some((listed_host, listed_port)), Some((host, port))) = (authority_parts(listed), authority_parts(authority))
    else {
        return false;
    };
    let default_port = default_port(scheme);
    listed_scheme.eq_ignore_ascii_case(scheme)
        && is_host(listed_host, host)
        && (any_port || listed_port.or(default_port) == port.or(default_port))
}

fn is_host(listed: &str, host: &str) -> bool {
    let Some(parent) = listed.strip_prefix("*.") else { return listed.eq_ignore_ascii_case(host) };
    let Some((level, rest)) = host.split_once('.') else { return false };
    let is_level = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !level.is_empty() && level.bytes().all(is_level) && rest.eq_ignore_ascii_case(parent)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Some(80),
        _ if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn own_host_listed_and_foreign() {
        let listed = ["https://app.example".to_owned()];
        assert!(allowed(None, "broker:8080", &[]), "no page");
        assert!(allowed(Some("http://broker:8080"), "broker:8080", &[]));
        assert!(!allowed(Some("http://broker:8081"), "broker:8080", &[]));
        assert!(allowed(Some("https://app.example"), "broker:8080", &listed));
        assert!(!allowed(Some("http://app.example"), "broker:8080", &listed), "another scheme");
        assert!(!allowed(Some("null"), "broker:8080", &listed));
        assert!(allowed(Some("null"), "broker:8080", &["*".to_owned()]));
    }

    #[test]
    fn patterns() {
        let passes = |listed: &str, origin: &str| allowed(Some(origin), "broker", &[listed.to_owned()]);
        for (listed, origin) in [
            ("http://localhost:*", "http://localhost"),
            ("http://localhost:*", "http://LOCALHOST:3000"),
            ("http://[::1]:*", "http://[::1]:3000"),
            ("https://*.example.org", "https://a.example.org"),
            ("https://*.example.org", "https://A-1.Example.org:443"),
            ("https://*.example.org:8443", "https://a.example.org:8443"),
            ("https://*.example.org:*", "https://a.example.org:9"),
            ("capacitor://localhost:*", "capacitor://localhost"),
            ("null", "null"),
            ("file://", "file://"),
        ] {
            assert!(passes(listed, origin), "{listed} {origin}");
        }
        for (listed, origin) in [
            ("http://localhost:*", "https://localhost:3000"),
            ("http://localhost:*", "http://localhost.evil.example:3000"),
            ("http://localhost:*", "http://localhost:3000@evil.example"),
            ("http://localhost:*", "http://localhost:x"),
            ("http://localhost:*", "null"),
            ("https://*.example.org", "https://example.org"),
            ("https://*.example.org", "https://.example.org"),
            ("https://*.example.org", "https://a.b.example.org"),
            ("https://*.example.org", "https://a.example.org:8443"),
            ("https://*.example.org", "https://a.example.org.evil.example"),
            ("https://*.example.org", "https://evil/.example.org"),
            ("https://*.example.org", "https://u@a.example.org"),
            ("https://*.example.org", "http://a.example.org"),
            ("https://*.example.org", "file://"),
        ] {
            assert!(!passes(listed, origin), "{listed} {origin}");
        }
    }

    /// An origin, or a pattern, in its parts: scheme, levels of the host, port.
    type Parts = (&'static str, Vec<&'static str>, Option<&'static str>);

    fn text((scheme, levels, port): &Parts) -> String {
        format!("{scheme}://{}{}", levels.join("."), port.map(|port| format!(":{port}")).unwrap_or_default())
    }

    fn levels() -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(select(vec!["a", "b", "A"]), 1..4)
    }

    /// Level by level, and the port as a number.
    fn naive((scheme, listed, listed_port): &Parts, (origin_scheme, host, port): &Parts) -> bool {
        let number = |port: &Option<&str>| match (port, *origin_scheme) {
            (Some(digits), _) => digits.parse::<u32>().ok(),
            (None, "http") => Some(80),
            (None, "https") => Some(443),
            (None, _) => None,
        };
        let is_level = |(listed, level): (&&str, &&str)| *listed == "*" || listed.eq_ignore_ascii_case(level);
        scheme == origin_scheme
            && listed.len() == host.len()
            && listed.iter().zip(host).all(is_level)
            && (*listed_port == Some("*") || number(listed_port) == number(port))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_pattern_matches_what_a_naive_reading_of_it_says(
            schemes in (select(vec!["http", "https", "app"]), select(vec!["http", "http", "https", "app"])),
            mut listed in levels(),
            host in levels(),
            listed_port in select(vec![None, Some("80"), Some("443"), Some("81"), Some("*"), Some("*")]),
            port in select(vec![None, Some("80"), Some("443"), Some("81")]),
        ) {
            if listed_port != Some("*") {
                if listed.len() == 1 {
                    listed.push("b");
                }
                listed[0] = "*";
            }
            let pattern = (schemes.0, listed, listed_port);
            let origin = (schemes.1, host, port);
            let passes = is_listed(&text(&pattern), &text(&origin));
            prop_assert_eq!(passes, naive(&pattern, &origin), "{} {}", text(&pattern), text(&origin));
        }
    }
}

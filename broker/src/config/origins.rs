//! The values of `--allow-origin`: origins, and patterns that stand for several.
//!
//! Not responsible for what a pattern matches: see [`origin`](crate::access::origin). An error is the rest of a sentence that
//! begins with the value and the name of its setting.

use axum::http::uri::Authority;

/// What every error ends with.
const FORMS: &str = "an origin is scheme://host[:port], such as https://example.org, http://localhost:* (any port) or \
                     https://*.example.org (one level for *); or file://, null or *";

/// `https://example.org`, `http://localhost:3000` or `*`, as a browser would write it: lower case, no
/// default port, nothing behind the port (RFC 6454 §6.2). Two have no host: `null`, which browsers send for origins
/// that they keep to themselves (§7.3), and `file://`, which some WebSocket libraries of devices send. `*` may stand for the
/// port, and for the first level of a host that has two more.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("{why}; {FORMS}"));
    let origin = text.trim().to_ascii_lowercase();
    if ["*", "null", "file://"].contains(&origin.as_str()) {
        return Ok(origin);
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        return wrong("the scheme is missing");
    };
    if scheme.contains('*') {
        return wrong("* cannot stand for the scheme");
    }
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase())
        || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        return wrong("the scheme is none");
    }
    if rest.ends_with('/') {
        return wrong("there is a slash at its end");
    }
    let (place, any_port) = match rest.strip_suffix(":*") {
        Some(place) => (place, true),
        None => (rest, false),
    };
    let (level, plain) = match place.strip_prefix("*.") {
        Some(parent) => ("*.", parent),
        None => ("", place),
    };
    if plain.contains('*') {
        return wrong(
            "* stands for the port or, with a dot behind it, for the whole first level of the host, nowhere else",
        );
    }
    let (host, port) = match host_and_port(plain) {
        Ok(parts) => parts,
        Err(why) => return wrong(why),
    };
    if any_port && port.is_some() {
        return wrong("the port is none");
    }
    if !level.is_empty() && !is_name_of_levels(host) {
        return wrong("the host behind *. must be a name of at least two levels, or it could be anybody's");
    }
    Ok(match (scheme, port) {
        _ if any_port => format!("{scheme}://{level}{host}:*"),
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{level}{host}"),
        (_, Some(port)) => format!("{scheme}://{level}{host}:{port}"),
    })
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let authority: Authority = text.parse().map_err(|_| "the host is none, or something follows it")?;
    let len = authority.host().len();
    if text.contains('@') || len == 0 || !text.is_char_boundary(len) {
        return Err("the host is none");
    }
    match text.split_at(len) {
        (host, "") => Ok((host, None)),
        (host, _) => authority.port_u16().map(|port| (host, Some(port))).ok_or("the port is none"),
    }
}

/// `example.org`, and neither `org` nor an address.
fn is_name_of_levels(host: &str) -> bool {
    let is_level = |level: &str| !level.is_empty();
    host.split('.').count() > 1
        && host.split('.').all(is_level)
        && !host.starts_with('[')
        && !host.ends_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let cases = [
            ("*", "*"),
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.ORG:443", "https://example.org"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[::1]", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("file://", "file://"),
            ("NULL", "null"),
            (" https://a ", "https://a"),
            ("http://localhost:*", "http://localhost:*"),
            ("http://[::1]:*", "http://[::1]:*"),
            ("HTTPS://*.Example.org", "https://*.example.org"),
            ("https://*.example.org:443", "https://*.example.org"),
            ("https://*.example.org:8443", "https://*.example.org:8443"),
            ("https://*.example.org:*", "https://*.example.org:*"),
        ];
        for (text, expected) in cases {
            assert_eq!(origin(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn others_are_refused_with_the_forms_that_there_are() {
        for (text, part) in [
            ("", "scheme is missing"),
            ("example.org", "scheme is missing"),
            ("https://", "host is none"),
            ("https://example.org/", "slash"),
            ("https://example.org/a", "host is none"),
            ("https://a b", "host is none"),
            ("nul", "scheme is missing"),
            ("file:///", "slash"),
            ("file:", "scheme is missing"),
            ("://a", "scheme is none"),
            ("https://u@a", "host is none"),
            ("https://a:b", "none"),
            ("https://a:99999", "none"),
            ("https://a:", "port is none"),
            ("1x://a", "scheme is none"),
            ("https://a?b", "host is none"),
            ("*://example.org", "cannot stand for the scheme"),
            ("https://*", "whole first level"),
            ("https://a.*.org", "whole first level"),
            ("https://a*.example.org", "whole first level"),
            ("https://*.*.example.org", "whole first level"),
            ("https://example.org:8*", "whole first level"),
            ("https://*.org", "at least two levels"),
            ("https://*.a..b", "at least two levels"),
            ("https://*.10.0.0.1", "at least two levels"),
            ("https://*.[::1]", "at least two levels"),
            ("https://a:1:*", "port is none"),
        ] {
            let sentence = origin(text).expect_err(text);
            assert!(sentence.contains(part) && sentence.contains("https://*.example.org"), "{text}: {sentence}");
        }
    }
}

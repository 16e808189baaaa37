//! The client that a request comes from, as the proxies on its way say: `X-Forwarded-For`. Whether they are believed
//! is the caller's decision. Not RFC 7239's `Forwarded`, which hardly any proxy sends.
//!
//! Each proxy appends the address that it got the request from: the nearest proxy wrote the last member, and anybody
//! may have invented the first.

use core::net::{IpAddr, SocketAddr};

use httparse::{EMPTY_HEADER, Request, Status};

use super::HEADERS_CEILING;
use super::fields::Fields;

/// The members of all `X-Forwarded-For` lines of a head, in order, without the empty ones (RFC 9110 §5.3, §5.6.1).
/// Parses the head once more, for it is needed only behind a proxy.
#[must_use]
pub fn forwarded_for(head: &[u8]) -> Vec<&[u8]> {
    let mut headers = [EMPTY_HEADER; HEADERS_CEILING];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => Fields::new(request.headers).list("x-forwarded-for").collect(),
        _ => Vec::new(),
    }
}

/// The address that a member names: `203.0.113.7`, `2001:db8::7`, `[2001:db8::7]`, either with a port, which is
/// dropped. `None` for anything else, such as `unknown`.
#[must_use]
pub fn forwarded_address(member: &[u8]) -> Option<IpAddr> {
    let text = core::str::from_utf8(member).ok()?;
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let bracketed = text.strip_prefix('[')?.strip_suffix(']')?;
    Some(IpAddr::V6(bracketed.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_are_one_list() {
        let head = b"GET /sub/a HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 203.0.113.7 ,, unknown\r\nX: y\r\n\
            X-FORWARDED-FOR:\r\nX-Forwarded-For:\t10.0.0.1\t\r\n\r\n";
        let members: [&[u8]; 3] = [b"203.0.113.7", b"unknown", b"10.0.0.1"];
        assert_eq!(forwarded_for(head), members);
        assert!(forwarded_for(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_empty());
        assert!(forwarded_for(&head[..40]).is_empty(), "not a whole head");
    }

    #[test]
    fn members_that_name_an_address() {
        let cases = [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:1234", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:1234", "2001:db8::7"),
            ("::ffff:203.0.113.7", "::ffff:203.0.113.7"),
        ];
        for (member, ip) in cases {
            assert_eq!(forwarded_address(member.as_bytes()), Some(ip.parse().expect("an address")), "{member}");
        }
    }

    #[test]
    fn members_that_name_none() {
        let cases: [&[u8]; 12] = [
            b"",
            b"unknown",
            b"_hidden",
            b"203.0.113",
            b"203.0.113.7:",
            b"203.0.113.7:x",
            b"[203.0.113.7]",
            b"[2001:db8::7",
            b"example.org",
            b"203.0.113.07",
            b"\xff",
            b"\"203.0.113.7\"",
        ];
        for member in cases {
            assert_eq!(forwarded_address(member), None, "{}", member.escape_ascii());
        }
    }
}

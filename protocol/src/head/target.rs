//! The request target of a handshake (RFC 9112 §3.2): its form, its path, and which endpoint and topic the
//! path names. Topics are percent-decoded (RFC 3986 §2.1), so `%23` is `#` and `%2F`
//! separates levels like `/`; `+` is itself, not a space. A topic in a path has no level `.` or `..`: servers in between
//! may resolve it as a path (RFC 3986 §5.2.4) and judge another one than the broker reads.

use core::net::Ipv6Addr;
use std::borrow::Cow;

use super::{Refusal, authority_parts};
use crate::topic::{TopicError, check_filter, check_name};

/// What a client asks for by its path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint<'a> {
    /// `/sub/{filter}`: receives what is published there, as it is.
    Subscribe(Cow<'a, str>),
    /// `/pub/{topic}`: every message it sends is published.
    Publish(Cow<'a, str>),
    /// `/bus/{topic}`: both.
    Bus(Cow<'a, str>),
    /// `/ws`: many topics, in the sub-protocol of [`crate::v1`].
    V1Session,
}

/// A request target in its parts.
pub(super) struct Target<'a> {
    /// Present if the target was given in absolute form.
    pub(super) authority: Option<&'a str>,
    /// Begins with `/`; without query.
    pub(super) path: &'a str,
    /// What is behind `?`; not decoded.
    pub(super) query: &'a str,
}

/// Takes a target in origin form or absolute form apart (RFC 9112 §3.2.1, §3.2.2).
pub(super) fn split(target: &str) -> Result<Target<'_>, Refusal> {
    // No fragment is ever sent (RFC 9110 §4.1), but a client that forgets to encode a wildcard sends one.
    if target.contains('#') {
        return Err(Refusal::new(400, "The request target contains '#'; in a topic, write it as %23."));
    }
    let (authority, path) = if target.starts_with('/') {
        (None, target)
    } else {
        let (_, rest) = target
            .split_once("://")
            .filter(|(scheme, _)| ["http", "https", "ws", "wss"].iter().any(|s| scheme.eq_ignore_ascii_case(s)))
            .ok_or_else(|| Refusal::new(400, "The request target is not a path."))?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !is_authority(authority) {
            return Err(Refusal::new(400, "The request target has a malformed host."));
        }
        (Some(authority), path)
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    // RFC 3986 §2 knows none of these; the HTTP library behind this parser takes the other characters that it does not
    // know, and so does this one.
    if path.contains(['<', '>', '`']) || query.contains(['<', '>', '"']) {
        return Err(Refusal::new(400, "The request target has characters that must be percent-encoded."));
    }
    Ok(Target { authority, path, query })
}

/// Could this be a host with an optional port (RFC 9110 §7.2)?
pub(super) fn is_authority(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match authority_parts(text) {
        None => false,
        Some((name, _)) => match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
            None => name.bytes().all(known),
        },
    }
}

/// The endpoint that a path, without query, names.
///
/// # Errors
/// There is no such endpoint, or the topic breaks a rule: what a client of any kind is answered.
pub fn endpoint(path: &str, topic_len_max: usize) -> Result<Endpoint<'_>, Refusal> {
    if path == "/ws" {
        return Ok(Endpoint::V1Session);
    }
    let filter = |topic: &str| check_filter(topic, topic_len_max);
    if let Some(encoded) = path.strip_prefix("/sub/") {
        topic(encoded, filter).map(Endpoint::Subscribe)
    } else if let Some(encoded) = path.strip_prefix("/pub/") {
        topic_name(encoded, topic_len_max).map(Endpoint::Publish)
    } else if let Some(encoded) = path.strip_prefix("/bus/") {
        topic_name(encoded, topic_len_max).map(Endpoint::Bus)
    } else {
        Err(Refusal::new(
            404,
            "There is no WebSocket here; there is one at /ws, /sub/{topic}, /pub/{topic} and /bus/{topic}.",
        ))
    }
}

/// The topic that a part of a path names.
///
/// # Errors
/// It breaks a rule: what a client of any kind is answered.
pub fn topic_name(encoded: &str, topic_len_max: usize) -> Result<Cow<'_, str>, Refusal> {
    topic(encoded, |topic| check_name(topic, topic_len_max))
}

/// The topic or filter that a part of a target names.
pub(super) fn filter_name(encoded: &str, topic_len_max: usize) -> Result<Cow<'_, str>, Refusal> {
    topic(encoded, |topic| check_filter(topic, topic_len_max))
}

fn topic(encoded: &str, check: impl Fn(&str) -> Result<(), TopicError>) -> Result<Cow<'_, str>, Refusal> {
    let topic = percent_decode(encoded).ok_or_else(|| Refusal::new(400, "The topic is not percent-encoded UTF-8."))?;
    match check(&topic) {
        Ok(()) if topic.split('/').any(|level| level == "." || level == "..") => {
            Err(Refusal::new(400, "A topic in a path must not have a level '.' or '..'."))
        }
        Ok(()) => Ok(topic),
        Err(error @ TopicError::Reserved) => Err(Refusal::new(403, error.to_string())),
        Err(error) => Err(Refusal::new(400, error.to_string())),
    }
}

/// The text that a part of a target stands for (RFC 3986 §2.1). `+` is itself.
///
/// `None` if a `%` is not followed by two hexadecimal digits or the result is not UTF-8.
#[must_use]
pub fn percent_decode(encoded: &str) -> Option<Cow<'_, str>> {
    if !encoded.contains('%') {
        return Some(Cow::Borrowed(encoded));
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    loop {
        match *rest {
            [] => break,
            [b'%', high, low, ..] => {
                decoded.push((digit(high)? * 16 + digit(low)?) as u8);
                rest = &rest[3..];
            }
            [b'%', ..] => return None,
            [byte, ..] => {
                decoded.push(byte);
                rest = &rest[1..];
            }
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN_MAX: usize = 32;

    fn status(path: &str) -> Result<Endpoint<'_>, u16> {
        endpoint(path, LEN_MAX).map_err(|refusal| refusal.status)
    }

    #[test]
    fn endpoints() {
        assert_eq!(status("/ws"), Ok(Endpoint::V1Session));
        assert_eq!(status("/sub/a/b"), Ok(Endpoint::Subscribe("a/b".into())));
        assert_eq!(status("/sub/a/+/%23"), Ok(Endpoint::Subscribe("a/+/#".into())));
        for (path, topic) in
            [("/sub//a", "/a"), ("/sub/a/", "a/"), ("/sub/a//b", "a//b"), ("/sub/%2Fa", "/a"), ("/sub//", "/")]
        {
            assert_eq!(status(path), Ok(Endpoint::Subscribe(topic.into())), "{path}");
        }
        assert_eq!(status("/sub/$sys/load"), Ok(Endpoint::Subscribe("$sys/load".into())));
        assert_eq!(status("/pub/a%2Fb%20c+"), Err(400));
        assert_eq!(status("/pub/a%2Fb%20c"), Ok(Endpoint::Publish("a/b c".into())));
        assert_eq!(status("/bus/r%C3%A4um"), Ok(Endpoint::Bus("räum".into())));
        assert_eq!(status("/sub/.well-known/a..b"), Ok(Endpoint::Subscribe(".well-known/a..b".into())));
        assert!(matches!(status("/bus/plain"), Ok(Endpoint::Bus(Cow::Borrowed("plain")))));
    }

    #[test]
    fn refused_paths() {
        for path in ["", "/", "/sub", "/ws/", "/WS", "/subs/a", "*"] {
            assert_eq!(status(path), Err(404), "{path}");
        }
        let bad = [
            "/sub/",
            "/sub/a%",
            "/sub/a%2",
            "/sub/a%zz",
            "/sub/a%+1",
            "/sub/%ff",
            "/sub/a%00",
            "/pub/%2B",
            "/bus/%23",
            "/pub/../sub/a",
            "/pub/a/.",
            "/bus/%2e%2E/a",
            "/sub/a%2f..%2fb",
            "/sub/123456789012345678901234567890123",
        ];
        for path in bad {
            assert_eq!(status(path), Err(400), "{path}");
        }
        for path in ["/pub/$sys/load", "/bus/%24x"] {
            assert_eq!(status(path), Err(403), "{path}");
        }
        let empty = endpoint("/pub/", LEN_MAX).expect_err("an empty topic");
        assert_eq!(empty.reason, TopicError::Empty.to_string());
    }

    /// RFC 9112 §3.2: the four forms, of which two can be a handshake.
    #[test]
    fn forms() {
        let parts = |target| split(target).map(|t| (t.authority, t.path)).map_err(|r| r.status);
        assert_eq!(parts("/sub/a?b/c"), Ok((None, "/sub/a")));
        assert_eq!(parts("http://h:80/sub/a?b"), Ok((Some("h:80"), "/sub/a")));
        assert_eq!(parts("WS://[::1]/ws"), Ok((Some("[::1]"), "/ws")));
        assert_eq!(parts("http://h?q"), Ok((Some("h"), "")));
        for bad in ["*", "h:80", "ftp://h/ws", "http:///ws", "http://u@h/ws", "/sub/#", ""] {
            assert_eq!(parts(bad), Err(400), "{bad}");
        }
    }
}

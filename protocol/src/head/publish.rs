//! Which plain requests are single publishes in their usual form: `POST /pub/{topic}` over HTTP/1.1 with one
//! `Content-Length`, and nothing that changes what its body or its connection is, or asks for more than to be published.
//! Those can be answered without an HTTP server; every other request needs one.
//!
//! Not here: whether the topic is one ([`super::endpoint`]), and who may publish. RFC 9110 §7.6.1, §7.8, §8.4, §10.1.1.

use httparse::Request;

use super::plain::{BodyLength, Common};

/// A single publish in its usual form. Borrows from the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// `/pub/` and the topic, percent-encoded as it came.
    pub path: &'a str,
    /// What is behind `?`, not decoded.
    pub query: Option<&'a str>,
    /// The value of `Idempotency-Key`.
    pub idempotency_key: Option<&'a [u8]>,
    /// The host that is called, with its port if one was given.
    pub host: &'a str,
    /// Where the page came from, if a page sent it: visible ASCII.
    pub origin: Option<&'a str>,
    /// The value of the first `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// The length of the body, in bytes.
    pub body_len: u64,
}

/// The publish that this request is, if it is one. Its fields have passed the rules for all requests.
pub(super) fn of<'a>(request: &Request<'_, 'a>, common: &Common<'a>) -> Option<Publish<'a>> {
    let target = request.path?;
    if request.method != Some("POST") || request.version != Some(1) || !target.starts_with("/pub/") {
        return None;
    }
    let (path, query) = match target.split_once('?') {
        None => (target, None),
        Some((path, query)) => (path, Some(query)),
    };
    let BodyLength::Bytes(body_len) = common.body else { return None };
    let (mut has_length, mut content_type, mut idempotency_key) = (false, None, None);
    for field in request.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        // Length and first letter rule out most names: most fields are none of these.
        match (field.name.len(), field.name.as_bytes().first().map_or(0, |first| first | 0x20)) {
            (14, b'c') if is("content-length") => has_length = true,
            (12, b'c') if is("content-type") => content_type = content_type.or(Some(field.value.trim_ascii())),
            (10, b'c') if is("connection") && !only_keeps_alive(field.value) => return None,
            (16, b'c') if is("content-encoding") => return None,
            (6, b'e') if is("expect") => return None,
            (7, b'u') if is("upgrade") => return None,
            (15, b'i') if is("idempotency-key") => match idempotency_key.replace(field.value.trim_ascii()) {
                None => {}
                Some(_) => return None,
            },
            _ => {}
        }
    }
    let is_visible = |origin: &str| origin.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
    let Common { host, origin, .. } = *common;
    let publish = Publish { path, query, idempotency_key, host, origin, content_type, body_len };
    (has_length && origin.is_none_or(is_visible)).then_some(publish)
}

/// Whether the options of a `Connection` field change nothing: HTTP/1.1 keeps connections open anyway (RFC 9112 §9.3).
fn only_keeps_alive(options: &[u8]) -> bool {
    let mut options = options.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    options.all(|option| option.is_empty() || option.eq_ignore_ascii_case(b"keep-alive"))
}

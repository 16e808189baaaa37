//! Rules that hold for every request, whether it is a WebSocket handshake or plain HTTP: its target, its `Host`, its
//! `Origin`, and where its body ends (RFC 9110 §7.2, RFC 9112 §3.2, §6.3).
//!
//! The same rules apply on every way into the broker, because all of them use [`super::parse`]. They are stricter than
//! RFC 9112 where two readers of one request could disagree: a request has one length or none, never two.

use httparse::Request;

use super::Refusal;
use super::fields::Fields;
use super::publish::Publish;
use super::target::{self, Target};

/// The longest target that the HTTP library behind this parser takes, in bytes.
const TARGET_LEN_MAX: usize = 65_000;

/// A request that is not a WebSocket handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain<'a> {
    /// Where the head ends and the body begins, in bytes.
    pub head_len: usize,
    /// Where the body ends.
    pub body: BodyLength,
    /// The single publish that it is, if it is one in its usual form.
    pub publish: Option<Publish<'a>>,
}

/// How a request says where its body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyLength {
    /// After so many bytes.
    Bytes(u64),
    /// With the last chunk (RFC 9112 §7.1).
    Chunked,
}

/// What every request has.
pub(super) struct Common<'a> {
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// Empty if the client speaks HTTP/1.0 and names no host.
    pub(super) host: &'a str,
    pub(super) origin: Option<&'a str>,
    pub(super) body: BodyLength,
}

/// Checks what holds for every request.
pub(super) fn check<'a>(request: &Request<'_, 'a>, fields: &Fields<'_, 'a>) -> Result<Common<'a>, Refusal> {
    let method = request.method.unwrap_or_default();
    if method == "CONNECT" {
        return Err(Refusal::new(501, "This server is no proxy and does not know CONNECT."));
    }
    let text = request.path.unwrap_or_default();
    if text.len() > TARGET_LEN_MAX {
        return Err(too_long());
    }
    let Target { authority, path, query } = match (method, text) {
        ("OPTIONS", "*") => Target { authority: None, path: "*", query: "" },
        _ => target::split(text)?,
    };
    let field = host(fields, request.version == Some(0))?;
    let origin = fields
        .at_most_one("origin")
        .map_err(|_| Refusal::new(400, "The request has more than one Origin, or one that is not text."))?;
    let body = body_length(fields, request.version == Some(0))?;
    // The authority of an absolute target goes before the Host field, which must be there still
    // (RFC 9112 §3.2.2).
    Ok(Common { path, query, host: authority.unwrap_or(field), origin, body })
}

/// The request line does not fit into the longest head (RFC 9110 §15.5.15).
pub(super) fn too_long() -> Refusal {
    Refusal::new(414, "The request target is too long.")
}

/// Exactly one `Host` (RFC 9112 §3.2), and nothing in it that an authority cannot have. Only HTTP/1.0 may leave it out.
fn host<'a>(fields: &Fields<'_, 'a>, is_old: bool) -> Result<&'a str, Refusal> {
    match fields.at_most_one("host") {
        Ok(Some(host)) if target::is_authority(host) => Ok(host),
        Ok(None) if is_old => Ok(""),
        Ok(None) => Err(Refusal::new(400, "The request has no Host.")),
        _ => Err(Refusal::new(400, "The request has more than one Host, or a malformed one.")),
    }
}

/// One length, or the chunked coding and nothing else (RFC 9112 §6.1, §6.3, §11.2).
fn body_length(fields: &Fields<'_, '_>, is_old: bool) -> Result<BodyLength, Refusal> {
    let has_length = fields.has("content-length");
    if fields.has("transfer-encoding") {
        if has_length {
            return Err(Refusal::new(400, "The request has both a Content-Length and a Transfer-Encoding."));
        }
        if is_old {
            return Err(Refusal::new(400, "HTTP/1.0 has no Transfer-Encoding."));
        }
        return match fields.at_most_one("transfer-encoding") {
            Ok(Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(BodyLength::Chunked),
            _ => Err(Refusal::new(501, "The only Transfer-Encoding that is understood is: chunked.")),
        };
    }
    if !has_length {
        return Ok(BodyLength::Bytes(0));
    }
    let digits = fields.at_most_one("content-length").ok().flatten();
    let length = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    // Half of what 64 bits hold, so that nobody who adds to it overflows.
    match length.and_then(|text| text.parse::<u64>().ok()).filter(|length| *length <= u64::MAX >> 1) {
        Some(length) => Ok(BodyLength::Bytes(length)),
        None => Err(Refusal::new(400, "The request has more than one Content-Length, or a malformed one.")),
    }
}

//! Request heads: is this plain HTTP, a WebSocket handshake, a request for a stream of events, or nothing of that (RFC 9110,
//! 9112, 6455 §4)?
//!
//! The first thing a connection's bytes meet. [`parse`] is called with everything received so far until it
//! answers. Plain HTTP is handed on untouched; a handshake comes out with all that the connection needs; what
//! is wrong comes out as a [`Refusal`], as early as it is certain. Strict where leniency is how requests are
//! smuggled past a proxy: bare line feeds, folded lines, spaces before a colon, a body beside an upgrade.
//!
//! Bytes behind the head are not looked at: they are frames only once the handshake has been accepted
//! (RFC 9931 on optimistic data), so a refused connection must be closed, not read on.
//!
//! Every way into the broker uses this parser, so all judge a request alike: the first request of a connection, a later
//! one, and one on the operators' port.
//!
//! Not here: routing of plain HTTP, whether an origin is allowed ([`origin_is_host`] helps), deadlines.
//! Everything borrows from the input; only a percent-encoded topic allocates. Lengths are bytes.

mod bearer;
mod chunks;
mod cookie;
mod events;
mod fields;
mod forwarded;
mod origin;
mod page;
mod plain;
mod publish;
mod response;
mod start;
mod target;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use httparse::{EMPTY_HEADER, Error, Request, Status};
use sha1::{Digest, Sha1};

pub use bearer::{bearer, bearer_in};
pub use chunks::Chunks;
pub use cookie::{cookie, cookie_in};
pub use events::{EVENT_TOPICS_MAX, Events, accepts_events};
pub use forwarded::{forwarded_address, forwarded_for};
pub use origin::{authority_parts, origin_is_host};
pub use page::{Page, page};
pub use plain::{BodyLength, Plain};
pub use publish::Publish;
pub use response::{Refusal, phrase, write_switching_protocols};
pub use start::RawStart;
pub use target::{Endpoint, endpoint, percent_decode, topic_name};

use crate::topic::TOPIC_LEN_MAX_DEFAULT;
use crate::v1;
use fields::Fields;

/// The most header fields a limit may allow.
const HEADERS_CEILING: usize = 100;

/// How much of a head is read before giving up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadLimits {
    /// The longest head, request line to empty line, in bytes.
    pub head_bytes_max: usize,
    /// The most header fields; values above 100 count as 100.
    pub headers_max: usize,
    /// The longest topic, after percent-decoding, in bytes.
    pub topic_len_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes_max: 8192, headers_max: 64, topic_len_max: TOPIC_LEN_MAX_DEFAULT }
    }
}

/// What the bytes received so far are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Head<'a> {
    /// The head is not complete.
    Partial,
    /// Not a WebSocket handshake: for the HTTP server, with all bytes from the first, unless it is a [`Publish`] that is
    /// answered without one.
    Http(Plain<'a>),
    /// A valid WebSocket handshake.
    Upgrade(Upgrade<'a>),
    /// A request for a stream of events.
    Events(Events<'a>),
}

/// A valid WebSocket handshake (RFC 6455 §4.2.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade<'a> {
    /// Where the head ends and, once the handshake is accepted, frames begin.
    pub head_len: usize,
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: [u8; 28],
    /// What is asked for.
    pub endpoint: Endpoint<'a>,
    /// Where the subscription begins, if it is a raw one.
    pub start: RawStart,
    /// Where the page came from, if a page it is (RFC 6454 §7).
    pub origin: Option<&'a str>,
    /// The host the client called, with its port if one was given.
    pub host: &'a str,
    /// The sub-protocol chosen of those that the client offers.
    pub subprotocol: Option<&'static str>,
    /// The token that the client offers as one more sub-protocol, because a page cannot set `Authorization`. It is never
    /// chosen, and so never sent back.
    pub token: Option<&'a str>,
}

/// The sub-protocol of endpoints without an envelope, for clients that have to offer one.
pub const RAW_SUBPROTOCOL: &str = "ringyard.raw";

/// What a sub-protocol begins with that is a token.
pub const TOKEN_SUBPROTOCOL: &str = "ringyard.token.";

/// Looks at everything received so far.
///
/// # Errors
/// The head cannot become one that is accepted, however it goes on.
pub fn parse<'a>(bytes: &'a [u8], limits: &HeadLimits) -> Result<Head<'a>, Refusal> {
    // A TLS record of type handshake (RFC 8446 §5.1); no method begins with a control character.
    if bytes.first() == Some(&0x16) {
        return Err(Refusal::new(400, "This port speaks plain HTTP, but the client began with TLS."));
    }
    let window = &bytes[..bytes.len().min(limits.head_bytes_max)];
    let mut headers = [EMPTY_HEADER; HEADERS_CEILING];
    let headers = &mut headers[..limits.headers_max.min(HEADERS_CEILING)];
    let mut request = Request::new(headers);
    let status = request.parse(window).map_err(malformed)?;
    let head = match status {
        Status::Complete(head_len) => &window[..head_len],
        Status::Partial => window,
    };
    check_line_ends(head)?;
    match status {
        Status::Partial if bytes.len() < limits.head_bytes_max => Ok(Head::Partial),
        Status::Partial => Err(too_large(window)),
        Status::Complete(head_len) => interpret(&request, head_len, limits),
    }
}

/// Whether [`parse`] can say more of a head of `len` bytes, the last ones being `new`, than before those came: a line
/// ended, or there is no room for more. Asking first keeps the work linear for a head that comes byte by byte.
#[must_use]
pub fn is_worth_parsing(len: usize, new: &[u8], limits: &HeadLimits) -> bool {
    len == new.len() || len >= limits.head_bytes_max || new.contains(&b'\n')
}

/// The window is full and the head is not complete: too long is either the target or the rest (RFC 9110 §15.5.15,
/// RFC 6585 §5), or it never was a request line (RFC 9110 §15.6.2).
fn too_large(window: &[u8]) -> Refusal {
    let window = window.trim_ascii_start();
    if window.contains(&b'\n') {
        Refusal::new(431, "The request head is too long (--max-head).")
    } else if window.contains(&b' ') {
        plain::too_long()
    } else {
        Refusal::new(501, "The request has a method that is not known.")
    }
}

/// The value of `Sec-WebSocket-Accept` for a value of `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
#[must_use]
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest: [u8; 20] = Sha1::new().chain_update(key).chain_update(GUID).finalize().into();
    let mut accept = [0; 28];
    // 20 bytes always fill exactly 28 characters.
    let written = BASE64.encode_slice(digest, &mut accept);
    debug_assert_eq!(written, Ok(accept.len()));
    accept
}

/// RFC 6455 asks only that the key decode to 16 bytes, so stray bits at its end are tolerated.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Lines end in CR LF. RFC 9112 §2.2 lets a server take a lone LF; two servers that differ on that can be
/// played against each other, so it is refused.
fn check_line_ends(head: &[u8]) -> Result<(), Refusal> {
    let mut before = 0;
    for &byte in head {
        if byte == b'\n' && before != b'\r' {
            return Err(Refusal::new(400, "A line of the request head ends in LF without CR."));
        }
        before = byte;
    }
    Ok(())
}

fn malformed(error: Error) -> Refusal {
    match error {
        Error::TooManyHeaders => Refusal::new(431, "The request has too many header fields."),
        Error::HeaderName => {
            Refusal::new(400, "The request has a malformed header name, a space before a colon, or a folded line.")
        }
        Error::HeaderValue => Refusal::new(400, "The request has a malformed header value."),
        Error::Version => Refusal::new(400, "The request is neither HTTP/1.1 nor HTTP/1.0."),
        Error::Token | Error::NewLine | Error::Status => {
            Refusal::new(400, "The request line or a line end is malformed.")
        }
    }
}

/// Judges a complete head.
fn interpret<'a>(request: &Request<'_, 'a>, head_len: usize, limits: &HeadLimits) -> Result<Head<'a>, Refusal> {
    let fields = Fields::new(request.headers);
    let common = plain::check(request, &fields)?;
    // HTTP/1.0 knows no upgrade, and `Upgrade` counts only if `Connection` names it (RFC 9110 §7.8).
    let asks_upgrade = request.version == Some(1)
        && fields.list_has("connection", "upgrade")
        && fields.list_has("upgrade", "websocket");
    if !asks_upgrade {
        if let Some(events) = events::of(request, (&fields, &common), head_len, limits.topic_len_max)? {
            return Ok(Head::Events(events));
        }
        let publish = publish::of(request, &common);
        return Ok(Head::Http(Plain { head_len, body: common.body, publish }));
    }
    if request.method != Some("GET") {
        return Err(Refusal::new(405, "A WebSocket handshake must be a GET request."));
    }
    // A body in front of the frames would let the two ends disagree on where frames begin (RFC 9112 §11.2).
    if common.body != BodyLength::Bytes(0) {
        return Err(Refusal::new(400, "A WebSocket handshake cannot have a body."));
    }
    check_version(&fields)?;
    let accept = accept_key(key(&fields)?);
    let endpoint = target::endpoint(common.path, limits.topic_len_max)?;
    let start = match &endpoint {
        Endpoint::Subscribe(name) | Endpoint::Bus(name) => RawStart::read(common.query, name)?,
        Endpoint::Publish(_) | Endpoint::V1Session => RawStart::default(),
    };
    let token = offered_token(&fields)?;
    let subprotocol = choose_subprotocol(&endpoint, &fields, token.is_some())?;
    let (origin, host) = (common.origin, common.host);
    Ok(Head::Upgrade(Upgrade { head_len, accept, endpoint, start, origin, host, subprotocol, token }))
}

/// Version 13 and no other (RFC 6455 §4.2.1, §4.4).
fn check_version(fields: &Fields<'_, '_>) -> Result<(), Refusal> {
    let mut versions = fields.list("sec-websocket-version");
    match (versions.next(), versions.next()) {
        (Some(b"13"), None) => Ok(()),
        (Some(_), Some(_)) => Err(Refusal::new(400, "The request has more than one Sec-WebSocket-Version.")),
        _ => Err(Refusal::new(426, "This server speaks version 13 of WebSocket (RFC 6455) only.")),
    }
}

/// One key: 16 bytes in base64 (RFC 6455 §4.2.1).
fn key<'a>(fields: &Fields<'_, 'a>) -> Result<&'a [u8], Refusal> {
    let key = fields.at_most_one("sec-websocket-key").ok().flatten().map(str::as_bytes);
    match key {
        Some(key) if key.len() == 24 && BASE64.decode_slice(key, &mut [0; 18]) == Ok(16) => Ok(key),
        _ => Err(Refusal::new(400, "The request needs exactly one Sec-WebSocket-Key, which is 16 bytes in base64.")),
    }
}

/// The token among the sub-protocols on offer: at most one. A token consists of characters that a sub-protocol may have
/// (RFC 7515 §2, RFC 6455 §4.1).
fn offered_token<'a>(fields: &Fields<'_, 'a>) -> Result<Option<&'a str>, Refusal> {
    let offers = fields.list("sec-websocket-protocol");
    let mut tokens = offers.filter_map(|offer| offer.strip_prefix(TOKEN_SUBPROTOCOL.as_bytes()));
    match (tokens.next(), tokens.next()) {
        (None, _) => Ok(None),
        (Some(token), None) => str::from_utf8(token).map(Some).map_err(|_| Refusal::new(400, "The token is not text.")),
        (Some(_), Some(_)) => Err(Refusal::new(400, "The request offers more than one token as a sub-protocol.")),
    }
}

/// The endpoint with many topics speaks only its sub-protocol. The raw ones need none (RFC 6455 §4.2.2), but a client that
/// offers some, as it does with a token, expects one of them to be chosen.
fn choose_subprotocol(
    endpoint: &Endpoint<'_>,
    fields: &Fields<'_, '_>,
    has_token: bool,
) -> Result<Option<&'static str>, Refusal> {
    // Names of sub-protocols are compared as they are, case and all (RFC 6455 §11.5).
    let is_offered = |own: &str| fields.list("sec-websocket-protocol").any(|name| name == own.as_bytes());
    if *endpoint != Endpoint::V1Session {
        return match is_offered(RAW_SUBPROTOCOL) {
            true => Ok(Some(RAW_SUBPROTOCOL)),
            false if has_token => Err(Refusal::new(
                400,
                "A token as a sub-protocol needs ringyard.raw beside it: new WebSocket(url, ['ringyard.raw', \
                 'ringyard.token.' + token]).",
            )),
            false => Ok(None),
        };
    }
    if is_offered(v1::SUBPROTOCOL) {
        return Ok(Some(v1::SUBPROTOCOL));
    }
    Err(Refusal::new(
        400,
        "/ws needs the sub-protocol ringyard.v1: new WebSocket(url, 'ringyard.v1'). \
         For one topic without a sub-protocol there are /sub/{topic}, /pub/{topic} and /bus/{topic}.",
    ))
}

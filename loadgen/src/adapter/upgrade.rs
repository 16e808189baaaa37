//! The client's side of the opening handshake (RFC 6455, sections 4.1 and 4.2.2; HTTP/1.1: RFC 9112).
//!
//! The answer may have header names in any case and order, and any reason phrase. Checked is what the standard demands:
//! `Upgrade`, `Connection`, the answer to the key, no extension, and no other subprotocol than the one offered.

/// A key and its answer, both from RFC 6455, section 1.3: a load generator needs no secret.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Bytes of an answer's head that are waited for.
const HEAD_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Bytes of a refusal that are repeated to the user.
const TEXT_MAX: usize = 300;

/// A server's refusal of an upgrade.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// HTTP status; 0 when the bytes are no HTTP answer.
    pub status: u16,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// The head's first line, and of the body what came with it.
    pub text: String,
}

/// What an upgrade request carries beside its address.
#[derive(Clone, Copy, Default)]
pub(super) struct Carried<'a> {
    /// The subprotocol that the server is to choose.
    pub(super) subprotocol: Option<&'a str>,
    /// A token in the name of a further subprotocol, which no server chooses.
    pub(super) offered_token: Option<&'a str>,
    /// The token of `Authorization: Bearer`.
    pub(super) bearer: Option<&'a str>,
}

/// Appends an upgrade request (RFC 6455, section 4.1). `host` is the value of `Host`.
pub fn upgrade_request(host: &str, path: &str, subprotocol: Option<&str>, out: &mut Vec<u8>) {
    put_request(host, path, Carried { subprotocol, ..Carried::default() }, out);
}

pub(super) fn put_request(host: &str, path: &str, carried: Carried<'_>, out: &mut Vec<u8>) {
    for part in ["GET ", path, " HTTP/1.1\r\nHost: ", host, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for part in ["Sec-WebSocket-Key: ", KEY, "\r\nSec-WebSocket-Version: 13\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let token = carried.offered_token.map(|token| [", ringyard.token.", token]).into_iter().flatten();
    if let Some(name) = carried.subprotocol {
        let field = ["Sec-WebSocket-Protocol: ", name].into_iter().chain(token).chain(["\r\n"]);
        field.for_each(|part| out.extend_from_slice(part.as_bytes()));
    }
    if let Some(token) = carried.bearer {
        for part in ["Authorization: Bearer ", token, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The length of the head of a stream of events; nothing while it is not whole. One that ends at once, with `Retry-After`, counts
/// as 503.
pub(super) fn accepted_stream(bytes: &[u8]) -> Result<Option<usize>, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let Some(len) = parsed(&mut head, bytes)? else { return Ok(None) };
    let field = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let says = |name: &str, value: &[u8]| field(name).is_some_and(|header| header.value.starts_with(value));
    let retry_after_s = field("retry-after").and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    let status = match head.code.unwrap_or(0) {
        200 if retry_after_s.is_some() => 503,
        200 if says("content-type", b"text/event-stream") && says("transfer-encoding", b"chunked") => {
            return Ok(Some(len));
        }
        status => status,
    };
    Err(Refused { status, retry_after_s, text: first_line_and_body(bytes, len) })
}

/// Reads a head. Returns its length; nothing while it is not whole.
fn parsed<'b>(head: &mut httparse::Response<'_, 'b>, bytes: &'b [u8]) -> Result<Option<usize>, Refused> {
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => Ok(Some(len)),
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => Ok(None),
        Ok(httparse::Status::Partial) => Err(no_http("an answer whose head does not end", bytes)),
        Err(error) => Err(no_http(&format!("no HTTP answer ({error})"), bytes)),
    }
}

/// The length of the head that accepts; nothing while it is not whole.
pub(super) fn accepted(bytes: &[u8], subprotocol: Option<&str>) -> Result<Option<usize>, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let Some(len) = parsed(&mut head, bytes)? else { return Ok(None) };
    let status = head.code.unwrap_or(0);
    let field = |name: &str| {
        let mut found = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().map(|header| header.value.trim_ascii())
    };
    if status != 101 {
        let retry_after_s = field("retry-after").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        return Err(Refused { status, retry_after_s, text: first_line_and_body(bytes, len) });
    }
    let flaw = if !field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
        Some("without Upgrade: websocket")
    } else if !field("connection").is_some_and(|value| {
        value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    }) {
        Some("without Connection: Upgrade")
    } else if field("sec-websocket-accept") != Some(ACCEPT) {
        Some("with a wrong Sec-WebSocket-Accept")
    } else if field("sec-websocket-extensions").is_some_and(|value| !value.is_empty()) {
        Some("with an extension that was not offered")
    } else if field("sec-websocket-protocol") != subprotocol.map(str::as_bytes) {
        Some(if subprotocol.is_some() {
            "without the subprotocol that was offered"
        } else {
            "with a subprotocol that was not offered"
        })
    } else {
        None
    };
    match flaw {
        None => Ok(Some(len)),
        Some(flaw) => Err(Refused { status, retry_after_s: None, text: format!("an acceptance {flaw}") }),
    }
}

fn no_http(what: &str, bytes: &[u8]) -> Refused {
    let shown = &bytes[..bytes.len().min(64)];
    Refused { status: 0, retry_after_s: None, text: format!("{what}: \"{}\"", shown.escape_ascii()) }
}

/// `HTTP/1.1 503 Service Unavailable: come back later`
fn first_line_and_body(bytes: &[u8], head_len: usize) -> String {
    let line = bytes[..head_len].split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
    let body = bytes[head_len..].trim_ascii();
    let body = &body[..body.len().min(TEXT_MAX)];
    let mut text = String::from_utf8_lossy(line.unwrap_or_default().trim_ascii()).into_owned();
    if !body.is_empty() {
        text.push_str(": ");
        text.extend(String::from_utf8_lossy(body).chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n\
                        sec-websocket-ACCEPT:  s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn answer(extra: &str) -> String {
        format!("{GOOD}{extra}\r\n")
    }

    #[test]
    fn acceptances_cut_anywhere() {
        let head = answer("");
        let stream = format!("{head}\u{1}behind");
        for end in 0..stream.len() {
            let expected = (end >= head.len()).then_some(head.len());
            assert_eq!(accepted(&stream.as_bytes()[..end], None), Ok(expected), "{end}");
        }
        let with_name = answer("Sec-WebSocket-Protocol: mqtt\r\n");
        assert_eq!(accepted(with_name.as_bytes(), Some("mqtt")), Ok(Some(with_name.len())));
    }

    /// RFC 6455, section 4.1: what fails the connection though the status is 101.
    #[test]
    fn acceptances_that_are_none() {
        let cases = [
            (answer("Sec-WebSocket-Protocol: mqtt\r\n"), None),
            (answer(""), Some("mqtt")),
            (answer("Sec-WebSocket-Protocol: MQTT\r\n"), Some("mqtt")),
            (answer("Sec-WebSocket-Extensions: permessage-deflate\r\n"), None),
            (answer("").replace("s3pP", "S3pP"), None),
            (answer("").replace("sec-websocket-ACCEPT", "x"), None),
            (answer("").replace("upgrade: WebSocket", "upgrade: h2c"), None),
            (answer("").replace("connection: keep-alive, upgrade", "connection: close"), None),
        ];
        for (head, subprotocol) in cases {
            assert_eq!(accepted(head.as_bytes(), subprotocol).unwrap_err().status, 101, "{head}");
        }
    }

    #[test]
    fn refusals() {
        let full = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nfull\n";
        let refused = accepted(full.as_bytes(), None).unwrap_err();
        assert_eq!((refused.status, refused.retry_after_s), (503, Some(7)));
        assert_eq!(refused.text, "HTTP/1.1 503 Service Unavailable: full");
        let date = "HTTP/1.0 429\r\nretry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n";
        let refused = accepted(date.as_bytes(), None).unwrap_err();
        assert_eq!((refused.status, refused.retry_after_s, &refused.text[..]), (429, None, "HTTP/1.0 429"));
        assert_eq!(accepted(b"SSH-2.0-OpenSSH_9.2\r\n", None).unwrap_err().status, 0);
        let endless = format!("HTTP/1.1 101 x\r\na: {}", "b".repeat(HEAD_MAX));
        assert_eq!(accepted(endless.as_bytes(), None).unwrap_err().status, 0);
        let long = format!("HTTP/1.1 500 x\r\n\r\n{}", "ä".repeat(HEAD_MAX));
        assert!(accepted(long.as_bytes(), None).unwrap_err().text.len() < 2 * TEXT_MAX);
    }

    proptest! {
        #[test]
        fn never_a_panic(
            at in 0usize..200, byte: u8, noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut damaged = answer("Retry-After: 3\r\n").into_bytes();
            let at = at % damaged.len();
            damaged[at] = byte;
            let _ = accepted(&damaged, Some("mqtt"));
            let _ = accepted(&noise, None);
        }
    }
}

//! The responses a head can earn without an HTTP server: `101 Switching Protocols` (RFC 6455 §4.2.2), and
//! refusals that end the connection (RFC 9110 §15).

use std::borrow::Cow;

/// Why a request gets no further: an HTTP status and a sentence for the sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// A sentence; becomes the body.
    pub reason: Cow<'static, str>,
    /// After how many seconds it may be worth another try (RFC 9110 §10.2.3).
    pub retry_after_s: Option<u32>,
    /// The value of `WWW-Authenticate` (RFC 6750 §3); `None`: with 401 `Bearer`, else none.
    pub challenge: Option<&'static str>,
    /// The origin whose pages may read the answer (Fetch standard, 3.2.3): visible ASCII.
    pub allow_origin: Option<String>,
    /// Whether its body is a stream of events, not a sentence for people.
    pub is_stream: bool,
}

impl Refusal {
    /// A refusal with this status and sentence.
    pub fn new(status: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            reason: reason.into(),
            retry_after_s: None,
            challenge: None,
            allow_origin: None,
            is_stream: false,
        }
    }

    /// Instead of a stream of events one that ends at once, to be asked for again after so many seconds.
    #[must_use]
    pub fn end_of_stream(reason: &str, retry_s: u32) -> Self {
        let body = format!(": {reason}\nretry: {}\n", u64::from(retry_s) * 1000);
        Self { is_stream: true, ..Self::new(200, body) }
    }

    /// The same, to be tried again after so many seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// The same, with this value of `WWW-Authenticate`.
    #[must_use]
    pub fn challenging(self, challenge: &'static str) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    /// The same, for pages of this origin to read.
    #[must_use]
    pub fn readable_for(self, origin: &str) -> Self {
        Self { allow_origin: Some(origin.to_owned()), ..self }
    }

    /// Appends the complete response. It announces the end of the connection, which the caller closes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let body_len = self.reason.len() + 1;
        let (status, phrase, fields) = (self.status, phrase(self.status), extra_fields(self.status));
        let retry = self.retry_after_s.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
        let challenge = self.challenge.or((status == 401).then_some("Bearer"));
        let challenge = challenge.map(|value| format!("WWW-Authenticate: {value}\r\n")).unwrap_or_default();
        let readable = self.allow_origin.as_ref().map(|origin| {
            format!("Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: Retry-After\r\n")
        });
        let readable = readable.unwrap_or_default();
        let content_type = match self.is_stream {
            true => "text/event-stream\r\nCache-Control: no-store",
            false => "text/plain; charset=utf-8",
        };
        let head = format!(
            "HTTP/1.1 {status} {phrase}\r\n{fields}{challenge}{retry}Vary: Origin\r\n{readable}\
             Content-Type: {content_type}\r\nContent-Length: {body_len}\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.reason.as_bytes());
        out.push(b'\n');
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, phrase(self.status), self.reason)
    }
}

impl std::error::Error for Refusal {}

/// Appends the response that accepts a handshake (RFC 6455 §4.2.2). Frames follow at once.
pub fn write_switching_protocols(out: &mut Vec<u8>, accept: &[u8; 28], subprotocol: Option<&str>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept);
    if let Some(subprotocol) = subprotocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(subprotocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// The fields a status demands, and the end of the connection. A field named in `Connection` must be named
/// beside `close` there (RFC 9110 §7.6.1).
fn extra_fields(status: u16) -> &'static str {
    match status {
        // RFC 9110 §15.5.6.
        405 => "Connection: close\r\nAllow: GET\r\n",
        // RFC 9110 §15.5.22, RFC 6455 §4.4.
        426 => "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        _ => "Connection: close\r\n",
    }
}

/// The reason phrase; clients do not read it (RFC 9112 §4).
#[must_use]
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(status: u16, reason: &'static str) -> String {
        let mut out = Vec::new();
        Refusal::new(status, reason).write_to(&mut out);
        String::from_utf8(out).expect("text")
    }

    /// RFC 6455 §4.4: a version that is not spoken is answered with the one that is.
    #[test]
    fn upgrade_required() {
        let expected = "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Version: 13\r\nVary: Origin\r\nContent-Type: text/plain; charset=utf-8\r\n\
                        Content-Length: 4\r\n\r\nNo.\n";
        assert_eq!(written(426, "No."), expected);
    }

    #[test]
    fn every_refusal_is_a_complete_response() {
        for status in [400, 401, 403, 404, 405, 408, 414, 426, 431, 501, 503, 599] {
            let text = written(status, "Grün.");
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(text.as_bytes()).expect("a response");
            assert_eq!(response.code, Some(status));
            let field = |name: &str| {
                let found = response.headers.iter().find(|h| h.name == name).map(|h| h.value);
                found.map(|value| std::str::from_utf8(value).expect("text"))
            };
            let body = &text[parsed.unwrap()..];
            assert_eq!(body, "Grün.\n");
            assert_eq!(field("Content-Length"), Some("7"));
            assert!(field("Connection").is_some_and(|value| value.ends_with("close")));
            assert_eq!(field("WWW-Authenticate"), (status == 401).then_some("Bearer"));
            assert_eq!(field("Allow"), (status == 405).then_some("GET"));
        }
    }

    /// RFC 9110 §10.2.3.
    #[test]
    fn a_refusal_may_say_when_to_come_back() {
        let mut out = Vec::new();
        Refusal::new(503, "Full.").retry_after(7).write_to(&mut out);
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("\r\nRetry-After: 7\r\n") && text.ends_with("\r\n\r\nFull.\n"), "{text}");
        assert!(!written(503, "Full.").contains("Retry-After"));
    }

    /// Fetch standard, 3.3.3: a page reads `Retry-After` only where it is exposed.
    #[test]
    fn a_page_may_read_a_refusal() {
        let mut out = Vec::new();
        Refusal::new(503, "Full.").retry_after(7).readable_for("https://a.example").write_to(&mut out);
        let text = String::from_utf8(out).expect("text");
        for line in [
            "Access-Control-Allow-Origin: https://a.example",
            "Access-Control-Expose-Headers: Retry-After",
            "Vary: Origin",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
        }
        let text = written(503, "Full.");
        assert!(!text.contains("Access-Control") && text.contains("\r\nVary: Origin\r\n"), "{text}");
    }

    /// RFC 6455 §1.3: the standard's example.
    #[test]
    fn switching_protocols() {
        let mut out = Vec::new();
        write_switching_protocols(&mut out, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", Some("chat"));
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                        Sec-WebSocket-Protocol: chat\r\n\r\n";
        assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
    }
}

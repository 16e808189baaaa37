//! An answer as bytes, for the plane that has no HTTP library: the fields that `fields` says, in the order and case in
//! which that library writes them (RFC 9112 §4).
//!
//! Cost: one copy; no allocation but for a problem's own fields.

use bytes::BytesMut;
use protocol::head::phrase;

use crate::publishing::fields::{ALWAYS, EXPOSED, VARY};
use crate::publishing::problem::{self, Problem};

/// `Connection: close`, as a line.
pub(crate) const CLOSE: &str = "connection: close\r\n";
/// Room for the fields of an answer, in bytes.
const FIELDS_BYTES: usize = 448;

/// What an answer says besides its status and body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    /// The origin of the page that sent the request and may read the answer.
    pub(crate) page: Option<&'a str>,
    /// Whole lines that say whether and for how long the connection stays, or none.
    pub(crate) connection: &'a str,
    /// The value of `Date`.
    pub(crate) date: &'a str,
}

/// The lines of an answer on a connection that stays, where `announced` is said of its idle time.
pub(crate) fn stays(announced: Option<&str>) -> String {
    announced.map_or_else(String::new, |value| format!("connection: keep-alive\r\nkeep-alive: {value}\r\n"))
}

/// Appends a 200 with this body.
pub(crate) fn put(out: &mut BytesMut, content_type: &str, body: &[u8], around: Around<'_>) {
    begin(out, 200, content_type, body.len());
    end(out, body, around);
}

/// Appends the answer to a request that was not carried out.
pub(crate) fn put_problem(out: &mut BytesMut, problem: &Problem, around: Around<'_>) {
    let body = problem.body();
    begin(out, problem.status(), problem::CONTENT_TYPE, body.len());
    for (name, value) in problem.fields() {
        line(out, name, &value);
    }
    end(out, &body, around);
}

fn begin(out: &mut BytesMut, status: u16, content_type: &str, body_len: usize) {
    out.reserve(FIELDS_BYTES + body_len);
    let digits = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&digits);
    out.extend_from_slice(b" ");
    out.extend_from_slice(phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    line(out, "content-type", content_type);
}

fn end(out: &mut BytesMut, body: &[u8], around: Around<'_>) {
    for (name, value) in ALWAYS {
        line(out, name, value);
    }
    line(out, "vary", VARY);
    if let Some(origin) = around.page {
        line(out, "access-control-allow-origin", origin);
        line(out, "access-control-expose-headers", EXPOSED);
    }
    let mut digits = [0; 20];
    line(out, "content-length", decimal(body.len(), &mut digits));
    out.extend_from_slice(around.connection.as_bytes());
    line(out, "date", around.date);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

fn line(out: &mut BytesMut, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A number as text, written from the end of `digits`.
fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    str::from_utf8(&digits[at..]).expect("digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: Around<'_> = Around { page: None, connection: "", date: "Sun, 06 Nov 1994 08:49:37 GMT" };

    #[test]
    fn a_message_was_published() {
        let mut out = BytesMut::new();
        let connection = stays(Some("timeout=70"));
        put(&mut out, "a/b", b"0123456789", Around { page: Some("http://a"), connection: &connection, ..AROUND });
        let expected = "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\nx-content-type-options: nosniff\r\n\
                        referrer-policy: no-referrer\r\ncache-control: no-store\r\nvary: Origin\r\n\
                        access-control-allow-origin: http://a\r\naccess-control-expose-headers: Retry-After\r\n\
                        content-length: 10\r\nconnection: keep-alive\r\nkeep-alive: timeout=70\r\n\
                        date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n0123456789";
        assert_eq!(std::str::from_utf8(&out), Ok(expected));
    }

    #[test]
    fn a_problem_has_its_own_fields() {
        let mut out = BytesMut::from(&b"before"[..]);
        put_problem(&mut out, &Problem::unavailable("No."), Around { connection: CLOSE, ..AROUND });
        let text = std::str::from_utf8(&out).expect("text");
        assert!(text.starts_with("beforeHTTP/1.1 503 Service Unavailable\r\ncontent-type: "), "{text}");
        assert!(text.contains("\r\nretry-after: 1\r\n") && text.contains("\r\nconnection: close\r\n"), "{text}");
        let body = Problem::unavailable("No.").body();
        assert!(text.ends_with(&format!("\r\n\r\n{}", String::from_utf8(body).expect("JSON"))), "{text}");
    }

    #[test]
    fn numbers() {
        for number in [0, 7, 10, 4096, usize::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string());
        }
    }
}

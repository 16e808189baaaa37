//! From a body and its `Content-Type` to what is published: text, bytes, or a JSON value.
//!
//! A JSON value is judged and written as one in a `publish` command is (`protocol::v1::Values`), so subscribers get the
//! same, whichever way it came. A body in a content coding is refused: subscribers could not know of it.

use std::cell::RefCell;

use protocol::frame::HEADER_MAX;
use protocol::v1::{PayloadKind, Values};

use crate::config::limits::Limits;
use crate::publishing::body::too_long;
use crate::publishing::problem::{Code, Problem};

thread_local! {
    /// Buffers of a thread that serves HTTP.
    static VALUES: RefCell<Values> = RefCell::new(Values::new());
}

/// What a body is and, as JSON, becomes.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Interpreted {
    /// The body as it is.
    AsItIs(PayloadKind),
    /// These bytes in its place, behind room for a frame's header ([`HEADER_MAX`]).
    Written(PayloadKind, Vec<u8>),
}

/// RFC 9110 §8.4, §15.5.16: the only coding that is understood is none. `fields` are the values of `Content-Encoding`.
pub(crate) fn check_coding<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Result<(), Problem> {
    let mut codings = fields.flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    if codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(Problem::new(415_u16, "A body with a Content-Encoding cannot be published: send it as it is."))
}

/// What is published of a body, which may be overwritten. `content_type` is the value of the first such field.
pub(crate) fn interpret(content_type: Option<&[u8]>, body: &mut [u8], limits: &Limits) -> Result<Interpreted, Problem> {
    if !is_json(content_type) {
        return Ok(Interpreted::AsItIs(kind_of(content_type, body)));
    }
    if std::str::from_utf8(body).is_err() {
        return Err(Problem::bad("The body is not JSON: it is not UTF-8.").coded(Code::BadJson));
    }
    let mut room = Vec::with_capacity(HEADER_MAX + body.len());
    room.resize(HEADER_MAX, 0);
    let kind = VALUES
        .with_borrow_mut(|values| values.payload(body, &mut room))
        .map_err(|error| Problem::bad(format_args!("The body is not JSON that can be published: {error}")))
        .map_err(|problem| problem.coded(Code::BadJson))?;
    // A number's text may grow.
    if (room.len() - HEADER_MAX) as u64 > limits.message_bytes_max {
        return Err(too_long(limits));
    }
    Ok(Interpreted::Written(kind, room))
}

/// `application/json`, or a type with that structure (RFC 6839 §3.1).
pub(crate) fn is_json(content_type: Option<&[u8]>) -> bool {
    content_type.map(media).is_some_and(|media| {
        let is = |text: &str| media.eq_ignore_ascii_case(text);
        is("application/json") || media.len() >= 5 && media[media.len() - 5..].eq_ignore_ascii_case("+json")
    })
}

/// What subscribers are to take another body for. `curl -d` says urlencoded and means text.
pub(crate) fn kind_of(content_type: Option<&[u8]>, body: &[u8]) -> PayloadKind {
    let may_be_text = content_type.map(media).is_none_or(|media| {
        let begins = |text: &str| media.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text));
        media.eq_ignore_ascii_case("application/x-www-form-urlencoded") || begins("text/")
    });
    if may_be_text && std::str::from_utf8(body).is_ok() { PayloadKind::Text } else { PayloadKind::Binary }
}

/// The type without parameters. Empty if the field has anything but visible ASCII.
pub(crate) fn media(field: &[u8]) -> &str {
    let is_visible = |byte: &u8| matches!(byte, b'\t' | 32..127);
    let text = if field.iter().all(is_visible) { str::from_utf8(field).unwrap_or_default() } else { "" };
    text.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use PayloadKind::{Binary, Json, Text};

    fn published(content_type: Option<&str>, body: &[u8]) -> Result<(PayloadKind, Vec<u8>), u16> {
        let limits = Limits { message_bytes_max: 100, ..Limits::default() };
        match interpret(content_type.map(str::as_bytes), &mut body.to_vec(), &limits) {
            Ok(Interpreted::AsItIs(kind)) => Ok((kind, body.to_vec())),
            Ok(Interpreted::Written(kind, room)) => Ok((kind, room[HEADER_MAX..].to_vec())),
            Err(problem) => Err(problem.status()),
        }
    }

    #[test]
    fn content_types() {
        const FORM: &str = "application/x-www-form-urlencoded";
        type Case<'a> = (Option<&'a str>, &'a [u8], PayloadKind);
        let cases: [Case<'_>; 11] = [
            (None, b"hello", Text),
            (None, b"", Text),
            (None, b"\xff", Binary),
            (Some(FORM), b"hello", Text),
            (Some(FORM), b"\xff", Binary),
            (Some("text/plain; charset=utf-8"), "grün".as_bytes(), Text),
            (Some("TEXT/HTML"), b"\xff", Binary),
            (Some("application/octet-stream"), b"hello", Binary),
            (Some("image/png"), b"x", Binary),
            (Some(""), b"x", Binary),
            (Some("text/plain; a=\"ä\""), b"x", Binary),
        ];
        for (content_type, body, kind) in cases {
            assert_eq!(published(content_type, body), Ok((kind, body.to_vec())), "{content_type:?} {body:?}");
        }
    }

    #[test]
    fn json_is_written_as_the_sub_protocol_writes_it() {
        let json = |media: &str, body: &[u8]| published(Some(media), body);
        let value = |text: &str| Ok((Json, text.as_bytes().to_vec()));
        assert_eq!(json("application/json", b" {\"a\": [1, null]} "), value("{\"a\":[1,null]}"));
        assert_eq!(json("Application/JSON ; charset=utf-8", b"1e3"), value("1000.0"));
        assert_eq!(json("application/ld+json", b"[]"), value("[]"));
        assert_eq!(json("application/json", b"\"te\\u0078t\""), Ok((Text, b"text".to_vec())));
        for body in [&b""[..], b"{\"a\": }", b"1 2", b"\"\xff\"", b"1e400", b"\"\\ud83d\"", &[b'['; 90]] {
            assert_eq!(json("application/json", body), Err(400), "{}", body.escape_ascii());
        }
        let grows = format!("[{}1]", "1e9,".repeat(20));
        assert_eq!(json("application/json", grows.as_bytes()), Err(413));
    }

    #[test]
    fn a_coding_is_refused() {
        let verdict = |values: &[&'static str]| {
            check_coding(values.iter().map(|value| value.as_bytes())).map_err(|problem| problem.status())
        };
        for values in [&[][..], &[""], &["identity"], &["Identity, identity"], &["identity", ""]] {
            assert_eq!(verdict(values), Ok(()), "{values:?}");
        }
        for values in [&["gzip"][..], &["br"], &["identity, gzip"], &["identity", "deflate"], &["x-unknown"]] {
            assert_eq!(verdict(values), Err(415), "{values:?}");
        }
    }
}

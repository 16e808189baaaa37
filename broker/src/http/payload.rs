//! From a body and its fields to what is published: text, bytes, or a JSON value, by `Content-Type`.
//!
//! A JSON value is judged and written as one in a `publish` command is (`protocol::v1::Values`), so subscribers get the
//! same, whichever way it came. A body in a content coding is refused: subscribers could not know of it.

use std::cell::RefCell;

use axum::http::{HeaderMap, StatusCode, header};
use protocol::frame::HEADER_MAX;
use protocol::v1::{PayloadKind, Values};

use crate::capacity::budget::allocated;
use crate::config::limits::Limits;
use crate::http::bodies::{self, Collected};
use crate::http::error::HttpError;

thread_local! {
    /// Buffers of the one thread that serves HTTP.
    static VALUES: RefCell<Values> = RefCell::new(Values::new());
}

/// RFC 9110 §8.4, §15.5.16: the only coding that is understood is none.
pub(crate) fn check_coding(headers: &HeaderMap) -> Result<(), HttpError> {
    let fields = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut codings = fields.flat_map(|value| value.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    if codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let sentence = "A body with a Content-Encoding cannot be published: send it as it is.";
    Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence))
}

/// What a body is and, as JSON, becomes.
pub(crate) fn interpret(
    headers: &HeaderMap,
    mut collected: Collected,
    limits: &Limits,
) -> Result<(PayloadKind, Collected), HttpError> {
    let body = &mut collected.room[HEADER_MAX..];
    if !is_json(headers) {
        let kind = kind_of(headers, body);
        return Ok((kind, collected));
    }
    if std::str::from_utf8(body).is_err() {
        return Err(HttpError::bad("The body is not JSON: it is not UTF-8."));
    }
    let mut room = Vec::with_capacity(HEADER_MAX + body.len());
    room.resize(HEADER_MAX, 0);
    let kind = VALUES
        .with_borrow_mut(|values| values.payload(body, &mut room))
        .map_err(|error| HttpError::bad(format_args!("The body is not JSON that can be published: {error}")))?;
    // A number's text may grow.
    if (room.len() - HEADER_MAX) as u64 > limits.message_bytes_max {
        return Err(bodies::too_long(limits));
    }
    let Collected { mut charge, .. } = collected;
    charge.resize(allocated(room.capacity()));
    Ok((kind, Collected { room, charge }))
}

/// `application/json`, or a type with that structure (RFC 6839 §3.1).
fn is_json(headers: &HeaderMap) -> bool {
    media(headers).is_some_and(|media| media == "application/json" || media.ends_with("+json"))
}

/// What subscribers are to take another body for. `curl -d` says urlencoded and means text.
fn kind_of(headers: &HeaderMap, body: &[u8]) -> PayloadKind {
    let may_be_text = match media(headers).as_deref() {
        None | Some("application/x-www-form-urlencoded") => true,
        Some(media) => media.starts_with("text/"),
    };
    if may_be_text && std::str::from_utf8(body).is_ok() { PayloadKind::Text } else { PayloadKind::Binary }
}

fn media(headers: &HeaderMap) -> Option<String> {
    let field = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(field.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::budget::{Budget, Charge, Held};
    use PayloadKind::{Binary, Json, Text};

    fn published(content_type: Option<&str>, body: &[u8]) -> Result<(PayloadKind, Vec<u8>), StatusCode> {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        }
        let charge = Charge::new(Budget::new(1, 1000).of_plane(), Held::Bodies, 0);
        let room = [&[0; HEADER_MAX], body].concat();
        let limits = Limits { message_bytes_max: 100, ..Limits::default() };
        match interpret(&headers, Collected { room, charge }, &limits) {
            Ok((kind, collected)) => Ok((kind, collected.room[HEADER_MAX..].to_vec())),
            Err(error) => Err(error.status()),
        }
    }

    #[test]
    fn content_types() {
        const FORM: &str = "application/x-www-form-urlencoded";
        type Case<'a> = (Option<&'a str>, &'a [u8], PayloadKind);
        let cases: [Case<'_>; 10] = [
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
            assert_eq!(json("application/json", body), Err(StatusCode::BAD_REQUEST), "{}", body.escape_ascii());
        }
        let grows = format!("[{}1]", "1e9,".repeat(20));
        assert_eq!(json("application/json", grows.as_bytes()), Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[test]
    fn a_coding_is_refused() {
        let verdict = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            check_coding(&headers).map_err(|error| error.status().as_u16())
        };
        for values in [&[][..], &[""], &["identity"], &["Identity, identity"], &["identity", ""]] {
            assert_eq!(verdict(values), Ok(()), "{values:?}");
        }
        for values in [&["gzip"][..], &["br"], &["identity, gzip"], &["identity", "deflate"], &["x-unknown"]] {
            assert_eq!(verdict(values), Err(415), "{values:?}");
        }
    }
}

//! One cookie of a request (RFC 6265 §4.2.1, §5.4). Whether its value is of any use is the caller's decision.

use httparse::{EMPTY_HEADER, Request, Status};

use super::HEADERS_CEILING;
use super::fields::Fields;

/// The value of the cookie `name` in a complete head. Parses the head once more, for it is needed only where cookies may
/// hold something.
#[must_use]
pub fn cookie<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut headers = [EMPTY_HEADER; HEADERS_CEILING];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => cookie_in(Fields::new(request.headers).lines("cookie"), name),
        _ => None,
    }
}

/// The value of the cookie `name` in the values of a request's `Cookie` fields, without quotation marks around it. Several
/// cookies of this name, of which each could be meant, hold an empty value.
pub fn cookie_in<'a>(values: impl IntoIterator<Item = &'a [u8]>, name: &str) -> Option<&'a [u8]> {
    let mut found = values.into_iter().flat_map(|value| value.split(|&byte| byte == b';')).filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let value = pair[equals + 1..].trim_ascii();
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        (pair[..equals].trim_ascii() == name.as_bytes()).then_some(unquoted.unwrap_or(value))
    });
    let value = found.next()?;
    Some(if found.next().is_some() { b"" } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let head = b"GET /ws HTTP/1.1\r\nHost: a\r\nCookie: xt=1; t=a=b ;u=\"q\"\r\ncookie: last=z\r\n\r\n";
        for (name, value) in [("t", &b"a=b"[..]), ("u", b"q"), ("xt", b"1"), ("last", b"z")] {
            assert_eq!(cookie(head, name), Some(value), "{name}");
        }
        assert_eq!(cookie(head, "T"), None, "names have a case");
        assert_eq!(cookie(&head[..60], "t"), None, "not a whole head");
    }

    #[test]
    fn nothing_and_too_much_differ() {
        let found = |values: &[&'static str]| cookie_in(values.iter().map(|value| value.as_bytes()), "t");
        for values in [&[][..], &[""], &["t"], &["a=t"], &["; ;"]] {
            assert_eq!(found(values), None, "{values:?}");
        }
        assert_eq!(found(&["t="]), Some(&b""[..]));
        assert_eq!(found(&["t=\"", "a=1"]), Some(&b"\""[..]));
        assert_eq!(found(&["t=1; t=1"]), Some(&b""[..]));
        assert_eq!(found(&["t=1", "t=2"]), Some(&b""[..]));
    }
}

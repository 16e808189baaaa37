//! The key that a request brings: `Authorization: Bearer KEY` (RFC 6750 §2.1). Whether it is a right one is the caller's
//! decision.

use httparse::{EMPTY_HEADER, Request, Status};

use super::HEADERS_CEILING;
use super::fields::Fields;

/// The scheme's name, and the space behind it.
const SCHEME: &[u8] = b"bearer ";

/// The key in a complete head. Parses the head once more, for it is needed only where there are keys.
#[must_use]
pub fn bearer(head: &[u8]) -> Option<&[u8]> {
    let mut headers = [EMPTY_HEADER; HEADERS_CEILING];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => bearer_in(Fields::new(request.headers).lines("authorization")),
        _ => None,
    }
}

/// The key in the values of a request's `Authorization` fields. `None`: there is no such field, or it is of another scheme,
/// which is between the client and somebody else. Several fields, of which each could be meant, hold an empty key.
pub fn bearer_in<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let mut keys = values.into_iter().filter_map(|value| {
        let value = value.trim_ascii();
        let (scheme, key) = value.split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then(|| key.trim_ascii())
    });
    let key = keys.next()?;
    Some(if keys.next().is_some() { b"" } else { key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_whatever_the_case_of_its_scheme() {
        let head = b"GET /ws HTTP/1.1\r\nHost: a\r\nauthorization:\tbEARER   abc= \r\nX: y\r\n\r\n";
        assert_eq!(bearer(head), Some(&b"abc="[..]));
        assert_eq!(bearer(&head[..60]), None, "not a whole head");
        assert_eq!(bearer(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
    }

    #[test]
    fn other_schemes_are_none_and_two_keys_are_an_empty_one() {
        let found = |values: &[&'static str]| bearer_in(values.iter().map(|value| value.as_bytes()));
        for values in [&[][..], &["Basic abc"], &["Bearer"], &["Bearerabc"], &[""], &["Bear"]] {
            assert_eq!(found(values), None, "{values:?}");
        }
        assert_eq!(found(&["Basic abc", "Bearer k"]), Some(&b"k"[..]));
        assert_eq!(found(&["Bearer k", "Bearer k"]), Some(&b""[..]));
    }
}

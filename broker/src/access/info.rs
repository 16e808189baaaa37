//! What a token says of its member: the claim `info`, which others see where the token's client is present.
//!
//! It is kept as text, because numbers need not fit the types that this broker has, and without white space, because it becomes
//! a part of messages.
//!
//! Memory: no more than the claim's text. Cost: a second look at a payload, only of tokens that have the claim.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The claim's name.
pub(crate) const CLAIM: &str = "info";

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

/// The text of the claim in a payload that was found to be good JSON. `None`: there is none, or it is `null`.
pub(crate) fn info_in(payload: &[u8]) -> Option<Arc<[u8]>> {
    let claims: Claims = serde_json::from_slice(payload).ok()?;
    claims.info.map(|info| compact(info.get().as_bytes()).into())
}

/// JSON without the white space between its tokens.
fn compact(json: &[u8]) -> Vec<u8> {
    let (mut text, mut is_string, mut is_escaped) = (Vec::with_capacity(json.len()), false, false);
    for &byte in json {
        if is_string {
            is_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            is_string = byte == b'"';
        }
        text.push(byte);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_is_kept_as_it_was_written_without_white_space() {
        let info = |payload: &str| info_in(payload.as_bytes()).map(|info| String::from_utf8_lossy(&info).into_owned());
        let cases = [
            (r#"{"sub":"a"}"#, None),
            (r#"{"info":null}"#, None),
            (r#"{"info":"a b"}"#, Some(r#""a b""#)),
            (
                "{\"info\" : {\"a\" :\n[1, 12345678901234567890123 ,\t1.50] } , \"x\":1}",
                Some(r#"{"a":[1,12345678901234567890123,1.50]}"#),
            ),
            (r#"{"info": "\" \\" , "x": {"info": 2}}"#, Some(r#""\" \\""#)),
            (r#"{"info":false}"#, Some("false")),
            (r#"{"in\u0066o": 1}"#, Some("1")),
        ];
        for (payload, expected) in cases {
            assert_eq!(info(payload).as_deref(), expected, "{payload}");
        }
    }
}

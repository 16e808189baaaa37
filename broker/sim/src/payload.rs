//! What messages say: enough to know each again and to notice every changed byte.
//!
//! A payload names its message (`~17~`) and goes on with bytes that follow from that number. Empty ones
//! say nothing; the model counts them between their neighbours.

use std::fmt::Write;

use ring::Random;

/// What a payload is, as its subscribers can tell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
    /// A JSON value, published by a `ringyard.v1` client; text for raw subscribers.
    Json,
}

/// The payload of message `number`, about `len` bytes long; 0 is empty.
#[must_use]
pub fn build(number: u32, kind: Kind, len: usize) -> Vec<u8> {
    if len == 0 && kind != Kind::Json {
        return Vec::new();
    }
    let mut rng = Random::new(u64::from(number));
    match kind {
        Kind::Binary => {
            let mut bytes = format!("~{number}~").into_bytes();
            while bytes.len() < len {
                bytes.extend_from_slice(&rng.draw().to_le_bytes());
            }
            bytes
        }
        Kind::Text => {
            let mut text = format!("~{number}~");
            while text.len() < len {
                text.push_str(rng.pick(&[
                    "plain words ",
                    "\"",
                    "\\",
                    "ü",
                    "\n",
                    "\u{1}",
                    "😀",
                    "/",
                    "</script>",
                    "\u{7f}",
                ]));
            }
            text.into_bytes()
        }
        Kind::Json => {
            let mut text = format!("{{\"m\":\"~{number}~\",\"n\":[1,null,true,-2.5]");
            if len > text.len() {
                text.push_str(",\"z\":\"");
                while text.len() < len {
                    let _ = write!(text, "{:x}\\n", rng.draw());
                }
                text.push('"');
            }
            text.push('}');
            text.into_bytes()
        }
    }
}

/// Which message a payload names.
#[must_use]
pub fn number(payload: &[u8]) -> Option<u32> {
    let from = payload.iter().take(16).position(|&byte| byte == b'~')? + 1;
    let rest = &payload[from..];
    let len = rest.iter().take(11).position(|&byte| byte == b'~')?;
    std::str::from_utf8(&rest[..len]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_names_its_message() {
        for kind in [Kind::Text, Kind::Binary, Kind::Json] {
            for len in [1, 40, 300] {
                let payload = build(1234, kind, len);
                assert_eq!(number(&payload), Some(1234), "{kind:?}");
                assert_eq!(std::str::from_utf8(&payload).is_ok(), kind != Kind::Binary || len == 1);
            }
        }
        let json = build(7, Kind::Json, 100);
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(serde_json::to_vec(&value).expect("JSON"), json, "compact already");
    }
}

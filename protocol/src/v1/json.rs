//! JSON text (RFC 8259): strings and numbers written, and a parsed value written back in its compact form.
//! Runs without escapes are found 8, then 32 bytes at a time and copied whole. Nothing here allocates beyond the
//! growth of the output.

use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;
use simd_json::{Node, StaticNode};

use super::{DEPTH_MAX, ID_NUMBER_MAX};

/// The value nests deeper than [`DEPTH_MAX`].
#[derive(PartialEq, Eq, Debug)]
pub(super) struct TooDeep;

/// Appends a string in quotes. `text` is UTF-8.
pub fn put_string(out: &mut impl BufMut, text: &[u8]) {
    out.put_u8(b'"');
    let mut rest = text;
    loop {
        let (plain, after) = rest.split_at(plain_len(rest));
        out.put_slice(plain);
        let Some((&byte, after)) = after.split_first() else {
            break;
        };
        put_escape(out, byte);
        rest = after;
    }
    out.put_u8(b'"');
}

/// Appends a number in decimal.
pub(super) fn put_u64(out: &mut impl BufMut, mut number: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[from..]);
}

/// Appends a number as 16 hexadecimal digits.
pub(super) fn put_hex(out: &mut impl BufMut, number: u64) {
    let digits: [u8; 16] = std::array::from_fn(|i| b"0123456789abcdef"[(number >> (60 - 4 * i) & 0xf) as usize]);
    out.put_slice(&digits);
}

/// Appends a number as a string of 16 hexadecimal digits.
pub(super) fn put_hex_string(out: &mut impl BufMut, number: u64) {
    out.put_u8(b'"');
    put_hex(out, number);
    out.put_u8(b'"');
}

/// Appends bytes as a string of base64 (RFC 4648 §4).
pub(super) fn put_base64_string(out: &mut impl BufMut, bytes: &[u8]) {
    /// A multiple of three, so that only the last piece is padded.
    const PIECE: usize = 768;
    let mut encoded = [0; PIECE / 3 * 4];
    out.put_u8(b'"');
    for piece in bytes.chunks(PIECE) {
        // The buffer fits the longest piece, so this is never the default.
        let len = STANDARD.encode_slice(piece, &mut encoded).unwrap_or_default();
        out.put_slice(&encoded[..len]);
    }
    out.put_u8(b'"');
}

/// Decodes base64 to the end of `out`; false if it is not canonical and padded.
pub(super) fn decode_base64(text: &str, out: &mut Vec<u8>) -> bool {
    STANDARD.decode_vec(text, out).is_ok()
}

/// The slice of nodes that the value at the front of `nodes` takes up.
pub(super) fn value<'t, 'a>(nodes: &'t [Node<'a>]) -> &'t [Node<'a>] {
    let inner = match nodes[0] {
        Node::Object { count, .. } | Node::Array { count, .. } => count,
        Node::String(_) | Node::Static(_) => 0,
    };
    &nodes[..=inner]
}

/// The members of the object that `nodes` are; none if they are something else.
pub(super) fn members<'t, 'a>(
    nodes: &'t [Node<'a>],
) -> Option<impl ExactSizeIterator<Item = (&'a str, &'t [Node<'a>])>> {
    let Some((&Node::Object { len, .. }, mut rest)) = nodes.split_first() else { return None };
    Some((0..len).map(move |_| {
        let Some((&Node::String(name), after)) = rest.split_first() else {
            unreachable!("an object's members begin with a name");
        };
        let value = value(after);
        rest = &after[value.len()..];
        (name, value)
    }))
}

/// The integer from 0 to 2^53-1 that a value is.
pub(super) fn whole(value: &[Node<'_>]) -> Option<u64> {
    let number = match *value {
        [Node::Static(StaticNode::U64(number))] => Some(number),
        [Node::Static(StaticNode::I64(number))] => u64::try_from(number).ok(),
        _ => None,
    };
    number.filter(|&number| number <= ID_NUMBER_MAX)
}

/// An array or object of which not everything is written.
#[derive(Clone, Copy)]
struct Open {
    object: bool,
    /// Nodes directly inside; in an object keys and values both count.
    len: usize,
    written: usize,
}

/// Appends a value without white space.
pub(super) fn put_value(out: &mut Vec<u8>, value: &[Node<'_>]) -> Result<(), TooDeep> {
    let mut open = [Open { object: false, len: 0, written: 0 }; DEPTH_MAX];
    let mut depth = 0;
    for node in value {
        if let Some(parent) = open[..depth].last_mut() {
            match parent.written {
                0 => {}
                odd if parent.object && odd % 2 == 1 => out.push(b':'),
                _ => out.push(b','),
            }
            parent.written += 1;
        }
        match *node {
            Node::String(text) => put_string(out, text.as_bytes()),
            Node::Static(scalar) => put_scalar(out, scalar),
            Node::Object { len, .. } | Node::Array { len, .. } => {
                let object = matches!(node, Node::Object { .. });
                out.push(if object { b'{' } else { b'[' });
                let place = open.get_mut(depth).ok_or(TooDeep)?;
                *place = Open { object, len: if object { 2 * len } else { len }, written: 0 };
                depth += 1;
            }
        }
        while let Some(done) = open[..depth].last().filter(|open| open.written == open.len) {
            out.push(if done.object { b'}' } else { b']' });
            depth -= 1;
        }
    }
    Ok(())
}

fn put_scalar(out: &mut Vec<u8>, scalar: StaticNode) {
    match scalar {
        StaticNode::Null => out.extend_from_slice(b"null"),
        StaticNode::Bool(true) => out.extend_from_slice(b"true"),
        StaticNode::Bool(false) => out.extend_from_slice(b"false"),
        StaticNode::U64(number) => put_u64(out, number),
        StaticNode::I64(number) => {
            if number < 0 {
                out.push(b'-');
            }
            put_u64(out, number.unsigned_abs());
        }
        // Debug, unlike Display, turns to exponents instead of writing hundreds of digits.
        StaticNode::F64(number) => write!(out, "{number:?}").expect("writing to memory"),
    }
}

/// RFC 8259 §7: what must not stand in a string as it is.
const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// How many bytes at the front stand in a string as they are.
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    const STEP: usize = 32;
    let len = short_plain_len(&bytes[..bytes.len().min(STEP)]);
    if len < STEP {
        return len;
    }
    // There is no early exit inside a step: that lets the compiler vectorise it.
    let clean = |step: &&[u8; STEP]| step.iter().fold(true, |all, &byte| all & !needs_escape(byte));
    let len = len + STEP * bytes[len..].as_chunks::<STEP>().0.iter().take_while(clean).count();
    len + short_plain_len(&bytes[len..])
}

/// The same, 8 bytes at a time. The lowest set bit of `escapes` is exact, those above it may be carries.
fn short_plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let (words, rest) = bytes.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let below = |byte: u64, limit: u64| byte.wrapping_sub(ONES * limit) & !byte;
        let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let escapes = (below(word, 0x20) | equal(b'"') | equal(b'\\')) & (ONES << 7);
        if escapes != 0 {
            return 8 * at + escapes.trailing_zeros() as usize / 8;
        }
    }
    8 * words.len() + rest.iter().position(|&byte| needs_escape(byte)).unwrap_or(rest.len())
}

fn put_escape(out: &mut impl BufMut, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let low = b"0123456789abcdef"[usize::from(byte & 0xf)];
            out.put_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
            return;
        }
    };
    out.put_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use simd_json::prelude::*;

    fn string(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, text.as_bytes());
        out
    }

    fn compact(text: &str) -> Result<String, TooDeep> {
        let mut bytes = text.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut bytes).expect("JSON");
        let mut out = Vec::new();
        put_value(&mut out, value(&tape.0))?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn escapes() {
        assert_eq!(
            string("a\"b\\c/\n\r\t\u{8}\u{c}\u{1f}\u{7f}ä"),
            "\"a\\\"b\\\\c/\\n\\r\\t\\b\\f\\u001f\u{7f}ä\"".as_bytes()
        );
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 1234, u64::MAX] {
            let mut out = Vec::new();
            put_u64(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
        let mut out = Vec::new();
        put_hex_string(&mut out, 0x0123_4567_89ab_cdef);
        assert_eq!(out, b"\"0123456789abcdef\"");
    }

    #[test]
    fn values_lose_only_white_space() {
        let text = r#"[1,-2,"a",{"a":{},"b":[],"c":[[1],{"d":null}]},true,false,1.5,1e300]"#;
        assert_eq!(compact(text).as_deref(), Ok(text));
        assert_eq!(compact(" { \"a\" : [ 1 , 2 ] } ").as_deref(), Ok(r#"{"a":[1,2]}"#));
        assert_eq!(compact("18446744073709551616").as_deref(), Ok("1.8446744073709552e19"));
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(compact(&nested(DEPTH_MAX)), Ok(nested(DEPTH_MAX)));
        assert_eq!(compact(&nested(DEPTH_MAX + 1)), Err(TooDeep));
    }

    proptest! {
        #[test]
        fn strings_read_back(text in any::<String>(), pad in "[a-z]{0,70}") {
            let text = pad + &text;
            let mut written = string(&text);
            let read = simd_json::to_owned_value(&mut written).expect("JSON");
            prop_assert_eq!(read.as_str(), Some(text.as_str()));
        }

        #[test]
        fn base64_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut written = Vec::new();
            put_base64_string(&mut written, &bytes);
            let text = std::str::from_utf8(&written[1..written.len() - 1]).expect("text");
            let mut read = Vec::new();
            prop_assert!(decode_base64(text, &mut read));
            prop_assert_eq!(read, bytes);
        }
    }
}

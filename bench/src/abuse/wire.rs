//! What abusers and the control group say and read: request heads and frames (RFC 6455), as bytes.
//!
//! Independent of the broker's own code, so that it can judge. Lengths are bytes.

/// The first byte of a whole text message, a whole binary message, and of control frames.
pub(super) const TEXT: u8 = 0x81;
pub(super) const BINARY: u8 = 0x82;
pub(super) const CLOSE: u8 = 0x88;
pub(super) const PING: u8 = 0x89;
pub(super) const PONG: u8 = 0x8a;

/// Any key will do, as long as the server has to unmask (RFC 6455, section 5.3).
pub(super) const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x9e];

/// An upgrade request; `/ws` offers its sub-protocol.
pub(super) fn upgrade(path: &str) -> Vec<u8> {
    upgrade_with(path, "")
}

/// The same with further header fields, each ended by CR LF.
pub(super) fn upgrade_with(path: &str, fields: &str) -> Vec<u8> {
    let offer = if path == "/ws" { "Sec-WebSocket-Protocol: ringyard.v1\r\n" } else { "" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}{fields}\r\n"
    )
    .into_bytes()
}

/// A publish over HTTP on a connection that is kept.
pub(super) fn post(topic: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!("POST /pub/{topic} HTTP/1.1\r\nHost: broker\r\nContent-Length: {len}\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

/// Appends a client's frame.
pub(super) fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..65536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// A client's frame.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    put_frame(&mut out, first, payload);
    out
}

/// A server's frame at the front of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// FIN, reserved bits and opcode.
    pub(super) first: u8,
    pub(super) header_len: usize,
    pub(super) payload_len: usize,
}

/// Finds the whole frame at the front; nothing while its end is missing.
///
/// # Errors
/// What a server never sends.
pub(super) fn find(bytes: &[u8]) -> Result<Option<Found>, &'static str> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    if !matches!(first, TEXT | BINARY | CLOSE | PING | PONG) {
        return Err("a fragment, a reserved bit or an unknown opcode");
    }
    let (extended_len, len) = match second {
        0..126 => (0, u64::from(second)),
        126 => (2, rest.first_chunk().map_or(u64::MAX, |len| u64::from(u16::from_be_bytes(*len)))),
        127 => (8, rest.first_chunk().map_or(u64::MAX, |len| u64::from_be_bytes(*len))),
        _ => return Err("a masked frame"),
    };
    if rest.len() < extended_len {
        return Ok(None);
    }
    let found =
        Found { first, header_len: 2 + extended_len, payload_len: usize::try_from(len).map_err(|_| "a huge frame")? };
    Ok((rest.len() - extended_len >= found.payload_len).then_some(found))
}

/// The code of a close frame's payload; 1005 when it carries none.
pub(super) fn close_code(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
}

/// A frame in words: a close with its code and reason, others by their first byte.
pub(super) fn describe(first: u8, payload: &[u8]) -> String {
    if first == CLOSE {
        let reason = payload.get(2..).unwrap_or_default().escape_ascii();
        return format!("close {} \"{reason}\"", close_code(payload));
    }
    format!("a frame that begins with {first:#04x} and has {} bytes", payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_when_whole() {
        let mut bytes = vec![BINARY, 126, 0, 200];
        bytes.extend([7; 200]);
        for len in 0..bytes.len() {
            assert_eq!(find(&bytes[..len]), Ok(None), "{len}");
        }
        assert_eq!(find(&bytes), Ok(Some(Found { first: BINARY, header_len: 4, payload_len: 200 })));
        assert!(find(&[0x82, 0x80]).is_err() && find(&[0xc1, 0]).is_err() && find(&[0x01, 0]).is_err());
    }

    #[test]
    fn clients_mask() {
        let frame = frame(TEXT, b"ab");
        assert_eq!(frame, [TEXT, 0x82, 0x5a, 0xc3, 0x17, 0x9e, b'a' ^ 0x5a, b'b' ^ 0xc3]);
        assert_eq!((close_code(&[3, 0xf5]), close_code(b"")), (1013, 1005));
        assert_eq!(describe(CLOSE, &[3, 0xf5, b'a']), "close 1013 \"a\"");
        assert_eq!(describe(PONG, b"ab"), "a frame that begins with 0x8a and has 2 bytes");
    }
}

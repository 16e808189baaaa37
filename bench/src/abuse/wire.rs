//! Request heads and clients' frames (RFC 6455) as bytes, valid or not.

pub(super) use loadgen::client::close_code;
use loadgen::client::upgrade_request;
use protocol::frame::{Opcode, put_client_frame};

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
    let mut head = Vec::new();
    upgrade_request("broker", path, (path == "/ws").then_some(protocol::v1::SUBPROTOCOL), &mut head);
    head.truncate(head.len() - b"\r\n".len());
    head.extend_from_slice(format!("{fields}\r\n").as_bytes());
    head
}

/// A publish over HTTP on a connection that is kept.
pub(super) fn post(topic: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!("POST /pub/{topic} HTTP/1.1\r\nHost: broker\r\nContent-Length: {len}\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

/// Appends a client's frame. Its first byte (FIN, reserved bits, opcode) may be wrong.
pub(super) fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    let at = out.len();
    put_client_frame(out, Opcode::Binary, payload, MASK);
    out[at] = first;
}

/// A client's frame.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    put_frame(&mut out, first, payload);
    out
}

/// A frame as text: a close with its code and reason, others by their first byte.
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
    fn clients_mask() {
        let frame = frame(TEXT, b"ab");
        assert_eq!(frame, [TEXT, 0x82, 0x5a, 0xc3, 0x17, 0x9e, b'a' ^ 0x5a, b'b' ^ 0xc3]);
        assert_eq!((close_code(&[3, 0xf5]), close_code(b"")), (1013, 1005));
        assert_eq!(describe(CLOSE, &[3, 0xf5, b'a']), "close 1013 \"a\"");
        assert_eq!(describe(PONG, b"ab"), "a frame that begins with 0x8a and has 2 bytes");
    }
}

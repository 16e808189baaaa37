//! Frames to bytes (RFC 6455 §5.2). A server's header can be written apart from its payload, so that a
//! message is framed once and shared by all receivers. Client frames, masked, serve load clients and tests.

use bytes::BytesMut;

use super::{CONTROL_LEN_MAX, CloseCode, Opcode, unmask};

/// The longest header of a frame that is not masked, in bytes.
pub const HEADER_MAX: usize = 10;

/// Writes the header of a whole message or control frame from a server (FIN set, not masked) to the front
/// of `out` and returns its length.
pub fn server_header(opcode: Opcode, payload_len: u64, out: &mut [u8; HEADER_MAX]) -> usize {
    header(true, opcode, payload_len, false, out)
}

/// Appends a whole frame from a server.
pub fn put_frame(out: &mut BytesMut, opcode: Opcode, payload: &[u8]) {
    let mut header = [0; HEADER_MAX];
    let header_len = server_header(opcode, payload.len() as u64, &mut header);
    out.reserve(HEADER_MAX + payload.len());
    // As long as it can be and cut: a copy of fixed length is two instructions.
    let payload_from = out.len() + header_len;
    out.extend_from_slice(&header);
    out.truncate(payload_from);
    out.extend_from_slice(payload);
}

/// Appends a close frame from a server (§5.5.1). A reason longer than the 123 bytes a close frame has room
/// for is cut at the end of a character.
pub fn put_close(out: &mut BytesMut, code: impl Into<CloseCode>, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_LEN_MAX - 2)];
    let CloseCode(code) = code.into();
    let mut header = [0; HEADER_MAX];
    let header_len = server_header(Opcode::Close, 2 + reason.len() as u64, &mut header);
    out.extend_from_slice(&header[..header_len]);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a whole, masked frame from a client.
pub fn put_client_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    put_client_fragment(out, true, opcode, payload, mask);
}

/// Appends a masked frame from a client that is (`fin`) or is not the last of its message (§5.4).
pub fn put_client_fragment(out: &mut Vec<u8>, fin: bool, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    let mut bytes = [0; HEADER_MAX];
    let header_len = header(fin, opcode, payload.len() as u64, true, &mut bytes);
    out.reserve(header_len + mask.len() + payload.len());
    out.extend_from_slice(&bytes[..header_len]);
    out.extend_from_slice(&mask);
    let payload_from = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[payload_from..], mask, 0);
}

/// Everything of a header but the mask, with the length in its shortest form.
fn header(fin: bool, opcode: Opcode, len: u64, masked: bool, out: &mut [u8; HEADER_MAX]) -> usize {
    out[0] = u8::from(fin) << 7 | opcode as u8;
    let mask_bit = u8::from(masked) << 7;
    match len {
        0..126 => {
            out[1] = mask_bit | len as u8;
            2
        }
        126..=0xffff => {
            out[1] = mask_bit | 126;
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = mask_bit | 127;
            out[2..].copy_from_slice(&len.to_be_bytes());
            10
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::close_code;

    /// RFC 6455 §5.7: the standard's own frames.
    #[test]
    fn the_standards_examples() {
        let mut out = BytesMut::new();
        put_frame(&mut out, Opcode::Text, b"Hello");
        assert_eq!(out[..], [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);

        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut out = Vec::new();
        put_client_frame(&mut out, Opcode::Text, b"Hello", mask);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);

        let mut header = [0; HEADER_MAX];
        assert_eq!(server_header(Opcode::Binary, 256, &mut header), 4);
        assert_eq!(header[..4], [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(server_header(Opcode::Binary, 65_536, &mut header), 10);
        assert_eq!(header, [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn only_the_last_fragment_has_fin() {
        let mut out = Vec::new();
        put_client_fragment(&mut out, false, Opcode::Text, b"", [0; 4]);
        put_client_fragment(&mut out, true, Opcode::Continuation, b"", [0; 4]);
        assert_eq!(out, [0x01, 0x80, 0, 0, 0, 0, 0x80, 0x80, 0, 0, 0, 0]);
    }

    /// RFC 6455 §5.5: a control frame holds 125 bytes, here the code and 123 more.
    #[test]
    fn long_reasons_are_cut_between_characters() {
        let mut out = BytesMut::new();
        put_close(&mut out, close_code::GOING_AWAY, &"ä".repeat(100));
        assert_eq!(out[..4], [0x88, 2 + 122, 0x03, 0xe9]);
        assert_eq!(out.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());

        let mut out = BytesMut::new();
        put_close(&mut out, 1000, "");
        assert_eq!(out[..], [0x88, 2, 0x03, 0xe8]);
    }
}

//! The header of a server's WebSocket frame (RFC 6455, section 5.2).
//!
//! Judged here: reserved bits and opcodes, masks, lengths in their shortest form, control frames (section 5.5).

use std::borrow::Cow;

use protocol::frame::Opcode;

/// Why bytes are not what the protocol allows.
pub(crate) type Broken = Cow<'static, str>;

/// A frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: Opcode,
    /// Bytes of the header.
    pub(crate) len: usize,
    /// Bytes of the payload.
    pub(crate) payload: u64,
}

impl Header {
    /// Bytes of the payload of a control frame, which is taken together with the header.
    pub(crate) fn control_len(&self) -> usize {
        if self.opcode.is_control() { self.payload as usize } else { 0 }
    }

    /// Reads a header from the front of `bytes`; nothing when more bytes are needed.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, Broken> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let (len, payload) = match second {
            len @ 0..126 => (2, u64::from(*len)),
            126 => match rest.first_chunk() {
                Some(len) => (4, u64::from(u16::from_be_bytes(*len))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(len) => (10, u64::from_be_bytes(*len)),
                None => return Ok(None),
            },
            _ => return Err("a masked frame from a server".into()),
        };
        let minimal = match len {
            2 => true,
            4 => payload > 125,
            _ => payload > 0xffff && payload >> 63 == 0,
        };
        if !minimal {
            return Err("a frame's length that is not in its shortest form".into());
        }
        let opcode = match Opcode::from_bits(*first) {
            Some(opcode) if first & 0x70 == 0 => opcode,
            _ => return Err(format!("a frame that begins with {first:#04x}").into()),
        };
        let fin = first & 0x80 != 0;
        if opcode.is_control() && (!fin || payload > 125) {
            return Err("a control frame that is fragmented or longer than 125 bytes".into());
        }
        Ok(Some(Self { fin, opcode, len, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_when_whole() {
        let bytes = [0x82, 126, 0, 200];
        assert!((0..4).all(|len| Header::read(&bytes[..len]) == Ok(None)));
        let header = Header { fin: true, opcode: Opcode::Binary, len: 4, payload: 200 };
        assert_eq!(Header::read(&bytes), Ok(Some(header)));
        for wrong in [[0x82, 0x80, 0, 0], [0xc1, 0, 0, 0], [0x83, 0, 0, 0], [0x82, 126, 0, 5], [0x09, 0, 0, 0]] {
            assert!(Header::read(&wrong).is_err(), "{wrong:x?}");
        }
    }
}

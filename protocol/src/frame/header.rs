//! One frame's header (RFC 6455 §5.2): its layout, and every rule that can be judged from it alone or from
//! it and the message under way. Rules are judged in the order of the bytes, each as soon as its bytes are
//! there, so that a header arriving byte by byte meets the same fate as a whole one.

use super::{CONTROL_LEN_MAX, FrameLimits, MessageKind, Opcode, Role, Violation};

/// The longest header there is: two bytes, a 64-bit length, a mask.
pub(super) const RECEIVED_HEADER_MAX: usize = 14;

/// A complete header that broke no rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameHeader {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    /// Payload bytes.
    pub(super) len: u64,
    /// All zero, that is without effect, for frames that are not masked.
    pub(super) mask: [u8; 4],
    /// Bytes of the header itself.
    pub(super) header_len: usize,
}

/// What a header is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) role: Role,
    pub(super) limits: &'a FrameLimits,
    /// The message whose fragments are under way, and how many payload bytes it has so far.
    pub(super) message: Option<(MessageKind, u64)>,
}

impl FrameHeader {
    /// Reads the header at the front of `bytes`; `None` when it is not all there yet.
    pub(super) fn parse(bytes: &[u8], context: Context<'_>) -> Result<Option<Self>, Violation> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let (fin, opcode) = check_first(first, context)?;

        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        let masked = check_second(second, opcode, context.role)?;

        let Some((len, len_end)) = payload_len(bytes, second & 0x7f)? else {
            return Ok(None);
        };
        if !opcode.is_control() {
            check_size(len, context)?;
        }

        if !masked {
            return Ok(Some(Self { fin, opcode, len, mask: [0; 4], header_len: len_end }));
        }
        let mask = bytes[len_end..].first_chunk();
        Ok(mask.map(|&mask| Self { fin, opcode, len, mask, header_len: len_end + 4 }))
    }
}

/// FIN, reserved bits, opcode (§5.2), and whether the frame may stand here (§5.4, §5.5).
fn check_first(first: u8, context: Context<'_>) -> Result<(bool, Opcode), Violation> {
    if first & 0x70 != 0 {
        return Err(Violation::protocol("a reserved bit is set"));
    }
    let Some(opcode) = Opcode::from_bits(first) else {
        return Err(Violation::protocol("a reserved opcode"));
    };
    let fin = first & 0x80 != 0;
    match (opcode, context.message) {
        (Opcode::Close | Opcode::Ping | Opcode::Pong, _) if !fin => {
            Err(Violation::protocol("a fragmented control frame"))
        }
        (Opcode::Continuation, None) => Err(Violation::protocol("a continuation frame without a message to continue")),
        (Opcode::Text | Opcode::Binary, Some(_)) => {
            Err(Violation::protocol("a new message before the last fragment of the one before"))
        }
        _ => Ok((fin, opcode)),
    }
}

/// Is the frame masked? It must be exactly if a client sent it (§5.1). Control frames are short (§5.5).
fn check_second(second: u8, opcode: Opcode, role: Role) -> Result<bool, Violation> {
    let masked = second & 0x80 != 0;
    match role {
        Role::Server if !masked => {
            return Err(Violation::protocol("a client's frame is not masked"));
        }
        Role::Client if masked => return Err(Violation::protocol("a server's frame is masked")),
        Role::Server | Role::Client => {}
    }
    if opcode.is_control() && usize::from(second & 0x7f) > CONTROL_LEN_MAX {
        return Err(Violation::protocol("a control frame longer than 125 bytes"));
    }
    Ok(masked)
}

/// The payload's length, which must use the shortest form (§5.2), and where in the header it ends.
fn payload_len(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, Violation> {
    const NOT_MINIMAL: Violation = Violation::protocol("a length not in its shortest form");
    let extended = &bytes[2..];
    match short {
        126 => {
            let Some(&len) = extended.first_chunk::<2>() else {
                return Ok(None);
            };
            let len = u64::from(u16::from_be_bytes(len));
            if len < 126 { Err(NOT_MINIMAL) } else { Ok(Some((len, 4))) }
        }
        127 => {
            let Some(&len) = extended.first_chunk::<8>() else {
                return Ok(None);
            };
            let len = u64::from_be_bytes(len);
            if len >> 63 != 0 {
                Err(Violation::protocol("a length with its highest bit set"))
            } else if len <= u64::from(u16::MAX) {
                Err(NOT_MINIMAL)
            } else {
                Ok(Some((len, 10)))
            }
        }
        _ => Ok(Some((u64::from(short), 2))),
    }
}

/// The limits (§10.4), judged before any of the payload is taken.
fn check_size(len: u64, context: Context<'_>) -> Result<(), Violation> {
    if len > context.limits.frame_bytes_max {
        return Err(Violation::too_big("the frame is larger than allowed"));
    }
    let before = context.message.map_or(0, |(_, len)| len);
    if before.saturating_add(len) > context.limits.message_bytes_max {
        return Err(Violation::too_big("the message is larger than allowed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::close_code::{PROTOCOL_ERROR, TOO_BIG};

    const LIMITS: FrameLimits = FrameLimits { frame_bytes_max: 70_000, message_bytes_max: 100_000 };

    fn context(role: Role, message: Option<(MessageKind, u64)>) -> Context<'static> {
        Context { role, limits: &LIMITS, message }
    }

    fn served(bytes: &[u8]) -> Result<Option<FrameHeader>, Violation> {
        FrameHeader::parse(bytes, context(Role::Server, None))
    }

    /// RFC 6455 §5.2: the three forms of the length.
    #[test]
    fn lengths() {
        let mask = [1, 2, 3, 4];
        let cases: [(&[u8], u64); 4] = [
            (&[0x82, 0x80], 0),
            (&[0x82, 0xfd], 125),
            (&[0x82, 0xfe, 0, 126], 126),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
        ];
        for (front, len) in cases {
            let bytes = [front, &mask].concat();
            for end in 0..bytes.len() {
                assert_eq!(served(&bytes[..end]), Ok(None), "{len} up to {end}");
            }
            let header_len = bytes.len();
            let expected = FrameHeader { fin: true, opcode: Opcode::Binary, len, mask, header_len };
            assert_eq!(served(&bytes), Ok(Some(expected)));
        }
    }

    type Case = (&'static str, Role, Option<(MessageKind, u64)>, &'static [u8]);

    /// RFC 6455 §5.1, §5.2, §5.4, §5.5: one case per rule, each refused at its last byte and not before.
    #[test]
    fn broken_rules() {
        let text = Some((MessageKind::Text, 0));
        let cases: [Case; 14] = [
            ("RSV1", Role::Server, None, &[0xc1]),
            ("RSV2", Role::Server, None, &[0xa1]),
            ("RSV3", Role::Server, None, &[0x91]),
            ("opcode 3", Role::Server, None, &[0x83]),
            ("opcode 15", Role::Server, None, &[0x8f]),
            ("ping without FIN", Role::Server, None, &[0x09]),
            ("continuation of nothing", Role::Server, None, &[0x80]),
            ("message in a message", Role::Server, text, &[0x81]),
            ("not masked", Role::Server, None, &[0x81, 0x05]),
            ("masked", Role::Client, None, &[0x81, 0x85]),
            ("long ping", Role::Server, None, &[0x89, 0xfe]),
            ("125 in 16 bits", Role::Server, None, &[0x81, 0xfe, 0, 125]),
            ("65535 in 64 bits", Role::Server, None, &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            ("high bit", Role::Server, None, &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (name, role, message, bytes) in cases {
            let context = context(role, message);
            let error = FrameHeader::parse(bytes, context).expect_err(name);
            assert_eq!(error.code, PROTOCOL_ERROR, "{name}");
            assert_eq!(FrameHeader::parse(&bytes[..bytes.len() - 1], context), Ok(None), "{name}");
        }
    }

    /// RFC 6455 §10.4: limits are judged on the announced length, over all fragments.
    #[test]
    fn sizes() {
        let frame = served(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x71]).expect_err("a large frame");
        assert_eq!(frame, Violation::too_big("the frame is larger than allowed"));
        let under_way = context(Role::Server, Some((MessageKind::Binary, 99_999)));
        assert_eq!(FrameHeader::parse(&[0x80, 0x82], under_way).map_err(|e| e.code), Err(TOO_BIG));
        assert_eq!(FrameHeader::parse(&[0x80, 0x81], under_way), Ok(None));
        // A ping between the fragments does not count.
        assert_eq!(FrameHeader::parse(&[0x89, 0x82], under_way), Ok(None));
    }
}

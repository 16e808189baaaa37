//! WebSocket frames (RFC 6455 §5), both directions; the types its parts share.
//!
//! The way in is [`Decoder`], the way out [`server_header`] and the `put_` functions. A server's frames
//! are not masked, so the same bytes serve every receiver. Not here: the handshake ([`crate::head`]), what
//! a message means, and the closing handshake's order of events, which are the connection's business.
//! Lengths are payload bytes. Decoding allocates nothing and copies only control payloads (at most 125 bytes).

pub mod close_code;
mod decode;
mod encode;
mod header;
mod mask;
mod utf8;

pub use close_code::CloseCode;
pub use decode::{Decoder, Item};
pub use encode::{HEADER_MAX, put_client_fragment, put_client_frame, put_close, put_frame, server_header};
pub use mask::unmask;

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const CONTROL_LEN_MAX: usize = 125;

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// Continues a fragmented message.
    Continuation = 0x0,
    /// Begins a text message.
    Text = 0x1,
    /// Begins a binary message.
    Binary = 0x2,
    /// Begins or answers the closing handshake.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or comes unasked.
    Pong = 0xa,
}

impl Opcode {
    /// The opcode in a frame's first byte; `None` for the reserved ones.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0x0f {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }

    /// Close, ping and pong: short, never fragmented, allowed between a message's fragments (§5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// What a data message carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageKind {
    /// Valid UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// How much a peer may send at once. Control frames have their own limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameLimits {
    /// The longest payload of one data frame, in bytes.
    pub frame_bytes_max: u64,
    /// The longest message over all its fragments, in bytes.
    pub message_bytes_max: u64,
}

/// Which end of the connection is reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Expects masked frames and refuses others (RFC 6455 §5.1).
    Server,
    /// Expects unmasked frames and refuses others.
    Client,
}

/// The payload of a control frame, copied out of the input.
#[derive(Clone, Copy)]
pub struct ControlPayload {
    len: u8,
    bytes: [u8; CONTROL_LEN_MAX],
}

impl ControlPayload {
    const EMPTY: Self = Self { len: 0, bytes: [0; CONTROL_LEN_MAX] };

    /// The payload.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Appends what fits and says how much that was.
    fn fill(&mut self, more: &[u8]) -> usize {
        let len = usize::from(self.len);
        let taken = more.len().min(CONTROL_LEN_MAX - len);
        self.bytes[len..len + taken].copy_from_slice(&more[..taken]);
        self.len += taken as u8;
        taken
    }

    /// The payload without its first `count` bytes.
    fn without_first(&self, count: usize) -> Self {
        let mut rest = Self::EMPTY;
        rest.fill(&self.as_slice()[count..]);
        rest
    }
}

impl PartialEq for ControlPayload {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for ControlPayload {}

impl std::fmt::Debug for ControlPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ControlPayload({})", self.as_slice().escape_ascii())
    }
}

/// A rule the peer broke. The connection is failed with this code (RFC 6455 §7.1.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// 1002, 1007 or 1009.
    pub code: CloseCode,
    /// What was wrong, short enough for a close frame.
    pub reason: &'static str,
}

impl Violation {
    const fn protocol(reason: &'static str) -> Self {
        Self { code: close_code::PROTOCOL_ERROR, reason }
    }

    const fn too_big(reason: &'static str) -> Self {
        Self { code: close_code::TOO_BIG, reason }
    }

    const BAD_TEXT: Self = Self { code: close_code::INVALID_PAYLOAD, reason: "a text message is not valid UTF-8" };

    const BAD_REASON: Self = Self { code: close_code::INVALID_PAYLOAD, reason: "a close reason is not valid UTF-8" };
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.reason, self.code)
    }
}

impl std::error::Error for Violation {}

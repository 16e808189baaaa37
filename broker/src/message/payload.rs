//! What a client published: its kind and its bytes.
//!
//! The bytes are stored behind room for one frame header, which is written when they come in: so the encoding that most
//! subscribers want costs nothing ([`Encoding::Raw`](crate::message::Encoding)), and everything else reads
//! [`Payload::bytes`]. One copy out of the receive buffer; none for a message that was gathered with that room. A short
//! payload is one allocation, together with its reference count and its charge; a long one is two.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol::frame::{HEADER_MAX, Opcode, put_frame, server_header};
use protocol::v1::PayloadKind;

use crate::capacity::budget::{Account, Held, allocated};
use crate::capacity::shared_bytes::{COPIED_MAX, copied, shared, shared_copy};
use crate::message::MESSAGE_BYTES;

/// See the file's head.
#[derive(Clone, Debug)]
pub struct Payload {
    kind: PayloadKind,
    header_len: u8,
    /// Bytes of the frame and of the [`Message`](crate::message::Message) that will carry it.
    weight: u32,
    /// The header, then the payload.
    frame: Bytes,
}

impl Payload {
    /// Frames a copy of `bytes`.
    #[must_use]
    pub fn copy_of(kind: PayloadKind, bytes: &[u8], account: &Arc<Account>) -> Self {
        if let Some(short) = Self::short(kind, bytes, account) {
            return short;
        }
        let mut frame = BytesMut::with_capacity(HEADER_MAX + bytes.len());
        put_frame(&mut frame, opcode(kind), bytes);
        let header_len = (frame.len() - bytes.len()) as u8;
        let capacity = frame.capacity();
        let weight = allocated(capacity) + MESSAGE_BYTES;
        Self::new(kind, header_len, shared(frame, capacity, MESSAGE_BYTES, account, Held::Messages), weight)
    }

    /// Frames a payload gathered in `room`, whose first [`HEADER_MAX`] bytes were left free for the header, and whose
    /// buffer is `capacity` bytes long. Copies nothing, unless a copy takes less than the buffer's owner would.
    #[must_use]
    pub fn in_place<T>(kind: PayloadKind, mut room: T, capacity: usize, account: &Arc<Account>) -> Self
    where
        T: AsRef<[u8]> + AsMut<[u8]> + Send + 'static,
    {
        if let Some(short) = Self::short(kind, &room.as_ref()[HEADER_MAX..], account) {
            return short;
        }
        let bytes = room.as_mut();
        let mut header = [0; HEADER_MAX];
        let len = server_header(opcode(kind), (bytes.len() - HEADER_MAX) as u64, &mut header);
        bytes[HEADER_MAX - len..HEADER_MAX].copy_from_slice(&header[..len]);
        let weight = allocated(capacity) + MESSAGE_BYTES;
        let whole = shared(room, capacity, MESSAGE_BYTES, account, Held::Messages);
        Self::new(kind, len as u8, whole.slice(HEADER_MAX - len..), weight)
    }

    /// The frame in one allocation with its owner, if it is short enough for that.
    fn short(kind: PayloadKind, bytes: &[u8], account: &Arc<Account>) -> Option<Self> {
        if HEADER_MAX + bytes.len() > COPIED_MAX {
            return None;
        }
        let mut header = [0; HEADER_MAX];
        let len = server_header(opcode(kind), bytes.len() as u64, &mut header);
        let frame = shared_copy(&header[..len], bytes, MESSAGE_BYTES, account, Held::Messages);
        let weight = copied(frame.len()) + MESSAGE_BYTES;
        Some(Self::new(kind, len as u8, frame, weight))
    }

    fn new(kind: PayloadKind, header_len: u8, frame: Bytes, weight: u64) -> Self {
        Self { kind, header_len, weight: u32::try_from(weight).unwrap_or(u32::MAX), frame }
    }

    /// The same payload for one more message: it shares the frame, and is charged for what that message takes.
    #[must_use]
    pub fn again(&self, account: &Arc<Account>) -> Self {
        let frame = shared(self.frame.clone(), 0, MESSAGE_BYTES, account, Held::Messages);
        Self { frame, ..*self }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> PayloadKind {
        self.kind
    }

    /// The payload itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.frame[usize::from(self.header_len)..]
    }

    /// The payload in one WebSocket frame.
    pub(super) fn raw_frame(&self) -> &Bytes {
        &self.frame
    }

    /// Bytes of memory that it and its message take.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight.into()
    }
}

fn opcode(kind: PayloadKind) -> Opcode {
    match kind {
        PayloadKind::Text | PayloadKind::Json => Opcode::Text,
        PayloadKind::Binary => Opcode::Binary,
    }
}

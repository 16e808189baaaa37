//! A published message: framed once, shared by reference by every shard, subscriber and send.
//!
//! The raw WebSocket frame is built where the message comes in ([`Payload`]): one allocation, one copy
//! out of the receive buffer. The JSON envelope needs the offset, so the first shard with a
//! `ringyard.v1` subscriber builds it, and the others share it. After that nothing is copied per
//! subscriber.
//!
//! Each of these allocations is charged to the budget until the last reference to it is gone, wherever that is: in a
//! queue between shards, in a log, in a send under way.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use protocol::frame::{HEADER_MAX, Opcode, put_frame, server_header};
use protocol::v1::{PayloadKind, write_message};
use ring::Nanos;

use crate::capacity::budget::{self, Account, Held};
use crate::ids::Offset;

/// Which bytes a subscriber wants of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// The payload in one WebSocket frame (`/sub`, `/bus`).
    Raw,
    /// The `ringyard.v1` envelope in one WebSocket text frame (`/ws`).
    Json,
}

impl Encoding {
    /// How many there are.
    pub const COUNT: usize = 2;
}

/// A payload on its way to its topic's sequencer, already framed for raw subscribers.
#[derive(Clone, Debug)]
pub struct Payload {
    kind: PayloadKind,
    header_len: u8,
    /// Bytes charged for the frame and the [`Message`] that will carry it.
    charged: u32,
    frame: Bytes,
}

impl Payload {
    /// Frames a copy of `bytes`.
    #[must_use]
    pub fn copy_of(kind: PayloadKind, bytes: &[u8], account: &Arc<Account>) -> Self {
        let mut frame = BytesMut::with_capacity(HEADER_MAX + bytes.len());
        put_frame(&mut frame, opcode(kind), bytes);
        let header_len = (frame.len() - bytes.len()) as u8;
        let capacity = frame.capacity();
        Self::new(kind, header_len, budget::shared(frame, capacity, MESSAGE_BYTES, account, Held::Messages), capacity)
    }

    /// Frames a payload gathered in `room`, whose first [`HEADER_MAX`] bytes were left free for the header, and whose
    /// buffer is `capacity` bytes long. Copies nothing.
    #[must_use]
    pub fn in_place<T>(kind: PayloadKind, mut room: T, capacity: usize, account: &Arc<Account>) -> Self
    where
        T: AsRef<[u8]> + AsMut<[u8]> + Send + 'static,
    {
        let bytes = room.as_mut();
        let mut header = [0; HEADER_MAX];
        let len = server_header(opcode(kind), (bytes.len() - HEADER_MAX) as u64, &mut header);
        bytes[HEADER_MAX - len..HEADER_MAX].copy_from_slice(&header[..len]);
        let whole = budget::shared(room, capacity, MESSAGE_BYTES, account, Held::Messages);
        Self::new(kind, len as u8, whole.slice(HEADER_MAX - len..), capacity)
    }

    fn new(kind: PayloadKind, header_len: u8, frame: Bytes, capacity: usize) -> Self {
        let charged = u32::try_from(budget::allocated(capacity) + MESSAGE_BYTES).unwrap_or(u32::MAX);
        Self { kind, header_len, charged, frame }
    }

    /// The payload's length in bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.frame.len() - usize::from(self.header_len)
    }

    /// Bytes of memory that it and its message take.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.charged.into()
    }
}

fn opcode(kind: PayloadKind) -> Opcode {
    match kind {
        PayloadKind::Text | PayloadKind::Json => Opcode::Text,
        PayloadKind::Binary => Opcode::Binary,
    }
}

/// A message with its place in its topic.
#[derive(Debug)]
pub struct Message {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Which topic.
    pub topic_id: crate::ids::TopicId,
    /// Dense from 1.
    pub offset: Offset,
    /// When its sequencer gave it its place, on the drivers' clock.
    pub sequenced_at: Nanos,
    payload: Payload,
    json: OnceLock<Bytes>,
}

impl Message {
    /// Gives `payload` its place.
    #[must_use]
    pub fn new(topic: &crate::topics::registry::Topic, offset: Offset, payload: Payload, now: Nanos) -> Self {
        let topic_id = topic.id;
        Self { topic: Arc::clone(&topic.name), topic_id, offset, sequenced_at: now, payload, json: OnceLock::new() }
    }

    /// The frame to send, by reference. The JSON one is built on first use, by whoever comes first, and charged to
    /// `account`. It stays with the message if `keep`; without, when memory is short, it lasts as long as its send.
    #[must_use]
    pub fn frame(&self, encoding: Encoding, account: &Arc<Account>, keep: bool) -> Bytes {
        match (encoding, keep) {
            (Encoding::Raw, _) => self.payload.frame.clone(),
            (Encoding::Json, true) => self.json.get_or_init(|| self.envelope(account)).clone(),
            (Encoding::Json, false) => self.json.get().cloned().unwrap_or_else(|| self.envelope(account)),
        }
    }

    /// The frame for raw subscribers.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.payload.frame
    }

    /// Bytes of memory that the message takes, its JSON envelope not included.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.payload.weight()
    }

    fn envelope(&self, account: &Arc<Account>) -> Bytes {
        let payload = &self.payload.frame[usize::from(self.payload.header_len)..];
        // The header's length is known only once the envelope is: room for the longest is left in front.
        let mut room = BytesMut::with_capacity(HEADER_MAX + self.topic.len() + payload.len() + payload.len() / 2 + 96);
        room.put_bytes(0, HEADER_MAX);
        write_message(&mut room, &self.topic, self.offset, self.payload.kind, payload);
        let mut header = [0; HEADER_MAX];
        let len = server_header(Opcode::Text, (room.len() - HEADER_MAX) as u64, &mut header);
        room[HEADER_MAX - len..HEADER_MAX].copy_from_slice(&header[..len]);
        let capacity = room.capacity();
        budget::shared(room, capacity, 0, account, Held::Messages).slice(HEADER_MAX - len..)
    }
}

/// What a message takes besides its frames: itself, with the counts of its references.
const MESSAGE_BYTES: u64 = (size_of::<Message>() + 16).next_multiple_of(16) as u64;

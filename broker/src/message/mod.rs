//! A published message, whatever wire it came by and goes out by.
//!
//! | file | what |
//! | --- | --- |
//! | [`payload`] | what a client published: kind and bytes |
//! | [`encoding`] | the bytes that subscribers of one kind are sent |
//!
//! A [`Message`] is a payload with its place in its topic. Every shard, subscriber and send shares it by reference. Each
//! of its allocations is charged to the budget until the last reference to it is gone, wherever that is: in a queue
//! between shards, in a log, in a send under way.

pub mod encoding;
pub mod payload;

use std::sync::Arc;

use bytes::Bytes;
use ring::Nanos;

use crate::capacity::budget::Account;
use crate::ids::{Offset, TopicId};
pub use crate::message::encoding::Encoding;
use crate::message::encoding::Kept;
pub use crate::message::payload::Payload;

/// A message with its place in its topic.
#[derive(Debug)]
pub struct Message {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Which topic.
    pub topic_id: TopicId,
    /// Dense from 1.
    pub offset: Offset,
    /// When its sequencer gave it its place, on the drivers' clock.
    pub sequenced_at: Nanos,
    payload: Payload,
    encodings: Kept,
}

impl Message {
    /// Gives `payload` its place in a topic.
    #[must_use]
    pub fn new(topic: (TopicId, Arc<str>), offset: Offset, payload: Payload, now: Nanos) -> Self {
        let (topic_id, topic) = topic;
        Self { topic, topic_id, offset, sequenced_at: now, payload, encodings: Kept::default() }
    }

    /// What subscribers with this encoding are sent, by reference. Made for the first subscriber that needs it, and charged to `account`.
    /// It stays with the message if `keep`; without, when memory is short, it lasts as long as its send.
    #[must_use]
    pub fn frame(&self, encoding: Encoding, account: &Arc<Account>, keep: bool) -> Bytes {
        encoding.bytes(self, &self.encodings, account, keep)
    }

    /// What was published.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Bytes of memory that the message takes, encodings that were made of it not included.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.payload.weight()
    }
}

/// What a message takes besides its payload: itself, with the counts of its references.
const MESSAGE_BYTES: u64 = (size_of::<Message>() + 16).next_multiple_of(16) as u64;

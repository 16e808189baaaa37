//! A published message, whatever wire it came by and goes out by.
//!
//! | file | what |
//! | --- | --- |
//! | [`payload`] | what a client published: kind and bytes |
//! | [`options`] | what it asked for besides, and why a publish is refused |
//! | [`encoding`] | the bytes that subscribers of one kind are sent |
//!
//! A [`Message`] is a payload with its place in its topic. Every shard, subscriber and send shares it by reference. Each
//! of its allocations is charged to the budget until the last reference to it is gone, wherever that is: in a queue
//! between shards, in a log, in a send under way.

pub mod encoding;
pub mod options;
pub mod payload;

use std::sync::Arc;

use bytes::Bytes;
use protocol::v1::{MessageParts, PayloadKind};
use ring::Nanos;

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::ids::{Epoch, Offset, TopicId};
pub use crate::message::encoding::Encoding;
use crate::message::encoding::Kept;
use crate::message::options::PublishOptions;
pub use crate::message::payload::Payload;

/// A message with its place in its topic.
#[derive(Debug)]
pub struct Message {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Which topic.
    pub topic_id: TopicId,
    /// Dense from 1; 0: it marks where an epoch begins ([`Message::begins`]).
    pub offset: Offset,
    /// When its sequencer gave it its place, on the drivers' clock.
    pub sequenced_at: Nanos,
    payload: Payload,
    encodings: Kept,
    role: Role,
    /// The topic's epoch, of 56 bits ([`Epoch::first`]): where `role` leaves room.
    epoch: [u8; 7],
    /// What only some messages have.
    extra: Option<Box<Extra>>,
}

/// What a message is to its topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// One of its messages.
    Published,
    /// The same; it removes the entry of its key, or the retained message.
    Removal,
    /// It stands for all messages up to its offset.
    Snapshot,
    /// It was not published: all messages before it are forgotten, and those behind it are of another epoch.
    Reset,
}

/// What a message has beside its payload.
#[derive(Debug)]
struct Extra {
    key: Option<Box<str>>,
    /// When newcomers are no longer given it.
    expires_at: Option<Nanos>,
    /// When it was published, in milliseconds since 1970, if its topic's rule asks for that.
    time_ms: Option<u64>,
    charge: Charge,
}

impl Extra {
    fn new(account: &Arc<Account>) -> Box<Self> {
        let charge = Charge::new(account, Held::Messages, EXTRA_BYTES);
        Box::new(Self { key: None, expires_at: None, time_ms: None, charge })
    }
}

impl Message {
    /// Gives `payload` its place in a topic.
    #[must_use]
    pub fn new(topic: (TopicId, Arc<str>), offset: Offset, payload: Payload, now: Nanos) -> Self {
        let ((topic_id, topic), role) = (topic, Role::Published);
        let (encodings, epoch) = (Kept::default(), [0; 7]);
        Self { topic, topic_id, offset, sequenced_at: now, payload, encodings, role, epoch, extra: None }
    }

    /// The same in this epoch of its topic.
    #[must_use]
    pub fn in_epoch(mut self, epoch: Epoch) -> Self {
        let [epoch @ .., high] = epoch.0.to_le_bytes();
        debug_assert_eq!(high, 0, "an epoch has 56 bits");
        self.epoch = epoch;
        self
    }

    /// The epoch of its topic that it belongs to, or begins.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        let [a, b, c, d, e, f, g] = self.epoch;
        Epoch(u64::from_le_bytes([a, b, c, d, e, f, g, 0]))
    }

    /// Marks, between the messages of a topic, where an epoch begins because those before it were purged.
    #[must_use]
    pub fn reset(topic: (TopicId, Arc<str>), epoch: Epoch, now: Nanos, account: &Arc<Account>) -> Self {
        let nothing = Payload::copy_of(PayloadKind::Text, b"", account);
        Self { role: Role::Reset, ..Self::new(topic, Offset::default(), nothing, now) }.in_epoch(epoch)
    }

    /// The same with what stays with it of the options that it was published with, charged to `account`. Takes their key.
    #[must_use]
    pub fn with_options(mut self, options: &mut PublishOptions, account: &Arc<Account>) -> Self {
        if options.removed {
            self.role = Role::Removal;
        }
        let bytes = Self::extra_bytes(Some(options), false);
        if bytes > 0 {
            let lives_ns = options.ttl_ms.map(|ttl_ms| ttl_ms.saturating_mul(1_000_000));
            let expires_at = lives_ns.map(|ns| self.sequenced_at.saturating_add(ns));
            let extra = self.extra(account);
            (extra.key, extra.expires_at) = (options.key.take(), expires_at);
            extra.charge.resize(bytes);
        }
        self
    }

    /// Bytes of memory that a message with these options takes beside its payload.
    #[must_use]
    pub fn extra_bytes(options: Option<&PublishOptions>, is_stamped: bool) -> u64 {
        let key = options.and_then(|options| options.key.as_ref());
        let has_ttl = options.is_some_and(|options| options.ttl_ms.is_some());
        if key.is_none() && !has_ttl && !is_stamped {
            return 0;
        }
        EXTRA_BYTES + key.map_or(0, |key| allocated(key.len()))
    }

    /// The same with the time of its publication, in milliseconds since 1970.
    #[must_use]
    pub fn stamped(mut self, time_ms: u64, account: &Arc<Account>) -> Self {
        self.extra(account).time_ms = Some(time_ms);
        self
    }

    /// The same as a snapshot of its topic up to its offset.
    #[must_use]
    pub fn into_snapshot(self) -> Self {
        Self { role: Role::Snapshot, ..self }
    }

    fn extra(&mut self, account: &Arc<Account>) -> &mut Extra {
        self.extra.get_or_insert_with(|| Extra::new(account))
    }

    /// Its key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.extra.as_ref()?.key.as_deref()
    }

    /// Whether it removes the entry of its key, or the retained message.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        self.role == Role::Removal
    }

    /// Whether it stands for all messages up to its offset.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.role == Role::Snapshot
    }

    /// The epoch that begins with it, if it marks a beginning. Otherwise it is a message.
    #[must_use]
    pub fn begins(&self) -> Option<Epoch> {
        match self.role {
            Role::Reset => Some(self.epoch()),
            Role::Published | Role::Removal | Role::Snapshot => None,
        }
    }

    /// When it was published, in milliseconds since 1970, if its topic's rule asks for that.
    #[must_use]
    pub fn time_ms(&self) -> Option<u64> {
        self.extra.as_ref()?.time_ms
    }

    /// When newcomers are no longer given it; `None`: that is not limited.
    #[must_use]
    pub fn expires_at(&self) -> Option<Nanos> {
        self.extra.as_ref()?.expires_at
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

    /// What `ringyard.v1` says of it; `state`: as part of its topic's state.
    #[must_use]
    pub fn parts(&self, state: bool) -> MessageParts<'_> {
        MessageParts {
            key: self.key(),
            removed: self.is_removal(),
            state,
            up_to: self.is_snapshot().then_some(self.offset.0),
            time_ms: self.time_ms(),
            ..MessageParts::plain(&self.topic, self.offset.0, self.payload.kind(), self.payload.bytes())
        }
    }

    /// Bytes of memory that the message takes, encodings that were made of it not included.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.payload.weight() + self.extra.as_ref().map_or(0, |extra| extra.charge.bytes())
    }
}

/// What a message takes besides its payload: itself, with the counts of its references.
const MESSAGE_BYTES: u64 = (size_of::<Message>() + 16).next_multiple_of(16) as u64;
/// What it takes more if it has anything beside its payload.
const EXTRA_BYTES: u64 = size_of::<Extra>().next_multiple_of(16) as u64;
const _: () = assert!(MESSAGE_BYTES <= 128 && EXTRA_BYTES <= 80, "there may be millions: mind the size classes");

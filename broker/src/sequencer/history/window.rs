//! The newest messages of a topic, bounded by number, bytes and age.
//!
//! Invariants: offsets are dense; `bytes` is what the messages weigh, with their entries here.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;
use std::sync::Arc;

use ring::Nanos;

use crate::ids::Offset;
use crate::message::Message;

/// What a message weighs on top of itself: its entry in a list that has room for up to twice as many.
pub(in crate::sequencer) const ENTRY_BYTES: u64 = 2 * size_of::<Arc<Message>>() as u64;

/// How much a window keeps.
#[derive(Clone, Copy, Debug)]
pub(in crate::sequencer) struct Bounds {
    pub(in crate::sequencer) messages_max: u32,
    pub(in crate::sequencer) bytes_max: u64,
    /// 0: however old.
    pub(in crate::sequencer) ttl: Nanos,
}

/// See the file's head.
#[derive(Default, Debug)]
pub(in crate::sequencer) struct Window {
    messages: VecDeque<Arc<Message>>,
    bytes: u64,
}

impl Window {
    /// Adds the topic's newest message, and forgets what is too much or too old.
    pub(super) fn push(&mut self, message: Arc<Message>, bounds: Bounds, now: Nanos) {
        debug_assert!(self.messages.back().is_none_or(|last| last.offset + 1 == message.offset), "a gap in a window");
        self.bytes += message.weight() + ENTRY_BYTES;
        self.messages.push_back(message);
        while self.messages.len() > bounds.messages_max as usize || self.bytes > bounds.bytes_max {
            self.pop();
        }
        self.expire(bounds.ttl, now);
    }

    /// Forgets what is older than `ttl`.
    pub(super) fn expire(&mut self, ttl: Nanos, now: Nanos) {
        if ttl == 0 {
            return;
        }
        while self.messages.front().is_some_and(|oldest| oldest.sequenced_at.saturating_add(ttl) <= now) {
            self.pop();
        }
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    /// Forgets everything up to and with `offset`.
    pub(super) fn drop_up_to(&mut self, offset: Offset) {
        while self.messages.front().is_some_and(|oldest| oldest.offset <= offset) {
            self.pop();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.messages.pop_front() {
            self.bytes -= oldest.weight() + ENTRY_BYTES;
        }
    }

    /// The offset of its oldest message.
    pub(super) fn first(&self) -> Option<Offset> {
        self.messages.front().map(|oldest| oldest.offset)
    }

    /// The messages from `offset` on, oldest first.
    pub(super) fn from(&self, offset: Offset) -> Iter<'_, Arc<Message>> {
        let skip = match self.first() {
            Some(first) if offset > first => usize::try_from(offset - first).unwrap_or(usize::MAX),
            _ => 0,
        };
        self.messages.range(skip.min(self.messages.len())..)
    }

    /// The newest `count` messages, but no more than weigh `bytes_max`, oldest first.
    pub(super) fn newest(&self, count: usize, bytes_max: u64) -> Iter<'_, Arc<Message>> {
        let mut bytes = 0;
        let fits = self.messages.iter().rev().take(count).take_while(|message| {
            bytes += message.weight();
            bytes <= bytes_max
        });
        let skip = self.messages.len() - fits.count();
        self.messages.range(skip..)
    }

    /// When its oldest message was sequenced.
    pub(super) fn oldest_at(&self) -> Option<Nanos> {
        self.messages.front().map(|oldest| oldest.sequenced_at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What of that is not part of messages.
    pub(super) fn overhead_bytes(&self) -> u64 {
        self.messages.len() as u64 * ENTRY_BYTES
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Every message, oldest first.
    pub(super) fn iter(&self) -> Iter<'_, Arc<Message>> {
        self.messages.iter()
    }
}

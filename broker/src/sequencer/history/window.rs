//! The newest messages of a topic, bounded by number, bytes and age.
//!
//! A topic may have had one message: until its second one, that is all there is.
//!
//! Invariants: offsets are dense; `bytes` is what the messages weigh, with their entries here; `Many` has at least one.

use std::collections::VecDeque;
use std::iter::Chain;
use std::slice;
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

/// What a list takes besides its entries.
pub(super) const LIST_BYTES: u64 = size_of::<Many>().next_multiple_of(16) as u64;

/// See the file's head.
#[derive(Default, Debug)]
pub(in crate::sequencer) enum Window {
    #[default]
    Empty,
    One(Arc<Message>),
    Many(Box<Many>),
}

#[derive(Default, Debug)]
pub(in crate::sequencer) struct Many {
    messages: VecDeque<Arc<Message>>,
    bytes: u64,
}

/// Messages of a window, oldest first.
pub(super) type Iter<'w> = Chain<slice::Iter<'w, Arc<Message>>, slice::Iter<'w, Arc<Message>>>;

impl Many {
    fn push(&mut self, message: Arc<Message>) {
        self.bytes += weight_of(&message);
        self.messages.push_back(message);
    }
}

impl Window {
    /// Adds the topic's newest message, and forgets what is too much or too old.
    pub(super) fn push(&mut self, message: Arc<Message>, bounds: Bounds, now: Nanos) {
        debug_assert!(self.last().is_none_or(|last| last + 1 == message.offset), "a gap in a window");
        // First, so that a window of one message never makes a list.
        while !self.is_empty() && self.len() >= bounds.messages_max as usize {
            self.pop();
        }
        match self {
            Self::Empty => *self = Self::One(message),
            Self::One(first) => {
                let mut many = Box::new(Many::default());
                many.push(Arc::clone(first));
                many.push(message);
                *self = Self::Many(many);
            }
            Self::Many(many) => many.push(message),
        }
        while self.len() > bounds.messages_max as usize || self.bytes() > bounds.bytes_max {
            self.pop();
        }
        self.expire(bounds.ttl, now);
    }

    /// Forgets what is older than `ttl`.
    pub(super) fn expire(&mut self, ttl: Nanos, now: Nanos) {
        if ttl == 0 {
            return;
        }
        while self.oldest().is_some_and(|oldest| oldest.sequenced_at.saturating_add(ttl) <= now) {
            self.pop();
        }
    }

    /// Forgets everything up to and with `offset`.
    pub(super) fn drop_up_to(&mut self, offset: Offset) {
        while self.first().is_some_and(|first| first <= offset) {
            self.pop();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn pop(&mut self) {
        match self {
            Self::Many(many) if many.messages.len() > 1 => {
                if let Some(oldest) = many.messages.pop_front() {
                    many.bytes -= weight_of(&oldest);
                }
            }
            Self::Empty | Self::One(_) | Self::Many(_) => self.clear(),
        }
    }

    /// All but the oldest `skip`.
    fn behind(&self, skip: usize) -> Iter<'_> {
        let (front, back) = match self {
            Self::Empty => (&[][..], &[][..]),
            Self::One(message) => (slice::from_ref(message), &[][..]),
            Self::Many(many) => many.messages.as_slices(),
        };
        let in_back = skip.saturating_sub(front.len()).min(back.len());
        front[skip.min(front.len())..].iter().chain(&back[in_back..])
    }

    fn oldest(&self) -> Option<&Arc<Message>> {
        self.iter().next()
    }

    /// The offset of its oldest message.
    pub(super) fn first(&self) -> Option<Offset> {
        self.oldest().map(|oldest| oldest.offset)
    }

    /// The offset of its newest message.
    pub(super) fn last(&self) -> Option<Offset> {
        self.iter().next_back().map(|newest| newest.offset)
    }

    /// The messages from `offset` on, oldest first.
    pub(super) fn from(&self, offset: Offset) -> Iter<'_> {
        let skip = match self.first() {
            Some(first) if offset > first => usize::try_from(offset - first).unwrap_or(usize::MAX),
            _ => 0,
        };
        self.behind(skip)
    }

    /// The newest `count` messages, but no more than weigh `bytes_max`, oldest first.
    pub(super) fn newest(&self, count: usize, bytes_max: u64) -> Iter<'_> {
        let mut bytes = 0;
        let fits = self.iter().rev().take(count).take_while(|message| {
            bytes += message.weight();
            bytes <= bytes_max
        });
        self.behind(self.len() - fits.count())
    }

    /// When its oldest message was sequenced.
    pub(super) fn oldest_at(&self) -> Option<Nanos> {
        self.oldest().map(|oldest| oldest.sequenced_at)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Many(many) => many.messages.len(),
        }
    }

    /// What it takes besides its messages.
    pub(super) fn overhead_bytes(&self) -> u64 {
        let list = if let Self::Many(_) = self { LIST_BYTES } else { 0 };
        list + self.len() as u64 * ENTRY_BYTES
    }

    /// What its messages weigh, with their entries.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::One(message) => weight_of(message),
            Self::Many(many) => many.bytes,
        }
    }

    /// Every message, oldest first.
    pub(super) fn iter(&self) -> Iter<'_> {
        self.behind(0)
    }
}

fn weight_of(message: &Message) -> u64 {
    message.weight() + ENTRY_BYTES
}

//! The idempotency keys of a topic's last publishes, with the offsets that those got: so many, and not for long.
//!
//! Cost: a look-up per publish that has such a key; others cost nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ring::Nanos;

use crate::ids::Offset;
use crate::topics::keys::Keys;

/// Most keys that a topic remembers.
const KEYS_MAX: usize = 1000;
/// How long it remembers them.
const TTL: Nanos = 300_000_000_000;
/// What a key takes besides its text.
const ENTRY_BYTES: u64 = 96;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Recent {
    /// With the time of each publish.
    offsets: HashMap<Arc<str>, (Offset, Nanos), Keys>,
    /// Oldest first.
    order: VecDeque<(Nanos, Arc<str>)>,
    bytes: u64,
}

impl Recent {
    pub(super) fn new(keys: Keys) -> Self {
        Self { offsets: HashMap::with_hasher(keys), order: VecDeque::new(), bytes: 0 }
    }

    /// The offset of the publish with this key, if it is remembered.
    pub(super) fn find(&self, key: &str, now: Nanos) -> Option<Offset> {
        let &(offset, at) = self.offsets.get(key)?;
        (at + TTL > now).then_some(offset)
    }

    /// Remembers a publish.
    pub(super) fn add(&mut self, key: &str, offset: Offset, now: Nanos) {
        self.expire(now);
        if self.order.len() == KEYS_MAX {
            self.pop();
        }
        let key: Arc<str> = key.into();
        self.bytes += weight(&key);
        self.offsets.insert(Arc::clone(&key), (offset, now));
        self.order.push_back((now, key));
    }

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, now: Nanos) {
        while self.order.front().is_some_and(|&(at, _)| at + TTL <= now) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.bytes -= weight(&key);
            self.offsets.remove(&key);
        }
    }

    /// When something is too old next.
    pub(super) fn due(&self) -> Option<Nanos> {
        self.order.front().map(|&(at, _)| at + TTL)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn weight(key: &str) -> u64 {
    key.len() as u64 + ENTRY_BYTES
}

//! The newest message of each key of a topic, and which keys were removed not long ago.
//!
//! Entries are ordered by the offset of their message, so that what a subscriber has not seen is one range, and what is
//! oldest is first. A removed key stays for a while as the message that removed it: a subscriber that comes back learns of
//! it. Positions below `floor` cannot be recovered: the topic has forgotten a key, or a removal, after them.
//!
//! Invariants: `keys` has one entry per key, the newest; `by_offset` has the same messages; `bytes` is what they weigh.
//!
//! Cost per message: a look-up by key and two changes of an ordered map.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ring::Nanos;

use crate::ids::Offset;
use crate::message::Message;
use crate::topics::keys::Keys;

/// What an entry takes besides its message.
const ENTRY_BYTES: u64 = 96;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::sequencer) struct KeyBounds {
    pub(in crate::sequencer) keys_max: u32,
    pub(in crate::sequencer) bytes_max: u64,
    /// Age of a key without an update; 0: however old.
    pub(in crate::sequencer) ttl: Nanos,
    pub(in crate::sequencer) tombstone_ttl: Nanos,
}

/// See the file's head.
#[derive(Debug)]
pub(in crate::sequencer) struct KeyedState {
    keys: HashSet<ByKey, Keys>,
    by_offset: BTreeMap<Offset, Arc<Message>>,
    /// Removals among those.
    removed: BTreeSet<Offset>,
    /// Entries with a time to live of their own.
    expiring: BTreeSet<(Nanos, Offset)>,
    floor: Offset,
    bytes: u64,
    /// What newcomers are given, until something changes.
    list: Option<Arc<[Arc<Message>]>>,
}

/// A message in the table of keys.
#[derive(Debug)]
struct ByKey(Arc<Message>);

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        key_of(&self.0)
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        key_of(&self.0).hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        key_of(&self.0) == key_of(&other.0)
    }
}

impl Eq for ByKey {}

/// Without a key it is the entry of the empty key.
fn key_of(message: &Message) -> &str {
    message.key().unwrap_or_default()
}

impl KeyedState {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys: HashSet::with_hasher(keys),
            by_offset: BTreeMap::new(),
            removed: BTreeSet::new(),
            expiring: BTreeSet::new(),
            floor: Offset::default(),
            bytes: 0,
            list: None,
        }
    }

    /// The offset of a key's entry, unless it was removed.
    pub(super) fn offset_of(&self, key: &str, now: Nanos) -> Option<Offset> {
        let message = &self.keys.get(key)?.0;
        is_alive(message, now).then_some(message.offset)
    }

    /// Whether a message with this key and weight may be added.
    pub(super) fn admits(&self, key: &str, weight: u64, bounds: KeyBounds) -> Result<(), &'static str> {
        let known = self.keys.get(key).filter(|known| !known.0.is_removal());
        if known.is_none() && self.live() >= bounds.keys_max as usize {
            return Err("the topic has as many keys as its rule allows (history-messages)");
        }
        let replaced = self.keys.get(key).map_or(0, |known| weight_of(&known.0));
        if known.is_none() && self.bytes - replaced + weight + ENTRY_BYTES > bounds.bytes_max {
            return Err("the topic's keys take as many bytes as its rule allows (history-bytes)");
        }
        Ok(())
    }

    /// A message takes the place of its key's entry.
    pub(super) fn put(&mut self, message: &Arc<Message>) {
        if message.is_removal() && !self.keys.contains(key_of(message)) {
            return;
        }
        self.list = None;
        if let Some(ByKey(before)) = self.keys.take(key_of(message)) {
            self.forget(&before);
        }
        self.bytes += weight_of(message);
        if message.is_removal() {
            self.removed.insert(message.offset);
        } else if let Some(at) = message.expires_at() {
            self.expiring.insert((at, message.offset));
        }
        self.by_offset.insert(message.offset, Arc::clone(message));
        self.keys.insert(ByKey(Arc::clone(message)));
    }

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, bounds: KeyBounds, now: Nanos) {
        let is_due = |at: Nanos, ttl: Nanos| at.saturating_add(ttl) <= now;
        while let Some(offset) = self.removed.first().copied()
            && is_due(self.by_offset[&offset].sequenced_at, bounds.tombstone_ttl)
        {
            self.drop_entry(offset);
        }
        while let Some(&(at, offset)) = self.expiring.first()
            && at <= now
        {
            self.drop_entry(offset);
        }
        while bounds.ttl > 0
            && let Some((&offset, oldest)) = self.by_offset.iter().find(|(_, entry)| !entry.is_removal())
            && is_due(oldest.sequenced_at, bounds.ttl)
        {
            self.drop_entry(offset);
        }
    }

    fn drop_entry(&mut self, offset: Offset) {
        let Some(message) = self.by_offset.get(&offset).cloned() else { return };
        self.list = None;
        self.floor = self.floor.max(offset);
        self.keys.remove(key_of(&message));
        self.forget(&message);
    }

    fn forget(&mut self, message: &Message) {
        self.bytes -= weight_of(message);
        self.by_offset.remove(&message.offset);
        self.removed.remove(&message.offset);
        if let Some(at) = message.expires_at() {
            self.expiring.remove(&(at, message.offset));
        }
    }

    /// The newest message of each key, oldest first.
    pub(super) fn all(&mut self, now: Nanos) -> Arc<[Arc<Message>]> {
        if self.expiring.first().is_some_and(|&(at, _)| at <= now) {
            self.list = None;
        }
        let alive = self.by_offset.values().filter(|message| is_alive(message, now));
        Arc::clone(self.list.get_or_insert_with(|| alive.cloned().collect()))
    }

    /// What changed after `position`, removals included; `None`: that is not known any more.
    pub(super) fn since(&self, position: Offset, now: Nanos) -> Option<Arc<[Arc<Message>]>> {
        let after = self.by_offset.range(position + 1..).map(|(_, message)| message);
        let seen = after.filter(|message| message.is_removal() || is_alive(message, now));
        (position >= self.floor).then(|| seen.cloned().collect())
    }

    /// Keys that have a value.
    pub(super) fn live(&self) -> usize {
        self.keys.len() - self.removed.len()
    }

    /// Whether any key has a value.
    pub(super) fn has_live(&self) -> bool {
        self.live() > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When something here is too old next.
    pub(super) fn due(&self, bounds: KeyBounds) -> Option<Nanos> {
        let after = |offset: &Offset, ttl: Nanos| self.by_offset[offset].sequenced_at.saturating_add(ttl);
        let removal = self.removed.first().map(|offset| after(offset, bounds.tombstone_ttl));
        let own = self.expiring.first().map(|&(at, _)| at);
        let key =
            self.by_offset.first_key_value().filter(|_| bounds.ttl > 0).map(|(offset, _)| after(offset, bounds.ttl));
        [removal, own, key].into_iter().flatten().min()
    }

    /// Every message, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.by_offset.values()
    }

    /// See the file's head.
    pub(super) fn invariants(&self) -> Result<(), &'static str> {
        let weight: u64 = self.by_offset.values().map(|message| weight_of(message)).sum();
        let rules = [
            ("a key is an entry", self.keys.iter().all(|key| self.by_offset.contains_key(&key.0.offset))),
            ("an entry is a key", self.keys.len() == self.by_offset.len()),
            ("bytes are counted", self.bytes == weight),
            ("removals are entries", self.removed.iter().all(|offset| self.by_offset.contains_key(offset))),
        ];
        rules.iter().find(|(_, holds)| !holds).map_or(Ok(()), |(rule, _)| Err(rule))
    }
}

fn weight_of(message: &Message) -> u64 {
    message.weight() + ENTRY_BYTES
}

/// Whether newcomers are given it.
fn is_alive(message: &Message, now: Nanos) -> bool {
    !message.is_removal() && message.expires_at().is_none_or(|at| at > now)
}

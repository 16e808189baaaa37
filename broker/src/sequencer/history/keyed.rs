//! The newest message of each key of a topic, and which keys were removed not long ago.
//!
//! Entries are ordered by the offset of their message, so that what a subscriber has not seen is one range, and what is
//! oldest is first. A removed key stays for a while as the message that removed it: a subscriber that comes back learns of
//! it. Positions below `floor` cannot be recovered: the topic has forgotten a key, or a removal, after them. Removals go
//! first when there is no room: then more subscribers get the whole state, but none keeps an entry that was removed.
//!
//! Invariants: `keys` has one entry per key, the newest; `values` and `removals` have the same messages; `bytes` is what they
//! weigh, `removal_bytes` what the removals among them do.
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
pub(super) const ENTRY_BYTES: u64 = 96;

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
    values: BTreeMap<Offset, Arc<Message>>,
    removals: BTreeMap<Offset, Arc<Message>>,
    /// Entries with a time to live of their own.
    expiring: BTreeSet<(Nanos, Offset)>,
    floor: Offset,
    bytes: u64,
    removal_bytes: u64,
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
    /// Of a topic of which nothing is known up to `floor`.
    pub(super) fn new(keys: Keys, floor: Offset) -> Self {
        Self {
            keys: HashSet::with_hasher(keys),
            values: BTreeMap::new(),
            removals: BTreeMap::new(),
            expiring: BTreeSet::new(),
            floor,
            bytes: 0,
            removal_bytes: 0,
            list: None,
        }
    }

    /// The offset of a key's entry, unless it was removed.
    pub(super) fn offset_of(&self, key: &str, now: Nanos) -> Option<Offset> {
        let message = &self.keys.get(key)?.0;
        is_alive(message, now).then_some(message.offset)
    }

    /// Whether a message with this key and weight may be added. Removals make room for it.
    pub(super) fn admits(&self, key: &str, weight: u64, bounds: KeyBounds) -> Result<(), &'static str> {
        let known = self.value_of(key);
        if known.is_none() && self.live() >= bounds.keys_max as usize {
            return Err("the topic has as many keys as its rule allows (history-messages)");
        }
        let (replaced, added) = (known.map_or(0, weight_of), weight + ENTRY_BYTES);
        let values = self.bytes - self.removal_bytes;
        if added > replaced && values - replaced + added > bounds.bytes_max {
            return Err("the topic's keys take as many bytes as its rule allows (history-bytes)");
        }
        Ok(())
    }

    /// What the value of a key takes, if it has one.
    pub(super) fn bytes_of(&self, key: &str) -> Option<u64> {
        self.value_of(key).map(weight_of)
    }

    fn value_of(&self, key: &str) -> Option<&Message> {
        self.keys.get(key).map(|known| &*known.0).filter(|known| !known.is_removal())
    }

    /// A message takes the place of its key's entry.
    pub(super) fn put(&mut self, message: &Arc<Message>, bounds: KeyBounds) {
        if message.is_removal() && !self.keys.contains(key_of(message)) {
            // If a key was forgotten before, it may be this one, and subscribers may have it yet.
            if self.floor > Offset::default() {
                self.floor = message.offset;
            }
            return;
        }
        self.list = None;
        if let Some(ByKey(before)) = self.keys.take(key_of(message)) {
            self.forget(&before);
        }
        self.bytes += weight_of(message);
        if message.is_removal() {
            self.removal_bytes += weight_of(message);
            self.removals.insert(message.offset, Arc::clone(message));
        } else {
            self.values.insert(message.offset, Arc::clone(message));
            self.expiring.extend(message.expires_at().map(|at| (at, message.offset)));
        }
        self.keys.insert(ByKey(Arc::clone(message)));
        while self.bytes > bounds.bytes_max && self.drop_removal() {}
    }

    /// Forgets what is too old.
    pub(super) fn expire(&mut self, bounds: KeyBounds, now: Nanos) {
        let is_due = |entry: Option<(&Offset, &Arc<Message>)>, ttl: Nanos| {
            entry.is_some_and(|(_, message)| message.sequenced_at.saturating_add(ttl) <= now)
        };
        while is_due(self.removals.first_key_value(), bounds.tombstone_ttl) {
            self.drop_removal();
        }
        while let Some(&(at, offset)) = self.expiring.first()
            && at <= now
        {
            self.drop_entry(offset);
        }
        while bounds.ttl > 0
            && is_due(self.values.first_key_value(), bounds.ttl)
            && let Some((&oldest, _)) = self.values.first_key_value()
        {
            self.drop_entry(oldest);
        }
    }

    /// Forgets which keys were removed.
    pub(super) fn forget_removals(&mut self) {
        while self.drop_removal() {}
    }

    /// Forgets the oldest removal, if there is one.
    fn drop_removal(&mut self) -> bool {
        let Some((&oldest, _)) = self.removals.first_key_value() else { return false };
        self.drop_entry(oldest);
        true
    }

    fn drop_entry(&mut self, offset: Offset) {
        let Some(message) = self.values.get(&offset).or_else(|| self.removals.get(&offset)).cloned() else { return };
        self.list = None;
        self.floor = self.floor.max(offset);
        self.keys.remove(key_of(&message));
        self.forget(&message);
    }

    fn forget(&mut self, message: &Message) {
        self.bytes -= weight_of(message);
        if self.removals.remove(&message.offset).is_some() {
            self.removal_bytes -= weight_of(message);
        }
        self.values.remove(&message.offset);
        if let Some(at) = message.expires_at() {
            self.expiring.remove(&(at, message.offset));
        }
    }

    /// The newest message of each key, oldest first.
    pub(super) fn all(&mut self, now: Nanos) -> Arc<[Arc<Message>]> {
        if self.expiring.first().is_some_and(|&(at, _)| at <= now) {
            self.list = None;
        }
        let alive = self.values.values().filter(|message| is_alive(message, now));
        Arc::clone(self.list.get_or_insert_with(|| alive.cloned().collect()))
    }

    /// What changed after `position`, removals included; `None`: that is not known any more.
    pub(super) fn since(&self, position: Offset, now: Nanos) -> Option<Arc<[Arc<Message>]>> {
        if position < self.floor {
            return None;
        }
        let values = self.values.range(position + 1..).filter(|(_, message)| is_alive(message, now));
        let mut seen: Vec<_> = values.chain(self.removals.range(position + 1..)).map(|(_, message)| message).collect();
        seen.sort_unstable_by_key(|message| message.offset);
        Some(seen.into_iter().cloned().collect())
    }

    /// Keys that have a value.
    pub(super) fn live(&self) -> usize {
        self.values.len()
    }

    /// Whether any key has a value.
    pub(super) fn has_live(&self) -> bool {
        self.live() > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What of its bytes is not part of messages.
    pub(super) fn overhead_bytes(&self) -> u64 {
        self.keys.len() as u64 * ENTRY_BYTES
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When something here is too old next.
    pub(super) fn due(&self, bounds: KeyBounds) -> Option<Nanos> {
        let after = |entry: (&Offset, &Arc<Message>), ttl: Nanos| entry.1.sequenced_at.saturating_add(ttl);
        let removal = self.removals.first_key_value().map(|entry| after(entry, bounds.tombstone_ttl));
        let own = self.expiring.first().map(|&(at, _)| at);
        let key = self.values.first_key_value().filter(|_| bounds.ttl > 0).map(|entry| after(entry, bounds.ttl));
        [removal, own, key].into_iter().flatten().min()
    }

    /// Every message: keys with a value, oldest first, then removals.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.values.values().chain(self.removals.values())
    }

    /// See the file's head.
    pub(super) fn invariants(&self) -> Result<(), &'static str> {
        let weight =
            |messages: &BTreeMap<Offset, Arc<Message>>| messages.values().map(|message| weight_of(message)).sum();
        let (values, removals): (u64, u64) = (weight(&self.values), weight(&self.removals));
        let is_entry = |key: &ByKey| {
            let entries = if key.0.is_removal() { &self.removals } else { &self.values };
            entries.get(&key.0.offset).is_some_and(|entry| Arc::ptr_eq(entry, &key.0))
        };
        let rules = [
            ("a key is an entry", self.keys.iter().all(is_entry)),
            ("an entry is a key", self.keys.len() == self.values.len() + self.removals.len()),
            ("bytes are counted", self.bytes == values + removals && self.removal_bytes == removals),
            ("what expires is an entry", self.expiring.iter().all(|(_, offset)| self.values.contains_key(offset))),
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

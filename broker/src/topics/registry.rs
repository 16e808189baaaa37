//! The topic registry: one shared table of names, asked at subscribe and first publish only. The hot path carries
//! [`TopicRef`]s.
//!
//! Invariants: a name is in the table exactly while a [`TopicRef`] to it exists (`handles > 0`); ids are never reused.
//! The last handle's drop removes the name, under the entry's lock, so that nobody can take a new handle meanwhile.
//!
//! A name is charged ([`name_bytes`]) while it is in the table. The table is keyed ([`Keys`]): clients choose names, and
//! must not choose where in the table they fall. At [`Registry::is_pressed`] sequencers begin to forget topics that
//! nobody has used for long, so that new names find room.

mod topic;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::Entry;
use protocol::topic::{COUNT, LEASE, PRESENCE};

use crate::capacity::budget::{Account, Held};
use crate::ids::{ShardId, TopicId};
use crate::topics::keys::Keys;
pub use crate::topics::registry::topic::{Congestion, Publisher, Topic, TopicRef, name_bytes};
use crate::topics::registry::topic::{Named, Shared, Table};
use crate::topics::rules::{Kept, SharedRules};

/// How names of topics begin that say something of another topic, whose name follows.
const OF_TOPICS: [&str; 3] = [PRESENCE, COUNT, LEASE];

/// The table of names. Shared by all threads.
#[derive(Debug)]
pub struct Registry {
    table: Arc<Table>,
    next_id: AtomicU64,
    /// For everything but the places of topics.
    keys: Keys,
    /// Decides which shard sequences a topic.
    places: Keys,
    shared: Arc<Shared>,
    bytes_max: u64,
    rules: Arc<SharedRules>,
}

impl Registry {
    /// A table for `shards` shards (at least 1) without a bound. `seed` decides which shard sequences a topic, and how
    /// names are hashed: where clients are not to be trusted, it must be random.
    #[must_use]
    pub fn new(shards: u16, seed: u64) -> Self {
        assert!(shards > 0, "a broker has at least one shard");
        let keys = Keys::from_seed(seed);
        let table = Table::new(keys);
        let shared = Shared { account: Arc::default(), shards, table: Arc::downgrade(&table) };
        Self {
            table,
            next_id: AtomicU64::new(1),
            keys,
            places: Keys::from_seed(seed ^ 0x0070_6c61_6365_7321),
            shared: Arc::new(shared),
            bytes_max: u64::MAX,
            rules: Arc::default(),
        }
    }

    /// The same with rules for its topics.
    #[must_use]
    pub fn ruled_by(self, rules: Arc<SharedRules>) -> Self {
        Self { rules, ..self }
    }

    /// The rules of its topics.
    #[must_use]
    pub fn rules(&self) -> &Arc<SharedRules> {
        &self.rules
    }

    /// Whether any topic has state.
    #[must_use]
    pub fn has_stateful(&self) -> bool {
        self.table.stateful.load(Ordering::Acquire) > 0
    }

    /// The same, empty, with its names charged to `account`: `bytes_max` at most.
    #[must_use]
    pub fn charging(self, account: Arc<Account>, bytes_max: u64) -> Self {
        let table = Arc::downgrade(&self.table);
        let shared = Arc::new(Shared { account, shards: self.shared.shards, table });
        Self { shared, bytes_max, ..self }
    }

    /// How text of clients is to be hashed.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys
    }

    /// The handle for `name`, which must have been checked; registers it when it is new.
    #[must_use]
    pub fn resolve(&self, name: &str) -> TopicRef {
        if let Some(found) = self.find(name) {
            return found;
        }
        let topic = self.topic_of(name);
        match self.table.names.entry(Named(Arc::clone(&topic))) {
            // Somebody was faster.
            Entry::Occupied(known) => TopicRef::new(&known.key().0),
            Entry::Vacant(place) => {
                // It is locked until it has a handle.
                let _locked = place.insert(());
                self.table.len.fetch_add(1, Ordering::Relaxed);
                TopicRef::new(&topic)
            }
        }
    }

    fn topic_of(&self, name: &str) -> Arc<Topic> {
        let id = TopicId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let is_filter = protocol::topic::is_wildcard(name);
        let kept = if is_filter { Kept::NOTHING } else { self.rules.kept_of(name) };
        Topic::new(id, name.into(), self.sequencer_of(name), kept, &self.shared)
    }

    /// The handle for `name`, if it is registered.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TopicRef> {
        self.table.names.get(name).map(|found| TopicRef::new(&found.key().0))
    }

    /// Whether `name` is registered.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.table.names.contains_key(name)
    }

    /// How many subscriptions to this very name are in force; 0 if it is not registered.
    #[must_use]
    pub fn subscriptions_to(&self, name: &str) -> u32 {
        self.table.names.get(name).map_or(0, |found| found.key().0.subscriptions())
    }

    /// Looks at every name, in no order. Linear in names; a part of the table cannot change while it is looked at, so `visit`
    /// should be short and not ask the registry. Not for shards.
    pub fn each_name(&self, mut visit: impl FnMut(&Topic)) {
        self.table.names.iter().for_each(|entry| visit(&entry.key().0));
    }

    /// Whether `name` is registered, or there is room for one more among `topics_max` and within the names' bytes.
    /// Several threads that ask at once may find the last place each: the bound is overrun by their number at most.
    #[must_use]
    pub fn admits(&self, name: &str, topics_max: usize) -> bool {
        self.contains(name) || (self.len() < topics_max && self.has_bytes_for(name))
    }

    /// Whether the names' bytes have room for one more.
    #[must_use]
    pub fn has_bytes_for(&self, name: &str) -> bool {
        self.shared.account.held(Held::Names).saturating_add(name_bytes(name, self.shared.shards)) <= self.bytes_max
    }

    /// Whether the table, or the names' bytes, are fuller than fifteen sixteenths: time to forget what may be forgotten.
    #[must_use]
    pub fn is_pressed(&self, topics_max: usize) -> bool {
        self.len() >= topics_max - (topics_max / 16).max(1).min(topics_max)
            || self.shared.account.held(Held::Names) >= self.bytes_max - self.bytes_max / 16
    }

    /// How many names are registered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len.load(Ordering::Relaxed)
    }

    /// Whether no name is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the broker says of a topic has the topic's sequencer.
    fn sequencer_of(&self, name: &str) -> ShardId {
        let name = OF_TOPICS.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        let spread = (u128::from(self.places.hash_text(name)) * u128::from(self.shared.shards)) >> 64;
        ShardId(u16::try_from(spread).expect("below the number of shards"))
    }
}

//! The topic registry: one shared name table, asked at subscribe and first publish only. The hot path
//! carries [`TopicRef`]s.
//!
//! Invariant: a name is in the table exactly while somebody holds its [`TopicRef`]; ids are never reused.
//! Whoever gives up a reference gives it to [`Registry::release`], which removes the entry when it was
//! the last. The removal happens under the entry's lock, so nobody can take a reference meanwhile.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dashmap::{DashMap, Entry};
use rustc_hash::FxSeededState;

/// A shard's number, dense from 0.
pub type ShardId = u16;

/// Identifies a topic or filter for the life of the process; never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicId(pub u64);

/// A name in the registry: a topic, or a filter with wildcards.
#[derive(Debug)]
pub struct Topic {
    /// Never reused.
    pub id: TopicId,
    /// Checked by [`protocol::topic::check_filter`]. Shared with messages, which may outlive the entry.
    pub name: Arc<str>,
    /// The shard that sequences it. Without meaning for a filter with wildcards.
    pub home: ShardId,
    /// Whether it has wildcards.
    pub wildcard: bool,
    /// How many logs, of all shards, hold so much of it that its publishers have to wait.
    congested: AtomicU32,
}

impl Topic {
    /// Whether publishers of this topic have to wait. Any thread may ask, at the cost of a load.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.congested.load(Ordering::Relaxed) > 0
    }

    /// A log is congested by this topic's messages, until [`Topic::relieve`].
    pub(crate) fn congest(&self) {
        self.congested.fetch_add(1, Ordering::Relaxed);
    }

    /// A log is no longer congested by them.
    pub(crate) fn relieve(&self) {
        let before = self.congested.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a topic is relieved as often as it was congested");
    }
}

/// A shared reference to a registered name.
pub type TopicRef = Arc<Topic>;

/// The name table. Shared by all threads.
#[derive(Debug)]
pub struct Registry {
    names: DashMap<Arc<str>, TopicRef>,
    next_id: AtomicU64,
    shards: ShardId,
    seed: u64,
}

impl Registry {
    /// A table for `shards` shards (at least 1); `seed` decides which shard is whose home.
    #[must_use]
    pub fn new(shards: ShardId, seed: u64) -> Self {
        assert!(shards > 0, "a broker has at least one shard");
        Self { names: DashMap::new(), next_id: AtomicU64::new(1), shards, seed }
    }

    /// The reference for `name`, which must have been checked; registers it when it is new.
    #[must_use]
    pub fn resolve(&self, name: &str) -> TopicRef {
        if let Some(found) = self.names.get(name) {
            return Arc::clone(&found);
        }
        let name: Arc<str> = name.into();
        let entry = self.names.entry(Arc::clone(&name)).or_insert_with(|| {
            let id = TopicId(self.next_id.fetch_add(1, Ordering::Relaxed));
            let wildcard = protocol::topic::is_wildcard(&name);
            let home = self.home_of(&name);
            Arc::new(Topic { id, name, home, wildcard, congested: AtomicU32::new(0) })
        });
        Arc::clone(&entry)
    }

    /// Whether `name` is registered, or there is room for one more among `topics_max`. Several threads that
    /// ask at once may find the last place each: the bound is overrun by their number at most.
    #[must_use]
    pub fn admits(&self, name: &str, topics_max: usize) -> bool {
        self.names.contains_key(name) || self.names.len() < topics_max
    }

    /// Gives a reference back; forgets the name if it was the last one.
    ///
    /// A plain drop is right only where another holder is known to release later.
    pub fn release(&self, topic: TopicRef) {
        if let Entry::Occupied(held) = self.names.entry(topic.name.clone()) {
            // Dropped under the entry's lock: of several that release at once, the last sees one.
            drop(topic);
            if Arc::strong_count(held.get()) == 1 {
                held.remove();
            }
        }
    }

    /// How many names are registered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn home_of(&self, name: &str) -> ShardId {
        let mut hasher = FxSeededState::with_seed(self.seed as usize).build_hasher();
        hasher.write(name.as_bytes());
        // The product's high half: the low bits of a multiplicative hash are weak.
        let spread = (u128::from(hasher.finish()) * u128::from(self.shards)) >> 64;
        ShardId::try_from(spread).expect("below the number of shards")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_admits_only_the_names_it_has() {
        let registry = Registry::new(1, 1);
        let first = registry.resolve("a");
        assert!(registry.admits("b", 2));
        let _second = registry.resolve("b");
        assert!(registry.admits("a", 2) && !registry.admits("c", 2));
        registry.release(first);
        assert!(registry.admits("c", 2));
    }
}

//! The topic registry: one shared name table, asked at subscribe and first publish only. The hot path
//! carries [`TopicRef`]s.
//!
//! Invariant: a name is in the table exactly while somebody holds its [`TopicRef`]; ids are never reused.
//! Whoever gives up a reference gives it to [`Registry::release`], which removes the entry when it was
//! the last. The removal happens under the entry's lock, so nobody can take a reference meanwhile.
//!
//! A name is charged ([`name_bytes`]) for as long as anybody holds it. The table is keyed ([`Keys`]): clients choose
//! names, and must not choose where in the table they fall. At [`Registry::is_pressed`] sequencers begin to forget
//! topics that nobody has used for long, so that new names find room.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use dashmap::{DashMap, Entry};

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::ids::{ShardId, TopicId};
use crate::topics::filters::filter_bytes;
use crate::topics::keys::Keys;

/// A name in the registry: a topic, or a filter with wildcards.
#[derive(Debug)]
pub struct Topic {
    /// Never reused.
    pub id: TopicId,
    /// Checked by [`protocol::topic::check_filter`]. Shared with messages, which may outlive the entry.
    pub name: Arc<str>,
    /// The shard that sequences it. Without meaning for a filter with wildcards.
    pub sequencer: ShardId,
    /// Whether it has wildcards.
    pub wildcard: bool,
    /// How many logs, of all shards, hold so much of it that its publishers have to wait.
    congested: AtomicU32,
    /// Connections for whose whole life this is the topic that they publish to.
    publishers: AtomicU32,
    /// What it takes, here and where it is used.
    _charge: Charge,
}

impl Topic {
    /// Whether publishers of this topic have to wait. Any thread may ask, at the cost of a load.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.congested.load(Ordering::Relaxed) > 0
    }

    /// Whether a connection (`/pub`, `/bus`) is there to publish to this topic. Any thread may ask.
    #[must_use]
    pub fn has_publisher(&self) -> bool {
        self.publishers.load(Ordering::Relaxed) > 0
    }

    /// Such a connection came.
    pub(crate) fn publisher_came(&self) {
        self.publishers.fetch_add(1, Ordering::Relaxed);
    }

    /// It is gone.
    pub(crate) fn publisher_left(&self) {
        let before = self.publishers.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "publishers leave as often as they came");
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

/// What one name takes besides the text of a filter's levels, in bytes: the table's entry, the sequencer's record with
/// its place in the order of forgetting, and what a shard remembers of the filters that match it. Tables count twice, as
/// they are after they grew.
const ENTRY_BYTES: u64 = 2 * 25 + 2 * 112 + 2 * 16 + 2 * 40 + 48;

/// What a name is charged, in bytes, in a broker of so many shards: a filter with wildcards is kept by the sequencer of
/// every shard, and by the shards that subscribe.
#[must_use]
pub fn name_bytes(name: &str, shards: ShardId) -> u64 {
    const COUNTS_BYTES: usize = 2 * size_of::<usize>();
    let name_itself = allocated(COUNTS_BYTES + name.len()) + allocated(COUNTS_BYTES + size_of::<Topic>());
    let filter = if protocol::topic::is_wildcard(name) { filter_bytes(name) * (u64::from(shards) + 1) } else { 0 };
    ENTRY_BYTES + name_itself + filter
}

/// The name table. Shared by all threads.
#[derive(Debug)]
pub struct Registry {
    names: DashMap<Arc<str>, TopicRef, Keys>,
    len: AtomicUsize,
    next_id: AtomicU64,
    shards: ShardId,
    /// For everything but the places of topics.
    keys: Keys,
    /// Decides which shard sequences a topic.
    places: Keys,
    account: Arc<Account>,
    bytes_max: u64,
}

impl Registry {
    /// A table for `shards` shards (at least 1) without a bound. `seed` decides which shard sequences a topic, and how
    /// names are hashed: where clients are not to be trusted, it must be random.
    #[must_use]
    pub fn new(shards: ShardId, seed: u64) -> Self {
        assert!(shards > 0, "a broker has at least one shard");
        let keys = Keys::from_seed(seed);
        Self {
            names: DashMap::with_hasher(keys),
            len: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            shards,
            keys,
            places: Keys::from_seed(seed ^ 0x0070_6c61_6365_7321),
            account: Arc::default(),
            bytes_max: u64::MAX,
        }
    }

    /// The same, empty, with its names charged to `account`: `bytes_max` at most.
    #[must_use]
    pub fn charging(self, account: Arc<Account>, bytes_max: u64) -> Self {
        Self { account, bytes_max, ..self }
    }

    /// How text of clients is to be hashed.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys
    }

    /// The reference for `name`, which must have been checked; registers it when it is new.
    #[must_use]
    pub fn resolve(&self, name: &str) -> TopicRef {
        if let Some(found) = self.names.get(name) {
            return Arc::clone(&found);
        }
        let name: Arc<str> = name.into();
        let entry = self.names.entry(Arc::clone(&name)).or_insert_with(|| {
            self.len.fetch_add(1, Ordering::Relaxed);
            let id = TopicId(self.next_id.fetch_add(1, Ordering::Relaxed));
            let wildcard = protocol::topic::is_wildcard(&name);
            let sequencer = self.home_of(&name);
            let charge = Charge::new(&self.account, Held::Names, name_bytes(&name, self.shards));
            Arc::new(Topic {
                id,
                name,
                sequencer,
                wildcard,
                congested: AtomicU32::new(0),
                publishers: AtomicU32::new(0),
                _charge: charge,
            })
        });
        Arc::clone(&entry)
    }

    /// Whether `name` is registered.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
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
        self.account.held(Held::Names).saturating_add(name_bytes(name, self.shards)) <= self.bytes_max
    }

    /// Whether the table, or the names' bytes, are fuller than fifteen sixteenths: time to forget what may be forgotten.
    #[must_use]
    pub fn is_pressed(&self, topics_max: usize) -> bool {
        self.len() >= topics_max - (topics_max / 16).max(1).min(topics_max)
            || self.account.held(Held::Names) >= self.bytes_max - self.bytes_max / 16
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
                self.len.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// How many names are registered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether no name is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn home_of(&self, name: &str) -> ShardId {
        let spread = (u128::from(self.places.hash_text(name)) * u128::from(self.shards)) >> 64;
        ShardId::try_from(spread).expect("below the number of shards")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::budget::Budget;

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

    #[test]
    fn a_name_is_charged_while_anybody_holds_it() {
        let budget = Budget::new(1, 1 << 20);
        let account = Arc::clone(budget.of_plane());
        let registry = Registry::new(1, 1).charging(account, name_bytes("a", 1) + name_bytes("b/+", 1));
        let first = registry.resolve("a");
        assert_eq!(budget.held(Held::Names), name_bytes("a", 1));
        let again = registry.resolve("a");
        let filter = registry.resolve("b/+");
        assert!(name_bytes("b/+", 1) > name_bytes("b/c", 1) && name_bytes("b/+", 4) > name_bytes("b/+", 1));
        assert!(registry.admits("a", 10) && !registry.admits("c", 10) && registry.is_pressed(10));
        registry.release(first);
        registry.release(filter);
        assert!(registry.admits("c", 10) && !registry.is_pressed(10));
        assert_eq!(budget.held(Held::Names), name_bytes("a", 1));
        registry.release(again);
        assert_eq!((budget.held(Held::Names), registry.len()), (0, 0));
    }

    #[test]
    fn it_is_pressed_a_sixteenth_before_it_is_full() {
        let registry = Registry::new(1, 1);
        let mut names = Vec::new();
        for n in 0..30 {
            assert!(!registry.is_pressed(32), "{n}");
            names.push(registry.resolve(&format!("{n}")));
        }
        assert!(registry.is_pressed(32) && registry.is_pressed(1) && registry.admits("new", 32));
    }

    #[test]
    fn the_seed_decides_where_topics_are_sequenced() {
        let places = |seed| {
            let registry = Registry::new(4, seed);
            (0..64).map(|n| registry.resolve(&format!("t{n}")).sequencer).collect::<Vec<_>>()
        };
        assert_eq!(places(1), places(1));
        assert_ne!(places(1), places(2));
        assert!((0..4).all(|shard| places(1).contains(&shard)));
    }
}

//! The topic registry: one shared table of names, asked at subscribe and first publish only. The hot path carries
//! [`TopicRef`]s.
//!
//! Invariants: a name is in the table exactly while a [`TopicRef`] to it exists (`handles > 0`); ids are never reused.
//! The last handle's drop removes the name, under the entry's lock, so that nobody can take a new handle meanwhile.
//!
//! A name is charged ([`name_bytes`]) while it is in the table. The table is keyed ([`Keys`]): clients choose names, and
//! must not choose where in the table they fall. At [`Registry::is_pressed`] sequencers begin to forget topics that
//! nobody has used for long, so that new names find room.

use std::mem::size_of;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use dashmap::{DashMap, Entry};

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::ids::{ShardId, TopicId};
use crate::topics::filters::filter_bytes;
use crate::topics::keys::Keys;
use crate::topics::rules::{HistoryKind, SharedRules};

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
    /// What kind of history it has, by the rule that applied when it was registered; none for a filter with wildcards.
    pub history: HistoryKind,
    /// Whether its sequencer keeps state of it: a retained message, keys or a snapshot.
    stateful: AtomicBool,
    /// [`TopicRef`]s to it.
    handles: AtomicUsize,
    /// [`Congestion`]s of it.
    congested: AtomicU32,
    /// [`Publisher`]s of it.
    publishers: AtomicU32,
    /// Subscriptions to this very name that are in force, on all shards.
    subscriptions: AtomicU32,
    table: Weak<Table>,
    /// What it takes, here and where it is used.
    _charge: Charge,
}

impl Topic {
    /// Its id and name, as its messages carry them.
    #[must_use]
    pub fn key(&self) -> (TopicId, Arc<str>) {
        (self.id, Arc::clone(&self.name))
    }

    /// Whether publishers of this topic have to wait. Any thread may ask, at the cost of a load.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.congested.load(Ordering::Relaxed) > 0
    }

    /// How many subscriptions to this very name are in force, on all shards. Any thread may ask, at the cost of a load.
    #[must_use]
    pub fn subscriptions(&self) -> u32 {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// A subscription to this name is in force.
    pub(crate) fn subscription_begins(&self) {
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
    }

    /// A subscription to this name, of those that were in force, is over.
    pub(crate) fn subscription_ends(&self) {
        self.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether newcomers are shown something: a retained message, keys or a snapshot. A shard that was delivered a message
    /// knows what held when that was sequenced.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.stateful.load(Ordering::Acquire)
    }

    /// Its sequencer keeps state of it from now on, or no longer.
    pub(crate) fn set_stateful(&self, stateful: bool) {
        if self.stateful.swap(stateful, Ordering::AcqRel) != stateful
            && let Some(table) = self.table.upgrade()
        {
            match stateful {
                true => table.stateful.fetch_add(1, Ordering::AcqRel),
                false => table.stateful.fetch_sub(1, Ordering::AcqRel),
            };
        }
    }

    /// Whether a connection (`/pub`, `/bus`) is there to publish to this topic. Any thread may ask.
    #[must_use]
    pub fn has_publisher(&self) -> bool {
        self.publishers.load(Ordering::Relaxed) > 0
    }
}

/// A registration of a topic: its name stays in the registry for as long as one of these exists.
#[derive(Debug)]
pub struct TopicRef(Arc<Topic>);

impl TopicRef {
    /// One more handle, for a topic whose entry is locked or that has a handle already.
    fn new(topic: &Arc<Topic>) -> Self {
        topic.handles.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(topic))
    }

    /// Finds the name while it is registered, and does not keep it registered.
    #[must_use]
    pub fn downgrade(&self) -> Weak<Topic> {
        Arc::downgrade(&self.0)
    }
}

impl Clone for TopicRef {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Deref for TopicRef {
    type Target = Topic;

    fn deref(&self) -> &Topic {
        &self.0
    }
}

impl Drop for TopicRef {
    fn drop(&mut self) {
        // Release: what was done with this handle is over for the thread that removes the name.
        if self.0.handles.fetch_sub(1, Ordering::Release) == 1
            && let Some(table) = self.0.table.upgrade()
        {
            table.remove_unused(&self.0);
        }
    }
}

/// A connection that publishes to one topic for its whole life (`/pub`, `/bus`): the topic is kept meanwhile.
#[derive(Debug)]
pub struct Publisher(TopicRef);

impl Publisher {
    /// A publisher of `topic`.
    #[must_use]
    pub fn new(topic: TopicRef) -> Self {
        topic.publishers.fetch_add(1, Ordering::Relaxed);
        Self(topic)
    }

    /// What it publishes to.
    #[must_use]
    pub fn topic(&self) -> &TopicRef {
        &self.0
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.publishers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Somebody holds so much of a topic's messages that its publishers have to wait, on whatever shard they are, for as
/// long as this exists.
#[derive(Debug)]
pub struct Congestion(TopicRef);

impl Congestion {
    /// Publishers of `topic` wait from now on.
    #[must_use]
    pub fn of(topic: TopicRef) -> Self {
        topic.congested.fetch_add(1, Ordering::Relaxed);
        Self(topic)
    }
}

impl Drop for Congestion {
    fn drop(&mut self) {
        self.0.congested.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one name takes besides the text of a filter's levels, in bytes: the table's entry, the sequencer's record with
/// its place in the order of forgetting, and what a shard remembers of the filters that match it. Tables count twice, as
/// they are after they grew.
const ENTRY_BYTES: u64 = 2 * 25 + 2 * 112 + 2 * 16 + 2 * 40 + 48;

/// What a name is charged, in bytes, in a broker of so many shards: a filter with wildcards is kept by the sequencer of
/// every shard, and by the shards that subscribe.
#[must_use]
pub fn name_bytes(name: &str, shards: u16) -> u64 {
    const COUNTS_BYTES: usize = 2 * size_of::<usize>();
    let name_itself = allocated(COUNTS_BYTES + name.len()) + allocated(COUNTS_BYTES + size_of::<Topic>());
    let filter = if protocol::topic::is_wildcard(name) { filter_bytes(name) * (u64::from(shards) + 1) } else { 0 };
    ENTRY_BYTES + name_itself + filter
}

/// The table of names. Shared by all threads.
#[derive(Debug)]
pub struct Registry {
    table: Arc<Table>,
    next_id: AtomicU64,
    shards: u16,
    /// For everything but the places of topics.
    keys: Keys,
    /// Decides which shard sequences a topic.
    places: Keys,
    account: Arc<Account>,
    bytes_max: u64,
    rules: Arc<SharedRules>,
}

#[derive(Debug)]
struct Table {
    names: DashMap<Arc<str>, Arc<Topic>, Keys>,
    len: AtomicUsize,
    /// Topics with state.
    stateful: AtomicUsize,
}

impl Table {
    fn new(keys: Keys) -> Arc<Self> {
        Arc::new(Self { names: DashMap::with_hasher(keys), len: AtomicUsize::new(0), stateful: AtomicUsize::new(0) })
    }

    /// Removes a name whose last handle is gone, unless somebody has taken a new one since.
    fn remove_unused(&self, topic: &Arc<Topic>) {
        if let Entry::Occupied(entry) = self.names.entry(Arc::clone(&topic.name))
            && Arc::ptr_eq(entry.get(), topic)
            && topic.handles.load(Ordering::Acquire) == 0
        {
            entry.remove();
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Registry {
    /// A table for `shards` shards (at least 1) without a bound. `seed` decides which shard sequences a topic, and how
    /// names are hashed: where clients are not to be trusted, it must be random.
    #[must_use]
    pub fn new(shards: u16, seed: u64) -> Self {
        assert!(shards > 0, "a broker has at least one shard");
        let keys = Keys::from_seed(seed);
        Self {
            table: Table::new(keys),
            next_id: AtomicU64::new(1),
            shards,
            keys,
            places: Keys::from_seed(seed ^ 0x0070_6c61_6365_7321),
            account: Arc::default(),
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
        Self { account, bytes_max, ..self }
    }

    /// How text of clients is to be hashed.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys
    }

    /// The handle for `name`, which must have been checked; registers it when it is new.
    #[must_use]
    pub fn resolve(&self, name: &str) -> TopicRef {
        if let Some(found) = self.table.names.get(name) {
            return TopicRef::new(&found);
        }
        let name: Arc<str> = name.into();
        let entry = self.table.names.entry(Arc::clone(&name)).or_insert_with(|| {
            self.table.len.fetch_add(1, Ordering::Relaxed);
            let charge = Charge::new(&self.account, Held::Names, name_bytes(&name, self.shards));
            let wildcard = protocol::topic::is_wildcard(&name);
            let history = if wildcard { HistoryKind::None } else { self.rules.history_of(&name) };
            Arc::new(Topic {
                id: TopicId(self.next_id.fetch_add(1, Ordering::Relaxed)),
                sequencer: self.sequencer_of(&name),
                wildcard,
                history,
                stateful: AtomicBool::new(false),
                name,
                handles: AtomicUsize::new(0),
                congested: AtomicU32::new(0),
                publishers: AtomicU32::new(0),
                subscriptions: AtomicU32::new(0),
                table: Arc::downgrade(&self.table),
                _charge: charge,
            })
        });
        TopicRef::new(&entry)
    }

    /// The handle for `name`, if it is registered.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TopicRef> {
        self.table.names.get(name).map(|found| TopicRef::new(&found))
    }

    /// Whether `name` is registered.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.table.names.contains_key(name)
    }

    /// How many subscriptions to this very name are in force; 0 if it is not registered.
    #[must_use]
    pub fn subscriptions_to(&self, name: &str) -> u32 {
        self.table.names.get(name).map_or(0, |topic| topic.subscriptions())
    }

    /// Looks at every name, in no order. Linear in names; a part of the table cannot change while it is looked at, so `visit`
    /// should be short and not ask the registry. Not for shards.
    pub fn each_name(&self, mut visit: impl FnMut(&Topic)) {
        self.table.names.iter().for_each(|entry| visit(entry.value()));
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

    fn sequencer_of(&self, name: &str) -> ShardId {
        let spread = (u128::from(self.places.hash_text(name)) * u128::from(self.shards)) >> 64;
        ShardId(u16::try_from(spread).expect("below the number of shards"))
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
        drop(first);
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
        drop(first);
        drop(filter);
        assert!(registry.admits("c", 10) && !registry.is_pressed(10));
        assert_eq!(budget.held(Held::Names), name_bytes("a", 1));
        drop(again);
        assert_eq!((budget.held(Held::Names), registry.len()), (0, 0));
    }

    #[test]
    fn publishers_and_congestion_end_with_their_handles() {
        let registry = Registry::new(1, 1);
        let publisher = Publisher::new(registry.resolve("a"));
        let marks = [Congestion::of(publisher.topic().clone()), Congestion::of(publisher.topic().clone())];
        let topic = registry.resolve("a");
        assert!(topic.has_publisher() && topic.is_congested());
        let [first, second] = marks;
        drop(first);
        assert!(topic.is_congested(), "one is left");
        drop((second, publisher));
        assert!(!topic.has_publisher() && !topic.is_congested());
        drop(topic);
        assert!(registry.is_empty());
    }

    /// Threads that take and drop handles of few names: at the end none is registered, none is charged, and meanwhile
    /// two handles of one name that exist together have one id.
    #[test]
    fn handles_of_several_threads_leave_nothing_behind() {
        let budget = Budget::new(1, 1 << 20);
        let registry = Registry::new(2, 1).charging(Arc::clone(budget.of_plane()), u64::MAX);
        let held = registry.resolve("held");
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let (registry, held) = (&registry, &held);
                threads.spawn(move || {
                    for round in 0..20_000 {
                        let topic = registry.resolve(["a", "b", "held"][(thread + round) % 3]);
                        let again = registry.resolve(&topic.name);
                        assert_eq!(topic.id, again.id);
                        assert!(*topic.name != *"held" || topic.id == held.id);
                    }
                });
            }
        });
        assert_eq!(registry.len(), 1);
        drop(held);
        assert_eq!((registry.len(), budget.held(Held::Names)), (0, 0));
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
        assert!(ShardId::all(4).all(|shard| places(1).contains(&shard)));
    }
}

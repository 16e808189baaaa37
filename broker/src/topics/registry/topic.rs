//! A registered name, who holds it, and the table that finds it.
//!
//! Not responsible for which names may be registered ([`Registry`](crate::topics::registry::Registry)).
//!
//! There may be millions: a name is one allocation besides its text, and one word in the table. So it carries no
//! [`Charge`](crate::capacity::budget::Charge) of its own; what it is charged follows from its text ([`name_bytes`]).

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::mem::size_of;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;

use crate::capacity::budget::{Account, COUNTS_BYTES, Held, allocated};
use crate::ids::{ShardId, TopicId};
use crate::topics::filters::filter_bytes;
use crate::topics::keys::Keys;
use crate::topics::refusing::Refusing;
use crate::topics::rules::{HistoryKind, Kept, SharedRules};

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
    refusing: Refusing,
    /// [`TopicRef`]s to it.
    handles: AtomicUsize,
    /// [`Congestion`]s of it.
    congested: AtomicU32,
    /// [`Publisher`]s of it.
    publishers: AtomicU32,
    /// Subscriptions to this very name that are in force, on all shards.
    subscriptions: AtomicU32,
    table: Arc<Shared>,
}

/// What all names of a registry share.
#[derive(Debug)]
pub(super) struct Shared {
    /// What names are charged to.
    pub(super) account: Arc<Account>,
    pub(super) shards: u16,
    /// Weak, since the table holds the names.
    pub(super) table: Weak<Table>,
}

/// A name in the table, found by its text.
#[derive(Debug)]
pub(super) struct Named(pub(super) Arc<Topic>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Named {}

/// The names that are registered.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) names: DashMap<Named, (), Keys>,
    pub(super) len: AtomicUsize,
    /// Topics with state.
    pub(super) stateful: AtomicUsize,
}

impl Table {
    pub(super) fn new(keys: Keys) -> Arc<Self> {
        Arc::new(Self { names: DashMap::with_hasher(keys), len: AtomicUsize::new(0), stateful: AtomicUsize::new(0) })
    }

    /// Removes a name whose last handle is gone, unless somebody has taken a new one since.
    fn remove_unused(&self, topic: &Arc<Topic>) {
        let is_unused = |known: &Named| Arc::ptr_eq(&known.0, topic) && topic.handles.load(Ordering::Acquire) == 0;
        if self.names.remove_if(&*topic.name, |known, ()| is_unused(known)).is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Topic {
    /// A name of which nothing is known yet.
    pub(super) fn new(id: TopicId, name: Arc<str>, sequencer: ShardId, kept: Kept, table: &Arc<Shared>) -> Arc<Self> {
        table.account.charge(Held::Names, name_bytes(&name, table.shards));
        Arc::new(Self {
            id,
            sequencer,
            wildcard: protocol::topic::is_wildcard(&name),
            history: kept.history,
            stateful: AtomicBool::new(false),
            refusing: Refusing::new(kept),
            name,
            handles: AtomicUsize::new(0),
            congested: AtomicU32::new(0),
            publishers: AtomicU32::new(0),
            subscriptions: AtomicU32::new(0),
            table: Arc::clone(table),
        })
    }

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
            && let Some(table) = self.table.table.upgrade()
        {
            match stateful {
                true => table.stateful.fetch_add(1, Ordering::AcqRel),
                false => table.stateful.fetch_sub(1, Ordering::AcqRel),
            };
        }
    }

    /// Whether its sequencer may refuse a publish without options, by the registry's rules: see `refusing`.
    #[must_use]
    pub fn may_refuse(&self, rules: &SharedRules) -> bool {
        self.refusing.holds(&self.name, self.history, rules)
    }

    /// Whether a connection (`/pub`, `/bus`) is there to publish to this topic. Any thread may ask.
    #[must_use]
    pub fn has_publisher(&self) -> bool {
        self.publishers.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.table.account.release(Held::Names, name_bytes(&self.name, self.table.shards));
    }
}

/// A registration of a topic: its name stays in the registry for as long as one of these exists.
#[derive(Debug)]
pub struct TopicRef(Arc<Topic>);

impl TopicRef {
    /// One more handle, for a topic whose entry is locked or that has a handle already.
    pub(super) fn new(topic: &Arc<Topic>) -> Self {
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
            && let Some(table) = self.0.table.table.upgrade()
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

/// What one name takes besides the text of a filter's levels, in bytes: its place in the table; the sequencer's record, with
/// its place and its entry in the order of forgetting; and what a shard remembers of the filters that match it. Tables count
/// twice, as they are after they grew.
const ENTRY_BYTES: u64 = 2 * 9 + 2 * 5 + 96 + 2 * 16 + 2 * 40 + 48;

/// What a name is charged, in bytes, in a broker of so many shards: a filter with wildcards is kept by the sequencer of
/// every shard, and by the shards that subscribe.
#[must_use]
pub fn name_bytes(name: &str, shards: u16) -> u64 {
    let name_itself = allocated(COUNTS_BYTES + name.len()) + allocated(COUNTS_BYTES + size_of::<Topic>());
    let filter = if protocol::topic::is_wildcard(name) { filter_bytes(name) * (u64::from(shards) + 1) } else { 0 };
    ENTRY_BYTES + name_itself + filter
}

const _: () = assert!(size_of::<Topic>() <= 64, "there may be millions: mind the size classes");

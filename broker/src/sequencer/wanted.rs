//! Which shards a topic's messages go to: those that joined it, and those that joined a filter which matches it.
//!
//! A filter that comes or goes costs nothing per topic: the topic's next message compares it with the filters that changed
//! since ([`Changes`]). Invariants: both lists ascend, each shard is there once; `joined` is part of `wanted` while that is
//! known. A topic that nobody wants takes nothing but the version that this is known of.

use crate::ids::ShardId;
use crate::topics::filters::Filters;
use crate::topics::matches::{Changes, Version};
use crate::topics::registry::TopicRef;

/// The filters of a sequencer, each with the shards that joined it.
pub(super) type Joined = Filters<(TopicRef, Vec<ShardId>)>;

/// The version of filters of which nothing is known.
const NEVER: Version = Version::MAX;

/// See the file's head.
#[derive(Debug)]
pub(super) struct Wanted {
    shards: Option<Box<Shards>>,
    /// The changes of filters that `shards` knows, or [`NEVER`].
    version: Version,
}

#[derive(Default, Debug)]
struct Shards {
    /// Shards that joined this very topic.
    joined: Vec<ShardId>,
    /// `joined` and the shards of matching filters, as of `version`.
    wanted: Vec<ShardId>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { shards: None, version: NEVER }
    }
}

impl Wanted {
    /// Shards that joined the topic itself.
    pub(super) fn joined(&self) -> &[ShardId] {
        self.shards.as_ref().map_or(&[], |shards| &shards.joined)
    }

    /// Shards to which a message goes, as of the last [`Wanted::bring_up_to_date`].
    pub(super) fn all(&self) -> &[ShardId] {
        self.shards.as_ref().map_or(&[], |shards| &shards.wanted)
    }

    /// `shard` joined the topic itself.
    pub(super) fn join(&mut self, shard: ShardId) {
        let shards = self.shards.get_or_insert_default();
        insert(&mut shards.joined, shard);
        insert(&mut shards.wanted, shard);
    }

    /// `shard` left the topic itself.
    pub(super) fn leave(&mut self, shard: ShardId) {
        if let Some(shards) = &mut self.shards {
            remove(&mut shards.joined, shard);
        }
        // A filter of that shard may match all the same: to be looked up when there is a message.
        self.version = NEVER;
    }

    /// Makes it true again for the topic `name`. Cost: one comparison per change since the last message, or a search.
    pub(super) fn bring_up_to_date(&mut self, name: &str, filters: &Joined, changes: &Changes<ShardId>) {
        if self.version == changes.version() {
            return;
        }
        let missed = if self.version == NEVER { None } else { changes.since(self.version) };
        self.version = changes.version();
        if let Some(missed) = missed {
            let mut matching = missed.filter(|change| protocol::topic::matches(&change.filter, name));
            // Whoever left may have another filter that matches.
            let only_joins = matching.by_ref().all(|change| {
                if change.added {
                    insert(&mut self.shards.get_or_insert_default().wanted, change.value);
                }
                change.added
            });
            if only_joins {
                return;
            }
        }
        if let Some(Shards { joined, wanted }) = self.shards.as_deref_mut() {
            wanted.clone_from(joined);
        }
        filters.each_match(name, |(_, joined)| {
            let shards = self.shards.get_or_insert_default();
            joined.iter().for_each(|&shard| insert(&mut shards.wanted, shard));
        });
        self.shards.take_if(|shards| shards.wanted.is_empty());
    }

    /// See the file's head.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn invariants(&self) -> Result<(), &'static str> {
        let (joined, all) = (self.joined(), self.all());
        let rules = [
            ("joined ascends", joined.is_sorted_by(|a, b| a < b)),
            ("wanted ascends", all.is_sorted_by(|a, b| a < b)),
            ("joined is part of wanted", self.version == NEVER || joined.iter().all(|shard| all.contains(shard))),
        ];
        rules.iter().find(|(_, holds)| !holds).map_or(Ok(()), |(rule, _)| Err(rule))
    }
}

/// Keeps `set` ascending and free of doubles.
pub(super) fn insert(set: &mut Vec<ShardId>, shard: ShardId) {
    if let Err(at) = set.binary_search(&shard) {
        set.insert(at, shard);
    }
}

/// Takes `shard` out of an ascending `set`.
pub(super) fn remove(set: &mut Vec<ShardId>, shard: ShardId) {
    if let Ok(at) = set.binary_search(&shard) {
        set.remove(at);
    }
}

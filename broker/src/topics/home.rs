//! A topic's home: the one place that gives its messages their offsets.
//!
//! Every shard has one [`Home`] for the topics that the registry places there. Invariants:
//!
//! - offsets of a topic are dense from 1 within its epoch, in the order in which the home took them;
//! - `wanted` of a topic = shards that joined it, or that joined a filter which matches it;
//! - a topic is kept while a shard has joined it, and [`Limits::topic_idle_timeout`] beyond its last use;
//!   forgotten after that, it begins anew with another epoch.
//!
//! Cost per message: one map lookup, one allocation (the [`Message`]).
//!
//! [`Limits::topic_idle_timeout`]: crate::limits::Limits::topic_idle_timeout

use std::collections::VecDeque;
use std::sync::Arc;

use ring::Nanos;
use rustc_hash::FxHashMap;

use super::filters::Filters;
use super::message::{Epoch, Message, Offset, Payload};
use super::registry::{Registry, ShardId, TopicId, TopicRef};

/// What one shard sequences.
#[derive(Debug)]
pub struct Home {
    topics: FxHashMap<TopicId, Topic>,
    /// Filters with wildcards that some shard has joined, with those shards.
    filters: Filters<(TopicRef, Vec<ShardId>)>,
    /// Counts the changes of `filters`.
    filters_version: u64,
    /// Topics that nobody has joined, in the order in which they may be forgotten.
    unused: VecDeque<(Nanos, TopicId)>,
    next_epoch: Epoch,
    idle_timeout: Nanos,
}

#[derive(Debug)]
struct Topic {
    topic: TopicRef,
    epoch: Epoch,
    next: Offset,
    /// Shards that joined this very topic.
    joined: Vec<ShardId>,
    /// `joined` and the shards of matching filters, ascending, each once, as of `wanted_version`.
    wanted: Vec<ShardId>,
    /// The version of the home's filters that `wanted` knows. Brought up to date by the next message, so
    /// that a filter that comes or goes costs nothing per topic.
    wanted_version: u64,
    used_at: Nanos,
    /// Whether `unused` has an entry for it.
    may_be_forgotten: bool,
}

/// A message with its place, and who wants it.
#[derive(Debug)]
pub struct Sequenced<'a> {
    /// To be shared.
    pub message: Arc<Message>,
    /// The topic's epoch.
    pub epoch: Epoch,
    /// Shards with subscribers, ascending.
    pub wanted: &'a [ShardId],
}

impl Home {
    /// An empty home. Its epochs count up from `epoch_base`.
    #[must_use]
    pub fn new(epoch_base: Epoch, idle_timeout: Nanos) -> Self {
        Self {
            topics: FxHashMap::default(),
            filters: Filters::default(),
            filters_version: 0,
            unused: VecDeque::new(),
            next_epoch: epoch_base,
            idle_timeout,
        }
    }

    /// Gives `payload` the next offset of `topic`.
    pub fn publish(&mut self, topic: TopicRef, payload: Payload, now: Nanos) -> Sequenced<'_> {
        let id = topic.id;
        self.enter(topic, now);
        let held = self.topics.get_mut(&id).expect("entered above");
        if held.wanted_version != self.filters_version {
            held.wanted = wanted(&held.topic, &held.joined, &self.filters);
            held.wanted_version = self.filters_version;
        }
        let offset = held.next;
        held.next += 1;
        let message = Arc::new(Message::new(&held.topic, offset, payload, now));
        Sequenced { message, epoch: held.epoch, wanted: &held.wanted }
    }

    /// `shard` has subscribers of `topic` from now on. Returns the epoch and the offset of its next
    /// message; zeroes for a filter.
    pub fn join(&mut self, topic: TopicRef, shard: ShardId, now: Nanos) -> (Epoch, Offset) {
        if topic.wildcard {
            self.join_filter(topic, shard);
            return (0, 0);
        }
        let id = topic.id;
        self.enter(topic, now);
        let held = self.topics.get_mut(&id).expect("entered above");
        insert(&mut held.joined, shard);
        insert(&mut held.wanted, shard);
        (held.epoch, held.next)
    }

    /// `shard` has no more subscribers of `topic`.
    pub fn leave(&mut self, topic: TopicRef, shard: ShardId, now: Nanos, registry: &Registry) {
        if topic.wildcard {
            self.leave_filter(&topic, shard, registry);
        } else {
            let id = topic.id;
            if let Some(held) = self.topics.get_mut(&id) {
                remove(&mut held.joined, shard);
                held.wanted = wanted(&held.topic, &held.joined, &self.filters);
                held.wanted_version = self.filters_version;
                self.may_forget(id, now);
            }
        }
        registry.release(topic);
    }

    /// Forgets topics that nobody has used for long. Cost: one step per topic due.
    pub fn expire(&mut self, now: Nanos, registry: &Registry) {
        while let Some(&(due, id)) = self.unused.front() {
            if due > now {
                return;
            }
            self.unused.pop_front();
            let Some(held) = self.topics.get_mut(&id) else { continue };
            held.may_be_forgotten = false;
            if !held.joined.is_empty() {
                continue;
            }
            if held.used_at + self.idle_timeout > now {
                self.may_forget(id, now);
                continue;
            }
            let held = self.topics.remove(&id).expect("found above");
            registry.release(held.topic);
        }
    }

    /// When [`Home::expire`] has something to do next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Nanos> {
        self.unused.front().map(|&(due, _)| due)
    }

    /// How many topics are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether no topic is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Makes sure that `topic` is kept. Consumes the reference: the home holds one of its own.
    fn enter(&mut self, topic: TopicRef, now: Nanos) {
        let id = topic.id;
        if let Some(held) = self.topics.get_mut(&id) {
            held.used_at = now;
            if held.joined.is_empty() && !held.may_be_forgotten {
                self.may_forget(id, now);
            }
            return;
        }
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        let wanted = wanted(&topic, &[], &self.filters);
        let held = Topic {
            topic,
            epoch,
            next: 1,
            joined: Vec::new(),
            wanted,
            wanted_version: self.filters_version,
            used_at: now,
            may_be_forgotten: false,
        };
        self.topics.insert(id, held);
        self.may_forget(id, now);
    }

    fn may_forget(&mut self, id: TopicId, now: Nanos) {
        if let Some(held) = self.topics.get_mut(&id)
            && held.joined.is_empty()
            && !held.may_be_forgotten
        {
            held.may_be_forgotten = true;
            self.unused.push_back((now + self.idle_timeout, id));
        }
    }

    fn join_filter(&mut self, filter: TopicRef, shard: ShardId) {
        self.filters_version += 1;
        match self.filters.get_mut(&filter.name) {
            Some((_, shards)) => insert(shards, shard),
            None => self.filters.insert(Arc::clone(&filter.name), (filter, vec![shard])),
        }
    }

    fn leave_filter(&mut self, filter: &TopicRef, shard: ShardId, registry: &Registry) {
        let Some((_, shards)) = self.filters.get_mut(&filter.name) else { return };
        remove(shards, shard);
        if shards.is_empty()
            && let Some((gone, _)) = self.filters.remove(&filter.name)
        {
            registry.release(gone);
        }
        self.filters_version += 1;
    }
}

fn wanted(topic: &TopicRef, joined: &[ShardId], filters: &Filters<(TopicRef, Vec<ShardId>)>) -> Vec<ShardId> {
    let mut wanted = joined.to_vec();
    filters.each_match(&topic.name, |(_, shards)| shards.iter().for_each(|&shard| insert(&mut wanted, shard)));
    wanted
}

/// Keeps `set` ascending and free of doubles.
fn insert(set: &mut Vec<ShardId>, shard: ShardId) {
    if let Err(at) = set.binary_search(&shard) {
        set.insert(at, shard);
    }
}

fn remove(set: &mut Vec<ShardId>, shard: ShardId) {
    if let Ok(at) = set.binary_search(&shard) {
        set.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use protocol::v1::PayloadKind;

    use super::*;

    fn payload() -> Payload {
        Payload::copy_of(PayloadKind::Text, b"x", crate::budget::Budget::new(1, 1 << 20).of_shard(0))
    }

    #[test]
    fn offsets_are_dense_from_one_and_a_filter_widens_who_is_wanted() {
        let registry = Registry::new(2, 1);
        let mut home = Home::new(7, 100);
        assert_eq!(home.join(registry.resolve("a/b"), 1, 0), (7, 1));
        let first = home.publish(registry.resolve("a/b"), payload(), 0);
        assert_eq!((first.message.offset, first.epoch, first.wanted), (1, 7, &[1][..]));
        home.join(registry.resolve("a/+"), 0, 0);
        let second = home.publish(registry.resolve("a/b"), payload(), 0);
        assert_eq!((second.message.offset, second.wanted), (2, &[0, 1][..]));
        home.leave(registry.resolve("a/+"), 0, 0, &registry);
        assert_eq!(home.publish(registry.resolve("a/b"), payload(), 0).wanted, &[1]);
    }

    #[test]
    fn a_topic_out_of_use_is_forgotten_and_begins_a_new_epoch() {
        let registry = Registry::new(1, 1);
        let mut home = Home::new(7, 100);
        home.publish(registry.resolve("t"), payload(), 0);
        home.publish(registry.resolve("t"), payload(), 50);
        home.expire(100, &registry);
        assert_eq!(home.len(), 1, "used at 50");
        home.expire(250, &registry);
        assert!(home.is_empty());
        assert!(registry.is_empty(), "the name is forgotten with its last holder");
        assert_eq!(home.join(registry.resolve("t"), 0, 300), (8, 1));
    }

    #[test]
    fn a_joined_topic_is_kept_and_a_million_joins_leave_nothing_behind() {
        let registry = Registry::new(1, 1);
        let mut home = Home::new(1, 100);
        home.join(registry.resolve("t"), 0, 0);
        home.expire(1_000, &registry);
        assert_eq!(home.len(), 1);
        home.leave(registry.resolve("t"), 0, 1_000, &registry);
        for round in 0..1_000_000_u64 {
            let now = 1_000 + round;
            home.join(registry.resolve("t"), 0, now);
            home.leave(registry.resolve("t"), 0, now, &registry);
            home.expire(now, &registry);
        }
        assert!(home.unused.len() <= 2);
        home.expire(2_000_000_000, &registry);
        assert!(home.is_empty() && registry.is_empty());
    }
}

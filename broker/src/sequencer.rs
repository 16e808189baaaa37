//! A topic's sequencer: the one place that gives its messages their offsets.
//!
//! Every shard has one [`Sequencer`] for the topics that the registry places there. Invariants
//! ([`Sequencer::invariants`]):
//!
//! - offsets of a topic are dense from 1 within its epoch, in the order in which the sequencer took them: `next >= 1`, and
//!   every `epoch < next_epoch` belongs to one topic;
//! - `wanted` of a topic = shards that joined it, or that joined a filter which matches it, as of `wanted_version`;
//! - `joined` and `wanted` ascend, and `joined` is part of `wanted` while that is known;
//! - a topic that no shard has joined is in `unused`, once (`may_be_forgotten`);
//! - a topic is kept while somebody would notice that it began anew: while a shard has joined it or a filter that
//!   matches it, while a connection is there to publish to it (`/pub`, `/bus`), while it remembers something ([`history`]), and
//!   [`Limits::topic_idle_timeout`] beyond its last use;
//! - when the registry is nearly full ([`Registry::is_pressed`]), topics that nobody has joined are forgotten before
//!   their time, and although a filter matches them, those first that were used once and longest ago: else one
//!   subscription of `#`, or somebody who begins topics without end, could fill the table for ever. A topic that was
//!   forgotten begins anew with another epoch, and so does one that is purged (`purge`).
//!
//! A filter that comes or goes costs nothing per topic: the topic's next message compares it with the filters that
//! changed ([`Changes`]).
//!
//! What a topic remembers is in [`history`]; the bound over all of them, and what is too old, in `ledger`; state for filters in
//! `walk`.
//!
//! Cost per message: one map lookup, one allocation (the [`Message`]), and for its topic's window a reference.
//!
//! [`Limits::topic_idle_timeout`]: crate::config::limits::Limits::topic_idle_timeout

mod audience;
mod forget;
pub mod history;
pub mod ledger;
pub mod purge;
mod remember;
#[cfg(test)]
mod tests;
pub mod walk;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ring::Nanos;
use rustc_hash::FxHashMap;

use crate::capacity::budget::{Account, Charge, Held};
use crate::ids::{Epoch, Offset, ShardId, TopicId};
use crate::message::options::{PublishOptions, Refusal};
use crate::message::{Message, Payload};
use crate::sequencer::audience::Audience;
use crate::sequencer::history::History;
use crate::sequencer::ledger::{HistoryLimits, Ledger, Listed};
use crate::sequencer::remember::KnownRules;
use crate::topics::filters::Filters;
use crate::topics::keys::Keys;
use crate::topics::matches::{Change, Changes, Version};
use crate::topics::registry::{Registry, TopicRef};
use crate::topics::rules::RuleId;

/// The version of filters of which nothing is known.
const NEVER: Version = Version::MAX;

/// What a sequencer is made with.
#[derive(Clone, Copy, Debug)]
pub struct SequencerLimits {
    /// How long a topic that nobody needs is kept.
    pub idle_timeout: Nanos,
    /// Names that the registry may have.
    pub topics_max: usize,
    /// What histories may take.
    pub history: HistoryLimits,
}

/// What one shard sequences.
#[derive(Debug)]
pub struct Sequencer {
    topics: FxHashMap<TopicId, Topic>,
    /// Filters with wildcards that some shard has joined, with those shards.
    filters: Joined,
    changes: Changes<ShardId>,
    audience: Audience,
    /// Topics that nobody has joined, with the time at which to look whether they may be forgotten, soonest first.
    unused: VecDeque<(Nanos, TopicId)>,
    next_epoch: Epoch,
    idle_timeout: Nanos,
    topics_max: usize,
    keys: Keys,
    rules: KnownRules,
    ledger: Ledger,
    /// Topics with state, by name.
    stateful: BTreeMap<Arc<str>, TopicId>,
    /// When the last message was sequenced: no two have the same time.
    last_at: Nanos,
    /// The time of day at the beginning of this turn, in milliseconds since 1970.
    time_ms: u64,
    /// Windows that were evicted.
    evicted: u64,
    /// For what histories take besides their messages, as of the beginning of this turn.
    charge: Charge,
    account: Arc<Account>,
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
    /// The changes of filters that `wanted` knows, or [`NEVER`].
    wanted_version: Version,
    used_at: Nanos,
    history: Option<Box<History>>,
    rule: RuleId,
    /// The version of the rules that `rule` is of.
    rule_version: u32,
    /// Whether `unused` has an entry for it.
    may_be_forgotten: bool,
    /// On which of the ledger's lists it is.
    listed: Listed,
    /// Whether `stateful` has it.
    is_stateful: bool,
}

/// A message with its place, and who wants it.
#[derive(Debug)]
pub struct Sequenced<'a> {
    /// To be shared. `None`: the publish was made before, under the same idempotency key.
    pub message: Option<Arc<Message>>,
    /// The topic's epoch.
    pub epoch: Epoch,
    /// The message's offset.
    pub offset: Offset,
    /// Shards with subscribers, ascending.
    pub wanted: &'a [ShardId],
}

impl Sequencer {
    /// An empty sequencer. Its epochs count up from `epoch_base`. Names and rules are those of `registry`; what it adds to
    /// messages is charged to `account`.
    #[must_use]
    pub fn new(epoch_base: Epoch, limits: SequencerLimits, registry: &Registry, account: &Arc<Account>) -> Self {
        let keys = registry.keys();
        Self {
            topics: FxHashMap::default(),
            filters: Filters::new(keys),
            changes: Changes::default(),
            audience: Audience::default(),
            unused: VecDeque::new(),
            next_epoch: epoch_base,
            idle_timeout: limits.idle_timeout,
            topics_max: limits.topics_max,
            keys,
            rules: KnownRules::new(registry.rules()),
            ledger: Ledger::new(limits.history),
            stateful: BTreeMap::new(),
            last_at: 0,
            time_ms: 0,
            evicted: 0,
            charge: Charge::new(account, Held::Histories, 0),
            account: Arc::clone(account),
        }
    }

    /// Gives `payload` the next offset of `topic`, if `options` allow it.
    ///
    /// # Errors
    /// Why it is not published.
    pub fn publish(
        &mut self,
        topic: TopicRef,
        payload: Payload,
        mut options: Option<Box<PublishOptions>>,
        now: Nanos,
    ) -> Result<Sequenced<'_>, Refusal> {
        let id = topic.id;
        self.enter(topic, now);
        let Self { topics, rules, ledger, filters, changes, account, .. } = self;
        let held = topics.get_mut(&id).expect("entered above");
        let rule = rules.of(held);
        if let Some(offset) = held.admit(rule, ledger, options.as_deref(), payload.weight(), now)? {
            return Ok(Sequenced { message: None, epoch: held.epoch, offset, wanted: &[] });
        }
        self.last_at = now.max(self.last_at + 1);
        held.bring_up_to_date(filters, changes);
        let offset = held.next;
        held.next += 1;
        let mut message = Message::new(held.topic.key(), offset, payload, self.last_at);
        if let Some(options) = &mut options {
            message = message.with_options(options, account);
        }
        let message = Arc::new(if rule.stamps_time { message.stamped(self.time_ms, account) } else { message });
        if held.keeps(rule, options.as_deref()) {
            held.remember(rule, ledger, &message, options.as_deref(), self.keys, now);
            self.refresh_lists(id, now);
            self.relieve();
        }
        let held = &self.topics[&id];
        Ok(Sequenced { message: Some(message), epoch: held.epoch, offset, wanted: &held.wanted })
    }

    /// How many subscriptions in force, on all shards, match `topic`: as many as its shards have counted by now. For
    /// publishers that ask.
    pub fn subscriptions(&mut self, topic: &TopicRef) -> u32 {
        self.audience.of(topic, &self.filters, self.changes.version())
    }

    /// Where a topic is: its epoch and the offset that its next message gets. `None`: it is not kept.
    #[must_use]
    pub fn position(&self, topic: TopicId) -> Option<(Epoch, Offset)> {
        self.topics.get(&topic).map(|held| (held.epoch, held.next))
    }

    /// `shard` has subscribers of `topic` from now on. Returns the epoch and the offset of its next
    /// message; zeroes for a filter.
    pub fn join(&mut self, topic: TopicRef, shard: ShardId, now: Nanos) -> (Epoch, Offset) {
        if topic.wildcard {
            self.join_filter(topic, shard);
            return (Epoch::default(), Offset::default());
        }
        let id = topic.id;
        self.enter(topic, now);
        let held = self.topics.get_mut(&id).expect("entered above");
        insert(&mut held.joined, shard);
        insert(&mut held.wanted, shard);
        (held.epoch, held.next)
    }

    /// `shard` has no more subscribers of `topic`.
    pub fn leave(&mut self, topic: &TopicRef, shard: ShardId, now: Nanos) {
        if topic.wildcard {
            self.leave_filter(topic, shard);
        } else {
            let id = topic.id;
            if let Some(held) = self.topics.get_mut(&id) {
                remove(&mut held.joined, shard);
                // A filter of that shard may match all the same: to be looked up when there is a message.
                held.wanted_version = NEVER;
                self.may_forget(id, now);
            }
        }
    }

    /// Checks what always holds: see the file's head. Linear in topics.
    ///
    /// # Errors
    /// What does not hold, and of which topic.
    pub fn invariants(&self) -> Result<(), String> {
        let mut epochs: Vec<Epoch> = self.topics.values().map(|held| held.epoch).collect();
        epochs.sort_unstable();
        if epochs.windows(2).any(|pair| pair[0] == pair[1])
            || epochs.last().is_some_and(|last| *last >= self.next_epoch)
        {
            return Err("sequencer: an epoch belongs to one topic".to_owned());
        }
        for held in self.topics.values() {
            let known = held.wanted_version != NEVER;
            let rules = [
                ("next >= 1", held.next >= Offset(1)),
                ("joined ascends", held.joined.is_sorted_by(|a, b| a < b)),
                ("wanted ascends", held.wanted.is_sorted_by(|a, b| a < b)),
                ("joined is part of wanted", !known || held.joined.iter().all(|shard| held.wanted.contains(shard))),
                (
                    "not joined, no state: may be forgotten",
                    !held.joined.is_empty() || held.may_be_forgotten || held.has_state(),
                ),
            ];
            if let Some((rule, _)) = rules.iter().find(|(_, holds)| !holds) {
                return Err(format!("sequencer, topic {:?}: {rule}", held.topic.name));
            }
        }
        self.history_invariants()?;
        let listed = self.topics.values().filter(|held| held.may_be_forgotten).count();
        if self.unused.len() < listed {
            return Err(format!("sequencer: {listed} topics may be forgotten, {} are listed", self.unused.len()));
        }
        Ok(())
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

    /// Makes sure that `topic` is kept.
    fn enter(&mut self, topic: TopicRef, now: Nanos) {
        let Self { topics, unused, next_epoch, idle_timeout, .. } = self;
        let held = topics.entry(topic.id).or_insert_with(|| {
            let epoch = *next_epoch;
            *next_epoch = epoch.next();
            Topic::new(topic, epoch)
        });
        held.used_at = now;
        held.list_unused(unused, now + *idle_timeout);
    }

    fn join_filter(&mut self, filter: TopicRef, shard: ShardId) {
        self.changes.push(Change { filter: Arc::clone(&filter.name), value: shard, added: true });
        match self.filters.get_mut(&filter.name) {
            Some((_, shards)) => insert(shards, shard),
            None => self.filters.insert(Arc::clone(&filter.name), (filter, vec![shard])),
        }
    }

    fn leave_filter(&mut self, filter: &TopicRef, shard: ShardId) {
        let Some((_, shards)) = self.filters.get_mut(&filter.name) else { return };
        remove(shards, shard);
        if shards.is_empty() {
            self.filters.remove(&filter.name);
        }
        self.changes.push(Change { filter: Arc::clone(&filter.name), value: shard, added: false });
    }
}

/// The filters of a sequencer, each with the shards that joined it.
type Joined = Filters<(TopicRef, Vec<ShardId>)>;

impl Topic {
    fn new(topic: TopicRef, epoch: Epoch) -> Self {
        Self {
            topic,
            epoch,
            next: Offset(1),
            joined: Vec::new(),
            wanted: Vec::new(),
            wanted_version: NEVER,
            used_at: 0,
            history: None,
            rule: RuleId::default(),
            rule_version: 0,
            may_be_forgotten: false,
            listed: Listed::default(),
            is_stateful: false,
        }
    }

    /// Makes `wanted` true again. Cost: one comparison per change since the last message, or a search.
    fn bring_up_to_date(&mut self, filters: &Joined, changes: &Changes<ShardId>) {
        if self.wanted_version == changes.version() {
            return;
        }
        let missed = if self.wanted_version == NEVER { None } else { changes.since(self.wanted_version) };
        self.wanted_version = changes.version();
        if let Some(missed) = missed {
            let mut matching = missed.filter(|change| protocol::topic::matches(&change.filter, &self.topic.name));
            // Whoever left may have another filter that matches.
            let only_joins = matching.by_ref().all(|change| {
                if change.added {
                    insert(&mut self.wanted, change.value);
                }
                change.added
            });
            if only_joins {
                return;
            }
        }
        self.wanted.clone_from(&self.joined);
        filters.each_match(&self.topic.name, |(_, shards)| {
            shards.iter().for_each(|&shard| insert(&mut self.wanted, shard));
        });
    }

    /// Whether no shard wants its messages now.
    fn is_unwanted(&mut self, filters: &Joined, changes: &Changes<ShardId>) -> bool {
        self.bring_up_to_date(filters, changes);
        self.wanted.is_empty()
    }
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

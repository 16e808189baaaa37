//! A topic's sequencer: the one place that gives its messages their offsets.
//!
//! Every shard has one [`Sequencer`] for the topics that the registry places there. Invariants
//! ([`Sequencer::invariants`]):
//!
//! - offsets of a topic are dense from 1 within its epoch, in the order in which the sequencer took them: `next >= 1`, and
//!   every `epoch < next_epoch` belongs to one topic;
//! - who wants a topic's messages is in `wanted`, which has invariants of its own;
//! - a topic that no shard has joined is in `unused`, once (`may_be_forgotten`);
//! - a topic is kept while somebody would notice that it began anew: while a shard has joined it or a filter that
//!   matches it, while a connection is there to publish to it (`/pub`, `/bus`), while it remembers something ([`history`]), and
//!   [`Limits::topic_idle_timeout`] beyond its last use;
//! - when the registry is nearly full ([`Registry::is_pressed`]), topics that nobody has joined are forgotten before
//!   their time, and although a filter matches them, those first that were used once and longest ago: else one
//!   subscription of `#`, or somebody who begins topics without end, could fill the table for ever. A topic that was
//!   forgotten begins anew with another epoch, and so does one that is purged (`purge`).
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
mod rules;
#[cfg(test)]
mod tests;
mod topic;
mod topics;
pub mod walk;
mod wanted;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crossbeam::utils::CachePadded;
use ring::Nanos;
use rustc_hash::FxHashMap;

use crate::capacity::budget::{Account, Charge, Held};
use crate::ids::{Epoch, Offset, ShardId, TopicId};
use crate::message::options::{PublishOptions, Refusal};
use crate::message::{Message, Payload};
use crate::sequencer::audience::Audience;
use crate::sequencer::ledger::{HistoryLimits, Ledger, StateTotals};
use crate::sequencer::rules::KnownRules;
use crate::sequencer::topic::Topic;
use crate::sequencer::topics::{Place, Topics};
use crate::sequencer::wanted::{Joined, insert, remove};
use crate::topics::filters::Filters;
use crate::topics::keys::Keys;
use crate::topics::matches::{Change, Changes};
use crate::topics::registry::{Registry, TopicRef};

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
    topics: Topics,
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
    stateful: BTreeSet<ByName>,
    /// When the last message was sequenced: no two have the same time.
    last_at: Nanos,
    /// The numbers of the leases in force, by topic.
    leases: FxHashMap<TopicId, u64>,
    /// The time of day at the beginning of this turn, in milliseconds since 1970.
    time_ms: u64,
    /// Windows that were evicted.
    evicted: u64,
    /// For what histories take besides their messages, as of the beginning of this turn.
    charge: Charge,
    account: Arc<Account>,
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
    /// messages is charged to `account`, and what state takes is counted in `state`, with that of all other sequencers.
    #[must_use]
    pub fn new(
        epoch_base: Epoch,
        limits: SequencerLimits,
        registry: &Registry,
        account: &Arc<Account>,
        state: &Arc<CachePadded<StateTotals>>,
    ) -> Self {
        let keys = registry.keys();
        Self {
            topics: Topics::default(),
            filters: Filters::new(keys),
            changes: Changes::default(),
            audience: Audience::default(),
            unused: VecDeque::new(),
            next_epoch: epoch_base,
            idle_timeout: limits.idle_timeout,
            topics_max: limits.topics_max,
            keys,
            rules: KnownRules::new(registry.rules()),
            ledger: Ledger::new(limits.history, state),
            stateful: BTreeSet::new(),
            last_at: 0,
            leases: FxHashMap::default(),
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
        let place = self.enter(topic, now);
        let Self { topics, rules, ledger, filters, changes, unused, account, leases, .. } = self;
        let held = &mut topics[place];
        let rule = rules.of(held);
        let lease = leases.get(&held.id()).copied();
        match held.admit(rule, ledger, options.as_deref(), payload.weight(), lease, now) {
            Ok(None) => {}
            otherwise => {
                held.list_unused(unused, now + self.idle_timeout);
                let offset = otherwise?.expect("published before");
                return Ok(Sequenced { message: None, epoch: held.epoch, offset, wanted: &[] });
            }
        }
        self.last_at = now.max(self.last_at + 1);
        held.wanted.bring_up_to_date(&held.topic.name, filters, changes);
        let offset = held.next;
        held.next += 1;
        let mut message = Message::new(held.topic.key(), offset, payload, self.last_at).in_epoch(held.epoch);
        if let Some(options) = &mut options {
            message = message.with_options(options, account);
        }
        let message = Arc::new(if rule.stamps_time { message.stamped(self.time_ms, account) } else { message });
        if held.keeps(rule, options.as_deref()) {
            held.remember(rule, ledger, &message, options.as_deref(), self.keys, now);
            self.refresh_lists(place, now);
            self.relieve();
        } else {
            held.list_unused(unused, now + self.idle_timeout);
        }
        let held = &self.topics[place];
        Ok(Sequenced { message: Some(message), epoch: held.epoch, offset, wanted: held.wanted.all() })
    }

    /// How many subscriptions in force, on all shards, match `topic`: as many as its shards have counted by now. For
    /// publishers that ask.
    pub fn subscriptions(&mut self, topic: &TopicRef) -> u32 {
        self.audience.of(topic, &self.filters, self.changes.version())
    }

    /// The same for a topic that is not registered: only filters with wildcards can match it. Cost: a search.
    #[must_use]
    pub fn subscriptions_by_filters(&self, name: &str) -> u32 {
        let mut sum: u32 = 0;
        self.filters.each_match(name, |(filter, _)| sum = sum.saturating_add(filter.subscriptions()));
        sum
    }

    /// Where a topic is: its epoch and the offset that its next message gets. `None`: it is not kept.
    #[must_use]
    pub fn position(&self, topic: TopicId) -> Option<(Epoch, Offset)> {
        self.topics.get(topic).map(|held| (held.epoch, held.next))
    }

    /// `shard` has subscribers of `topic` from now on. Returns the epoch and the offset of its next
    /// message; zeroes for a filter.
    pub fn join(&mut self, topic: TopicRef, shard: ShardId, now: Nanos) -> (Epoch, Offset) {
        if topic.wildcard {
            self.join_filter(topic, shard);
            return (Epoch::default(), Offset::default());
        }
        let place = self.enter(topic, now);
        let held = &mut self.topics[place];
        held.wanted.join(shard);
        (held.epoch, held.next)
    }

    /// `shard` has no more subscribers of `topic`.
    pub fn leave(&mut self, topic: &TopicRef, shard: ShardId, now: Nanos) {
        if topic.wildcard {
            self.leave_filter(topic, shard);
        } else if let Some(held) = self.topics.get_mut(topic.id) {
            held.wanted.leave(shard);
            held.list_unused(&mut self.unused, now + self.idle_timeout);
        }
    }

    /// The lease in force of a topic has this number from now on; `None`: it is free.
    pub fn set_lease(&mut self, topic: TopicId, number: Option<u64>) {
        match number {
            Some(number) => self.leases.insert(topic, number),
            None => self.leases.remove(&topic),
        };
    }

    /// The numbers of the leases in force, by topic.
    #[must_use]
    pub fn leases(&self) -> &FxHashMap<TopicId, u64> {
        &self.leases
    }

    /// Whether any shard has joined this very topic.
    #[must_use]
    pub fn is_joined(&self, topic: TopicId) -> bool {
        self.topics.get(topic).is_some_and(|held| !held.wanted.joined().is_empty())
    }

    /// Checks what always holds: see the file's head. Linear in topics.
    ///
    /// # Errors
    /// What does not hold, and of which topic.
    pub fn invariants(&self) -> Result<(), String> {
        let mut epochs: Vec<Epoch> = self.topics.iter().map(|held| held.epoch).collect();
        epochs.sort_unstable();
        if epochs.windows(2).any(|pair| pair[0] == pair[1])
            || epochs.last().is_some_and(|last| *last >= self.next_epoch)
        {
            return Err("sequencer: an epoch belongs to one topic".to_owned());
        }
        for held in self.topics.iter() {
            let may_be_forgotten = held.may_be_forgotten || held.has_state();
            let rules = [
                ("next >= 1", held.next >= Offset(1)),
                ("not joined, no state: may be forgotten", !held.wanted.joined().is_empty() || may_be_forgotten),
            ];
            let broken = rules.iter().find(|(_, holds)| !holds).map_or(Ok(()), |(rule, _)| Err(*rule));
            if let Err(rule) = broken.and(held.wanted.invariants()) {
                return Err(format!("sequencer, topic {:?}: {rule}", held.topic.name));
            }
        }
        self.history_invariants()?;
        let listed = self.topics.iter().filter(|held| held.may_be_forgotten).count();
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
        self.topics.len() == 0
    }

    /// Makes sure that `topic` is kept. Whoever enters one that nobody has joined lists it ([`Topic::list_unused`]).
    fn enter(&mut self, topic: TopicRef, now: Nanos) -> Place {
        let Self { topics, next_epoch, .. } = self;
        let place = topics.find_or_insert(topic.id, || {
            let epoch = *next_epoch;
            *next_epoch = epoch.next();
            Topic::new(topic, epoch)
        });
        topics[place].used_at = now;
        place
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

/// A topic in the order of names.
#[derive(Debug)]
struct ByName(TopicRef);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

//! What a sequencer does with the histories of its topics: publishes are checked against them and enter them, subscribers are
//! given of them, what is too old or too much goes.
//!
//! Not responsible for what one history consists of ([`history`](crate::sequencer::history)).

use std::sync::Arc;

use ring::Nanos;

use crate::ids::{Epoch, Offset, ShardId};
use crate::message::options::{LeaseClaim, PublishOptions, Refusal};
use crate::message::{Message, Payload};
use crate::sequencer::history::recall::{self, HistoryQuery, Now, Page, Recall, Recalled};
use crate::sequencer::ledger::{Ledger, Usage};
use crate::sequencer::topic::Topic;
use crate::sequencer::topics::Place;
use crate::sequencer::{ByName, Sequencer};
use crate::topics::keys::Keys;
use crate::topics::registry::TopicRef;
use crate::topics::rules::{HistoryKind, Retain, Rule, SlowConsumer};

/// Histories that one turn looks at because something in them may be too old.
const DUE_PER_TURN: usize = 256;
/// A history that was looked at is not looked at again sooner.
const LOOK_AGAIN: Nanos = 1_000_000_000;

/// The idempotency key as it is remembered: those who hold a key to publish with have theirs for themselves.
fn scoped(key: &str, options: &PublishOptions) -> String {
    format!("{}{key}", if options.is_key_holder { '+' } else { '-' })
}

/// Whether what says this of the lease may be published, `current` being the number of the lease in force.
fn check_lease(rule: &Rule, claim: LeaseClaim, current: Option<u64>) -> Result<(), Refusal> {
    let is_current = |number| current == Some(number);
    match claim {
        _ if !rule.is_exclusive => Ok(()),
        LeaseClaim::Exempt => Ok(()),
        LeaseClaim::Number(number) if is_current(number) => Ok(()),
        LeaseClaim::None | LeaseClaim::Number(_) => Err(Refusal::NotHolder),
    }
}

impl Topic {
    fn now(&self, time: Nanos) -> Now {
        Now { epoch: self.epoch, next: self.next, time }
    }

    /// Whether a publish is possible; if it was made before, the offset it got then. If it is possible there is room reserved for
    /// it in the ledger, and [`Topic::remember`] comes next.
    pub(super) fn admit(
        &self,
        rule: &Rule,
        ledger: &mut Ledger,
        options: Option<&PublishOptions>,
        weight: u64,
        lease: Option<u64>,
        now: Nanos,
    ) -> Result<Option<Offset>, Refusal> {
        let is_keyed = self.topic.history == HistoryKind::Keyed;
        if options.is_none() && !is_keyed && rule.retain != Retain::Always && !rule.is_exclusive {
            return Ok(None);
        }
        let weight = weight + Message::extra_bytes(options, rule.stamps_time);
        let none = PublishOptions::default();
        let (options, history) = (options.unwrap_or(&none), &self.history);
        if let Some(key) = &options.idempotency_key
            && let Some(offset) = history.find_duplicate(&scoped(key, options), now)
        {
            return Ok(Some(offset));
        }
        check_lease(rule, options.lease, lease)?;
        history.check(options, weight, rule, self.next, now)?;
        if !ledger.admit(history.growth(options, weight, rule)) {
            return Err(Refusal::Limit(
                "the broker keeps as many keys and retained messages as it may; see --max-keys and --max-history",
            ));
        }
        Ok(None)
    }

    /// Whether something of a message with these options is to be remembered.
    pub(super) fn keeps(&self, rule: &Rule, options: Option<&PublishOptions>) -> bool {
        let is_plain = options.is_none() && rule.retain != Retain::Always;
        !is_plain || self.topic.history != HistoryKind::None
    }

    /// The topic's newest message, published with `options`, enters its history. To be listed then ([`Sequencer::refresh_lists`]).
    pub(super) fn remember(
        &mut self,
        rule: &Rule,
        ledger: &mut Ledger,
        message: &Arc<Message>,
        options: Option<&PublishOptions>,
        keys: Keys,
        now: Nanos,
    ) {
        let history = &mut self.history;
        let before = history.size();
        history.remember(message, rule, options.is_some_and(|options| options.retain), keys);
        if let Some(options) = options
            && let Some(key) = &options.idempotency_key
        {
            history.remember_key(&scoped(key, options), message.offset, keys, now);
        }
        ledger.changed(before, history.size());
        if message.is_removal() && ledger.is_full_of_state() {
            let before = history.size();
            history.forget_removals();
            ledger.changed(before, history.size());
        }
    }
}

impl Sequencer {
    // ---- publishing

    /// It is this time of day, in milliseconds since 1970.
    pub fn set_time(&mut self, time_ms: u64) {
        self.time_ms = time_ms;
    }

    /// Replaces a topic's snapshot.
    ///
    /// # Errors
    /// It is not possible.
    pub fn snapshot(
        &mut self,
        topic: TopicRef,
        up_to: recall::Place,
        payload: Payload,
        lease: LeaseClaim,
        now: Nanos,
    ) -> Result<(), Refusal> {
        let place = self.enter(topic, now);
        let stored = self.store_snapshot(place, up_to, payload, lease, now);
        self.refresh_lists(place, now);
        stored
    }

    fn store_snapshot(
        &mut self,
        place: Place,
        up_to: recall::Place,
        payload: Payload,
        lease: LeaseClaim,
        now: Nanos,
    ) -> Result<(), Refusal> {
        let Self { topics, rules, ledger, leases, .. } = self;
        let held = &mut topics[place];
        if held.topic.history != HistoryKind::Window {
            return Err(Refusal::Unsupported("a snapshot needs a topic with history = \"window\""));
        }
        if rules.of(held).policy.slow_consumer == SlowConsumer::Latest {
            let reason = "a topic with slow-consumer = \"latest\" has no snapshots: its messages replace each other";
            return Err(Refusal::Unsupported(reason));
        }
        check_lease(rules.of(held), lease, leases.get(&held.id()).copied())?;
        if up_to.epoch != held.epoch || up_to.offset >= held.next {
            return Err(Refusal::Conflict { offset: held.next.0 - 1 });
        }
        if let Some(older) = held.history.snapshot_up_to().filter(|older| up_to.offset < *older) {
            return Err(Refusal::Conflict { offset: older.0 });
        }
        let message = Message::new(held.topic.key(), up_to.offset, payload, now).in_epoch(held.epoch).into_snapshot();
        if !ledger.admit(held.history.growth_by_snapshot(message.weight())) {
            return Err(Refusal::Limit("the broker keeps as much state as it may; see --max-keys and --max-history"));
        }
        let before = held.history.size();
        held.history.set_snapshot(Arc::new(message));
        ledger.changed(before, held.history.size());
        Ok(())
    }

    // ---- recalling

    /// What a new subscriber of a topic is given, and where the topic stands.
    pub fn recall(&mut self, topic: TopicRef, recall: Recall, now: Nanos) -> (Epoch, Offset, Recalled) {
        let place = self.enter(topic, now);
        let Self { topics, rules, ledger, .. } = self;
        let held = &mut topics[place];
        let (rule, at) = (rules.of(held), held.now(now));
        let recovery = ledger.limits.recovery_bytes_max;
        let before = held.history.size();
        let recalled = held.history.recall(recall, rule, at, recovery);
        ledger.changed(before, held.history.size());
        self.refresh_lists(place, now);
        (at.epoch, at.next, recalled)
    }

    /// A part of a topic's history, and where the topic stands.
    ///
    /// # Errors
    /// It has none.
    pub fn page(
        &mut self,
        topic: TopicRef,
        query: &HistoryQuery,
        now: Nanos,
    ) -> Result<(Epoch, Offset, Page), Refusal> {
        let place = self.enter(topic, now);
        let Self { topics, rules, ledger, .. } = self;
        let held = &mut topics[place];
        if held.topic.history == HistoryKind::None {
            self.refresh_lists(place, now);
            return Err(Refusal::Unsupported("the topic's rule says history = \"none\""));
        }
        let (rule, at) = (rules.of(held), held.now(now));
        let before = held.history.size();
        let page = held.history.page(query, rule, at);
        ledger.changed(before, held.history.size());
        self.refresh_lists(place, now);
        Ok((at.epoch, at.next, page))
    }

    // ---- forgetting

    /// Publishes what histories take, learns what those of the other shards take, and evicts windows if it is this shard's
    /// turn. Returns the shard whose turn it is, if some have to go and it is another's.
    pub fn keep_within(&mut self, usage: &Usage, id: ShardId) -> Option<ShardId> {
        self.charge.resize(self.ledger.own().overhead_bytes);
        self.ledger.exchange(usage, id);
        while self.ledger.excess() > 0 {
            // The others may have older windows than the oldest here: what is published has to be true.
            self.find_oldest();
            self.ledger.exchange(usage, id);
            match usage.first_to_evict() {
                Some(first) if first == id => {}
                other => return other,
            }
            self.evict_first();
            self.ledger.exchange(usage, id);
        }
        None
    }

    /// Makes the first entry of the list of windows that of the topic that is least recently used.
    fn find_oldest(&mut self) {
        while let Some((at, id)) = self.ledger.take_used() {
            let Some(held) = self.topics.get_mut(id) else { continue };
            if !held.history.is_evictable() {
                held.listed.used = false;
                continue;
            }
            self.ledger.list_used(held.used_at, id);
            if held.used_at <= at {
                return;
            }
        }
    }

    /// The bound is for all shards: a little beyond it, this one does not wait for the others.
    pub(super) fn relieve(&mut self) {
        if self.ledger.excess() <= self.ledger.limits.bytes_max / 16 {
            return;
        }
        while self.ledger.excess() > 0 {
            self.find_oldest();
            if !self.evict_first() {
                return;
            }
        }
    }

    /// Empties the window of the first topic of the list: after [`Sequencer::find_oldest`], the least recently used. Returns
    /// whether there was one.
    fn evict_first(&mut self) -> bool {
        let Some((_, id)) = self.ledger.take_used() else { return false };
        let held = self.topics.get_mut(id).expect("a topic that has a window");
        held.listed.used = false;
        let before = held.history.size();
        held.history.evict();
        self.ledger.changed(before, held.history.size());
        held.history.reset_if_empty();
        self.evicted += 1;
        true
    }

    /// Forgets what is too old, in so many histories.
    pub(super) fn expire_histories(&mut self, now: Nanos) {
        self.rules.refresh();
        for _ in 0..DUE_PER_TURN {
            let Some(id) = self.ledger.take_due(now) else { return };
            let Self { topics, rules, ledger, .. } = self;
            let Some(place) = topics.find(id) else { continue };
            let held = &mut topics[place];
            held.listed.due = false;
            let rule = rules.of(held);
            let before = held.history.size();
            held.history.expire(rule, now);
            ledger.changed(before, held.history.size());
            self.refresh_lists(place, now);
        }
    }

    /// A topic's history has changed: the topic is on the lists that it belongs on.
    pub(super) fn refresh_lists(&mut self, place: Place, now: Nanos) {
        let Self { topics, rules, ledger, stateful, unused, idle_timeout, .. } = self;
        let held = &mut topics[place];
        held.history.reset_if_empty();
        let rule = rules.of(held);
        let has_state = held.has_state();
        if has_state != held.is_stateful {
            held.is_stateful = has_state;
            held.topic.set_stateful(has_state);
            if has_state {
                stateful.insert(ByName(held.topic.clone()));
            } else {
                stateful.remove(&*held.topic.name);
            }
        }
        if !held.listed.used && held.history.is_evictable() {
            held.listed.used = true;
            ledger.list_used(held.used_at, held.id());
        }
        if !held.listed.due
            && let Some(due) = held.history.due(rule)
        {
            held.listed.due = true;
            ledger.list_due(due.max(now + LOOK_AGAIN), held.id());
        }
        held.list_unused(unused, now + *idle_timeout);
    }

    /// What always holds of histories. Linear in what they keep.
    pub(super) fn history_invariants(&self) -> Result<(), String> {
        let mut sum = crate::sequencer::history::Size::default();
        for held in self.topics.iter() {
            let complain = |rule: &str| format!("history of {:?}: {rule}", held.topic.name);
            if held.is_stateful != self.stateful.contains(&*held.topic.name) {
                return Err(complain("it is listed if it has state"));
            }
            let history = &held.history;
            history.invariants(held.next).map_err(complain)?;
            if history.is_evictable() && !held.listed.used {
                return Err(complain("one that can be evicted is listed"));
            }
            sum.add(history.size());
        }
        let (entries, entries_max) = self.ledger.listed(self.topics.len());
        if entries > entries_max {
            return Err(format!("histories: {entries} entries of a list, for {} topics", self.topics.len()));
        }
        if !self.ledger.reserves_nothing() {
            return Err("histories: what was reserved was not used".to_owned());
        }
        if sum == self.ledger.own() {
            Ok(())
        } else {
            Err(format!("histories: {sum:?}, counted {:?}", self.ledger.own()))
        }
    }

    /// Every message that is kept, some more than once.
    pub fn kept(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.topics.iter().flat_map(|held| held.history.kept())
    }

    /// How many topics remember something.
    #[must_use]
    pub fn remembering(&self) -> usize {
        self.topics.iter().filter(|held| !held.history.is_empty()).count()
    }

    /// How many windows were evicted so far.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

//! What a sequencer does with the histories of its topics: publishes are checked against them and enter them, subscribers are
//! given of them, what is too old or too much goes.
//!
//! Not responsible for what one history consists of ([`history`](crate::sequencer::history)).

use std::sync::Arc;

use ring::Nanos;

use crate::ids::{Epoch, Offset, ShardId, TopicId};
use crate::message::options::{PublishOptions, Refusal};
use crate::message::{Message, Payload};
use crate::sequencer::history::History;
use crate::sequencer::history::recall::{HistoryQuery, Now, Page, Place, Recall, Recalled};
use crate::sequencer::ledger::{Ledger, Usage};
use crate::sequencer::{Sequencer, Topic};
use crate::topics::keys::Keys;
use crate::topics::registry::TopicRef;
use crate::topics::rules::{HistoryKind, Retain, Rule, Rules, SharedRules, SlowConsumer};

/// Histories that one turn looks at because something in them may be too old.
const DUE_PER_TURN: usize = 256;
/// A history that was looked at is not looked at again sooner.
const LOOK_AGAIN: Nanos = 1_000_000_000;

/// The rules, as of the beginning of a turn.
#[derive(Debug)]
pub(super) struct KnownRules {
    shared: Arc<SharedRules>,
    current: Arc<Rules>,
    version: u32,
    /// For topics that began under a rule with another kind of history, one of each kind.
    of_kind: [Rule; HistoryKind::ALL.len()],
}

impl KnownRules {
    pub(super) fn new(shared: &Arc<SharedRules>) -> Self {
        let of_kind = HistoryKind::ALL.map(Rule::of_kind);
        // The version first: see [`SharedRules`].
        let version = version_of(shared);
        Self { shared: Arc::clone(shared), current: shared.current(), version, of_kind }
    }

    fn refresh(&mut self) {
        let version = version_of(&self.shared);
        if version != self.version {
            (self.current, self.version) = (self.shared.current(), version);
        }
    }

    /// The rule of a topic. What kind of history a topic has was decided when it began.
    pub(super) fn of(&self, held: &mut Topic) -> &Rule {
        if held.rule_version != self.version {
            held.rule = self.current.rule_of(&held.topic.name);
            held.rule_version = self.version;
        }
        let rule = self.current.get(held.rule);
        if rule.history.kind() == held.topic.history { rule } else { &self.of_kind[held.topic.history as usize] }
    }
}

/// The idempotency key as it is remembered: those who hold a key to publish with have theirs for themselves.
fn scoped(key: &str, options: &PublishOptions) -> String {
    format!("{}{key}", if options.is_key_holder { '+' } else { '-' })
}

/// 0 stands for a topic whose rule was not looked up yet.
fn version_of(rules: &SharedRules) -> u32 {
    (rules.version() as u32).wrapping_add(1).max(1)
}

impl Topic {
    /// Whether it has something that newcomers are shown.
    pub(super) fn has_state(&self) -> bool {
        self.history.as_ref().is_some_and(|history| history.has_state())
    }

    fn now(&self, time: Nanos) -> Now {
        Now { epoch: self.epoch, next: self.next, time }
    }

    /// Whether a publish is possible; if it was made before, the offset it got then.
    pub(super) fn admit(
        &self,
        rule: &Rule,
        ledger: &Ledger,
        options: Option<&PublishOptions>,
        weight: u64,
        now: Nanos,
    ) -> Result<Option<Offset>, Refusal> {
        let is_keyed = self.topic.history == HistoryKind::Keyed;
        if options.is_none() && !is_keyed && rule.retain != Retain::Always {
            return Ok(None);
        }
        let weight = weight + options.map_or(0, Message::extra_bytes);
        let (none, empty) = (PublishOptions::default(), History::default());
        let options = options.unwrap_or(&none);
        let history = self.history.as_deref().unwrap_or(&empty);
        if let Some(key) = &options.idempotency_key
            && let Some(offset) = history.find_duplicate(&scoped(key, options), now)
        {
            return Ok(Some(offset));
        }
        history.check(options, weight, rule, self.next, now)?;
        if !ledger.admits(history.growth(options, weight, rule)) {
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
        let history = self.history.get_or_insert_default();
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
    pub fn snapshot(&mut self, topic: TopicRef, up_to: Place, payload: Payload, now: Nanos) -> Result<(), Refusal> {
        let id = topic.id;
        self.enter(topic, now);
        let Self { topics, rules, ledger, .. } = self;
        let held = topics.get_mut(&id).expect("entered above");
        if held.topic.history != HistoryKind::Window {
            return Err(Refusal::Unsupported("a snapshot needs a topic with history = \"window\""));
        }
        if rules.of(held).policy.slow_consumer == SlowConsumer::Latest {
            let reason = "a topic with slow-consumer = \"latest\" has no snapshots: its messages replace each other";
            return Err(Refusal::Unsupported(reason));
        }
        let older = held.history.as_ref().and_then(|history| history.snapshot_up_to());
        if up_to.epoch != held.epoch || up_to.offset >= held.next || older.is_some_and(|older| up_to.offset < older) {
            return Err(Refusal::Conflict { offset: held.next.0 - 1 });
        }
        let message = Message::new(held.topic.key(), up_to.offset, payload, now).into_snapshot();
        let empty = History::default();
        if !ledger.admits(held.history.as_deref().unwrap_or(&empty).growth_by_snapshot(message.weight())) {
            return Err(Refusal::Limit("the broker keeps as much state as it may; see --max-keys and --max-history"));
        }
        let history = held.history.get_or_insert_default();
        let before = history.size();
        history.set_snapshot(Arc::new(message));
        ledger.changed(before, history.size());
        self.refresh_lists(id, now);
        Ok(())
    }

    // ---- recalling

    /// What a new subscriber of a topic is given, and where the topic stands.
    pub fn recall(&mut self, topic: TopicRef, recall: Recall, now: Nanos) -> (Epoch, Offset, Recalled) {
        let id = topic.id;
        self.enter(topic, now);
        let Self { topics, rules, ledger, .. } = self;
        let held = topics.get_mut(&id).expect("entered above");
        let (rule, at) = (rules.of(held), held.now(now));
        let recovery = ledger.limits.recovery_bytes_max;
        let recalled = match &mut held.history {
            None => History::default().recall(recall, rule, at, recovery),
            Some(history) => {
                let before = history.size();
                let recalled = history.recall(recall, rule, at, recovery);
                ledger.changed(before, history.size());
                recalled
            }
        };
        self.refresh_lists(id, now);
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
        let id = topic.id;
        self.enter(topic, now);
        let Self { topics, rules, ledger, .. } = self;
        let held = topics.get_mut(&id).expect("entered above");
        if held.topic.history == HistoryKind::None {
            return Err(Refusal::Unsupported("the topic's rule says history = \"none\""));
        }
        let (rule, at) = (rules.of(held), held.now(now));
        let page = match &mut held.history {
            None => History::default().page(query, rule, at),
            Some(history) => {
                let before = history.size();
                let page = history.page(query, rule, at);
                ledger.changed(before, history.size());
                page
            }
        };
        self.refresh_lists(id, now);
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
            let Some(held) = self.topics.get_mut(&id) else { continue };
            if !held.history.as_ref().is_some_and(|history| history.is_evictable()) {
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
        let held = self.topics.get_mut(&id).expect("a topic that has a window");
        held.listed.used = false;
        let history = held.history.as_mut().expect("a topic that has a window");
        let before = history.size();
        history.evict();
        self.ledger.changed(before, history.size());
        self.evicted += 1;
        if history.is_empty() {
            held.history = None;
        }
        true
    }

    /// Forgets what is too old, in so many histories.
    pub(super) fn expire_histories(&mut self, now: Nanos) {
        self.rules.refresh();
        for _ in 0..DUE_PER_TURN {
            let Some(id) = self.ledger.take_due(now) else { return };
            let Self { topics, rules, ledger, .. } = self;
            let Some(held) = topics.get_mut(&id) else { continue };
            held.listed.due = false;
            let rule = rules.of(held);
            let Some(history) = &mut held.history else { continue };
            let before = history.size();
            history.expire(rule, now);
            ledger.changed(before, history.size());
            self.refresh_lists(id, now);
        }
    }

    /// A topic's history has changed: it is on the lists that it belongs on, and forgotten if it is empty.
    pub(super) fn refresh_lists(&mut self, id: TopicId, now: Nanos) {
        let Self { topics, rules, ledger, stateful, unused, idle_timeout, .. } = self;
        let Some(held) = topics.get_mut(&id) else { return };
        if held.history.as_ref().is_some_and(|history| history.is_empty()) {
            held.history = None;
        }
        let rule = rules.of(held);
        let has_state = held.has_state();
        if has_state != held.is_stateful {
            held.is_stateful = has_state;
            held.topic.set_stateful(has_state);
            if has_state {
                stateful.insert(Arc::clone(&held.topic.name), id);
            } else {
                stateful.remove(&held.topic.name);
            }
        }
        if let Some(history) = &held.history {
            if !held.listed.used && history.is_evictable() {
                held.listed.used = true;
                ledger.list_used(held.used_at, id);
            }
            if !held.listed.due
                && let Some(due) = history.due(rule)
            {
                held.listed.due = true;
                ledger.list_due(due.max(now + LOOK_AGAIN), id);
            }
        }
        held.list_unused(unused, now + *idle_timeout);
    }

    /// What always holds of histories. Linear in what they keep.
    pub(super) fn history_invariants(&self) -> Result<(), String> {
        let mut sum = crate::sequencer::history::Size::default();
        for held in self.topics.values() {
            let complain = |rule: &str| format!("history of {:?}: {rule}", held.topic.name);
            if held.is_stateful != self.stateful.contains_key(&held.topic.name) {
                return Err(complain("it is listed if it has state"));
            }
            let Some(history) = &held.history else { continue };
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
        if sum == self.ledger.own() {
            Ok(())
        } else {
            Err(format!("histories: {sum:?}, counted {:?}", self.ledger.own()))
        }
    }

    /// Every message that is kept, some more than once.
    pub fn kept(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.topics.values().filter_map(|held| held.history.as_ref()).flat_map(|history| history.kept())
    }

    /// How many topics remember something.
    #[must_use]
    pub fn remembering(&self) -> usize {
        self.topics.values().filter(|held| held.history.is_some()).count()
    }

    /// How many windows were evicted so far.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

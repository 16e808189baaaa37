//! Sequenced messages get into the logs of their topic and of the filters that match it, so many a turn.
//!
//! A message that thousands of filters match is appended over several turns: meanwhile it waits here with its topic's
//! later messages, so that a topic's order holds in every log, and other topics go on. Its publishers wait until all of
//! its messages are in their logs, and so do the sequencer's answers about it, which tell of those messages.
//!
//! Also here: congestion. A log that is far behind makes the publishers of its topics wait, on whatever shard they are
//! ([`Topic::is_congested`](crate::topics::registry::Topic::is_congested)), and nobody else.
//!
//! Cost per message: one look-up, and one append per log.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::ids::{LogSlot, TopicId};
use crate::message::Message;
use crate::shard::asked::RecallAnswer;
use crate::shard::fanout::FanOut;
use crate::topics::registry::{Congestion, TopicRef};

/// Appends of one turn.
const APPENDS_PER_TURN: usize = 2048;
/// Appends of one topic in a turn while others wait too.
const SLICE: usize = 256;
/// Bytes of messages that may wait here before nothing more is taken from other shards.
const WAITING_BYTES_MAX: u64 = 4 << 20;

/// Messages that wait to be appended.
#[derive(Default, Debug)]
pub(in crate::shard) struct Appends {
    topics: FxHashMap<TopicId, Waiting>,
    /// Those topics, in the order of their turns.
    order: VecDeque<TopicId>,
    /// What the waiting messages weigh.
    bytes: u64,
    /// Appends that are left in this turn.
    left: usize,
}

/// One topic's messages.
#[derive(Debug)]
struct Waiting {
    /// Its publishers wait for as long as anything waits here.
    _congestion: Congestion,
    /// Oldest first, each with the number of its arrival.
    messages: VecDeque<(u64, Arc<Message>)>,
    /// The logs that the first one still has to get into: a log's slot and the number of its join, by which a slot that
    /// was given to another log meanwhile is recognised.
    logs: Option<std::vec::IntoIter<(LogSlot, u64)>>,
    /// What the sequencer answered behind these messages.
    answers: Vec<RecallAnswer>,
}

impl Appends {
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// What the waiting messages weigh.
    pub(in crate::shard) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether messages may come from elsewhere.
    pub(in crate::shard) fn has_room(&self) -> bool {
        self.bytes < WAITING_BYTES_MAX
    }

    /// Keeps an answer about a topic until the messages that came before it are in their logs. Returns it if none waits.
    pub(in crate::shard) fn keep_behind(&mut self, topic: TopicId, answer: RecallAnswer) -> Option<RecallAnswer> {
        match self.topics.get_mut(&topic) {
            Some(waiting) => {
                waiting.answers.push(answer);
                None
            }
            None => Some(answer),
        }
    }

    fn wait(&mut self, arrival: u64, message: &Arc<Message>, topic: impl FnOnce() -> TopicRef) {
        self.bytes += message.weight();
        let waiting = self.topics.entry(message.topic_id).or_insert_with(|| {
            self.order.push_back(message.topic_id);
            Waiting { _congestion: Congestion::of(topic()), messages: VecDeque::new(), logs: None, answers: Vec::new() }
        });
        waiting.messages.push_back((arrival, Arc::clone(message)));
    }
}

impl FanOut {
    /// Appends a message to the logs of its topic and of the filters that match it, at once or as soon as it has its turn.
    pub(in crate::shard) fn append(&mut self, message: &Arc<Message>) {
        self.arrivals += 1;
        if !self.appends.topics.contains_key(&message.topic_id) {
            let own = self.logs.slot_of(message.topic_id);
            let filters = self.matches.of(message.topic_id, &message.topic);
            let logs = usize::from(own.is_some()) + filters.len();
            if logs <= self.appends.left.max(1) {
                self.appends.left = self.appends.left.saturating_sub(logs);
                let mut wanted = false;
                for slot in own.into_iter().chain(filters.iter().copied()) {
                    wanted |= self.append_to(slot, message);
                }
                self.stats().unsubscribed_messages.add(u64::from(!wanted));
                return;
            }
        }
        let registry = &self.shared.registry;
        self.appends.wait(self.arrivals, message, || registry.resolve(&message.topic));
    }

    /// Goes on with what waits; called once a turn. Returns the answers that need wait no longer.
    pub(in crate::shard) fn append_waiting(&mut self) -> Vec<RecallAnswer> {
        self.append_up_to(APPENDS_PER_TURN)
    }

    /// Goes on with so many appends; what comes later in the turn gets what is left of them. Returns the answers that need
    /// wait no longer.
    fn append_up_to(&mut self, appends: usize) -> Vec<RecallAnswer> {
        let mut answers = Vec::new();
        self.appends.left = appends;
        while self.appends.left > 0
            && let Some(id) = self.appends.order.pop_front()
        {
            let slice = if self.appends.order.is_empty() { self.appends.left } else { SLICE.min(self.appends.left) };
            let mut waiting = self.appends.topics.remove(&id).expect("a topic in the order waits");
            let used = self.append_some(&mut waiting, slice);
            self.appends.left -= used.min(self.appends.left);
            if waiting.messages.is_empty() {
                answers.append(&mut waiting.answers);
                drop(waiting);
                self.wake_publishers();
            } else {
                self.appends.topics.insert(id, waiting);
                self.appends.order.push_back(id);
            }
        }
        answers
    }

    /// Appends messages that are in some of their logs to the others among `own`, a connection's, so that all its
    /// subscriptions stand at the same message of every topic.
    pub(in crate::shard) fn append_begun(&mut self, own: &FxHashSet<LogSlot>) {
        let mut begun = Vec::new();
        for waiting in self.appends.topics.values_mut() {
            let (Some(logs), Some((_, message))) = (waiting.logs.take(), waiting.messages.front()) else { continue };
            let (now, later): (Vec<_>, Vec<_>) = logs.partition(|(slot, _)| own.contains(slot));
            begun.extend(now.into_iter().map(|log| (log, Arc::clone(message))));
            waiting.logs = Some(later.into_iter());
        }
        self.appends.left = self.appends.left.saturating_sub(begun.len());
        for ((slot, join), message) in begun {
            if self.logs.get(slot).is_some_and(|log| log.join == join) {
                self.append_to(slot, &message);
            }
        }
    }

    /// Of each topic the first message that is still to come to the log in `slot`.
    pub(in crate::shard) fn first_to_come(&self, slot: LogSlot) -> impl Iterator<Item = &Arc<Message>> {
        let slot = self.anchor_of(slot);
        let log = &self.logs[slot];
        self.appends.topics.values().filter_map(move |waiting| {
            let (_, first) = waiting.messages.front()?;
            if !protocol::topic::matches(&log.topic.name, &first.topic) {
                return None;
            }
            let has_first = waiting.logs.as_ref().is_some_and(|logs| !logs.as_slice().contains(&(slot, log.join)));
            let mut others = waiting.messages.iter().skip(usize::from(has_first));
            others.find(|(arrival, _)| *arrival > log.joined_at).map(|(_, message)| message)
        })
    }

    /// Whether a message waits that belongs into one of these logs.
    pub(in crate::shard) fn waits_for_any(&mut self, own: &FxHashSet<LogSlot>) -> bool {
        let Self { appends, logs, matches, .. } = self;
        appends.topics.values().filter_map(|waiting| waiting.messages.front()).any(|(_, message)| {
            // Delivery groups get what their anchor gets.
            let exact = logs.slot_of(message.topic_id).is_some_and(|slot| own.contains(&slot));
            exact || matches.of(message.topic_id, &message.topic).iter().any(|slot| own.contains(slot))
        })
    }

    /// Makes up to `slice` appends of one topic. Returns how many it made, at least 1.
    fn append_some(&mut self, waiting: &mut Waiting, slice: usize) -> usize {
        let mut used = 0;
        while used < slice
            && let Some((arrival, message)) = waiting.messages.front().cloned()
        {
            let mut logs = match waiting.logs.take() {
                Some(logs) => logs,
                None => self.logs_of(&message, arrival),
            };
            while used < slice
                && let Some((slot, join)) = logs.next()
            {
                used += 1;
                if self.logs.get(slot).is_some_and(|log| log.join == join) {
                    self.append_to(slot, &message);
                }
            }
            if logs.len() > 0 {
                waiting.logs = Some(logs);
                break;
            }
            used += 1;
            self.appends.bytes -= message.weight();
            waiting.messages.pop_front();
        }
        used.max(1)
    }

    /// The logs that a message belongs to, as [`Waiting::logs`] keeps them: not those that were joined after it came, for
    /// what was sequenced between the two is not theirs either.
    fn logs_of(&mut self, message: &Message, arrival: u64) -> std::vec::IntoIter<(LogSlot, u64)> {
        let own = self.logs.slot_of(message.topic_id);
        let filters = self.matches.of(message.topic_id, &message.topic);
        let live = own.into_iter().chain(filters.iter().copied()).filter_map(|slot| {
            let log = &self.logs[slot];
            (log.joining == 0 && log.joined_at < arrival).then_some((slot, log.join))
        });
        live.collect::<Vec<_>>().into_iter()
    }

    fn append_to(&mut self, slot: LogSlot, message: &Arc<Message>) -> bool {
        let log = &self.logs[slot];
        let is_known = match message.begins() {
            Some(epoch) => epoch <= log.epoch,
            None => message.offset < log.next_offset,
        };
        if log.joining > 0 || (!log.topic.wildcard && is_known) {
            // Sequenced before the join that is under way, or known to the sequencers that answered already:
            // the subscription begins later.
            return false;
        }
        let groups = log.groups.len();
        let mut is_wanted = self.append_to_one(slot, message);
        for at in 0..groups {
            is_wanted |= self.append_to_one(self.logs[slot].groups[at], message);
        }
        is_wanted
    }

    /// The same with this log alone. Returns whether it has subscribers.
    fn append_to_one(&mut self, slot: LogSlot, message: &Arc<Message>) -> bool {
        let log = &mut self.logs[slot];
        let kept = log.kept_bytes();
        log.append(Arc::clone(message));
        let is_wanted = !log.is_empty();
        self.log_bytes = self.log_bytes - kept + log.kept_bytes();
        self.on_appended(slot);
        let log = &self.logs[slot];
        if log.congested {
            self.mark(slot, message);
        } else if log.undelivered_bytes() > log.policy.bytes_max / 2 {
            self.congest(slot);
            self.mark(slot, message);
        }
        is_wanted
    }

    // ---- congestion

    /// Publishers of whatever comes to this log wait from now on.
    pub(in crate::shard) fn congest(&mut self, slot: LogSlot) {
        let log = &mut self.logs[slot];
        if log.congested {
            return;
        }
        log.congested = true;
        self.congested_logs += 1;
        if !log.topic.wildcard {
            log.marked.insert(log.topic.id, Congestion::of(log.topic.clone()));
        }
    }

    /// A message came to a congested log: its topic's publishers wait, too.
    fn mark(&mut self, slot: LogSlot, message: &Message) {
        let log = &mut self.logs[slot];
        if let Entry::Vacant(place) = log.marked.entry(message.topic_id) {
            place.insert(Congestion::of(self.shared.registry.resolve(&message.topic)));
        }
    }

    /// Ends the congestion of a log once it is near enough.
    pub(in crate::shard) fn relieve(&mut self, slot: LogSlot) {
        if let Some(log) = self.logs.get(slot)
            && log.congested
            && log.awaited == 0
            && log.undelivered_bytes() <= log.policy.bytes_max / 4
        {
            self.end_congestion(slot);
        }
    }

    /// Ends the congestion of a log, because it is near enough or goes.
    pub(in crate::shard) fn end_congestion(&mut self, slot: LogSlot) {
        let Some(log) = self.logs.get_mut(slot).filter(|log| log.congested) else { return };
        log.congested = false;
        self.congested_logs -= 1;
        log.marked = FxHashMap::default();
        self.wake_publishers();
    }

    /// Whether publishers of this shard that waited for a topic may go on, since that was last asked.
    pub(in crate::shard) fn take_relieved(&mut self) -> bool {
        std::mem::take(&mut self.relieved)
    }

    /// The same, not taken.
    pub(in crate::shard) fn has_relieved(&self) -> bool {
        self.relieved
    }

    /// Publishers that waited for a topic may go on, on whatever shard they are.
    fn wake_publishers(&mut self) {
        self.relieved = true;
        for inbox in &self.shared.inboxes {
            inbox.wake();
        }
    }
}

//! From a sequenced message to the sends of its subscribers.
//!
//! | file | step |
//! | --- | --- |
//! | `append` | messages get into logs; congested topics |
//! | `logs`, `log` | what waits for the subscribers of one topic or filter |
//! | `deliver` | delivery rounds: one send carries all that waits |
//! | `take`, `parts` | what one send takes, and its frames |
//! | `timing` | when the rounds of logs with a throttle are opened |
//! | `timed` | sends that are measured |
//! | `lag` | subscribers that are far behind |
//! | `skip` | those that go on with newer messages |
//!
//! `FanOut` holds the logs and their queues. It knows subscribers by their connection's id and key, and nothing of
//! connections.

pub(crate) mod append;
pub(crate) mod deliver;
pub(crate) mod lag;
pub mod log;
pub(crate) mod logs;
pub mod parts;
pub(crate) mod skip;
pub(crate) mod take;
pub(crate) mod timed;
pub(crate) mod timing;

use std::collections::VecDeque;
use std::sync::Arc;

use ring::ConnId;

use crate::capacity::budget::Account;
use crate::config::limits::Limits;
use crate::ids::{Epoch, LogSlot, Offset, ShardId, TopicId};
use crate::observe::counters::Stats;
use crate::shard::fanout::append::Appends;
use crate::shard::fanout::lag::Awaited;
use crate::shard::fanout::log::behind::LagPolicy;
use crate::shard::fanout::log::{Log, Subscriber};
use crate::shard::fanout::logs::Logs;
use crate::shard::fanout::skip::Gaps;
use crate::shard::fanout::timing::Timing;
use crate::shard::shared::SharedState;
use crate::topics::keys::Keys;
use crate::topics::matches::Matches;
use crate::topics::registry::TopicRef;
use crate::topics::rules::Throttle;

/// The logs of one shard, and what is to be done with them.
///
/// Invariants: `log_bytes` = bytes that all logs keep, and `congested_logs` = logs that are congested (the audit checks
/// both); a log is in `pending` or `fresh`, once, exactly while its `queued` is set.
pub(in crate::shard) struct FanOut {
    id: ShardId,
    shared: Arc<SharedState>,
    limits: Arc<Limits>,
    account: Arc<Account>,
    pub(in crate::shard) logs: Logs,
    /// Logs of filters with wildcards, and which of them match a topic.
    matches: Matches<LogSlot>,
    /// The number that the next log gets.
    next_number: u64,
    /// Messages that have come for logs of this shard.
    arrivals: u64,
    /// Logs with pending messages, each once, here or in `fresh`. Slots whose log is gone are passed over.
    pending: VecDeque<LogSlot>,
    /// Those that had nothing pending before.
    fresh: VecDeque<LogSlot>,
    /// Logs to be trimmed at the end of this turn's deliveries.
    delivered_logs: Vec<LogSlot>,
    /// Subscribers that took another's index in a log, to be delivered to out of turn.
    moved: Vec<(LogSlot, Subscriber)>,
    /// For so many turns more, turns are short: see `deliver`.
    pub(in crate::shard) short_turns: u32,
    /// Connections that this turn's delivery rounds found too slow: to be closed once they are over; of which topic or
    /// filter, and how many bytes wait.
    too_slow: Vec<(ConnId, Arc<str>, u64)>,
    /// Logs whose publishers have to wait.
    pub(in crate::shard) congested_logs: usize,
    /// Whether publishers that waited may go on, since that was last asked.
    relieved: bool,
    awaited: Awaited,
    gaps: Gaps,
    timing: Timing,
    /// Bytes that all logs keep.
    pub(in crate::shard) log_bytes: u64,
    pub(in crate::shard) appends: Appends,
}

impl FanOut {
    pub(in crate::shard) fn new(
        id: ShardId,
        shared: &Arc<SharedState>,
        limits: &Arc<Limits>,
        account: &Arc<Account>,
    ) -> Self {
        Self {
            id,
            shared: Arc::clone(shared),
            limits: Arc::clone(limits),
            account: Arc::clone(account),
            logs: Logs::default(),
            matches: Matches::new(shared.registry.keys()),
            next_number: 0,
            arrivals: 0,
            pending: VecDeque::new(),
            fresh: VecDeque::new(),
            delivered_logs: Vec::new(),
            moved: Vec::new(),
            short_turns: 0,
            too_slow: Vec::new(),
            congested_logs: 0,
            relieved: false,
            gaps: Gaps::default(),
            timing: Timing::new(account),
            awaited: Awaited::default(),
            log_bytes: 0,
            appends: Appends::default(),
        }
    }

    fn stats(&self) -> &Stats {
        &self.shared.stats[usize::from(self.id)]
    }

    /// Whether the next turn has something to do here.
    pub(in crate::shard) fn has_work(&self) -> bool {
        !self.has_delivered() || !self.moved.is_empty() || !self.delivered_logs.is_empty() || !self.appends.is_empty()
    }

    /// Whether every log's subscribers have had their turn since its last message.
    pub(in crate::shard) fn has_delivered(&self) -> bool {
        self.pending.is_empty() && self.fresh.is_empty()
    }

    /// When somebody that publishers wait for may have to be given up, or a round is due.
    pub(in crate::shard) fn next_deadline(&self) -> Option<ring::Nanos> {
        self.awaited.next().into_iter().chain(self.timing.next()).min()
    }

    // ---- logs

    /// A log for a topic or filter that has none. It waits for the answers of `sequencers` to a join, whose number is
    /// returned as well.
    pub(in crate::shard) fn open_log(&mut self, topic: &TopicRef, sequencers: u16) -> (LogSlot, u64) {
        let join = self.take_number();
        let policy = LagPolicy::new(self.shared.rules.current().policy_of(&topic.name), self.limits.lag_bytes_max);
        let slot = self.logs.insert(Log::new(topic.clone(), (sequencers, join), policy, self.keys(), &self.account));
        if topic.wildcard {
            self.matches.insert(Arc::clone(&topic.name), slot);
        }
        (slot, join)
    }

    /// The log for subscribers of a topic or filter, which has the log `anchor`, that are delivered to no more often than
    /// `throttle` says.
    pub(in crate::shard) fn open_group(&mut self, anchor: LogSlot, throttle: Throttle) -> LogSlot {
        let log = &self.logs[anchor];
        if throttle <= log.policy.throttle {
            return anchor;
        }
        if let Some(group) = log.groups.iter().find(|group| self.logs[**group].policy.throttle == throttle) {
            return *group;
        }
        let policy = LagPolicy { throttle, ..log.policy };
        let mut group = Log::new(log.topic.clone(), (log.joining, log.join), policy, self.keys(), &self.account);
        group.anchor = Some(anchor);
        (group.epoch, group.next_offset, group.joined_at) = (log.epoch, log.next_offset, log.joined_at);
        group.number = self.take_number();
        self.logs.insert(group)
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn keys(&self) -> Keys {
        self.shared.registry.keys()
    }

    /// The log that messages of a log's topic or filter come to first.
    pub(in crate::shard) fn anchor_of(&self, slot: LogSlot) -> LogSlot {
        self.logs[slot].anchor.unwrap_or(slot)
    }

    /// A sequencer answered the join of a topic or filter. With the last answer its logs are joined, and the subscribers that
    /// waited for that are returned.
    pub(in crate::shard) fn joined(
        &mut self,
        topic: TopicId,
        join: u64,
        epoch: Epoch,
        next: Offset,
    ) -> Vec<(LogSlot, Subscriber)> {
        let Some(anchor) = self.logs.slot_of(topic) else { return Vec::new() };
        if self.logs[anchor].join != join {
            return Vec::new(); // the answer to a join that was left again since
        }
        let mut waiting = Vec::new();
        for slot in self.with_groups(anchor) {
            let log = &mut self.logs[slot];
            log.joining -= 1;
            if log.joining == 0 {
                (log.epoch, log.next_offset, log.joined_at) = (epoch, next, self.arrivals);
                waiting.extend(std::mem::take(&mut log.waiting).into_iter().map(|subscriber| (slot, subscriber)));
            }
        }
        waiting
    }

    /// The logs of a topic or filter: this one, and those of its groups.
    pub(in crate::shard) fn with_groups(&self, anchor: LogSlot) -> Vec<LogSlot> {
        std::iter::once(anchor).chain(self.logs[anchor].groups.iter().copied()).collect()
    }

    /// Takes a subscriber in force out of its log. The one that has its index now is returned: its subscription has to
    /// learn that.
    pub(in crate::shard) fn remove_subscriber(
        &mut self,
        slot: LogSlot,
        index: u32,
        lagged: bool,
    ) -> Option<Subscriber> {
        let log = &mut self.logs[slot];
        let kept = log.kept_bytes();
        let moved = log.remove(index as usize, lagged);
        self.log_bytes -= kept - log.kept_bytes();
        self.moved.extend(moved.map(|moved| (slot, moved)));
        moved
    }

    /// Subscribers of a log have left: removes it if it has none any more. Returns its topic, to be left at its
    /// sequencers, if that has no other log.
    pub(in crate::shard) fn close_unused(&mut self, slot: LogSlot) -> Option<TopicRef> {
        let log = &self.logs[slot];
        if !log.is_empty() || !log.waiting.is_empty() || !log.groups.is_empty() {
            self.delivered_logs.push(slot);
            return None;
        }
        self.end_congestion(slot);
        if let Some(anchor) = self.logs[slot].anchor {
            self.logs.remove(slot);
            return self.close_unused(anchor);
        }
        let topic = self.logs.remove(slot).topic.clone();
        if topic.wildcard {
            self.matches.remove(&topic.name);
        }
        Some(topic)
    }

    /// Subscribers of a log have all that was in it: to be trimmed.
    pub(in crate::shard) fn delivered(&mut self, slot: LogSlot) {
        self.delivered_logs.push(slot);
    }

    /// Frees what all subscribers of the logs that were delivered to have been sent.
    fn trim_delivered(&mut self) {
        for slot in std::mem::take(&mut self.delivered_logs) {
            let Some(log) = self.logs.get_mut(slot) else { continue };
            self.log_bytes -= log.trim();
            self.relieve(slot);
        }
    }
}

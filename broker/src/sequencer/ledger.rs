//! What the histories of one sequencer take together, and which of them has to be looked at next: because something in it
//! is too old, or because there is no room.
//!
//! Bounds hold for all sequencers of the broker together. Each publishes what it takes once a turn ([`Usage`]) and knows what
//! the others took then, so the bounds may be overrun by what the others add within a turn.
//!
//! Both orders are heaps with one entry per topic, whose time may be too early by now: the code that takes an entry puts it back
//! with the right time. So the order is exact, and a publish does not touch it. Entries of topics that were forgotten stay in
//! them until there are more of those than of topics (`Ledger::forgotten`).
//!
//! Cost: nothing per message of a topic that is listed already.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use ring::Nanos;

use crate::ids::{ShardId, TopicId};
use crate::sequencer::history::{Growth, Size};

/// How much all histories of a broker may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryLimits {
    /// Bytes of windows and state.
    pub bytes_max: u64,
    /// Keys, retained messages and snapshots.
    pub entries_max: u64,
    /// Bytes of messages that one subscribe may replay.
    pub recovery_bytes_max: u64,
}

/// What every sequencer of a broker takes, for the others to read.
#[derive(Debug)]
pub struct Usage(Box<[CachePadded<OneUsage>]>);

#[derive(Default, Debug)]
struct OneUsage {
    window_bytes: AtomicU64,
    state_bytes: AtomicU64,
    state_entries: AtomicU64,
    /// When the topic of its windows that is least recently published to was; `u64::MAX`: it has none.
    oldest: AtomicU64,
}

impl Usage {
    /// Of so many sequencers, that have nothing.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        let one = || OneUsage { oldest: AtomicU64::new(u64::MAX), ..OneUsage::default() };
        Self((0..shards).map(|_| CachePadded::new(one())).collect())
    }

    /// Bytes of all windows.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        self.0.iter().map(|one| one.window_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of all state.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.0.iter().map(|one| one.state_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Keys, retained messages and snapshots.
    #[must_use]
    pub fn state_entries(&self) -> u64 {
        self.0.iter().map(|one| one.state_entries.load(Ordering::Relaxed)).sum()
    }

    /// The sequencer that has the window which is to go first.
    #[must_use]
    pub fn first_to_evict(&self) -> Option<ShardId> {
        let times = (0..).zip(self.0.iter()).map(|(id, one)| (one.oldest.load(Ordering::Relaxed), ShardId(id)));
        times.filter(|(at, _)| *at < u64::MAX).min_by_key(|&(at, _)| at).map(|(_, id)| id)
    }
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) limits: HistoryLimits,
    own: Size,
    others: Size,
    due: BinaryHeap<Reverse<(Nanos, TopicId)>>,
    /// By a time at or before the last publish.
    used: BinaryHeap<Reverse<(Nanos, TopicId)>>,
    /// How many topics with an entry were forgotten since the lists had none of such topics.
    stale: usize,
}

/// On which lists a topic is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) due: bool,
    pub(super) used: bool,
}

/// The lists are not cleaned for fewer topics than this.
const STALE_MIN: usize = 64;

impl Ledger {
    pub(super) fn new(limits: HistoryLimits) -> Self {
        Self {
            limits,
            own: Size::default(),
            others: Size::default(),
            due: BinaryHeap::new(),
            used: BinaryHeap::new(),
            stale: 0,
        }
    }

    /// A history takes `after` instead of `before`.
    pub(super) fn changed(&mut self, before: Size, after: Size) {
        let own = &mut self.own;
        own.window_bytes = own.window_bytes + after.window_bytes - before.window_bytes;
        own.state_bytes = own.state_bytes + after.state_bytes - before.state_bytes;
        own.state_entries = own.state_entries + after.state_entries - before.state_entries;
        own.overhead_bytes = own.overhead_bytes + after.overhead_bytes - before.overhead_bytes;
    }

    /// Whether state may become larger by this. What frees as much as it takes always may.
    pub(super) fn admits(&self, growth: Growth) -> bool {
        let (entries, bytes) = (self.own.state_entries + self.others.state_entries, self.state_bytes());
        (growth.entries == 0 || entries + growth.entries <= self.limits.entries_max)
            && (growth.added <= growth.freed || bytes + growth.added - growth.freed <= self.limits.bytes_max)
    }

    /// Whether all there may be is state.
    pub(super) fn is_full_of_state(&self) -> bool {
        self.state_bytes() > self.limits.bytes_max
    }

    fn state_bytes(&self) -> u64 {
        self.own.state_bytes + self.others.state_bytes
    }

    /// Whether windows have to go, and whether much has to.
    pub(super) fn excess(&self) -> u64 {
        let (own, others) = (self.own, self.others);
        (own.window_bytes + own.state_bytes + others.window_bytes + others.state_bytes)
            .saturating_sub(self.limits.bytes_max)
    }

    /// Publishes what this sequencer takes, and reads what the others do.
    pub(super) fn exchange(&mut self, usage: &Usage, id: ShardId) {
        let one = &usage.0[usize::from(id)];
        one.window_bytes.store(self.own.window_bytes, Ordering::Relaxed);
        one.state_bytes.store(self.own.state_bytes, Ordering::Relaxed);
        one.state_entries.store(self.own.state_entries, Ordering::Relaxed);
        let oldest = self.used.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        one.oldest.store(oldest, Ordering::Relaxed);
        self.others = Size {
            window_bytes: usage.window_bytes() - self.own.window_bytes,
            state_bytes: usage.state_bytes() - self.own.state_bytes,
            state_entries: usage.state_entries() - self.own.state_entries,
            overhead_bytes: 0,
        };
    }

    /// Lists a topic to be looked at when something in it is too old.
    pub(super) fn list_due(&mut self, at: Nanos, topic: TopicId) {
        self.due.push(Reverse((at, topic)));
    }

    /// Lists a topic that has a window, by its last publish.
    pub(super) fn list_used(&mut self, at: Nanos, topic: TopicId) {
        self.used.push(Reverse((at, topic)));
    }

    /// The next topic in which something may be too old by `now`.
    pub(super) fn take_due(&mut self, now: Nanos) -> Option<TopicId> {
        let Reverse((at, topic)) = *self.due.peek()?;
        if at > now {
            return None;
        }
        self.due.pop();
        Some(topic)
    }

    /// The topic that may be the least recently published to, and the time by which it is listed.
    pub(super) fn take_used(&mut self) -> Option<(Nanos, TopicId)> {
        self.used.pop().map(|Reverse(entry)| entry)
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Nanos> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// One of the topics was forgotten that was on such lists; so many are left, and `listed` says on which lists one of
    /// them is. Cost: constant, averaged over the topics that are forgotten.
    pub(super) fn forgotten(&mut self, was: Listed, left: usize, listed: impl Fn(TopicId) -> Listed) {
        self.stale += usize::from(was != Listed::default());
        if self.stale > left.max(STALE_MIN) {
            self.stale = 0;
            clean(&mut self.due, |topic| listed(topic).due);
            clean(&mut self.used, |topic| listed(topic).used);
        }
    }

    /// How many entries the longer of both lists has, and how many it may have at most with so many topics.
    pub(super) fn listed(&self, topics: usize) -> (usize, usize) {
        (self.due.len().max(self.used.len()), topics + self.stale)
    }

    /// What the histories of this sequencer take.
    pub(super) fn own(&self) -> Size {
        self.own
    }
}

/// Leaves one entry of each topic that is listed: the earliest, as a topic that was forgotten and began anew may have several.
fn clean(list: &mut BinaryHeap<Reverse<(Nanos, TopicId)>>, is_listed: impl Fn(TopicId) -> bool) {
    let mut entries = std::mem::take(list).into_vec();
    entries.retain(|&Reverse((_, topic))| is_listed(topic));
    entries.sort_unstable_by_key(|&Reverse((at, topic))| (topic, at));
    entries.dedup_by_key(|&mut Reverse((_, topic))| topic);
    entries.shrink_to_fit();
    *list = entries.into();
}

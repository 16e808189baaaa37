//! What the histories of one sequencer take together, and which of them has to be looked at next: because something in it
//! is too old, or because there is no room.
//!
//! Bounds hold for all sequencers of the broker together. State is refused when there is no room, so its bounds are exact: what
//! state is about to take is reserved in counts that all sequencers share ([`StateTotals`]), and corrected to what it takes
//! (`Ledger::changed`). Windows are evicted when there is no room, so their bound is not: each sequencer publishes once a turn
//! what its windows take ([`Usage`]) and knows what those of the others took then.
//!
//! Both orders are heaps with one entry per topic, whose time may be too early by now: the code that takes an entry puts it back
//! with the right time. So the order is exact, and a publish does not touch it. Entries of topics that were forgotten stay in
//! them until there are more of those than of topics (`Ledger::forgotten`).
//!
//! Cost: nothing per message of a topic that is listed already; an atomic addition or two for a change of how much state there is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
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
    /// Bytes of messages that one connection may be replayed at a time.
    pub recovery_bytes_max: u64,
}

/// What the state of all sequencers takes, with what they have reserved for more. Never more than the limits that those give who
/// reserve.
#[derive(Default, Debug)]
pub struct StateTotals {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl StateTotals {
    /// Reserves room for so many more entries and bytes, or nothing. Returns whether there was room for all of it. While a
    /// request for both is refused, another may be that would have fitted.
    fn reserve(&self, entries: u64, bytes: u64, limits: HistoryLimits) -> bool {
        if !reserve(&self.entries, entries, limits.entries_max) {
            return false;
        }
        let fits = reserve(&self.bytes, bytes, limits.bytes_max);
        if !fits {
            change(&self.entries, entries, 0);
        }
        fits
    }
}

/// Adds to a count unless it would be more than `max` then. Adding nothing is always possible.
fn reserve(count: &AtomicU64, added: u64, max: u64) -> bool {
    let sum = |before: u64| before.checked_add(added).filter(|sum| *sum <= max);
    added == 0 || count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

/// Of a count, `before` is `after` now.
fn change(count: &AtomicU64, before: u64, after: u64) {
    if before != after {
        count.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// What every sequencer of a broker takes, for the others to read.
#[derive(Debug)]
pub struct Usage {
    state: Arc<CachePadded<StateTotals>>,
    windows: Box<[CachePadded<OneUsage>]>,
}

#[derive(Default, Debug)]
struct OneUsage {
    window_bytes: AtomicU64,
    /// When the topic of its windows that is least recently published to was; `u64::MAX`: it has none.
    oldest: AtomicU64,
}

impl Usage {
    /// Of so many sequencers, that have nothing.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        let one = || OneUsage { oldest: AtomicU64::new(u64::MAX), ..OneUsage::default() };
        Self { state: Arc::default(), windows: (0..shards).map(|_| CachePadded::new(one())).collect() }
    }

    /// What their state takes, for the sequencers themselves.
    #[must_use]
    pub fn state(&self) -> &Arc<CachePadded<StateTotals>> {
        &self.state
    }

    /// Bytes of all windows.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        self.windows.iter().map(|one| one.window_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of all state.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Keys, retained messages and snapshots.
    #[must_use]
    pub fn state_entries(&self) -> u64 {
        self.state.entries.load(Ordering::Relaxed)
    }

    /// The sequencer that has the window which is to go first.
    #[must_use]
    pub fn first_to_evict(&self) -> Option<ShardId> {
        let times = (0..).zip(self.windows.iter()).map(|(id, one)| (one.oldest.load(Ordering::Relaxed), ShardId(id)));
        times.filter(|(at, _)| *at < u64::MAX).min_by_key(|&(at, _)| at).map(|(_, id)| id)
    }
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) limits: HistoryLimits,
    own: Size,
    /// What is reserved for a change of state that [`Ledger::changed`] learns of next.
    reserved: Reserved,
    state: Arc<CachePadded<StateTotals>>,
    /// Of the other sequencers.
    others_window_bytes: u64,
    due: BinaryHeap<Reverse<(Nanos, TopicId)>>,
    /// By a time at or before the last publish.
    used: BinaryHeap<Reverse<(Nanos, TopicId)>>,
    /// How many topics with an entry were forgotten since the lists had none of such topics.
    stale: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Reserved {
    entries: u64,
    bytes: u64,
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
    /// `state`: what all sequencers take together.
    pub(super) fn new(limits: HistoryLimits, state: &Arc<CachePadded<StateTotals>>) -> Self {
        Self {
            limits,
            own: Size::default(),
            reserved: Reserved::default(),
            state: Arc::clone(state),
            others_window_bytes: 0,
            due: BinaryHeap::new(),
            used: BinaryHeap::new(),
            stale: 0,
        }
    }

    /// A history takes `after` instead of `before`. This is the change that was admitted, if one was and has not been made yet.
    pub(super) fn changed(&mut self, before: Size, after: Size) {
        let Reserved { entries, bytes } = std::mem::take(&mut self.reserved);
        change(&self.state.entries, before.state_entries + entries, after.state_entries);
        change(&self.state.bytes, before.state_bytes + bytes, after.state_bytes);
        let own = &mut self.own;
        own.window_bytes = own.window_bytes + after.window_bytes - before.window_bytes;
        own.state_bytes = own.state_bytes + after.state_bytes - before.state_bytes;
        own.state_entries = own.state_entries + after.state_entries - before.state_entries;
        own.overhead_bytes = own.overhead_bytes + after.overhead_bytes - before.overhead_bytes;
    }

    /// Whether state may become larger by this, which is reserved then: the change has to be made, and be the next one that
    /// [`Ledger::changed`] learns of. What frees as much as it takes always may.
    pub(super) fn admit(&mut self, growth: Growth) -> bool {
        let wanted = Reserved { entries: growth.entries, bytes: growth.added.saturating_sub(growth.freed) };
        let fits = self.state.reserve(wanted.entries, wanted.bytes, self.limits);
        if fits {
            self.reserved = wanted;
        }
        fits
    }

    /// Whether there is more state than there may be, all sequencers together.
    pub(super) fn is_full_of_state(&self) -> bool {
        self.state_bytes() > self.limits.bytes_max
    }

    fn state_bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Whether windows have to go, and whether much has to.
    pub(super) fn excess(&self) -> u64 {
        (self.own.window_bytes + self.others_window_bytes + self.state_bytes()).saturating_sub(self.limits.bytes_max)
    }

    /// Publishes what this sequencer's windows take, and reads what those of the others do.
    pub(super) fn exchange(&mut self, usage: &Usage, id: ShardId) {
        let one = &usage.windows[usize::from(id)];
        one.window_bytes.store(self.own.window_bytes, Ordering::Relaxed);
        let oldest = self.used.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        one.oldest.store(oldest, Ordering::Relaxed);
        self.others_window_bytes = usage.window_bytes() - self.own.window_bytes;
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

    /// Whether nothing is reserved, as it is between two changes.
    pub(super) fn reserves_nothing(&self) -> bool {
        self.reserved == Reserved::default()
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// However many reserve at the same time: all that there is is given out, and no more. What is refused leaves nothing behind.
    #[test]
    fn reservations_of_many_threads_stay_within_the_bounds() {
        let (totals, limits) =
            (StateTotals::default(), HistoryLimits { entries_max: 1_000, bytes_max: 70_000, recovery_bytes_max: 0 });
        let reserve_all = |bytes: u64| (0..5_000).filter(|_| totals.reserve(1, bytes, limits)).count() as u64;
        let given: u64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| reserve_all(100))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread that ends")).sum()
        });
        assert_eq!((given, totals.bytes.load(Ordering::Relaxed)), (700, 70_000));
        assert_eq!(totals.entries.load(Ordering::Relaxed), 700);
        assert_eq!(reserve_all(0), 300, "entries without bytes");
        assert!(!totals.reserve(1, 0, limits) && totals.reserve(0, 0, limits));
    }
}

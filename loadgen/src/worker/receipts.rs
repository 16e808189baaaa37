//! Closed loop: which messages all subscribers of a worker have received, so that streams know when to publish more.
//!
//! Invariant: `counts[n]` is how many subscribers have message `completed + n`, and is below `subscribers` for the first.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::Shared;
use super::client::{Client, UNKNOWN};
use crate::plan::Plan;

/// Missing messages that are remembered, to distinguish late messages from doubled ones.
const MISSED_MAX: usize = 100_000;

/// Closed loop: how many messages of each stream all subscribers of this worker have. Also remembers what clients missed.
pub(super) struct Receipts {
    /// By stream; empty in an open loop.
    streams: Vec<StreamReceipts>,
    /// Messages that were missed and have not come since: client, place, number.
    missed: BTreeSet<(u32, u32, u64)>,
}

#[derive(Clone, Default)]
struct StreamReceipts {
    /// Messages that all subscribers have.
    completed: u64,
    /// Receipts of messages `completed..`.
    counts: VecDeque<u32>,
    /// Subscribers that are waited for.
    subscribers: u32,
}

impl Receipts {
    pub(super) fn new(plan: &Plan, closed: bool) -> Self {
        let streams = if closed { plan.streams as usize } else { 0 };
        Self { streams: vec![StreamReceipts::default(); streams], missed: BTreeSet::new() }
    }

    /// A subscriber was opened. If it joined late, it is waited for from its first message on.
    pub(super) fn joins(&mut self, plan: &Plan, client: &Client) {
        if self.waits_for(client) {
            known(plan, client).for_each(|stream| self.streams[stream as usize].subscribers += 1);
        }
    }

    /// Whether publishing waits for this client; never in an open loop.
    pub(super) fn waits_for(&self, client: &Client) -> bool {
        !self.streams.is_empty() && client.is_waited_for()
    }

    /// A subscriber is no longer waited for. Returns the streams that advanced because of that, and how far they are.
    pub(super) fn leaves(&mut self, plan: &Plan, client: &Client) -> Vec<(u32, u64)> {
        if !self.waits_for(client) {
            return Vec::new();
        }
        let leave = |stream: u32| {
            let receipts = &mut self.streams[stream as usize];
            receipts.subscribers -= 1;
            match receipts.subscribers {
                0 => Some((stream, u64::MAX)),
                _ => receipts.advance().then_some((stream, receipts.completed)),
            }
        };
        known(plan, client).filter_map(leave).collect()
    }

    /// A client misses these messages.
    pub(super) fn miss(&mut self, at: u32, place: u32, numbers: Range<u64>) {
        let gap = numbers.end - numbers.start;
        if self.missed.len() as u64 + gap < MISSED_MAX as u64 {
            self.missed.extend(numbers.map(|number| (at, place, number)));
        }
    }

    /// A message came late: returns whether it was missed before.
    pub(super) fn came_late(&mut self, at: u32, place: u32, number: u64) -> bool {
        self.missed.remove(&(at, place, number))
    }

    /// A connection has ended: what it missed will not come.
    pub(super) fn forget(&mut self, at: u32) {
        if !self.missed.is_empty() {
            let gone: Vec<_> = self.missed.range((at, 0, 0)..=(at, u32::MAX, u64::MAX)).copied().collect();
            for missed in gone {
                self.missed.remove(&missed);
            }
        }
    }

    /// Streams without subscribers here are complete, whatever is published on them.
    pub(super) fn release(&self, plan: &Plan, worker: u32, shared: &Shared) {
        for (stream, receipts) in (0..).zip(&self.streams) {
            if receipts.subscribers == 0 {
                shared.completed[plan.progress_at(worker, stream)].store(u64::MAX, Ordering::Release);
            }
        }
    }

    /// A subscriber has received, or knows that it missed, the messages `from..=to`. Returns how many are complete, if
    /// that changed.
    pub(super) fn received(&mut self, stream: u32, from: u64, to: u64) -> Option<u64> {
        let receipts = self.streams.get_mut(stream as usize)?;
        let last = usize::try_from(to.checked_sub(receipts.completed)?).ok()?;
        // A number far beyond what was published is damage, and counted as such.
        if last > receipts.counts.len() + (1 << 22) {
            return None;
        }
        if last >= receipts.counts.len() {
            receipts.counts.resize(last + 1, 0);
        }
        let first = from.saturating_sub(receipts.completed) as usize;
        receipts.counts.range_mut(first..=last).for_each(|count| *count += 1);
        receipts.advance().then_some(receipts.completed)
    }

    /// A subscriber that joined late has its first message, and is waited for from there on. Returns how many are
    /// complete, if that changed.
    pub(super) fn joined(&mut self, stream: u32, seq: u64) -> Option<u64> {
        let receipts = self.streams.get_mut(stream as usize)?;
        receipts.subscribers += 1;
        if receipts.subscribers == 1 {
            // It is the only one: nobody waits for earlier messages.
            *receipts = StreamReceipts { completed: seq + 1, counts: VecDeque::new(), subscribers: 1 };
            return Some(receipts.completed);
        }
        self.received(stream, 0, seq)
    }
}

/// The streams of which a client knows the next number.
fn known<'a>(plan: &'a Plan, client: &'a Client) -> impl Iterator<Item = u32> + use<'a> {
    let topics = plan.duty(client.role).subscribes;
    let places = client.nexts.all().iter().take(plan.places(&topics)).enumerate();
    let known = places.filter(|(_, next)| **next != UNKNOWN).map(move |(place, _)| plan.stream_at(&topics, place));
    known.filter(|stream| *stream < plan.streams)
}

impl StreamReceipts {
    /// Completes the messages that all have received; returns whether there were any.
    fn advance(&mut self) -> bool {
        let before = self.completed;
        while self.counts.front().is_some_and(|count| *count >= self.subscribers) {
            self.counts.pop_front();
            self.completed += 1;
        }
        self.completed > before
    }
}

//! Bytes to messages: what arrived, whether it is what was published, and in which order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ring::{Dial, Nanos};

use super::client::{Awaits, Client, State, UNKNOWN};
use super::tally::Tally;
use super::{Shared, Worker};
use crate::adapter::{Duty, Topics, Visit};
use crate::clock::{Clock, monotonic};
use crate::plan::{Plan, Role};
use crate::stamp::Stamp;

/// Missing messages that are remembered, to tell a late one from a doubled one.
const MISSED_MAX: usize = 100_000;

/// Closed loop: how far all subscribers of this worker are, stream by stream.
pub(super) struct Progress {
    /// By stream; empty in an open loop.
    streams: Vec<Receipts>,
    /// Messages that were missed, and have not come since: client, place, number.
    missed: BTreeSet<(u32, u32, u64)>,
}

#[derive(Clone, Default)]
struct Receipts {
    /// Messages that all received.
    completed: u64,
    /// Receipts of messages `completed..`.
    counts: VecDeque<u32>,
    /// Subscribers that are waited for.
    heard: u32,
}

impl Progress {
    pub(super) fn new(plan: &Plan, closed: bool) -> Self {
        let streams = if closed { plan.streams as usize } else { 0 };
        Self { streams: vec![Receipts::default(); streams], missed: BTreeSet::new() }
    }

    /// A subscriber is there. One that came late is waited for when it has its first message.
    pub(super) fn joins(&mut self, plan: &Plan, client: &Client) {
        if self.waits_for(client) {
            known(plan, client).for_each(|stream| self.streams[stream as usize].heard += 1);
        }
    }

    /// In an open loop, nobody.
    fn waits_for(&self, client: &Client) -> bool {
        !self.streams.is_empty() && client.is_waited_for()
    }

    /// Streams that got on because this client is not waited for any more, and how far they are now.
    fn leaves(&mut self, plan: &Plan, client: &Client) -> Vec<(u32, u64)> {
        if !self.waits_for(client) {
            return Vec::new();
        }
        let leave = |stream: u32| {
            let receipts = &mut self.streams[stream as usize];
            receipts.heard -= 1;
            match receipts.heard {
                0 => Some((stream, u64::MAX)),
                _ => receipts.get_on().then_some((stream, receipts.completed)),
            }
        };
        known(plan, client).filter_map(leave).collect()
    }

    /// A connection is gone: what it missed will not come.
    pub(super) fn forget(&mut self, at: u32) {
        if !self.missed.is_empty() {
            let gone: Vec<_> = self.missed.range((at, 0, 0)..=(at, u32::MAX, u64::MAX)).copied().collect();
            for missed in gone {
                self.missed.remove(&missed);
            }
        }
    }

    /// Streams that nobody here hears are complete, whatever is published on them.
    pub(super) fn release(&self, plan: &Plan, worker: u32, shared: &Shared) {
        for (stream, receipts) in (0..).zip(&self.streams) {
            if receipts.heard == 0 {
                shared.completed[plan.progress_at(worker, stream)].store(u64::MAX, Ordering::Release);
            }
        }
    }

    /// A subscriber received a message, or knows that it missed it: all from one to another. Says how many are
    /// complete, if that changed.
    fn received(&mut self, stream: u32, from: u64, to: u64) -> Option<u64> {
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
        receipts.get_on().then_some(receipts.completed)
    }

    /// A subscriber that came late has its first message: from there on it is waited for. Says how many are complete.
    fn joined(&mut self, stream: u32, seq: u64) -> Option<u64> {
        let receipts = self.streams.get_mut(stream as usize)?;
        receipts.heard += 1;
        if receipts.heard == 1 {
            // Nobody else: nothing before is anybody's.
            *receipts = Receipts { completed: seq + 1, counts: VecDeque::new(), heard: 1 };
            return Some(receipts.completed);
        }
        self.received(stream, 0, seq)
    }
}

/// Streams of a client of which it knows what comes next.
fn known<'a>(plan: &'a Plan, client: &'a Client) -> impl Iterator<Item = u32> + use<'a> {
    let topics = plan.duty(client.role).subscribes;
    let places = client.nexts.all().iter().take(plan.places(&topics)).enumerate();
    let known = places.filter(|(_, next)| **next != UNKNOWN).map(move |(place, _)| plan.stream_at(&topics, place));
    known.filter(|stream| *stream < plan.streams)
}

impl Receipts {
    /// Completes what all have received; says whether that is more than before.
    fn get_on(&mut self) -> bool {
        let before = self.completed;
        while self.counts.front().is_some_and(|count| *count >= self.heard) {
            self.counts.pop_front();
            self.completed += 1;
        }
        self.completed > before
    }
}

impl<D: Dial> Worker<D> {
    pub(super) fn on_received(&mut self, at: u32, bytes: &[u8]) {
        let now = monotonic();
        let client = &mut self.clients[at as usize];
        self.tally.counts.receives += 1;
        if client.state == State::Upgrading {
            return self.on_answer(at, bytes);
        }
        let subscriber = client.is_subscriber();
        if subscriber {
            self.tally.counts.bytes += bytes.len() as u64;
        }
        if client.state == State::Open && !client.verifies {
            // Bytes that came before the client began to throw them away.
            return self.count_bytes(at, bytes.len() as u64, now);
        }
        let duty = match client.role {
            Role::Client(_) => self.plan.duty(client.role),
            Role::Publisher(_) => Duty::default(),
        };
        let mut inbound = std::mem::take(&mut client.inbound);
        let mut visitor = Visitor {
            plan: &self.plan,
            shared: &self.shared,
            worker: self.index,
            at,
            topics: duty.subscribes,
            client,
            tally: &mut self.tally,
            progress: &mut self.progress,
            advanced: &mut self.publishing.advanced_here,
            replies: &mut self.replies,
            clock: self.plan.clock,
            now,
            window: self.times.map_or((u64::MAX, u64::MAX), |times| {
                (self.plan.clock.unix(times.measure_from), self.plan.clock.unix(times.end))
            }),
            counted: self.times.is_some_and(|times| (times.measure_from..times.end).contains(&now)),
            messages: 0,
            acknowledged: 0,
            end: None,
        };
        self.plan.adapter.feed(&mut inbound, &duty, bytes, &mut visitor);
        let (messages, acknowledged, end) = (visitor.messages, visitor.acknowledged, visitor.end.take());
        self.clients[at as usize].inbound = inbound;
        if messages > 0 {
            self.note_receipt(now);
        }
        if !self.replies.is_empty() {
            let replies = std::mem::take(&mut self.replies);
            self.send(at, replies.clone());
            self.replies = replies;
            self.replies.clear();
        }
        for _ in 0..acknowledged {
            self.on_acknowledged(at);
        }
        match end {
            Some(End::Closed(code)) => self.on_lost(at, code, &format!("closed with {code}")),
            Some(End::Broken(why)) => self.on_broken(at, why),
            None => {}
        }
    }

    /// A closed loop goes on without this client.
    pub(super) fn stop_waiting_for(&mut self, at: u32) {
        for (stream, completed) in self.progress.leaves(&self.plan, &self.clients[at as usize]) {
            if self.shared.complete(&self.plan, self.index, stream, completed) {
                self.publishing.advanced(stream);
            }
        }
    }

    fn on_acknowledged(&mut self, at: u32) {
        let client = &mut self.clients[at as usize];
        match (client.state, client.awaits) {
            (State::Greeting, _) => self.on_open(at),
            (State::Open, Awaits::Unsubscribed) => self.subscribe_again(at),
            (State::Open, Awaits::Subscribed) => {
                client.awaits = Awaits::Nothing;
                self.tally.counts.reopened += 1;
            }
            _ => {}
        }
    }

    pub(super) fn on_discarded(&mut self, at: u32, bytes: u32) {
        let now = self.driver.now();
        self.tally.counts.receives += 1;
        self.tally.counts.bytes += u64::from(bytes);
        self.count_bytes(at, u64::from(bytes), now);
    }

    fn count_bytes(&mut self, at: u32, bytes: u64, now: Nanos) {
        self.clients[at as usize].received += bytes;
        self.tally.counts.discarded += bytes;
        // Less is a ping, not a message.
        if bytes > 16 {
            self.note_receipt(now);
        }
    }

    /// Something that was published has come: was it the first, is it the last so far?
    fn note_receipt(&mut self, now: Nanos) {
        self.heard_at = now;
        let published = self.shared.last_published.load(Ordering::Relaxed);
        let broadcast = &mut self.tally.broadcast;
        if broadcast.published != published {
            *broadcast = super::Broadcast { published, first: now, last: now };
        }
        broadcast.last = now;
    }
}

/// Counts what one read contained.
struct Visitor<'a> {
    plan: &'a Arc<Plan>,
    shared: &'a Shared,
    worker: u32,
    at: u32,
    topics: Topics,
    client: &'a mut Client,
    tally: &'a mut Tally,
    progress: &'a mut Progress,
    /// Streams of this worker's own publishers that got on.
    advanced: &'a mut Vec<u32>,
    replies: &'a mut Vec<u8>,
    clock: Clock,
    now: Nanos,
    /// Messages due from ... to ... count, in stamps' time.
    window: (u64, u64),
    /// Receipts count now.
    counted: bool,
    messages: u64,
    acknowledged: u32,
    end: Option<End>,
}

/// How a stream of bytes ended.
enum End {
    /// With a close frame.
    Closed(u16),
    /// With something that cannot be.
    Broken(String),
}

impl Visitor<'_> {
    fn record(&mut self, latency: u64, sent_ns: u64) {
        self.tally.interval.saturating_record(latency);
        // In an open loop by when it was due, so that what comes late is not left out; in a closed one by when it
        // came: there, nothing is due after the end.
        if (self.window.0..self.window.1).contains(&sent_ns) || (self.counted && sent_ns >= self.window.0) {
            self.tally.latency.saturating_record(latency);
        }
    }

    fn corrupt(&mut self) {
        self.tally.errors.corrupt += 1;
        self.tally.counts.errors += 1;
    }

    /// What a message is to its client.
    fn order(&mut self, place: usize, seq: u64) -> Order {
        let next = self.client.nexts.at(place);
        if seq == *next {
            *next = seq + 1;
            return Order::Next { from: seq };
        }
        if *next == UNKNOWN {
            *next = seq + 1;
            return Order::First;
        }
        let missed = |seq| (self.at, place as u32, seq);
        if seq > *next {
            let from = *next;
            let gap = seq - from;
            self.tally.gaps += gap;
            self.tally.counts.errors += gap;
            if self.progress.missed.len() as u64 + gap < MISSED_MAX as u64 {
                self.progress.missed.extend((from..seq).map(missed));
            }
            *next = seq + 1;
            Order::Next { from }
        } else if self.progress.missed.remove(&missed(seq)) {
            self.tally.gaps -= 1;
            self.tally.errors.reordered += 1;
            Order::Late
        } else {
            self.tally.errors.doubled += 1;
            self.tally.counts.errors += 1;
            Order::Doubled
        }
    }
}

/// What a message is to its client.
enum Order {
    /// The first on this stream that it gets.
    First,
    /// The next one, or one behind it: then those from `from` on are missing.
    Next { from: u64 },
    /// One that was missing.
    Late,
    /// One that it has already.
    Doubled,
}

impl Visit for Visitor<'_> {
    fn ready(&mut self) {
        self.acknowledged += 1;
    }

    fn message(&mut self, stamp: Stamp, intact: bool) {
        let Stamp { stream, seq, sent_ns } = stamp;
        let place = if self.plan.streams == 1 && stream == 0 && self.topics.count == 1 {
            Some(0)
        } else {
            self.plan.place(&self.topics, stream)
        };
        let (Some(place), true) = (place, intact) else { return self.corrupt() };
        let order = self.order(place, seq);
        if matches!(order, Order::Doubled) {
            return;
        }
        self.messages += 1;
        self.tally.counts.messages += 1;
        let latency = self.clock.unix(self.now).saturating_sub(sent_ns).max(1);
        // Who reads late sees late: that says nothing about the server.
        if !self.client.slow {
            self.record(latency, sent_ns);
        }
        if !self.progress.waits_for(self.client) {
            return;
        }
        let completed = match order {
            Order::First => self.progress.joined(stream, seq),
            Order::Next { from } => self.progress.received(stream, from, seq),
            Order::Late | Order::Doubled => None,
        };
        if completed.is_some_and(|completed| self.shared.complete(self.plan, self.worker, stream, completed)) {
            self.advanced.push(stream);
        }
    }

    fn foreign(&mut self) {
        self.corrupt();
    }

    fn ping(&mut self) {
        self.tally.counts.pings += 1;
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.extend_from_slice(bytes);
    }

    fn close(&mut self, code: u16) {
        self.end.get_or_insert(End::Closed(code));
    }

    fn broken(&mut self, why: &str) {
        self.end.get_or_insert_with(|| End::Broken(why.to_owned()));
    }
}

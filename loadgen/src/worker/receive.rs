//! Bytes to messages: what arrived, whether it is what was published, and in which order. What a history adds to that is
//! judged in `recall`, what a policy for slow consumers leaves out in `terms`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ring::{Dial, Nanos};

use super::client::{Awaits, Client, State, UNKNOWN};
use super::past::{Excuses, Member};
use super::receipts::Receipts;
use super::tally::Tally;
use super::{Shared, Worker};
use crate::adapter::{Begin, Duty, Envelope, Position, Protocol, Topics, Visit};
use crate::clock::{Clock, monotonic};
use crate::plan::{Plan, Role};
use crate::stamp::Stamp;

impl<D: Dial> Worker<D> {
    pub(super) fn on_received(&mut self, at: u32, bytes: &[u8]) {
        let now = monotonic();
        let client = &self.clients[at as usize];
        self.tally.counts.receives += 1;
        if client.state == State::Upgrading {
            return self.on_answer(at, bytes);
        }
        if client.is_subscriber() {
            self.tally.counts.bytes += bytes.len() as u64;
        }
        if client.state == State::Open && !client.verifies {
            // Bytes that came before the client began to discard them.
            return self.count_bytes(at, bytes.len() as u64, now);
        }
        let Read { messages, acknowledged, end } = self.read_frames(at, bytes, now);
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

    fn read_frames(&mut self, at: u32, bytes: &[u8], now: Nanos) -> Read {
        let client = &mut self.clients[at as usize];
        let duty = match client.role {
            Role::Client(_) => self.plan.duty(client.role),
            Role::Publisher(_) => Duty::default(),
        };
        let mut inbound = std::mem::take(&mut client.inbound);
        let (member, excuses) = self.past.of(at);
        let mut visitor = Visitor {
            plan: &self.plan,
            shared: &self.shared,
            worker: self.index,
            at,
            topics: duty.subscribes,
            client,
            tally: &mut self.tally,
            receipts: &mut self.receipts,
            member,
            excuses,
            advanced: &mut self.publishing.advanced_here,
            replies: &mut self.replies,
            clock: self.plan.clock,
            only_hears: self.only_hears,
            now,
            began_ns: self.times.map_or(u64::MAX, |times| self.plan.clock.unix(times.begin)),
            window: self.times.map_or((u64::MAX, u64::MAX), |times| {
                (self.plan.clock.unix(times.measure_from), self.plan.clock.unix(times.end))
            }),
            counted: self.times.is_some_and(|times| (times.measure_from..times.end).contains(&now)),
            read: Read::default(),
        };
        self.plan.adapter.feed(&mut inbound, &duty, bytes, &mut visitor);
        let read = visitor.read;
        self.clients[at as usize].inbound = inbound;
        read
    }

    /// A closed loop continues without this client.
    pub(super) fn stop_waiting_for(&mut self, at: u32) {
        for (stream, completed) in self.receipts.leaves(&self.plan, &self.clients[at as usize]) {
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

    /// Notes when the newest publication first and last reached a client here.
    fn note_receipt(&mut self, now: Nanos) {
        self.heard_at = now;
        let published = self.shared.last_published.load(Ordering::Relaxed);
        let broadcast = &mut self.tally.broadcast;
        // Another process published it, and no verifying client here has received it.
        if published == 0 {
            return;
        }
        if broadcast.published != published {
            *broadcast = super::Broadcast { published, first: now, last: now };
        }
        broadcast.last = now;
    }
}

/// Counts what the bytes of one read contain.
pub(super) struct Visitor<'a> {
    pub(super) plan: &'a Arc<Plan>,
    pub(super) shared: &'a Shared,
    worker: u32,
    pub(super) at: u32,
    pub(super) topics: Topics,
    pub(super) client: &'a mut Client,
    pub(super) tally: &'a mut Tally,
    receipts: &'a mut Receipts,
    pub(super) member: &'a mut Option<Box<Member>>,
    pub(super) excuses: &'a mut Excuses,
    /// Streams of this worker's own publishers that advanced.
    advanced: &'a mut Vec<u32>,
    replies: &'a mut Vec<u8>,
    clock: Clock,
    /// No connection of this process publishes.
    only_hears: bool,
    pub(super) now: Nanos,
    /// When publishing began, in the time of stamps.
    pub(super) began_ns: u64,
    /// Messages that were due in this time count; in the time of stamps.
    window: (u64, u64),
    /// Receipts count now.
    counted: bool,
    pub(super) read: Read,
}

/// What the bytes of one read contained.
#[derive(Default)]
pub(super) struct Read {
    pub(super) messages: u64,
    acknowledged: u32,
    end: Option<End>,
}

/// How a stream of bytes ended.
enum End {
    /// With a close frame.
    Closed(u16),
    /// With bytes that the protocol does not allow.
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
        let conflated = self.is_conflated(place);
        let next = self.client.nexts.at(place);
        let hole = if *next == UNKNOWN { 0 } else { seq.saturating_sub(*next) };
        let excused = self.excuses.take(self.at, place as u32, hole);
        if seq == *next {
            *next = seq + 1;
            return Order::Next { from: seq };
        }
        if *next == UNKNOWN {
            *next = seq + 1;
            return Order::First;
        }
        if seq > *next {
            let from = *next;
            let gap = hole - excused;
            if conflated {
                self.tally.terms.conflated += gap;
                *next = seq + 1;
                return Order::Next { from };
            }
            self.tally.gaps += gap;
            self.tally.counts.errors += gap;
            // Where messages have no offsets, nothing else tells it.
            if self.member.is_some() && self.plan.options.protocol == Some(Protocol::Raw) {
                self.tally.history.holes += gap;
            }
            *next = seq + 1;
            if excused == 0 {
                self.receipts.miss(self.at, place as u32, from..seq);
            }
            Order::Next { from }
        } else if conflated {
            self.backwards(place, seq)
        } else if self.receipts.came_late(self.at, place as u32, seq) {
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
pub(super) enum Order {
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
        self.read.acknowledged += 1;
        self.on_ready();
    }

    fn message(&mut self, stamp: Stamp, intact: bool) {
        self.enveloped(stamp, intact, Envelope::default());
    }

    fn enveloped(&mut self, stamp: Stamp, intact: bool, envelope: Envelope) {
        let Stamp { stream, seq, sent_ns } = stamp;
        let place = if self.plan.streams == 1 && stream == 0 && self.topics.count == 1 {
            Some(0)
        } else {
            self.plan.place(&self.topics, stream)
        };
        let intact = intact && envelope.key == self.plan.uses.key(seq);
        let (Some(place), true) = (place, intact) else { return self.corrupt() };
        if envelope.state {
            return self.state(stamp);
        }
        let fault = self.offset(stream, &envelope);
        let order = self.order(place, seq);
        self.judge(fault, &order, seq, envelope.offset > 0);
        if matches!(order, Order::Doubled) {
            return;
        }
        self.read.messages += 1;
        self.tally.counts.messages += 1;
        self.hear(stamp);
        if self.is_replay(place, seq) {
            return;
        }
        if self.counted {
            self.count_delivery(place);
        }
        let latency = self.clock.unix(self.now).saturating_sub(sent_ns).max(1);
        // The latency of a slow reader says nothing about the server.
        if self.client.slow {
            self.tally.slow_heard.insert(self.at, sent_ns);
        } else {
            self.record(latency, sent_ns);
        }
        if self.only_hears {
            self.shared.last_published.fetch_max(self.clock.monotonic_of(sent_ns), Ordering::Relaxed);
        }
        if !self.receipts.waits_for(self.client) {
            return;
        }
        let completed = match order {
            Order::First => self.receipts.joined(stream, seq),
            Order::Next { from } => self.receipts.received(stream, from, seq),
            Order::Late | Order::Doubled => None,
        };
        if completed.is_some_and(|completed| self.shared.complete(self.plan, self.worker, stream, completed)) {
            self.advanced.push(stream);
        }
    }

    fn begun(&mut self, topic: u32, begin: Begin) {
        self.on_begun(topic, begin);
    }

    fn gap(&mut self, topic: u32, from: u64, to: u64) {
        self.on_gap(topic, from, to);
    }

    fn reset(&mut self, topic: u32, position: Position) {
        self.on_reset(topic, position);
    }

    fn state_end(&mut self, _: Option<u32>) {
        self.on_state_end();
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
        self.read.end.get_or_insert(End::Closed(code));
    }

    fn broken(&mut self, why: &str) {
        self.read.end.get_or_insert_with(|| End::Broken(why.to_owned()));
    }
}

//! Delivery rounds: each subscriber of a log with pending messages is sent everything that is pending, in one send.
//!
//! Cost per subscriber: two lookups by index, one increment (the shared [`Gather`]), one operation queued. No
//! allocation, no copy, no lock. Messages that arrive during a round go along with the sends that are still to come, so
//! that under load the sends grow instead of their number.
//!
//! A turn has a budget of work, in sends and their bytes, so that no turn is long. Logs share it in slices, those first
//! that had nothing pending before: a busy topic does not hold up a quiet one.
//!
//! A connection whose send is still in flight is not waited for: it is marked as lagging, and its own
//! completion sends it the rest. What happens to one that is far behind is in [`crate::shard::fanout::lag`].
//!
//! One send of each turn is timed, from its oldest message's sequencing to its completion, and stands for the turn's
//! others: what that costs is one comparison per send.
//!
//! A connection's own frames (answers, pongs, pings, close) go out before data, between sends, and so at
//! frame boundaries only: every send is whole frames.

use std::sync::Arc;

use bytes::Bytes;
use ring::{ConnId, Driver, Gather, Nanos};
use rustc_hash::FxHashMap;

use crate::capacity::budget::Account;
use crate::ids::{LogSlot, Seq};
use crate::message::Encoding;
use crate::observe::counters::{Reason, Scale, Stats};
use crate::shard::Shard;
use crate::shard::fanout::log::{Log, Parts, Subscriber, coalesce};
use crate::shard::transport::connection::{Flags, State};

/// Work of one turn, in sends of up to [`SEND_BYTES`], while several topics have messages: what arrives meanwhile waits
/// this long at most, one or two hundred microseconds, and goes along after.
const SENDS_PER_TURN: u32 = 24;
/// The same while there is one busy topic and no other: nobody waits for shorter turns, which cost a system call each.
const SENDS_PER_TURN_ALONE: u32 = 256;
/// For so many turns after one in which several topics had messages, turns are short.
const SHORT_TURNS: u32 = 2048;
/// A send of this many bytes costs the kernel as much as an empty one; each as many more, once more.
const SEND_BYTES: usize = 16 << 10;
/// Subscribers that have their turn in one turn of the shard, those with nothing to send included.
const DELIVERIES_PER_TURN: u32 = 2048;
/// Sends of one topic in one turn while others wait too.
const SLICE: u32 = 8;
/// Sends under way that are timed. One a turn begins; those that find their sockets full last longer.
const TIMED_MAX: usize = 16;
/// Frames of one connection's several topics are copied together up to this many bytes: for a single
/// send that is cheaper than a vector.
const COPY_BYTES_MAX: usize = 4 << 10;

/// What is left to do in this turn.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::shard) struct Work {
    sends: u32,
    deliveries_left: u32,
    /// Sends made, whatever their bytes.
    made: u32,
}

impl Work {
    fn is_done(self) -> bool {
        self.sends == 0 || self.deliveries_left == 0
    }

    fn charge(&mut self, bytes: usize) {
        let sends = u32::try_from(bytes / SEND_BYTES).unwrap_or(u32::MAX).saturating_add(1);
        self.sends = self.sends.saturating_sub(sends);
        self.made += 1;
    }
}

impl<D: Driver> Shard<D> {
    /// Makes the sends of this turn: first to connections whose own completions or answers wait, then to logs with
    /// pending messages. Each is sure of half of the turn.
    pub(in crate::shard) fn deliver_pending(&mut self) {
        if self.pending.len() + self.fresh.len() > 1 {
            self.short_turns = SHORT_TURNS;
        }
        let sends = if self.short_turns > 0 { SENDS_PER_TURN } else { SENDS_PER_TURN_ALONE };
        self.short_turns = self.short_turns.saturating_sub(1);
        self.work = Work { sends: sends / 2, deliveries_left: DELIVERIES_PER_TURN, made: 0 };
        self.flush_ready();
        self.work.sends += sends / 2;
        self.work.deliveries_left += DELIVERIES_PER_TURN / 2;
        self.deliver_logs();
        self.flush_delivered();
        self.flush_ready();
    }

    fn deliver_logs(&mut self) {
        self.time_next = self.timed.len() < TIMED_MAX;
        let before = self.work.made;
        // Half of what is left goes to logs that had nothing pending before, one slice each, before all others.
        let others = self.work.sends / 2;
        while !self.work.is_done() {
            let next = if self.work.sends > others { self.fresh.pop_front() } else { None };
            let next = next.or_else(|| self.pending.pop_front()).or_else(|| self.fresh.pop_front());
            let Some(slot) = next else { break };
            let alone = self.pending.is_empty() && self.fresh.is_empty();
            let slice = if alone { self.work.sends } else { self.work.sends.min(SLICE) };
            self.deliver_log(slot, slice);
            let Some(log) = self.logs[slot as usize].as_mut() else { continue };
            self.delivered_logs.push(slot);
            log.queued = log.has_pending();
            if log.queued {
                self.pending.push_back(slot);
            }
        }
        if let Some(timed) = self.timed.last_mut().filter(|timed| timed.stands_for == 0) {
            timed.stands_for = u64::from(self.work.made - before);
        }
        self.time_next = false;
        // Subscribers that took the place of one that left: the round may have passed them.
        while let Some((slot, subscriber)) = self.moved.pop() {
            self.deliver_moved(slot, subscriber);
        }
    }

    fn deliver_log(&mut self, slot: LogSlot, slice: u32) {
        let end = self.work.sends - slice;
        while self.work.sends > end && self.work.deliveries_left > 0 {
            // A delivery may close a slow connection, and with the last one the log is gone.
            let Some(log) = self.logs[slot as usize].as_mut() else { break };
            let Some(subscriber) = log.next_in_round() else { break };
            self.work.deliveries_left -= 1;
            self.deliver_to(slot, subscriber);
        }
    }

    fn deliver_moved(&mut self, slot: LogSlot, subscriber: Subscriber) {
        // It may have left, too, since it was moved.
        let Some(conn) = self.conns.get(subscriber.conn) else { return };
        let still = match &conn.v1 {
            Some(v1) => v1.is_live(subscriber.sub, slot),
            None => conn.raw.is_some_and(|raw| raw.log == slot) && !conn.flags.has(Flags::HELD),
        };
        if still {
            self.deliver_to(slot, subscriber);
        }
    }

    /// Sends a subscriber all that waits for it, or notes that it lags.
    fn deliver_to(&mut self, slot: LogSlot, subscriber: Subscriber) {
        let id = subscriber.conn;
        let log = self.logs[slot as usize].as_mut().expect("a log with pending messages");
        let conn = self.conns.get(id).expect("a subscriber is an open connection");
        if conn.v1.is_some() {
            self.deliver_v1(slot, subscriber);
            return;
        }
        let raw = conn.raw.as_mut().expect("a subscriber has a subscription");
        if raw.cursor == log.head() {
            return;
        }
        if conn.flags.has(Flags::SENDING) {
            log.lags(raw.cursor, !conn.flags.has(Flags::LAGGING));
            conn.flags.set(Flags::LAGGING);
            let lag_bytes = log.lag_bytes(raw.cursor);
            self.enforce_lag_limit(slot, subscriber, lag_bytes);
            return;
        }
        if std::mem::take(&mut self.time_next) {
            self.timed.push(Timed::new(id, log, raw.cursor));
        }
        let data = self.take_raw(id);
        let conn = self.conns.get(id).expect("found above");
        let gather = match conn.take_outbox() {
            Some(outbox) => behind(outbox, &data, &self.account),
            None => data,
        };
        self.send(id, gather);
    }

    fn deliver_v1(&mut self, slot: LogSlot, subscriber: Subscriber) {
        let id = subscriber.conn;
        let log = self.logs[slot as usize].as_mut().expect("a log with pending messages");
        let conn = self.conns.get(id).expect("a subscriber is an open connection");
        let v1 = conn.v1.as_mut().expect("a connection with many subscriptions");
        let sub = v1.sub_mut(subscriber.sub);
        if sub.cursor == log.head() {
            return;
        }
        let (cursor, lag_bytes) = (sub.cursor, log.lag_bytes(sub.cursor));
        // It is sent to at the end of the round, with what its other topics have; until then it lags.
        log.lags(sub.cursor, !sub.lagging);
        sub.lagging = true;
        if !sub.dirty {
            sub.dirty = true;
            v1.dirty.push(subscriber.sub);
        }
        if conn.flags.has(Flags::SENDING) || conn.flags.has(Flags::READY) {
            self.enforce_lag_limit(slot, subscriber, lag_bytes);
            return;
        }
        if std::mem::take(&mut self.time_next) {
            self.timed.push(Timed::new(id, log, cursor));
        }
        conn.flags.set(Flags::READY);
        self.work.charge(0);
        self.delivered_ready.push(id);
    }

    // ---- sends of one connection

    /// Has [`Shard::flush`] called for the connection, when it is its turn.
    pub(in crate::shard) fn make_ready(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.flags.has(Flags::SENDING) && !conn.flags.has(Flags::READY) {
            conn.flags.set(Flags::READY);
            self.ready.push_back(id);
        }
    }

    /// Sends to connections whose turn it is, as far as this turn's work goes.
    fn flush_ready(&mut self) {
        while !self.work.is_done()
            && let Some(id) = self.ready.pop_front()
        {
            self.work.deliveries_left -= 1;
            self.flush_one(id);
        }
    }

    /// Sends to connections whose subscriptions had their turn; their sends were charged then.
    fn flush_delivered(&mut self) {
        let mut visited = std::mem::take(&mut self.delivered_ready);
        for id in visited.drain(..) {
            self.flush_one(id);
        }
        self.delivered_ready = visited;
    }

    fn flush_one(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id) {
            conn.flags.clear(Flags::READY);
            self.flush(id);
        }
    }

    /// Sends what waits: own frames first, then data, in one send. With nothing left to send, a closing
    /// connection is shut down.
    pub(in crate::shard) fn flush(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.flags.has(Flags::SENDING) || conn.flags.has(Flags::HELD) || conn.state == State::Gone {
            return;
        }
        if conn.flags.take(Flags::PING_DUE) && conn.state == State::Open {
            let ping = self.ping.parts()[0].clone();
            conn.extra(&self.account).outbox.extend(&ping);
            // The time for its answer begins now.
            let wait = self.limits.ping_timeout.min(self.limits.ping_interval);
            self.timers.set(id, conn, wait);
        }
        let outbox = conn.take_outbox();
        let data = if conn.state == State::Open { self.take_data(id) } else { None };
        let conn = self.conns.get(id).expect("found above");
        match (outbox, data) {
            (Some(outbox), Some(data)) => self.send(id, behind(outbox, &data, &self.account)),
            (Some(outbox), None) => self.send(id, Gather::one(outbox)),
            (None, Some(data)) => self.send(id, data),
            (None, None) if conn.state == State::Closing => self.shut(id),
            (None, None) => {}
        }
        let Some(conn) = self.conns.get(id) else { return };
        let leaves = conn.flags.has(Flags::LEAVING);
        if conn.v1.as_ref().is_some_and(|v1| v1.deferred.is_some() && v1.dirty.is_empty()) {
            self.finish_unsubscribe(id);
        } else if leaves && !conn.flags.has(Flags::SENDING) && self.has_all(id) {
            self.close_for_shutdown(id);
        }
    }

    /// Whether everything that waits for the connection was sent.
    fn has_all(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(id) else { return true };
        let head = |slot: LogSlot| self.logs[slot as usize].as_ref().expect("a log with a subscriber").head();
        match (&conn.raw, &conn.v1) {
            (Some(raw), _) => raw.cursor == head(raw.log),
            (None, Some(v1)) => {
                let mut subs = v1.keys().into_iter().map(|key| v1.sub(key));
                v1.deferred.is_none() && subs.all(|sub| sub.order.is_none() || sub.cursor == head(sub.log))
            }
            (None, None) => true,
        }
    }

    fn take_data(&mut self, id: ConnId) -> Option<Gather> {
        let conn = self.conns.get(id)?;
        if let Some(raw) = conn.raw {
            let log = self.logs[raw.log as usize].as_ref().expect("a log with a subscriber");
            // For all others, the round is still to come.
            let waits = conn.flags.has(Flags::LAGGING) || (conn.flags.has(Flags::LEAVING) && raw.cursor < log.head());
            if !waits {
                return None;
            }
            return Some(self.take_raw(id));
        }
        if conn.v1.as_ref()?.deferred.is_some() || conn.flags.has(Flags::LEAVING) {
            self.append_begun(id);
            self.gather_all(id);
        }
        let v1 = self.conns.get(id)?.v1.as_ref()?;
        if v1.dirty.is_empty() { None } else { self.take_v1(id) }
    }

    /// All that waits for a raw subscriber, as far as one send takes it, and its cursor behind that.
    fn take_raw(&mut self, id: ConnId) -> Gather {
        let thrift = self.thrift();
        let conn = self.conns.get(id).expect("an open connection");
        let raw = conn.raw.as_mut().expect("a raw subscriber");
        let slot = raw.log;
        let log = self.logs[slot as usize].as_mut().expect("a log with a subscriber");
        let (gather, to) = log.gather(raw.cursor, Encoding::Raw, thrift);
        self.shared.stats[usize::from(self.id)].messages_out.add(to - raw.cursor);
        raw.cursor = to;
        if to < log.head() {
            log.lags(to, !conn.flags.has(Flags::LAGGING));
            conn.flags.set(Flags::LAGGING);
        } else if conn.flags.take(Flags::LAGGING) && log.caught_up() {
            self.delivered_logs.push(slot);
        }
        let lag_bytes = log.lag_bytes(to);
        self.enforce_lag_limit(slot, Subscriber { conn: id, sub: 0 }, lag_bytes);
        gather
    }

    /// Everything that waits in a `/ws` connection's subscriptions, up to what one send takes.
    fn take_v1(&mut self, id: ConnId) -> Option<Gather> {
        let thrift = self.thrift();
        let conn = self.conns.get(id)?;
        let v1 = conn.v1.as_mut()?;
        let stats = &self.shared.stats[usize::from(self.id)];
        let dirty = std::mem::take(&mut v1.dirty);
        if let [key] = dirty[..]
            && !v1.overlapping
        {
            let cursor = v1.sub(key).cursor;
            let log = self.logs[v1.sub(key).log as usize].as_mut().expect("a log with a subscriber");
            let (gather, to) = log.gather(cursor, Encoding::Json, thrift);
            stats.messages_out.add(to - cursor);
            self.advance(id, key, to);
            return Some(gather);
        }
        let mut parts = Parts::new(thrift);
        // Found once per topic: a thousand subscriptions that match are asked once, not each about the others.
        let mut senders = FxHashMap::default();
        for key in dirty {
            let v1 = self.conns.get(id)?.v1.as_mut()?;
            let log = self.logs[v1.sub(key).log as usize].as_mut().expect("a log with a subscriber");
            let mut to = v1.sub(key).cursor;
            for message in log.pending(to) {
                if v1.overlapping {
                    let sender = senders.entry(message.topic_id).or_insert_with(|| v1.sender_of(&message.topic));
                    if *sender != Some(key) {
                        to += 1;
                        continue;
                    }
                }
                if !parts.take(message, Encoding::Json, &self.account) {
                    break;
                }
                to += 1;
            }
            self.work.deliveries_left = self.work.deliveries_left.saturating_sub(1);
            self.advance(id, key, to);
        }
        self.shared.stats[usize::from(self.id)].messages_out.add(parts.len() as u64);
        (!parts.is_empty()).then(|| parts.coalesce(COPY_BYTES_MAX, &self.account))
    }

    /// Moves a subscription's cursor to `to`; what is left beyond stays marked.
    fn advance(&mut self, id: ConnId, key: u32, to: Seq) {
        let Some(v1) = self.conns.get(id).and_then(|conn| conn.v1.as_mut()) else { return };
        let sub = v1.sub_mut(key);
        let slot = sub.log;
        let log = self.logs[slot as usize].as_mut().expect("a log with a subscriber");
        sub.cursor = to;
        sub.dirty = to < log.head();
        if sub.dirty {
            log.lags(to, !sub.lagging);
            sub.lagging = true;
            v1.dirty.push(key);
        } else if std::mem::take(&mut sub.lagging) && log.caught_up() {
            self.delivered_logs.push(slot);
        }
        let lag_bytes = log.lag_bytes(to);
        self.enforce_lag_limit(slot, Subscriber { conn: id, sub: key }, lag_bytes);
    }

    pub(in crate::shard) fn send(&mut self, id: ConnId, gather: Gather) {
        let conn = self.conns.get(id).expect("an open connection");
        conn.send_begins(self.now, gather.len());
        self.work.charge(gather.len());
        self.driver.send(id, gather, 0);
    }

    pub(in crate::shard) fn on_sent(&mut self, id: ConnId, gather: Gather, from: usize, result: Result<usize, i32>) {
        let Some(conn) = self.conns.get(id) else { return };
        let stats = &self.shared.stats[usize::from(self.id)];
        let asked = conn.flags.take(Flags::ASKED_PROGRESS);
        let sent = match result {
            Ok(0) if asked => {
                // The kernel takes up a blocked send only once much of the socket is free: what was acknowledged tells.
                self.driver.send(id, gather, from);
                self.driver.unsent(id);
                return;
            }
            Ok(sent) => sent,
            Err(_) => {
                conn.send_ends();
                self.abort(id, Reason::Reset);
                return;
            }
        };
        stats.bytes_out.add(sent as u64);
        conn.forget_unsent();
        if from + sent < gather.len() {
            stats.sends_short.add(1);
            conn.send_begins(self.now, gather.len() - from - sent);
            self.driver.send(id, gather, from + sent);
            return;
        }
        stats.sends.add(1);
        conn.send_ends();
        if !self.timed.is_empty()
            && let Some(at) = self.timed.iter().position(|timed| timed.conn == id)
        {
            self.timed.swap_remove(at).observe(stats, self.now);
        }
        let waits = conn.flags.has(Flags::LAGGING)
            || conn.flags.has(Flags::PING_DUE)
            || conn.flags.has(Flags::LEAVING)
            || conn.state == State::Closing
            || conn.outbox_len() > 0
            || conn.v1.as_ref().is_some_and(|v1| !v1.dirty.is_empty() || v1.deferred.is_some());
        let paused = conn.flags.has(Flags::PAUSED);
        if waits {
            self.make_ready(id);
        }
        if paused {
            // Its answers were in the way, perhaps.
            self.list_paused(id);
        }
    }

    /// Frees what all subscribers of those logs have been sent.
    pub(in crate::shard) fn trim_delivered(&mut self) {
        for slot in std::mem::take(&mut self.delivered_logs) {
            let Some(log) = self.logs[slot as usize].as_mut() else { continue };
            self.log_bytes -= log.trim();
            self.relieve(slot);
        }
    }
}

/// A send whose way from its oldest message's sequencing to its completion is measured.
#[derive(Debug)]
pub(in crate::shard) struct Timed {
    pub(in crate::shard) conn: ConnId,
    sequenced_at: Nanos,
    messages: u64,
    /// Sends of its turn; 0 until that is known.
    stands_for: u64,
}

impl Timed {
    /// The send that is about to take what waits behind `cursor`.
    fn new(conn: ConnId, log: &Log, cursor: Seq) -> Self {
        let sequenced_at = log.pending(cursor).next().map_or(0, |message| message.sequenced_at);
        Self { conn, sequenced_at, messages: log.head() - cursor, stands_for: 0 }
    }

    fn observe(self, stats: &Stats, now: Nanos) {
        stats.delivery.observe(Scale::TIME, now.saturating_sub(self.sequenced_at), self.stands_for);
        stats.batch.observe(Scale::COUNT, self.messages, self.stands_for);
    }
}

/// One send of a connection's own frames, then data.
fn behind(outbox: Bytes, data: &Gather, account: &Arc<Account>) -> Gather {
    let mut parts = Vec::with_capacity(1 + data.parts().len());
    let bytes = outbox.len() + data.len();
    parts.push(outbox);
    parts.extend_from_slice(data.parts());
    coalesce(parts, bytes, COPY_BYTES_MAX, account)
}

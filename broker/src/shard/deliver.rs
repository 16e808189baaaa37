//! The sweep: topics with news are visited in slices, and every visit sends all that waits, in one send.
//!
//! Cost per delivery: one visit (two lookups by index), one increment (the shared [`Gather`]), one
//! operation queued. No allocation, no copy, no lock. While the sweep is under way messages go on
//! arriving; visits after that carry them too, so that under load the sends grow instead of their number.
//!
//! A connection whose send is still in flight is not waited for: it is marked as lagging, and its own
//! completion sends it the rest. If it falls behind by more than the limit, it is closed with 1013.
//!
//! One send of each turn is timed, from its oldest message's sequencing to its completion, and stands for the turn's
//! others: what that costs is one comparison per send.
//!
//! A connection's own frames (answers, pongs, pings, close) go out before data, between sends, and so at
//! frame boundaries only: every send is whole frames.

use bytes::Bytes;
use protocol::frame::close_code;
use ring::{ConnId, Driver, Gather, Nanos};
use rustc_hash::FxHashMap;

use super::Shard;
use super::conn::{Conn, Flags, LogSlot, State};
use super::stats::{Reason, Scale, Stats};
use crate::topics::log::{GATHER_BYTES_MAX, Log, PARTS_MAX, Seq, Subscriber, coalesce};
use crate::topics::message::Encoding;

/// Sends that one turn submits: what arrives meanwhile waits this long at most, and goes along after.
const SENDS_PER_TURN: u32 = 256;
/// Visits of one turn, those that find nothing to send included.
const VISITS_PER_TURN: u32 = 2048;
/// Sends of one topic in one turn while others wait too.
const SLICE: u32 = 64;
/// Sends under way that are timed. One a turn begins; those that find their sockets full last longer.
const TIMED_MAX: usize = 16;
/// Frames of one connection's several topics are copied together up to this many bytes: for a single
/// send that is cheaper than a vector.
const COPY_BYTES_MAX: usize = 4 << 10;

impl<D: Driver> Shard<D> {
    pub(super) fn sweep(&mut self) {
        let (mut sends, mut visits) = (SENDS_PER_TURN, VISITS_PER_TURN);
        self.time_next = self.timed.len() < TIMED_MAX;
        while sends > 0 && visits > 0 {
            let Some(slot) = self.news.pop_front() else { break };
            let slice = if self.news.is_empty() { sends } else { sends.min(SLICE) };
            let sent = self.sweep_log(slot, slice, &mut visits);
            sends -= sent;
            let Some(log) = self.logs[slot as usize].as_mut() else { continue };
            self.swept.push(slot);
            log.queued = log.has_news();
            if log.queued {
                self.news.push_back(slot);
            }
        }
        if let Some(timed) = self.timed.last_mut().filter(|timed| timed.stands_for == 0) {
            timed.stands_for = u64::from(SENDS_PER_TURN - sends);
        }
        self.time_next = false;
        // Subscribers that took the place of one that left: the circle may have passed them.
        while let Some((slot, subscriber)) = self.moved.pop() {
            self.visit_moved(slot, subscriber);
        }
    }

    fn sweep_log(&mut self, slot: LogSlot, slice: u32, visits: &mut u32) -> u32 {
        let mut sent = 0;
        while sent < slice && *visits > 0 {
            // A visit may close a slow connection, and with the last one the log is gone.
            let Some(log) = self.logs[slot as usize].as_mut() else { break };
            let Some(subscriber) = log.visit() else { break };
            *visits -= 1;
            sent += u32::from(self.visit(slot, subscriber));
        }
        sent
    }

    fn visit_moved(&mut self, slot: LogSlot, subscriber: Subscriber) {
        // It may have left, too, since it was moved.
        let Some(conn) = self.conns.get(subscriber.conn) else { return };
        let still = match &conn.multi {
            Some(multi) => multi.is_live(subscriber.sub, slot),
            None => conn.raw.is_some_and(|raw| raw.log == slot) && !conn.flags.has(Flags::HELD),
        };
        if still {
            self.visit(slot, subscriber);
        }
    }

    /// Sends a subscriber all that waits for it, or notes that it lags. Returns whether it was sent to.
    fn visit(&mut self, slot: LogSlot, subscriber: Subscriber) -> bool {
        let id = subscriber.conn;
        let log = self.logs[slot as usize].as_mut().expect("a log being swept");
        let conn = self.conns.get(id).expect("a subscriber is an open connection");
        if conn.multi.is_some() {
            return self.visit_multi(slot, subscriber);
        }
        let raw = conn.raw.as_mut().expect("a subscriber has a subscription");
        if raw.cursor == log.head() {
            return false;
        }
        if conn.flags.has(Flags::SENDING) {
            log.lags(raw.cursor, !conn.flags.has(Flags::LAGGING));
            conn.flags.set(Flags::LAGGING);
            let lag_bytes = log.lag_bytes(raw.cursor);
            self.judge(id, lag_bytes);
            return false;
        }
        if std::mem::take(&mut self.time_next) {
            self.timed.push(Timed::new(id, log, raw.cursor));
        }
        let data = take_raw(conn, log, &self.links.stats[usize::from(self.id)], &mut self.swept);
        let gather = match conn.take_outbox() {
            Some(outbox) => behind(outbox, &data),
            None => data,
        };
        self.send(id, gather);
        true
    }

    fn visit_multi(&mut self, slot: LogSlot, subscriber: Subscriber) -> bool {
        let id = subscriber.conn;
        let log = self.logs[slot as usize].as_mut().expect("a log being swept");
        let conn = self.conns.get(id).expect("a subscriber is an open connection");
        let multi = conn.multi.as_mut().expect("a connection with many subscriptions");
        let sub = multi.sub_mut(subscriber.sub);
        if sub.cursor == log.head() {
            return false;
        }
        let (cursor, lag_bytes) = (sub.cursor, log.lag_bytes(sub.cursor));
        let blocked = conn.flags.has(Flags::SENDING);
        if blocked {
            log.lags(sub.cursor, !sub.lagging);
            sub.lagging = true;
        }
        if !sub.dirty {
            sub.dirty = true;
            multi.dirty.push(subscriber.sub);
        }
        if blocked {
            self.judge(id, lag_bytes);
            return false;
        }
        if std::mem::take(&mut self.time_next) {
            self.timed.push(Timed::new(id, log, cursor));
        }
        self.make_ready(id);
        true
    }

    /// The slow-consumer policy.
    fn judge(&mut self, id: ConnId, lag_bytes: u64) {
        if lag_bytes > self.limits.lag_bytes_max || self.log_bytes > self.limits.log_bytes_max {
            self.drop_slow(id);
        }
    }

    pub(super) fn drop_slow(&mut self, id: ConnId) {
        let why = "too slow: messages would be lost; connect again";
        self.close_with(id, close_code::TRY_AGAIN_LATER.into(), why, Reason::Slow);
    }

    // ---- sends of one connection

    /// Has [`Shard::flush`] called for the connection at the end of the sweep.
    pub(super) fn make_ready(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.flags.has(Flags::SENDING) && !conn.flags.has(Flags::READY) {
            conn.flags.set(Flags::READY);
            self.ready.push(id);
        }
    }

    pub(super) fn flush_ready(&mut self) {
        // Flushing may make others ready; they are flushed as well.
        while let Some(id) = self.ready.pop() {
            if let Some(conn) = self.conns.get(id) {
                conn.flags.clear(Flags::READY);
                self.flush(id);
            }
        }
    }

    /// Sends what waits: own frames first, then data, in one send. With nothing left to send, a closing
    /// connection is shut down.
    pub(super) fn flush(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.flags.has(Flags::SENDING) || conn.flags.has(Flags::HELD) || conn.state == State::Gone {
            return;
        }
        if conn.flags.take(Flags::PING_DUE) && conn.state == State::Open {
            let ping = self.ping.parts()[0].clone();
            conn.extra().outbox.extend_from_slice(&ping);
            // The time for its answer begins now.
            self.timers.set(id, conn, self.limits.ping_timeout);
        }
        let outbox = conn.take_outbox();
        let data = if conn.state == State::Open { self.take_data(id) } else { None };
        let conn = self.conns.get(id).expect("found above");
        match (outbox, data) {
            (Some(outbox), Some(data)) => self.send(id, behind(outbox, &data)),
            (Some(outbox), None) => self.send(id, Gather::one(outbox)),
            (None, Some(data)) => self.send(id, data),
            (None, None) if conn.state == State::Closing => self.shut(id),
            (None, None) => {}
        }
        let Some(conn) = self.conns.get(id) else { return };
        let leaves = conn.flags.has(Flags::LEAVING);
        if conn.multi.as_ref().is_some_and(|multi| multi.deferred.is_some() && multi.dirty.is_empty()) {
            self.finish_unsubscribe(id);
        } else if leaves && self.has_all(id) {
            self.close_for_shutdown(id);
        }
    }

    /// Whether everything that waits for the connection was sent, or is about to be.
    fn has_all(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(id) else { return true };
        let head = |slot: LogSlot| self.logs[slot as usize].as_ref().expect("a log with a subscriber").head();
        match (&conn.raw, &conn.multi) {
            (Some(raw), _) => raw.cursor == head(raw.log),
            (None, Some(multi)) => {
                let mut subs = multi.keys().into_iter().map(|key| multi.sub(key));
                multi.deferred.is_none() && subs.all(|sub| sub.order.is_none() || sub.cursor == head(sub.log))
            }
            (None, None) => true,
        }
    }

    fn take_data(&mut self, id: ConnId) -> Option<Gather> {
        let conn = self.conns.get(id)?;
        if let Some(raw) = conn.raw {
            let log = self.logs[raw.log as usize].as_mut().expect("a log with a subscriber");
            // The sweep comes by for everybody else.
            let waits = conn.flags.has(Flags::LAGGING) || (conn.flags.has(Flags::LEAVING) && raw.cursor < log.head());
            if !waits {
                return None;
            }
            return Some(take_raw(conn, log, &self.links.stats[usize::from(self.id)], &mut self.swept));
        }
        if conn.multi.as_ref()?.deferred.is_some() || conn.flags.has(Flags::LEAVING) {
            self.gather_all(id);
        }
        let multi = self.conns.get(id)?.multi.as_ref()?;
        if multi.dirty.is_empty() { None } else { self.take_multi(id) }
    }

    /// Everything that waits in a `/ws` connection's subscriptions, up to what one send takes.
    fn take_multi(&mut self, id: ConnId) -> Option<Gather> {
        let conn = self.conns.get(id)?;
        let multi = conn.multi.as_mut()?;
        let stats = &self.links.stats[usize::from(self.id)];
        let dirty = std::mem::take(&mut multi.dirty);
        if let [key] = dirty[..]
            && !multi.overlapping
        {
            let cursor = multi.sub(key).cursor;
            let log = self.logs[multi.sub(key).log as usize].as_mut().expect("a log with a subscriber");
            let (gather, to) = log.gather(cursor, Encoding::Json);
            stats.messages_out.add(to - cursor);
            advance(multi, key, log, to, &mut self.swept);
            return Some(gather);
        }
        let (mut parts, mut bytes) = (Vec::<Bytes>::new(), 0);
        // Found once per topic: a thousand subscriptions that match are asked once, not each about the others.
        let mut senders = FxHashMap::default();
        for key in dirty {
            let log = self.logs[multi.sub(key).log as usize].as_mut().expect("a log with a subscriber");
            let mut to = multi.sub(key).cursor;
            for message in log.pending(to) {
                if multi.overlapping {
                    let sender = senders.entry(message.topic_id).or_insert_with(|| multi.sender_of(&message.topic));
                    if *sender != Some(key) {
                        to += 1;
                        continue;
                    }
                }
                let frame = message.frame(Encoding::Json);
                if !parts.is_empty() && (bytes + frame.len() > GATHER_BYTES_MAX || parts.len() == PARTS_MAX) {
                    break;
                }
                bytes += frame.len();
                parts.push(frame.clone());
                to += 1;
            }
            advance(multi, key, log, to, &mut self.swept);
        }
        stats.messages_out.add(parts.len() as u64);
        (!parts.is_empty()).then(|| coalesce(parts, bytes, COPY_BYTES_MAX))
    }

    pub(super) fn send(&mut self, id: ConnId, gather: Gather) {
        let conn = self.conns.get(id).expect("an open connection");
        conn.flags.set(Flags::SENDING);
        self.driver.send(id, gather, 0);
    }

    pub(super) fn on_sent(&mut self, id: ConnId, gather: Gather, from: usize, result: Result<usize, i32>) {
        let Some(conn) = self.conns.get(id) else { return };
        let stats = &self.links.stats[usize::from(self.id)];
        let sent = match result {
            Ok(sent) => sent,
            Err(_) => {
                conn.flags.clear(Flags::SENDING);
                self.abort(id, Reason::Reset);
                return;
            }
        };
        conn.flags.clear(Flags::STALLED);
        stats.bytes_out.add(sent as u64);
        if from + sent < gather.len() {
            stats.sends_short.add(1);
            self.driver.send(id, gather, from + sent);
            return;
        }
        stats.sends.add(1);
        conn.flags.clear(Flags::SENDING);
        if !self.timed.is_empty()
            && let Some(at) = self.timed.iter().position(|timed| timed.conn == id)
        {
            self.timed.swap_remove(at).observe(stats, self.now);
        }
        let waits = conn.flags.has(Flags::LAGGING)
            || conn.flags.has(Flags::PING_DUE)
            || conn.flags.has(Flags::LEAVING)
            || conn.state == State::Closing
            || conn.has_outbox()
            || conn.multi.as_ref().is_some_and(|multi| !multi.dirty.is_empty() || multi.deferred.is_some());
        if waits {
            self.make_ready(id);
        }
    }

    /// Frees what all subscribers of the swept topics have been sent.
    pub(super) fn trim_swept(&mut self) {
        let quarter = self.limits.lag_bytes_max / 4;
        for slot in std::mem::take(&mut self.swept) {
            let Some(log) = self.logs[slot as usize].as_mut() else { continue };
            self.log_bytes -= log.trim();
            if log.congested && log.unswept_bytes() <= quarter {
                log.congested = false;
                self.congested_logs -= 1;
            }
        }
    }
}

/// A send whose way from its oldest message's sequencing to its completion is measured.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) conn: ConnId,
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

/// All that waits for a raw subscriber, and its cursor behind that.
fn take_raw(conn: &mut Conn, log: &mut Log, stats: &Stats, swept: &mut Vec<LogSlot>) -> Gather {
    let raw = conn.raw.as_mut().expect("a raw subscriber");
    let (gather, to) = log.gather(raw.cursor, Encoding::Raw);
    stats.messages_out.add(to - raw.cursor);
    raw.cursor = to;
    if to < log.head() {
        log.lags(to, !conn.flags.has(Flags::LAGGING));
        conn.flags.set(Flags::LAGGING);
    } else if conn.flags.take(Flags::LAGGING) && log.caught_up() {
        swept.push(raw.log);
    }
    gather
}

/// Moves a subscription's cursor to `to`; what is left beyond stays marked.
fn advance(multi: &mut super::multi::Multi, key: u32, log: &mut Log, to: Seq, swept: &mut Vec<LogSlot>) {
    let sub = multi.sub_mut(key);
    sub.cursor = to;
    sub.dirty = to < log.head();
    if sub.dirty {
        log.lags(to, !sub.lagging);
        sub.lagging = true;
        multi.dirty.push(key);
    } else if std::mem::take(&mut sub.lagging) && log.caught_up() {
        swept.push(sub.log);
    }
}

/// One send of a connection's own frames, then data.
fn behind(outbox: Bytes, data: &Gather) -> Gather {
    let mut parts = Vec::with_capacity(1 + data.parts().len());
    let bytes = outbox.len() + data.len();
    parts.push(outbox);
    parts.extend_from_slice(data.parts());
    coalesce(parts, bytes, COPY_BYTES_MAX)
}

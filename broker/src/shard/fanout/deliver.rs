//! Delivery rounds: each subscriber of a log with pending messages is sent everything that is pending, in one send.
//!
//! Cost per subscriber: two lookups by index, one increment (the shared [`ring::Gather`]), one operation queued. No
//! allocation, no copy, no lock. Messages that arrive during a round go along with the sends that are still to come, so
//! that under load the sends grow instead of their number.
//!
//! A turn has a budget of work, in sends and their bytes, so that no turn is long. Logs share it in slices, those first
//! that had nothing pending before: a busy topic does not hold up a quiet one.
//!
//! A connection whose send is still in flight is not waited for: it is marked as lagging, and its own
//! completion sends it the rest. What happens to one that is far behind is in [`crate::shard::fanout::lag`].
//!
//! Nothing here closes a connection: one that is found too slow is listed, and closed once the rounds are over.

use ring::Driver;

use crate::ids::LogSlot;
use crate::shard::Shard;
use crate::shard::fanout::log::Subscriber;
use crate::shard::fanout::timed::Timed;
use crate::shard::transport::connection::Flags;
use crate::shard::transport::egress::{Work, behind};
use crate::topics::rules::SlowConsumer;

/// Work of one turn, in sends of up to `SEND_BYTES`, while several topics have messages: what arrives meanwhile waits
/// this long at most, one or two hundred microseconds, and goes along after.
const SENDS_PER_TURN: u32 = 24;
/// The same while there is one busy topic and no other: nobody waits for shorter turns, which cost a system call each.
const SENDS_PER_TURN_ALONE: u32 = 256;
/// For so many turns after one in which several topics had messages, turns are short.
const SHORT_TURNS: u32 = 2048;
/// Subscribers that have their turn in one turn of the shard, those with nothing to send included.
const DELIVERIES_PER_TURN: u32 = 2048;
/// Sends of one topic in one turn while others wait too.
const SLICE: u32 = 8;
/// Sends under way that are timed. One a turn begins; those that find their sockets full last longer.
const TIMED_MAX: usize = 16;

impl<D: Driver> Shard<D> {
    /// Makes the sends of this turn: first to connections whose own completions or answers wait, then to logs with
    /// pending messages. Each is sure of half of the turn.
    pub(in crate::shard) fn deliver(&mut self) {
        if self.fanout.pending.len() + self.fanout.fresh.len() > 1 {
            self.fanout.short_turns = SHORT_TURNS;
        }
        let sends = if self.fanout.short_turns > 0 { SENDS_PER_TURN } else { SENDS_PER_TURN_ALONE };
        self.fanout.short_turns = self.fanout.short_turns.saturating_sub(1);
        self.egress.work = Work { sends: sends / 2, deliveries_left: DELIVERIES_PER_TURN, made: 0 };
        self.try_postponed();
        self.flush_ready();
        self.egress.work.sends += sends / 2;
        self.egress.work.deliveries_left += DELIVERIES_PER_TURN / 2;
        self.deliver_logs();
        self.flush_delivered();
        self.flush_ready();
        self.close_too_slow();
        self.fanout.trim_delivered();
    }

    fn deliver_logs(&mut self) {
        self.egress.time_next = self.egress.timed.len() < TIMED_MAX;
        let before = self.egress.work.made;
        // Half of what is left goes to logs that had nothing pending before, one slice each, before all others.
        let others = self.egress.work.sends / 2;
        while !self.egress.work.is_done() {
            let next = if self.egress.work.sends > others { self.fanout.fresh.pop_front() } else { None };
            let next = next.or_else(|| self.fanout.pending.pop_front()).or_else(|| self.fanout.fresh.pop_front());
            let Some(slot) = next else { break };
            if self.fanout.logs.get(slot).is_none() {
                continue; // its last subscriber left since it was queued
            }
            let alone = self.fanout.pending.is_empty() && self.fanout.fresh.is_empty();
            let slice = if alone { self.egress.work.sends } else { self.egress.work.sends.min(SLICE) };
            self.deliver_log(slot, slice);
            let log = &mut self.fanout.logs[slot];
            self.fanout.delivered_logs.push(slot);
            log.queued = log.has_pending();
            if log.queued {
                self.fanout.pending.push_back(slot);
            }
        }
        if let Some(timed) = self.egress.timed.last_mut().filter(|timed| timed.stands_for == 0) {
            timed.stands_for = u64::from(self.egress.work.made - before);
        }
        self.egress.time_next = false;
        // Subscribers that took the place of one that left: the round may have passed them.
        while let Some((slot, subscriber)) = self.fanout.moved.pop() {
            self.deliver_moved(slot, subscriber);
        }
    }

    fn deliver_log(&mut self, slot: LogSlot, slice: u32) {
        let end = self.egress.work.sends - slice;
        while self.egress.work.sends > end && self.egress.work.deliveries_left > 0 {
            let log = &mut self.fanout.logs[slot];
            let Some(subscriber) = log.next_in_round() else { break };
            self.egress.work.deliveries_left -= 1;
            self.deliver_to(slot, subscriber);
        }
    }

    fn deliver_moved(&mut self, slot: LogSlot, subscriber: Subscriber) {
        // It may have left, too, since it was moved.
        let subscription = self.conns.get(subscriber.conn).and_then(|conn| conn.session.subscription(subscriber.sub));
        if subscription.is_some_and(|subscription| subscription.live && subscription.log == slot) {
            self.deliver_to(slot, subscriber);
        }
    }

    /// Sends a subscriber all that is pending, or notes that it lags until its connection is free.
    fn deliver_to(&mut self, slot: LogSlot, subscriber: Subscriber) {
        let Subscriber { conn: id, sub: key } = subscriber;
        let thrift = self.thrift();
        let log = &mut self.fanout.logs[slot];
        let conn = self.conns.get(id).expect("a subscriber is an open connection");
        let at_once =
            !conn.flags.has(Flags::SENDING) && !conn.flags.has(Flags::BACKLOG) && !conn.session.shares_sends();
        let takes_notices = log.policy.slow_consumer == SlowConsumer::Skip && conn.session.takes_notices();
        let subscription = conn.session.subscription_mut(key).expect("a subscriber has a subscription");
        let cursor = subscription.cursor;
        // With a throttle, what came since the round was opened waits for the next one, also if this is its second turn.
        if !log.is_opened(cursor) {
            return;
        }
        if subscription.held {
            log.lags(cursor, !std::mem::replace(&mut subscription.lagging, true));
            return;
        }
        if at_once {
            let timed = self.egress.time_next.then(|| Timed::new(id, log, cursor));
            // This send is what it was pending for.
            conn.session.forget_pending(&[key]);
            let Some(data) = self.fanout.take_one(id, &mut conn.session, key, thrift, self.now) else {
                // One that leaves may have had to wait for this only.
                self.make_ready(id);
                return;
            };
            self.egress.time_next &= timed.is_none();
            self.egress.timed.extend(timed);
            let gather = match conn.take_outbox() {
                Some(outbox) => behind(outbox, &data, &self.account),
                None => data,
            };
            self.send(id, gather);
            return;
        }
        let cursor = match log.skip_target(cursor) {
            None => cursor,
            Some(target) => {
                self.fanout.skip(subscriber, slot, cursor, target, takes_notices);
                subscription.cursor = target;
                target
            }
        };
        self.fanout.logs[slot].lags(cursor, !std::mem::replace(&mut subscription.lagging, true));
        let (sending, ready) = (conn.flags.has(Flags::SENDING), conn.flags.has(Flags::READY));
        if sending || ready {
            self.fanout.enforce_lag_limit(subscriber, subscription, sending, self.now);
            conn.session.set_pending(key);
            return;
        }
        conn.session.set_pending(key);
        // It is sent to at the end of the round, with what its other topics have.
        if std::mem::take(&mut self.egress.time_next) {
            self.egress.timed.push(Timed::new(id, &self.fanout.logs[slot], cursor));
        }
        conn.flags.set(Flags::READY);
        self.egress.work.charge(0);
        self.egress.delivered_ready.push(id);
    }
}

//! Subscriptions, and the joins and leaves they cause.
//!
//! The first subscriber of a topic on a shard makes the shard join at the topic's sequencer (a filter with
//! wildcards: at every sequencer); the last one's end makes it leave. A subscription is in force, and only then
//! confirmed, once the sequencers have answered: from there on it misses nothing.

use std::sync::Arc;

use ring::{ConnId, Driver};

use crate::ids::{Epoch, LogSlot, Offset, ShardId, TopicId};
use crate::shard::Shard;
use crate::shard::commands::position;
use crate::shard::fanout::log::{Log, Subscriber};
use crate::shard::shared::Request;
use crate::shard::transport::connection::{Flags, RawSubscription};

/// Where a subscriber is in its log.
enum Place {
    /// Index among those that wait for the join; `u32::MAX`: its command was refused before it came that far.
    Waiting(u32),
    /// Index among the others.
    Live(u32),
}

impl<D: Driver> Shard<D> {
    /// Subscribes a raw connection.
    pub(super) fn subscribe_raw(&mut self, id: ConnId, filter: &str) {
        let slot = self.enter_log(filter);
        let conn = self.conns.get(id).expect("a connection being established");
        conn.raw = Some(RawSubscription::waiting(slot));
        conn.flags.set(Flags::HELD);
        self.stats().subscriptions.add(1);
        self.attach(slot, Subscriber { conn: id, sub: 0 });
    }

    /// The log of a topic or filter, made and joined if this is its first subscriber here.
    pub(super) fn enter_log(&mut self, filter: &str) -> LogSlot {
        let topic = self.shared.registry.resolve(filter);
        if let Some(&slot) = self.log_of.get(&topic.id) {
            return slot; // which holds a reference of its own
        }
        let sequencers = if topic.wildcard { 0..self.shards() } else { topic.sequencer..topic.sequencer + 1 };
        let join = self.next_join;
        self.next_join += 1;
        let log = Box::new(Log::new(topic.clone(), sequencers.len() as u16, join, &self.account));
        let slot = match self.free_logs.pop() {
            Some(slot) => {
                self.logs[slot as usize] = Some(log);
                slot
            }
            None => {
                self.logs.push(Some(log));
                (self.logs.len() - 1) as LogSlot
            }
        };
        self.log_of.insert(topic.id, slot);
        if topic.wildcard {
            self.matches.insert(Arc::clone(&topic.name), slot);
        }
        for sequencer in sequencers {
            self.mailbox.request(sequencer, Request::Join { topic: topic.clone(), shard: self.id, join });
        }
        slot
    }

    /// Puts a subscription in force, at once or as soon as its log is joined.
    pub(super) fn attach(&mut self, slot: LogSlot, subscriber: Subscriber) {
        let log = self.log(slot);
        if log.joining == 0 {
            self.go_live(slot, subscriber);
        } else {
            log.waiting.push(subscriber);
            let index = (log.waiting.len() - 1) as u32;
            self.set_index(subscriber, index);
        }
    }

    /// A sequencer answered a join.
    pub(super) fn on_joined(&mut self, topic: TopicId, join: u64, epoch: Epoch, next: Offset) {
        let Some(&slot) = self.log_of.get(&topic) else { return };
        let log = self.log(slot);
        if log.join != join {
            return; // the answer to a join that was left again since
        }
        log.joining -= 1;
        if log.joining > 0 {
            return;
        }
        (log.epoch, log.next_offset) = (epoch, next);
        // One at a time: an answer that finds its outbox full ends the connection, and with the last one the log.
        while let Some(subscriber) = self.logs[slot as usize].as_mut().and_then(|log| log.waiting.pop()) {
            self.go_live(slot, subscriber);
        }
    }

    fn go_live(&mut self, slot: LogSlot, subscriber: Subscriber) {
        let log = self.log(slot);
        let index = log.add(subscriber) as u32;
        let cursor = log.head();
        let position = position(log);
        let conn = self.conns.get(subscriber.conn).expect("a subscriber is an open connection");
        if let Some(v1) = &mut conn.v1 {
            v1.go_live(subscriber.sub, index, cursor, position);
            self.answer_subscribe(subscriber);
        } else {
            conn.raw = Some(RawSubscription::new(slot, index, cursor));
            conn.flags.clear(Flags::HELD);
            self.make_ready(subscriber.conn);
        }
    }

    /// Ends every subscription of a connection.
    pub(super) fn unsubscribe_all(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if let Some(raw) = conn.raw.take() {
            let held = conn.flags.take(Flags::HELD);
            let lagged = conn.flags.take(Flags::LAGGING);
            let awaited = conn.flags.take(Flags::AWAITED);
            conn.flags.clear(Flags::GIVEN_UP);
            if awaited {
                self.await_no_longer(raw.log, Subscriber { conn: id, sub: 0 });
            }
            let place = if held { Place::Waiting(raw.index()) } else { Place::Live(raw.index()) };
            self.detach(raw.log, place, lagged);
            return;
        }
        let keys = conn.v1.as_ref().map(|v1| v1.keys()).unwrap_or_default();
        self.unsubscribe_keys(id, &keys);
    }

    /// Ends subscriptions of a `/ws` connection. Linear in them.
    pub(super) fn unsubscribe_keys(&mut self, id: ConnId, keys: &[u32]) {
        let Some(v1) = self.conns.get(id).and_then(|conn| conn.v1.as_mut()) else { return };
        v1.forget_dirty(keys);
        for &key in keys {
            let Some(v1) = self.conns.get(id).and_then(|conn| conn.v1.as_mut()) else { return };
            if let Some(sub) = v1.remove(key) {
                if sub.awaited {
                    self.await_no_longer(sub.log, Subscriber { conn: id, sub: key });
                }
                let place = if sub.order.is_some() { Place::Live(sub.index) } else { Place::Waiting(sub.index) };
                self.detach(sub.log, place, sub.lagging);
            }
        }
        self.charge_subscriptions(id);
    }

    /// Charges what the subscriptions of a `/ws` connection take now.
    pub(super) fn charge_subscriptions(&mut self, id: ConnId) {
        let account = self.shared.budget.of_shard(self.id);
        if let Some(v1) = self.conns.get(id).and_then(|conn| conn.v1.as_mut()) {
            v1.charge(account);
        }
    }

    /// Takes a subscriber out of its log.
    fn detach(&mut self, slot: LogSlot, place: Place, lagged: bool) {
        self.stats().subscriptions.sub(1);
        let log = self.log(slot);
        match place {
            Place::Waiting(u32::MAX) => {}
            Place::Waiting(index) => {
                log.waiting.swap_remove(index as usize);
                if let Some(&moved) = log.waiting.get(index as usize) {
                    self.set_index(moved, index);
                }
            }
            Place::Live(index) => {
                let kept = log.kept_bytes();
                let moved = log.remove(index as usize, lagged);
                let freed = kept - log.kept_bytes();
                self.log_bytes -= freed;
                if let Some(moved) = moved {
                    self.moved.push((slot, moved));
                    self.set_index(moved, index);
                }
            }
        }
        let log = self.log(slot);
        if log.is_empty() && log.waiting.is_empty() {
            self.drop_log(slot);
        } else {
            self.delivered_logs.push(slot);
        }
    }

    fn set_index(&mut self, moved: Subscriber, index: u32) {
        let conn = self.conns.get(moved.conn).expect("a subscriber is an open connection");
        match (&mut conn.v1, &mut conn.raw) {
            (Some(v1), _) => v1.sub_mut(moved.sub).index = index,
            (None, Some(raw)) => raw.set_index(index),
            (None, None) => unreachable!("a subscriber has a subscription"),
        }
    }

    fn drop_log(&mut self, slot: LogSlot) {
        self.end_congestion(slot);
        let log = self.logs[slot as usize].take().expect("a log without subscribers");
        self.free_logs.push(slot);
        self.log_of.remove(&log.topic.id);
        let sequencers = if log.topic.wildcard {
            self.matches.remove(&log.topic.name);
            0..self.shards()
        } else {
            log.topic.sequencer..log.topic.sequencer + 1
        };
        for sequencer in sequencers {
            self.mailbox.request(sequencer, Request::Leave { topic: log.topic.clone(), shard: self.id });
        }
    }

    pub(super) fn shards(&self) -> ShardId {
        self.shared.inboxes.len() as ShardId
    }
}

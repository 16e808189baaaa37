//! Subscriptions, and the joins and leaves they cause.
//!
//! The first subscriber of a topic on a shard makes the shard join at the topic's sequencer (a filter with
//! wildcards: at every sequencer); the last one's end makes it leave. A subscription is in force, and only then
//! confirmed, once the sequencers have answered: from there on it misses nothing.

use protocol::head::RawStart;
use ring::{ConnId, Driver};

use crate::access::permissions::Right;
use crate::ids::{Epoch, LogSlot, Offset, ShardId, TopicId};
use crate::session::subscription::{Patience, Subscription};
use crate::shard::Shard;
use crate::shard::fanout::log::Subscriber;
use crate::shard::recall::Wants;
use crate::shard::shared::Request;
use crate::shard::transport::connection::Flags;
use crate::topics::registry::TopicRef;
use crate::topics::rules::Throttle;

impl<D: Driver> Shard<D> {
    /// Subscribes a connection to one topic or filter, whose 101 waits until the subscription is in force.
    pub(super) fn subscribe_on_upgrade(&mut self, id: ConnId, filter: &str, start: RawStart) {
        let (slot, sub) = self.enter_subscription(id, filter, Throttle::NONE);
        if start != RawStart::default() {
            self.recalls.expect(Subscriber { conn: id, sub }, Wants::raw(start));
        }
        self.conns.get(id).expect("a connection being established").flags.set(Flags::HELD);
        self.attach(slot, Subscriber { conn: id, sub });
    }

    /// Subscribes a stream of events to its topics and filters; its head waits until all subscriptions are in force.
    pub(super) fn subscribe_stream(&mut self, id: ConnId, filters: &[String], start: RawStart) {
        let who = self.who(id);
        self.conns.get(id).expect("a connection being established").flags.set(Flags::HELD);
        let mut entered = Vec::with_capacity(filters.len());
        for filter in filters {
            let (slot, sub) = self.enter_subscription(id, filter, Throttle::NONE);
            let wants = Wants::events(start);
            let has_history = who.as_ref().is_none_or(|who| who.has(Right::History, filter));
            self.recalls
                .expect(Subscriber { conn: id, sub }, if has_history { wants } else { wants.without_history() });
            entered.push((slot, sub));
        }
        self.charge_session(id);
        for (slot, sub) in entered {
            self.attach(slot, Subscriber { conn: id, sub });
        }
    }

    /// Adds a subscription to a connection's session, which is delivered to no more often than `throttle` and its rule say. Its
    /// log may not be joined yet: see [`Shard::attach`].
    pub(super) fn enter_subscription(&mut self, id: ConnId, filter: &str, throttle: Throttle) -> (LogSlot, u32) {
        let anchor = self.enter_log(filter);
        let slot = self.fanout.open_group(anchor, throttle);
        let filter = self.fanout.logs[slot].topic.name.clone();
        let keys = self.shared.registry.keys();
        self.stats().subscriptions.add(1);
        (slot, self.conns.get(id).expect("an open connection").session.add(slot, filter, keys))
    }

    /// The log of a topic or filter, made and joined if this is its first subscriber here.
    fn enter_log(&mut self, filter: &str) -> LogSlot {
        let topic = self.shared.registry.resolve(filter);
        if let Some(slot) = self.fanout.logs.slot_of(topic.id) {
            return slot;
        }
        let sequencers = self.sequencers_of(&topic);
        let (slot, join) = self.fanout.open_log(&topic, sequencers.len() as u16);
        for sequencer in sequencers {
            self.mailbox.request(sequencer, Request::Join { topic: topic.clone(), shard: self.id, join });
        }
        slot
    }

    /// The shards that sequence a topic, or topics that match a filter.
    pub(in crate::shard) fn sequencers_of(&self, topic: &TopicRef) -> Vec<ShardId> {
        if topic.wildcard { ShardId::all(self.shards()).collect() } else { vec![topic.sequencer] }
    }

    /// Puts a subscription in force, at once or as soon as its log is joined.
    pub(super) fn attach(&mut self, slot: LogSlot, subscriber: Subscriber) {
        let log = &mut self.fanout.logs[slot];
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
        for (slot, subscriber) in self.fanout.joined(topic, join, epoch, next) {
            self.go_live(slot, subscriber);
        }
    }

    fn go_live(&mut self, slot: LogSlot, subscriber: Subscriber) {
        let log = &mut self.fanout.logs[slot];
        let index = log.add(subscriber) as u32;
        let cursor = log.head();
        let conn = self.conns.get(subscriber.conn).expect("an open connection");
        conn.session.go_live(subscriber.sub, index, cursor);
        self.recall(slot, subscriber);
    }

    /// Ends every subscription of a connection, and its requests.
    pub(super) fn unsubscribe_all(&mut self, id: ConnId) {
        self.end_calls_of(id);
        let Some(conn) = self.conns.get(id) else { return };
        conn.flags.clear(Flags::HELD);
        self.drop_session(id);
        let Some(conn) = self.conns.get(id) else { return };
        let keys = conn.session.keys();
        self.unsubscribe_keys(id, &keys);
    }

    /// Ends subscriptions of a connection. Linear in them.
    pub(super) fn unsubscribe_keys(&mut self, id: ConnId, keys: &[u32]) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.session.forget_pending(keys);
        for &sub in keys {
            let removed = self.conns.get(id).and_then(|conn| conn.session.remove(sub));
            if let Some(subscription) = removed {
                self.detach(Subscriber { conn: id, sub }, subscription);
            }
        }
        self.charge_session(id);
    }

    /// Charges what a connection's session takes now.
    pub(super) fn charge_session(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id) {
            conn.session.charge(&self.account);
        }
    }

    /// Takes a subscriber out of its log.
    fn detach(&mut self, subscriber: Subscriber, subscription: Subscription) {
        let Subscription { log: slot, index, live, lagging, patience, .. } = subscription;
        self.stats().subscriptions.sub(1);
        self.recalls.forget(subscriber);
        self.fanout.forget_gaps(subscriber);
        if patience == Patience::Awaited {
            self.fanout.await_no_longer(slot, subscriber);
        }
        if live {
            if let Some(moved) = self.fanout.remove_subscriber(slot, index, lagging) {
                self.set_index(moved, index);
            }
        } else if index != u32::MAX {
            // Otherwise its command was refused before it came to wait for the join.
            let log = &mut self.fanout.logs[slot];
            log.waiting.swap_remove(index as usize);
            if let Some(&moved) = log.waiting.get(index as usize) {
                self.set_index(moved, index);
            }
        }
        if let Some(topic) = self.fanout.close_unused(slot) {
            for sequencer in self.sequencers_of(&topic) {
                self.mailbox.request(sequencer, Request::Leave { topic: topic.clone(), shard: self.id });
            }
        }
    }

    fn set_index(&mut self, moved: Subscriber, index: u32) {
        let conn = self.conns.get(moved.conn).expect("a subscriber is an open connection");
        conn.session.subscription_mut(moved.sub).expect("a subscriber has a subscription").index = index;
    }

    pub(super) fn shards(&self) -> u16 {
        self.shared.inboxes.len() as u16
    }
}

//! What one send of a session takes: everything from its subscriptions' cursors to the heads of their logs, as far as one
//! send goes, in the encoding of the session.

use ring::{ConnId, Gather, Nanos};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::ids::{LogSlot, Seq, TopicId};
use crate::message::Message;
use crate::session::subscription::Subscription;
use crate::session::{Pending, Session};
use crate::shard::fanout::FanOut;
use crate::shard::fanout::log::Subscriber;
use crate::shard::fanout::log::gather::Taken;
use crate::shard::fanout::parts::{COPY_BYTES_MAX, Parts, Thrift};
use crate::shard::fanout::skip::Notice;
use crate::topics::rules::{SlowConsumer, Throttle};

impl FanOut {
    /// What a session's pending subscriptions have. Cursors are behind it afterwards, and what is left stays pending.
    /// `all`: what others have as well, so that this send and those that follow take everything.
    pub(in crate::shard) fn take_pending(
        &mut self,
        id: ConnId,
        session: &mut Session,
        all: bool,
        thrift: Thrift,
        now: Nanos,
    ) -> Option<Gather> {
        if all {
            self.gather_all(session);
        }
        match session.take_pending() {
            Pending::None => None,
            Pending::One(key) if self.gaps.has(Subscriber { conn: id, sub: key }) => {
                self.take_many(id, session, &[key], false, thrift, now)
            }
            Pending::One(key) => self.take_one(id, session, key, thrift, now),
            Pending::Many { keys, overlapping } => self.take_many(id, session, &keys, overlapping, thrift, now),
        }
    }

    /// Whether every subscription of a session was sent everything.
    pub(in crate::shard) fn has_sent_all(&self, session: &Session) -> bool {
        session.subscriptions().all(|sub| !sub.live || sub.cursor == self.logs[sub.log].head())
    }

    /// The logs that messages come to for a session's subscriptions.
    pub(in crate::shard) fn anchors_of(&self, session: &Session) -> FxHashSet<LogSlot> {
        session.subscriptions().map(|subscription| self.anchor_of(subscription.log)).collect()
    }

    /// Lists every subscription that has something as pending.
    fn gather_all(&mut self, session: &mut Session) {
        self.append_begun(&self.anchors_of(session));
        for key in session.keys() {
            let Some(subscription) = session.subscription(key) else { continue };
            if subscription.live && !subscription.held && subscription.cursor < self.logs[subscription.log].head() {
                session.set_pending(key);
            }
        }
    }

    /// What one subscription has: the send that its log made for everybody at the same place. `None`: nothing of it is sent.
    pub(in crate::shard) fn take_one(
        &mut self,
        id: ConnId,
        session: &mut Session,
        key: u32,
        thrift: Thrift,
        now: Nanos,
    ) -> Option<Gather> {
        let encoding = session.encoding();
        let &Subscription { log, cursor, .. } = session.subscription(key).expect("a subscriber has a subscription");
        let Taken { gather, to, messages, superseded } = self.logs[log].gather(cursor, encoding, thrift);
        self.stats().messages_out.add(messages);
        self.count_saved(log, to - cursor, superseded);
        let takes_notices = self.logs[log].policy.slow_consumer == SlowConsumer::Skip && session.takes_notices();
        self.advance(Subscriber { conn: id, sub: key }, session, to, takes_notices, now);
        gather
    }

    /// What several subscriptions have, in one send.
    fn take_many(
        &mut self,
        id: ConnId,
        session: &mut Session,
        keys: &[u32],
        overlapping: bool,
        thrift: Thrift,
        now: Nanos,
    ) -> Option<Gather> {
        let (mut parts, encoding) = (Parts::new(thrift), session.encoding());
        // Found once per topic: a thousand subscriptions that match are asked once, not each about the others.
        let mut senders = FxHashMap::default();
        let mut notices = 0;
        for &key in keys {
            let &Subscription { log, cursor, .. } = session.subscription(key).expect("a pending subscription");
            let mut sends = |id: TopicId, topic: &str| {
                let sender = || session.sender_of(topic);
                !overlapping || *senders.entry(id).or_insert_with(sender) == Some(key)
            };
            // What it was not sent is said before what follows, or both wait for the next send.
            let notice =
                self.gaps.tell(Subscriber { conn: id, sub: key }, (&mut parts, encoding), &self.account, &mut sends);
            notices += usize::from(notice == Notice::Sent);
            let mut to = cursor;
            if notice != Notice::Deferred {
                let pending = self.logs[log].pending(cursor);
                let wanted = |message: &Message| sends(message.topic_id, &message.topic);
                let filled = parts.fill(pending, encoding, &self.account, wanted);
                to = filled.end.unwrap_or(self.logs[log].head());
                self.count_saved(log, to - cursor, (to - cursor) - filled.passed);
            }
            self.advance(Subscriber { conn: id, sub: key }, session, to, true, now);
        }
        self.stats().messages_out.add((parts.len() - notices) as u64);
        (!parts.is_empty()).then(|| parts.coalesce(COPY_BYTES_MAX, &self.account))
    }

    /// Counts what a send of so many positions spared its subscriber.
    fn count_saved(&self, slot: LogSlot, positions: u64, superseded: u64) {
        let log = &self.logs[slot];
        if log.conflates() {
            self.stats().messages_conflated.add(superseded);
        }
        if log.policy.throttle > Throttle::NONE {
            self.stats().sends_saved.add(positions.saturating_sub(1));
        }
    }

    /// Moves a subscription's cursor to `to`; what is left beyond stays pending. `takes_notices`: as its session.
    fn advance(&mut self, subscriber: Subscriber, session: &mut Session, to: Seq, takes_notices: bool, now: Nanos) {
        let subscription = session.subscription_mut(subscriber.sub).expect("a subscriber has a subscription");
        let slot = subscription.log;
        let to = match self.logs[slot].skip_target(to) {
            None => to,
            Some(target) => {
                self.skip(subscriber, slot, to, target, takes_notices);
                target
            }
        };
        let log = &mut self.logs[slot];
        subscription.cursor = to;
        let left = to < log.head();
        if left {
            log.lags(to, !std::mem::replace(&mut subscription.lagging, true));
        } else if std::mem::take(&mut subscription.lagging) && log.caught_up() {
            self.delivered_logs.push(subscription.log);
        }
        // It is about to be sent this: it is not blocked.
        self.enforce_lag_limit(subscriber, subscription, false, now);
        if left {
            session.set_pending(subscriber.sub);
        }
    }
}

//! Which subscriptions of a topic are furthest behind, for operators.
//!
//! A topic may have any number of subscribers: one question looks at [`INSPECTED_MAX`] of them, and the answer says where the
//! next one goes on. Subscribers that come, go or change places meanwhile may be missed or found twice.

use ring::Driver;

use crate::ids::TopicId;
use crate::shard::Shard;
use crate::shard::shared::{INSPECTED_MAX, SLOWEST_MAX, Slow, SlowestPart};

impl<D: Driver> Shard<D> {
    /// Looks at subscribers of a topic's own log, from this one on.
    pub(super) fn slowest(&mut self, topic: TopicId, from: usize) -> SlowestPart {
        let Some(slot) = self.fanout.logs.slot_of(topic) else { return SlowestPart::default() };
        let log = &self.fanout.logs[slot];
        if log.kept_bytes() == 0 {
            return SlowestPart::default();
        }
        let mut slowest = Vec::new();
        for subscriber in log.subscribers().iter().skip(from).take(INSPECTED_MAX) {
            let conn = self.conns.get(subscriber.conn).expect("a subscriber is an open connection");
            let subscription = conn.session.subscription(subscriber.sub).expect("a subscriber has a subscription");
            let Some(oldest) = log.pending(subscription.cursor).next() else { continue };
            let behind = self.now.saturating_sub(oldest.sequenced_at);
            slowest.push(Slow { conn: subscriber.conn, bytes: log.lag_bytes(subscription.cursor), behind });
        }
        slowest.sort_by_key(|slow| std::cmp::Reverse((slow.bytes, slow.behind)));
        slowest.truncate(SLOWEST_MAX);
        let next = from + INSPECTED_MAX;
        SlowestPart { slowest, next: (next < log.len()).then_some(next) }
    }
}

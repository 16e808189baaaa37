//! Which subscriptions of a topic are furthest behind, for operators.
//!
//! A topic may have any number of subscribers: one question looks at [`INSPECTED_MAX`] of them, and the answer says where the
//! next one goes on. Subscribers that come, go or change places meanwhile may be missed or found twice.

use ring::Driver;

use crate::ids::TopicId;
use crate::shard::Shard;
use crate::shard::fanout::log::Log;
use crate::shard::shared::{INSPECTED_MAX, SLOWEST_MAX, Slow, SlowestPart};

impl<D: Driver> Shard<D> {
    /// Looks at subscribers of a topic's own logs, from this one on.
    pub(super) fn slowest(&mut self, topic: TopicId, from: usize) -> SlowestPart {
        let Some(slot) = self.fanout.logs.slot_of(topic) else { return SlowestPart::default() };
        let logs: Vec<&Log> = self.fanout.with_groups(slot).into_iter().map(|slot| &self.fanout.logs[slot]).collect();
        if logs.iter().all(|log| log.kept_bytes() == 0) {
            return SlowestPart::default();
        }
        let mut slowest = Vec::new();
        let subscribers = logs.iter().flat_map(|log| log.subscribers().iter().map(move |subscriber| (log, subscriber)));
        for (log, subscriber) in subscribers.skip(from).take(INSPECTED_MAX) {
            let conn = self.conns.get(subscriber.conn).expect("a subscriber is an open connection");
            let subscription = conn.session.subscription(subscriber.sub).expect("a subscriber has a subscription");
            let Some((_, oldest)) = log.pending(subscription.cursor).next() else { continue };
            let behind = self.now.saturating_sub(oldest.sequenced_at);
            slowest.push(Slow { conn: subscriber.conn, bytes: log.waiting_bytes(subscription.cursor), behind });
        }
        slowest.sort_by_key(|slow| std::cmp::Reverse((slow.bytes, slow.behind)));
        slowest.truncate(SLOWEST_MAX);
        let next = from + INSPECTED_MAX;
        SlowestPart { slowest, next: (next < logs.iter().map(|log| log.len()).sum()).then_some(next) }
    }
}

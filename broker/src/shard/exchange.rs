//! Publishes on their way to a topic's home, and deliveries on their way from it.
//!
//! What goes to another shard is gathered for a turn and pushed as one batch with one wake-up. A full
//! queue keeps the batch here and makes the shard congested: its publishers wait ([`Shard::is_congested`])
//! and, if it is deliveries that wait, it takes no requests. See [`super::link`] for why that cannot lock up.

use std::sync::Arc;

use ring::Driver;

use super::conn::LogSlot;
use super::link::{Delivery, Order, Origin, Published, Request};
use super::{Backlog, Outbound, Shard};
use crate::topics::home::Sequenced;
use crate::topics::message::{Message, Payload};
use crate::topics::registry::{ShardId, TopicRef};

/// Batches taken from each queue in one turn.
const BATCHES_PER_TURN: usize = 16;
/// What may wait for other shards before publishers have to.
const OUTBOUND_ITEMS_MAX: usize = 16 << 10;
const OUTBOUND_BYTES_MAX: u64 = 32 << 20;

impl<D: Driver> Shard<D> {
    /// A message of one of this shard's connections goes to its topic's home.
    pub(super) fn publish(&mut self, topic: TopicRef, payload: Payload, origin: Origin) {
        self.stats().messages_in.add(1);
        self.stats().bytes_in.add(payload.payload_len() as u64);
        self.request(topic.home, Request::Publish { topic, payload, origin });
    }

    /// Asks a home; its own shard at once, another with the turn's batch.
    pub(super) fn request(&mut self, home: ShardId, request: Request) {
        if home == self.id {
            self.on_request(request);
        } else {
            self.outbound.request(home, request);
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Publish { topic, payload, origin } => self.sequence(topic, payload, origin),
            Request::Join { topic, shard, join } => {
                let id = topic.id;
                let (epoch, next) = self.home.join(topic, shard, self.now);
                self.deliver(shard, Delivery::Joined { topic: id, join, epoch, next });
            }
            Request::Leave { topic, shard } => self.home.leave(topic, shard, self.now, &self.links.registry),
            Request::Mark => self.on_mark(),
        }
    }

    fn sequence(&mut self, topic: TopicRef, payload: Payload, origin: Origin) {
        let Sequenced { message, epoch, wanted } = self.home.publish(topic, payload, self.now);
        let published = Published { epoch, offset: message.offset };
        let mut here = false;
        for &shard in wanted {
            if shard == self.id {
                here = true;
            } else {
                self.outbound.delivery(shard, Delivery::Message(Arc::clone(&message)));
            }
        }
        self.stats().sequenced.add(1);
        if here {
            self.append(&message);
        }
        match origin {
            Origin::Silent => {}
            Origin::Connection { shard, conn, ticket } => {
                self.deliver(shard, Delivery::Published { conn, ticket, published });
            }
            // The request may have been given up meanwhile; its message counts all the same.
            Origin::Http(answer) => drop(answer.send(published)),
        }
    }

    pub(super) fn deliver(&mut self, shard: ShardId, delivery: Delivery) {
        if shard == self.id {
            self.on_delivery(delivery);
        } else {
            self.outbound.delivery(shard, delivery);
        }
    }

    fn on_delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Message(message) => self.append(&message),
            Delivery::Joined { topic, join, epoch, next } => self.on_joined(topic, join, epoch, next),
            Delivery::Published { conn, ticket, published } => self.on_published(conn, ticket, published),
            Delivery::Marked => self.on_marked(),
        }
    }

    /// Appends a message to the logs of its topic and of the filters that match it.
    fn append(&mut self, message: &Arc<Message>) {
        let mut wanted = false;
        if let Some(&slot) = self.log_of.get(&message.topic_id) {
            wanted |= self.append_to(slot, message);
        }
        if !self.matches.is_empty() {
            for &slot in self.matches.of(message.topic_id, &message.topic).iter() {
                wanted |= self.append_to(slot, message);
            }
        }
        if !wanted {
            self.stats().unsubscribed_messages.add(1);
        }
    }

    fn append_to(&mut self, slot: LogSlot, message: &Arc<Message>) -> bool {
        let half = self.limits.lag_bytes_max / 2;
        let log = self.logs[slot as usize].as_mut().expect("a log that is registered");
        if log.joining > 0 {
            // Sequenced before the join that is under way, or known to the homes that answered already:
            // the subscription begins later.
            return false;
        }
        let grown = log.append(Arc::clone(message));
        self.log_bytes += grown;
        if log.has_news() && !log.queued {
            log.queued = true;
            self.news.push_back(slot);
        }
        if !log.congested && log.unswept_bytes() > half {
            log.congested = true;
            self.congested_logs += 1;
        }
        grown > 0
    }

    /// Whether publishers have to wait: the sweep, or another shard, is too far behind.
    pub(super) fn is_congested(&self) -> bool {
        self.congested_logs > 0 || self.outbound.is_full()
    }

    // ---- queues

    pub(super) fn take_orders(&mut self) {
        while let Some(order) = self.inbox().next_order() {
            match order {
                Order::Adopt(adopt) => self.adopt(adopt),
                // Subscribers may be gone already: the answer's end says that it was not published.
                Order::Publish { topic, .. } if self.drain.is_under_way() => self.links.registry.release(topic),
                Order::Publish { topic, payload, answer } => self.publish(topic, payload, Origin::Http(answer)),
                Order::Shutdown { window } => self.begin_drain(window),
            }
            if self.is_congested() {
                return;
            }
        }
    }

    pub(super) fn take_deliveries(&mut self) {
        for _ in 0..BATCHES_PER_TURN {
            if self.congested_logs > 0 {
                return;
            }
            let Some(batch) = self.inbox().deliveries.pop() else { return };
            for delivery in batch {
                self.on_delivery(delivery);
            }
        }
    }

    pub(super) fn take_requests(&mut self) {
        for _ in 0..BATCHES_PER_TURN {
            // Requests of its own that wait for other homes do not count: those homes may wait for this one.
            if self.congested_logs > 0 || self.outbound.delivery_backlog.is_full() {
                return;
            }
            let Some(batch) = self.inbox().requests.pop() else { return };
            for request in batch {
                self.on_request(request);
            }
        }
    }

    /// Pushes what was gathered for other shards: one batch and one wake-up each.
    pub(super) fn flush_outbound(&mut self) {
        let Self { outbound, links, .. } = self;
        let mut waiting = std::mem::take(&mut outbound.waiting);
        waiting.retain(|&shard| !outbound.flush(shard, &links.inboxes[usize::from(shard)]));
        links.stats[usize::from(self.id)].queues_full.add(waiting.len() as u64);
        outbound.waiting = waiting;
        if outbound.waiting.is_empty() || !outbound.holds_requests() {
            outbound.request_backlog = Backlog::default();
        }
        if outbound.waiting.is_empty() || !outbound.holds_deliveries() {
            outbound.delivery_backlog = Backlog::default();
        }
    }
}

impl Outbound {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            requests: (0..shards).map(|_| Vec::new()).collect(),
            deliveries: (0..shards).map(|_| Vec::new()).collect(),
            waiting: Vec::new(),
            request_backlog: Backlog::default(),
            delivery_backlog: Backlog::default(),
        }
    }

    fn request(&mut self, shard: ShardId, request: Request) {
        self.request_backlog.items += 1;
        if let Request::Publish { payload, .. } = &request {
            self.request_backlog.bytes += payload.payload_len() as u64;
        }
        self.wait(shard);
        self.requests[usize::from(shard)].push(request);
    }

    fn delivery(&mut self, shard: ShardId, delivery: Delivery) {
        self.delivery_backlog.items += 1;
        if let Delivery::Message(message) = &delivery {
            self.delivery_backlog.bytes += message.weight();
        }
        self.wait(shard);
        self.deliveries[usize::from(shard)].push(delivery);
    }

    fn wait(&mut self, shard: ShardId) {
        let at = usize::from(shard);
        if self.requests[at].is_empty() && self.deliveries[at].is_empty() {
            self.waiting.push(shard);
        }
    }

    /// Whether everything for `shard` is on its way.
    fn flush(&mut self, shard: ShardId, inbox: &super::Inbox) -> bool {
        let at = usize::from(shard);
        let mut pushed = false;
        if !self.requests[at].is_empty() {
            match inbox.requests.push(std::mem::take(&mut self.requests[at])) {
                Ok(()) => pushed = true,
                Err(batch) => self.requests[at] = batch,
            }
        }
        if !self.deliveries[at].is_empty() {
            match inbox.deliveries.push(std::mem::take(&mut self.deliveries[at])) {
                Ok(()) => pushed = true,
                Err(batch) => self.deliveries[at] = batch,
            }
        }
        if pushed {
            inbox.wake();
        }
        self.requests[at].is_empty() && self.deliveries[at].is_empty()
    }

    fn is_full(&self) -> bool {
        self.request_backlog.is_full() || self.delivery_backlog.is_full()
    }

    /// Whether a request has not been pushed yet.
    pub(super) fn holds_requests(&self) -> bool {
        self.requests.iter().any(|batch| !batch.is_empty())
    }

    /// Whether a delivery has not been pushed yet.
    pub(super) fn holds_deliveries(&self) -> bool {
        self.deliveries.iter().any(|batch| !batch.is_empty())
    }
}

impl Backlog {
    fn is_full(&self) -> bool {
        self.items > OUTBOUND_ITEMS_MAX || self.bytes > OUTBOUND_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use protocol::v1::PayloadKind;
    use ring::sim::{Faults, SimDriver, World};

    use super::*;
    use crate::limits::Limits;
    use crate::shard::ShardSetup;
    use crate::shard::link::Links;

    fn publish(topic: &TopicRef) -> Request {
        let payload = Payload::copy_of(PayloadKind::Text, b"x");
        Request::Publish { topic: Arc::clone(topic), payload, origin: Origin::Silent }
    }

    /// Two shards whose queues of requests are full, and that have more for each other than publishers may
    /// add to: each goes on as a home, or neither would ever.
    #[test]
    fn full_queues_of_requests_both_ways_do_not_lock_up() {
        let world = World::new(1, Faults::default());
        let links = Arc::new(Links::new(2, 1, 1));
        let limits = Arc::new(Limits::default());
        let shard = |id| {
            let setup = ShardSetup { id, links: Arc::clone(&links), limits: Arc::clone(&limits) };
            Shard::new(world.driver(4, 4, 64), setup)
        };
        let mut shards: Vec<Shard<SimDriver>> = vec![shard(0), shard(1)];
        let homed_at = |home| {
            let mut topics = (0..).map(|n: u32| links.registry.resolve(&format!("t{n}")));
            topics.find(|topic| topic.home == home).expect("names are many")
        };
        let topics = [homed_at(0), homed_at(1)];
        for (shard, topic) in shards.iter_mut().zip(topics.iter().rev()) {
            let inbox = &links.inboxes[usize::from(topic.home)];
            while inbox.requests.push(vec![publish(topic)]).is_ok() {}
            while !shard.outbound.is_full() {
                shard.request(topic.home, publish(topic));
            }
        }
        for _ in 0..100 {
            for shard in &mut shards {
                shard.step().unwrap();
            }
        }
        for shard in &shards {
            assert!(!shard.outbound.holds_requests() && shard.inbox().requests.is_empty());
            assert!(!shard.is_congested());
        }
    }
}

//! Publishes on their way to a topic's sequencer, and deliveries on their way from it.
//!
//! What goes to another shard is gathered for a turn and pushed as one batch with one wake-up. A full
//! queue keeps the batch here and makes publishers wait ([`Shard::must_wait`]) and, if it is deliveries that wait, it
//! takes no requests. See [`crate::shard::shared`] for why that cannot lock up.
//!
//! A turn takes only so much of its queues: the rest of a batch waits here for the next turn. How messages get into
//! logs is in [`crate::shard::fanout::append`].

use std::sync::Arc;

use ring::Driver;

use crate::capacity::budget::{Account, Charge};
use crate::ids::ShardId;
use crate::message::Payload;
use crate::sequencer::Sequenced;
use crate::shard::shared::{Batch, ControlMessage, Delivery, Origin, Published, Request};
use crate::shard::{Backlog, Outbound, Shard};
use crate::topics::registry::TopicRef;

/// Orders, and items of other shards' batches, that one turn takes of each kind.
const ITEMS_PER_TURN: usize = 1024;
/// What may wait for other shards before publishers have to.
const OUTBOUND_ITEMS_MAX: usize = 16 << 10;
const OUTBOUND_BYTES_MAX: u64 = 32 << 20;

/// The rest of a batch of another shard that this shard has begun to take.
#[derive(Debug)]
pub(super) struct Rest<T>(Option<(std::vec::IntoIter<T>, Charge)>);

impl<T> Default for Rest<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Rest<T> {
    /// The next item; `more` gives the next batch, if there is one.
    fn next(&mut self, more: impl FnOnce() -> Option<Batch<T>>) -> Option<T> {
        if self.is_empty() {
            self.0 = more().map(Batch::into_parts);
        }
        self.0.as_mut()?.0.next()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|(items, _)| items.len() == 0)
    }

    /// Gives the memory back once everything was taken.
    fn tidy(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }
}

impl<D: Driver> Shard<D> {
    /// A message of one of this shard's connections goes to its topic's sequencer.
    pub(super) fn publish(&mut self, topic: TopicRef, payload: Payload, origin: Origin) {
        self.stats().messages_in.add(1);
        self.stats().bytes_in.add(payload.payload_len() as u64);
        self.request(topic.sequencer, Request::Publish { topic, payload, origin });
    }

    /// Asks a sequencer; its own shard at once, another with the turn's batch.
    pub(super) fn request(&mut self, sequencer: ShardId, request: Request) {
        if sequencer == self.id {
            self.on_request(request);
        } else {
            self.outbound.request(sequencer, request);
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Publish { topic, payload, origin } => self.sequence(topic, payload, origin),
            Request::Join { topic, shard, join } => {
                let id = topic.id;
                let (epoch, next) = self.sequencer.join(topic, shard, self.now);
                self.deliver(shard, Delivery::Joined { topic: id, join, epoch, next });
            }
            Request::Leave { topic, shard } => self.sequencer.leave(&topic, shard, self.now),
            Request::Mark => self.on_mark(),
        }
    }

    fn sequence(&mut self, topic: TopicRef, payload: Payload, origin: Origin) {
        let Sequenced { message, epoch, wanted } = self.sequencer.publish(topic, payload, self.now);
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

    // ---- queues

    pub(super) fn take_orders(&mut self) {
        for _ in 0..ITEMS_PER_TURN {
            let Some(order) = self.inbox().next_control() else { return };
            match order {
                ControlMessage::Adopt(adopt) => self.adopt(adopt),
                // Subscribers may be gone already: the answer's end says that it was not published.
                ControlMessage::Publish { .. } if self.drain.is_under_way() => {}
                ControlMessage::Publish { topic, payload, answer } => {
                    self.publish(topic, payload, Origin::Http(answer))
                }
                ControlMessage::Shutdown { window } => self.begin_drain(window),
            }
            if self.must_wait() {
                return;
            }
        }
    }

    pub(super) fn take_deliveries(&mut self) {
        let mut rest = std::mem::take(&mut self.deliveries);
        for _ in 0..ITEMS_PER_TURN {
            // Messages that wait to be appended come first in their topics, and their number is bounded.
            if !self.appends.has_room() {
                break;
            }
            let Some(delivery) = rest.next(|| self.inbox().deliveries.pop()) else { break };
            self.on_delivery(delivery);
        }
        rest.tidy();
        self.deliveries = rest;
    }

    pub(super) fn take_requests(&mut self) {
        let mut rest = std::mem::take(&mut self.requests);
        for _ in 0..ITEMS_PER_TURN {
            // Requests of its own that wait for other sequencers do not count: those sequencers may wait for this one.
            if self.outbound.delivery_backlog.is_full() || !self.appends.has_room() {
                break;
            }
            let Some(request) = rest.next(|| self.inbox().requests.pop()) else { break };
            self.on_request(request);
        }
        rest.tidy();
        self.requests = rest;
    }

    /// Pushes what was gathered for other shards: one batch and one wake-up each.
    pub(super) fn flush_outbound(&mut self) {
        let Self { outbound, shared, .. } = self;
        let mut waiting = std::mem::take(&mut outbound.waiting);
        waiting.retain(|&shard| !outbound.flush(shard, &shared.inboxes[usize::from(shard)]));
        shared.stats[usize::from(self.id)].queues_full.add(waiting.len() as u64);
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
    pub(super) fn new(shards: usize, account: &Arc<Account>) -> Self {
        Self {
            requests: (0..shards).map(|_| Batch::new(account)).collect(),
            deliveries: (0..shards).map(|_| Batch::new(account)).collect(),
            waiting: Vec::new(),
            request_backlog: Backlog::default(),
            delivery_backlog: Backlog::default(),
        }
    }

    fn request(&mut self, shard: ShardId, request: Request) {
        self.request_backlog.items += 1;
        if let Request::Publish { payload, .. } = &request {
            self.request_backlog.bytes += payload.weight();
        }
        self.wait(shard);
        self.requests[usize::from(shard)].items.push(request);
    }

    fn delivery(&mut self, shard: ShardId, delivery: Delivery) {
        self.delivery_backlog.items += 1;
        if let Delivery::Message(message) = &delivery {
            self.delivery_backlog.bytes += message.weight();
        }
        self.wait(shard);
        self.deliveries[usize::from(shard)].items.push(delivery);
    }

    fn wait(&mut self, shard: ShardId) {
        let at = usize::from(shard);
        if self.requests[at].items.is_empty() && self.deliveries[at].items.is_empty() {
            self.waiting.push(shard);
        }
    }

    /// Whether everything for `shard` is on its way.
    fn flush(&mut self, shard: ShardId, inbox: &crate::shard::Inbox) -> bool {
        let at = usize::from(shard);
        let mut pushed = false;
        if !self.requests[at].items.is_empty() {
            match inbox.requests.push(self.requests[at].take()) {
                Ok(()) => pushed = true,
                Err(batch) => self.requests[at] = batch,
            }
        }
        if !self.deliveries[at].items.is_empty() {
            match inbox.deliveries.push(self.deliveries[at].take()) {
                Ok(()) => pushed = true,
                Err(batch) => self.deliveries[at] = batch,
            }
        }
        if pushed {
            inbox.wake();
        }
        self.requests[at].items.is_empty() && self.deliveries[at].items.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.request_backlog.is_full() || self.delivery_backlog.is_full()
    }

    /// Whether a request has not been pushed yet.
    pub(super) fn holds_requests(&self) -> bool {
        self.requests.iter().any(|batch| !batch.items.is_empty())
    }

    /// Whether a delivery has not been pushed yet.
    pub(super) fn holds_deliveries(&self) -> bool {
        self.deliveries.iter().any(|batch| !batch.items.is_empty())
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
    use crate::config::limits::Limits;
    use crate::shard::ShardSetup;
    use crate::shard::shared::SharedState;

    fn publish(topic: &TopicRef, account: &Arc<Account>) -> Request {
        let payload = Payload::copy_of(PayloadKind::Text, b"x", account);
        Request::Publish { topic: topic.clone(), payload, origin: Origin::Silent }
    }

    /// Two shards whose queues of requests are full, and that have more for each other than publishers may
    /// add to: each goes on as a sequencer, or neither would ever.
    #[test]
    fn full_queues_of_requests_both_ways_do_not_lock_up() {
        let world = World::new(1, Faults::default());
        let shared = Arc::new(SharedState::new(2, 1, 1));
        let limits = Arc::new(Limits::default());
        let shard = |id| {
            let setup = ShardSetup { id, shared: Arc::clone(&shared), limits: Arc::clone(&limits) };
            Shard::new(world.driver(4, 4, 64), setup)
        };
        let mut shards: Vec<Shard<SimDriver>> = vec![shard(0), shard(1)];
        let homed_at = |sequencer| {
            let mut topics = (0..).map(|n: u32| shared.registry.resolve(&format!("t{n}")));
            topics.find(|topic| topic.sequencer == sequencer).expect("names are many")
        };
        let topics = [homed_at(0), homed_at(1)];
        for (shard, topic) in shards.iter_mut().zip(topics.iter().rev()) {
            let inbox = &shared.inboxes[usize::from(topic.sequencer)];
            let account = Arc::clone(&shard.account);
            let batch = || {
                let mut batch = Batch::new(&account);
                batch.items.push(publish(topic, &account));
                batch
            };
            while inbox.requests.push(batch()).is_ok() {}
            while !shard.outbound.is_full() {
                shard.request(topic.sequencer, publish(topic, &account));
            }
        }
        for _ in 0..100 {
            for shard in &mut shards {
                shard.step().unwrap();
            }
        }
        for shard in &shards {
            assert!(!shard.outbound.holds_requests() && shard.inbox().requests.is_empty());
            assert!(!shard.must_wait());
        }
    }
}

//! The way from a shard to a topic's sequencer and back, on this shard or another.
//!
//! [`Mailbox`] holds what goes out and what has come in. A [`Request`] or [`Delivery`] for the own shard takes the same
//! way as one for another: it is queued when it is made, and handled in the turn's stage for its kind. So nothing that
//! makes a request is in the middle of handling one.
//!
//! What goes to another shard is gathered for a turn and pushed as one batch with one wake-up. A full queue keeps the
//! batch here and makes publishers wait ([`Shard::must_wait`]) and, if it is deliveries that wait, it takes no requests.
//! See [`crate::shard::shared`] for why that cannot lock up. Deliveries to the own shard have a bound of the same kind:
//! beyond [`ITEMS_PER_TURN`] no requests are taken until they are worked off, which waits for nobody.
//!
//! A turn takes only so much of its queues: the rest of a batch waits here for the next turn. How messages get into
//! logs is in [`crate::shard::fanout::append`].

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use ring::Driver;

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::ids::ShardId;
use crate::message::Payload;
use crate::message::options::PublishOptions;
use crate::shard::Shard;
use crate::shard::shared::{Batch, ControlMessage, Delivery, Inbox, Origin, Published, Request, SharedState};
use crate::topics::registry::TopicRef;

/// Control messages, and items of queues, that one turn takes of each kind.
const ITEMS_PER_TURN: usize = 1024;
/// What may wait in one direction before publishers have to.
const WAITING_ITEMS_MAX: usize = 16 << 10;
const WAITING_BYTES_MAX: u64 = 32 << 20;

/// What an item of a queue weighs for its bound, in bytes of messages.
pub(super) trait Weighed {
    /// Bytes of messages in it.
    fn weight(&self) -> u64;
}

impl Weighed for Request {
    fn weight(&self) -> u64 {
        match self {
            Self::Publish { payload, .. } => payload.weight(),
            Self::Snapshot(request) => request.payload.weight(),
            _ => 0,
        }
    }
}

impl Weighed for Delivery {
    fn weight(&self) -> u64 {
        if let Self::Message(message) = self { message.weight() } else { 0 }
    }
}

/// Items of one kind that go out of a shard, and that have come to it.
///
/// Invariants: `own_bytes` is what `own` weighs; `others_items` and `others_bytes` count at least what `batches` hold.
#[derive(Debug)]
struct Queue<T> {
    /// For each shard, what is gathered for it, or what its full queue did not take yet. Nothing for the own one.
    batches: Vec<Batch<T>>,
    /// From this shard to itself, oldest first.
    own: VecDeque<T>,
    own_bytes: u64,
    own_charge: Charge,
    /// The rest of a batch of another shard that this shard has begun to take.
    rest: Option<(std::vec::IntoIter<T>, Charge)>,
    /// Whether the next item comes from others, if they have any: the two take turns.
    others_next: bool,
    /// Items for other shards that were added since none waited, and what they weigh.
    others_items: usize,
    others_bytes: u64,
}

impl<T: Weighed> Queue<T> {
    fn new(shards: usize, account: &Arc<Account>) -> Self {
        Self {
            batches: (0..shards).map(|_| Batch::new(account)).collect(),
            own: VecDeque::new(),
            own_bytes: 0,
            own_charge: Charge::new(account, Held::Queues, 0),
            rest: None,
            others_next: false,
            others_items: 0,
            others_bytes: 0,
        }
    }

    fn push_other(&mut self, shard: ShardId, item: T) {
        self.others_items += 1;
        self.others_bytes += item.weight();
        self.batches[usize::from(shard)].items.push(item);
    }

    fn push_own(&mut self, item: T) {
        self.own_bytes += item.weight();
        let (was_empty, room) = (self.own.is_empty(), self.own.capacity());
        self.own.push_back(item);
        if was_empty || self.own.capacity() != room {
            self.own_charge.resize(allocated(self.own.capacity() * size_of::<T>()));
        }
    }

    fn pop_own(&mut self) -> Option<T> {
        let item = self.own.pop_front()?;
        self.own_bytes -= item.weight();
        Some(item)
    }

    /// The next item of the own shard or of another; `more` gives the next batch of others, if there is one.
    fn next(&mut self, more: impl FnOnce() -> Option<Batch<T>>) -> Option<T> {
        self.others_next = !self.others_next;
        if !self.others_next
            && let Some(item) = self.pop_own()
        {
            return Some(item);
        }
        if !self.has_rest() {
            self.rest = more().map(Batch::into_parts);
        }
        let next = self.rest.as_mut().and_then(|(items, _)| items.next());
        next.or_else(|| self.pop_own())
    }

    fn has_rest(&self) -> bool {
        self.rest.as_ref().is_some_and(|(items, _)| items.len() > 0)
    }

    /// Whether something has come that was not taken yet, the inbox not counted.
    fn has_come(&self) -> bool {
        self.has_rest() || !self.own.is_empty()
    }

    /// Gives memory back that the turn left unused.
    fn tidy(&mut self) {
        if !self.has_rest() {
            self.rest = None;
        }
        if self.own.is_empty() {
            // What it keeps room for while it is empty is a fixed part of the shard.
            self.own.shrink_to(ITEMS_PER_TURN);
            self.own_charge.resize(0);
        }
    }

    fn is_full(&self) -> bool {
        self.own.len() + self.others_items > WAITING_ITEMS_MAX || self.own_bytes + self.others_bytes > WAITING_BYTES_MAX
    }

    /// Whether something for another shard has not been pushed yet.
    fn holds(&self) -> bool {
        self.batches.iter().any(|batch| !batch.items.is_empty())
    }

    /// Begins to count anew once nothing waits for other shards.
    fn recount(&mut self) {
        if !self.holds() {
            (self.others_items, self.others_bytes) = (0, 0);
        }
    }
}

/// What goes between this shard and the sequencers, its own among them.
#[derive(Debug)]
pub(super) struct Mailbox {
    id: ShardId,
    shared: Arc<SharedState>,
    requests: Queue<Request>,
    deliveries: Queue<Delivery>,
    /// Shards for which a batch waits, each once.
    waiting: Vec<ShardId>,
}

impl Mailbox {
    pub(super) fn new(id: ShardId, shared: Arc<SharedState>, account: &Arc<Account>) -> Self {
        let shards = shared.inboxes.len();
        Self {
            id,
            shared,
            requests: Queue::new(shards, account),
            deliveries: Queue::new(shards, account),
            waiting: Vec::new(),
        }
    }

    /// The queues into this shard.
    pub(super) fn inbox(&self) -> &Inbox {
        &self.shared.inboxes[usize::from(self.id)]
    }

    /// Asks a sequencer.
    pub(super) fn request(&mut self, sequencer: ShardId, request: Request) {
        if sequencer == self.id {
            self.requests.push_own(request);
        } else {
            self.wait_for(sequencer);
            self.requests.push_other(sequencer, request);
        }
    }

    /// Passes something on to a shard, as a sequencer.
    pub(super) fn deliver(&mut self, shard: ShardId, delivery: Delivery) {
        if shard == self.id {
            self.deliveries.push_own(delivery);
        } else {
            self.wait_for(shard);
            self.deliveries.push_other(shard, delivery);
        }
    }

    fn wait_for(&mut self, shard: ShardId) {
        let at = usize::from(shard);
        if self.requests.batches[at].items.is_empty() && self.deliveries.batches[at].items.is_empty() {
            self.waiting.push(shard);
        }
    }

    /// The next request to this shard's sequencer, while its answers do not back up. Requests of its own that wait for
    /// other sequencers do not count: those sequencers may wait for this one.
    fn next_request(&mut self) -> Option<Request> {
        if self.deliveries.is_full() || self.deliveries.own.len() >= ITEMS_PER_TURN {
            return None;
        }
        let inbox = &self.shared.inboxes[usize::from(self.id)];
        self.requests.next(|| inbox.requests.pop())
    }

    fn next_delivery(&mut self) -> Option<Delivery> {
        let inbox = &self.shared.inboxes[usize::from(self.id)];
        self.deliveries.next(|| inbox.deliveries.pop())
    }

    /// Pushes what was gathered for other shards: one batch and one wake-up each. Returns for how many it did not find
    /// room.
    pub(super) fn flush(&mut self) -> usize {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&shard| !self.flush_to(shard));
        self.waiting = waiting;
        self.requests.recount();
        self.deliveries.recount();
        self.waiting.len()
    }

    /// Whether everything for `shard` is on its way.
    fn flush_to(&mut self, shard: ShardId) -> bool {
        let (at, inbox) = (usize::from(shard), &self.shared.inboxes[usize::from(shard)]);
        let (requests, deliveries) = (&mut self.requests.batches[at], &mut self.deliveries.batches[at]);
        let pushed =
            push(requests, |batch| inbox.requests.push(batch)) | push(deliveries, |batch| inbox.deliveries.push(batch));
        if pushed {
            inbox.wake();
        }
        requests.items.is_empty() && deliveries.items.is_empty()
    }

    /// Whether publishers have to wait for the queues.
    pub(super) fn is_full(&self) -> bool {
        self.requests.is_full() || self.deliveries.is_full()
    }

    /// Whether something has come that the next turn goes on with, the inbox not counted.
    pub(super) fn has_come(&self) -> bool {
        self.requests.has_come() || self.deliveries.has_come()
    }

    /// Whether a batch waits for a full queue of another shard.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether every request of this shard has reached its sequencer's queue.
    pub(super) fn has_forwarded(&self) -> bool {
        !self.requests.holds()
    }

    /// Whether this shard's sequencer has taken every request, and passed everything on.
    pub(super) fn has_sequenced(&self) -> bool {
        self.inbox().requests.is_empty() && !self.requests.has_come() && !self.deliveries.holds()
    }

    /// Whether every delivery that came was taken.
    pub(super) fn has_taken_deliveries(&self) -> bool {
        self.inbox().deliveries.is_empty() && !self.deliveries.has_come()
    }
}

/// Pushes a batch that has something in it. Whether the queue took it.
fn push<T>(batch: &mut Batch<T>, queue: impl FnOnce(Batch<T>) -> Result<(), Batch<T>>) -> bool {
    if batch.items.is_empty() {
        return false;
    }
    match queue(batch.take()) {
        Ok(()) => true,
        Err(back) => {
            *batch = back;
            false
        }
    }
}

impl<D: Driver> Shard<D> {
    /// A message of one of this shard's connections goes to its topic's sequencer.
    pub(super) fn publish(
        &mut self,
        topic: TopicRef,
        payload: Payload,
        options: Option<Box<PublishOptions>>,
        origin: Origin,
    ) {
        self.stats().messages_in.add(1);
        self.stats().bytes_in.add(payload.bytes().len() as u64);
        self.mailbox.request(topic.sequencer, Request::Publish { topic, payload, options, origin });
    }

    /// Sends what was gathered for other shards.
    pub(super) fn flush_mail(&mut self) {
        let full = self.mailbox.flush();
        self.stats().queues_full.add(full as u64);
    }

    /// Takes what has come: control messages, then requests, then deliveries, among them the answers to those requests.
    pub(super) fn take_mail(&mut self) {
        self.take_control_messages();
        self.take_requests();
        self.take_deliveries();
    }

    fn take_control_messages(&mut self) {
        for _ in 0..ITEMS_PER_TURN {
            let Some(message) = self.mailbox.inbox().next_control() else { return };
            match message {
                ControlMessage::Adopt(adopt) => self.adopt(adopt),
                // Subscribers may be gone already: the answer's end says that it was not published.
                ControlMessage::Publish { .. } if self.drain.is_under_way() => {}
                ControlMessage::Publish { topic, payload, options, answer } => {
                    self.publish(topic, payload, options, Origin::Http(answer))
                }
                ControlMessage::Inspect { topics, answer } => drop(answer.send(self.inspect(&topics))),
                ControlMessage::Shutdown { window, is_succeeded } => self.begin_drain(window, is_succeeded),
            }
            if self.must_wait() {
                return;
            }
        }
    }

    fn take_requests(&mut self) {
        for _ in 0..ITEMS_PER_TURN {
            // Messages that wait to be appended come first in their topics, and their number is bounded.
            if !self.fanout.appends.has_room() {
                break;
            }
            let Some(request) = self.mailbox.next_request() else { break };
            self.on_request(request);
        }
        self.mailbox.requests.tidy();
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Publish { topic, payload, options, origin } => self.sequence(topic, payload, options, origin),
            Request::Join { topic, shard, join } => {
                let id = topic.id;
                let (epoch, next) = self.sequencer.join(topic, shard, self.now);
                self.mailbox.deliver(shard, Delivery::Joined { topic: id, join, epoch, next });
            }
            Request::Leave { topic, shard } => self.sequencer.leave(&topic, shard, self.now),
            Request::Recall(request) => self.find_recalled(*request),
            Request::History(request) => self.find_history(*request),
            Request::Snapshot(request) => self.replace_snapshot(*request),
            Request::Mark => self.on_mark(),
        }
    }

    fn take_deliveries(&mut self) {
        for _ in 0..ITEMS_PER_TURN {
            if !self.fanout.appends.has_room() {
                break;
            }
            let Some(delivery) = self.mailbox.next_delivery() else { break };
            self.on_delivery(delivery);
        }
        self.mailbox.deliveries.tidy();
    }

    fn on_delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Message(message) => self.fanout.append(&message),
            Delivery::Joined { topic, join, epoch, next } => self.on_joined(topic, join, epoch, next),
            Delivery::Published { conn, ticket, epoch, offset, subscribers, duplicate } => {
                self.on_published(conn, ticket, Ok(Published { epoch, offset, subscribers, duplicate }));
            }
            Delivery::Refused { conn, ticket, refusal } => self.on_published(conn, ticket, Err(*refusal)),
            Delivery::Recalled(answer) => self.on_recalled(*answer),
            Delivery::History(answer) => self.on_history(*answer),
            Delivery::Stored { conn, ticket } => self.on_stored(conn, ticket),
            Delivery::Marked => self.on_marked(),
        }
    }
}

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

mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ring::Driver;

use crate::capacity::budget::Account;
use crate::ids::ShardId;
use crate::message::options::PublishOptions;
use crate::message::{Message, Payload};
use crate::session::SequencerAnswer;
use crate::shard::Shard;
use crate::shard::inbox::{Batch, Inbox};
use crate::shard::mailbox::queue::Queue;
use crate::shard::shared::{ControlMessage, Delivery, Origin, Published, Request, SharedState};
use crate::topics::registry::TopicRef;

/// Control messages, and items of queues, that one turn takes of each kind.
const ITEMS_PER_TURN: usize = 1024;
/// What goes between this shard and the sequencers, its own among them.
#[derive(Debug)]
pub(super) struct Mailbox {
    id: ShardId,
    shared: Arc<SharedState>,
    /// `--max-log`.
    log_bytes_max: u64,
    requests: Queue<Request>,
    deliveries: Queue<Delivery>,
    /// Shards for which a batch waits, each once.
    waiting: Vec<ShardId>,
}

impl Mailbox {
    pub(super) fn new(id: ShardId, shared: Arc<SharedState>, account: &Arc<Account>, log_bytes_max: u64) -> Self {
        let shards = shared.inboxes.len();
        Self {
            id,
            shared,
            log_bytes_max,
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

    /// Passes a message on to these shards, as a sequencer.
    pub(super) fn deliver_to(&mut self, shards: &[ShardId], message: &Arc<Message>) {
        for &shard in shards {
            self.deliver(shard, Delivery::Message(Arc::clone(message)));
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

    /// What messages weigh that are here on their way into logs.
    pub(super) fn held_bytes(&self) -> u64 {
        self.requests.bytes() + self.deliveries.bytes()
    }

    /// What all batches weigh that have come from other shards since this was last asked.
    pub(super) fn take_come_bytes(&mut self) -> u64 {
        self.requests.take_come_bytes() + self.deliveries.take_come_bytes()
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
        // What goes to a sequencer will be in somebody's logs: it counts as if that were the sequencer's shard.
        let bytes = requests.bytes + deliveries.bytes;
        if bytes > 0 {
            self.shared.log_shares.send(shard, bytes, self.log_bytes_max);
        }
        let pushed =
            push(requests, |batch| inbox.requests.push(batch)) | push(deliveries, |batch| inbox.deliveries.push(batch));
        let back = requests.bytes + deliveries.bytes;
        if back > 0 {
            self.shared.log_shares.take_back(shard, back);
        }
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
                // Behind the publishes that came before it.
                ControlMessage::Purge { topic, answer } => {
                    self.mailbox.request(topic.sequencer, Request::Purge { topic, answer });
                }
                ControlMessage::Poll(poll) => self.poll(poll),
                ControlMessage::Ask(question) => self.ask_for_http(question),
                ControlMessage::Inspect { topics, answer } => drop(answer.send(self.inspect(&topics))),
                ControlMessage::CloseUser { user, issued_before_s, answer } => {
                    // Who asked may have given up.
                    let _ = answer.send(self.close_user(&user, issued_before_s));
                }
                ControlMessage::SignedIn { user, answer } => drop(answer.send(self.signed_in(user.as_deref()))),
                ControlMessage::OfClient { client, from, answer } => drop(answer.send(self.of_client(client, from))),
                ControlMessage::Trace { conn, lines, answer } => drop(answer.send(self.trace(conn, lines))),
                ControlMessage::Newest { topic, limit, answer } => drop(answer.send(self.newest(topic, limit))),
                // The next turn sees it.
                ControlMessage::RightsChanged => {}
                ControlMessage::Slowest { topic, from, answer } => drop(answer.send(self.slowest(topic, from))),
                ControlMessage::Present { topic, answer } => drop(answer.send(self.present(topic))),
                ControlMessage::Busiest { goes_on, answer } => drop(answer.send(self.busiest.take(goes_on))),
                ControlMessage::Peers { conns, answer } => self.find_peers(&conns, answer),
                ControlMessage::AcceptAnew => self.accept_anew(),
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
                self.begin_count(&topic);
                let (epoch, next) = self.sequencer.join(topic, shard, self.now);
                self.mailbox.deliver(shard, Delivery::Joined { topic: id, join, epoch, next });
            }
            Request::Leave { topic, shard } => {
                self.sequencer.leave(&topic, shard, self.now);
                self.end_count(&topic);
            }
            Request::Recall(request) => self.find_recalled(*request),
            Request::History(request) => self.find_history(*request),
            Request::Snapshot(request) => self.replace_snapshot(*request),
            Request::Purge { topic, answer } => drop(answer.send(self.purge(&topic))),
            Request::Respond(registration) => self.on_registration(*registration),
            Request::Call(call) => self.on_call(call),
            Request::Session(request) => self.on_session_request(*request),
            Request::Presence(request) => self.on_presence_request(*request),
            Request::Lease(request) => self.on_lease_request(*request),
            Request::LeaseReport(report) => self.on_lease_report(*report),
            Request::Will(request) => self.on_will_request(*request),
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
            Delivery::Registered { ticket } => self.on_registered(ticket),
            Delivery::Called(called) => self.on_called(*called),
            Delivery::Done { conn, ticket } => self.answer_command(conn, ticket, Ok(SequencerAnswer::Done)),
            Delivery::Opened(opened) => self.on_session_opened(*opened),
            Delivery::SessionTaken(conn) => self.on_session_taken(conn),
            Delivery::Members(answer) => self.on_members(*answer),
            Delivery::Leased(answer) => self.on_lease_answer(*answer),
            Delivery::LeaseLost(lost) => self.on_lease_lost(&lost),
            Delivery::Marked => self.on_marked(),
        }
    }
}

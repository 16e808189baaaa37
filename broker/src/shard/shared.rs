//! How shards and the control plane reach each other: bounded queues and one wake-up per batch.
//!
//! Three queues lead into a shard, because they wait for different things:
//!
//! | queue | carries | when it is full |
//! | --- | --- | --- |
//! | `requests` | publishes, joins and leaves for topics whose sequencer this shard is | the sender keeps its batch and pauses its publishers, nothing else |
//! | `deliveries` | sequenced messages and answers from sequencers | the sequencer keeps its batch and takes no further requests |
//! | `control_messages` | adopted sockets, HTTP publishes, shutdown | the control plane waits |
//!
//! A shard takes deliveries without waiting for anybody, so many a turn. So deliveries always drain. It takes requests
//! while its own deliveries do not back up, whatever requests of its own wait elsewhere. Therefore requests always
//! drain: no cycle of waiting shards. What keeps deliveries from piling up in a log is not the queue but the topic: its
//! publishers, on every shard, wait while it is congested ([`Topic::is_congested`]), and nobody else does.
//!
//! [`Topic::is_congested`]: crate::topics::registry::Topic::is_congested

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use ring::{ConnId, Waker};
use tokio::sync::oneshot;

use crate::access::address::Addresses;
use crate::access::admission::Admission;
use crate::access::keys::PublishKeys;
use crate::access::quota::ClientShares;
use crate::capacity::budget::{self, Account, Budget, Charge, Held};
use crate::ids::{Epoch, Offset, ShardId, TopicId};
use crate::message::options::{PublishOptions, Refusal};
use crate::message::{Message, Payload};
use crate::observe::counters::Stats;
use crate::observe::refused::RefusedValues;
use crate::publishing::date::WallClock;
use crate::sequencer::history::recall::{HistoryQuery, Page, Place, Recall, Recalled};
use crate::sequencer::ledger::Usage;
use crate::sequencer::walk::{WalkPart, WalkPlace};
use crate::shard::handover::{Adopt, Handovers};
use crate::topics::registry::{Registry, TopicRef};
use crate::topics::rules::{Rules, SharedRules};

/// Batches that one queue between two shards holds.
const BATCHES_MAX: usize = 256;
/// Orders and handed-over sockets that wait at most.
const ORDERS_MAX: usize = 4096;

/// Where a published message was sequenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// The life of the topic's log.
    pub epoch: Epoch,
    /// The message's offset in it.
    pub offset: Offset,
    /// Subscriptions that matched the topic then.
    pub subscribers: u32,
    /// It is the place of an earlier publish, of which this one is a repetition.
    pub duplicate: bool,
}

/// Who wants to know where a message was sequenced.
#[derive(Debug)]
pub enum Origin {
    /// Nobody.
    Silent,
    /// A connection of a shard: one of `/ws` that asked for an acknowledgement, or an HTTP request that the shard answers.
    Connection {
        /// Its shard.
        shard: ShardId,
        /// The connection; may be gone by the time of the answer.
        conn: ConnId,
        /// The shard's own number for the command.
        ticket: u64,
    },
    /// An HTTP request that the control plane answers.
    Http(oneshot::Sender<Result<Published, Refusal>>),
}

/// Topics that a shard is asked about at once: what it answers within a turn.
pub const INSPECTED_MAX: usize = 1000;

/// What one shard knows of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TopicState {
    /// Its epoch and the offset of its next message, if this shard sequences it.
    pub position: Option<(Epoch, Offset)>,
    /// Bytes of its messages that subscribers of this very topic have not been sent yet.
    pub waiting_bytes: u64,
}

/// A question about what a new subscription is given.
#[derive(Debug)]
pub struct RecallRequest {
    /// Topic, or filter with wildcards.
    pub topic: TopicRef,
    /// Who asks.
    pub shard: ShardId,
    /// For which connection; may be gone by the time of the answer.
    pub conn: ConnId,
    /// Which of its subscriptions.
    pub sub: u32,
    /// The shard's own number for that subscription.
    pub number: u64,
    /// For what.
    pub asked: Asked,
}

/// What a [`RecallRequest`] asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// What a topic has for the subscription.
    Topic(Recall),
    /// A part of the state of the topics that match a filter.
    Walk(WalkPlace),
}

/// The answer to a [`RecallRequest`].
#[derive(Debug)]
pub struct RecallAnswer {
    /// Whom it is for.
    pub conn: ConnId,
    /// Which of its subscriptions.
    pub sub: u32,
    /// What the request said.
    pub number: u64,
    /// What was asked for.
    pub found: Found,
}

/// What a [`RecallRequest`] asked for.
#[derive(Debug)]
pub enum Found {
    /// Of a topic.
    Topic(Recalled),
    /// Of the topics of a sequencer that match a filter.
    Walk(ShardId, WalkPart),
}

/// A `history` command.
#[derive(Debug)]
pub struct HistoryRequest {
    /// Which topic.
    pub topic: TopicRef,
    /// Who asks.
    pub shard: ShardId,
    /// For which connection.
    pub conn: ConnId,
    /// The shard's own number for the command.
    pub ticket: u64,
    /// For what.
    pub query: HistoryQuery,
}

/// The answer to a [`HistoryRequest`].
#[derive(Debug)]
pub struct HistoryAnswer {
    /// Whom it is for.
    pub conn: ConnId,
    /// What the request said.
    pub ticket: u64,
    /// The topic's epoch, the offset of its next message, and the messages.
    pub found: Result<(Epoch, Offset, Page), Refusal>,
}

/// A `snapshot` command.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// Which topic.
    pub topic: TopicRef,
    /// The last message that it stands for.
    pub up_to: Place,
    /// What stands for them.
    pub payload: Payload,
    /// Who asks.
    pub shard: ShardId,
    /// For which connection.
    pub conn: ConnId,
    /// The shard's own number for the command.
    pub ticket: u64,
}

/// What a topic's sequencer is asked for.
#[derive(Debug)]
pub enum Request {
    /// Sequence this payload and deliver it.
    Publish {
        /// Which topic.
        topic: TopicRef,
        /// What.
        payload: Payload,
        /// What else is asked for.
        options: Option<Box<PublishOptions>>,
        /// Whom to answer.
        origin: Origin,
    },
    /// `shard` has subscribers of `topic` from now on. Answered by [`Delivery::Joined`]. A filter with
    /// wildcards is joined at every shard.
    Join {
        /// Topic or filter.
        topic: TopicRef,
        /// Who joins.
        shard: ShardId,
        /// The shard's own number for this join, so that an answer to an earlier one is not mistaken for it.
        join: u64,
    },
    /// `shard` has no more subscribers of `topic`.
    Leave {
        /// Topic or filter.
        topic: TopicRef,
        /// Who leaves.
        shard: ShardId,
    },
    /// Say what a new subscription is given of a topic's history. Answered by [`Delivery::Recalled`].
    Recall(Box<RecallRequest>),
    /// Read a topic's history. Answered by [`Delivery::History`].
    History(Box<HistoryRequest>),
    /// Replace a topic's snapshot. Answered by [`Delivery::Stored`].
    Snapshot(Box<SnapshotRequest>),
    /// A shard begins to drain. Its earlier publishes are before this in the queue; once every shard has said so, the
    /// sequencer answers all with [`Delivery::Marked`].
    Mark,
}

/// What a topic's sequencer sends to a shard, in an order that subscribers rely on.
#[derive(Debug)]
pub enum Delivery {
    /// Append to the logs of the message's topic and of the filters that match it.
    Message(Arc<Message>),
    /// A join took effect: every message from `next` on is delivered.
    Joined {
        /// Topic or filter.
        topic: TopicId,
        /// What [`Request::Join`] said.
        join: u64,
        /// The topic's epoch; 0 for a filter.
        epoch: Epoch,
        /// The offset the topic's next message gets; 0 for a filter.
        next: Offset,
    },
    /// A publish was sequenced.
    Published {
        /// Who asked.
        conn: ConnId,
        /// The asking shard's number for the command.
        ticket: u64,
        /// Where: see [`Published`], which would make every delivery longer.
        epoch: Epoch,
        /// Its offset.
        offset: Offset,
        /// Subscriptions that matched its topic.
        subscribers: u32,
        /// It repeats an earlier one, whose place this is.
        duplicate: bool,
    },
    /// A publish was not sequenced.
    Refused {
        /// Who asked.
        conn: ConnId,
        /// The asking shard's number for the command.
        ticket: u64,
        /// Why. Boxed: else it would make every delivery longer.
        refusal: Box<Refusal>,
    },
    /// What a new subscription is given of a topic's history. All messages that were sequenced before are before this.
    Recalled(Box<RecallAnswer>),
    /// What a topic remembers.
    History(Box<HistoryAnswer>),
    /// A snapshot was stored.
    Stored {
        /// Who asked.
        conn: ConnId,
        /// The asking shard's number for the command.
        ticket: u64,
    },
    /// Whatever any shard accepted before it began to drain, and this sequencer sequences, is before this in the queue.
    Marked,
}

/// What the control plane tells a shard.
#[derive(Debug)]
pub enum ControlMessage {
    /// A client upgraded on a connection that the control plane had: it is a WebSocket of this shard now.
    Adopt(Adopt),
    /// Sequence a message that came by HTTP; this shard is its topic's sequencer.
    Publish {
        /// Which topic.
        topic: TopicRef,
        /// What.
        payload: Payload,
        /// What else is asked for.
        options: Option<Box<PublishOptions>>,
        /// The answer's way.
        answer: oneshot::Sender<Result<Published, Refusal>>,
    },
    /// Say how far these topics are.
    Inspect {
        /// Which, at most [`INSPECTED_MAX`].
        topics: Arc<[TopicId]>,
        /// The answer's way: one state for each topic, in their order.
        answer: oneshot::Sender<Vec<TopicState>>,
    },
    /// Close every connection with 1001, a few at a time over the window, deliver what was accepted, refuse newcomers,
    /// then end. A second one without a window ends the window of the first.
    Shutdown {
        /// Zero: all at once.
        window: Duration,
        /// Another process accepts from the same listeners: this one stops at once.
        is_succeeded: bool,
    },
}

/// What one thread pushes for another at once, charged until it is taken apart.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    pub(crate) items: Vec<T>,
    charge: Charge,
}

impl<T> Batch<T> {
    pub(crate) fn new(account: &Arc<Account>) -> Self {
        Self { items: Vec::new(), charge: Charge::new(account, Held::Queues, 0) }
    }

    /// Takes what was gathered, charged as it is now; what is left is empty.
    pub(crate) fn take(&mut self) -> Self {
        let bytes = budget::allocated(self.items.capacity() * size_of::<T>());
        // One that came back from a full queue is charged already.
        self.charge.resize(0);
        let charge = self.charge.split(bytes);
        Self { items: std::mem::take(&mut self.items), charge }
    }

    /// Its items, with the charge that goes once they are dropped.
    pub(crate) fn into_parts(self) -> (std::vec::IntoIter<T>, Charge) {
        (self.items.into_iter(), self.charge)
    }
}

/// How much waits in the queues of an [`Inbox`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Depths {
    /// Batches of [`Request`]s.
    pub requests: usize,
    /// Batches of deliveries.
    pub deliveries: usize,
    /// [`ControlMessage`]s.
    pub control_messages: usize,
}

/// The way into one shard, for other threads.
#[derive(Debug)]
pub struct Inbox {
    pub(crate) requests: ArrayQueue<Batch<Request>>,
    pub(crate) deliveries: ArrayQueue<Batch<Delivery>>,
    control_messages: ArrayQueue<ControlMessage>,
    /// True while the shard sleeps, or is about to: whoever makes it false wakes it.
    asleep: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Inbox {
    fn new() -> Self {
        Self {
            requests: ArrayQueue::new(BATCHES_MAX),
            deliveries: ArrayQueue::new(BATCHES_MAX),
            control_messages: ArrayQueue::new(ORDERS_MAX),
            asleep: AtomicBool::new(false),
            waker: OnceLock::new(),
        }
    }

    /// Tells how to wake the shard; its thread calls this once, before it first sleeps.
    pub(crate) fn set_waker(&self, waker: Waker) {
        self.waker.set(waker).expect("a shard sets its waker once");
    }

    /// Wakes the shard if it sleeps. Call after a push: once per batch.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `may_sleep`: either the sleeper sees the push, or we see it asleep.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::AcqRel)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    /// The shard's side: announces sleep, and says whether nothing arrived meanwhile.
    pub(crate) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let empty = self.requests.is_empty() && self.deliveries.is_empty() && self.control_messages.is_empty();
        if !empty {
            self.awake();
        }
        empty
    }

    /// The shard's side: back from sleep, or never slept.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// How much waits for the shard now. Any thread may ask.
    #[must_use]
    pub fn depths(&self) -> Depths {
        Depths {
            requests: self.requests.len(),
            deliveries: self.deliveries.len(),
            control_messages: self.control_messages.len(),
        }
    }

    /// The next order of the control plane.
    pub(crate) fn next_control(&self) -> Option<ControlMessage> {
        self.control_messages.pop()
    }
}

/// Everything that threads of one broker share.
#[derive(Debug)]
pub struct SharedState {
    /// Names of topics.
    pub registry: Registry,
    /// What topics remember: those of the registry. SIGHUP replaces them.
    pub rules: Arc<SharedRules>,
    /// Memory held for clients.
    pub budget: Budget,
    /// One per shard.
    pub inboxes: Box<[Inbox]>,
    /// One per shard.
    pub stats: Box<[Stats]>,
    /// What was refused since the log was last written.
    pub refused_values: RefusedValues,
    /// Keys to publish with. Read again by [`PublishKeys::reload`].
    pub publish_keys: PublishKeys,
    /// Topics that clients began over HTTP.
    pub name_shares: ClientShares,
    /// What the time of day is, for answers.
    pub wall_clock: WallClock,
    /// How many connections each client address has.
    pub addresses: Arc<Addresses>,
    /// What the control plane counts: the requests that it refused by itself.
    pub plane: Stats,
    /// Whom the broker takes. The only thing here that is written to now and then: kept apart from what all read.
    pub admission: CachePadded<Admission>,
    /// Sockets on their way to the control plane.
    pub handovers: Handovers,
    /// What the histories of all sequencers take.
    pub history_usage: Usage,
    /// Where epochs begin; every sequencer adds its own count. Different after each start.
    pub epoch_base: Epoch,
    /// Shards that have, on their way out, forwarded every publish they had accepted.
    pub(crate) forwarded: AtomicUsize,
    /// Shards that have, after that, sequenced and passed on everything.
    pub(crate) sequenced: AtomicUsize,
}

impl SharedState {
    /// SharedState for `shards` shards. `seed` decides which shard sequences a topic and how names of clients are hashed: it
    /// must be random where they are not to be trusted. `epoch_base` should be the start time.
    #[must_use]
    pub fn new(shards: u16, seed: u64, epoch_base: Epoch) -> Self {
        let budget = Budget::new(shards, u64::MAX >> 1);
        let account = Arc::clone(budget.of_plane());
        let registry = Registry::new(shards, seed).charging(account, budget.share(Held::Names));
        Self {
            rules: Arc::clone(registry.rules()),
            registry,
            budget,
            inboxes: (0..shards).map(|_| Inbox::new()).collect(),
            stats: (0..shards).map(|_| Stats::default()).collect(),
            refused_values: RefusedValues::default(),
            publish_keys: PublishKeys::default(),
            name_shares: ClientShares::default(),
            wall_clock: WallClock::default(),
            addresses: Arc::default(),
            plane: Stats::default(),
            admission: CachePadded::default(),
            handovers: Handovers::new(ORDERS_MAX),
            history_usage: Usage::new(shards),
            epoch_base,
            forwarded: AtomicUsize::new(0),
            sequenced: AtomicUsize::new(0),
        }
    }

    /// The same with limits on whom the broker takes.
    #[must_use]
    pub fn admitting(self, admission: Admission) -> Self {
        Self { admission: CachePadded::new(admission), ..self }
    }

    /// The same with keys to publish with.
    #[must_use]
    pub fn guarded_by(self, publish_keys: PublishKeys) -> Self {
        Self { publish_keys, ..self }
    }

    /// The same with rules for topics.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        let rules = Arc::new(SharedRules::new(rules));
        Self { registry: self.registry.ruled_by(Arc::clone(&rules)), rules, ..self }
    }

    /// The same within a budget of so many bytes.
    #[must_use]
    pub fn within(self, budget_bytes: u64) -> Self {
        let shards = self.inboxes.len() as u16;
        let budget = Budget::new(shards, budget_bytes);
        let account = Arc::clone(budget.of_plane());
        Self { registry: self.registry.charging(account, budget.share(Held::Names)), budget, ..self }
    }

    /// Gives an order to a shard.
    ///
    /// # Errors
    /// The order itself, when the shard's queue is full: wait, then try again.
    pub fn send_control(&self, shard: ShardId, message: ControlMessage) -> Result<(), ControlMessage> {
        let inbox = &self.inboxes[usize::from(shard)];
        inbox.control_messages.push(message)?;
        inbox.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every message of every shard is moved as one of these.
    #[test]
    fn a_delivery_is_no_longer_than_a_join() {
        assert!(size_of::<Delivery>() <= 40, "{}", size_of::<Delivery>());
    }
}

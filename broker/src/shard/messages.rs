//! What goes between shards, and from the control plane to a shard: requests to sequencers, deliveries from them, and
//! control messages. Which queue carries what is in the head of [`shared`](crate::shard::shared).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::ConnId;
use tokio::sync::{mpsc, oneshot};

use crate::access::address::Client;
use crate::ids::{Epoch, Offset, ShardId, TopicId};
use crate::message::options::{PublishOptions, Refusal};
use crate::message::{Message, Payload};
use crate::sequencer::history::recall::Page;
use crate::shard::asked::{
    HistoryAnswer, HistoryRequest, MembersAnswer, PresenceRequest, RecallAnswer, RecallRequest, SessionOpened,
    SessionRequest, SnapshotRequest,
};
use crate::shard::calls::parcels::{Call, Called, Question, Registration};
use crate::shard::handover::Adopt;
use crate::shard::inspected::{BusyTopic, OfClientPart, Present, SignedInPart, SlowestPart, TopicState};
use crate::shard::lease_messages::{LeaseAnswer, LeaseLost, LeaseReport, LeaseRequest, WillRequest};
use crate::shard::polls::PollRequest;
use crate::shard::trace::{TraceBegun, TraceLine};
use crate::topics::registry::TopicRef;

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

/// Who wants to know where a message was sequenced, or that it was refused.
#[derive(Debug)]
pub enum Origin {
    /// Nobody. Only of messages that cannot be refused.
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
    /// A connection of a shard whose WebSocket has no commands, so nothing is said of what was published: only a refusal
    /// ends it.
    Raw {
        /// Its shard.
        shard: ShardId,
        /// The connection; may be gone by the time of the refusal.
        conn: ConnId,
    },
    /// An HTTP request that the control plane answers.
    Http(oneshot::Sender<Result<Published, Refusal>>),
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
    /// Replace a topic's snapshot. Answered by [`Delivery::Done`].
    Snapshot(Box<SnapshotRequest>),
    /// Something about a session, for its home.
    Session(Box<SessionRequest>),
    /// Something about the members of a topic.
    Presence(Box<PresenceRequest>),
    /// Something about the lease of a topic.
    Lease(Box<LeaseRequest>),
    /// What has become of a session's lease, for its home.
    LeaseReport(Box<LeaseReport>),
    /// Publish a will.
    Will(Box<WillRequest>),
    /// Forget what a topic remembers, and begin another epoch.
    Purge {
        /// Which topic.
        topic: TopicRef,
        /// The answer's way: the epoch; `None`: the topic is not kept.
        answer: oneshot::Sender<Option<Epoch>>,
    },
    /// A connection of a shard serves a filter, or does so no longer. Answered by [`Delivery::Registered`].
    Respond(Box<Registration>),
    /// A request for a connection of this shard. What becomes of it: [`Delivery::Called`].
    Call(Box<Call>),
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
    /// A command was carried out: there is nothing else to say about it.
    Done {
        /// Who asked.
        conn: ConnId,
        /// The asking shard's number for the command.
        ticket: u64,
    },
    /// The shard knows what a connection serves.
    Registered {
        /// What [`Request::Respond`] said.
        ticket: u64,
    },
    /// What became of a request.
    Called(Box<Called>),
    /// A client has its session.
    Opened(Box<SessionOpened>),
    /// The session of this connection goes on over another one.
    SessionTaken(ConnId),
    /// Who is present at a topic.
    Members(Box<MembersAnswer>),
    /// What a command about a lease has led to.
    Leased(Box<LeaseAnswer>),
    /// A client has a lease no more.
    LeaseLost(Box<LeaseLost>),
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
    /// Forget what a topic remembers; this shard is its sequencer.
    Purge {
        /// Which.
        topic: TopicRef,
        /// The answer's way: see [`Request::Purge`].
        answer: oneshot::Sender<Option<Epoch>>,
    },
    /// Somebody asks over HTTP.
    Ask(Question),
    /// Somebody polls over HTTP; this shard is the topic's sequencer.
    Poll(PollRequest),
    /// Say how far these topics are.
    Inspect {
        /// Which, at most [`INSPECTED_MAX`](crate::shard::shared::INSPECTED_MAX).
        topics: Arc<[TopicId]>,
        /// The answer's way: one state for each topic, in their order.
        answer: oneshot::Sender<Vec<TopicState>>,
    },
    /// Say which subscriptions of a topic are furthest behind.
    Slowest {
        /// Which topic.
        topic: TopicId,
        /// Subscribers to pass over: those that were looked at before.
        from: usize,
        /// The answer's way.
        answer: oneshot::Sender<SlowestPart>,
    },
    /// Say who is present at a topic; this shard is its sequencer.
    Present {
        /// Which topic.
        topic: TopicId,
        /// The answer's way.
        answer: oneshot::Sender<Present>,
    },
    /// Say which topics were busiest since the last such question, of those that this shard sequences.
    Busiest {
        /// Whether another one will come: until then it is counted.
        goes_on: bool,
        /// The answer's way.
        answer: oneshot::Sender<Vec<BusyTopic>>,
    },
    /// Say from where these connections come.
    Peers {
        /// Which, at most [`SLOWEST_MAX`](crate::shard::shared::SLOWEST_MAX).
        conns: Vec<ConnId>,
        /// The answer's way: an address for each, in their order; `None`: it is gone.
        answer: oneshot::Sender<Vec<Option<SocketAddr>>>,
    },
    /// Close connections of a user or key.
    CloseUser {
        /// Whose.
        user: Arc<str>,
        /// Only those of tokens that were issued before this second since 1970.
        issued_before_s: Option<u64>,
        /// The answer's way: how many were closed.
        answer: oneshot::Sender<u64>,
    },
    /// List connections of users and keys.
    SignedIn {
        /// Only those of this one.
        user: Option<Arc<str>>,
        /// The answer's way.
        answer: oneshot::Sender<SignedInPart>,
    },
    /// List connections of a client's address.
    OfClient {
        /// Whose.
        client: Client,
        /// Places to pass over: those that were looked at before.
        from: usize,
        /// The answer's way.
        answer: oneshot::Sender<OfClientPart>,
    },
    /// Write down what goes on with a connection.
    Trace {
        /// Which.
        conn: ConnId,
        /// Where.
        lines: mpsc::Sender<TraceLine>,
        /// The answer's way.
        answer: oneshot::Sender<TraceBegun>,
    },
    /// Say what was published to a topic last; this shard is its sequencer.
    Newest {
        /// Which.
        topic: TopicRef,
        /// How many messages.
        limit: u32,
        /// The answer's way: where the topic stands, and the messages, newest first.
        answer: oneshot::Sender<Result<(Epoch, Offset, Page), Refusal>>,
    },
    /// Look again at what connections may do: rules, keys or revocations changed.
    RightsChanged,
    /// Look whether connections wait of which the driver was not notified: another process has stopped accepting from the
    /// same listener.
    AcceptAnew,
    /// Close every connection with 1001, a few at a time over the window, deliver what was accepted, refuse newcomers,
    /// then end. A second one without a window ends the window of the first.
    Shutdown {
        /// Zero: all at once.
        window: Duration,
        /// Another process accepts from the same listeners: this one stops at once.
        is_succeeded: bool,
    },
}

//! What shards ask each other about topics' histories, members and leases and about sessions, and the answers: parts of
//! [`Request`](crate::shard::shared::Request) and [`Delivery`](crate::shard::shared::Delivery), boxed there.

use std::sync::Arc;

use protocol::v1::LeaseAsked;
use ring::ConnId;

use crate::access::principal::Principal;
use crate::ids::{Epoch, Offset, ShardId};
use crate::message::Payload;
use crate::message::options::{LeaseClaim, Refusal};
use crate::presence::members::{Entry, Listed};
use crate::presence::secret::Secret;
use crate::presence::will::Will;
use crate::presence::{Owner, SessionRef, sessions};
use crate::sequencer::history::recall::{HistoryQuery, Page, Place, Recall, Recalled};
use crate::sequencer::walk::{WalkPart, WalkPlace};
use crate::topics::registry::TopicRef;

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
    /// Of a topic, in this epoch.
    Topic(Epoch, Recalled),
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
    /// What it says of the topic's lease.
    pub lease: LeaseClaim,
    /// Who asks.
    pub shard: ShardId,
    /// For which connection.
    pub conn: ConnId,
    /// The shard's own number for the command.
    pub ticket: u64,
}

/// Something about a session, for its home.
#[derive(Debug)]
pub struct SessionRequest {
    /// The connection that the session goes on over.
    pub owner: Owner,
    /// The shard's own number for the command.
    pub ticket: u64,
    /// What.
    pub asked: SessionCommand,
}

/// What a [`SessionRequest`] asks for.
#[derive(Debug)]
pub enum SessionCommand {
    /// Give the connection a session. Answered by [`SessionOpened`].
    Open(sessions::Asked),
    /// Give the connection a session that ends with it, if it has none. Not answered.
    Begin {
        /// The user or key that the client is.
        user: Option<Arc<str>>,
        /// The name by which others see it.
        member: Arc<str>,
    },
    /// Enter a topic. Answered by its sequencer.
    Enter(Entering),
    /// Leave a topic. Answered by its sequencer, if `is_answered`.
    Leave {
        /// Which.
        topic: TopicRef,
        /// Whether a command asked for it.
        is_answered: bool,
    },
    /// Leave the topics that these do not allow to enter, and give up the leases that they do not grant.
    Restrict(Arc<Principal>),
    /// Take, renew or give back the lease of a topic. Answered by its sequencer.
    Lease(Leasing),
    /// Keep a will, or none any more.
    Will {
        /// The will.
        will: Option<Box<Will>>,
        /// Whether a command asked for just this.
        is_answered: bool,
    },
    /// Keep no will any more: its client may say nothing, from now on. Not answered.
    VoidWill,
    /// The connection has ended.
    Drop {
        /// Because the broker shuts down.
        is_shutdown: bool,
    },
    /// The client has ended its session. Not answered.
    End,
}

/// What a client enters.
#[derive(Debug)]
pub struct Entering {
    /// Which topic.
    pub topic: TopicRef,
    /// What it says of itself: the text of a JSON value.
    pub info: Option<Arc<[u8]>>,
    /// It has to be there already.
    pub is_update: bool,
}

/// Which lease a client takes, renews or gives back.
#[derive(Debug)]
pub struct Leasing {
    /// Of which topic.
    pub topic: TopicRef,
    /// What it asks for.
    pub asked: LeaseAsked,
}

/// The answer to [`SessionCommand::Open`].
#[derive(Debug)]
pub struct SessionOpened {
    /// Whom it is for.
    pub conn: ConnId,
    /// What the request said.
    pub ticket: u64,
    /// With what the client can go on with it later; `None`: it cannot.
    pub secret: Option<Secret>,
    /// Whether it is one that the client had before.
    pub resumed: bool,
    /// The name by which others see the client.
    pub member: Arc<str>,
}

/// Something about the members of a topic, for its sequencer.
#[derive(Debug)]
pub struct PresenceRequest {
    /// Which topic.
    pub topic: TopicRef,
    /// Whom to answer, under which number; `None`: nobody asks.
    pub answer: Option<(Owner, u64)>,
    /// What.
    pub asked: PresenceCommand,
}

/// What a [`PresenceRequest`] asks for.
#[derive(Debug)]
pub enum PresenceCommand {
    /// A session enters.
    Enter(Entry),
    /// A session leaves.
    Leave(SessionRef),
    /// Say who is there, so many at most.
    List(u32),
}

/// The answer to [`PresenceCommand::List`].
#[derive(Debug)]
pub struct MembersAnswer {
    /// Whom it is for.
    pub conn: ConnId,
    /// What the request said.
    pub ticket: u64,
    /// How many there are, and some of those that are listed; or why nothing is said.
    pub found: Result<(u64, Vec<Listed>), Refusal>,
}

//! What shards ask sequencers about topics' histories, and the answers: parts of [`Request`](crate::shard::shared::Request) and
//! [`Delivery`](crate::shard::shared::Delivery), boxed there.

use ring::ConnId;

use crate::ids::{Epoch, Offset, ShardId};
use crate::message::Payload;
use crate::message::options::Refusal;
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
    /// Who asks.
    pub shard: ShardId,
    /// For which connection.
    pub conn: ConnId,
    /// The shard's own number for the command.
    pub ticket: u64,
}

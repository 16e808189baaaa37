//! What shards send each other about requests: parts of [`Request`](crate::shard::shared::Request),
//! [`Delivery`](crate::shard::shared::Delivery) and [`ControlMessage`](crate::shard::shared::ControlMessage), boxed there.

use std::sync::Arc;

use ring::{ConnId, Nanos};
use tokio::sync::oneshot;

use crate::ids::ShardId;
use crate::message::Payload;

/// A connection of some shard.
pub(in crate::shard) type Place = (ShardId, ConnId);

/// A connection serves a filter, or does so no longer: for the index of every shard.
#[derive(Debug)]
pub struct Registration {
    /// The shard whose connection it is.
    pub shard: ShardId,
    /// The connection.
    pub conn: ConnId,
    /// What it serves.
    pub filter: Arc<str>,
    /// As which member it is known.
    pub member: Option<Arc<str>>,
    /// It does so no longer.
    pub end: bool,
    /// The shard's own number for the command that is answered once all shards know, if one is.
    pub ticket: Option<u64>,
}

/// A request on its way to a responder, or back because that one did not take it.
#[derive(Debug)]
pub struct Call {
    /// The shard that waits for the answer.
    pub asker: ShardId,
    /// That shard's own number for it.
    pub number: u64,
    /// The topic that it is for.
    pub topic: Box<str>,
    /// The question.
    pub payload: Payload,
    /// The member that asks, if that is known.
    pub from: Option<Arc<str>>,
    /// Only this member may answer.
    pub to: Option<Box<str>>,
    /// When its time is over, on the monotonic clock.
    pub deadline: Nanos,
    /// How long that was from the beginning, in milliseconds.
    pub timeout_ms: u32,
    /// The responder that is asked: a connection of the shard that this is sent to.
    pub conn: ConnId,
    /// The filter that it serves.
    pub filter: Arc<str>,
    /// Responders that did not take it.
    pub tried: Vec<Place>,
    /// One of them because it had too much to do.
    pub is_busy: bool,
}

/// What became of a [`Call`].
#[derive(Debug)]
pub struct Called {
    /// What the call said.
    pub number: u64,
    /// What it came to.
    pub outcome: Outcome,
}

impl Called {
    /// Bytes of messages in it.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match &self.outcome {
            Outcome::Answered(answer) => answer.payload.weight(),
            Outcome::Bounced(call) => call.payload.weight(),
            Outcome::Failed(_) => 0,
        }
    }
}

/// See [`Called`].
#[derive(Debug)]
pub enum Outcome {
    /// It was answered.
    Answered(Answer),
    /// The responder did not take it.
    Bounced(Box<Call>),
    /// It failed.
    Failed(Failure),
}

/// What a responder answered.
#[derive(Debug)]
pub struct Answer {
    /// The answer.
    pub payload: Payload,
    /// The member that gave it, if that is known.
    pub from: Option<Arc<str>>,
}

/// Why a request has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Nobody serves the topic.
    NoResponder,
    /// Who serves it has too much to do, or who asks has.
    Busy(&'static str),
    /// The responder's connection ended before it answered.
    Lost,
    /// Its time is over.
    Timeout,
    /// The responder answered with an error of its own.
    Responder {
        /// For programs.
        code: Box<str>,
        /// For people.
        reason: Box<str>,
    },
    /// The broker shuts down.
    Draining,
}

impl Failure {
    /// It as a sentence without capital and full stop; that of a responder's error is its own.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::NoResponder => "nobody serves this topic",
            Self::Busy(reason) => reason,
            Self::Lost => "the connection that had the request ended before it answered; it may have been carried out",
            Self::Timeout => "no answer came in time; the request may have been carried out",
            Self::Responder { reason, .. } => reason,
            Self::Draining => "the broker is shutting down; the request may have been carried out",
        }
    }
}

/// A request that came over HTTP.
#[derive(Debug)]
pub struct Question {
    /// The topic that it is for.
    pub topic: Box<str>,
    /// The question.
    pub payload: Payload,
    /// The member that asks, if that is known.
    pub from: Option<Arc<str>>,
    /// Only this member may answer.
    pub to: Option<Box<str>>,
    /// How long the answer is waited for, in milliseconds.
    pub timeout_ms: u32,
    /// The answer's way.
    pub answer: oneshot::Sender<Result<Answer, Failure>>,
}

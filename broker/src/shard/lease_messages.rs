//! What goes between shards about leases and wills: parts of [`Request`](crate::shard::shared::Request) and
//! [`Delivery`](crate::shard::shared::Delivery), boxed there.
//!
//! A command goes from its connection to the session's home, and from there to the topic's sequencer. Its outcome takes the same
//! way back, so that the home knows what its sessions have.

use protocol::v1::{LeaseAsked, LeaseLostReason, PayloadKind};
use ring::{ConnId, Nanos};

use crate::message::options::{PublishOptions, Refusal};
use crate::presence::leases::{Asker, Outcome};
use crate::presence::{Owner, SessionRef};
use crate::topics::registry::TopicRef;

/// Something about the lease of a topic, for its sequencer.
#[derive(Debug)]
pub struct LeaseRequest {
    /// Which topic.
    pub topic: TopicRef,
    /// What.
    pub asked: LeaseOrder,
}

/// What a [`LeaseRequest`] asks for.
#[derive(Debug)]
pub enum LeaseOrder {
    /// Carry out a command.
    Command(Asker, LeaseAsked),
    /// This session waits for its client, at most until then.
    Keep(SessionRef, Nanos),
    /// It goes on over another connection.
    Resume(SessionRef),
    /// It may not have the lease any more.
    Close(SessionRef),
    /// It is over.
    Free(SessionRef),
}

/// What has become of a session's lease, for its home.
#[derive(Debug)]
pub struct LeaseReport {
    /// Whose.
    pub session: SessionRef,
    /// Which topic's.
    pub topic: TopicRef,
    /// What.
    pub update: LeaseUpdate,
}

/// What a [`LeaseReport`] says.
#[derive(Debug)]
pub enum LeaseUpdate {
    /// A command had this outcome, or was refused.
    Answered((Owner, u64), Result<Outcome, Refusal>),
    /// The session has the lease by this number no more.
    Lost(u64, LeaseLostReason),
}

/// The answer to a `lease` command.
#[derive(Debug)]
pub struct LeaseAnswer {
    /// Whom it is for.
    pub conn: ConnId,
    /// The shard's own number for the command.
    pub ticket: u64,
    /// What the command has led to.
    pub outcome: Result<Outcome, Refusal>,
}

/// A client has a lease no more.
#[derive(Debug)]
pub struct LeaseLost {
    /// Whom it is for.
    pub conn: ConnId,
    /// Which topic's.
    pub topic: TopicRef,
    /// By which number it had it.
    pub number: u64,
    /// Why.
    pub reason: LeaseLostReason,
}

/// A will that is to be published, for its topic's sequencer.
#[derive(Debug)]
pub struct WillRequest {
    /// Whose.
    pub session: SessionRef,
    /// Which topic.
    pub topic: TopicRef,
    /// What its payload is.
    pub kind: PayloadKind,
    /// The payload.
    pub data: Box<[u8]>,
    /// What else it asks for.
    pub options: Option<Box<PublishOptions>>,
}

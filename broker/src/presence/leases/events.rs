//! What leases say: answers to commands, losses, and who has one.

use std::sync::Arc;

use protocol::v1::LeaseLostReason;
use ring::Nanos;

use crate::presence::{Owner, SessionRef};
use crate::topics::registry::TopicRef;

/// Who sent a command about a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asker {
    /// The session.
    pub session: SessionRef,
    /// The name by which others see it.
    pub by: Arc<str>,
    /// Whom to answer, under which number.
    pub answer: (Owner, u64),
}

/// What a command about a lease has led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The session has it.
    Granted {
        /// By this number.
        number: u64,
        /// For so long.
        ttl: Nanos,
    },
    /// The session has given it back.
    Released,
    /// Another session has it.
    Held {
        /// The name by which others see that.
        by: Arc<str>,
        /// For so long.
        left: Nanos,
    },
    /// The session does not have it by that number.
    NotThere,
}

/// What follows from a call.
#[derive(Clone, Debug)]
pub enum Event {
    /// The answer to a command.
    Answered {
        /// About which topic.
        topic: TopicRef,
        /// Whose.
        asker: Asker,
        /// What.
        outcome: Outcome,
    },
    /// A session has its lease no more, and did not give it back.
    Lost {
        /// Which topic's.
        topic: TopicRef,
        /// Whose.
        session: SessionRef,
        /// By which number.
        number: u64,
        /// Why.
        reason: LeaseLostReason,
    },
    /// Who has the lease of this topic, or until when, has changed.
    Changed(TopicRef),
}

/// Who has a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Current {
    /// The session.
    pub session: SessionRef,
    /// The name by which others see it.
    pub by: Arc<str>,
    /// By which number.
    pub number: u64,
    /// Until when, unless it is renewed.
    pub until: Nanos,
}

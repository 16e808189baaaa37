//! What a shard answers when operators ask what goes on: of topics, of subscriptions, of connections.
//!
//! Not responsible for how it is asked ([`ControlMessage`](crate::shard::shared::ControlMessage)), nor for what it finds.

use std::sync::Arc;

use ring::{ConnId, Nanos};

use crate::access::principal::Principal;
use crate::ids::{Epoch, Offset};
use crate::presence::members::Listed;
use crate::sequencer::history::figures::Remembered;

/// Topics that a shard is asked about at once: what it answers within a turn.
pub const INSPECTED_MAX: usize = 1000;

/// Who has the lease of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseState {
    /// The name by which others see it.
    pub by: Arc<str>,
    /// By which number.
    pub number: u64,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What one shard knows of a topic.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TopicState {
    /// Its epoch and the offset of its next message, if this shard sequences it.
    pub position: Option<(Epoch, Offset)>,
    /// Bytes of its messages that subscribers of this very topic have not been sent yet.
    pub waiting_bytes: u64,
    /// What it remembers, if this shard sequences it.
    pub remembered: Remembered,
    /// Who has its lease, if this shard sequences it.
    pub lease: Option<LeaseState>,
}

/// How many of the slowest an answer has.
pub const SLOWEST_MAX: usize = 10;

/// One subscription that is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slow {
    /// Whose.
    pub conn: ConnId,
    /// Memory of messages that it has not been sent yet.
    pub bytes: u64,
    /// How long ago the oldest of them was sequenced.
    pub behind: Nanos,
}

/// The answer.
#[derive(PartialEq, Eq, Default, Debug)]
pub struct SlowestPart {
    /// Those furthest behind of the subscribers that were looked at, furthest first; at most [`SLOWEST_MAX`].
    pub slowest: Vec<Slow>,
    /// Where to go on; `None`: that was all.
    pub next: Option<usize>,
}

/// Who is present at a topic.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Present {
    /// How many members there are, listed or not.
    pub count: u64,
    /// The first [`INSPECTED_MAX`] of those that are listed, by name.
    pub listed: Vec<Listed>,
}

/// A connection that an operator looks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedIn {
    /// Which connection of its shard.
    pub conn: ConnId,
    /// Whose; `None`: nobody's in particular.
    pub principal: Option<Arc<Principal>>,
    /// How many subscriptions it has.
    pub subscriptions: usize,
}

/// Those of one shard.
#[derive(PartialEq, Eq, Default, Debug)]
pub struct SignedInPart {
    /// At most [`INSPECTED_MAX`] of them, by connection.
    pub connections: Vec<SignedIn>,
    /// How many there are.
    pub total: u64,
}

/// Connections of one client's address.
#[derive(PartialEq, Eq, Default, Debug)]
pub struct OfClientPart {
    /// At most [`INSPECTED_MAX`] of them, by connection.
    pub connections: Vec<SignedIn>,
    /// Where to go on; `None`: that was all.
    pub next: Option<usize>,
}

/// What was published to a topic between two questions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusyTopic {
    /// Its name.
    pub name: Arc<str>,
    /// How many messages.
    pub messages: u64,
    /// Their payloads' bytes.
    pub bytes: u64,
}

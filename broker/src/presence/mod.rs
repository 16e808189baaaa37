//! Who is there: sessions that outlive a connection, and members of topics. State machines without sockets, shards or a
//! clock; the shard carries out what they say (`shard/sessions.rs`, `shard/members.rs`).
//!
//! | file | what |
//! | --- | --- |
//! | [`sessions`] | sessions at their *home*, the one shard that keeps them wherever their connections are |
//! | [`members`] | members of topics, at the topics' sequencers |
//! | [`leases`] | leases of topics, at the topics' sequencers |
//! | [`will`] | what is published when a connection ends without `disconnect`, at the session's home |
//! | [`secret`] | what a client brings to go on with its session |
//!
//! A session is named by its home and a number ([`SessionRef`]); a connection by its shard and its id ([`Owner`]). What a client
//! asks for goes from its connection to the session's home, and from there to the topic's sequencer. Both ways are queues in
//! order, so a sequencer learns of what one session does in the order in which its client asked for it, also when the session
//! goes on over another connection.

pub mod leases;
pub mod members;
pub mod secret;
pub mod sessions;
pub mod will;

use ring::ConnId;

use crate::ids::ShardId;

/// Names a session in the whole broker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionRef {
    /// The shard that keeps it.
    pub home: ShardId,
    /// Its number there; never used again.
    pub number: u64,
}

/// Names a connection in the whole broker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Owner {
    /// The shard that serves it.
    pub shard: ShardId,
    /// Which of its connections.
    pub conn: ConnId,
}

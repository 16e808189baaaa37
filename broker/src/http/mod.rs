//! The control plane: HTTP and operators, on one thread, with the tokio-uring runtime, or with tokio's own where io_uring
//! cannot be used.
//!
//! | step | file |
//! | --- | --- |
//! | a shard hands over a socket whose request is no WebSocket handshake | `serve` |
//! | so many have a place; what is known of each | `places`, `connection` |
//! | every request head is checked; a peer that reads nothing is given up | `request_heads`, `write_timeout` |
//! | the request finds its handler | `routes` |
//! | the access policy decides; answers say which pages may read them | `middleware`, `cors` |
//! | `POST /pub/{topic}` is given its offset by the topic's sequencer; its body, what that means | `publish`, `bodies`, `publishing` |
//! | `POST /pub`: a batch, or an item per line; many messages in flight, an answer that is written meanwhile | `batch`, `lines`, `items`, `sequence`, `written` |
//! | `POST /request/{topic}` goes to a responder of the topic | `request` |
//! | what the API is, for programs | `openapi` |
//! | a WebSocket handshake on a connection that served HTTP goes back to a shard | `upgrade` |
//! | who sends a request, where access control is on; what operators do about users | `caller`, `users` |
//! | the page, errors as problem details (RFC 9457) | `page`, `error` |
//! | operators ask on a listener of their own; counters, topics, one topic and its purge | [`admin`], `metrics`, `stats`, `topics`, `topic`, `inspect`, `shards` |
//! | operators look into a topic and into a connection | `messages`, `trace` |
//! | the broker's own topics: `$sys/load`, `$sys/topics`, `$sys/closed` | `sys`, `load`, `busiest`, `ends` |
//! | what all of these share, and how far a shutdown is | `app` |
//!
//! Single publishes in their usual form do not come here: a shard answers them (`shard/transport/http.rs`).
//!
//! Invariants: what is handed over never runs on a shard's thread. Everything is bounded: connections, heads, bodies, waits.
//! What was accepted is delivered.

pub mod admin;
pub(crate) mod app;
mod batch;
mod bodies;
mod busiest;
mod caller;
mod connection;
mod cors;
mod ends;
mod error;
mod inspect;
mod items;
mod lines;
mod load;
mod messages;
mod metrics;
mod middleware;
mod openapi;
mod page;
pub(crate) mod places;
mod poll;
mod publish;
mod readable;
mod request;
mod request_heads;
pub(crate) mod routes;
mod sequence;
pub(crate) mod serve;
mod shards;
pub(crate) mod stats;
mod sys;
#[cfg(test)]
mod tests;
mod topic;
mod topics;
mod trace;
mod upgrade;
mod users;
mod write_timeout;
mod written;

use std::time::Duration;

use ring::Cause;
use tokio::time::sleep;

use crate::ids::ShardId;
use crate::shard::shared::{ControlMessage, SharedState};

/// Between two looks at a shard's full queue of control messages.
pub(crate) const QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// What operators can read besides counters, and where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operators {
    /// Whether counters are on the public port.
    pub(crate) on_public_port: bool,
    /// Why it is epoll although io_uring would have been taken.
    pub(crate) fallback: Option<Cause>,
}

/// Gives an order however long the shard's queue is full.
pub(crate) async fn send_control(shared: &SharedState, shard: ShardId, mut message: ControlMessage) {
    while let Err(full) = shared.send_control(shard, message) {
        message = full;
        sleep(QUEUE_PAUSE).await;
    }
}

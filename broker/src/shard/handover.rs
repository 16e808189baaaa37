//! Sockets between shards and the control plane: requests that a shard hands over, WebSockets that it adopts.
//!
//! A socket travels with what was read of it, charged to the budget, and with the place of its client among the connections
//! of its address. Not responsible for the queue towards a shard: see [`shared`](crate::shard::shared).

use std::os::fd::OwnedFd;

use crossbeam::queue::ArrayQueue;
use protocol::head::Endpoint;
use tokio::sync::Notify;

use crate::access::address::AddressLease;
use crate::capacity::buffer::Buffer;

/// What an established WebSocket is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// `/sub/{filter}`.
    Subscribe(String),
    /// `/pub/{topic}`.
    Publish(String),
    /// `/bus/{topic}`.
    Bus(String),
    /// `/ws`.
    V1Session,
}

impl From<&Endpoint<'_>> for Purpose {
    fn from(endpoint: &Endpoint<'_>) -> Self {
        match endpoint {
            Endpoint::Subscribe(filter) => Self::Subscribe(filter.to_string()),
            Endpoint::Publish(topic) => Self::Publish(topic.to_string()),
            Endpoint::Bus(topic) => Self::Bus(topic.to_string()),
            Endpoint::Multi => Self::V1Session,
        }
    }
}

/// A socket whose upgrade was already answered with 101.
#[derive(Debug)]
pub struct Adopt {
    /// A connected stream socket.
    pub socket: OwnedFd,
    /// What it asked for, checked.
    pub purpose: Purpose,
    /// Bytes that arrived behind the request head.
    pub read: Vec<u8>,
    /// As what its client counts.
    pub lease: AddressLease,
}

/// A connection that sent an HTTP request, not a WebSocket handshake.
#[derive(Debug)]
pub struct Handover {
    /// A connected, non-blocking stream socket.
    pub socket: OwnedFd,
    /// Bytes already read from it, from the request's first byte on.
    pub read: Buffer,
    /// As what its client counts.
    pub lease: AddressLease,
}

/// Sockets on their way from shards to the control plane.
#[derive(Debug)]
pub struct Handovers {
    queue: ArrayQueue<Handover>,
    arrived: Notify,
}

impl Handovers {
    pub(crate) fn new(sockets_max: usize) -> Self {
        Self { queue: ArrayQueue::new(sockets_max), arrived: Notify::new() }
    }

    /// A shard's side.
    ///
    /// # Errors
    /// The socket itself, when too many wait: the shard closes it and counts that.
    pub(crate) fn push(&self, handover: Handover) -> Result<(), Handover> {
        self.queue.push(handover)?;
        self.arrived.notify_one();
        Ok(())
    }

    /// The control plane's side: the next socket. Cancel safe.
    pub async fn next(&self) -> Handover {
        loop {
            if let Some(handover) = self.queue.pop() {
                return handover;
            }
            self.arrived.notified().await;
        }
    }

    /// How many wait now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.queue.len()
    }

    /// The next socket if one waits.
    #[must_use]
    pub fn try_next(&self) -> Option<Handover> {
        self.queue.pop()
    }
}

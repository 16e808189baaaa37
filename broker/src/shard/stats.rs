//! What a shard counts, readable from any thread while it runs.
//!
//! One writer (the shard), many readers: a plain load and store, no locked instruction.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the shard that owns the counter may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts `n`. Only the owner may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets it. Only the owner may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// One shard's counters. Gauges say so; all others only grow.
        #[derive(Debug, Default)]
        pub struct Stats { $($(#[$doc])* pub $name: Counter,)+ }

        /// A copy of [`Stats`] at one moment, as `/api/stats` shows it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Snapshot { $($(#[$doc])* pub $name: u64,)+ }

        impl Stats {
            /// The values now; each by itself, not one cut through all.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.get(),)+ }
            }
        }

        impl std::ops::AddAssign for Snapshot {
            fn add_assign(&mut self, other: Self) { $(self.$name += other.$name;)+ }
        }
    };
}

stats! {
    /// Gauge: open connections, handshakes included.
    connections,
    /// Gauge: subscriptions.
    subscriptions,
    /// Gauge: topics and filters with subscribers on this shard.
    logs,
    /// Gauge: topics whose home this shard is.
    topics,
    /// Gauge: bytes of messages kept for subscribers that have not got them.
    log_bytes,
    /// Connections accepted.
    accepted,
    /// WebSocket handshakes answered with 101.
    upgraded,
    /// Connections handed to the control plane.
    handed_over,
    /// Connections adopted from the control plane.
    adopted,
    /// Handshakes refused (400, 403, 404, 426, 431, ...).
    refused,
    /// Connections closed, for whatever reason.
    closed,
    /// Messages published by this shard's connections or sequenced for HTTP.
    messages_in,
    /// Payload bytes of those.
    bytes_in,
    /// Messages sequenced by this shard as home.
    sequenced,
    /// Messages sent to subscribers, each counted once per subscriber.
    messages_out,
    /// Sends completed.
    sends,
    /// Bytes those sends carried.
    bytes_out,
    /// Sends the kernel took only in part.
    sends_short,
    /// Messages that reached this shard for a topic nobody here subscribes to any more.
    unsubscribed_messages,
    /// Connections dropped: no complete request head in time.
    dropped_handshake_timeout,
    /// Connections dropped: silent after a ping.
    dropped_ping_timeout,
    /// Subscribers dropped: too far behind (slow-consumer policy), 1013.
    dropped_slow,
    /// Connections dropped: a protocol violation (1002, 1003, 1007, 1009, 1008).
    dropped_violation,
    /// Connections dropped: a trusted proxy sent no PROXY header, or a broken one.
    dropped_proxy_header,
    /// Connections dropped: reset or broken by the peer or the network.
    dropped_reset,
    /// Connections dropped: the control plane's queue was full, or the hand-over took too long.
    dropped_handover,
    /// Connections dropped: no descriptor was free to take them back from the control plane.
    dropped_adoption,
    /// Connections closed by the client with a close frame or end of stream.
    closed_by_client,
    /// Connections closed because the broker went away (1001).
    closed_shutdown,
    /// Receives that found no free buffer (`ENOBUFS`).
    no_buffers,
    /// Multishot operations that the kernel ended by itself.
    multishots_ended,
    /// Times the submission queue was full within a turn.
    submission_full,
    /// Completion queue overflows (nothing is lost).
    completion_overflows,
    /// Completions and calls that named a connection already gone.
    stale,
    /// System calls of the driver: `io_uring_enter`, or everything that it does on epoll.
    enters,
    /// Times a full queue made this shard pause its publishers.
    pauses,
    /// Times another shard's queue was full, so that a batch had to wait.
    queues_full,
}

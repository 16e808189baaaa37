//! What workers and the coordinator send each other, and what they share.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::Sender;
use ring::{Nanos, Waker};

use super::tally::Snapshot;
use crate::plan::Plan;

/// What the coordinator sends to a worker, and workers to each other.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Publishing begins, and ends, at these times.
    Begin(Times),
    /// Answer with a [`Report::Snapshot`].
    Snapshot,
    /// All clients drop their connections and come back.
    Storm,
    /// All subscribers close their connections, and stay away. Answer with [`Report::Left`].
    Leave,
    /// Those who are away connect, each about so many messages behind, or without a position. Answer with
    /// [`Report::Arrived`].
    Arrive { behind: Option<u64> },
    /// Publishing is over: answer with [`Report::Published`].
    Published,
    /// Give up every client that is not open yet.
    GiveUp,
    /// What all workers published; answer with [`Report::Drained`] when it has arrived.
    Drain(Arc<Final>),
    /// Another worker's subscribers have received more of this stream.
    Advanced(u32),
    /// End.
    Finish,
}

/// When things happen: monotonic nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Times {
    pub(crate) begin: Nanos,
    pub(crate) measure_from: Nanos,
    pub(crate) end: Nanos,
}

/// What was published, when that is over.
#[derive(Debug)]
pub(crate) struct Final {
    /// By stream; `u64::MAX`: not by this process.
    pub(crate) published: Vec<u64>,
    /// Bytes on the wire, by topic, where they are exact.
    pub(crate) wire: Option<Vec<u64>>,
    /// The run was interrupted: clients that are not connected yet are no errors.
    pub(crate) interrupted: bool,
}

/// What a worker sends to the coordinator.
#[derive(Debug)]
pub(crate) enum Report {
    /// Every client is open or given up.
    Complete(u32, Nanos),
    /// That is no longer so.
    Incomplete(u32, Nanos),
    /// The worker has begun a storm: its clients are about to come back.
    Stormed(u32),
    Snapshot(Box<Snapshot>),
    /// All subscribers have closed their connections.
    Left,
    /// All are connected and have caught up, at this time; or nothing came for the drain's timeout.
    Arrived(Nanos),
    /// By stream.
    Published(Vec<(u32, u64)>),
    /// Everything has arrived, or nothing came for the drain's timeout.
    Drained,
    /// The ring failed.
    Failed(u32, io::Error),
}

/// What all workers and the coordinator share.
pub(crate) struct Shared {
    pub(crate) commands: Vec<Sender<Command>>,
    pub(crate) wakers: Vec<Waker>,
    /// Closed loop: messages that all subscribers of a worker received, by worker and stream.
    pub(crate) completed: Vec<AtomicU64>,
    /// Messages published by stream; empty in a run in which nobody comes back with a position.
    pub(crate) published: Vec<AtomicU64>,
    /// When the newest message was published: monotonic nanoseconds. In a process without publishers, when the newest
    /// message that a verifying client received was due; 0: not known.
    pub(crate) last_published: AtomicU64,
    /// When a connection last became open: monotonic nanoseconds; 0: none did.
    pub(crate) opened_at: AtomicU64,
    /// Subscribers of all workers that are connected or still may be.
    pub(crate) remaining: AtomicU64,
    /// When `remaining` last became less: monotonic nanoseconds.
    pub(crate) left_at: AtomicU64,
}

impl Shared {
    /// Closed loop: all subscribers of `worker` have received `messages` of a stream. Returns true if `worker` itself
    /// publishes this stream; otherwise the worker that does gets a command.
    pub(super) fn complete(&self, plan: &Plan, worker: u32, stream: u32, messages: u64) -> bool {
        self.completed[plan.progress_at(worker, stream)].store(messages, Ordering::Release);
        let writer = plan.writer(stream);
        if writer != worker {
            self.send(writer as usize, Command::Advanced(stream));
        }
        writer == worker
    }

    /// A subscriber was given up, or lost its connection for good.
    pub(super) fn leave(&self, now: Nanos) {
        self.left_at.fetch_max(now, Ordering::Relaxed);
        self.remaining.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn send(&self, worker: usize, command: Command) {
        // A worker that has ended needs no commands.
        drop(self.commands[worker].send(command));
        self.wakers[worker].wake();
    }
}

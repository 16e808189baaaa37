//! The state of all workers, once a second: what they have counted so far, and the row of the series since the last.

use crate::clock::monotonic;
use crate::outcome::{Errors, Latencies, Memory, Phase, Second, histogram};
use crate::stamp::{Sizes, Stamp};
use crate::usage::Server;
use crate::worker::{Broadcast, Counts};

use super::Run;

/// Between two rows, in nanoseconds.
pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// All workers together, at one moment.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) at: u64,
    pub(super) counts: Counts,
    /// Running or waiting for a core, by worker.
    pub(super) busy_ns: Vec<u64>,
    pub(super) own_cpu_ns: u64,
    pub(super) server_cpu_ns: u64,
}

/// Processor time and memory used until some moment of the run.
pub(super) struct Usage {
    pub(super) server_memory: Memory,
    pub(super) own_cpu_ns: u64,
    pub(super) server_cpu_ns: u64,
}

impl Run {
    pub(super) fn make_row(&mut self) {
        self.asked = false;
        let now = monotonic();
        let mut state = State {
            at: now,
            own_cpu_ns: ring::floor::process_cpu_ns(),
            server_cpu_ns: self.server.as_ref().map_or(0, Server::cpu_ns),
            ..State::default()
        };
        let (mut latency, mut errors) = (histogram(), Errors::default());
        for snapshot in std::mem::take(&mut self.gathering).into_values() {
            state.counts.add(&snapshot.counts);
            state.busy_ns.push(snapshot.counts.cpu_ns + snapshot.counts.waited_ns);
            let values = if self.phase == Phase::Connect { &snapshot.admission } else { &snapshot.latency };
            values.iter().for_each(|(value, count)| latency.saturating_record_n(*value, *count));
            errors.add(&snapshot.errors);
            self.broadcast.add(&snapshot.broadcast);
        }
        if let Some(storm) = self.storm.as_mut().filter(|_| self.phase == Phase::Measure) {
            storm.add(&latency);
        }
        let (last, counts) = (&self.last, state.counts);
        let span = (now - last.at).max(1) as f64 / 1e9;
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1e9 / span;
        let server_memory = self.server.as_ref().and_then(Server::anonymous);
        let server_runs = self.server.as_ref().is_some_and(|server| !server.has_ended());
        let row = Second {
            at: (now - self.started) as f64 / 1e9,
            span,
            phase: self.phase,
            clients: counts.open,
            opened: counts.opened - last.counts.opened,
            published: counts.published - last.counts.published,
            delivered: self.delivered(&counts) - self.delivered(&last.counts),
            bytes: counts.bytes - last.counts.bytes,
            latency: Latencies { values: Vec::new(), ..Latencies::of(&latency) },
            errors: counts.errors - last.counts.errors,
            own_cpu: share(state.own_cpu_ns, last.own_cpu_ns),
            server_cpu: server_runs.then(|| share(state.server_cpu_ns, last.server_cpu_ns)),
            server_memory,
        };
        if self.phase == Phase::Connect {
            self.progress.connecting(counts.open, counts.failed, row.opened as f64 / span);
        } else {
            let each = server_memory
                .filter(|_| counts.open > 0)
                .and_then(|memory| memory.checked_sub(self.server_before).filter(|grown| *grown > 0))
                .map(|grown| grown as f64 / counts.open as f64);
            self.progress.second(&row, &errors, each);
        }
        self.series.push(row);
        self.last = state;
        self.next_row = now + SECOND_NS;
    }

    /// Messages that clients received: looked at, or as their bytes say.
    pub(super) fn delivered(&self, counts: &Counts) -> u64 {
        if counts.discarded == 0 || self.plan.streams == 0 {
            return counts.messages;
        }
        // Where messages differ from client to client, those that are looked at tell how long one is.
        if !self.plan.adapter.abilities().discard {
            let each = (counts.bytes - counts.discarded) as f64 / counts.messages.max(1) as f64;
            return counts.messages + (counts.discarded as f64 / each.max(1.0)).round() as u64;
        }
        let sample = match self.plan.payloads.sizes() {
            Sizes::Fixed(_) => 1,
            _ => 1000,
        };
        let mean = self.wire_bytes(0, sample) as f64 / sample as f64;
        counts.messages + (counts.discarded as f64 / mean).round() as u64
    }

    pub(super) fn usage(&self) -> Usage {
        let server = self.server.as_ref();
        Usage {
            server_memory: server.map_or(Memory::default(), Server::memory),
            own_cpu_ns: ring::floor::process_cpu_ns(),
            server_cpu_ns: server.map_or(0, Server::cpu_ns),
        }
    }

    /// Bytes that the first `count` messages of a stream are on the wire.
    pub(super) fn wire_bytes(&self, stream: u32, count: u64) -> u64 {
        let topic = self.plan.topic_of(stream);
        let len = |seq| self.plan.adapter.wire_len(topic, Stamp { stream, seq, sent_ns: 0 }).unwrap_or(0);
        match self.plan.payloads.sizes() {
            Sizes::Fixed(_) => len(0) * count,
            _ => (0..count).map(len).sum(),
        }
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.opened += other.opened;
        self.reopened += other.reopened;
        self.failed += other.failed;
        self.retries += other.retries;
        self.published += other.published;
        self.unpublished += other.unpublished;
        self.blocked += other.blocked;
        self.messages += other.messages;
        self.discarded += other.discarded;
        self.bytes += other.bytes;
        self.receives += other.receives;
        self.pings += other.pings;
        self.errors += other.errors;
        self.cpu_ns += other.cpu_ns;
        self.waited_ns += other.waited_ns;
    }
}

impl Broadcast {
    /// The newest publication is what counts: its first receipt and its last.
    fn add(&mut self, other: &Self) {
        match other.published.cmp(&self.published) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Greater => *self = *other,
            std::cmp::Ordering::Equal => {
                self.first = self.first.min(other.first);
                self.last = self.last.max(other.last);
            }
        }
    }
}

//! When each stream publishes.
//!
//! Open loop: burst `n` of a run is due `n · burst / rate` seconds after its beginning, and belongs to stream `n` modulo
//! the number of streams, on whichever worker. A late message is stamped with the time it was due, so that waiting counts
//! as latency (no coordinated omission). Closed loop: a stream publishes when all subscribers have received enough of what
//! it has published.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use ring::{Dial, Nanos};

use super::client::{Client, State};
use super::{Times, Worker};
use crate::clock::monotonic;
use crate::plan::{Pacing, Plan};
use crate::stamp::Stamp;

/// A publisher with more than this unsent publishes no further until the server takes some.
const OUTBOX_MAX: usize = 16 << 20;
/// Closed loop: how often streams without known subscribers publish.
const CALL_NS: Nanos = 50_000_000;
/// Bursts published in one go; then the ring gets its turn.
const BATCH_MAX: usize = 1024;

/// One stream of this worker.
struct Stream {
    id: u32,
    topic: u32,
    /// The client that writes it.
    at: u32,
    /// Messages published.
    seq: u64,
    /// Its connection is gone.
    lost: bool,
}

/// The streams of a worker, and where they stand.
pub(super) struct Publishing {
    /// Ascending by number.
    streams: Vec<Stream>,
    /// Indices into `streams`, by the client that writes them.
    by_client: Vec<u32>,
    /// Open loop: the next burst's round and index into `streams`.
    next: (u64, usize),
    /// Closed loop: streams, by index, that may have something to publish.
    ready: Vec<u32>,
    /// Closed loop: streams, by index, without subscribers. They publish nevertheless, at `call_at`.
    unheard: Vec<u32>,
    call_at: Nanos,
    /// Closed loop: streams, by number, whose subscribers here advanced.
    pub(super) advanced_here: Vec<u32>,
    /// Clients with an outbox to be sent at the end of the turn.
    dirty: BTreeSet<u32>,
    /// An outbox was full; until a send is over, nothing is published.
    blocked: Option<u32>,
    /// When this last ended: what was due before is late because of the server.
    unblocked_at: Nanos,
    /// Streams whose connection is gone.
    lost: usize,
    over: bool,
}

impl Publishing {
    pub(super) fn new(plan: &Plan, clients: &[Client]) -> Self {
        let mut streams: Vec<_> = clients
            .iter()
            .enumerate()
            .flat_map(|(at, client)| plan.streams_of(client.role).map(move |id| (at, id)))
            .map(|(at, id)| Stream { id, topic: plan.topic_of(id), at: at as u32, seq: 0, lost: false })
            .collect();
        streams.sort_by_key(|stream| stream.id);
        let mut by_client: Vec<_> = (0..streams.len() as u32).collect();
        by_client.sort_by_key(|index| streams[*index as usize].at);
        Self {
            streams,
            by_client,
            next: (0, 0),
            ready: Vec::new(),
            unheard: Vec::new(),
            call_at: 0,
            advanced_here: Vec::new(),
            dirty: BTreeSet::new(),
            blocked: None,
            unblocked_at: 0,
            lost: 0,
            over: false,
        }
    }

    pub(super) fn begin(&mut self, plan: &Plan) {
        if matches!(plan.pacing, Pacing::Closed(_)) {
            self.ready = (0..self.streams.len() as u32).collect();
        }
    }

    /// A client is (again) able to publish.
    pub(super) fn opened(&mut self, at: u32) {
        if self.lost > 0 {
            self.set_lost(at, false);
        }
    }

    /// A client has lost its connection: it no longer publishes.
    pub(super) fn lost(&mut self, at: u32) {
        self.set_lost(at, true);
        self.unblocked(at);
    }

    fn set_lost(&mut self, at: u32, lost: bool) {
        let first = self.by_client.partition_point(|index| self.streams[*index as usize].at < at);
        for index in &self.by_client[first..] {
            let stream = &mut self.streams[*index as usize];
            if stream.at != at {
                break;
            }
            if stream.lost != lost {
                stream.lost = lost;
                self.lost = if lost { self.lost + 1 } else { self.lost - 1 };
                // A closed loop may have waited for it.
                if !lost {
                    self.advanced_here.push(stream.id);
                }
            }
        }
    }

    pub(super) fn unblocked(&mut self, at: u32) {
        if self.blocked == Some(at) {
            self.blocked = None;
            self.unblocked_at = monotonic();
        }
    }

    /// Subscribers of another worker advanced.
    pub(super) fn advanced(&mut self, stream: u32) {
        self.advanced_here.push(stream);
    }

    /// Ends publishing, even of messages that are due, so that the number of messages is final.
    pub(super) fn end(&mut self) {
        self.over = true;
    }

    /// By stream.
    pub(super) fn published(&self) -> Vec<(u32, u64)> {
        self.streams.iter().map(|stream| (stream.id, stream.seq)).collect()
    }
}

impl<D: Dial> Worker<D> {
    /// Publishes what is due; returns when there is more.
    pub(super) fn publish_due(&mut self, now: Nanos) -> Nanos {
        let Some(times) = self.times else { return Nanos::MAX };
        if self.publishing.streams.is_empty() || self.publishing.over {
            return Nanos::MAX;
        }
        if now < times.begin {
            return times.begin;
        }
        let next = match self.plan.pacing {
            Pacing::Idle => Nanos::MAX,
            Pacing::Open(rate) => self.publish_open(rate, &times),
            Pacing::Closed(outstanding) => self.publish_closed(outstanding, &times),
        };
        self.flush();
        next
    }

    fn publish_open(&mut self, rate: f64, times: &Times) -> Nanos {
        let now = monotonic();
        let burst_ns = f64::from(self.plan.options.burst) * 1e9 / rate;
        for _ in 0..BATCH_MAX {
            if self.publishing.blocked.is_some() {
                return Nanos::MAX;
            }
            let (round, index) = self.publishing.next;
            let id = self.publishing.streams[index].id;
            let number = round as f64 * f64::from(self.plan.streams) + f64::from(id);
            let due = times.begin + (number * burst_ns) as Nanos;
            if due >= times.end {
                return Nanos::MAX;
            }
            if due > now {
                return due;
            }
            self.publishing.next =
                if index + 1 < self.publishing.streams.len() { (round, index + 1) } else { (round + 1, 0) };
            if self.publish_burst(index, due) && due >= self.publishing.unblocked_at {
                self.tally.lateness.saturating_record((now - due).max(1));
            }
        }
        now
    }

    fn publish_closed(&mut self, outstanding: u32, times: &Times) -> Nanos {
        let now = monotonic();
        let mut advanced = std::mem::take(&mut self.publishing.advanced_here);
        for stream in advanced.drain(..) {
            if let Ok(index) = self.publishing.streams.binary_search_by_key(&stream, |stream| stream.id) {
                self.publishing.ready.push(index as u32);
            }
        }
        self.publishing.advanced_here = advanced;
        if now >= times.end {
            self.publishing.ready.clear();
            return Nanos::MAX;
        }
        if now >= self.publishing.call_at {
            self.publishing.call_at = now + CALL_NS;
            let unheard = std::mem::take(&mut self.publishing.unheard);
            self.publishing.ready.extend(unheard);
        }
        let mut ready = std::mem::take(&mut self.publishing.ready);
        let burst = u64::from(self.plan.options.burst);
        for index in ready.drain(..) {
            let id = self.publishing.streams[index as usize].id;
            let completed = (0..self.plan.workers)
                .map(|worker| &self.shared.completed[self.plan.progress_at(worker, id)])
                .map(|completed| completed.load(Ordering::Acquire))
                .min()
                .expect("at least this worker");
            if completed == u64::MAX {
                // It has no subscribers, but some may be about to come.
                self.publishing.unheard.push(index);
            }
            let completed = completed.min(self.publishing.streams[index as usize].seq);
            while self.publishing.streams[index as usize].seq - completed + burst <= burst * u64::from(outstanding)
                && self.publish_burst(index as usize, now)
            {}
        }
        self.publishing.ready = ready;
        if self.publishing.unheard.is_empty() { Nanos::MAX } else { self.publishing.call_at }
    }

    /// Writes a burst into its publisher's outbox. Returns false if the publisher is not connected.
    fn publish_burst(&mut self, index: usize, due: Nanos) -> bool {
        let stream = &mut self.publishing.streams[index];
        let client = &mut self.clients[stream.at as usize];
        if stream.lost || client.state != State::Open {
            self.tally.counts.unpublished += u64::from(self.plan.options.burst);
            return false;
        }
        let outbox = client.outbox.get_or_insert_default();
        let sent_ns = self.plan.clock.unix(due);
        for _ in 0..self.plan.options.burst {
            let stamp = Stamp { stream: stream.id, seq: stream.seq, sent_ns };
            self.plan.adapter.publish(stream.topic, stamp, outbox);
            stream.seq += 1;
        }
        if let Some(published) = self.shared.published.get(stream.id as usize) {
            published.store(stream.seq, Ordering::Release);
        }
        self.tally.counts.published += u64::from(self.plan.options.burst);
        if outbox.len() > OUTBOX_MAX {
            self.publishing.blocked = Some(stream.at);
            self.tally.counts.blocked += 1;
        }
        self.publishing.dirty.insert(stream.at);
        true
    }

    fn flush(&mut self) {
        if self.publishing.dirty.is_empty() {
            return;
        }
        self.note_publication(monotonic());
        for at in std::mem::take(&mut self.publishing.dirty) {
            let client = &mut self.clients[at as usize];
            if !client.sending
                && let Some(outbox) = client.outbox.take()
            {
                self.send(at, *outbox);
            }
        }
    }
}

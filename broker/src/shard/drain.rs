//! Shutdown: close every WebSocket with 1001 over a while, deliver what was accepted, refuse newcomers, end.
//!
//! **The window.** Clients that are all closed in one instant come back in one instant, wherever they go. So they are
//! closed in a shuffled order, evenly spread over the window. Clients that are still there are served as before: they
//! publish, and receive what others publish. So are newcomers: who comes here has nowhere better to go, and stays
//! until the window is over. Where a successor accepts from the same listeners (`server/takeover.rs`), none come; and
//! connections of HTTP end behind the request under way, or when none comes for a moment (`requests`).
//!
//! No client is closed before it has received what was accepted, on any shard, before the drain began. Every shard sends
//! every sequencer a mark behind its publishes. A sequencer that has the marks of all shards sends each shard a mark
//! behind its deliveries. A shard that has the marks of all sequencers has everything, and each client is first sent
//! what is pending for it.
//!
//! **The end.** After that, or at once without a window, the shards go on together, a phase at a time, because a message
//! accepted on one may have its sequencer on a second and its subscribers on a third. Newcomers are answered with 503.
//! With no WebSocket left, the window is over.

#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::frame::close_code;
use ring::{ConnId, Driver, Nanos, Random, nanos};

use crate::ids::ShardId;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::shared::{Delivery, Request};
use crate::shard::transport::connection::{Flags, State};

/// How often a shard looks whether the others are as far, and which clients are due.
const POLL_NANOS: Nanos = 10_000_000;
/// The latest time at which a client is asked to come back, in milliseconds.
const RETRY_MS_MAX: u64 = 5000;
/// How long clients that were sent everything have for their answer to the close.
const ANSWER_NANOS: Nanos = 1_000_000_000;

/// How far the shutdown is.
#[derive(Default, Debug)]
pub(super) struct Drain {
    phase: Phase,
    /// When the window began, and how long it is.
    began: Nanos,
    window: Nanos,
    /// Another process accepts from the same listeners.
    is_succeeded: bool,
    /// Clients that are still to be closed, the next one last, and how many there were.
    staying: Vec<ConnId>,
    clients: usize,
    /// Marks of shards that this sequencer has.
    marks: u16,
    /// Marks of sequencers that this shard has.
    marked: u16,
    /// All that came before is in its logs.
    appended: bool,
    /// When the shard ends whatever is left.
    deadline: Nanos,
    /// Since when all close frames are out.
    closing_since: Nanos,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Phase {
    /// No shutdown.
    #[default]
    Running,
    /// Clients are closed, a few at a time.
    Window,
    /// Nothing is published any more; what was goes to its sequencers.
    Forward,
    /// Every shard has forwarded: sequencers sequence and pass on.
    Sequence,
    /// Every sequencer has passed on: subscribers are sent what waits.
    Deliver,
    /// Close frames are out.
    Close,
}

impl Drain {
    /// Whether the broker shuts down.
    pub(super) fn has_begun(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Whether nothing is published any more, and newcomers are refused.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Running | Phase::Window)
    }

    /// Whether HTTP connections end with their next answer: the broker goes, or new requests are for its successor.
    pub(super) fn ends_http(&self) -> bool {
        self.is_under_way() || self.is_succeeded
    }

    /// How many of the clients should have been closed by `now`: the first at once, the last a step before the end.
    fn due(&self, now: Nanos) -> usize {
        let elapsed = u128::from(now.saturating_sub(self.began));
        let due = self.clients as u128 * elapsed / u128::from(self.window.max(1)) + 1;
        usize::try_from(due).unwrap_or(usize::MAX).min(self.clients)
    }
}

impl<D: Driver> Shard<D> {
    /// Begins the shutdown; a second call without a window ends that of the first, and any other changes nothing.
    pub(super) fn begin_drain(&mut self, window: Duration, is_succeeded: bool) {
        if self.drain.phase == Phase::Window && window.is_zero() {
            self.begin_end();
        }
        if self.drain.has_begun() {
            return;
        }
        if is_succeeded {
            self.drain.is_succeeded = true;
            self.stop_accepting();
            self.end_idle_http_soon();
        }
        (self.drain.began, self.drain.window) = (self.now, nanos(window));
        if window.is_zero() {
            self.begin_end();
            return;
        }
        let mut clients: Vec<ConnId> = self.conns.ids();
        clients.retain(|&id| self.conns.get(id).is_some_and(|conn| conn.state == State::Open));
        shuffle(&mut clients, self.shared.epoch_base.0 ^ u64::from(self.id.0));
        self.drain.clients = clients.len();
        self.drain.staying = clients;
        self.drain.phase = Phase::Window;
        for sequencer in ShardId::all(self.shards()) {
            self.mailbox.request(sequencer, Request::Mark);
        }
    }

    /// A shard has begun to drain.
    pub(super) fn on_mark(&mut self) {
        self.drain.marks += 1;
        if self.drain.marks == self.shards() {
            for shard in ShardId::all(self.shards()) {
                self.mailbox.deliver(shard, Delivery::Marked);
            }
        }
    }

    /// A sequencer has passed on what was accepted before.
    pub(super) fn on_marked(&mut self) {
        self.drain.marked += 1;
    }

    /// Goes on with the shutdown. Returns whether it is complete.
    pub(super) fn advance_drain(&mut self) -> bool {
        if !self.drain.has_begun() {
            return false;
        }
        let all = self.shared.inboxes.len();
        let late = self.now >= self.drain.deadline;
        // Half the time is for delivering, half for closing.
        let hurry = self.now + nanos(self.limits.shutdown_grace) / 2 >= self.drain.deadline;
        match self.drain.phase {
            Phase::Running => {}
            Phase::Window => self.close_due(),
            Phase::Forward => {
                if hurry || self.mailbox.has_forwarded() {
                    self.shared.forwarded.fetch_add(1, Ordering::AcqRel);
                    self.enter_phase(Phase::Sequence);
                }
            }
            Phase::Sequence => {
                let forwarded = self.shared.forwarded.load(Ordering::Acquire) == all;
                if hurry || (forwarded && self.mailbox.has_sequenced()) {
                    self.shared.sequenced.fetch_add(1, Ordering::AcqRel);
                    self.enter_phase(Phase::Deliver);
                }
            }
            Phase::Deliver => {
                let sequenced = self.shared.sequenced.load(Ordering::Acquire) == all;
                let idle = self.mailbox.has_taken_deliveries()
                    && self.fanout.appends.is_empty()
                    && self.fanout.has_delivered()
                    && self.fanout.log_bytes == 0;
                if hurry || (sequenced && idle) {
                    self.close_all();
                    self.drain.closing_since = self.now;
                    self.enter_phase(Phase::Close);
                    // With nobody connected nothing would ever wake the shard to say so.
                    return self.is_deserted();
                }
            }
            Phase::Close if self.is_deserted() => return true,
            Phase::Close => {
                let ends = late || self.waits_only_for_answers();
                if ends {
                    self.cut_all();
                }
                return ends;
            }
        }
        false
    }

    pub(super) fn drain_deadline(&self) -> Option<Nanos> {
        match self.drain.phase {
            Phase::Running => None,
            Phase::Close if self.now < self.drain.closing_since + ANSWER_NANOS => {
                Some(self.drain.deadline.min(self.drain.closing_since + ANSWER_NANOS))
            }
            // Those that are still sent something are looked at now and then.
            _ => Some(self.now + POLL_NANOS),
        }
    }

    /// Closes the clients that are due. The window is over when its time is, or when nobody is left anywhere: a
    /// shard without clients waits for the others, because the kernel still deals it newcomers. Behind a successor it
    /// takes its time: nobody waits for its end, and who has just connected is about to ask for something.
    fn close_due(&mut self) {
        let is_deserted = !self.drain.is_succeeded && self.shared.admission.open() == 0;
        if self.now >= self.drain.began + self.drain.window || is_deserted {
            self.begin_end();
            return;
        }
        if self.drain.marked < self.shards() {
            return;
        }
        // What has come may still be on its way into logs.
        self.drain.appended |= self.fanout.appends.is_empty();
        if !self.drain.appended {
            return;
        }
        let gone = self.drain.clients - self.drain.staying.len();
        for _ in gone..self.drain.due(self.now) {
            if let Some(id) = self.drain.staying.pop() {
                self.drain_connection(id);
            }
        }
    }

    /// Nothing new from here on.
    fn begin_end(&mut self) {
        self.stop_accepting();
        self.drain.staying = Vec::new();
        self.drain.deadline = self.now + nanos(self.limits.shutdown_grace);
        self.fanout.end_throttles();
        self.end_http_calls();
        self.polls.end();
        self.enter_phase(Phase::Forward);
        self.end_idle_http();
    }

    fn is_deserted(&self) -> bool {
        self.conns.len() == 0 && !self.acceptor.is_adopting()
    }

    fn enter_phase(&mut self, phase: Phase) {
        self.drain.phase = phase;
        for inbox in &self.shared.inboxes {
            inbox.wake();
        }
    }

    fn close_all(&mut self) {
        for id in self.conns.ids() {
            let state = self.conns.get(id).map(|conn| conn.state);
            match state {
                Some(State::Open) => self.close_for_shutdown(id),
                Some(State::Http) => self.end_http(id),
                Some(State::Arriving | State::Proxied | State::Handshake) => {
                    let rejection = self.shared.admission.draining();
                    self.refuse(id, &rejection);
                }
                _ => {}
            }
        }
    }

    /// Has a WebSocket closed as soon as it was sent what waits for it.
    pub(super) fn drain_connection(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Open) {
            conn.flags.set(Flags::LEAVING);
            self.make_ready(id);
        }
    }

    pub(super) fn close_for_shutdown(&mut self, id: ConnId) {
        let mut out = self.begin_answer();
        // Drawn for each, so that they do not come back together.
        let retry_ms = self.draw(id) % (RETRY_MS_MAX + 1);
        if let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Open) {
            conn.session.write_goaway(retry_ms, &mut out);
        }
        self.answer(id, out);
        self.close_with(id, close_code::GOING_AWAY.into(), "the broker is shutting down", Reason::Shutdown);
    }

    /// A number for a connection, the same for the same seed.
    pub(super) fn draw(&self, id: ConnId) -> u64 {
        let seed = self.shared.epoch_base.0 ^ u64::from(self.id.0) << 48 ^ u64::from(id.slot) << 16;
        Random::new(seed ^ u64::from(id.generation) << 8).draw()
    }

    /// Whether everybody who is left was sent everything a while ago, and only owes its answer: what the kernel has it
    /// delivers without this process.
    fn waits_only_for_answers(&mut self) -> bool {
        self.now >= self.drain.closing_since + ANSWER_NANOS
            && self.conns.ids().into_iter().all(|id| self.was_sent_all(id))
    }

    fn was_sent_all(&mut self, id: ConnId) -> bool {
        self.conns
            .get(id)
            .is_none_or(|conn| conn.state == State::Gone || !conn.flags.has(Flags::SENDING) && conn.outbox_len() == 0)
    }

    /// Anyone who is left is cut off; those who were not sent everything are counted.
    fn cut_all(&mut self) {
        for id in self.conns.ids() {
            let was_sent_all = self.was_sent_all(id);
            self.stats().cut_off.add(u64::from(!was_sent_all));
            self.abort(id, Reason::Shutdown);
            self.on_closed(id);
        }
        self.publish_gauges();
    }
}

/// A shuffle that `seed` decides (Fisher and Yates).
fn shuffle(ids: &mut [ConnId], seed: u64) {
    let mut random = Random::new(seed);
    for left in (2..=ids.len()).rev() {
        ids.swap(left - 1, (random.draw() % left as u64) as usize);
    }
}

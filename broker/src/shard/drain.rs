//! Shutdown: stop accepting, deliver what was accepted, close every WebSocket with 1001.
//!
//! The shards go through it together, a phase at a time, because a message accepted on one may have its
//! home on a second and its subscribers on a third.

use std::sync::atomic::Ordering;

use protocol::frame::close_code;
use ring::{Driver, Nanos};

use super::conn::State;
use super::{Accepting, Shard, nanos};

/// How often a shard looks whether the others are as far.
const POLL_NANOS: Nanos = 10_000_000;

/// How far the shutdown is.
#[derive(Default, Debug)]
pub(super) struct Drain {
    phase: Phase,
    /// When the shard ends whatever is left.
    deadline: Nanos,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Phase {
    /// No shutdown.
    #[default]
    Running,
    /// Nothing is published any more; what was goes to its homes.
    Forward,
    /// Every shard has forwarded: homes sequence and pass on.
    Sequence,
    /// Every home has passed on: subscribers are sent what waits.
    Deliver,
    /// Close frames are out.
    Close,
}

impl Drain {
    pub(super) fn is_under_way(&self) -> bool {
        self.phase != Phase::Running
    }
}

impl<D: Driver> Shard<D> {
    pub(super) fn begin_drain(&mut self) {
        if self.drain.is_under_way() {
            return;
        }
        if self.accepting == Accepting::Armed {
            self.driver.accept_stop();
        }
        self.accepting = Accepting::Stopped;
        let deadline = self.now + nanos(self.limits.shutdown_grace);
        self.drain = Drain { phase: Phase::Forward, deadline };
    }

    /// Goes on with the shutdown. Returns whether it is complete.
    pub(super) fn advance_drain(&mut self) -> bool {
        if !self.drain.is_under_way() {
            return false;
        }
        let all = self.links.inboxes.len();
        let late = self.now >= self.drain.deadline;
        // Half the time is for delivering, half for closing.
        let hurry = self.now + nanos(self.limits.shutdown_grace) / 2 >= self.drain.deadline;
        match self.drain.phase {
            Phase::Running => {}
            Phase::Forward => {
                if hurry || !self.outbound.holds_requests() {
                    self.links.forwarded.fetch_add(1, Ordering::AcqRel);
                    self.enter_phase(Phase::Sequence);
                }
            }
            Phase::Sequence => {
                let forwarded = self.links.forwarded.load(Ordering::Acquire) == all;
                let idle = self.inbox().requests.is_empty() && !self.outbound.holds_deliveries();
                if hurry || (forwarded && idle) {
                    self.links.sequenced.fetch_add(1, Ordering::AcqRel);
                    self.enter_phase(Phase::Deliver);
                }
            }
            Phase::Deliver => {
                let sequenced = self.links.sequenced.load(Ordering::Acquire) == all;
                let idle = self.inbox().deliveries.is_empty() && self.news.is_empty() && self.log_bytes == 0;
                if hurry || (sequenced && idle) {
                    self.close_all();
                    self.enter_phase(Phase::Close);
                }
            }
            Phase::Close => return late || (self.conns.len() == 0 && self.adopting.is_empty()),
        }
        false
    }

    pub(super) fn drain_deadline(&self) -> Option<Nanos> {
        match self.drain.phase {
            Phase::Running => None,
            Phase::Close => Some(self.drain.deadline),
            _ => Some(self.now + POLL_NANOS),
        }
    }

    fn enter_phase(&mut self, phase: Phase) {
        self.drain.phase = phase;
        for inbox in &self.links.inboxes {
            inbox.wake();
        }
    }

    fn close_all(&mut self) {
        for id in self.conns.ids() {
            let state = self.conns.get(id).map(|conn| conn.state);
            match state {
                Some(State::Open) => {
                    self.stats().closed_shutdown.add(1);
                    self.close_with(id, close_code::GOING_AWAY.into(), "the broker is shutting down");
                }
                Some(State::Handshake) => {
                    self.refuse(id, &protocol::head::Refusal::new(503, "the broker is shutting down"));
                }
                _ => {}
            }
        }
        self.flush_ready();
    }
}

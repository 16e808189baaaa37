//! Shutdown: stop accepting, deliver what was accepted, close every WebSocket with 1001.
//!
//! The shards go through it together, a phase at a time, because a message accepted on one may have its
//! home on a second and its subscribers on a third.

use std::sync::atomic::Ordering;

use protocol::frame::close_code;
use ring::{ConnId, Driver, Nanos};

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

    /// Whether every connection was told already.
    pub(super) fn is_closing(&self) -> bool {
        self.phase == Phase::Close
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
                    // With nobody connected nothing would ever wake the shard to say so.
                    return self.is_deserted();
                }
            }
            Phase::Close => return late || self.is_deserted(),
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

    fn is_deserted(&self) -> bool {
        self.conns.len() == 0 && self.adopting.is_empty()
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
                Some(State::Open) => self.close_for_shutdown(id),
                Some(State::Arriving | State::Proxied | State::Handshake) => {
                    self.refuse(id, &protocol::head::Refusal::new(503, "the broker is shutting down"));
                }
                _ => {}
            }
        }
        self.flush_ready();
    }

    pub(super) fn close_for_shutdown(&mut self, id: ConnId) {
        if self.conns.get(id).is_some_and(|conn| conn.state == State::Open) {
            self.stats().closed_shutdown.add(1);
            self.close_with(id, close_code::GOING_AWAY.into(), "the broker is shutting down");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring::sim::{Faults, SimDriver, World};

    use super::*;
    use crate::address::Guest;
    use crate::limits::Limits;
    use crate::shard::ShardSetup;
    use crate::shard::link::{Adopt, Links, Order, Purpose};

    fn shard(world: &World) -> (Shard<SimDriver>, Arc<Links>) {
        let links = Arc::new(Links::new(1, 1, 1));
        let setup = ShardSetup { id: 0, links: Arc::clone(&links), limits: Arc::new(Limits::default()) };
        (Shard::new(world.driver(4, 4, 64), setup), links)
    }

    #[test]
    fn paused_publishers_do_not_keep_a_shutdown_awake() {
        let (mut shard, _) = shard(&World::new(1, Faults::default()));
        shard.paused.push_back(ConnId { slot: 0, generation: 0 });
        assert_eq!(shard.wait_until(), None, "there is somebody to resume");
        shard.begin_drain();
        assert!(shard.wait_until().is_some(), "nobody is resumed any more");
    }

    #[test]
    fn a_socket_adopted_when_all_were_told_is_told_as_well() {
        let world = World::new(1, Faults::default());
        let (mut shard, links) = shard(&world);
        let _silent = world.connect(0);
        shard.step().unwrap();
        links.order(0, Order::Shutdown).unwrap();
        while !shard.drain.is_closing() {
            assert!(shard.step().unwrap());
        }
        let (late, socket) = world.socket();
        let adopt =
            Adopt { socket, purpose: Purpose::Subscribe("t".to_owned()), read: Vec::new(), guest: Guest::default() };
        links.order(0, Order::Adopt(adopt)).unwrap();
        for _ in 0..5 {
            assert!(shard.step().unwrap());
        }
        let told = world.client_read(late, 64);
        assert_eq!(told.get(2..4), Some(&1001_u16.to_be_bytes()[..]), "{told:?}");
    }
}

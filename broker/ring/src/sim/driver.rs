//! The simulated driver as its caller sees it. Calls check what they may and queue an operation; the next
//! turn hands it to the [`Host`]. What a caller may do is decided by the events it was
//! given, not by what happened meanwhile.

use std::io;
use std::os::fd::OwnedFd;

use super::World;
use super::backlog::Accept;
use super::buffers::Buf;
use super::conn::Receive;
use super::host::{Host, Operation};
use crate::waker::Kind;
use crate::{ConnId, Counters, Driver, Event, Gather, Nanos, Waker};

/// One shard's driver in a [`World`]. Dropping it closes its connections and its listener.
pub struct SimDriver {
    world: World,
    host: usize,
    now: Nanos,
}

impl SimDriver {
    pub(super) fn new(world: World, host: usize, now: Nanos) -> Self {
        Self { world, host, now }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Host) -> T) -> T {
        f(&mut self.world.0.borrow_mut().hosts[self.host])
    }
}

impl Driver for SimDriver {
    type Buf = Buf;

    fn accept(&mut self) {
        self.with(|host| {
            if host.accept == Accept::Idle {
                host.accept = Accept::Called;
                host.operations.push_back(Operation::Accept);
            }
        });
    }

    fn accept_stop(&mut self) {
        self.with(|host| host.operations.push_back(Operation::AcceptStop));
    }

    fn adopt(&mut self, socket: OwnedFd, token: u64) {
        self.with(|host| host.operations.push_back(Operation::Adopt(socket, token)));
    }

    fn receive(&mut self, conn: ConnId) {
        self.with(|host| {
            let Some(live) = host.live(conn) else { return };
            if live.receive == Receive::Idle {
                live.receive = Receive::Called;
                host.operations.push_back(Operation::Receive(conn));
            }
        });
    }

    fn receive_stop(&mut self, conn: ConnId) {
        self.with(|host| {
            if host.live(conn).is_some() {
                host.operations.push_back(Operation::ReceiveStop(conn));
            }
        });
    }

    fn send(&mut self, conn: ConnId, gather: Gather, from: usize) {
        self.with(|host| {
            let Some(live) = host.live(conn) else { return };
            assert!(!live.sending, "a second send of {conn:?}");
            assert!(from < gather.len(), "a send from {from} of {} bytes", gather.len());
            live.sending = true;
            host.operations.push_back(Operation::Send(conn, gather, from));
        });
    }

    fn send_progress(&mut self, conn: ConnId) {
        self.with(|host| {
            let Some(live) = host.live(conn) else { return };
            if live.sending && !live.shutdown_wanted {
                host.operations.push_back(Operation::SendProgress(conn));
            }
        });
    }

    fn unsent(&mut self, conn: ConnId) {
        self.with(|host| {
            let Some(live) = host.live(conn) else { return };
            if !live.unsent_asked {
                live.unsent_asked = true;
                host.operations.push_back(Operation::Unsent(conn));
            }
        });
    }

    fn shutdown(&mut self, conn: ConnId) {
        self.with(|host| {
            let Some(live) = host.live(conn) else { return };
            if live.sending {
                live.shutdown_wanted = true;
            } else {
                host.operations.push_back(Operation::Shutdown(conn));
            }
        });
    }

    fn install(&mut self, conn: ConnId) {
        self.with(|host| {
            let Some(live) = host.live(conn) else { return };
            let busy = live.sending || live.receive != Receive::Idle;
            host.operations.push_back(Operation::Install(conn, busy));
        });
    }

    fn peer(&mut self, conn: ConnId) {
        self.with(|host| {
            let Some(live) = host.live(conn) else { return };
            if !live.asking {
                live.asking = true;
                host.operations.push_back(Operation::Peer(conn));
            }
        });
    }

    fn close(&mut self, conn: ConnId) {
        self.with(|host| {
            let Some(live) = host.live(conn) else { return };
            live.closing = true;
            host.operations.push_back(Operation::Close(conn));
        });
    }

    fn turn(&mut self, _deadline: Option<Nanos>, events: &mut Vec<Event<Buf>>) -> io::Result<()> {
        let mut state = self.world.0.borrow_mut();
        let state = &mut *state;
        self.now = state.now;
        state.hosts[self.host].turn(&mut state.net, events);
        Ok(())
    }

    fn now(&self) -> Nanos {
        self.now
    }

    /// In simulated time no work takes any.
    fn busy(&self) -> Nanos {
        0
    }

    fn capacity(&self) -> u32 {
        self.with(|host| host.capacity)
    }

    fn waker(&self) -> Waker {
        Waker { kind: Kind::Flag(self.with(|host| host.waker.clone())) }
    }

    fn counters(&self) -> Counters {
        self.with(|host| host.counters)
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        let mut state = self.world.0.borrow_mut();
        let state = &mut *state;
        state.hosts[self.host].end(&mut state.net);
    }
}

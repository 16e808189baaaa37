//! Outgoing connections: a socket with its options and its source, then the handshake, which an edge ends.
//!
//! A place taken for a dial is `DIALLING`: it counts as taken, but no `ConnId` names it yet.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::slots::Flags;
use super::{Buf, EpollDriver, calls};
use crate::{ConnId, Event, socket};

/// A dial that was called for.
pub(super) struct Attempt {
    pub(super) to: SocketAddr,
    pub(super) source: Option<SocketAddr>,
    pub(super) token: u64,
}

impl EpollDriver {
    pub(super) fn carry_out_dial(&mut self, attempt: &Attempt, events: &mut Vec<Event<Buf>>) {
        match self.start_dial(attempt) {
            Ok(conn) => {
                let index = self.dials.put(attempt.token);
                let slot = self.slots.at(conn.slot);
                slot.flags.insert(Flags::DIALLING);
                slot.link = index;
            }
            Err(errno) => events.push(Event::Dialled { token: attempt.token, result: Err(errno) }),
        }
    }

    /// Registered only when the handshake is under way: a socket before that counts as hung up.
    fn start_dial(&mut self, attempt: &Attempt) -> Result<ConnId, i32> {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EINVAL);
        let socket = socket::dialling(attempt.to, attempt.source).map_err(errno)?;
        self.counters.enters += 1;
        match calls::connect(socket.as_fd(), &attempt.to.into()) {
            Ok(()) | Err(libc::EINPROGRESS | libc::EINTR) => self.open(socket, Flags::empty()),
            Err(errno) => Err(errno),
        }
    }

    /// An edge of a connection that is not reported yet: the handshake is over. Returns whether the connection stands.
    pub(super) fn end_dial(&mut self, conn: ConnId, events: &mut Vec<Event<Buf>>) -> bool {
        self.counters.enters += 1;
        let slot = self.slots.at(conn.slot);
        slot.flags.remove(Flags::DIALLING);
        let token = self.dials.take(slot.link);
        let result = calls::error_of(slot.socket()).map(|()| conn);
        if result.is_err() {
            self.slots.vacate(conn);
        }
        events.push(Event::Dialled { token, result });
        result.is_ok()
    }
}

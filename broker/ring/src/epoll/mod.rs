//! The driver for hosts where io_uring is forbidden: one epoll per shard, on the shard's own thread.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | the driver: calls in, one wait per turn |
//! | `operations` | what was called for is carried out: sends, shutdowns, closes |
//! | `readiness` | what the sockets are ready for: accepting, receiving, sending on |
//! | `poll` | the epoll descriptor and the wait |
//! | `calls` | the system calls on sockets |
//! | `dials` | outgoing connections |
//! | `setup` | start-up, errors as sentences |
//! | `slots` | what is known of each connection: 16 bytes |
//! | `buffers` | the receive buffers |
//!
//! The contract is that of the io_uring driver, and so are the habits: operations wait for the next turn, which
//! carries them out together; a send takes all it can and stays in flight while the socket is full, a longer one
//! than half a MiB is reported piece by piece; a receive goes on until it is stopped.
//!
//! Invariants:
//! - a socket is registered once, edge-triggered. Edges are not repeated, so each is kept until `recv`, `accept4`
//!   or `send` has proven that it is used up: `READABLE` outlives a receive that stopped or found no buffer,
//!   `acceptable` an end of accepting;
//! - a connection that is `READABLE` and wants to receive is in `readable` or in `again`, once; while either list
//!   has an entry, a turn does not wait;
//! - a turn receives so many buffers of one connection at most, and accepts so many at most. Connections that had
//!   their share come last in the next turn, so endless input of one starves no other;
//! - nothing that the kernel may touch outlives the call it was named in.
//!
//! Cost: a send is one system call, a receive one per buffer that arrives, a connection two (`accept4` and
//! `epoll_ctl`), a turn one. Nothing is allocated per operation once the tables have grown.

mod buffers;
mod calls;
mod dials;
mod operations;
mod poll;
mod readiness;
mod setup;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use crate::socket::set_nonblocking;
use crate::uring::Slab;
use crate::waker::{EventFd, Kind as WakerKind};
use crate::{AcceptEnd, ConnId, Counters, Dial, Driver, Event, Gather, Nanos, Waker, clock};

pub use buffers::Buf;
use buffers::Pool;
use dials::Attempt;
use operations::{InFlight, Operation};
use poll::{Poll, Registered};
pub use setup::{Setup, SetupError};
use slots::{Flags, Slots};

/// Receive buffers that one connection gets in one turn at most, however many there are.
const SHARE_MAX: u16 = 16;

/// The epoll driver. Lives and dies on the thread that made it (it is neither `Send` nor `Sync`).
pub struct EpollDriver {
    poll: Poll,
    /// The first one, and the second.
    listeners: [Option<Arc<OwnedFd>>; 2],
    accept: Accept,
    /// Peers may be waiting at each listener.
    acceptable: [bool; 2],
    slots: Slots,
    sends: Slab<InFlight>,
    /// The tokens of the handshakes under way.
    dials: Slab<u64>,
    /// Called for since the last turn.
    operations: Vec<Operation>,
    /// Those to be read from.
    readable: VecDeque<ConnId>,
    /// Those that had their share in the last turn.
    again: Vec<ConnId>,
    pool: Rc<Pool>,
    /// Buffers that one connection receives in one turn at most.
    share: u16,
    eventfd: Arc<EventFd>,
    now: Nanos,
    busy: Nanos,
    counters: Counters,
}

/// Where accepting stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accept {
    Idle,
    Running,
    Stopping,
}

impl EpollDriver {
    /// Makes a driver for the calling thread, which has to be the one that uses it.
    ///
    /// # Errors
    /// [`SetupError`], each with a sentence that says what to change.
    pub fn new(setup: Setup) -> Result<Self, SetupError> {
        setup::validate(&setup)?;
        let poll = Poll::new().map_err(setup::failed("making the epoll descriptor"))?;
        let register = |errno| setup::failed("registering with epoll")(io::Error::from_raw_os_error(errno));
        // Non-blocking: a waker must not wait, however often it is used.
        let eventfd = EventFd::new(libc::EFD_NONBLOCK).map_err(setup::failed("making the waker's eventfd"))?;
        poll.add(eventfd.fd().as_fd(), Registered::EventFd).map_err(register)?;
        let listeners = [setup.listener, setup.second];
        for (listener, registered) in listeners.iter().zip([Registered::Listener, Registered::SecondListener]) {
            let Some(listener) = listener else { continue };
            set_nonblocking(listener).map_err(setup::failed("making the listener non-blocking"))?;
            poll.add(listener.as_fd(), registered).map_err(register)?;
        }
        Ok(Self {
            poll,
            listeners,
            accept: Accept::Idle,
            acceptable: [false; 2],
            slots: Slots::new(setup.capacity),
            sends: Slab::new(),
            dials: Slab::new(),
            operations: Vec::new(),
            readable: VecDeque::new(),
            again: Vec::new(),
            // Never all buffers: a connection that had its share comes last in the next turn, one without does not.
            share: (setup.receive_buffers / 4).clamp(1, SHARE_MAX),
            pool: Pool::new(setup.receive_buffers, setup.receive_buffer_bytes),
            eventfd: Arc::new(eventfd),
            now: clock::monotonic(),
            busy: 0,
            counters: Counters::default(),
        })
    }

    /// Waits until `deadline`, unless there is something to do already, and notes what became ready.
    fn collect(&mut self, deadline: Option<Nanos>, events: &mut Vec<Event<Buf>>) -> io::Result<()> {
        let entered = deadline.map(|_| clock::monotonic());
        let timeout = deadline.unwrap_or(0).saturating_sub(entered.unwrap_or(0));
        let waits = timeout > 0 && self.eventfd.prepare_wait();
        let waited = self.poll.wait(if waits { timeout } else { 0 });
        if self.eventfd.finish_wait() {
            events.push(Event::Woken);
        }
        let before = std::mem::replace(&mut self.now, clock::monotonic());
        self.busy = entered.filter(|_| waits).unwrap_or(self.now) - before;
        self.counters.enters += waited?;
        let mut at = 0;
        while let Some((registered, ready)) = self.poll.event(at) {
            match registered {
                Registered::Listener => self.acceptable[0] = true,
                Registered::SecondListener => self.acceptable[1] = true,
                // The eventfd's counter is never read: every further write is a further edge.
                Registered::EventFd => {}
                Registered::Conn(conn) => self.note(conn, ready, events),
            }
            at += 1;
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        let accepts = self.accept == Accept::Running && (self.acceptable.contains(&true) || self.slots.is_full());
        accepts || self.accept == Accept::Stopping || !self.readable.is_empty() || !self.again.is_empty()
    }

    /// One receive at a time; `how` is what it is besides [`Flags::RECEIVING`].
    fn start_receive(&mut self, conn: ConnId, how: Flags) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.flags.contains(Flags::RECEIVING) {
            return;
        }
        slot.flags.insert(Flags::RECEIVING | how);
        if slot.flags.contains(Flags::READABLE) && !slot.flags.contains(Flags::LISTED) {
            slot.flags.insert(Flags::LISTED);
            self.readable.push_back(conn);
        }
    }

    fn stale(&mut self) {
        self.counters.stale += 1;
    }
}

impl Driver for EpollDriver {
    type Buf = Buf;

    fn accept(&mut self) {
        if self.listeners[0].is_none() {
            self.operations.push(Operation::TellAcceptEnd(AcceptEnd::Failed(libc::EBADF)));
        } else if self.accept == Accept::Idle {
            self.accept = Accept::Running;
        }
    }

    fn accept_stop(&mut self) {
        if self.accept == Accept::Running {
            self.accept = Accept::Stopping;
        }
    }

    fn adopt(&mut self, socket: OwnedFd, token: u64) {
        self.operations.push(Operation::Adopt { socket, token });
    }

    fn receive(&mut self, conn: ConnId) {
        self.start_receive(conn, Flags::empty());
    }

    fn receive_stop(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.flags & (Flags::RECEIVING | Flags::RECEIVE_STOPPING) == Flags::RECEIVING {
            slot.flags.insert(Flags::RECEIVE_STOPPING);
            self.operations.push(Operation::ReceiveStop(conn));
        }
    }

    fn send(&mut self, conn: ConnId, gather: Gather, from: usize) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        assert!(!slot.flags.contains(Flags::SENDING), "a second send of {conn:?}");
        assert!(from < gather.len(), "a send from {from} of {} bytes", gather.len());
        slot.flags.insert(Flags::SENDING);
        slot.link = self.sends.put(InFlight { gather, from, done: 0 });
        self.operations.push(Operation::Send(conn));
    }

    fn send_progress(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        // A send that a shutdown waits for is the last, so nobody could send its rest.
        if slot.flags.contains(Flags::SENDING) && !slot.flags.contains(Flags::SHUTDOWN_WANTED) {
            self.operations.push(Operation::SendProgress(conn));
        }
    }

    fn unsent(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if !slot.flags.contains(Flags::UNSENT_ASKED) {
            slot.flags.insert(Flags::UNSENT_ASKED);
            self.operations.push(Operation::Unsent(conn));
        }
    }

    fn shutdown(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.flags.contains(Flags::SENDING) {
            slot.flags.insert(Flags::SHUTDOWN_WANTED);
        } else {
            self.operations.push(Operation::Shutdown(conn));
        }
    }

    fn install(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        let busy = slot.flags.intersects(Flags::RECEIVING | Flags::SENDING);
        self.operations.push(Operation::Install { conn, busy });
    }

    fn peer(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if !slot.flags.contains(Flags::ASKING) {
            slot.flags.insert(Flags::ASKING);
            self.operations.push(Operation::Peer(conn));
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        slot.flags.insert(Flags::CLOSING);
        slot.flags.remove(Flags::SHUTDOWN_WANTED);
        self.operations.push(Operation::Close(conn));
    }

    fn turn(&mut self, deadline: Option<Nanos>, events: &mut Vec<Event<Buf>>) -> io::Result<()> {
        let before = events.len();
        self.carry_out(events);
        loop {
            let idle = events.len() == before && !self.has_work();
            self.collect(deadline.filter(|_| idle), events)?;
            self.accept_some(events);
            self.receive_some(events);
            if events.len() > before || deadline.is_none_or(|deadline| deadline <= self.now) {
                return Ok(());
            }
        }
    }

    fn now(&self) -> Nanos {
        self.now
    }

    fn busy(&self) -> Nanos {
        self.busy
    }

    fn capacity(&self) -> u32 {
        self.slots.capacity()
    }

    fn waker(&self) -> Waker {
        Waker { kind: WakerKind::EventFd(Arc::clone(&self.eventfd)) }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Dial for EpollDriver {
    fn dial(&mut self, to: SocketAddr, source: Option<SocketAddr>, token: u64) {
        self.operations.push(Operation::Dial(Box::new(Attempt { to, source, token })));
    }

    fn receive_once(&mut self, conn: ConnId) {
        self.start_receive(conn, Flags::ONCE);
    }

    fn discard(&mut self, conn: ConnId) {
        self.start_receive(conn, Flags::DISCARDING);
    }
}

//! The real driver: one io_uring per shard, on the shard's own thread.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | the driver: calls in, one system call per turn |
//! | `queue` | operations on their way to the kernel; the full queue |
//! | `complete` | completions turned into events; the join of a close |
//! | `end` | dropping a driver with operations in flight |
//! | `setup` | start-up: the kernel's features, errors as sentences |
//! | `slots` | what is known of each connection: 12 bytes |
//! | `slab` | what the kernel may be reading or writing: one table each for sends, adoptions, dials and queries |
//! | `group` | provided buffers: where they are |
//! | `entries` | the ring through which the kernel is given them |
//! | `buffers` | receive buffers: who holds them |
//! | `sink` | receive buffers for bytes that nobody wants |
//! | `dials` | connections on their way out |
//! | `peer` | whose connection it is |
//! | `progress` | how far a connection's output has got |
//! | `restrict` | the ring forbids itself what the driver does not do |
//! | `tag` | which operation a completion belongs to |
//! | `enter` | the system call |
//!
//! Invariants:
//! - the kernel's table of direct descriptors and `Slots` agree: the index the kernel chose at accept is
//!   the connection's slot, and it is vacated only after the close operation, which is queued only when
//!   nothing else of that connection is in flight;
//! - `outstanding` is the number of operations whose final completion has not been seen;
//! - memory named by an operation (a gather, a message head, an adoption's array, a query's name, the bell's
//!   counter, the buffer region) is released only after that operation's final completion. A driver that is dropped
//!   cancels and drains first; what cannot be drained is leaked rather than freed.
//!
//! Cost: a send is one submission entry, one table entry and one completion; nothing is allocated, unless
//! it starts inside a gather of several parts. A turn is one system call, more only if more operations were
//! queued than the submission queue holds.
//!
//! Cancellations go by `user_data`, never by descriptor: the kernel finds the former in a hash table but
//! walks every armed operation of the ring for the latter.

mod buffers;
mod complete;
mod dials;
mod end;
mod enter;
mod entries;
mod group;
mod peer;
mod progress;
mod queue;
mod restrict;
mod setup;
mod sink;
mod slab;
mod slots;
mod tag;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::gather::{Message, Tail};
use crate::socket::{V4_BYTES, V6_BYTES};
use crate::waker::{Bell, Kind as WakerKind};
use crate::{
    AcceptEnd, ConnId, Counters, Dial, Driver, Event, Gather, Nanos, ReceiveEnd, Waker, clock, limits, listen,
};

pub use buffers::Buf;
use buffers::Pool;
use enter::RingName;
pub(crate) use setup::at_least;
pub use setup::{Features, Setup, SetupError, probe};
use sink::Sink;
pub(crate) use slab::Slab;
use slots::{
    ASKING, CLOSING, DISCARDING, IN_FLIGHT, INSTALLING, RECEIVE_STOPPING, RECEIVING, RECEIVING_ONCE, SENDING,
    SHUTDOWN_WANTED, SHUTTING, Slots, UNSENT_ASKED,
};
use tag::Kind;

/// The groups of provided buffers: those that are read, and those that nobody looks at.
const BUFFER_GROUP: u16 = 0;
const SINK_GROUP: u16 = 1;
/// Sends up to this long complete in one piece unless the peer is gone; longer ones may be short.
pub(crate) const WAIT_ALL_BYTES_MAX: usize = 512 << 10;

/// The io_uring driver. Lives and dies on the thread that made it (it is neither `Send` nor `Sync`).
pub struct UringDriver {
    // Declared first, so that it is gone before what its operations named.
    ring: IoUring,
    name: RingName,
    features: Features,
    listener: Option<OwnedFd>,
    accept: Accept,
    slots: Slots,
    sends: Slab<InFlight>,
    adoptions: Slab<Adoption>,
    dials: Slab<dials::Dial>,
    queries: Slab<peer::Query>,
    /// How long the names of peers are likely to be: those of the listener's family.
    peer_bytes: libc::socklen_t,
    pool: Rc<Pool>,
    /// Made for the first discard.
    sink: Option<Sink>,
    bell: Arc<Bell>,
    /// Where the kernel reads the bell's eventfd to.
    bell_count: Rc<Cell<u64>>,
    bell_posted: bool,
    /// Completions taken early, because the submission queue was full in the middle of a turn.
    taken: Vec<cqueue::Entry>,
    /// Scratch of `turn`.
    batch: Vec<cqueue::Entry>,
    /// Events that need no kernel.
    ready: VecDeque<Event<Buf>>,
    outstanding: usize,
    overflowing: bool,
    /// A system call failed beyond repair; told by the next turn.
    broken: Option<i32>,
    now: Nanos,
    counters: Counters,
}

/// Where accepting stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accept {
    Idle,
    Running,
    /// Cancelled; what its end is to be called.
    Ending(AcceptEnd),
}

/// A send in flight.
struct InFlight {
    gather: Gather,
    from: usize,
    /// The ranges of a send that starts inside the gather; read by the kernel only.
    _trimmed: Option<Rc<Message>>,
}

/// A socket on its way into the table.
struct Adoption {
    token: u64,
    /// Closed when the adoption is over: the table holds its own reference then.
    _socket: OwnedFd,
    /// Descriptor in, slot out; read and written by the kernel.
    place: Rc<Cell<i32>>,
}

impl UringDriver {
    /// Makes a ring for the calling thread, which has to be the one that uses it.
    ///
    /// # Errors
    /// [`SetupError`], each with a sentence that says what to change.
    pub fn new(setup: Setup) -> Result<Self, SetupError> {
        setup::validate(&setup)?;
        let ring = setup::build_ring(setup.submission_entries.next_power_of_two())?;
        let mut features = setup::features(&ring)?;
        ring.submitter().register_files_sparse(setup.capacity).map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE) => SetupError::TableTooLarge { capacity: setup.capacity, limit: limits::descriptors() },
            Some(libc::ENOMEM) => SetupError::Memory { memlock: limits::locked_memory() },
            _ => SetupError::Other { doing: "registering the descriptor table", error },
        })?;
        let pool = Pool::new(setup.receive_buffers, setup.receive_buffer_bytes)
            .map_err(|_| SetupError::Memory { memlock: limits::locked_memory() })?;
        pool.register(&ring, BUFFER_GROUP).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOMEM) => SetupError::Memory { memlock: limits::locked_memory() },
            _ => SetupError::Other { doing: "registering the receive buffers", error },
        })?;
        pool.give_back();
        // Blocking, so that the ring's read waits for the first ring instead of failing with `EAGAIN`.
        let bell = Bell::new(0).map_err(|error| SetupError::Other { doing: "making the waker's eventfd", error })?;
        let name = RingName::register(ring.as_raw_fd());
        features.restricted = restrict::restrict(&ring, setup.dials);
        ring.submitter()
            .register_enable_rings()
            .map_err(|error| SetupError::Other { doing: "enabling the ring", error })?;
        let is_v4 = |listener| matches!(listen::local_addr(listener), Ok(SocketAddr::V4(_)));
        let peer_bytes = if setup.listener.as_ref().is_some_and(is_v4) { V4_BYTES } else { V6_BYTES };
        Ok(Self {
            name,
            ring,
            features,
            listener: setup.listener,
            accept: Accept::Idle,
            slots: Slots::new(setup.capacity),
            sends: Slab::new(),
            adoptions: Slab::new(),
            dials: Slab::new(),
            queries: Slab::new(),
            peer_bytes,
            pool,
            sink: None,
            bell: Arc::new(bell),
            bell_count: Rc::default(),
            bell_posted: false,
            taken: Vec::new(),
            batch: Vec::new(),
            ready: VecDeque::new(),
            outstanding: 0,
            overflowing: false,
            broken: None,
            now: clock::monotonic(),
            counters: Counters::default(),
        })
    }

    /// What this kernel offers.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    // ---- the system call

    fn enter(&mut self, deadline: Option<Nanos>) -> io::Result<()> {
        self.counters.enters += 1;
        let queued = self.ring.submission().len() as u32;
        let idle = self.ready.is_empty() && self.taken.is_empty();
        let timeout = deadline.map_or(0, |deadline| deadline.saturating_sub(clock::monotonic()));
        let result = if idle && timeout > 0 && self.bell.fall_asleep() {
            self.name.submit_and_wait(queued, timeout)
        } else {
            self.name.submit_and_reap(queued)
        };
        if self.bell.awake() {
            self.ready.push_back(Event::Woken);
        }
        self.now = clock::monotonic();
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ETIME) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn note_overflow(&mut self) {
        let overflowing = self.ring.submission().cq_overflow();
        if overflowing && !self.overflowing {
            self.counters.completion_overflows += 1;
        }
        self.overflowing = overflowing;
    }

    /// One receive at a time; `how` is what it is besides [`RECEIVING`].
    fn start_receive(&mut self, conn: ConnId, how: u32, entry: squeue::Entry) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.has(RECEIVING) {
            return;
        }
        slot.set(RECEIVING | how);
        self.push(&entry.user_data(tag::of_conn(Kind::Receive, conn)));
    }

    fn stale(&mut self) {
        self.counters.stale += 1;
    }
}

impl Driver for UringDriver {
    type Buf = Buf;

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return self.ready.push_back(Event::AcceptEnded { end: AcceptEnd::Failed(libc::EBADF) });
        };
        if self.accept != Accept::Idle {
            return;
        }
        if self.slots.is_full() {
            return self.ready.push_back(Event::AcceptEnded { end: AcceptEnd::TableFull });
        }
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .allocate_file_index(true)
            .flags(libc::SOCK_NONBLOCK)
            .build()
            .user_data(tag::of_index(Kind::Accept, 0));
        self.accept = Accept::Running;
        self.push(&entry);
    }

    fn accept_stop(&mut self) {
        if self.accept == Accept::Running {
            self.accept = Accept::Ending(AcceptEnd::Stopped);
            self.cancel_accept();
        }
    }

    fn adopt(&mut self, socket: OwnedFd, token: u64) {
        if let Err(error) = set_nonblocking(&socket) {
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            return self.ready.push_back(Event::Adopted { token, result: Err(errno) });
        }
        let place = Rc::new(Cell::new(socket.as_raw_fd()));
        // The kernel writes the chosen slot back to where it read the descriptor from.
        let named = place.as_ptr();
        let index = self.adoptions.put(Adoption { token, _socket: socket, place });
        let entry = opcode::FilesUpdate::new(named, 1)
            .offset(-1) // IORING_FILE_INDEX_ALLOC
            .build()
            .user_data(tag::of_index(Kind::Adopt, index));
        self.push(&entry);
    }

    fn receive(&mut self, conn: ConnId) {
        let entry = opcode::RecvMulti::new(Fixed(conn.slot), BUFFER_GROUP).build();
        self.start_receive(conn, 0, entry);
    }

    fn receive_stop(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.flags & (RECEIVING | RECEIVE_STOPPING) == RECEIVING {
            slot.set(RECEIVE_STOPPING);
            self.cancel_receive(conn);
        }
    }

    fn send(&mut self, conn: ConnId, gather: Gather, from: usize) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        assert!(!slot.has(SENDING), "a second send of {conn:?}");
        slot.set(SENDING);
        // What takes a slow peer long is reported as it gets on; all else completes once, when it is done.
        let wait_all = if gather.len().saturating_sub(from) > WAIT_ALL_BYTES_MAX { 0 } else { libc::MSG_WAITALL };
        let flags = libc::MSG_NOSIGNAL | wait_all;
        let mut trimmed = None;
        let entry = match gather.tail(from) {
            Tail::Contiguous(bytes) => {
                let len = bytes.len().min(i32::MAX as usize) as u32;
                opcode::Send::new(Fixed(conn.slot), bytes.as_ptr(), len).flags(flags).build()
            }
            Tail::Whole(message) => {
                opcode::SendMsg::new(Fixed(conn.slot), message.as_ptr()).flags(flags as u32).build()
            }
            Tail::Trimmed(message) => {
                let message = trimmed.insert(message);
                opcode::SendMsg::new(Fixed(conn.slot), message.as_ptr()).flags(flags as u32).build()
            }
        };
        slot.operation = self.sends.put(InFlight { gather, from, _trimmed: trimmed });
        self.push(&entry.user_data(tag::of_conn(Kind::Send, conn)));
    }

    fn send_progress(&mut self, conn: ConnId) {
        self.ask_progress(conn);
    }

    fn unsent(&mut self, conn: ConnId) {
        self.ask_unsent(conn);
    }

    fn shutdown(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.has(SENDING) {
            slot.set(SHUTDOWN_WANTED);
        } else if !slot.has(SHUTTING) {
            self.queue_shutdown(conn);
        }
    }

    fn install(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        let refusal = if slot.has(IN_FLIGHT & !(ASKING | UNSENT_ASKED)) {
            Some(libc::EBUSY)
        } else if !self.features.install {
            Some(libc::EOPNOTSUPP)
        } else {
            None
        };
        if let Some(errno) = refusal {
            let result = Err(io::Error::from_raw_os_error(errno));
            return self.ready.push_back(Event::Installed { conn, result });
        }
        slot.set(INSTALLING);
        let entry =
            opcode::FixedFdInstall::new(Fixed(conn.slot), 0).build().user_data(tag::of_conn(Kind::Install, conn));
        self.push(&entry);
    }

    fn peer(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if !slot.has(ASKING) {
            slot.set(ASKING);
            self.ask_peer(conn);
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        slot.set(CLOSING);
        slot.clear(SHUTDOWN_WANTED);
        let (receiving, sending) = (slot.has(RECEIVING), slot.has(SENDING));
        // Refusals of `install` and `discard` that were not told yet.
        self.ready.retain(|event| {
            !matches!(event, Event::Installed { conn: of, .. } | Event::ReceiveEnded { conn: of, .. } if *of == conn)
        });
        if receiving {
            self.cancel_receive(conn);
        }
        if sending {
            self.cancel_send(conn);
        }
        self.close_if_idle(conn);
    }

    fn turn(&mut self, deadline: Option<Nanos>, events: &mut Vec<Event<Buf>>) -> io::Result<()> {
        if let Some(errno) = self.broken {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.pool.give_back();
        if let Some(sink) = &mut self.sink {
            sink.give_back();
        }
        self.post_bell();
        let entered = self.enter(deadline);
        events.extend(self.ready.drain(..));
        self.note_overflow();
        let mut batch = mem::take(&mut self.batch);
        mem::swap(&mut batch, &mut self.taken);
        batch.extend(self.ring.completion());
        for entry in batch.drain(..) {
            self.complete(&entry, events);
        }
        self.batch = batch;
        entered
    }

    fn now(&self) -> Nanos {
        self.now
    }

    fn capacity(&self) -> u32 {
        self.slots.capacity()
    }

    fn waker(&self) -> Waker {
        Waker { kind: WakerKind::EventFd(Arc::clone(&self.bell)) }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Dial for UringDriver {
    fn dial(&mut self, to: SocketAddr, source: Option<SocketAddr>, token: u64) {
        self.start_dial(to, source, token);
    }

    fn receive_once(&mut self, conn: ConnId) {
        let entry = opcode::Recv::new(Fixed(conn.slot), ptr::null_mut(), self.pool.buffer_bytes())
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.start_receive(conn, RECEIVING_ONCE, entry);
    }

    fn discard(&mut self, conn: ConnId) {
        if self.sink.is_none() {
            match Sink::new(&self.ring, SINK_GROUP) {
                Ok(sink) => self.sink = Some(sink),
                Err(error) => {
                    let Some(_) = self.slots.live(conn) else {
                        return self.stale();
                    };
                    let end = ReceiveEnd::Failed(error.raw_os_error().unwrap_or(libc::ENOMEM));
                    return self.ready.push_back(Event::ReceiveEnded { conn, end });
                }
            }
        }
        let entry = opcode::RecvMulti::new(Fixed(conn.slot), SINK_GROUP).flags(libc::MSG_TRUNC).build();
        self.start_receive(conn, DISCARDING, entry);
    }
}

fn set_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // SAFETY: `F_GETFL` takes no pointers, and the descriptor is open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: `F_SETFL` takes no pointers, and the descriptor is open.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

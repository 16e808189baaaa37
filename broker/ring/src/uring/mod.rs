//! The real driver: one io_uring per shard, on the shard's own thread.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | the driver: what it is made of, one system call per turn |
//! | `operations` | the calls of the driver's user |
//! | `queue` | operations on their way to the kernel; the full queue |
//! | `complete` | completions turned into events; the join of a close |
//! | `teardown` | dropping a driver with operations in flight |
//! | `setup` | start-up: the kernel's features, errors as sentences |
//! | `slots` | what is known of each connection: 12 bytes |
//! | `slab` | what the kernel may be reading or writing: one table each for sends, adoptions, dials and queries |
//! | `group` | provided buffers: where they are |
//! | `entries` | the ring through which the kernel is given them |
//! | `buffers` | receive buffers: who holds them |
//! | `discard` | receive buffers for bytes that are thrown away |
//! | `dials` | outgoing connections |
//! | `peer` | the address of the peer |
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
//! - memory named by an operation (a gather, a message head, an adoption's array, a query's name, the eventfd's
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
mod discard;
mod enter;
mod entries;
mod group;
mod operations;
mod peer;
mod progress;
mod queue;
mod restrict;
mod setup;
mod slab;
mod slots;
mod tag;
mod teardown;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use io_uring::{IoUring, cqueue};

use crate::gather::Message;
use crate::socket::{V4_BYTES, V6_BYTES};
use crate::waker::EventFd;
use crate::{AcceptEnd, Counters, Event, Gather, Nanos, clock, limits, listen};

pub use buffers::Buf;
use buffers::Pool;
use discard::DiscardPool;
use enter::RingName;
pub(crate) use setup::at_least;
pub use setup::{OptionalFeatures, Setup, SetupError, probe};
pub(crate) use slab::Slab;
use slots::Slots;

/// The groups of provided buffers: those that are read, and those whose bytes are thrown away.
const BUFFER_GROUP: u16 = 0;
const DISCARD_GROUP: u16 = 1;
/// Sends up to this long complete in one piece, unless the peer is gone or the caller asks for progress; longer ones
/// may be short.
pub(crate) const WAIT_ALL_BYTES_MAX: usize = 512 << 10;

/// The io_uring driver. Lives and dies on the thread that made it (it is neither `Send` nor `Sync`).
pub struct UringDriver {
    // Declared first, so that it is gone before what its operations named.
    ring: IoUring,
    name: RingName,
    features: OptionalFeatures,
    /// The first one, and the second.
    listeners: [Option<Arc<OwnedFd>>; 2],
    accept: Accept,
    /// How many accepts of each listener are in flight.
    accepting: [u32; 2],
    /// How many are wanted.
    accepts_wanted: [u32; 2],
    slots: Slots,
    sends: Slab<InFlight>,
    adoptions: Slab<Adoption>,
    dials: Slab<dials::Dial>,
    queries: Slab<peer::Query>,
    /// How long the names of peers are likely to be: those of the listener's family.
    peer_bytes: libc::socklen_t,
    pool: Rc<Pool>,
    /// Made for the first discard.
    discard_pool: Option<DiscardPool>,
    eventfd: Arc<EventFd>,
    /// Where the kernel reads the eventfd's counter to.
    eventfd_count: Rc<Cell<u64>>,
    eventfd_read_posted: bool,
    /// Completions taken early, because the submission queue was full in the middle of a turn.
    taken: Vec<cqueue::Entry>,
    /// Scratch of `turn`.
    batch: Vec<cqueue::Entry>,
    /// Events that need no kernel.
    ready: VecDeque<Event<Buf>>,
    outstanding: usize,
    overflowing: bool,
    /// A system call failed beyond repair; the next turn reports it.
    broken: Option<i32>,
    now: Nanos,
    busy: Nanos,
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
        let mut features = setup::optional_features(&ring)?;
        let refused = |doing| setup::failed("io_uring_register", doing);
        ring.submitter().register_files_sparse(setup.capacity).map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE) => SetupError::TableTooLarge { capacity: setup.capacity, limit: limits::descriptors() },
            _ => refused("registering the descriptor table")(error),
        })?;
        let pool = Pool::new(setup.receive_buffers, setup.receive_buffer_bytes)
            .map_err(|_| SetupError::Memory { memlock: limits::locked_memory() })?;
        pool.register(&ring, BUFFER_GROUP).map_err(refused("registering the receive buffers"))?;
        pool.give_back();
        // Blocking, so that the ring's read waits for the first wake-up instead of failing with `EAGAIN`.
        let eventfd =
            EventFd::new(0).map_err(|error| SetupError::Other { doing: "making the waker's eventfd", error })?;
        let name = RingName::register(ring.as_raw_fd());
        features.restricted = restrict::restrict(&ring, setup.dials);
        ring.submitter().register_enable_rings().map_err(refused("enabling the ring"))?;
        let is_v4 = |listener: &Arc<OwnedFd>| matches!(listen::local_addr(listener), Ok(SocketAddr::V4(_)));
        let peer_bytes = if setup.listener.iter().chain(&setup.second).all(is_v4) && setup.listener.is_some() {
            V4_BYTES
        } else {
            V6_BYTES
        };
        Ok(Self {
            name,
            ring,
            features,
            listeners: [setup.listener, setup.second],
            accept: Accept::Idle,
            accepting: [0; 2],
            accepts_wanted: [0; 2],
            slots: Slots::new(setup.capacity),
            sends: Slab::new(),
            adoptions: Slab::new(),
            dials: Slab::new(),
            queries: Slab::new(),
            peer_bytes,
            pool,
            discard_pool: None,
            eventfd: Arc::new(eventfd),
            eventfd_count: Rc::default(),
            eventfd_read_posted: false,
            taken: Vec::new(),
            batch: Vec::new(),
            ready: VecDeque::new(),
            outstanding: 0,
            overflowing: false,
            broken: None,
            now: clock::monotonic(),
            busy: 0,
            counters: Counters::default(),
        })
    }

    /// What this kernel has beyond what the driver needs.
    #[must_use]
    pub fn optional_features(&self) -> OptionalFeatures {
        self.features
    }

    /// One turn: submits what was queued, waits, and turns what has completed into events.
    fn run(&mut self, deadline: Option<Nanos>, events: &mut Vec<Event<Buf>>) -> io::Result<()> {
        if let Some(errno) = self.broken {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.pool.give_back();
        if let Some(pool) = &mut self.discard_pool {
            pool.give_back();
        }
        self.post_eventfd_read();
        self.queue_accepts();
        let ended = self.accept_ended();
        self.ready.extend(ended);
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
        events.extend(self.accept_ended());
        entered
    }

    /// The system call.
    fn enter(&mut self, deadline: Option<Nanos>) -> io::Result<()> {
        self.counters.enters += 1;
        let queued = self.ring.submission().len() as u32;
        let idle = self.ready.is_empty() && self.taken.is_empty();
        let entered = deadline.map(|_| clock::monotonic());
        let timeout = deadline.unwrap_or(0).saturating_sub(entered.unwrap_or(0));
        let waits = idle && timeout > 0 && self.eventfd.prepare_wait();
        let result = if waits { self.name.submit_and_wait(queued, timeout) } else { self.name.submit_and_reap(queued) };
        if self.eventfd.finish_wait() {
            self.ready.push_back(Event::Woken);
        }
        let before = std::mem::replace(&mut self.now, clock::monotonic());
        self.busy = entered.filter(|_| waits).unwrap_or(self.now) - before;
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
}

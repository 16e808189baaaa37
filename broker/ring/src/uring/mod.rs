//! The real driver: one io_uring per shard, on the shard's own thread.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | the driver: operations queued, one system call per turn, completions turned into events |
//! | `setup` | start-up: the kernel's features, errors as sentences |
//! | `slots` | what is known of each connection: 12 bytes |
//! | `sends` | what the kernel may be reading |
//! | `buffers` | what the kernel may be writing |
//! | `tag` | which operation a completion belongs to |
//! | `enter` | the system call |
//!
//! Invariants:
//! - the kernel's table of direct descriptors and `Slots` agree: the index the kernel chose at accept is
//!   the connection's slot, and it is vacated only after the close operation, which is queued only when
//!   nothing else of that connection is in flight;
//! - `outstanding` is the number of operations whose final completion has not been seen;
//! - memory named by an operation (a gather, a message head, an adoption's array, the bell's counter, the
//!   buffer region) is released only after that operation's final completion. A driver that is dropped
//!   cancels and drains first; what cannot be drained is leaked rather than freed.
//!
//! Cost: a send is one submission entry, one table entry and one completion; nothing is allocated, unless
//! it starts inside a gather of several parts. A turn is one system call, more only if more operations were
//! queued than the submission queue holds.
//!
//! Cancellations go by `user_data`, never by descriptor: the kernel finds the former in a hash table but
//! walks every armed operation of the ring for the latter.

mod buffers;
mod enter;
mod sends;
mod setup;
mod slots;
mod tag;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::gather::Tail;
use crate::waker::{Bell, Kind as WakerKind};
use crate::{
    AcceptEnd, ConnId, Counters, Driver, Event, Gather, Nanos, ReceiveEnd, Waker, clock, limits,
};

pub use buffers::Buf;
use buffers::Pool;
use enter::RingName;
use sends::{InFlight, Sends};
pub use setup::{Features, Setup, SetupError, probe};
use slots::{
    CLOSE_QUEUED, CLOSING, IN_FLIGHT, INSTALLING, RECEIVE_STOPPING, RECEIVING, SENDING,
    SHUTDOWN_WANTED, SHUTTING, Slots,
};
use tag::Kind;

/// The only group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// The io_uring driver. Lives and dies on the thread that made it (it is neither `Send` nor `Sync`).
pub struct UringDriver {
    // Declared first, so that it is gone before what its operations named.
    ring: IoUring,
    name: RingName,
    features: Features,
    listener: Option<OwnedFd>,
    accept: Accept,
    slots: Slots,
    sends: Sends,
    /// By index of the operation; `None` is vacant.
    adoptions: Vec<Option<Adoption>>,
    pool: Rc<Pool>,
    bell: Arc<Bell>,
    /// Where the kernel reads the bell's eventfd to.
    bell_count: Box<u64>,
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

/// A socket on its way into the table.
struct Adoption {
    token: u64,
    /// Closed when the adoption is over: the table holds its own reference then.
    _socket: OwnedFd,
    /// Descriptor in, slot out; read and written by the kernel.
    place: Box<i32>,
}

impl UringDriver {
    /// Makes a ring for the calling thread, which has to be the one that uses it.
    ///
    /// # Errors
    /// [`SetupError`], each with a sentence that says what to change.
    pub fn new(setup: Setup) -> Result<Self, SetupError> {
        validate(&setup)?;
        let ring = setup::build_ring(setup.submission_entries.next_power_of_two())?;
        let features = setup::features(&ring)?;
        ring.submitter()
            .register_files_sparse(setup.capacity)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EMFILE) => SetupError::TableTooLarge {
                    capacity: setup.capacity,
                    limit: limits::descriptors(),
                },
                Some(libc::ENOMEM) => SetupError::Memory {
                    memlock: limits::locked_memory(),
                },
                _ => SetupError::Other {
                    doing: "registering the descriptor table",
                    error,
                },
            })?;
        let pool = Pool::new(setup.receive_buffers, setup.receive_buffer_bytes).map_err(|_| {
            SetupError::Memory {
                memlock: limits::locked_memory(),
            }
        })?;
        // SAFETY: the pool's region starts with room for `receive_buffers` entries, is aligned to a page and
        // outlives the ring: the driver keeps the pool until the ring is drained and closed.
        let registered = unsafe {
            ring.submitter().register_buf_ring_with_flags(
                pool.ring_address(),
                setup.receive_buffers,
                BUFFER_GROUP,
                0,
            )
        };
        registered.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOMEM) => SetupError::Memory {
                memlock: limits::locked_memory(),
            },
            _ => SetupError::Other {
                doing: "registering the receive buffers",
                error,
            },
        })?;
        pool.give_back();
        let bell = eventfd().map_err(|error| SetupError::Other {
            doing: "making the waker's eventfd",
            error,
        })?;
        Ok(Self {
            name: RingName::register(ring.as_raw_fd()),
            ring,
            features,
            listener: setup.listener,
            accept: Accept::Idle,
            slots: Slots::new(setup.capacity),
            sends: Sends::new(),
            adoptions: Vec::new(),
            pool,
            bell: Arc::new(Bell::new(bell)),
            bell_count: Box::new(0),
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

    // ---- queueing

    /// Queues an operation of which exactly one final completion will come.
    fn push(&mut self, entry: &squeue::Entry) {
        self.outstanding += 1;
        self.push_uncounted(entry);
    }

    /// The one place where a full submission queue is handled.
    fn push_uncounted(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: every entry of this driver names only memory that stays in place until its final
            // completion (see the module's invariants).
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            self.counters.submission_full += 1;
            if !self.flush() {
                return;
            }
        }
    }

    /// Hands the queued operations over in the middle of a turn, and takes completions out of the kernel's
    /// way before they overflow. False if the ring is beyond use; the operation is lost then, and the next
    /// turn says so.
    fn flush(&mut self) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let queued = self.ring.submission().len() as u32;
        self.counters.enters += 1;
        let result = self.name.submit(queued);
        let completions = self.ring.completion();
        if result.is_err() || completions.len() > completions.capacity() / 2 {
            self.taken.extend(completions);
        }
        match result {
            Ok(_) => true,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => true,
                Some(libc::EAGAIN | libc::EBUSY) => {
                    self.counters.enters += 1;
                    self.name.submit_and_reap(0).is_ok()
                }
                code => {
                    self.broken = code;
                    false
                }
            },
        }
    }

    fn cancel(&mut self, user_data: u64, tag: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(user_data))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(tag);
        self.push_uncounted(&entry);
    }

    fn cancel_receive(&mut self, conn: ConnId) {
        self.cancel(
            tag::of_conn(Kind::Receive, conn),
            tag::of_conn(Kind::CancelReceive, conn),
        );
    }

    fn cancel_send(&mut self, conn: ConnId) {
        self.cancel(
            tag::of_conn(Kind::Send, conn),
            tag::of_conn(Kind::CancelSend, conn),
        );
    }

    fn cancel_accept(&mut self) {
        self.cancel(
            tag::of_index(Kind::Accept, 0),
            tag::of_index(Kind::CancelAccept, 0),
        );
    }

    fn queue_shutdown(&mut self, conn: ConnId) {
        let slot = self.slots.at(conn.slot);
        slot.clear(SHUTDOWN_WANTED);
        slot.set(SHUTTING);
        let entry = opcode::Shutdown::new(Fixed(conn.slot), libc::SHUT_WR)
            .build()
            .user_data(tag::of_conn(Kind::Shutdown, conn));
        self.push(&entry);
    }

    /// The last step of a close: once nothing of `conn` is in flight, its place is given up.
    fn close_if_idle(&mut self, conn: ConnId) {
        let slot = self.slots.at(conn.slot);
        if !slot.has(CLOSING) || slot.has(IN_FLIGHT | CLOSE_QUEUED) {
            return;
        }
        slot.set(CLOSE_QUEUED);
        if !self.features.prompt_close {
            // See `Features::prompt_close`. The close runs whatever becomes of the shutdown.
            let shutdown = opcode::Shutdown::new(Fixed(conn.slot), libc::SHUT_RDWR)
                .build()
                .flags(squeue::Flags::IO_HARDLINK)
                .user_data(tag::of_index(Kind::Ignored, 0));
            self.push(&shutdown);
        }
        let close = opcode::Close::new(Fixed(conn.slot))
            .build()
            .user_data(tag::of_conn(Kind::Close, conn));
        self.push(&close);
    }

    fn post_bell(&mut self) {
        if self.bell_posted {
            return;
        }
        self.bell_posted = true;
        let counter: *mut u64 = &raw mut *self.bell_count;
        let entry = opcode::Read::new(Fd(self.bell.eventfd().as_raw_fd()), counter.cast(), 8)
            .build()
            .user_data(tag::of_index(Kind::Bell, 0));
        self.push(&entry);
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

    // ---- completions

    fn complete(&mut self, entry: &cqueue::Entry, events: &mut Vec<Event<Buf>>) {
        let user_data = entry.user_data();
        let kind = tag::kind(user_data);
        let index = tag::index(user_data);
        let more = cqueue::more(entry.flags());
        match kind {
            Kind::CancelAccept | Kind::CancelReceive | Kind::CancelSend => {
                return self.complete_cancel(kind, user_data);
            }
            _ if !more => self.outstanding -= 1,
            _ => {}
        }
        match kind {
            Kind::Accept => self.complete_accept(entry.result(), more, events),
            Kind::Adopt => self.complete_adopt(index, entry.result(), events),
            Kind::Bell => self.bell_posted = false,
            Kind::Receive => self.complete_receive(entry, events),
            Kind::Send => self.complete_send(index, entry.result(), events),
            Kind::Shutdown => {
                let slot = self.slots.at(index);
                slot.clear(SHUTTING);
                let conn = ConnId {
                    slot: index,
                    generation: slot.generation,
                };
                self.close_if_idle(conn);
            }
            Kind::Install => self.complete_install(index, entry.result(), events),
            Kind::Close => {
                // A kernel may hand the place to a new connection before it tells that the old one is
                // gone; `open` has settled that then.
                let slot = self.slots.at(index);
                if slot.has(CLOSE_QUEUED) && tag::is_of_generation(user_data, slot.generation) {
                    let conn = self.slots.vacate(index);
                    events.push(Event::Closed { conn });
                }
            }
            Kind::Ignored | Kind::CancelAccept | Kind::CancelReceive | Kind::CancelSend => {}
        }
    }

    /// A cancellation that found nothing or came too early: what it was meant for is over, or is running
    /// right now and has to be asked again.
    fn complete_cancel(&mut self, kind: Kind, user_data: u64) {
        if kind == Kind::CancelAccept {
            if matches!(self.accept, Accept::Ending(_)) {
                self.cancel_accept();
            }
            return;
        }
        let slot = self.slots.at(tag::index(user_data));
        if !tag::is_of_generation(user_data, slot.generation) {
            return;
        }
        let conn = ConnId {
            slot: tag::index(user_data),
            generation: slot.generation,
        };
        if kind == Kind::CancelReceive
            && slot.has(RECEIVING)
            && slot.has(RECEIVE_STOPPING | CLOSING)
        {
            self.cancel_receive(conn);
        } else if kind == Kind::CancelSend && slot.has(SENDING) && slot.has(CLOSING) {
            self.cancel_send(conn);
        }
    }

    fn complete_accept(&mut self, result: i32, more: bool, events: &mut Vec<Event<Buf>>) {
        if result >= 0 {
            let conn = self.open(result as u32, events);
            events.push(Event::Accepted { conn });
            if self.slots.is_full() && more && self.accept == Accept::Running {
                self.accept = Accept::Ending(AcceptEnd::TableFull);
                self.cancel_accept();
            }
        }
        if more {
            return;
        }
        let end = match (self.accept, -result) {
            (Accept::Ending(end), _) => end,
            (_, libc::ENFILE | libc::EMFILE | libc::ENOMEM | libc::ENOBUFS) => AcceptEnd::TableFull,
            _ if result >= 0 && self.slots.is_full() => AcceptEnd::TableFull,
            (
                _,
                libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO,
            ) => {
                self.counters.multishots_ended += 1;
                AcceptEnd::Stopped
            }
            _ if result >= 0 => {
                self.counters.multishots_ended += 1;
                AcceptEnd::Stopped
            }
            (_, errno) => AcceptEnd::Failed(errno),
        };
        self.accept = Accept::Idle;
        events.push(Event::AcceptEnded { end });
    }

    /// A new connection in a place of the kernel's choice.
    fn open(&mut self, slot: u32, events: &mut Vec<Event<Buf>>) -> ConnId {
        if self.slots.at(slot).has(CLOSE_QUEUED) {
            let conn = self.slots.vacate(slot);
            events.push(Event::Closed { conn });
        }
        self.slots.open(slot)
    }

    fn complete_adopt(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let adoption = self.adoptions[index as usize]
            .take()
            .expect("an adoption completes once");
        let result = match result {
            1 => Ok(self.open(*adoption.place as u32, events)),
            0 => Err(libc::ENFILE),
            errno => Err(-errno),
        };
        events.push(Event::Adopted {
            token: adoption.token,
            result,
        });
    }

    fn complete_receive(&mut self, entry: &cqueue::Entry, events: &mut Vec<Event<Buf>>) {
        let index = tag::index(entry.user_data());
        let result = entry.result();
        let more = cqueue::more(entry.flags());
        let buf =
            cqueue::buffer_select(entry.flags()).map(|id| self.pool.lend(id, result.max(0) as u32));
        let slot = self.slots.at(index);
        let conn = ConnId {
            slot: index,
            generation: slot.generation,
        };
        let closing = slot.has(CLOSING);
        let stopping = slot.has(RECEIVE_STOPPING);
        if let Some(buf) = buf.filter(|buf| !buf.is_empty() && !closing) {
            events.push(Event::Received { conn, buf });
        }
        if more {
            return;
        }
        slot.clear(RECEIVING | RECEIVE_STOPPING);
        if closing {
            return self.close_if_idle(conn);
        }
        let end = match -result {
            0 => ReceiveEnd::EndOfStream,
            libc::ENOBUFS => {
                self.counters.no_buffers += 1;
                ReceiveEnd::NoBuffers
            }
            errno if errno < 0 || matches!(errno, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {
                self.counters.multishots_ended += u64::from(!stopping);
                ReceiveEnd::Stopped
            }
            errno => ReceiveEnd::Failed(errno),
        };
        events.push(Event::ReceiveEnded { conn, end });
    }

    fn complete_send(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let slot = self.slots.at(index);
        slot.clear(SENDING);
        let conn = ConnId {
            slot: index,
            generation: slot.generation,
        };
        let (closing, shutdown) = (slot.has(CLOSING), slot.has(SHUTDOWN_WANTED));
        let send = self.sends.take(slot.send);
        if closing {
            return self.close_if_idle(conn);
        }
        if shutdown {
            self.queue_shutdown(conn);
        }
        let result = if result > 0 {
            Ok(result as usize)
        } else {
            Err(-result)
        };
        events.push(Event::Sent {
            conn,
            gather: send.gather,
            from: send.from,
            result,
        });
    }

    fn complete_install(&mut self, index: u32, result: i32, events: &mut Vec<Event<Buf>>) {
        let result = if result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            Ok(unsafe { OwnedFd::from_raw_fd(result) })
        } else {
            Err(io::Error::from_raw_os_error(-result))
        };
        let slot = self.slots.at(index);
        slot.clear(INSTALLING);
        let conn = ConnId {
            slot: index,
            generation: slot.generation,
        };
        if slot.has(CLOSING) {
            return self.close_if_idle(conn);
        }
        events.push(Event::Installed { conn, result });
    }

    fn stale(&mut self) {
        self.counters.stale += 1;
    }
}

impl Driver for UringDriver {
    type Buf = Buf;

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return self.ready.push_back(Event::AcceptEnded {
                end: AcceptEnd::Failed(libc::EBADF),
            });
        };
        if self.accept != Accept::Idle {
            return;
        }
        if self.slots.is_full() {
            return self.ready.push_back(Event::AcceptEnded {
                end: AcceptEnd::TableFull,
            });
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
            return self.ready.push_back(Event::Adopted {
                token,
                result: Err(errno),
            });
        }
        let place = Box::new(socket.as_raw_fd());
        let index = self
            .adoptions
            .iter()
            .position(Option::is_none)
            .unwrap_or_else(|| {
                self.adoptions.push(None);
                self.adoptions.len() - 1
            });
        let adoption = self.adoptions[index].insert(Adoption {
            token,
            _socket: socket,
            place,
        });
        // The kernel writes the chosen slot back to where it read the descriptor from.
        let place: *mut i32 = &raw mut *adoption.place;
        let entry = opcode::FilesUpdate::new(place, 1)
            .offset(-1) // IORING_FILE_INDEX_ALLOC
            .build()
            .user_data(tag::of_index(Kind::Adopt, index as u32));
        self.push(&entry);
    }

    fn receive(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        if slot.has(RECEIVING) {
            return;
        }
        slot.set(RECEIVING);
        let entry = opcode::RecvMulti::new(Fixed(conn.slot), BUFFER_GROUP)
            .build()
            .user_data(tag::of_conn(Kind::Receive, conn));
        self.push(&entry);
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
        const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        assert!(!slot.has(SENDING), "a second send of {conn:?}");
        slot.set(SENDING);
        let mut trimmed = None;
        let entry = match gather.tail(from) {
            Tail::Contiguous(bytes) => {
                let len = bytes.len().min(i32::MAX as usize) as u32;
                opcode::Send::new(Fixed(conn.slot), bytes.as_ptr(), len)
                    .flags(FLAGS)
                    .build()
            }
            Tail::Whole(message) => opcode::SendMsg::new(Fixed(conn.slot), message.as_ptr())
                .flags(FLAGS as u32)
                .build(),
            Tail::Trimmed(message) => {
                let message = trimmed.insert(message);
                opcode::SendMsg::new(Fixed(conn.slot), message.as_ptr())
                    .flags(FLAGS as u32)
                    .build()
            }
        };
        slot.send = self.sends.put(InFlight {
            gather,
            from,
            _trimmed: trimmed,
        });
        self.push(&entry.user_data(tag::of_conn(Kind::Send, conn)));
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
        let refusal = if slot.has(IN_FLIGHT) {
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
        let entry = opcode::FixedFdInstall::new(Fixed(conn.slot), 0)
            .build()
            .user_data(tag::of_conn(Kind::Install, conn));
        self.push(&entry);
    }

    fn close(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.live(conn) else {
            return self.stale();
        };
        slot.set(CLOSING);
        slot.clear(SHUTDOWN_WANTED);
        let (receiving, sending) = (slot.has(RECEIVING), slot.has(SENDING));
        // Refusals of `install` that were not told yet.
        self.ready
            .retain(|event| !matches!(event, Event::Installed { conn: of, .. } if *of == conn));
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
        Waker {
            kind: WakerKind::EventFd(Arc::clone(&self.bell)),
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for UringDriver {
    /// Cancels everything and waits for the final completions: about two seconds at most, in practice one
    /// system call. If the kernel still holds on after that, what it may touch is leaked.
    fn drop(&mut self) {
        const ROUNDS_MAX: u32 = 200;
        const ROUND_NS: Nanos = 10_000_000;
        let mut events = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if self.outstanding == 0 || self.broken.is_some() {
                break;
            }
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any())
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(tag::of_index(Kind::CancelAccept, 0));
            self.push_uncounted(&cancel);
            self.accept = Accept::Idle;
            // The bell's read ends here for good, so it counts as posted.
            self.bell_posted = true;
            if self.enter(Some(clock::monotonic() + ROUND_NS)).is_err() {
                break;
            }
            let mut batch = mem::take(&mut self.taken);
            batch.extend(self.ring.completion());
            for entry in &batch {
                self.complete(entry, &mut events);
            }
            events.clear();
        }
        if self.outstanding > 0 {
            mem::forget(mem::replace(&mut self.sends, Sends::new()));
            mem::forget(mem::take(&mut self.adoptions));
            mem::forget(mem::take(&mut self.bell_count));
            mem::forget(Rc::clone(&self.pool));
        }
        // Closes the connections now, rather than when the kernel gets to the ring's remains.
        let _ = self.ring.submitter().unregister_files();
    }
}

fn validate(setup: &Setup) -> Result<(), SetupError> {
    if setup.capacity == 0 {
        return Err(SetupError::Invalid(
            "a driver needs room for at least one connection",
        ));
    }
    if !setup.receive_buffers.is_power_of_two() || setup.receive_buffers > 1 << 15 {
        return Err(SetupError::Invalid(
            "the number of receive buffers must be a power of two up to 32768",
        ));
    }
    if setup.receive_buffer_bytes == 0 || setup.receive_buffer_bytes > 1 << 24 {
        return Err(SetupError::Invalid(
            "a receive buffer must have between 1 byte and 16 MiB",
        ));
    }
    if setup.submission_entries == 0 || setup.submission_entries > 1 << 15 {
        return Err(SetupError::Invalid(
            "the number of submission entries must be between 1 and 32768",
        ));
    }
    let limit = limits::descriptors();
    if u64::from(setup.capacity) > limit {
        return Err(SetupError::TableTooLarge {
            capacity: setup.capacity,
            limit,
        });
    }
    Ok(())
}

/// Blocking, so that the ring's read waits for the first ring instead of failing with `EAGAIN`.
fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

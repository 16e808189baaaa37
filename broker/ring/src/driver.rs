//! The contract between a shard and whatever moves its bytes: operations in, completions out.
//!
//! A driver belongs to one thread and knows connections only as [`ConnId`]s. It does not parse, does
//! not decide policy and does not retry on its own: a receive that ended, a short send or an exhausted
//! buffer pool is an event like any other, and the shard has a handler for each. One contract suite
//! (`tests/contract`) runs on every driver.
//!
//! What every driver promises:
//!
//! 1. **Order.** Bytes of one connection are received in order; at most one send per connection is in
//!    flight (a second [`Driver::send`] before [`Event::Sent`] is a caller's bug and panics).
//! 2. **Join.** After [`Driver::close`] no event of that connection is reported except exactly one
//!    [`Event::Closed`], which comes after the last completion of every operation that named the
//!    connection or its memory. Its slot is reused only after that, with another generation.
//! 3. **Nothing blocks** but [`Driver::turn`], and that only until its deadline.
//! 4. **A stale [`ConnId`]** (closed, or of an older generation) is ignored and counted, never acted on.

use std::io;
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::{Gather, Waker};

/// Nanoseconds on a clock that never goes back (`CLOCK_MONOTONIC`, or the simulation's own).
pub type Nanos = u64;

/// A duration in nanoseconds, at most a quarter of what fits: so it can be added to a time.
#[must_use]
pub fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX).min(Nanos::MAX / 4)
}

/// Most connections that one turn reports as accepted, of all listeners together. Others who wait are accepted in the next
/// turns, so that a crowd does not hold up those who are there.
pub const ACCEPTS_PER_TURN: u32 = 64;

/// One connection of one driver: a slot in its descriptor table and the slot's generation.
///
/// The generation makes a late completion of an earlier connection in the same slot recognisable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId {
    /// Index into the driver's table, dense from 0, below [`Driver::capacity`].
    pub slot: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

/// Why a receive reports nothing further until [`Driver::receive`] is called again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiveEnd {
    /// The peer closed its sending direction (`recv` returned 0). Nothing more will ever arrive.
    EndOfStream,
    /// No receive buffer was free (`ENOBUFS`). Call `receive` again once buffers were dropped.
    NoBuffers,
    /// [`Driver::receive_stop`] took effect, or the kernel ended the multishot for its own reasons.
    Stopped,
    /// The connection is broken; the value is the `errno` (`ECONNRESET`, `ETIMEDOUT`, ...).
    Failed(i32),
}

/// Why no further connection is accepted until [`Driver::accept`] is called again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcceptEnd {
    /// The descriptor table is full: reported as soon as the last place is taken, or at once if `accept` is
    /// called then. Call again when a connection closed. (A peer that the kernel accepts in the instant
    /// before that takes effect is closed by it, unseen.)
    TableFull,
    /// [`Driver::accept_stop`] took effect, or the kernel ended accepting for its own reasons.
    Stopped,
    /// The value is the `errno`.
    Failed(i32),
}

/// What a driver reports from [`Driver::turn`]. `B` is the driver's receive buffer.
#[derive(Debug)]
pub enum Event<B> {
    /// A peer connected. Nothing is received before [`Driver::receive`].
    Accepted {
        /// The new connection.
        conn: ConnId,
        /// Whether it came by the second listener, where there is one.
        is_second: bool,
    },
    /// Accepting ended, on every listener.
    AcceptEnded {
        /// Why.
        end: AcceptEnd,
    },
    /// A socket given to [`Driver::adopt`] is now a connection of this driver.
    Adopted {
        /// What `adopt` was given.
        token: u64,
        /// The connection, or the `errno` (`ENFILE` when the table is full; the socket was closed then).
        result: Result<ConnId, i32>,
    },
    /// Bytes arrived. The buffer goes back to the driver when it is dropped.
    Received {
        /// Where from.
        conn: ConnId,
        /// At least one byte, writable in place (unmasking, JSON parsing).
        buf: B,
    },
    /// A connection that [`Dial::dial`] was asked for: it stands, or the `errno`. After a failure nothing of
    /// it is left. Like an accepted one it has no Nagle delay, and receives nothing before it is asked to.
    Dialled {
        /// What `dial` was given.
        token: u64,
        /// The connection, or why there is none (`ECONNREFUSED`, `EADDRNOTAVAIL`, `ENFILE` when the table is
        /// full, ...).
        result: Result<ConnId, i32>,
    },
    /// Bytes arrived and are gone: what [`Dial::discard`] asks for.
    Discarded {
        /// Where from.
        conn: ConnId,
        /// How many, at least 1.
        bytes: u32,
    },
    /// The receive ended; see [`ReceiveEnd`] for whether it may be started again.
    ReceiveEnded {
        /// Whose.
        conn: ConnId,
        /// Why.
        end: ReceiveEnd,
    },
    /// The send in flight is over. It may be short: the caller sends the rest, from `from + n`.
    Sent {
        /// Whose.
        conn: ConnId,
        /// What [`Driver::send`] was given.
        gather: Gather,
        /// Where in `gather` that send began.
        from: usize,
        /// How many bytes the kernel took, or the `errno` (`EPIPE`, `ECONNRESET`, ...). 0 only after
        /// [`Driver::send_progress`]: the kernel had room for nothing.
        result: Result<usize, i32>,
    },
    /// [`Driver::install`] is over: the connection's socket as an ordinary descriptor, or the `errno`.
    Installed {
        /// Whose. It is still open in the driver and wants [`Driver::close`].
        conn: ConnId,
        /// The descriptor, non-blocking.
        result: io::Result<OwnedFd>,
    },
    /// [`Driver::peer`] is over: the address of the peer's end, or the `errno`.
    Peer {
        /// Whose.
        conn: ConnId,
        /// As the socket knows it: a listener on an IPv6 address calls an IPv4 peer `::ffff:a.b.c.d`.
        result: Result<SocketAddr, i32>,
    },
    /// [`Driver::unsent`] is over.
    Unsent {
        /// Whose.
        conn: ConnId,
        /// Bytes in the socket's send queue that the peer has not acknowledged, or the `errno`.
        result: Result<usize, i32>,
    },
    /// The join of [`Driver::close`] is complete: nothing of the connection is left.
    Closed {
        /// Whose.
        conn: ConnId,
    },
    /// A [`Waker`] was used since the last report.
    Woken,
}

/// What a driver counted since it was made. Rare events only: none of these is per message.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Receives that found no free buffer.
    pub no_buffers: u64,
    /// Multishot operations the kernel ended on its own.
    pub multishots_ended: u64,
    /// Times the submission queue was full and had to be flushed before the turn's end.
    pub submission_full: u64,
    /// Completion queue overflows (nothing is lost: the kernel keeps those entries).
    pub completion_overflows: u64,
    /// Calls or completions that named a connection that is gone.
    pub stale: u64,
    /// System calls made (`io_uring_enter`).
    pub enters: u64,
}

/// A shard's view of the kernel. See the module's head for what is promised.
pub trait Driver {
    /// A lent receive buffer. Exactly the received bytes; returns to the driver when dropped.
    type Buf: DerefMut<Target = [u8]>;

    // ---- input: operations. They are queued, and reach the kernel in the next `turn`.

    /// Starts accepting, [`ACCEPTS_PER_TURN`] at most. Repeat after [`Event::AcceptEnded`].
    fn accept(&mut self);

    /// Stops accepting; [`Event::AcceptEnded`] follows if accepting was under way. Connections accepted
    /// before that are still reported.
    ///
    /// Where another driver accepts from the same listener, it may not be notified of a connection that came just before:
    /// the kernel wakes one of the two. Once accepting has ended here, the other must stop and begin again, which finds
    /// whoever waits.
    fn accept_stop(&mut self);

    /// Takes over a connected stream socket; [`Event::Adopted`] follows, with `token`.
    fn adopt(&mut self, socket: OwnedFd, token: u64);

    /// Starts receiving on `conn`, until [`Event::ReceiveEnded`]. While receiving, this is a no-op.
    fn receive(&mut self, conn: ConnId);

    /// Asks the receive of `conn` to end. Bytes that arrived before it takes effect are still reported.
    fn receive_stop(&mut self, conn: ConnId);

    /// Sends `gather[from..]`. `gather` stays pinned until [`Event::Sent`] hands it back. A full socket is
    /// no event: the send stays in flight until there is room. [`Driver::send_progress`] ends it before that.
    ///
    /// # Panics
    /// If a send of `conn` is in flight, or `from >= gather.len()`.
    fn send(&mut self, conn: ConnId, gather: Gather, from: usize);

    /// Asks how far the send in flight has got: [`Event::Sent`] follows soon, with the bytes that the kernel has
    /// taken so far, possibly `Ok(0)`. The send ends there, and the caller sends the rest. No byte is lost or sent
    /// twice. While asking, without a send in flight, or after [`Driver::shutdown`], this is a no-op.
    ///
    /// A driver may take up a blocked send only once much of the socket's buffer is free (a third on Linux), so
    /// `Ok(0)` does not mean that the peer reads nothing: [`Driver::unsent`] reports what it has acknowledged.
    fn send_progress(&mut self, conn: ConnId);

    /// Asks how many bytes in the socket's send queue the peer has not acknowledged (`SIOCOUTQ`, tcp(7));
    /// [`Event::Unsent`] follows. Bytes of a send in flight that the kernel has not taken do not count; after
    /// [`Driver::shutdown`] the end of the stream counts as one byte until it is acknowledged. While asking, this
    /// is a no-op. A kernel before 6.6 cannot do it (`EOPNOTSUPP`, on io_uring).
    fn unsent(&mut self, conn: ConnId);

    /// Ends the sending direction (`shutdown(SHUT_WR)`), after what was sent. Reports nothing.
    fn shutdown(&mut self, conn: ConnId);

    /// Makes an ordinary descriptor of the connection's socket; [`Event::Installed`] follows. Neither a
    /// receive nor a send may be under way (`EBUSY`). A kernel before 6.8 cannot do it (`EOPNOTSUPP`).
    fn install(&mut self, conn: ConnId);

    /// Asks for the address of the peer's end; [`Event::Peer`] follows. While asking, this is a no-op. A kernel
    /// before 6.7 cannot do it (`EOPNOTSUPP`).
    fn peer(&mut self, conn: ConnId);

    /// Cancels whatever is in flight, closes, and reports [`Event::Closed`] when that is complete.
    fn close(&mut self, conn: ConnId);

    // ---- output: completions

    /// One turn: submits what was queued, waits until there is an event or `deadline` has passed (`None`:
    /// do not wait at all), and appends what happened to `events`.
    ///
    /// # Errors
    /// Only what no handler could mend (`EBADF`, `EFAULT`, ...). `EINTR`, `EBUSY`, `EAGAIN`, `ETIME` are not errors.
    fn turn(&mut self, deadline: Option<Nanos>, events: &mut Vec<Event<Self::Buf>>) -> io::Result<()>;

    // ---- getters

    /// The driver's clock, read once per turn at least; cheap.
    fn now(&self) -> Nanos;

    /// How long the thread was at work between the ends of the last two turns: the caller's part and the system calls,
    /// without the time that it slept.
    fn busy(&self) -> Nanos;

    /// How many connections fit, at most.
    fn capacity(&self) -> u32;

    /// Wakes this driver from any thread: its current or next waiting `turn` returns with [`Event::Woken`].
    fn waker(&self) -> Waker;

    /// What was counted so far.
    fn counters(&self) -> Counters;
}

/// What a client needs of a driver besides: reaching out, and receiving without looking.
///
/// `receive_once`, `discard` and [`Driver::receive`] are one receive in three ways: while one of them is under
/// way the others are no-ops, and [`Driver::receive_stop`] stops each.
pub trait Dial: Driver {
    /// Opens a TCP connection to `to`, from `source` if given (port 0: the kernel's choice);
    /// [`Event::Dialled`] follows, with `token`. It cannot be called off, except with the whole driver.
    fn dial(&mut self, to: SocketAddr, source: Option<SocketAddr>, token: u64);

    /// One receive: [`Event::Received`] once, then [`Event::ReceiveEnded`] with [`ReceiveEnd::Stopped`]; or
    /// only the latter, for the usual reasons.
    fn receive_once(&mut self, conn: ConnId);

    /// Like [`Driver::receive`], but the bytes are thrown away in the kernel: [`Event::Discarded`] says how
    /// many came.
    fn discard(&mut self, conn: ConnId);
}

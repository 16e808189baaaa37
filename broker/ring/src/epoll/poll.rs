//! The epoll descriptor: registrations, and the wait.
//!
//! Every descriptor is registered once, edge-triggered and for all events: the driver remembers those that it does not
//! want right now. So no operation needs an `epoll_ctl` of its own.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::calls::result_of;
use crate::{ConnId, Nanos};

/// The registered descriptor that an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Registered {
    Listener,
    SecondListener,
    EventFd,
    Conn(ConnId),
}

/// No connection's: a table has fewer places than that.
const LISTENER: u64 = u64::MAX;
const EVENTFD: u64 = u64::MAX - 1;
const SECOND_LISTENER: u64 = u64::MAX - 2;

/// Events that one call takes at most; those beyond wait for the next, in turn.
const EVENTS_MAX: usize = 1024;

const EVERYTHING: i32 = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET;

pub(super) struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// `epoll_pwait2` (Linux 5.11) is there. gVisor and old seccomp profiles lack it.
    precise: bool,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    s: i64,
    ns: i64,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX), precise: true })
    }

    /// Registers a descriptor. What is ready already is an event of the next wait.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, registered: Registered) -> Result<(), i32> {
        let data = match registered {
            Registered::Listener => LISTENER,
            Registered::SecondListener => SECOND_LISTENER,
            Registered::EventFd => EVENTFD,
            Registered::Conn(conn) => u64::from(conn.generation) << 32 | u64::from(conn.slot),
        };
        let mut event = libc::epoll_event { events: EVERYTHING as u32, u64: data };
        self.control(libc::EPOLL_CTL_ADD, fd, &raw mut event)
    }

    /// Ends the registration of a descriptor whose socket lives on; closing the last descriptor of a socket
    /// does that by itself.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) -> Result<(), i32> {
        self.control(libc::EPOLL_CTL_DEL, fd, ptr::null_mut())
    }

    /// `event` is null or names one event that the kernel reads.
    fn control(&self, what: i32, fd: BorrowedFd<'_>, event: *mut libc::epoll_event) -> Result<(), i32> {
        // SAFETY: the kernel reads the event, if there is one, which lives in the caller's frame.
        result_of(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), what, fd.as_raw_fd(), event) } as isize).map(drop)
    }

    /// Takes the events that are there; if there are none, waits for one, for `timeout` at most. Returns how
    /// many system calls that were.
    pub(super) fn wait(&mut self, timeout: Nanos) -> io::Result<u64> {
        self.events.clear();
        if timeout > 0 && self.precise {
            match self.take(Some(timeout)) {
                // EPERM is the answer of seccomp profiles that are older than the call.
                Err(libc::ENOSYS | libc::EPERM) => self.precise = false,
                taken => return ended(taken, 1),
            }
        }
        let mut calls = 1;
        if timeout > 0 {
            calls += 1;
            self.sleep(timeout);
        }
        ended(self.take(None), calls)
    }

    /// What the last wait found, one by one.
    pub(super) fn event(&self, at: usize) -> Option<(Registered, i32)> {
        let event = self.events.get(at)?;
        let registered = match event.u64 {
            LISTENER => Registered::Listener,
            SECOND_LISTENER => Registered::SecondListener,
            EVENTFD => Registered::EventFd,
            data => Registered::Conn(ConnId { slot: data as u32, generation: (data >> 32) as u32 }),
        };
        Some((registered, event.events as i32))
    }

    fn take(&mut self, timeout: Option<Nanos>) -> Result<(), i32> {
        let (epoll, events, max) = (self.epoll.as_raw_fd(), self.events.as_mut_ptr(), EVENTS_MAX as i32);
        let count = match timeout {
            None => {
                // SAFETY: the kernel writes at most `max` events, for which the vector has room.
                result_of(unsafe { libc::epoll_wait(epoll, events, max, 0) } as isize)?
            }
            Some(timeout) => {
                let timeout = timespec(timeout);
                let no_mask = ptr::null::<libc::sigset_t>();
                // SAFETY: as above; the timeout lives through the call, and a null mask is none.
                result_of(unsafe {
                    libc::syscall(libc::SYS_epoll_pwait2, epoll, events, max, &raw const timeout, no_mask, 0)
                } as isize)?
            }
        };
        // SAFETY: the kernel has written that many events, and `count <= max <= capacity`.
        unsafe { self.events.set_len(count) };
        Ok(())
    }

    /// Waits as precisely as `epoll_pwait2` does: an epoll descriptor is readable while it has events.
    fn sleep(&self, timeout: Nanos) {
        let Timespec { s, ns } = timespec(timeout);
        let timeout = libc::timespec { tv_sec: s as _, tv_nsec: ns as _ };
        let mut epoll = libc::pollfd { fd: self.epoll.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the kernel reads and writes one `pollfd` and reads the timeout; both live through the call.
        // However it ends, the events are looked at next.
        unsafe { libc::ppoll(&raw mut epoll, 1, &raw const timeout, ptr::null()) };
    }
}

/// An interrupted wait found nothing.
fn ended(taken: Result<(), i32>, calls: u64) -> io::Result<u64> {
    match taken {
        Ok(()) | Err(libc::EINTR) => Ok(calls),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn timespec(timeout: Nanos) -> Timespec {
    // Longer than a lifetime is beyond some kernels.
    Timespec { s: (timeout / 1_000_000_000).min(i32::MAX as u64) as i64, ns: (timeout % 1_000_000_000) as i64 }
}

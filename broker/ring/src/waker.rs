//! Wakes a driver that sleeps in `turn`, from any thread.
//!
//! A wake-up of a driver that does not sleep is one atomic exchange and no system call: the driver looks
//! at the flag before it waits and after it came back. Only a sleeping driver costs a write to its eventfd.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::socket::check;

/// A handle that ends another thread's wait. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker {
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// An eventfd (eventfd(2)) that the ring reads.
    EventFd(Arc<EventFd>),
    /// The simulated driver's flag.
    Flag(Arc<AtomicBool>),
}

impl Waker {
    /// Makes the driver's current or next waiting `turn` return with `Event::Woken`. Several wake-ups
    /// before that turn are one. What was written before this call is visible to the woken thread.
    pub fn wake(&self) {
        match &self.kind {
            Kind::EventFd(eventfd) => eventfd.wake(),
            Kind::Flag(flag) => flag.store(true, Ordering::Release),
        }
    }
}

/// An eventfd, and the flags that save most writes to it.
///
/// The sleeper stores `sleeping` and then loads `woken`; the waker stores `woken` and then loads `sleeping`.
/// All four are `SeqCst`, so at least one of the two sees the other's store: no wake-up is lost.
#[derive(Debug)]
pub(crate) struct EventFd {
    woken: AtomicBool,
    sleeping: AtomicBool,
    fd: OwnedFd,
}

impl EventFd {
    /// `flags` are set besides `EFD_CLOEXEC` (eventfd(2)).
    pub(crate) fn new(flags: i32) -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | flags) })?;
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { woken: AtomicBool::new(false), sleeping: AtomicBool::new(false), fd })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) && self.sleeping.load(Ordering::SeqCst) {
            let one = 1u64;
            // SAFETY: the pointer names eight readable bytes that live through the call, and the
            // descriptor is open as long as `self` lives. A failed write (the counter is full) means that
            // earlier writes are unread, so the sleeper wakes all the same.
            unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }

    /// Announces a wait. False if it must not happen, because of a wake-up since the last one.
    pub(crate) fn prepare_wait(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        !self.woken.load(Ordering::SeqCst)
    }

    /// Ends what [`EventFd::prepare_wait`] announced. Returns whether there was a wake-up since the last call.
    pub(crate) fn finish_wait(&self) -> bool {
        self.sleeping.store(false, Ordering::Relaxed);
        self.woken.load(Ordering::Relaxed) && self.woken.swap(false, Ordering::SeqCst)
    }
}

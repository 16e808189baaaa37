//! Wakes a driver that sleeps in `turn`, from any thread.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A handle that ends another thread's wait. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker {
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// An eventfd (eventfd(2)) that the ring reads.
    EventFd(Arc<std::os::fd::OwnedFd>),
    /// The simulated driver's flag.
    Flag(Arc<AtomicBool>),
}

//! The way into one shard, for other threads: bounded queues, and one wake-up per batch. Which queue waits for what is in the
//! head of [`shared`](crate::shard::shared).

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam::queue::ArrayQueue;
use ring::Waker;

use crate::capacity::budget::{self, Account, Charge, Held};
use crate::shard::messages::{ControlMessage, Delivery, Request};

/// Batches that one queue between two shards holds.
const BATCHES_MAX: usize = 256;
/// Orders and handed-over sockets that wait at most.
pub(super) const ORDERS_MAX: usize = 4096;

/// What one thread pushes for another at once, charged until it is taken apart.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    pub(crate) items: Vec<T>,
    /// What its items weigh, with the messages in them.
    pub(crate) bytes: u64,
    charge: Charge,
}

impl<T> Batch<T> {
    pub(crate) fn new(account: &Arc<Account>) -> Self {
        Self { items: Vec::new(), bytes: 0, charge: Charge::new(account, Held::Queues, 0) }
    }

    /// Takes what was gathered, charged as it is now; what is left is empty.
    pub(crate) fn take(&mut self) -> Self {
        let bytes = budget::allocated(self.items.capacity() * size_of::<T>());
        // One that came back from a full queue is charged already.
        self.charge.resize(0);
        let charge = self.charge.split(bytes);
        Self { items: std::mem::take(&mut self.items), bytes: std::mem::take(&mut self.bytes), charge }
    }

    /// Its items, with the charge that goes once they are dropped.
    pub(crate) fn into_parts(self) -> (std::vec::IntoIter<T>, Charge) {
        (self.items.into_iter(), self.charge)
    }
}

/// How much waits in the queues of an [`Inbox`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Depths {
    /// Batches of [`Request`]s.
    pub requests: usize,
    /// Batches of deliveries.
    pub deliveries: usize,
    /// [`ControlMessage`]s.
    pub control_messages: usize,
}

/// The way into one shard, for other threads.
#[derive(Debug)]
pub struct Inbox {
    pub(crate) requests: ArrayQueue<Batch<Request>>,
    pub(crate) deliveries: ArrayQueue<Batch<Delivery>>,
    pub(super) control_messages: ArrayQueue<ControlMessage>,
    /// True while the shard sleeps, or is about to: the thread that makes it false wakes it.
    asleep: AtomicBool,
    waker: OnceLock<Waker>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            requests: ArrayQueue::new(BATCHES_MAX),
            deliveries: ArrayQueue::new(BATCHES_MAX),
            control_messages: ArrayQueue::new(ORDERS_MAX),
            asleep: AtomicBool::new(false),
            waker: OnceLock::new(),
        }
    }

    /// Tells how to wake the shard; its thread calls this once, before it first sleeps.
    pub(crate) fn set_waker(&self, waker: Waker) {
        self.waker.set(waker).expect("a shard sets its waker once");
    }

    /// Wakes the shard if it sleeps. Call after a push: once per batch.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `may_sleep`: either the sleeper sees the push, or we see it asleep.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::AcqRel)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    /// The shard's side: announces sleep, and says whether nothing arrived meanwhile.
    pub(crate) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let empty = self.requests.is_empty() && self.deliveries.is_empty() && self.control_messages.is_empty();
        if !empty {
            self.awake();
        }
        empty
    }

    /// The shard's side: back from sleep, or never slept.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// How much waits for the shard now. Any thread may ask.
    #[must_use]
    pub fn depths(&self) -> Depths {
        Depths {
            requests: self.requests.len(),
            deliveries: self.deliveries.len(),
            control_messages: self.control_messages.len(),
        }
    }

    /// The next order of the control plane.
    pub(crate) fn next_control(&self) -> Option<ControlMessage> {
        self.control_messages.pop()
    }
}

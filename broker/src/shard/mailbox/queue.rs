//! Items of one kind on their way out of a shard, and those that have come to it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::ids::ShardId;
use crate::shard::inbox::Batch;
use crate::shard::messages::{Delivery, Request};

/// What may wait in one direction before publishers have to.
const WAITING_ITEMS_MAX: usize = 16 << 10;
const WAITING_BYTES_MAX: u64 = 32 << 20;
/// What an empty queue keeps room for.
const ITEMS_KEPT: usize = 1024;

/// What an item of a queue weighs for its bound, in bytes of messages.
pub(super) trait Weighed {
    /// Bytes of messages in it.
    fn weight(&self) -> u64;
}

impl Weighed for Request {
    fn weight(&self) -> u64 {
        match self {
            Self::Publish { payload, .. } => payload.weight(),
            Self::Snapshot(request) => request.payload.weight(),
            Self::Call(call) => call.payload.weight(),
            _ => 0,
        }
    }
}

impl Weighed for Delivery {
    fn weight(&self) -> u64 {
        match self {
            Self::Message(message) => message.weight(),
            Self::Called(called) => called.weight(),
            _ => 0,
        }
    }
}

/// What an item weighs in a batch: very small messages are not more than their items.
fn in_batch<T: Weighed>(item: &T) -> u64 {
    item.weight() + size_of::<T>() as u64
}

/// Adds an item to a batch.
pub(super) fn add<T: Weighed>(batch: &mut Batch<T>, item: T) {
    batch.bytes += in_batch(&item);
    batch.items.push(item);
}

/// Items of one kind that go out of a shard, and that have come to it.
///
/// Invariants: `own_bytes` is what `own` weighs; `others_items` and `others_bytes` count at least what `batches` hold.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// For each shard, what is gathered for it, or what its full queue did not take yet. Nothing for the own one.
    pub(super) batches: Vec<Batch<T>>,
    /// From this shard to itself, oldest first.
    pub(super) own: VecDeque<T>,
    own_bytes: u64,
    own_charge: Charge,
    /// The rest of a batch of another shard that this shard has begun to take.
    rest: Option<(std::vec::IntoIter<T>, Charge)>,
    /// What it weighs, with the messages in it.
    rest_bytes: u64,
    /// What the batches of other shards weigh that came since [`Queue::take_come_bytes`].
    come_bytes: u64,
    /// Whether the next item comes from others, if they have any: the two take turns.
    others_next: bool,
    /// Items for other shards that were added since none waited, and what they weigh.
    others_items: usize,
    others_bytes: u64,
}

impl<T: Weighed> Queue<T> {
    pub(super) fn new(shards: usize, account: &Arc<Account>) -> Self {
        Self {
            batches: (0..shards).map(|_| Batch::new(account)).collect(),
            own: VecDeque::new(),
            own_bytes: 0,
            own_charge: Charge::new(account, Held::Queues, 0),
            rest: None,
            rest_bytes: 0,
            come_bytes: 0,
            others_next: false,
            others_items: 0,
            others_bytes: 0,
        }
    }

    pub(super) fn push_other(&mut self, shard: ShardId, item: T) {
        self.others_items += 1;
        self.others_bytes += item.weight();
        add(&mut self.batches[usize::from(shard)], item);
    }

    pub(super) fn push_own(&mut self, item: T) {
        self.own_bytes += item.weight();
        let (was_empty, room) = (self.own.is_empty(), self.own.capacity());
        self.own.push_back(item);
        if was_empty || self.own.capacity() != room {
            self.own_charge.resize(allocated(self.own.capacity() * size_of::<T>()));
        }
    }

    pub(super) fn pop_own(&mut self) -> Option<T> {
        let item = self.own.pop_front()?;
        self.own_bytes -= item.weight();
        Some(item)
    }

    /// The next item of the own shard or of another; `more` gives the next batch of others, if there is one.
    pub(super) fn next(&mut self, more: impl FnOnce() -> Option<Batch<T>>) -> Option<T> {
        self.others_next = !self.others_next;
        if !self.others_next
            && let Some(item) = self.pop_own()
        {
            return Some(item);
        }
        if !self.has_rest() {
            self.rest = more().map(|batch| {
                self.rest_bytes = batch.bytes;
                self.come_bytes += batch.bytes;
                batch.into_parts()
            });
        }
        let Some(next) = self.rest.as_mut().and_then(|(items, _)| items.next()) else { return self.pop_own() };
        self.rest_bytes -= in_batch(&next);
        Some(next)
    }

    pub(super) fn has_rest(&self) -> bool {
        self.rest.as_ref().is_some_and(|(items, _)| items.len() > 0)
    }

    /// Whether something has come that was not taken yet, the inbox not counted.
    pub(super) fn has_come(&self) -> bool {
        self.has_rest() || !self.own.is_empty()
    }

    /// Gives memory back that the turn left unused.
    pub(super) fn tidy(&mut self) {
        if !self.has_rest() {
            self.rest = None;
        }
        if self.own.is_empty() {
            // What it keeps room for while it is empty is a fixed part of the shard.
            self.own.shrink_to(ITEMS_KEPT);
            self.own_charge.resize(0);
        }
    }

    /// What all batches weigh that have come from other shards since this was last asked.
    pub(super) fn take_come_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.come_bytes)
    }

    /// What it weighs, with what goes to other shards.
    pub(super) fn bytes(&self) -> u64 {
        self.own_bytes + self.rest_bytes + self.others_bytes
    }

    pub(super) fn is_full(&self) -> bool {
        self.own.len() + self.others_items > WAITING_ITEMS_MAX || self.own_bytes + self.others_bytes > WAITING_BYTES_MAX
    }

    /// Whether something for another shard has not been pushed yet.
    pub(super) fn holds(&self) -> bool {
        self.batches.iter().any(|batch| !batch.items.is_empty())
    }

    /// Begins to count anew once nothing waits for other shards.
    pub(super) fn recount(&mut self) {
        if !self.holds() {
            (self.others_items, self.others_bytes) = (0, 0);
        }
    }
}

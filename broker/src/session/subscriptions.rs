//! The subscriptions of a connection that may have many: one of `ringyard.v1`, or of events of several topics.
//!
//! A message is sent to a connection once, however many of its subscriptions match. Which one sends it follows from a
//! rule that needs no memory of what was sent: the subscription that went live first among those that match. A later
//! one never takes anything over, so nothing is lost or doubled when it comes; before one is removed, everything that
//! waits is sent first, so that the others begin where it ended.
//!
//! Memory: this record and one [`Sub`] per subscription, without room for more while they are few. More than a few have
//! an [`Index`], so that nothing is linear in them but what concerns them all.
//!
//! Invariant: `pending` lists each subscription whose `pending` is set, once.

#[cfg(test)]
mod tests;

use std::mem::size_of;
use std::sync::Arc;

use crate::capacity::budget::allocated;
use crate::ids::{LogSlot, Seq};
use crate::session::index::Index;
use crate::session::subscription::Subscription;
use crate::topics::filters::filter_bytes;
use crate::topics::keys::Keys;

/// So many subscriptions take no more room than they need, and are looked through one by one.
pub(in crate::session) const FEW: usize = 8;

/// See the file's head.
#[derive(Default, Debug)]
pub(in crate::session) struct Subscriptions {
    subs: Vec<Option<Sub>>,
    len: u32,
    /// Since there were more than [`FEW`], until there is none.
    index: Option<Box<Index>>,
    pending: Vec<u32>,
    /// Whether two of them may match the same topic.
    overlapping: bool,
    /// Whether one has begun with a throttle, since there was none at all.
    throttled: bool,
    next_order: u64,
}

/// One subscription.
#[derive(Debug)]
pub(in crate::session) struct Sub {
    pub(in crate::session) subscription: Subscription,
    /// Its filter, by reference.
    pub(in crate::session) filter: Arc<str>,
    /// The subscribe command it came with.
    pub(in crate::session) ticket: u64,
    /// Its place among the command's topics.
    pub(in crate::session) place: u32,
    /// Which of the connection's subscriptions went live before it: those with smaller numbers.
    order: u64,
}

impl Subscriptions {
    /// Adds a subscription that waits for the join of its log, with a filter that it does not have.
    pub(in crate::session) fn add(&mut self, log: LogSlot, filter: Arc<str>, keys: Keys) -> u32 {
        if self.len as usize == FEW && self.index.is_none() {
            self.begin_index(keys);
        }
        let subscription = Subscription::waiting(log);
        let sub = Sub { subscription, filter: Arc::clone(&filter), ticket: 0, place: 0, order: 0 };
        self.len += 1;
        let vacant = match &mut self.index {
            Some(index) => index.free.pop(),
            None => self.subs.iter().position(Option::is_none).map(|at| at as u32),
        };
        let key = match vacant {
            Some(key) => {
                self.subs[key as usize] = Some(sub);
                key
            }
            None => {
                if self.subs.len() < FEW {
                    self.subs.reserve_exact(1);
                }
                self.subs.push(Some(sub));
                (self.subs.len() - 1) as u32
            }
        };
        if let Some(index) = &mut self.index {
            index.keys.insert(filter, key);
        }
        key
    }

    fn begin_index(&mut self, keys: Keys) {
        let mut index = Box::new(Index::new(keys));
        for (key, sub) in (0..).zip(&self.subs) {
            match sub {
                None => index.free.push(key),
                Some(sub) => {
                    index.keys.insert(Arc::clone(&sub.filter), key);
                    self.overlapping = self.overlapping || (sub.subscription.live && index.overlaps(&sub.filter));
                }
            }
        }
        self.index = Some(index);
    }

    /// A subscription's log is joined: from now on it counts in deciding who sends what.
    pub(in crate::session) fn go_live(&mut self, key: u32, index: u32, cursor: Seq) {
        let filter = self.sub(key).filter.clone();
        if !self.overlapping {
            self.overlapping = match &mut self.index {
                Some(index) => index.overlaps(&filter),
                None => {
                    let mut live = self.subs.iter().flatten().filter(|other| other.subscription.live);
                    live.any(|other| protocol::topic::overlap(&other.filter, &filter))
                }
            };
        }
        let order = self.next_order;
        self.next_order += 1;
        let sub = self.sub_mut(key);
        sub.order = order;
        sub.subscription.go_live(index, cursor);
    }

    /// Removes a subscription. Of many that end together, [`Subscriptions::forget_pending`] comes first.
    pub(in crate::session) fn remove(&mut self, key: u32) -> Option<Sub> {
        let sub = self.subs.get_mut(key as usize)?.take()?;
        if sub.subscription.pending {
            self.pending.retain(|&other| other != key);
        }
        self.len -= 1;
        if self.len == 0 {
            (self.overlapping, self.throttled, self.index, self.subs) = (false, false, None, Vec::new());
        } else if let Some(index) = &mut self.index {
            index.keys.remove(&sub.filter);
            index.free.push(key);
            if !self.overlapping && sub.subscription.live {
                index.forget(&sub.filter);
            }
        }
        Some(sub)
    }

    /// Nothing more is to be sent for these subscriptions. Linear in them and in `pending`.
    pub(in crate::session) fn forget_pending(&mut self, keys: &[u32]) {
        for &key in keys {
            self.sub_mut(key).subscription.pending = false;
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|&key| self.sub(key).subscription.pending);
        self.pending = pending;
    }

    /// Lists a subscription as pending.
    pub(in crate::session) fn set_pending(&mut self, key: u32) {
        if !std::mem::replace(&mut self.sub_mut(key).subscription.pending, true) {
            self.pending.push(key);
        }
    }

    /// Keys of those that are pending.
    pub(in crate::session) fn pending(&self) -> &[u32] {
        &self.pending
    }

    /// The same, of which none is pending any more.
    pub(in crate::session) fn take_pending(&mut self) -> Vec<u32> {
        let pending = std::mem::take(&mut self.pending);
        for &key in &pending {
            self.sub_mut(key).subscription.pending = false;
        }
        pending
    }

    /// One begins with a throttle.
    pub(in crate::session) fn set_throttled(&mut self) {
        self.throttled = true;
    }

    /// Whether messages may wait for one of them although the connection could be sent to.
    pub(in crate::session) fn throttled(&self) -> bool {
        self.throttled
    }

    /// Whether two of those in force may match the same topic.
    pub(in crate::session) fn overlapping(&self) -> bool {
        self.overlapping
    }

    /// The subscription with this very filter, if there is one.
    pub(in crate::session) fn find_filter(&self, filter: &str) -> Option<u32> {
        if let Some(index) = &self.index {
            return index.keys.get(filter).copied();
        }
        let at = self.subs.iter().position(|sub| sub.as_ref().is_some_and(|sub| *sub.filter == *filter))?;
        Some(at as u32)
    }

    pub(in crate::session) fn get(&self, key: u32) -> Option<&Sub> {
        self.subs.get(key as usize)?.as_ref()
    }

    pub(in crate::session) fn get_mut(&mut self, key: u32) -> Option<&mut Sub> {
        self.subs.get_mut(key as usize)?.as_mut()
    }

    pub(in crate::session) fn sub(&self, key: u32) -> &Sub {
        self.get(key).expect("a subscription")
    }

    pub(in crate::session) fn sub_mut(&mut self, key: u32) -> &mut Sub {
        self.get_mut(key).expect("a subscription")
    }

    /// Number of subscriptions.
    pub(in crate::session) fn len(&self) -> usize {
        self.len as usize
    }

    /// Keys of all subscriptions, by age of their slots.
    pub(in crate::session) fn keys(&self) -> Vec<u32> {
        (0..self.subs.len() as u32).filter(|&key| self.subs[key as usize].is_some()).collect()
    }

    /// The subscription that sends messages of `topic`: of those in force that match, the first.
    pub(in crate::session) fn sender_of(&self, topic: &str) -> Option<u32> {
        let mut first: Option<(u64, u32)> = None;
        let mut consider = |key: u32, sub: &Sub| {
            if sub.subscription.live && first.is_none_or(|(before, _)| sub.order < before) {
                first = Some((sub.order, key));
            }
        };
        if let Some(index) = &self.index {
            index.keys.each_match(topic, |&key| consider(key, self.sub(key)));
        } else {
            let subs = (0..).zip(&self.subs).filter_map(|(key, sub)| Some((key, sub.as_ref()?)));
            subs.filter(|(_, sub)| protocol::topic::matches(&sub.filter, topic))
                .for_each(|(key, sub)| consider(key, sub));
        }
        first.map(|(_, key)| key)
    }

    /// Bytes on the heap.
    pub(in crate::session) fn heap_bytes(&self) -> u64 {
        allocated(self.subs.capacity() * size_of::<Option<Sub>>())
            + allocated(self.pending.capacity() * size_of::<u32>())
            + self.index.as_ref().map_or(0, |index| index.heap_bytes()) as u64
    }

    /// What one more subscription takes at most, in bytes.
    pub(in crate::session) fn bytes_of(filter: &str) -> u64 {
        // A vector has twice the room that it needs after it grew.
        let index = if protocol::topic::is_wildcard(filter) { filter_bytes(filter) } else { 64 };
        (2 * size_of::<Option<Sub>>() + 2 * size_of::<u32>()) as u64 + index
    }
}

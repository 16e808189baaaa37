//! The many subscriptions of one `ringyard.v1` connection.
//!
//! A message is sent to a connection once, however many of its subscriptions match. Which one sends it
//! follows from a rule that needs no memory of what was sent: the subscription that went live first among
//! those that match. A later one never takes anything over, so nothing is lost or doubled when it comes;
//! before one is removed, everything that waits is sent first ([`V1Session::deferred`]), so that the others
//! begin where it ended.
//!
//! Memory: this record and one [`Sub`] per subscription, without room for more while they are few; what commands
//! need while they are under way is freed with them. More than a few have an [`Index`], so that nothing is linear in
//! them but what concerns them all. What is on the heap is charged to the budget ([`V1Session::charge`]).

#[cfg(test)]
mod tests;

use std::mem::size_of;
use std::sync::Arc;

use protocol::v1::{Id, Position};
use rustc_hash::FxHashMap;

use crate::access::quota::NameShare;
use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::ids::{LogSlot, Seq};
use crate::message::Payload;
use crate::session::index::Index;
use crate::shard::shared::Origin;
use crate::topics::filters::filter_bytes;
use crate::topics::keys::Keys;
use crate::topics::registry::TopicRef;

/// So many subscriptions take no more room than they need, and are looked through one by one.
const FEW: usize = 8;

/// Subscribe commands whose topics are not all joined yet.
#[derive(Default, Debug)]
struct PendingSubscribes {
    open: FxHashMap<u64, PendingSubscribe>,
    /// Subscriptions of all of them.
    subs: usize,
}

/// What a `/ws` connection subscribes to.
#[derive(Default, Debug)]
pub(crate) struct V1Session {
    subs: Vec<Option<Sub>>,
    len: u32,
    /// Since there were more than [`FEW`], until there is none.
    index: Option<Box<Index>>,
    /// Subscriptions that had their turn and have something to be sent; each once.
    pub(crate) dirty: Vec<u32>,
    /// Whether two of the subscriptions may match the same topic.
    pub(crate) overlapping: bool,
    pending_subscribes: Option<Box<PendingSubscribes>>,
    /// Publishes that wait for their acknowledgement.
    pub(crate) unacknowledged: FxHashMap<u64, Id>,
    /// The topic of the last publish, so that the next one need not ask the registry.
    pub(crate) last_publish: Option<TopicRef>,
    /// A publish to a congested topic, which waits with everything behind it.
    pub(crate) held: Option<Box<HeldPublish>>,
    /// An unsubscribe that waits until what its subscriptions hold is sent.
    pub(crate) deferred: Option<Box<Deferred>>,
    next_order: u64,
    /// The names that it began.
    pub(crate) names: NameShare,
    charge: Option<Charge>,
}

/// An unsubscribe command, parsed.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) id: Option<Id>,
    pub(crate) filters: Vec<String>,
}

/// A publish that waits until its topic is no longer congested.
#[derive(Debug)]
pub(crate) struct HeldPublish {
    pub(crate) topic: TopicRef,
    pub(crate) payload: Payload,
    pub(crate) origin: Origin,
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) log: LogSlot,
    /// Its filter, by reference.
    pub(crate) filter: std::sync::Arc<str>,
    /// Its index among the log's subscribers, or among those that wait for the join; `u32::MAX` before either.
    pub(crate) index: u32,
    pub(crate) cursor: Seq,
    /// In [`V1Session::dirty`].
    pub(crate) dirty: bool,
    pub(crate) lagging: bool,
    /// So far behind that publishers wait for it.
    pub(crate) awaited: bool,
    /// Publishers waited for it in vain; until it has caught up nobody does.
    pub(crate) given_up: bool,
    /// The subscribe command it came with.
    pub(crate) ticket: u64,
    /// Where its topic stood when it went live; `None` for a filter.
    pub(crate) position: Option<Position>,
    /// When it went live among the connection's subscriptions; `None` while it waits for the join.
    pub(crate) order: Option<u64>,
}

/// A subscribe command under way.
#[derive(Debug)]
pub(crate) struct PendingSubscribe {
    pub(crate) id: Option<Id>,
    /// Topics that are not joined yet.
    pub(crate) joining: usize,
    /// The command's topics, in its order.
    pub(crate) subs: Vec<u32>,
}

impl V1Session {
    /// Adds a subscription that waits for the join of its log, with a filter that it does not have.
    pub(crate) fn add(&mut self, log: LogSlot, filter: Arc<str>, keys: Keys) -> u32 {
        if self.len as usize == FEW && self.index.is_none() {
            self.begin_index(keys);
        }
        let sub = Sub {
            log,
            filter: Arc::clone(&filter),
            index: u32::MAX,
            cursor: 0,
            dirty: false,
            lagging: false,
            awaited: false,
            given_up: false,
            ticket: 0,
            position: None,
            order: None,
        };
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
                    self.overlapping = self.overlapping || (sub.order.is_some() && index.overlaps(&sub.filter));
                }
            }
        }
        self.index = Some(index);
    }

    /// A subscription's log is joined: from now on it counts in deciding who sends what.
    pub(crate) fn go_live(&mut self, key: u32, index: u32, cursor: Seq, position: Option<Position>) {
        let filter = self.sub(key).filter.clone();
        if !self.overlapping {
            self.overlapping = match &mut self.index {
                Some(index) => index.overlaps(&filter),
                None => {
                    let mut live = self.subs.iter().flatten().filter(|other| other.order.is_some());
                    live.any(|other| protocol::topic::overlap(&other.filter, &filter))
                }
            };
        }
        let order = self.next_order;
        self.next_order += 1;
        let sub = self.sub_mut(key);
        (sub.index, sub.cursor, sub.position, sub.order) = (index, cursor, position, Some(order));
    }

    /// Removes a subscription. Of many that end together, [`V1Session::forget_dirty`] comes first.
    pub(crate) fn remove(&mut self, key: u32) -> Option<Sub> {
        let sub = self.subs.get_mut(key as usize)?.take()?;
        if sub.dirty {
            self.dirty.retain(|&other| other != key);
        }
        self.len -= 1;
        if self.len == 0 {
            (self.overlapping, self.index, self.subs) = (false, None, Vec::new());
        } else if let Some(index) = &mut self.index {
            index.keys.remove(&sub.filter);
            index.free.push(key);
            if !self.overlapping && sub.order.is_some() {
                index.forget(&sub.filter);
            }
        }
        Some(sub)
    }

    /// Nothing more is to be sent for these subscriptions. Linear in them and in `dirty`.
    pub(crate) fn forget_dirty(&mut self, keys: &[u32]) {
        for &key in keys {
            self.sub_mut(key).dirty = false;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.retain(|&key| self.sub(key).dirty);
        self.dirty = dirty;
    }

    /// Whether this subscription is there, to this log, and in force.
    pub(crate) fn is_live(&self, key: u32, log: LogSlot) -> bool {
        let sub = self.subs.get(key as usize).and_then(Option::as_ref);
        sub.is_some_and(|sub| sub.log == log && sub.order.is_some())
    }

    /// The subscription with this very filter, if there is one.
    pub(crate) fn find_filter(&self, filter: &str) -> Option<u32> {
        if let Some(index) = &self.index {
            return index.keys.get(filter).copied();
        }
        let at = self.subs.iter().position(|sub| sub.as_ref().is_some_and(|sub| *sub.filter == *filter))?;
        Some(at as u32)
    }

    pub(crate) fn sub(&self, key: u32) -> &Sub {
        self.subs[key as usize].as_ref().expect("a live subscription")
    }

    pub(crate) fn sub_mut(&mut self, key: u32) -> &mut Sub {
        self.subs[key as usize].as_mut().expect("a live subscription")
    }

    /// Number of subscriptions.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    // ---- subscribe commands under way

    /// A command waits for the joins of these subscriptions.
    pub(crate) fn begin_subscribe(&mut self, number: u64, ticket: PendingSubscribe) {
        for &key in &ticket.subs {
            self.sub_mut(key).ticket = number;
        }
        let pending_subscribes = self.pending_subscribes.get_or_insert_default();
        pending_subscribes.subs += ticket.subs.len();
        pending_subscribes.open.insert(number, ticket);
    }

    /// A subscription is joined: its command, if that waits for no other.
    pub(crate) fn joined(&mut self, key: u32) -> Option<PendingSubscribe> {
        let number = self.sub(key).ticket;
        let pending_subscribes = self.pending_subscribes.as_mut().expect("a subscription comes with a command");
        let ticket = pending_subscribes.open.get_mut(&number).expect("a subscription comes into force once");
        ticket.joining -= 1;
        if ticket.joining > 0 {
            return None;
        }
        let ticket = pending_subscribes.open.remove(&number)?;
        pending_subscribes.subs -= ticket.subs.len();
        if pending_subscribes.open.is_empty() {
            self.pending_subscribes = None;
        }
        Some(ticket)
    }

    /// Whether the command that a subscription came with is not answered yet.
    pub(crate) fn is_joining(&self, key: u32) -> bool {
        self.pending_subscribes
            .as_ref()
            .is_some_and(|pending_subscribes| pending_subscribes.open.contains_key(&self.sub(key).ticket))
    }

    /// Keys of all subscriptions, by age of their slots.
    pub(crate) fn keys(&self) -> Vec<u32> {
        (0..self.subs.len() as u32).filter(|&key| self.subs[key as usize].is_some()).collect()
    }

    /// The subscription that sends messages of `topic`: of those in force that match, the first.
    pub(crate) fn sender_of(&self, topic: &str) -> Option<u32> {
        let mut first: Option<(u64, u32)> = None;
        let mut consider = |key: u32, sub: &Sub| {
            if let Some(order) = sub.order
                && first.is_none_or(|(before, _)| order < before)
            {
                first = Some((order, key));
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

    // ---- memory

    /// Charges what it has on the heap now. To be called after whatever makes that grow or shrink.
    pub(crate) fn charge(&mut self, account: &Arc<Account>) {
        let bytes = self.heap_bytes();
        match &mut self.charge {
            Some(charge) => charge.resize(bytes),
            None => self.charge = Some(Charge::new(account, Held::Subscriptions, bytes)),
        }
    }

    fn heap_bytes(&self) -> u64 {
        let pending_subscribes = self.pending_subscribes.as_ref().map_or(0, |pending_subscribes| {
            let open = 2 * pending_subscribes.open.capacity() * size_of::<(u64, PendingSubscribe)>();
            size_of::<PendingSubscribes>() + open + pending_subscribes.subs * size_of::<u32>()
        });
        allocated(self.subs.capacity() * size_of::<Option<Sub>>())
            + allocated(self.dirty.capacity() * size_of::<u32>())
            + 2 * (self.unacknowledged.capacity() * size_of::<(u64, Id)>()) as u64
            + (self.index.as_ref().map_or(0, |index| index.heap_bytes()) + pending_subscribes) as u64
    }

    /// What one more subscription takes at most, in bytes.
    pub(crate) fn bytes_of(filter: &str) -> u64 {
        // A vector has twice the room that it needs after it grew.
        let index = if protocol::topic::is_wildcard(filter) { filter_bytes(filter) } else { 64 };
        (2 * size_of::<Option<Sub>>() + 2 * size_of::<u32>()) as u64 + index
    }
}

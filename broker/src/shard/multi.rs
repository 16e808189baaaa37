//! The many subscriptions of one `ringyard.v1` connection.
//!
//! A message is sent to a connection once, however many of its subscriptions match. Which one sends it
//! follows from a rule that needs no memory of what was sent: the subscription that went live first among
//! those that match. A later one never takes anything over, so nothing is lost or doubled when it comes;
//! before one is removed, everything that waits is sent first ([`Multi::deferred`]), so that the others
//! begin where it ended.
//!
//! Memory: this record and one [`Sub`] per subscription, without room for more while they are few; what commands
//! need while they are under way is freed with them.

use rustc_hash::FxHashMap;

use super::conn::LogSlot;
use super::link::Origin;
use crate::topics::log::Seq;
use crate::topics::message::Payload;
use crate::topics::registry::TopicRef;
use protocol::v1::{Id, Position};

/// So many subscriptions take no more room than they need.
const FEW: usize = 8;

/// What a `/ws` connection subscribes to.
#[derive(Default, Debug)]
pub(crate) struct Multi {
    subs: Vec<Option<Sub>>,
    /// Places in `subs` that are vacant.
    free: Vec<u32>,
    /// Subscriptions that the sweep has visited and that wait to be sent; each once.
    pub(crate) dirty: Vec<u32>,
    /// Whether two of the subscriptions may match the same topic.
    pub(crate) overlapping: bool,
    /// Subscribe commands whose topics are not all joined yet.
    tickets: FxHashMap<u64, Ticket>,
    /// Publishes that wait for their acknowledgement.
    pub(crate) unacknowledged: FxHashMap<u64, Id>,
    /// The topic of the last publish, so that the next one need not ask the registry.
    pub(crate) last_publish: Option<TopicRef>,
    /// A publish to a congested topic, which waits with everything behind it.
    pub(crate) held: Option<Box<HeldPublish>>,
    /// An unsubscribe that waits until what its subscriptions hold is sent.
    pub(crate) deferred: Option<Box<Deferred>>,
    next_order: u64,
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
    /// Its index among the log's subscribers.
    pub(crate) index: u32,
    pub(crate) cursor: Seq,
    /// In [`Multi::dirty`].
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
pub(crate) struct Ticket {
    pub(crate) id: Option<Id>,
    /// Topics that are not joined yet.
    pub(crate) joining: usize,
    /// The command's topics, in its order.
    pub(crate) subs: Vec<u32>,
}

impl Multi {
    /// Adds a subscription that waits for the join of its log.
    pub(crate) fn add(&mut self, log: LogSlot, filter: std::sync::Arc<str>) -> u32 {
        let sub = Sub {
            log,
            filter,
            index: 0,
            cursor: 0,
            dirty: false,
            lagging: false,
            awaited: false,
            given_up: false,
            ticket: 0,
            position: None,
            order: None,
        };
        match self.free.pop() {
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
        }
    }

    /// A subscription's log is joined: from now on it counts in deciding who sends what.
    pub(crate) fn go_live(&mut self, key: u32, index: u32, cursor: Seq, position: Option<Position>) {
        let filter = self.sub(key).filter.clone();
        // Two topics without wildcards, which have a position, cannot overlap: they differ.
        let wildcard = position.is_none();
        self.overlapping = self.overlapping
            || self.subs.iter().flatten().any(|other| {
                other.order.is_some()
                    && (wildcard || other.position.is_none())
                    && protocol::topic::overlap(&other.filter, &filter)
            });
        let order = self.next_order;
        self.next_order += 1;
        let sub = self.sub_mut(key);
        (sub.index, sub.cursor, sub.position, sub.order) = (index, cursor, position, Some(order));
    }

    /// Removes a subscription. If `dirty`, its key stays in the list until that is next walked.
    pub(crate) fn remove(&mut self, key: u32) -> Option<Sub> {
        let sub = self.subs.get_mut(key as usize)?.take()?;
        if sub.dirty {
            self.dirty.retain(|&other| other != key);
        }
        self.free.push(key);
        if self.len() == 0 {
            self.overlapping = false;
        }
        Some(sub)
    }

    /// Whether this subscription is there, to this log, and in force.
    pub(crate) fn is_live(&self, key: u32, log: LogSlot) -> bool {
        let sub = self.subs.get(key as usize).and_then(Option::as_ref);
        sub.is_some_and(|sub| sub.log == log && sub.order.is_some())
    }

    /// The subscription with this very filter, if there is one.
    pub(crate) fn find_filter(&self, filter: &str) -> Option<u32> {
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
        self.subs.len() - self.free.len()
    }

    // ---- subscribe commands under way

    /// A command waits for the joins of these subscriptions.
    pub(crate) fn open_ticket(&mut self, number: u64, ticket: Ticket) {
        for &key in &ticket.subs {
            self.sub_mut(key).ticket = number;
        }
        self.tickets.insert(number, ticket);
    }

    /// A subscription is joined: its command, if that waits for no other.
    pub(crate) fn joined(&mut self, key: u32) -> Option<Ticket> {
        let number = self.sub(key).ticket;
        let ticket = self.tickets.get_mut(&number).expect("a subscription comes into force once");
        ticket.joining -= 1;
        if ticket.joining > 0 {
            return None;
        }
        let ticket = self.tickets.remove(&number);
        if self.tickets.is_empty() {
            self.tickets = FxHashMap::default();
        }
        ticket
    }

    /// Whether the command that a subscription came with is not answered yet.
    pub(crate) fn is_joining(&self, key: u32) -> bool {
        self.tickets.contains_key(&self.sub(key).ticket)
    }

    /// Keys of all subscriptions, by age of their slots.
    pub(crate) fn keys(&self) -> Vec<u32> {
        (0..self.subs.len() as u32).filter(|&key| self.subs[key as usize].is_some()).collect()
    }

    /// The subscription that sends messages of `topic`.
    pub(crate) fn sender_of(&self, topic: &str) -> Option<u32> {
        let live = (0..).zip(&self.subs).filter_map(|(key, sub)| Some((sub.as_ref()?.order?, key, sub.as_ref()?)));
        let matching = live.filter(|(_, _, sub)| protocol::topic::matches(&sub.filter, topic));
        matching.min_by_key(|&(order, ..)| order).map(|(_, key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_live_subscription_that_matches_sends() {
        let mut multi = Multi::default();
        let wide = multi.add(0, "a/#".into());
        let exact = multi.add(1, "a/b".into());
        multi.go_live(exact, 0, 0, None);
        assert!(!multi.overlapping);
        multi.go_live(wide, 0, 0, None);
        assert!(multi.overlapping);
        assert_eq!(multi.sender_of("a/b"), Some(exact), "the exact one went live first");
        assert_eq!(multi.sender_of("a/c"), Some(wide));
        assert_eq!(multi.sender_of("b"), None);
        multi.remove(exact);
        assert_eq!(multi.sender_of("a/b"), Some(wide));
    }

    #[test]
    fn keys_are_reused_and_nothing_stays_behind() {
        let mut multi = Multi::default();
        for round in 0..1000 {
            let key = multi.add(round, "t".into());
            multi.go_live(key, 0, 0, None);
            multi.sub_mut(key).dirty = true;
            multi.dirty.push(key);
            assert!(key == 0 && multi.is_live(0, round) && !multi.is_live(0, round + 1));
            multi.remove(key);
        }
        assert_eq!((multi.len(), multi.subs.len(), multi.dirty.len()), (0, 1, 0));
    }
}

//! A topic's log on one shard, and the delivery round of its subscribers.
//!
//! The log keeps messages, by reference, that some subscriber of this shard has not been sent yet. A subscription is a
//! cursor into it. Not responsible for connections: the caller asks for the next subscriber ([`Log::next_in_round`]),
//! sends it [`Log::gather`], and reports those that could not take it ([`Log::lags`], [`Log::caught_up`]).
//!
//! Invariants, with `n` subscribers ([`Log::invariants`]; those about cursors need [`Log::cursor_invariant`]):
//!
//! - `head = tail + |entries|`, and `tail <= cursor <= head` for every subscriber: nothing is trimmed that a subscriber
//!   still needs. One that is too far behind is *closed*, and only then stops holding the tail, or it *skips*: its cursor
//!   moves on, and it is notified of what it was not sent.
//! - `tail <= delivered <= opened`, and `cursor >= delivered` for every subscriber that does not lag and has had its turn.
//! - `opened <= head` is the head when the round was last opened; without a throttle it is opened by each append. A subscriber at
//!   `opened` or beyond is sent nothing in its turn: what came since waits for the next round.
//! - `left <= n` subscribers have not had their turn since then; with `left = 0` nobody is to be delivered to now.
//! - `round.left <= n`; `round.head <= opened`; `lagging <= n`; with `n = 0` nothing is kept.
//!
//! A round never starts over: if it is opened while it is under way it goes on for one more round from where it is, and every
//! subscriber is sent everything that is pending. So under load the sends grow, not their number.
//!
//! Subscribers of one topic or filter that are delivered to at other intervals have a log each, a *delivery group*
//! (`Log::groups`): messages are shared, cursors and rounds are not.
//!
//! Back-pressure: a log is congested when its round is far behind the head ([`Log::undelivered_bytes`]), or while
//! publishers wait for single subscribers that are ([`Log::awaited`]). The shard decides how far is far.
//!
//! Positions ([`Seq`]) are the log's own, dense from 0, because the log of a filter holds messages of many topics. With
//! `slow-consumer = "latest"` some have no message any more (`entries`). Sizes are bytes of memory: a message with its overhead, and its entry here.

pub mod behind;
pub mod entries;
pub mod gather;
mod invariants;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ring::ConnId;
use rustc_hash::FxHashMap;

use crate::capacity::budget::{self, Account, Charge, Held};
use crate::ids::{Epoch, LogSlot, Offset, Seq, TopicId};
use crate::message::Message;
use crate::shard::fanout::log::behind::LagPolicy;
use crate::shard::fanout::log::entries::{Entries, Pending};
use crate::shard::fanout::log::gather::Built;
use crate::topics::keys::Keys;
use crate::topics::registry::{Congestion, TopicRef};
use crate::topics::rules::{SlowConsumer, Throttle};

/// One subscription, as its log knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Subscriber {
    /// Whose.
    pub conn: ConnId,
    /// Which of the connection's subscriptions; 0 on a raw connection.
    pub sub: u32,
}

/// Messages of one topic or filter that wait for subscribers of one shard.
#[derive(Debug)]
pub struct Log {
    /// The topic or filter.
    pub topic: TopicRef,
    /// Sequencers that have not answered the join yet; 0: live.
    pub joining: u16,
    /// The shard's number for that join.
    pub join: u64,
    /// Sets it apart from another log that had its slot.
    pub number: u64,
    /// How many messages had come to the shard when it was joined: those are not for this log.
    pub joined_at: u64,
    /// The topic's epoch, once live; 0 for a filter.
    pub epoch: Epoch,
    /// The offset that follows the newest message here, once live; 0 for a filter.
    pub next_offset: Offset,
    /// Subscribers that wait for the join.
    pub waiting: Vec<Subscriber>,
    /// Whether it is in the shard's queue of logs with pending messages.
    pub queued: bool,
    /// Whether publishers have to wait for it.
    pub congested: bool,
    /// Topics whose publishers have to wait for it, as long as it is congested.
    pub marked: FxHashMap<TopicId, Congestion>,
    /// How far subscribers may be behind.
    pub policy: LagPolicy,
    /// Subscribers that are far behind and that publishers wait for.
    pub awaited: u32,
    /// Logs of the same topic or filter whose subscribers are delivered to at longer intervals. They get what this one gets,
    /// and it stays while there is one.
    pub(crate) groups: Vec<LogSlot>,
    /// The log that has this one among its groups.
    pub(crate) anchor: Option<LogSlot>,
    /// With a throttle: the time for the next round is set; until then none is opened.
    pub is_timed: bool,

    account: Arc<Account>,
    /// For the log itself and its lists.
    charge: Charge,
    subscribers: Vec<Subscriber>,
    entries: Entries,

    next_subscriber: usize,
    left: usize,
    round: Round,
    /// The head when the round was last opened.
    opened: Seq,
    /// Nobody that does not lag is behind this.
    delivered: Seq,
    /// Subscriptions marked as lagging.
    lagging: u32,
    /// The lowest cursor among those, as of the last whole round and of what was seen since.
    lagging_min: Option<Seq>,
    /// The last send of each encoding that somebody was sent.
    gathers: Vec<Built>,
}

/// One round.
#[derive(Default, Debug)]
struct Round {
    /// Subscribers that still have to have their turn.
    left: usize,
    /// A subscriber that has had its turn in it does not need what is before this: `opened` when it began.
    head: Seq,
    /// The lowest cursor of a lagging subscriber seen in it.
    lagging_min: Option<Seq>,
}

impl Log {
    /// An empty log that waits for `joining` sequencers to answer the join numbered `join`. What it holds is charged to
    /// `account`; keys of messages are hashed under `keys`.
    #[must_use]
    pub fn new(
        topic: TopicRef,
        (joining, join): (u16, u64),
        policy: LagPolicy,
        keys: Keys,
        account: &Arc<Account>,
    ) -> Self {
        let is_latest = policy.slow_consumer == SlowConsumer::Latest;
        Self {
            account: Arc::clone(account),
            charge: Charge::new(account, Held::Subscriptions, LOG_BYTES),
            marked: FxHashMap::default(),
            awaited: 0,
            groups: Vec::new(),
            anchor: None,
            is_timed: false,
            policy,
            topic,
            joining,
            join,
            number: join,
            joined_at: 0,
            epoch: Epoch::default(),
            next_offset: Offset::default(),
            waiting: Vec::new(),
            queued: false,
            congested: false,
            subscribers: Vec::new(),
            entries: if is_latest { Entries::latest(keys) } else { Entries::all() },
            next_subscriber: 0,
            left: 0,
            round: Round::default(),
            opened: Seq::default(),
            delivered: Seq::default(),
            lagging: 0,
            lagging_min: None,
            gathers: Vec::new(),
        }
    }

    // ---- input

    /// Adds a message at the head, if anybody is there to read it, and opens the round unless there is a throttle.
    pub fn append(&mut self, message: Arc<Message>) {
        debug_assert_eq!(self.joining, 0, "a message before the join");
        if !self.topic.wildcard {
            if let Some(epoch) = message.begins() {
                (self.epoch, self.next_offset) = (epoch, Offset::default());
            }
            debug_assert_eq!(message.offset, self.next_offset, "a gap in a topic's order");
            self.next_offset = message.offset + 1;
        }
        if self.subscribers.is_empty() {
            return;
        }
        self.entries.push(message);
        self.recharge();
        if self.policy.throttle == Throttle::NONE {
            self.open_round();
        }
    }

    /// Every subscriber has its turn from now on.
    pub fn open_round(&mut self) {
        self.opened = self.head();
        if self.left == 0 {
            // A round that ends here before it is whole still saw who lags.
            if let (Some(known), Some(seen)) = (self.lagging_min, self.round.lagging_min) {
                self.lagging_min = Some(known.min(seen));
            }
            self.begin_round();
        }
        self.left = self.subscribers.len();
    }

    /// Adds a subscriber; its cursor is the head. Returns its index.
    pub fn add(&mut self, subscriber: Subscriber) -> usize {
        self.subscribers.push(subscriber);
        self.topic.subscription_begins();
        self.recharge();
        if self.left > 0 {
            // The round is one longer: without this its last subscriber would be missed.
            self.left += 1;
            self.round.left += 1;
        }
        self.subscribers.len() - 1
    }

    /// Removes the subscriber at `index`, which lagged or not. Returns the one that has that index now:
    /// its owner must learn that, and deliver to it at once, since the round may have passed the index already.
    pub fn remove(&mut self, index: usize, lagged: bool) -> Option<Subscriber> {
        self.subscribers.swap_remove(index);
        self.topic.subscription_ends();
        if self.subscribers.capacity() > 64 && self.subscribers.len() < self.subscribers.capacity() / 4 {
            self.subscribers.shrink_to(self.subscribers.capacity() / 2);
            self.recharge();
        }
        if lagged {
            self.lagging -= 1;
        }
        let len = self.subscribers.len();
        self.left = self.left.min(len);
        self.round.left = self.round.left.min(len);
        if len == 0 {
            self.clear();
        }
        self.subscribers.get(index).copied()
    }

    /// The next subscriber of the round, if one is left.
    pub fn next_in_round(&mut self) -> Option<Subscriber> {
        if self.left == 0 {
            return None;
        }
        if self.round.left == 0 {
            self.complete_round();
        }
        if self.next_subscriber >= self.subscribers.len() {
            self.next_subscriber = 0;
        }
        let subscriber = self.subscribers[self.next_subscriber];
        self.next_subscriber += 1;
        self.left -= 1;
        self.round.left -= 1;
        Some(subscriber)
    }

    /// The subscriber with `cursor` could not take everything in its turn. `newly`: it did not lag before.
    pub fn lags(&mut self, cursor: Seq, newly: bool) {
        self.lagging += u32::from(newly);
        self.round.lagging_min = Some(self.round.lagging_min.map_or(cursor, |min| min.min(cursor)));
    }

    /// A subscriber that lagged has been sent everything up to the head. Returns whether it was the last
    /// one: then [`Log::trim`] can free what it held.
    pub fn caught_up(&mut self) -> bool {
        self.lagging -= 1;
        self.lagging == 0
    }

    /// To be called once every subscriber that had its turn was either sent to or reported lagging: frees what nobody
    /// needs. Returns the bytes freed.
    pub fn trim(&mut self) -> u64 {
        let before = self.kept_bytes();
        if self.left == 0 {
            self.delivered = self.opened;
            if self.lagging == 0 && self.opened == self.head() {
                self.clear();
                return before;
            }
        }
        if self.round.left == 0 {
            self.complete_round();
        }
        let mut keep = self.delivered;
        if self.lagging > 0 {
            // Before the first whole round since somebody lags, nothing is known: keep all.
            let round_min = self.round.lagging_min.unwrap_or(Seq(u64::MAX));
            keep = keep.min(self.lagging_min.unwrap_or(self.entries.tail())).min(round_min);
        }
        self.entries.trim(keep);
        self.entries.set_behind(self.delivered);
        before - self.kept_bytes()
    }

    // ---- output

    /// The messages from `from` to the head, oldest first.
    ///
    /// # Panics
    /// If `from` is outside the log.
    pub fn pending(&self, from: Seq) -> Pending<'_> {
        self.entries.pending(from)
    }

    /// Every message that is kept, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.entries.pending(self.entries.tail()).map(|(_, message)| message)
    }

    // ---- getters

    /// The position that the next message gets.
    #[must_use]
    pub fn head(&self) -> Seq {
        self.entries.head()
    }

    /// Whether subscribers are sent only the newest message of each key of what waits for them.
    #[must_use]
    pub fn conflates(&self) -> bool {
        self.entries.are_latest()
    }

    /// Whether something came since the round was last opened.
    #[must_use]
    pub fn has_unopened(&self) -> bool {
        self.opened < self.head()
    }

    /// Whether the round was opened for something that a subscriber at `cursor` was not sent.
    #[must_use]
    pub fn is_opened(&self, cursor: Seq) -> bool {
        cursor < self.opened
    }

    /// Whether a subscriber has not had its turn since the round was last opened.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.left > 0
    }

    /// Every subscription in force, in no order.
    #[must_use]
    pub fn subscribers(&self) -> &[Subscriber] {
        &self.subscribers
    }

    /// Number of subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether nobody subscribes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// Bytes of messages kept.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.entries.bytes()
    }

    // ---- helpers

    fn complete_round(&mut self) {
        self.delivered = self.delivered.max(self.round.head);
        self.lagging_min = self.round.lagging_min;
        self.begin_round();
    }

    fn begin_round(&mut self) {
        self.round = Round { left: self.subscribers.len(), head: self.opened, lagging_min: None };
    }

    /// Forgets every message; all cursors are at the head.
    fn clear(&mut self) {
        self.entries.clear();
        self.recharge();
        (self.opened, self.delivered) = (self.head(), self.head());
        self.lagging_min = None;
        self.gathers.clear();
    }

    /// Brings the charge up to date after a list may have grown or shrunk.
    fn recharge(&mut self) {
        let subscribers = budget::allocated(self.subscribers.capacity() * size_of::<Subscriber>());
        let groups = budget::allocated(self.groups.capacity() * size_of::<LogSlot>());
        self.charge.resize(LOG_BYTES + subscribers + groups + self.entries.list_bytes());
    }
}

/// What a log takes without messages and subscribers, its places in the shard's tables included.
const LOG_BYTES: u64 = size_of::<Log>().next_multiple_of(64) as u64 + 128;

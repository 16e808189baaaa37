//! How a subscription begins: with what it asked for of its topic's history, or with nothing but what is published from now
//! on.
//!
//! A subscription enters its log first, held: nothing is sent from it, and what comes waits behind its cursor. Then the topic's
//! sequencer is asked. Its answer comes through the same queue as its messages, and waits until those are in their logs. So
//! everything sequenced before the answer is in the answer or behind the cursor, and what is behind the cursor is left out of
//! the answer: no gap, nothing twice, whatever is published, evicted or expired meanwhile. With the answer the command is
//! confirmed, what the subscription gets of the past goes into the connection's [`Backlog`](crate::shard::backlog), and the
//! subscription is released.
//!
//! Nobody is asked, and the subscription is released at once, where there is nothing to be given: that is what most
//! subscriptions cost. A topic that has state says so in the registry, and says so before anybody is delivered a message
//! that is part of it.
//!
//! A topic that is purged meanwhile answers for the epoch that began then. The subscription begins in the one before, which it
//! entered its log in: whatever the new epoch has comes live, behind the marker of its beginning.
//!
//! For a filter every sequencer is asked; each walks its topics with state and answers in parts. The first part is awaited,
//! the others are asked for one at a time, when the connection has been sent the one before.
//!
//! Cost: a message to the sequencer and back, and a reference per message that is replayed.

mod answer;
mod state_frames;

use std::collections::BTreeSet;

use protocol::head::RawStart;
use protocol::v1::Position;
use ring::{ConnId, Driver, Nanos};
use rustc_hash::FxHashMap;

use crate::ids::{Epoch, LogSlot, Seq, ShardId, TopicId};
use crate::sequencer::history::recall::{Place, Recall};
use crate::sequencer::walk::WalkPlace;
use crate::session::subscription::{Begun, Released};
use crate::shard::Shard;
use crate::shard::asked::{Asked, RecallRequest};
use crate::shard::backlog::{Backlog, Item};
use crate::shard::fanout::log::Subscriber;
use crate::shard::recall::state_frames::StateFrames;
use crate::shard::shared::Request;
use crate::shard::transport::connection::Flags;
use crate::topics::registry::TopicRef;
use crate::topics::rules::HistoryKind;

/// What a subscription asked for. One that asked for nothing special has no entry among the [`Recalls`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) struct Wants {
    pub(in crate::shard) start: Start,
    pub(in crate::shard) state: bool,
    /// The first frame says where the subscription begins.
    pub(in crate::shard) position: bool,
    /// That the state is over is said of a single topic, too: its messages do not say that they are state.
    pub(in crate::shard) marks_end: bool,
}

/// Where a subscription begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Start {
    /// With the next message.
    Now,
    /// With the newest messages, so many.
    Last(u32),
    /// Behind this place.
    Since(Place),
}

impl Start {
    fn since(position: Position) -> Self {
        Self::Since(position.into())
    }
}

impl Wants {
    /// What a subscription of `/ws` that asks for nothing wants.
    pub(in crate::shard) const NEWCOMER: Self =
        Self { start: Start::Now, state: true, position: false, marks_end: false };

    /// What a command wants for one of its topics.
    pub(in crate::shard) fn new(start: protocol::v1::Start<'_>, filter: &str, state: bool) -> Self {
        let start = match start {
            protocol::v1::Start::Now => Start::Now,
            protocol::v1::Start::Last(count) => Start::Last(count),
            protocol::v1::Start::Since(positions) => positions.of(filter).map_or(Start::Now, Start::since),
        };
        Self { start, state, ..Self::NEWCOMER }
    }

    /// The same for who may not read what topics remember: a position is answered as one of an epoch that is over.
    pub(in crate::shard) fn without_history(self) -> Self {
        match self.start {
            Start::Since(place) => Self { start: Start::Since(Place { epoch: Epoch(0), ..place }), ..self },
            Start::Now | Start::Last(_) => Self { start: Start::Now, ..self },
        }
    }

    /// What a raw subscription wants.
    pub(in crate::shard) fn raw(asked: RawStart) -> Self {
        let last = || asked.last.map_or(Start::Now, Start::Last);
        let start = asked.since.map_or_else(last, Start::since);
        Self { start, state: asked.state, position: asked.position, marks_end: false }
    }

    /// What a subscription of a stream of events wants.
    pub(in crate::shard) fn events(asked: RawStart) -> Self {
        Self { marks_end: true, ..Self::raw(asked) }
    }

    /// Whether `state-end` is due. The keys of a recovered subscription are state, too, whether it wants some or not.
    fn expects_end(self, topic: &TopicRef, recovered: Option<bool>) -> bool {
        let is_keyed = !topic.wildcard && topic.history == HistoryKind::Keyed;
        let is_marked = topic.wildcard || is_keyed || self.marks_end;
        (self.state && is_marked) || (is_keyed && recovered == Some(true))
    }
}

/// The subscriptions of a shard that asked for something, or wait for an answer.
#[derive(Default, Debug)]
pub(in crate::shard) struct Recalls {
    open: FxHashMap<Subscriber, Pending>,
    /// Bytes of `items` of each connection that has some.
    held: FxHashMap<ConnId, u64>,
    /// Of each connection the subscriptions whose walks are not over, ascending.
    walking: FxHashMap<ConnId, BTreeSet<u32>>,
    next_number: u64,
    state_frames: StateFrames,
}

/// One of them.
#[derive(Debug)]
struct Pending {
    wants: Wants,
    /// By which its answers know it: its key may be another subscription's by then.
    number: u64,
    /// Answers that are still to come before it begins.
    answers_left: u16,
    begun: Begun,
    /// What it is sent first.
    items: Vec<Item>,
    /// What those keep.
    bytes: u64,
    /// Where its filter's walk goes on, at each sequencer that has more.
    walks: Vec<(ShardId, WalkPlace)>,
    /// Of a filter: up to where its log was looked through, and when the first message of each topic seen there was sequenced.
    seen_to: Option<Seq>,
    seen: FxHashMap<TopicId, Nanos>,
}

impl Recalls {
    /// Notes what a subscription asks for, before it enters its log.
    pub(in crate::shard) fn expect(&mut self, subscriber: Subscriber, wants: Wants) {
        let pending = self.new_pending(wants);
        self.open.insert(subscriber, pending);
    }

    /// A subscription ends.
    pub(in crate::shard) fn forget(&mut self, subscriber: Subscriber) {
        if self.open.is_empty() {
            return;
        }
        self.take_held(subscriber);
        self.open.remove(&subscriber);
        if let Some(walking) = self.walking.get_mut(&subscriber.conn) {
            walking.remove(&subscriber.sub);
            if walking.is_empty() {
                self.walking.remove(&subscriber.conn);
            }
        }
    }

    /// Forgets what was made for newcomers of a while ago; called once a turn.
    pub(in crate::shard) fn expire(&mut self, now: Nanos) {
        self.state_frames.expire(now);
    }

    /// Adds to what a subscription is sent first.
    fn hold(&mut self, subscriber: Subscriber, items: impl IntoIterator<Item = Item>) {
        let pending = self.open.get_mut(&subscriber).expect("a subscription that asked");
        let held = pending.items.len();
        pending.items.extend(items);
        let bytes: u64 = pending.items[held..].iter().map(Item::bytes).sum();
        pending.bytes += bytes;
        if bytes > 0 {
            *self.held.entry(subscriber.conn).or_default() += bytes;
        }
    }

    /// What a subscription is sent first: it waits here no longer.
    fn take_held(&mut self, subscriber: Subscriber) -> Vec<Item> {
        let Some(pending) = self.open.get_mut(&subscriber) else { return Vec::new() };
        let bytes = std::mem::take(&mut pending.bytes);
        if let Some(held) = self.held.get_mut(&subscriber.conn) {
            *held -= bytes;
            if *held == 0 {
                self.held.remove(&subscriber.conn);
            }
        }
        std::mem::take(&mut pending.items)
    }

    /// Bytes that wait here for the subscriptions of a connection.
    fn held_bytes(&self, conn: ConnId) -> u64 {
        self.held.get(&conn).copied().unwrap_or(0)
    }

    fn new_pending(&mut self, wants: Wants) -> Pending {
        self.next_number += 1;
        Pending {
            wants,
            number: self.next_number,
            answers_left: 0,
            begun: Begun::default(),
            items: Vec::new(),
            bytes: 0,
            walks: Vec::new(),
            seen_to: None,
            seen: FxHashMap::default(),
        }
    }
}

#[cfg(test)]
impl Recalls {
    /// Whether nothing waits, and nothing is counted.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.held.is_empty() && self.walking.is_empty()
    }
}

impl<D: Driver> Shard<D> {
    /// A subscription is in its log, held: asks for what it wants of the past, or lets it begin.
    pub(in crate::shard) fn recall(&mut self, slot: LogSlot, subscriber: Subscriber) {
        let log = &self.fanout.logs[slot];
        let topic = log.topic.clone();
        let position = (!topic.wildcard).then_some(Position { epoch: log.epoch.0, offset: log.next_offset.0 });
        let session = &self.conns.get(subscriber.conn).expect("a subscriber is an open connection").session;
        let expected = self.recalls.open.get(&subscriber).map(|pending| pending.wants);
        let wants = expected.unwrap_or(Wants { state: session.wants_state(), ..Wants::NEWCOMER });
        let begun = Begun {
            position,
            history: Some(topic.history),
            // A filter spans many topics: nothing can be said about what it missed.
            recovered: (topic.wildcard && matches!(wants.start, Start::Since(_))).then_some(false),
            available: None,
            slow_consumer: log.policy.slow_consumer,
            throttle: log.policy.throttle,
            shows_state: false,
        };
        let has_state = if topic.wildcard { self.shared.registry.has_stateful() } else { topic.is_stateful() };
        let asks = match wants.start {
            Start::Now => wants.state && has_state,
            _ if topic.wildcard => wants.state && has_state,
            Start::Last(_) => topic.history == HistoryKind::Window || (wants.state && has_state),
            Start::Since(_) => true,
        };
        if !asks && !wants.expects_end(&topic, begun.recovered) && !wants.position {
            self.recalls.forget(subscriber);
            self.begin(subscriber, begun);
            return;
        }
        if expected.is_none() {
            self.recalls.expect(subscriber, wants);
        }
        self.recalls.open.get_mut(&subscriber).expect("noted above").begun = begun;
        if asks {
            self.ask(&topic, subscriber, wants);
        } else {
            self.finish_recall(subscriber);
        }
    }

    /// Asks the sequencers of a topic or filter.
    fn ask(&mut self, topic: &TopicRef, subscriber: Subscriber, wants: Wants) {
        let sequencers = self.sequencers_of(topic);
        let pending = self.recalls.open.get_mut(&subscriber).expect("a subscription that asks");
        pending.answers_left = sequencers.len() as u16;
        let number = pending.number;
        let asked = match (topic.wildcard, wants.start) {
            (true, _) => Asked::Walk(WalkPlace::default()),
            (false, Start::Now) => Asked::Topic(Recall::State),
            (false, Start::Last(count)) => Asked::Topic(Recall::Last { count, state: wants.state }),
            (false, Start::Since(place)) => Asked::Topic(Recall::Since { place, state: wants.state }),
        };
        for sequencer in sequencers {
            self.ask_one(sequencer, topic, subscriber, number, asked.clone());
        }
    }

    fn ask_one(&mut self, sequencer: ShardId, topic: &TopicRef, subscriber: Subscriber, number: u64, asked: Asked) {
        let request = RecallRequest {
            topic: topic.clone(),
            shard: self.id,
            conn: subscriber.conn,
            sub: subscriber.sub,
            number,
            asked,
        };
        self.mailbox.request(sequencer, Request::Recall(Box::new(request)));
    }

    /// What a subscription begins with is known: confirms its command, if that waits for no other, and releases its
    /// subscriptions.
    fn begin(&mut self, subscriber: Subscriber, begun: Begun) {
        let id = subscriber.conn;
        let mut out = self.begin_answer();
        let conn = self.conns.get(id).expect("a subscriber is an open connection");
        let released = conn.session.begin(subscriber.sub, begun, &mut out);
        let stats = &self.shared.stats[usize::from(self.id)];
        match begun.recovered {
            Some(true) => stats.recovered.add(1),
            Some(false) => stats.unrecovered.add(1),
            None => {}
        }
        let is_raw_handshake = released != Released::None && conn.flags.take(Flags::HELD);
        self.answer(id, out);
        for &key in released.keys() {
            self.release(Subscriber { conn: id, sub: key });
        }
        if is_raw_handshake {
            self.make_ready(id);
        }
    }

    /// A subscription may be sent to.
    fn release(&mut self, subscriber: Subscriber) {
        let id = subscriber.conn;
        for item in self.recalls.take_held(subscriber) {
            self.push_backlog(id, item);
        }
        if self.recalls.open.get(&subscriber).is_some_and(|pending| pending.walks.is_empty()) {
            self.recalls.forget(subscriber);
        }
        let conn = self.conns.get(id).expect("a subscriber is an open connection");
        let Some(subscription) = conn.session.subscription(subscriber.sub) else { return };
        if subscription.cursor < self.fanout.logs[subscription.log].head() {
            conn.session.set_pending(subscriber.sub);
            self.make_ready(id);
        } else if conn.session.is_unsubscribing() {
            self.make_ready(id);
        }
        self.go_on_with_walks(id);
    }

    /// Asks for the next part of each walk of a connection that has been sent what came before.
    pub(in crate::shard) fn go_on_with_walks(&mut self, id: ConnId) {
        let Some(walking) = self.recalls.walking.get(&id) else { return };
        let conn = self.conns.get(id).expect("an open connection");
        if conn.flags.has(Flags::BACKLOG) {
            return;
        }
        for key in walking.iter().copied().collect::<Vec<_>>() {
            let subscriber = Subscriber { conn: id, sub: key };
            let Some(pending) = self.recalls.open.get_mut(&subscriber) else { continue };
            let is_held = self.conns.get(id).and_then(|conn| conn.session.subscription(key)).is_none_or(|sub| sub.held);
            let pending_walk = (pending.answers_left == 0 && !is_held).then(|| pending.walks.pop()).flatten();
            let Some((sequencer, place)) = pending_walk else { continue };
            pending.answers_left = 1;
            let number = pending.number;
            let log = self.conns.get(id).and_then(|conn| conn.session.subscription(key)).expect("one of its keys").log;
            let topic = self.fanout.logs[log].topic.clone();
            self.ask_one(sequencer, &topic, subscriber, number, Asked::Walk(place));
        }
    }

    /// Adds to what a connection is sent before anything from logs.
    pub(in crate::shard) fn push_backlog(&mut self, id: ConnId, item: Item) {
        let conn = self.conns.get(id).expect("an open connection");
        conn.flags.set(Flags::BACKLOG);
        let backlog = || Box::new(Backlog::new(&self.account));
        conn.extra(&self.account).backlog.get_or_insert_with(backlog).push(item);
        self.make_ready(id);
    }
}

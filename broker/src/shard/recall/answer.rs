//! A sequencer's answer becomes what the subscription is sent first.
//!
//! What the subscription's log holds behind its cursor is left out: it is delivered from there.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol::frame::{Opcode, put_frame};
use protocol::v1::{GapReason, Position};
use ring::Driver;

use crate::ids::{LogSlot, Offset, ShardId};
use crate::message::Message;
use crate::message::encoding::notice::Notice;
use crate::sequencer::history::recall::Recalled;
use crate::sequencer::walk::WalkPart;
use crate::shard::Shard;
use crate::shard::asked::{Found, RecallAnswer};
use crate::shard::backlog::Item;
use crate::shard::fanout::log::Subscriber;
use crate::shard::recall::Start;
use crate::topics::registry::TopicRef;
use crate::topics::rules::HistoryKind;

/// State of so many messages is made into frames for all newcomers together.
const SHARED_STATE_LEAST: usize = 32;

impl<D: Driver> Shard<D> {
    /// A sequencer answered.
    pub(in crate::shard) fn on_recalled(&mut self, answer: RecallAnswer) {
        let subscriber = Subscriber { conn: answer.conn, sub: answer.sub };
        let open = self.recalls.open.get(&subscriber).filter(|pending| pending.number == answer.number);
        if open.is_none() {
            return;
        }
        let log = self.log_of(subscriber);
        let topic = self.fanout.logs[log].topic.id;
        // It tells of messages that may still wait for their logs.
        let Some(answer) = self.fanout.appends.keep_behind(topic, answer) else { return };
        let pending = self.recalls.open.get_mut(&subscriber).expect("it was just there");
        pending.answers_left -= 1;
        match answer.found {
            Found::Topic(epoch, recalled) => match pending.begun.position {
                // Purged since it entered its log: what the new epoch has comes live.
                Some(entered) if entered.epoch != epoch.0 => {
                    pending.begun.recovered = recovered_before(pending.wants.start, entered);
                }
                _ => self.take_topic(subscriber, recalled),
            },
            Found::Walk(sequencer, part) => self.take_walk(subscriber, sequencer, part),
        }
        let pending = &self.recalls.open[&subscriber];
        if pending.answers_left == 0 {
            self.finish_recall(subscriber);
        }
    }

    /// Nothing more is to come before a subscription begins, or goes on with its walk.
    pub(super) fn finish_recall(&mut self, subscriber: Subscriber) {
        let (log, held) = {
            let conn = self.conns.get(subscriber.conn).expect("a subscriber is an open connection");
            let subscription = conn.session.subscription(subscriber.sub).expect("a subscriber has a subscription");
            (subscription.log, subscription.held)
        };
        let topic = self.fanout.logs[log].topic.clone();
        let pending = self.recalls.open.get_mut(&subscriber).expect("a subscription that asked");
        let (begun, ends, wants) = (pending.begun, pending.walks.is_empty(), pending.wants);
        // What a single topic has, its end included, is there already; unless the topic was purged meanwhile.
        let is_unsaid = topic.wildcard || pending.items.is_empty();
        if ends && is_unsaid && wants.expects_end(&topic, begun.recovered) {
            self.push_state_end(subscriber, &topic);
        }
        let pending = self.recalls.open.get_mut(&subscriber).expect("a subscription that asked");
        if held {
            if pending.wants.position
                && let Some(Position { epoch, offset }) = begun.position
            {
                let text = format!("{{\"epoch\":\"{epoch:016x}\",\"offset\":{}}}", offset - 1);
                pending.items.insert(0, Item::Frame(text_frame(text.as_bytes())));
            }
            self.begin(subscriber, begun);
            return;
        }
        let items = self.recalls.take_held(subscriber);
        if ends {
            self.recalls.forget(subscriber);
        }
        for item in items {
            self.push_backlog(subscriber.conn, item);
        }
        self.go_on_with_walks(subscriber.conn);
    }

    /// What a topic has for a subscription.
    fn take_topic(&mut self, subscriber: Subscriber, recalled: Recalled) {
        let pending = &self.recalls.open[&subscriber];
        let (start, entered) = (pending.wants.start, pending.begun.position.expect("a topic has a position"));
        let recalled = match recalled.recovered {
            // What the topic has forgotten meanwhile is in the log.
            Some(false) if self.has_all_since(subscriber, start, entered) => {
                Recalled { recovered: Some(true), ..Recalled::default() }
            }
            _ => recalled,
        };
        // The first message that its log delivers to it.
        let live = Offset(entered.offset);
        let room = self.backlog_room(subscriber);
        let Recalled { recovered, available, state, replay, .. } = within(room, live, recalled);
        let snapshot = state.iter().flat_map(|state| state.iter()).find(|message| message.is_snapshot());
        let up_to = snapshot.map(|snapshot| snapshot.offset);
        // What waits in the log may be known: another shard was faster with it when the client was connected there.
        let known = match start {
            Start::Since(place) if recovered == Some(true) => Some(place.offset),
            _ => None,
        };
        let (topic, first) = self.skip_known(subscriber, live, up_to.max(known));
        let begins = match start {
            Start::Since(place) if recovered == Some(true) && up_to.is_none() => place.offset + 1,
            _ => replay.first().map_or(first, |message| message.offset),
        };
        let gap = up_to.filter(|up_to| *up_to + 1 < begins).map(|up_to| (up_to.0 + 1, begins.0 - 1));
        let mut items = Vec::new();
        if let Some(state) = state {
            items.extend(self.state_item(subscriber, &state, first));
        }
        let shows_state = !items.is_empty();
        let wants = self.recalls.open[&subscriber].wants;
        if wants.expects_end(&topic, recovered) {
            let is_keyed = topic.history == HistoryKind::Keyed;
            let end = if is_keyed { first.0 - 1 } else { up_to.map_or(begins.0 - 1, |up_to| up_to.0) };
            let place = Some(Position { offset: end, ..entered });
            items.extend(self.notice(subscriber, &Notice::StateEnd { topic: &topic.name, place }));
        }
        if let Some((from, to)) = gap {
            let gap = Notice::Gap { topic: &topic.name, from, to, reason: GapReason::Evicted };
            items.extend(self.notice(subscriber, &gap));
        }
        if !replay.is_empty() {
            let encoding = self.conns.get(subscriber.conn).expect("an open connection").session.encoding();
            items.push(Item::Messages(replay.into(), encoding));
        }
        self.recalls.hold(subscriber, items);
        let pending = self.recalls.open.get_mut(&subscriber).expect("a subscription that asked");
        (pending.begun.recovered, pending.begun.shows_state) = (recovered, shows_state);
        pending.begun.available = available.filter(|_| recovered == Some(false));
        if let Some(position) = &mut pending.begun.position {
            position.offset = begins.0;
        }
    }

    /// Whether everything behind the place at which a subscription wants to begin comes from its log, which it entered at
    /// `entered`.
    fn has_all_since(&mut self, subscriber: Subscriber, start: Start, entered: Position) -> bool {
        let Start::Since(place) = start else { return false };
        let log = self.log_of(subscriber);
        let known = Offset(entered.offset)..=self.fanout.logs[log].next_offset;
        place.epoch.0 == entered.epoch && known.contains(&(place.offset + 1))
    }

    /// The first message that a subscription's log delivers to it: `first`, or what comes behind `up_to`.
    fn skip_known(&mut self, subscriber: Subscriber, first: Offset, up_to: Option<Offset>) -> (TopicRef, Offset) {
        let conn = self.conns.get(subscriber.conn).expect("a subscriber is an open connection");
        let subscription = conn.session.subscription_mut(subscriber.sub).expect("a subscriber has a subscription");
        let log = &mut self.fanout.logs[subscription.log];
        let topic = log.topic.clone();
        let Some(behind) = up_to.map(|up_to| up_to + 1).filter(|behind| *behind > first) else {
            return (topic, first);
        };
        subscription.cursor += behind - first;
        if subscription.cursor == log.head() && std::mem::take(&mut subscription.lagging) && log.caught_up() {
            let slot = subscription.log;
            self.fanout.delivered(slot);
        }
        (topic, behind)
    }

    /// A part of what a filter's topics have.
    fn take_walk(&mut self, subscriber: Subscriber, sequencer: ShardId, part: WalkPart) {
        let conn = self.conns.get(subscriber.conn).expect("a subscriber is an open connection");
        let subscription = conn.session.subscription(subscriber.sub).expect("a subscriber has a subscription");
        let encoding = conn.session.encoding().of_state();
        let log = &self.fanout.logs[subscription.log];
        let pending = self.recalls.open.get_mut(&subscriber).expect("a subscription that asked");
        if subscription.held {
            // Before the walk began, some of what it found came live as well.
            let from = pending.seen_to.unwrap_or(subscription.cursor);
            let to_come = self.fanout.first_to_come(subscription.log);
            for message in log.pending(from).map(|(_, message)| message).chain(to_come) {
                pending.seen.entry(message.topic_id).or_insert(message.sequenced_at);
            }
            pending.seen_to = Some(log.head());
        }
        let WalkPart { mut state, next } = part;
        state.retain(|message| pending.seen.get(&message.topic_id).is_none_or(|seen| message.sequenced_at < *seen));
        pending.walks.extend(next.map(|place| (sequencer, place)));
        if !pending.walks.is_empty() {
            self.recalls.walking.entry(subscriber.conn).or_default().insert(subscriber.sub);
        }
        if !state.is_empty() {
            self.recalls.hold(subscriber, [Item::Messages(state.into(), encoding)]);
        }
    }

    fn log_of(&mut self, subscriber: Subscriber) -> LogSlot {
        let conn = self.conns.get(subscriber.conn).expect("a subscriber is an open connection");
        conn.session.subscription(subscriber.sub).expect("a subscriber has a subscription").log
    }

    fn push_state_end(&mut self, subscriber: Subscriber, topic: &TopicRef) {
        let position = self.recalls.open[&subscriber].begun.position.filter(|_| !topic.wildcard);
        let place = position.map(|position| Position { offset: position.offset - 1, ..position });
        let end = self.notice(subscriber, &Notice::StateEnd { topic: &topic.name, place });
        self.recalls.hold(subscriber, end);
    }

    /// State before `first`, to be sent.
    fn state_item(&mut self, subscriber: Subscriber, state: &Arc<[Arc<Message>]>, first: Offset) -> Option<Item> {
        let encoding = self.conns.get(subscriber.conn).expect("an open connection").session.encoding().of_state();
        let before = state.partition_point(|message| message.offset < first);
        if before == state.len() && before >= SHARED_STATE_LEAST {
            let frames = self.recalls.state_frames.of(state, encoding, &self.account, self.now);
            return Some(Item::Frames(frames, 0));
        }
        (before > 0).then(|| Item::Messages(state[..before].iter().cloned().collect(), encoding))
    }

    /// How many bytes of messages a connection may have to be replayed beyond what it has.
    fn backlog_room(&mut self, subscriber: Subscriber) -> u64 {
        let conn = self.conns.get(subscriber.conn).expect("an open connection");
        let waits = conn.extra.as_ref().and_then(|extra| extra.backlog.as_ref()).map_or(0, |backlog| backlog.bytes());
        self.limits.recovery_bytes_max.saturating_sub(waits + self.recalls.held_bytes(subscriber.conn))
    }

    /// Something about a topic, for sessions that are sent such.
    fn notice(&mut self, subscriber: Subscriber, notice: &Notice<'_>) -> Option<Item> {
        let conn = self.conns.get(subscriber.conn).expect("an open connection");
        if !conn.session.takes_notices() {
            return None;
        }
        let mut frame = BytesMut::new();
        conn.session.encoding().put_notice(notice, &mut frame);
        Some(Item::Frame(frame.freeze()))
    }
}

/// What of a topic's answer is sent to a subscription that gets messages from `live` on from its log, with so many bytes of room
/// for others.
fn within(room: u64, live: Offset, recalled: Recalled) -> Recalled {
    let Recalled { mut recovered, available, mut state, mut replay, instead } = recalled;
    replay.truncate(replay.partition_point(|message| message.offset < live));
    let mut bytes: u64 = replay.iter().map(|message| message.weight()).sum();
    if bytes > room && recovered == Some(true) {
        // With what its other topics replay it is more than one connection may: it begins as a newcomer.
        recovered = Some(false);
        state = state.or_else(|| instead.clone());
    }
    let has_snapshot = state.iter().flat_map(|state| state.iter()).any(|message| message.is_snapshot());
    if bytes > room && recovered == Some(false) && !has_snapshot {
        replay.clear();
    }
    let mut skipped = 0;
    while bytes > room && skipped < replay.len() {
        bytes -= replay[skipped].weight();
        skipped += 1;
    }
    replay.drain(..skipped);
    if skipped > 0 && recovered.is_none() {
        // The retained message was part of what has no room.
        let replayed = replay.first().map_or(live, |message| message.offset);
        state = state.or(instead.filter(|retained| retained.iter().all(|message| message.offset < replayed)));
    }
    Recalled { recovered, available, state, replay, instead: None }
}

/// For a subscription that entered its log at `entered`, in an epoch of which nothing is remembered any more: whether it has
/// everything before.
fn recovered_before(start: Start, entered: Position) -> Option<bool> {
    let Start::Since(place) = start else { return None };
    Some((place.epoch.0, place.offset.0 + 1) == (entered.epoch, entered.offset))
}

fn text_frame(text: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    put_frame(&mut frame, Opcode::Text, text);
    frame.freeze()
}

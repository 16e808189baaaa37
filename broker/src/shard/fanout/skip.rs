//! Subscribers of topics with `slow-consumer = "skip"` that were too far behind: they go on with newer messages, and are sent a
//! notice of which they were not sent.
//!
//! What a send in flight has not got out yet belongs to the old position: it is whole frames, and goes out before anything
//! else. The gap is said at the head of the send that goes on from the new position. Until then, what is skipped again is part
//! of the same gap. Sessions without an envelope get no notice.
//!
//! That a topic began anew is said as well, between the gaps of the epochs before and after; no gap spans two.
//!
//! Bounds: one gap per subscription to a topic and epoch; of a filter one per topic, and with more than [`NOTICES_MAX`] the
//! connection is closed as too slow. Charged to the shard.
//!
//! Cost: nothing for subscribers that are near; of a skip to a filter, linear in the messages skipped.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use protocol::v1::GapReason;
use rustc_hash::FxHashMap;

use crate::capacity::budget::{Account, Charge, Held};
use crate::capacity::shared_bytes::shared;
use crate::ids::{LogSlot, Offset, Seq, TopicId};
use crate::message::encoding::notice;
use crate::message::{Encoding, Message};
use crate::shard::fanout::FanOut;
use crate::shard::fanout::log::Subscriber;
use crate::shard::fanout::parts::Parts;

/// Most notices that one subscription may have at a time.
const NOTICES_MAX: usize = 1024;

/// What subscribers have not been notified of.
#[derive(Default, Debug)]
pub(in crate::shard) struct Gaps(FxHashMap<Subscriber, Skipped>);

/// What one subscription was not sent: of each topic, in the order of their ids, what happened one after the other.
#[derive(Debug)]
struct Skipped {
    topics: BTreeMap<TopicId, Vec<Event>>,
    /// Events of all topics.
    events: usize,
    charge: Charge,
}

/// What happened to a topic.
#[derive(Debug)]
enum Event {
    /// Messages from an offset to another, both included, were skipped. They are of one epoch.
    Gap { topic: Arc<str>, from: Offset, to: Offset },
    /// An epoch began: this is its marker.
    Reset(Arc<Message>),
}

impl Skipped {
    fn add(&mut self, message: &Arc<Message>) {
        let events = self.topics.entry(message.topic_id).or_default();
        if message.begins().is_some() {
            events.push(Event::Reset(Arc::clone(message)));
        } else if let Some(Event::Gap { to, .. }) = events.last_mut()
            && *to < message.offset
        {
            *to = message.offset;
            return;
        } else {
            // The topic's first one, or its offsets began anew.
            let (topic, offset) = (Arc::clone(&message.topic), message.offset);
            events.push(Event::Gap { topic, from: offset, to: offset });
        }
        self.events += 1;
    }
}

/// Whether a subscriber is notified of its gaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    /// It has none that concern it.
    None,
    /// In this send.
    Sent,
    /// This send has no room.
    Deferred,
}

/// What an event takes, about.
const EVENT_BYTES: u64 = 2 * size_of::<(TopicId, Vec<Event>, Event)>() as u64;

impl Gaps {
    /// Whether a subscriber has gaps to be notified of.
    pub(super) fn has(&self, subscriber: Subscriber) -> bool {
        !self.0.is_empty() && self.0.contains_key(&subscriber)
    }

    /// Adds the frames of a subscriber's gaps to a send, of those topics that it `sends`.
    pub(super) fn tell(
        &mut self,
        subscriber: Subscriber,
        (parts, encoding): (&mut Parts, Encoding),
        account: &Arc<Account>,
        mut sends: impl FnMut(TopicId, &str) -> bool,
    ) -> Notice {
        if !self.has(subscriber) {
            return Notice::None;
        }
        let mut frames = BytesMut::new();
        for (id, events) in &self.0[&subscriber].topics {
            for event in events {
                match event {
                    Event::Gap { topic, from, to } if sends(*id, topic) => {
                        let reason = GapReason::SlowConsumer;
                        let gap = notice::Notice::Gap { topic, from: from.0, to: to.0, reason };
                        encoding.put_notice(&gap, &mut frames);
                    }
                    Event::Reset(marker) if sends(*id, &marker.topic) => {
                        frames.extend_from_slice(&marker.frame(encoding, account, false));
                    }
                    _ => {}
                }
            }
        }
        let capacity = frames.capacity();
        if !frames.is_empty() && !parts.push(shared(frames, capacity, 0, account, Held::Messages)) {
            return Notice::Deferred;
        }
        self.0.remove(&subscriber);
        if capacity == 0 { Notice::None } else { Notice::Sent }
    }
}

impl FanOut {
    /// A subscriber goes on at `to` instead of `from`. `takes_notices`: it can be notified of what it is not
    /// sent.
    pub(super) fn skip(&mut self, subscriber: Subscriber, slot: LogSlot, from: Seq, to: Seq, takes_notices: bool) {
        self.stats().skips.add(1);
        if !takes_notices {
            return;
        }
        let log = &self.logs[slot];
        let new = || Skipped {
            topics: BTreeMap::new(),
            events: 0,
            charge: Charge::new(&self.account, Held::Subscriptions, 0),
        };
        let skipped = self.gaps.0.entry(subscriber).or_insert_with(new);
        let mut messages = log.pending(from).take_while(|(seq, _)| *seq < to);
        let first = messages.next().map(|(_, message)| message);
        let last = log.pending(Seq(to.0 - 1)).next().map(|(_, message)| message);
        match (first, last) {
            // Dense, and of one epoch: the first and the last one say it all.
            (Some(first), Some(last)) if !log.topic.wildcard && is_run(first, last, to - from) => {
                skipped.add(first);
                skipped.add(last);
            }
            _ => first.into_iter().chain(messages.map(|(_, message)| message)).for_each(|message| skipped.add(message)),
        }
        skipped.charge.resize(skipped.events as u64 * EVENT_BYTES);
        if skipped.events > NOTICES_MAX {
            let bytes = self.logs[slot].lag_bytes(from);
            self.close_later(subscriber.conn, slot, bytes);
        }
    }

    /// A subscription ends.
    pub(in crate::shard) fn forget_gaps(&mut self, subscriber: Subscriber) {
        if !self.gaps.0.is_empty() {
            self.gaps.0.remove(&subscriber);
        }
    }
}

/// Whether `count` messages of one topic, from `first` to `last`, are of one epoch.
fn is_run(first: &Message, last: &Message, count: u64) -> bool {
    first.begins().is_none() && last.offset > first.offset && last.offset - first.offset + 1 == count
}

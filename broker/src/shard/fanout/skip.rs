//! Subscribers of topics with `slow-consumer = "skip"` that were too far behind: they go on with newer messages, and are sent a
//! notice of which they were not sent.
//!
//! What a send in flight has not got out yet belongs to the old position: it is whole frames, and goes out before anything
//! else. The gap is said at the head of the send that goes on from the new position. Until then, what is skipped again is part
//! of the same gap. Sessions without an envelope get no notice.
//!
//! Bounds: one gap per subscription to a topic; of a filter one per topic, and with more than [`TOPICS_MAX`] the connection is
//! closed as too slow. Charged to the shard.
//!
//! Cost: nothing for subscribers that are near; of a skip to a filter, linear in the messages skipped.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use protocol::frame::{Opcode, put_frame};
use protocol::v1::{GapReason, write_gap};
use rustc_hash::FxHashMap;

use crate::capacity::budget::{self, Account, Charge, Held};
use crate::ids::{LogSlot, Offset, Seq, TopicId};
use crate::shard::fanout::FanOut;
use crate::shard::fanout::log::Subscriber;
use crate::shard::fanout::parts::Parts;

/// Most topics of which one subscription may have a gap at a time.
const TOPICS_MAX: usize = 1024;

/// Gaps that subscribers have not been notified of.
#[derive(Default, Debug)]
pub(in crate::shard) struct Gaps(FxHashMap<Subscriber, Skipped>);

/// What one subscription was not sent, in the order of the topics' ids.
#[derive(Debug)]
struct Skipped {
    topics: BTreeMap<TopicId, Gap>,
    charge: Charge,
}

/// Messages of one topic, from an offset to another, both included.
#[derive(Debug)]
struct Gap {
    topic: Arc<str>,
    from: Offset,
    to: Offset,
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

/// What a gap takes, about.
const GAP_BYTES: u64 = 2 * size_of::<(TopicId, Gap)>() as u64;

impl Gaps {
    /// Whether a subscriber has gaps to be notified of.
    pub(super) fn has(&self, subscriber: Subscriber) -> bool {
        !self.0.is_empty() && self.0.contains_key(&subscriber)
    }

    /// Adds the frames of a subscriber's gaps to a send, of those topics that it `sends`.
    pub(super) fn tell(
        &mut self,
        subscriber: Subscriber,
        parts: &mut Parts,
        account: &Arc<Account>,
        mut sends: impl FnMut(TopicId, &str) -> bool,
    ) -> Notice {
        if !self.has(subscriber) {
            return Notice::None;
        }
        let (mut frames, mut text) = (BytesMut::new(), BytesMut::new());
        for (id, Gap { topic, from, to }) in &self.0[&subscriber].topics {
            if sends(*id, topic) {
                text.clear();
                write_gap(&mut text, topic, from.0, to.0, GapReason::SlowConsumer);
                put_frame(&mut frames, Opcode::Text, &text);
            }
        }
        let capacity = frames.capacity();
        if !frames.is_empty() && !parts.push(budget::shared(frames, capacity, 0, account, Held::Messages)) {
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
        let new = || Skipped { topics: BTreeMap::new(), charge: Charge::new(&self.account, Held::Subscriptions, 0) };
        let skipped = self.gaps.0.entry(subscriber).or_insert_with(new);
        let messages = log.pending(from).take((to - from) as usize);
        // A topic's offsets are dense: its first and last message say it all.
        let step = if log.topic.wildcard { 1 } else { ((to - from) as usize).saturating_sub(1).max(1) };
        for (_, message) in messages.step_by(step) {
            let gap = || Gap { topic: Arc::clone(&message.topic), from: message.offset, to: message.offset };
            skipped.topics.entry(message.topic_id).or_insert_with(gap).to = message.offset;
        }
        skipped.charge.resize(skipped.topics.len() as u64 * GAP_BYTES);
        if skipped.topics.len() > TOPICS_MAX {
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

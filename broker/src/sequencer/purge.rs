//! A topic is purged: everything that it remembers goes, and it begins anew.
//!
//! Its subscribers stay. A marker ([`Message::begins`]) takes the way of its messages and ends the old epoch for them: it comes
//! behind all messages of that epoch, and before those of the new one.
//!
//! Cost: what is forgotten is freed at once, so it is linear in the messages of one topic.

use std::sync::Arc;

use ring::Nanos;

use crate::ids::{Epoch, Offset, ShardId, TopicId};
use crate::message::Message;
use crate::sequencer::Sequencer;
use crate::sequencer::history::{History, Size};

/// What follows from a purge.
#[derive(Debug)]
pub struct Purged<'a> {
    /// The epoch that begins.
    pub epoch: Epoch,
    /// To be shared.
    pub marker: Arc<Message>,
    /// Shards with subscribers, ascending.
    pub wanted: &'a [ShardId],
}

impl Sequencer {
    /// Forgets what a topic remembers, and begins another epoch with offset 0. `None`: the topic is not kept.
    pub fn purge(&mut self, id: TopicId, now: Nanos) -> Option<Purged<'_>> {
        let place = self.topics.find(id)?;
        let held = &mut self.topics[place];
        held.wanted.bring_up_to_date(&held.topic.name, &self.filters, &self.changes);
        let epoch = self.next_epoch;
        self.next_epoch = epoch.next();
        (held.epoch, held.next, held.used_at) = (epoch, Offset(1), now);
        self.ledger.changed(held.history.size(), Size::default());
        held.history = History::default();
        // Walks compare the times at which messages were sequenced: no two are equal, this one included.
        self.last_at = now.max(self.last_at + 1);
        let marker = Arc::new(Message::reset(held.topic.key(), epoch, self.last_at, &self.account));
        self.refresh_lists(place, now);
        let held = &self.topics[place];
        Some(Purged { epoch, marker, wanted: held.wanted.all() })
    }
}

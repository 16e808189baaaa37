//! Topics that nobody would miss are forgotten, so many a turn.
//!
//! A topic is looked at when it has not been used for the idle timeout, and sooner when the registry is nearly full: see
//! the head of [`sequencer`](crate::sequencer). One that has state stays; one that has a window stays unless there is no
//! room.

use std::collections::VecDeque;

use ring::Nanos;

use crate::ids::{ShardId, TopicId};
use crate::sequencer::Sequencer;
use crate::sequencer::history::Size;
use crate::sequencer::ledger::Listed;
use crate::sequencer::topic::Topic;
use crate::sequencer::wanted::Joined;
use crate::topics::matches::Changes;
use crate::topics::registry::Registry;

/// Topics that one turn looks at because their time has come.
const DUE_PER_TURN: usize = 64;
/// Topics that one turn looks at because the registry is nearly full.
const PRESSED_PER_TURN: usize = 192;

impl Sequencer {
    /// Forgets topics that nobody would miss, a bounded number in one call; what is left is due at once.
    pub fn expire(&mut self, now: Nanos, registry: &Registry) {
        self.expire_histories(now);
        for _ in 0..DUE_PER_TURN {
            match self.unused.front() {
                Some(&(due, _)) if due <= now => self.review(now, false),
                _ => break,
            }
        }
        for _ in 0..PRESSED_PER_TURN.min(self.unused.len()) {
            if !registry.is_pressed(self.topics_max) {
                break;
            }
            self.review(now, true);
        }
    }

    /// Forgets the first of `unused`, or looks at it again later.
    fn review(&mut self, now: Nanos, pressed: bool) {
        let Some((due, id)) = self.unused.pop_front() else { return };
        let Some(held) = self.topics.get_mut(id) else { return };
        held.may_be_forgotten = false;
        if !held.wanted.joined().is_empty() {
            return;
        }
        // One that was used since it was put in the order gets a second chance, however short of room the table is.
        let once = pressed && held.used_at + self.idle_timeout <= due;
        let idle = (once || held.used_at + self.idle_timeout <= now) && !held.topic.has_publisher();
        let unseen = idle
            && !held.has_state()
            && (pressed || (held.history.is_empty() && held.is_unwanted(&self.filters, &self.changes)));
        if unseen {
            self.forget(id);
        } else {
            held.list_unused(&mut self.unused, now + self.idle_timeout);
        }
    }

    /// A topic is forgotten.
    fn forget(&mut self, id: TopicId) {
        let Some(held) = self.topics.remove(id) else { return };
        self.evicted += u64::from(held.history.is_evictable());
        self.ledger.changed(held.history.size(), Size::default());
        let topics = &self.topics;
        self.ledger
            .forgotten(held.listed, topics.len(), |id| topics.get(id).map_or_else(Listed::default, |held| held.listed));
    }

    /// When [`Sequencer::expire`] has something to do next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Nanos> {
        let unused = self.unused.front().map(|&(due, _)| due);
        [unused, self.ledger.next_due()].into_iter().flatten().min()
    }
}

impl Topic {
    /// Lists the topic in `unused`, to be looked at then, if it may be forgotten and is not listed.
    pub(super) fn list_unused(&mut self, unused: &mut VecDeque<(Nanos, TopicId)>, due: Nanos) {
        if self.wanted.joined().is_empty() && !self.may_be_forgotten && !self.has_state() {
            self.may_be_forgotten = true;
            unused.push_back((due, self.topic.id));
        }
    }
    /// Whether no shard wants its messages now.
    fn is_unwanted(&mut self, filters: &Joined, changes: &Changes<ShardId>) -> bool {
        self.wanted.bring_up_to_date(&self.topic.name, filters, changes);
        self.wanted.all().is_empty()
    }
}

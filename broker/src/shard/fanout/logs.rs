//! A shard's logs, by slot and by topic.

use std::ops::{Index, IndexMut};

use rustc_hash::FxHashMap;

use crate::ids::{LogSlot, TopicId};
use crate::shard::fanout::log::Log;

/// See the file's head. A slot is used again once its log is gone; [`Log::number`] tells two logs of one slot apart.
#[derive(Default, Debug)]
pub(in crate::shard) struct Logs {
    slots: Vec<Option<Box<Log>>>,
    free: Vec<LogSlot>,
    /// Topics and filters that have a log, and which. Those of delivery groups are found by it.
    of: FxHashMap<TopicId, LogSlot>,
}

impl Logs {
    /// Adds the log of a topic that has none, or of a delivery group.
    pub(in crate::shard) fn insert(&mut self, log: Log) -> LogSlot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            LogSlot::new(self.slots.len() - 1)
        });
        match log.anchor {
            None => drop(self.of.insert(log.topic.id, slot)),
            Some(anchor) => self[anchor].groups.push(slot),
        }
        self.slots[slot.index()] = Some(Box::new(log));
        slot
    }

    /// Removes a log.
    pub(in crate::shard) fn remove(&mut self, slot: LogSlot) -> Box<Log> {
        let log = self.slots[slot.index()].take().expect("a log is removed once");
        match log.anchor {
            None => drop(self.of.remove(&log.topic.id)),
            Some(anchor) => self[anchor].groups.retain(|group| *group != slot),
        }
        self.free.push(slot);
        log
    }

    /// Where the log of a topic or filter is.
    pub(in crate::shard) fn slot_of(&self, topic: TopicId) -> Option<LogSlot> {
        self.of.get(&topic).copied()
    }

    /// The log in a slot, if there is one.
    pub(in crate::shard) fn get(&self, slot: LogSlot) -> Option<&Log> {
        self.slots.get(slot.index())?.as_deref()
    }

    /// The same, to be changed.
    pub(in crate::shard) fn get_mut(&mut self, slot: LogSlot) -> Option<&mut Log> {
        self.slots.get_mut(slot.index())?.as_deref_mut()
    }

    /// The slot of every log.
    pub(in crate::shard) fn slots(&self) -> impl Iterator<Item = LogSlot> {
        (0..self.slots.len()).filter(|at| self.slots[*at].is_some()).map(LogSlot::new)
    }

    /// Every log.
    pub(in crate::shard) fn iter(&self) -> impl Iterator<Item = &Log> {
        self.slots.iter().filter_map(Option::as_deref)
    }

    /// How many there are.
    pub(in crate::shard) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// The log of a slot that a subscription, or a place in a list of this turn, names: it is there.
impl Index<LogSlot> for Logs {
    type Output = Log;

    fn index(&self, slot: LogSlot) -> &Log {
        self.slots[slot.index()].as_deref().expect("a log that is named")
    }
}

impl IndexMut<LogSlot> for Logs {
    fn index_mut(&mut self, slot: LogSlot) -> &mut Log {
        self.slots[slot.index()].as_deref_mut().expect("a log that is named")
    }
}

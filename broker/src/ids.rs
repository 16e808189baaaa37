//! Numbers that identify something, shared by all parts of the broker. They depend on nothing.

/// A shard's number, dense from 0.
pub type ShardId = u16;

/// Identifies a topic or filter for the life of the process; never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicId(pub u64);

/// Position of a message in its topic: dense, from 1, within an epoch.
pub type Offset = u64;

/// Identifies one life of a topic's log; another epoch means that offsets began anew.
pub type Epoch = u64;

/// A position in one shard's log of a topic or filter: dense from 0.
pub type Seq = u64;

/// Index of a log in its shard; used again once that log is gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct LogSlot(u32);

impl LogSlot {
    /// The slot with this index.
    pub(crate) fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a shard has fewer logs than connections"))
    }

    /// Its index.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

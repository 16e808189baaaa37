//! What a topic remembers, in numbers, for operators. Cost: a few loads.

use crate::ids::{Offset, TopicId};
use crate::sequencer::Sequencer;
use crate::sequencer::history::History;

/// See the file's head.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// The first and the last offset of its window, unless that is empty.
    pub window: Option<(Offset, Offset)>,
    /// Messages in its window.
    pub window_messages: u64,
    /// What they take.
    pub window_bytes: u64,
    /// Keys that have a value.
    pub keys: u64,
    /// The offset of the retained message.
    pub retained: Option<Offset>,
    /// Up to which offset its snapshot stands for its messages.
    pub snapshot: Option<Offset>,
    /// Keys, and one each for a retained message and a snapshot.
    pub state_entries: u64,
    /// What those take.
    pub state_bytes: u64,
}

impl Sequencer {
    /// What a topic remembers; nothing if it is not kept.
    #[must_use]
    pub fn remembered(&self, topic: TopicId) -> Remembered {
        self.topics.get(topic).map(|held| held.history.figures()).unwrap_or_default()
    }
}

impl History {
    fn figures(&self) -> Remembered {
        let size = self.size();
        Remembered {
            window: self.window.first().zip(self.window.last()),
            window_messages: self.window.len() as u64,
            window_bytes: self.window.bytes(),
            keys: self.keyed().map_or(0, |keyed| keyed.live() as u64),
            retained: self.retained.as_ref().map(|retained| retained.offset),
            snapshot: self.snapshot_up_to(),
            state_entries: size.state_entries,
            state_bytes: size.state_bytes,
        }
    }
}

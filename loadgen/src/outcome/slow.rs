//! What became of slow clients, which read slowly or never.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of the slow clients of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slow {
    /// Those that had not received everything when publishing ended, without those that the server had closed.
    pub behind: u64,
    /// Messages that the slowest of these had not received.
    pub behind_messages: u64,
    /// Those that the server closed, by close code; 1006 without a close frame.
    pub closed: BTreeMap<u16, u64>,
    /// When the last messages that the closed ones received were published, the earliest and the latest: seconds after the
    /// run's start. A client that does not read learns only later that it was closed.
    pub cut_off: Option<(f64, f64)>,
}

impl Slow {
    /// Adds those of another process, which began `offset` seconds later.
    pub fn add(&mut self, other: &Self, offset: f64) {
        self.behind += other.behind;
        self.behind_messages = self.behind_messages.max(other.behind_messages);
        other.closed.iter().for_each(|(code, count)| *self.closed.entry(*code).or_default() += count);
        if let Some((first, last)) = other.cut_off.map(|(first, last)| (first + offset, last + offset)) {
            let (least, most) = self.cut_off.unwrap_or((first, last));
            self.cut_off = Some((least.min(first), most.max(last)));
        }
    }
}

//! What always holds of a log: the formulas are in the head of [`crate::shard::fanout::log`]. The simulation checks them
//! after every step.

use crate::ids::{Offset, Seq};
use crate::shard::fanout::log::{Entry, Log};

impl Log {
    /// Checks what always holds of a log by itself: see the file's head. Linear in the messages kept.
    ///
    /// # Errors
    /// What does not hold.
    pub fn invariants(&self) -> Result<(), String> {
        let (n, head) = (self.subscribers.len(), self.head());
        let rules = [
            ("left <= n", self.left <= n),
            ("round.left <= n", self.round.left <= n),
            ("lagging <= n", self.lagging as usize <= n),
            ("delivered <= head", self.delivered.seq <= head),
            ("round.head <= head", self.round.head.seq <= head),
            ("n = 0: nothing is kept", n > 0 || self.entries.is_empty()),
            ("left > 0: something is kept", self.left == 0 || !self.entries.is_empty()),
            ("sizes ascend", self.entries.iter().map(|entry| entry.end).is_sorted()),
            ("offsets are dense", self.topic.wildcard || self.has_dense_offsets()),
        ];
        match rules.iter().find(|(_, holds)| !holds) {
            Some((rule, _)) => Err(format!("log of {:?}: {rule}", self.topic.name)),
            None => Ok(()),
        }
    }

    /// The same of one subscriber's cursor. `lagging`: it is counted as such.
    ///
    /// # Errors
    /// What does not hold.
    pub fn cursor_invariant(&self, cursor: Seq, lagging: bool) -> Result<(), String> {
        let within = self.tail <= cursor && cursor <= self.head();
        // The round may still have to come to it.
        let delivered = lagging || self.left > 0 || cursor >= self.delivered.seq;
        if within && delivered {
            return Ok(());
        }
        let (tail, delivered, head) = (self.tail, self.delivered.seq, self.head());
        Err(format!("log of {:?}: cursor {cursor}, tail {tail}, delivered {delivered}, head {head}", self.topic.name))
    }

    /// Within an epoch: a marker, of offset 0, begins one, and what is before it belongs to another.
    fn has_dense_offsets(&self) -> bool {
        let mut next = Some(self.next_offset);
        self.entries.iter().rev().all(|Entry { message, .. }| {
            let is_dense = next.is_none_or(|next| message.offset + 1 == next);
            next = (message.offset > Offset::default()).then_some(message.offset);
            is_dense && (message.offset > Offset::default() || message.begins().is_some())
        })
    }
}

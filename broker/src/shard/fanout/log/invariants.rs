//! What always holds of a log: the formulas are in the head of [`crate::shard::fanout::log`]. The simulation checks them
//! after every step.

use crate::ids::{Offset, Seq};
use crate::shard::fanout::log::Log;
use crate::topics::rules::Throttle;

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
            ("delivered <= opened", self.delivered <= self.opened),
            ("opened <= head", self.opened <= head),
            (
                "without a throttle nothing waits for its round",
                self.policy.throttle > Throttle::NONE || !self.has_unopened(),
            ),
            ("round.head <= opened", self.round.head <= self.opened),
            ("n = 0: nothing is kept", n > 0 || self.entries.is_empty()),
            ("left > 0: something is kept", self.left == 0 || !self.entries.is_empty()),
            ("offsets are dense", self.topic.wildcard || self.conflates() || self.has_dense_offsets()),
        ];
        let broken = rules.iter().find(|(_, holds)| !holds).map_or(Ok(()), |(rule, _)| Err(*rule));
        broken.and_then(|()| self.entries.invariants()).map_err(|rule| format!("log of {:?}: {rule}", self.topic.name))
    }

    /// The same of one subscriber's cursor. `lagging`: it is counted as such.
    ///
    /// # Errors
    /// What does not hold.
    pub fn cursor_invariant(&self, cursor: Seq, lagging: bool) -> Result<(), String> {
        let (tail, delivered, head) = (self.entries.tail(), self.delivered, self.head());
        // Of the messages before its tail, a log of the newest of each key needs none.
        let within = (tail <= cursor || self.conflates()) && cursor <= head;
        // The round may still have to come to it.
        let was_delivered = lagging || self.left > 0 || cursor >= delivered;
        if within && was_delivered {
            return Ok(());
        }
        Err(format!("log of {:?}: cursor {cursor}, tail {tail}, delivered {delivered}, head {head}", self.topic.name))
    }

    /// Within an epoch: a marker, of offset 0, begins one, and what is before it belongs to another.
    fn has_dense_offsets(&self) -> bool {
        let mut next = Some(self.next_offset);
        let kept: Vec<_> = self.kept().collect();
        kept.into_iter().rev().all(|message| {
            let is_dense = next.is_none_or(|next| message.offset + 1 == next);
            next = (message.offset > Offset::default()).then_some(message.offset);
            is_dense && (message.offset > Offset::default() || message.begins().is_some())
        })
    }
}

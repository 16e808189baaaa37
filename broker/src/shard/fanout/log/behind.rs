//! How far a log's subscribers are behind, and where one of a `skip` topic goes on that is too far.
//!
//! Units: bytes of memory, as in [`Log`]. Cost: a look-up by index; [`Log::skip_target`] a binary search once somebody is too far.

use crate::ids::Seq;
use crate::shard::fanout::log::Log;
use crate::topics::rules::{Policy, SlowConsumer};

/// What a log's subscribers may be behind, and what becomes of those that are further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LagPolicy {
    /// What becomes of them.
    pub slow_consumer: SlowConsumer,
    /// How far they may be behind.
    pub bytes_max: u64,
}

impl LagPolicy {
    /// That of a rule, within `--max-lag`.
    #[must_use]
    pub fn new(policy: Policy, bytes_max: u64) -> Self {
        let asked = policy.lag_bytes_max.unwrap_or(bytes_max);
        Self { slow_consumer: policy.slow_consumer, bytes_max: asked.min(bytes_max) }
    }

    /// Whether publishers wait for single subscribers.
    #[must_use]
    pub fn awaits_subscribers(self) -> bool {
        self.slow_consumer == SlowConsumer::Disconnect
    }
}

impl Log {
    /// How many bytes a subscriber at `cursor` is behind.
    #[must_use]
    pub fn lag_bytes(&self, cursor: Seq) -> u64 {
        self.head_bytes() - self.bytes_before(cursor)
    }

    /// How many bytes the round is behind the head, at most: what publishers must not let grow without end.
    #[must_use]
    pub fn undelivered_bytes(&self) -> u64 {
        self.head_bytes() - self.delivered.bytes.max(self.tail_bytes)
    }

    /// Where a subscriber at `cursor` goes on that is further behind than it may be: with the newest messages that take up to a
    /// quarter of what it may be behind, at least one.
    #[must_use]
    pub fn skip_target(&self, cursor: Seq) -> Option<Seq> {
        let bytes_max = self.policy.bytes_max;
        if self.policy.slow_consumer != SlowConsumer::Skip || self.lag_bytes(cursor) <= bytes_max {
            return None;
        }
        let begin = self.head_bytes() - bytes_max / 4;
        let older = self.entries.partition_point(|entry| entry.end < begin) + 1;
        let older = older.min(self.entries.len() - 1);
        // That the topic began anew is never skipped.
        let from = usize::try_from(cursor - self.tail).expect("a log fits in memory").min(older);
        let last_reset = self.entries.range(from..older).rposition(|entry| entry.message.begins().is_some());
        let target = self.tail + last_reset.map_or(older, |at| from + at) as u64;
        (target > cursor).then_some(target)
    }

    fn bytes_before(&self, cursor: Seq) -> u64 {
        match usize::try_from(cursor - self.tail).expect("a log fits in memory") {
            0 => self.tail_bytes,
            behind => self.entries[behind - 1].end,
        }
    }
}

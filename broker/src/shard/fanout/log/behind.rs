//! How far a log's subscribers are behind, and where one of a `skip` topic goes on that is too far.
//!
//! Units: bytes of memory, as in [`Log`]. Cost: a look-up by index; [`Log::skip_target`] a binary search once somebody is too
//! far; of a log with the newest message of each key, [`Log::waiting_bytes`] is linear in the messages.

use crate::ids::Seq;
use crate::shard::fanout::log::Log;
use crate::topics::rules::{Policy, SlowConsumer, Throttle};

/// What a log's subscribers may be behind, and what becomes of those that are further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LagPolicy {
    /// What becomes of them.
    pub slow_consumer: SlowConsumer,
    /// How far they may be behind.
    pub bytes_max: u64,
    /// The least time between two rounds.
    pub throttle: Throttle,
}

impl LagPolicy {
    /// That of a rule, within `--max-lag`.
    #[must_use]
    pub fn new(policy: Policy, bytes_max: u64) -> Self {
        let asked = policy.lag_bytes_max.unwrap_or(bytes_max);
        Self { slow_consumer: policy.slow_consumer, bytes_max: asked.min(bytes_max), throttle: policy.throttle }
    }

    /// Whether publishers wait for single subscribers. With `latest` that is for those whose keys alone take more than they may
    /// be behind.
    #[must_use]
    pub fn awaits_subscribers(self) -> bool {
        self.slow_consumer != SlowConsumer::Skip
    }
}

impl Log {
    /// How many bytes a subscriber at `cursor` is behind, as far as it matters how it is treated. Of a log with the newest
    /// message of each key that is said of the one that is furthest behind, and of any other no more than that it is behind:
    /// once those are gone that are furthest, it is one of them.
    #[must_use]
    pub fn lag_bytes(&self, cursor: Seq) -> u64 {
        match cursor {
            cursor if cursor == self.head() => 0,
            cursor if self.conflates() && !self.entries.needs_all(cursor) => 1,
            cursor => self.entries.bytes_from(cursor),
        }
    }

    /// How many bytes wait for a subscriber at `cursor`.
    #[must_use]
    pub fn waiting_bytes(&self, cursor: Seq) -> u64 {
        self.entries.bytes_from(cursor)
    }

    /// How many bytes the round is behind the head, at most: what publishers must not let grow without end.
    #[must_use]
    pub fn undelivered_bytes(&self) -> u64 {
        self.entries.bytes_behind(self.delivered)
    }

    /// With a throttle: whether so much waits that its round does not wait for its time.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.undelivered_bytes() > self.policy.bytes_max / 4
    }

    /// Where a subscriber at `cursor` goes on that is further behind than it may be: with the newest messages that take up to a
    /// quarter of what it may be behind, at least one.
    #[must_use]
    pub fn skip_target(&self, cursor: Seq) -> Option<Seq> {
        let bytes_max = self.policy.bytes_max;
        if self.policy.slow_consumer != SlowConsumer::Skip || self.lag_bytes(cursor) <= bytes_max {
            return None;
        }
        let newest = self.entries.newest_bytes(bytes_max / 4)? + 1;
        let target = newest.min(Seq(self.head().0 - 1));
        (target > cursor).then_some(target)
    }
}

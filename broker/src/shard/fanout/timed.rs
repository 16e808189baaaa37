//! Sends that are measured: one of each turn stands for all of it, from its oldest message's sequencing to its completion.
//! That costs one comparison per send.

use ring::{ConnId, Nanos};

use crate::ids::Seq;
use crate::observe::counters::{Scale, Stats};
use crate::shard::fanout::log::Log;

/// A send whose way from its oldest message's sequencing to its completion is measured.
#[derive(Debug)]
pub(in crate::shard) struct Timed {
    pub(in crate::shard) conn: ConnId,
    sequenced_at: Nanos,
    messages: u64,
    /// Sends of its turn; 0 until that is known.
    pub(in crate::shard) stands_for: u64,
}

impl Timed {
    /// The send that is about to take what waits behind `cursor`.
    pub(in crate::shard) fn new(conn: ConnId, log: &Log, cursor: Seq) -> Self {
        let sequenced_at = log.pending(cursor).next().map_or(0, |(_, message)| message.sequenced_at);
        Self { conn, sequenced_at, messages: log.head() - cursor, stands_for: 0 }
    }

    pub(in crate::shard) fn observe(self, stats: &Stats, now: Nanos) {
        stats.delivery.observe(Scale::TIME, now.saturating_sub(self.sequenced_at), self.stands_for);
        stats.batch.observe(Scale::COUNT, self.messages, self.stands_for);
    }
}

//! What a shard says of itself for metrics: how long its turns take, and how much it holds.

use ring::Driver;

use crate::observe::counters::Scale;
use crate::shard::Shard;

impl<D: Driver> Shard<D> {
    /// One turn has ended.
    pub(super) fn count_turn(&self) {
        let (stats, busy) = (self.stats(), self.driver.busy());
        stats.turn.observe(Scale::TIME, busy, 1);
        if busy > stats.turn_max.get() {
            stats.turn_max.set(busy);
        }
    }

    /// How much there is of everything, and what the driver has counted.
    pub(super) fn publish_gauges(&self) {
        let stats = self.stats();
        stats.connections.set(self.conns.len() as u64);
        stats.logs.set(self.fanout.logs.len() as u64);
        stats.topics.set(self.sequencer.len() as u64);
        stats.log_bytes.set(self.fanout.log_bytes);
        stats.requests_waiting.set(self.calls.asked() as u64);
        stats.responders.set(self.calls.served() as u64);
        stats.leases.set(self.leases.len() as u64);
        stats.leases_granted.set(self.leases.granted());
        stats.windows_evicted.set(self.sequencer.evicted());
        let counters = self.driver.counters();
        stats.no_buffers.set(counters.no_buffers);
        stats.multishots_ended.set(counters.multishots_ended);
        stats.submission_full.set(counters.submission_full);
        stats.completion_overflows.set(counters.completion_overflows);
        stats.stale.set(counters.stale);
        stats.enters.set(counters.enters);
    }
}

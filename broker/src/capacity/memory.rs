//! The memory that the process takes at most, added up at start from parts that each have a bound.
//!
//! | part | bytes |
//! | --- | --- |
//! | the program, its runtime and its log | [`BASE_BYTES`] |
//! | each shard: ring or epoll, receive buffers, queues, timers | [`SHARD_BYTES`] |
//! | each connection that there may be: its record, subscription, timer, place in the driver | [`RECORD_BYTES`] |
//! | what is held for clients: the budget of `--max-memory`, see [`Budget`](crate::capacity::budget::Budget) | itself, and half as much for what the allocator cannot use |
//!
//! Resident memory stays below the sum, [`MemoryPlan::resident_bytes_max`]. What the kernel takes for sockets is not
//! resident memory of the process, but a control group counts it too: [`Capacity`] keeps it within what is available.
//!
//! The figures of the table have a margin over what was measured: resident memory of idle brokers with 1 to 8 shards on
//! io_uring and 1 to 32 on epoll, with 4,000 HTTP connections in the middle of a request on io_uring, and with idle
//! WebSockets (bench/results/SCALE.md).

use crate::capacity::budget::Held;
use crate::capacity::connections::Capacity;

/// The program and what it has once: measured 10 MiB.
pub const BASE_BYTES: u64 = 16 << 20;
/// A shard: measured 1.1 MiB on io_uring when idle; its 128 receive buffers of 4 KiB take 0.5 MiB once they are used.
pub const SHARD_BYTES: u64 = 2 << 20;
/// An idle connection of a shard: measured 105 to 122 bytes.
pub const RECORD_BYTES: u64 = 128;

/// Memory of one HTTP connection beside its body, in bytes: its task, the HTTP library's read buffer at its longest,
/// a head that is not complete, and an answer.
pub(crate) const HTTP_CONNECTION_BYTES: u64 = 32 << 10;
/// The part of what is available that the budget is by default, one in so many.
const BUDGET_PART: u64 = 4;
/// The budget by default is not larger than this.
pub const BUDGET_BYTES_TOP: u64 = 1 << 30;
/// Nor smaller than this.
const BUDGET_BYTES_LEAST: u64 = 16 << 20;
/// The part of the budget that the allocator may take besides, one in so many: free places in its pages. Measured with
/// `bench abuse --together`: up to 0.47 of the budget.
const SLACK_PART: u64 = 2;
/// The part of the available memory that is given out, in percent. The rest is for what nobody can bound.
pub const MEMORY_PERCENT: u64 = 80;
/// HTTP connections that there are room for, however little memory there is.
const HTTP_PLACES_LEAST: u64 = 16;

/// How the memory is shared out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryPlan {
    /// Bytes that may be held for clients.
    pub budget_bytes: u64,
    /// Bytes that the process could still take when it started; `None` where that is not known.
    pub available_bytes: Option<u64>,
    shards: u16,
}

impl MemoryPlan {
    /// The plan for so many shards: `asked` is `--max-memory`, without which the budget is a quarter of what is
    /// available, but never less than `least`, which other settings need.
    #[must_use]
    pub fn new(asked: Option<u64>, least: u64, shards: u16, available_bytes: Option<u64>) -> Self {
        let share = available_bytes.map_or(BUDGET_BYTES_TOP, |bytes| bytes / BUDGET_PART);
        let budget = share.clamp(BUDGET_BYTES_LEAST, BUDGET_BYTES_TOP).max(least);
        Self { budget_bytes: asked.unwrap_or(budget), available_bytes, shards }
    }

    /// Bytes of the budget with what the allocator takes besides.
    #[must_use]
    pub fn held_bytes_max(&self) -> u64 {
        self.budget_bytes.saturating_add(self.budget_bytes / SLACK_PART)
    }

    /// Bytes of the program and of all shards.
    #[must_use]
    pub fn fixed_bytes(&self) -> u64 {
        BASE_BYTES + SHARD_BYTES * u64::from(self.shards)
    }

    /// Places for HTTP connections that the budget allows.
    #[must_use]
    pub fn http_places(&self) -> u64 {
        (Held::Http.share_of(self.budget_bytes) / HTTP_CONNECTION_BYTES).max(HTTP_PLACES_LEAST)
    }

    /// Bytes that are left for connections, kernel memory included; `None` where it is not known.
    #[must_use]
    pub fn connections_bytes(&self) -> Option<u64> {
        let taken = self.held_bytes_max() + self.fixed_bytes();
        self.available_bytes.map(|bytes| (bytes / 100 * MEMORY_PERCENT).saturating_sub(taken))
    }

    /// What resident memory stays below, in bytes.
    #[must_use]
    pub fn resident_bytes_max(&self, room: &Capacity) -> u64 {
        self.fixed_bytes() + u64::from(room.connections_max) * RECORD_BYTES + self.held_bytes_max()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use ring::Io;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_budget_is_a_quarter_within_bounds_unless_said_otherwise() {
        let budget = |asked, least, available| MemoryPlan::new(asked, least, 2, available).budget_bytes;
        assert_eq!(budget(None, 0, Some(256 * MIB)), 64 * MIB);
        assert_eq!(budget(None, 0, Some(1 << 40)), 1024 * MIB);
        assert_eq!(budget(None, 0, Some(0)), 16 * MIB);
        assert_eq!(budget(None, 0, None), 1024 * MIB);
        assert_eq!(budget(None, 100 * MIB, Some(256 * MIB)), 100 * MIB);
        assert_eq!(budget(Some(5 * MIB), 0, Some(1 << 40)), 5 * MIB);
    }

    #[test]
    fn what_there_is_room_for_by_default_fits_into_what_is_available() {
        for available in [64 * MIB, 100 * MIB, 256 * MIB, 1 << 30, 24 << 30] {
            for (io, shards) in [(Io::Uring, 1), (Io::Epoll, 2), (Io::Uring, 8)] {
                let plan = MemoryPlan::new(None, 0, shards, Some(available));
                let room = Capacity::new(io, None, shards, 1 << 20, plan).unwrap();
                let resident = plan.resident_bytes_max(&room);
                let kernel = u64::from(room.connections_max) * (6 << 10);
                assert!(resident + kernel <= available, "{available} {shards}: {resident} + {kernel}");
            }
        }
    }

    #[test]
    fn the_sum_has_all_parts() {
        let plan = MemoryPlan::new(Some(40 * MIB), 0, 4, None);
        let room = Capacity::new(Io::Uring, NonZeroU32::new(100_000), 4, 1 << 20, plan).unwrap();
        let parts = 16 * MIB + 4 * 2 * MIB + 100_000 * 128 + 60 * MIB;
        assert_eq!(plan.resident_bytes_max(&room), parts);
    }
}

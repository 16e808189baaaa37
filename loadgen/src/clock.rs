//! Time: the only place of this crate that reads a clock.
//!
//! Deadlines use `CLOCK_MONOTONIC`, like the driver's. Stamps are nanoseconds since 1970, so that they mean the same to
//! several processes and machines. The difference between both clocks is read once, so that a change of the wall clock
//! does not affect a run.

use ring::Nanos;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// A run's clock. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Since 1970, minus monotonic.
    distance: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { distance: nanos(clock_gettime(ClockId::Realtime)).wrapping_sub(monotonic()) }
    }

    /// The time since 1970 at a monotonic time.
    pub(crate) fn unix(self, monotonic: Nanos) -> u64 {
        monotonic.wrapping_add(self.distance)
    }

    /// The monotonic time at a time since 1970; 0 if that was before the clock began.
    pub(crate) fn monotonic_of(self, unix_ns: u64) -> Nanos {
        (i128::from(unix_ns) - i128::from(self.distance as i64)).try_into().unwrap_or(0)
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic() -> Nanos {
    nanos(clock_gettime(ClockId::Monotonic))
}

fn nanos(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let clock = Clock::new();
        let now = monotonic();
        assert_eq!(clock.monotonic_of(clock.unix(now)), now);
        assert!(clock.unix(now) > 1_700_000_000_000_000_000);
        assert_eq!(clock.monotonic_of(1), 0);
    }
}

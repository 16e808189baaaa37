//! Durations as the shard counts them: nanoseconds of the driver's clock.

use std::time::Duration;

use ring::Nanos;

/// How long a turn waits for another shard's full queue.
pub(super) const RETRY_NANOS: Nanos = 1_000_000;

/// A duration, as far as it can be added to a time.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX / 4)
}

//! The time of day, for the `Date` of answers (RFC 9110 §6.6.1), for threads that read no clock but their driver's.
//!
//! A thread that may read the clock stores how far the time of day is ahead of the monotonic clock; the others add that to
//! their own time. Cost: a load, and a text once a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ring::Nanos;

const SECOND: Nanos = 1_000_000_000;

/// How far the time of day is ahead of the monotonic clock. By default it is as far as 1970.
#[derive(Default, Debug)]
pub struct WallClock(AtomicU64);

impl WallClock {
    /// It is `time` at `now` on the monotonic clock.
    pub fn set(&self, time: SystemTime, now: Nanos) {
        let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = Nanos::try_from(since_1970.as_nanos()).unwrap_or_default();
        self.0.store(nanos.saturating_sub(now), Ordering::Relaxed);
    }

    /// Milliseconds since 1970 at `now` on the monotonic clock.
    pub(crate) fn millis(&self, now: Nanos) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_add(now) / 1_000_000
    }

    /// Seconds since 1970 at `now` on the monotonic clock.
    fn seconds(&self, now: Nanos) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_add(now) / SECOND
    }
}

/// The text of the second that was asked for last.
#[derive(Default, Debug)]
pub(crate) struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// The date at `now` on the monotonic clock.
    pub(crate) fn at(&mut self, clock: &WallClock, now: Nanos) -> &str {
        let second = clock.seconds(now);
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_follows_both_clocks() {
        let (clock, mut date) = (WallClock::default(), Date::default());
        assert_eq!(date.at(&clock, 0), "Thu, 01 Jan 1970 00:00:00 GMT");
        clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777), 5 * SECOND);
        assert_eq!(date.at(&clock, 5 * SECOND), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(&clock, 6 * SECOND + SECOND / 2), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}

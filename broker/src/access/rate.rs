//! How fast one connection publishes: `--max-publish-rate` messages a second, and two seconds' worth at once.
//!
//! Kept only for connections that publish while there is such a limit. A schedule instead of a bucket: every message
//! takes the next place, one period behind the one before; a place more than two seconds ahead of the clock is too fast.
//! Cost per message: a comparison and an addition.
//!
//! Time in which the shard itself made the connection wait does not count against it: what it sent meanwhile comes in
//! at once, and is no burst of its own making ([`RateLimiter::waited`]).

use std::num::NonZeroU32;

use ring::Nanos;

const SECOND: Nanos = 1_000_000_000;
/// How far ahead of the clock a publisher may be.
const AHEAD: Nanos = 2 * SECOND;

/// One publisher's place in its schedule.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct RateLimiter {
    /// The place of its last message.
    last: Nanos,
    /// How far its clock is behind: the time that it was made to wait, until it has caught up.
    behind: Nanos,
    /// When it began to wait; 0 while it does not.
    waits_since: Nanos,
}

impl RateLimiter {
    /// Takes a message's place. False: it comes too fast.
    pub(crate) fn take(&mut self, now: Nanos, rate_max: NonZeroU32) -> bool {
        let period = SECOND / Nanos::from(rate_max.get());
        let clock = now.saturating_sub(self.behind);
        let place = self.last.max(clock) + period;
        if place > now + AHEAD {
            return false;
        }
        self.last = place;
        if place >= now {
            self.behind = 0;
        }
        true
    }

    /// The shard reads nothing from it for now.
    pub(crate) fn waits(&mut self, now: Nanos) {
        if self.waits_since == 0 {
            self.waits_since = now;
        }
    }

    /// The shard reads again.
    pub(crate) fn waited(&mut self, now: Nanos) {
        if self.waits_since > 0 {
            self.behind += now.saturating_sub(self.waits_since);
            self.waits_since = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: NonZeroU32 = NonZeroU32::new(10).unwrap();

    fn taken(rate_limiter: &mut RateLimiter, now: Nanos, tries: usize) -> usize {
        (0..tries).filter(|_| rate_limiter.take(now, TEN)).count()
    }

    #[test]
    fn twice_the_rate_at_once_and_then_the_rate() {
        let mut rate_limiter = RateLimiter::default();
        let begin = 100 * SECOND;
        assert_eq!(taken(&mut rate_limiter, begin, 50), 20);
        assert_eq!(taken(&mut rate_limiter, begin + SECOND, 50), 10);
        assert_eq!(taken(&mut rate_limiter, begin + SECOND / 100 * 105, 50), 0);
        assert_eq!(taken(&mut rate_limiter, begin + 60 * SECOND, 50), 20, "idleness saves up no more than that");
    }

    #[test]
    fn who_was_made_to_wait_may_catch_up() {
        let mut rate_limiter = RateLimiter::default();
        let begin = 100 * SECOND;
        assert_eq!(taken(&mut rate_limiter, begin, 5), 5);
        rate_limiter.waits(begin);
        let now = begin + 7 * SECOND;
        rate_limiter.waited(now);
        assert!(taken(&mut rate_limiter, now, 200) >= 70, "seven seconds' worth waited in the sockets");
        assert_eq!(taken(&mut rate_limiter, now + SECOND, 50), 10);
        assert_eq!(taken(&mut rate_limiter, now + 60 * SECOND, 200), 20, "but once");
    }
}

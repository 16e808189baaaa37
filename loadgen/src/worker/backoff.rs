//! Fewer tries while no connection succeeds: a server that is full is not asked more often than it helps.
//!
//! A round is as many failures as there may be tries at the same time. After a round without a success, a worker waits,
//! twice as long each time, and then makes half as many tries at the same time. One success ends this. Each client has a
//! delay of its own besides (`connect`). Not responsible for giving up (`run`, which sees all workers).

use ring::Nanos;

/// The wait after the first round, in nanoseconds.
const WAIT_MIN_NS: Nanos = 200_000_000;
/// Rounds after which nothing changes any more: then a wait takes 3.2 s.
const ROUNDS_MAX: u32 = 5;
/// Fewer failures are no round: a server that restarts refuses all of a few clients.
const ROUND_MIN: usize = 32;

/// The failures since the last success of a worker.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// In this round.
    failures: usize,
    /// Rounds without a success.
    rounds: u32,
    /// No try before this time.
    pub(super) until: Nanos,
}

impl Backoff {
    pub(super) fn failed(&mut self, now: Nanos, concurrency: usize) {
        self.failures += 1;
        if self.failures >= self.concurrency(concurrency).max(ROUND_MIN) {
            self.failures = 0;
            self.until = now + (WAIT_MIN_NS << self.rounds.min(ROUNDS_MAX - 1));
            self.rounds = (self.rounds + 1).min(ROUNDS_MAX);
        }
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Tries at the same time, of `most`.
    pub(super) fn concurrency(&self, most: usize) -> usize {
        (most >> self.rounds).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries within five seconds by a worker to which the server refuses every client at once.
    fn tries(concurrency: usize) -> usize {
        let (mut backoff, mut now, mut tries) = (Backoff::default(), 1, 0);
        while now < 5_000_000_000 {
            now = (now + 1000).max(backoff.until);
            for _ in 0..backoff.concurrency(concurrency) {
                tries += 1;
                backoff.failed(now, concurrency);
            }
        }
        tries
    }

    #[test]
    fn a_full_server_gets_few_tries() {
        assert!((512..1100).contains(&tries(512)), "{}", tries(512));
        assert!((16..1000).contains(&tries(1)), "{}", tries(1));
    }

    #[test]
    fn few_failures_are_no_round_and_a_success_ends_it() {
        let mut backoff = Backoff::default();
        (0..31).for_each(|_| backoff.failed(5, 8));
        assert_eq!((backoff.until, backoff.concurrency(8)), (0, 8));
        backoff.failed(5, 8);
        assert_eq!((backoff.until, backoff.concurrency(8)), (5 + WAIT_MIN_NS, 4));
        backoff.succeeded();
        assert_eq!((backoff.until, backoff.concurrency(8)), (0, 8));
    }
}

//! How often a subscriber is sent to, as it sees it: a throttle is a least time between two sends.
//!
//! A client sees no sends but messages. Those that come within half an interval of each other count as one *delivery*, since
//! one send may come in pieces and a busy client reads late. So an honest server is never found guilty of too many, and one
//! that sends twice as often as it may, or more, is. Units: monotonic nanoseconds. Cost of a message: a comparison.

/// Without a throttle, what comes within this time is one delivery.
const TOGETHER_NS: u64 = 1_000_000;
/// So many deliveries more than the throttle allows are no fault: clocks differ, and what came late is followed closely by
/// what came in time.
const TOLERANCE: f64 = 1.05;

/// The deliveries of one subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Throttled {
    interval_ns: u64,
    /// When the first delivery and the newest began.
    first_ns: u64,
    begun_ns: u64,
    deliveries: u64,
}

impl Throttled {
    /// Of a subscription with a throttle of so many milliseconds; 0: none.
    #[must_use]
    pub fn new(throttle_ms: u64) -> Self {
        Self { interval_ns: throttle_ms.saturating_mul(1_000_000), first_ns: 0, begun_ns: 0, deliveries: 0 }
    }

    /// A message came. Returns whether it began a delivery.
    pub fn heard(&mut self, now_ns: u64) -> bool {
        let together = if self.interval_ns > 0 { self.interval_ns / 2 } else { TOGETHER_NS };
        if self.deliveries > 0 && now_ns < self.begun_ns.saturating_add(together) {
            return false;
        }
        if self.deliveries == 0 {
            self.first_ns = now_ns;
        }
        self.begun_ns = now_ns;
        self.deliveries += 1;
        true
    }

    /// Whether there were more deliveries than the throttle allows.
    #[must_use]
    pub fn is_too_fast(&self) -> bool {
        if self.interval_ns == 0 || self.deliveries < 2 {
            return false;
        }
        let intervals = (self.begun_ns - self.first_ns) as f64 / self.interval_ns as f64;
        (self.deliveries - 1) as f64 > intervals * TOLERANCE + 1.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn heard(throttle_ms: u64, times_ms: impl IntoIterator<Item = u64>) -> (u64, bool) {
        let mut throttled = Throttled::new(throttle_ms);
        let deliveries = times_ms.into_iter().filter(|ms| throttled.heard(7 * MS + ms * MS)).count() as u64;
        assert_eq!(deliveries, throttled.deliveries);
        (deliveries, throttled.is_too_fast())
    }

    #[test]
    fn what_comes_in_pieces_is_one_delivery() {
        assert_eq!(heard(100, [0, 0, 3, 49, 100, 149]), (2, false));
        assert_eq!(heard(0, [0, 0, 3, 49]), (3, false));
        assert_eq!(heard(100, []), (0, false));
    }

    #[test]
    fn a_server_without_the_throttle_is_found() {
        assert_eq!(heard(100, (0..1000).step_by(2)), (20, true));
        assert_eq!(heard(100, (0..1000).step_by(60)), (17, true));
        assert_eq!(heard(100, (0..1000).step_by(98)), (11, false), "within the tolerance");
    }

    proptest! {
        /// An honest server, a client that reads up to 80 ms late, and sends that come in two pieces.
        #[test]
        fn an_honest_server_is_not_accused(waits in prop::collection::vec((0..300u64, 0..80u64, 0..40u64), 1..80)) {
            let (mut at, mut read) = (0, Vec::new());
            for (idle, late, piece) in waits {
                at += 100 + if idle > 250 { idle } else { 0 };
                let first = read.last().copied().unwrap_or(0).max(at + late);
                read.extend([first, first.max(at + piece)]);
            }
            prop_assert!(!heard(100, read).1);
        }
    }
}

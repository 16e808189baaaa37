//! How often subscribers are delivered to: the least time between two deliveries.
//!
//! Times are rounded up to a few steps, so that subscribers who ask for about the same share their deliveries.

use std::time::Duration;

use ring::Nanos;

/// All that there are, in milliseconds; 0 is none.
const STEPS_MS: [u32; 8] = [0, 20, 50, 100, 250, 500, 1000, 5000];

/// One of these steps. Compares as the time does.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Throttle(u8);

impl Throttle {
    /// Everything is delivered at once.
    pub const NONE: Self = Self(0);
    /// How many there are, none included.
    pub const COUNT: usize = STEPS_MS.len();

    /// The shortest that is at least so long; beyond the longest, the longest.
    #[must_use]
    pub fn at_least(time: Duration) -> Self {
        let step = STEPS_MS.iter().position(|ms| Duration::from_millis((*ms).into()) >= time);
        Self(step.unwrap_or(STEPS_MS.len() - 1) as u8)
    }

    /// Its number: 0 is none, and less than [`Throttle::COUNT`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }

    /// In milliseconds.
    #[must_use]
    pub fn millis(self) -> u32 {
        STEPS_MS[self.index()]
    }

    /// In nanoseconds.
    #[must_use]
    pub fn nanos(self) -> Nanos {
        Nanos::from(self.millis()) * 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up() {
        for (asked, given) in [(0, 0), (1, 20), (20, 20), (21, 50), (100, 100), (101, 250), (1001, 5000), (9000, 5000)]
        {
            assert_eq!(Throttle::at_least(Duration::from_millis(asked)).millis(), given, "{asked}");
        }
        assert!(Throttle::at_least(Duration::from_micros(1)) > Throttle::NONE);
        assert_eq!(Throttle::at_least(Duration::from_millis(50)).nanos(), 50_000_000);
    }
}

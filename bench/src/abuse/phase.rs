//! Latencies before an attack and during it.
//!
//! Units: nanoseconds in histograms, milliseconds when shown.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer latencies count as this.
const LATENCY_MAX: Duration = Duration::from_secs(120);

/// Whether the attack has begun. All clones change together.
#[derive(Clone, Debug, Default)]
pub(super) struct Phase(Arc<AtomicBool>);

/// Latencies of one phase.
#[derive(Clone, Debug)]
pub(super) struct Latency(Histogram<u64>);

/// Latencies of both.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    pub(super) calm: Latency,
    pub(super) under_attack: Latency,
}

impl Phase {
    /// A phase in which the attack has begun.
    pub(super) fn under_attack() -> Self {
        let phase = Self::default();
        phase.attack();
        phase
    }

    /// The attack begins.
    pub(super) fn attack(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_under_attack(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self { calm: Latency::new(), under_attack: Latency::new() }
    }

    /// Adds those of another with the same phases.
    pub(super) fn add(&mut self, other: &Self) {
        self.calm.0 += &other.calm.0;
        self.under_attack.0 += &other.under_attack.0;
    }

    pub(super) fn record(&mut self, phase: &Phase, latency: Duration) {
        let latencies = if phase.is_under_attack() { &mut self.under_attack } else { &mut self.calm };
        latencies.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }
}

impl Latency {
    fn new() -> Self {
        let highest = u64::try_from(LATENCY_MAX.as_nanos()).expect("some minutes");
        Self(Histogram::new_with_bounds(1, highest, 3).expect("good bounds"))
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn median(&self) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(0.5))
    }

    pub(super) fn worst(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The 99th percentile.
    pub(super) fn p99(&self) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(0.99))
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let (median, p99) = (self.0.value_at_quantile(0.5), self.0.value_at_quantile(0.99));
        write!(f, "p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms", ms(median), ms(p99), ms(self.0.max()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_kept_apart_by_phase() {
        let (phase, mut latencies) = (Phase::default(), Latencies::new());
        latencies.record(&phase, Duration::from_millis(1));
        phase.clone().attack();
        latencies.record(&phase, Duration::from_millis(5));
        latencies.record(&phase, Duration::from_secs(500));
        assert_eq!((latencies.calm.count(), latencies.under_attack.count()), (1, 2));
        assert_eq!(latencies.calm.median().as_millis(), 1);
        assert!(latencies.under_attack.p99() >= LATENCY_MAX);
        let others = latencies.clone();
        latencies.add(&others);
        assert_eq!((latencies.calm.count(), latencies.under_attack.count()), (2, 4));
        assert_eq!(Latency::new().to_string(), "none");
    }
}

//! Distributions of times: nanoseconds, three significant digits.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies above this count as this: nanoseconds.
pub const LATENCY_MAX_NS: u64 = 300_000_000_000;

/// A distribution of times, whole: values and how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latencies {
    /// How many.
    pub count: u64,
    /// Half took at most this.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
    /// (nanoseconds, count), ascending, three significant digits.
    pub values: Vec<(u64, u64)>,
}

/// An empty histogram; all have the same bounds.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("valid bounds")
}

/// The value that so many in 100 do not exceed.
#[must_use]
pub fn percentile(histogram: &Histogram<u64>, percent: f64) -> u64 {
    // 99.9 / 100 is a little more than 0.999, which is another message.
    histogram.value_at_quantile((percent * 1e9).round() / 1e11)
}

impl Latencies {
    /// Of a histogram.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
            values: histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect(),
        }
    }

    /// The histogram again.
    #[must_use]
    pub fn histogram(&self) -> Histogram<u64> {
        let mut histogram = histogram();
        self.values.iter().for_each(|(value, count)| histogram.saturating_record_n(*value, *count));
        histogram
    }
}

//! The memory that the broker holds for its clients, by purpose, from the gauges in /metrics.
//!
//! Units: bytes; MiB when shown.

use std::fmt;

/// One gauge for each purpose.
const NAME: &str = "ringyard_memory_used_bytes{held=\"";

/// Bytes by purpose, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Budget(Vec<(String, u64)>);

impl Budget {
    /// Reads the text of /metrics; empty where the broker has no such gauges.
    pub(super) fn read(metrics: &str) -> Self {
        let gauges = metrics.lines().filter_map(|line| {
            let (purpose, bytes) = line.strip_prefix(NAME)?.split_once("\"} ")?;
            Some((purpose.to_owned(), bytes.parse().ok()?))
        });
        Self(gauges.collect())
    }

    pub(super) fn used(&self) -> u64 {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("not reported");
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(f, "{:.1} MiB", mib(self.used()))?;
        for (purpose, bytes) in self.0.iter().filter(|(_, bytes)| *bytes > 0) {
            write!(f, ", {purpose} {:.1}", mib(*bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_read_by_purpose() {
        let budget = Budget::read(
            "ringyard_memory_used_bytes{held=\"input\"} 1048576\nringyard_memory_used_bytes_max 7\n\
             ringyard_memory_used_bytes{held=\"names\"} 524288\nringyard_memory_used_bytes{held=\"queues\"} 0\n",
        );
        assert_eq!(budget.used(), 1_572_864);
        assert_eq!(budget.to_string(), "1.5 MiB, input 1.0, names 0.5");
        assert_eq!(Budget::read("").to_string(), "not reported");
    }
}

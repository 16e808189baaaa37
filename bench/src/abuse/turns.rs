//! The longest turn of the broker's shards during an attack, from the histogram in /metrics.
//!
//! A turn is one round of a shard's loop: while it lasts, the shard serves no other connection. Buckets count how many
//! turns since the start were at most so long, so the longest turn of an attack is in the last bucket that grew during
//! the attack. If the gauge of the longest turn grew, it has the exact value. Units: seconds, as in the exposition
//! format of Prometheus.

use std::collections::BTreeMap;
use std::fmt;

/// The histogram's name.
const NAME: &str = "ringyard_turn_seconds_bucket{";
/// The gauge's.
const LONGEST: &str = "ringyard_turn_max_seconds ";

/// How long turns were since the start.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Turns {
    /// Turns by their upper bound, over all shards. Keys are the bits of positive numbers, which sort like the numbers.
    counts: BTreeMap<u64, u64>,
    longest: f64,
}

/// The longest turn of a period.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Longest {
    /// This broker has no such histogram.
    NotReported,
    /// So many seconds.
    Exactly(f64),
    /// At most so many seconds.
    AtMost(f64),
    /// Longer than the last bound, in seconds.
    Above(f64),
}

impl Turns {
    /// Reads the text of /metrics.
    pub(super) fn read(metrics: &str) -> Self {
        let mut counts = BTreeMap::new();
        for line in metrics.lines().filter_map(|line| line.strip_prefix(NAME)) {
            let Some((labels, count)) = line.rsplit_once(' ') else { continue };
            let bound = labels.split_once("le=\"").and_then(|(_, rest)| rest.split('"').next()?.parse::<f64>().ok());
            if let (Some(bound), Ok(count)) = (bound, count.parse::<u64>()) {
                *counts.entry(bound.to_bits()).or_default() += count;
            }
        }
        let longest = metrics.lines().find_map(|line| line.strip_prefix(LONGEST)?.parse().ok());
        Self { counts, longest: longest.unwrap_or(0.0) }
    }

    /// The longest turn since `before`.
    pub(super) fn longest_since(&self, before: &Self) -> Longest {
        if self.longest > before.longest {
            return Longest::Exactly(self.longest);
        }
        let count = |turns: &Self, bound: &u64| turns.counts.get(bound).copied().unwrap_or(0);
        let grown = |bound: &u64| count(self, bound).saturating_sub(count(before, bound));
        let Some(all) = self.counts.keys().next_back().map(grown) else { return Longest::NotReported };
        let longest = self.counts.keys().find(|bound| grown(bound) == all);
        let last = self.counts.keys().rev().map(|bound| f64::from_bits(*bound)).find(|bound| bound.is_finite());
        match longest.map(|bound| f64::from_bits(*bound)) {
            Some(bound) if bound.is_finite() => Longest::AtMost(bound),
            _ => Longest::Above(last.unwrap_or(0.0)),
        }
    }
}

impl fmt::Display for Longest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReported => f.write_str("not reported"),
            Self::Exactly(seconds) => write!(f, "{:.3} ms", seconds * 1e3),
            Self::AtMost(seconds) => write!(f, "at most {:.3} ms", seconds * 1e3),
            Self::Above(seconds) => write!(f, "above {:.3} ms", seconds * 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(counts: [u64; 3]) -> Turns {
        let [short, medium, all] = counts;
        Turns::read(&format!(
            "# TYPE ringyard_turn_seconds histogram\n\
             ringyard_turn_seconds_bucket{{shard=\"0\",le=\"0.001\"}} {short}\n\
             ringyard_turn_seconds_bucket{{shard=\"0\",le=\"0.25\"}} {medium}\n\
             ringyard_turn_seconds_bucket{{shard=\"0\",le=\"+Inf\"}} {all}\n\
             ringyard_turn_seconds_bucket{{shard=\"1\",le=\"0.001\"}} 4\n\
             ringyard_turn_seconds_bucket{{shard=\"1\",le=\"0.25\"}} 4\n\
             ringyard_turn_seconds_bucket{{shard=\"1\",le=\"+Inf\"}} 4\n"
        ))
    }

    #[test]
    fn the_longest_turn_is_in_the_last_bucket_that_grew() {
        let before = turns([10, 11, 11]);
        assert_eq!(turns([20, 21, 21]).longest_since(&before), Longest::AtMost(0.001));
        assert_eq!(turns([20, 22, 22]).longest_since(&before), Longest::AtMost(0.25));
        assert_eq!(turns([20, 22, 23]).longest_since(&before), Longest::Above(0.25));
        let mut exact = turns([20, 22, 22]);
        exact.longest = Turns::read("ringyard_turn_max_seconds 0.125\n").longest;
        assert_eq!(exact.longest_since(&before), Longest::Exactly(0.125));
        assert_eq!(Turns::read("other 1\n").longest_since(&Turns::default()), Longest::NotReported);
    }
}

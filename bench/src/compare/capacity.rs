//! The search for a broker's capacity: the highest rate of publishing, open loop, that it sustains. It ends when the lowest
//! rate that was too much is at most [`STEP`] times the highest that was sustained.
//!
//! Runs nothing: the rates tried so far come in, the rate to try next goes out.

use loadgen::outcome::Outcome;

/// The precision of the answer.
const STEP: f64 = 1.26;
/// The factor between rates while all were sustained, or none was.
const STRIDE: f64 = 1.6;
/// The first rate, as a share of what a closed loop reached.
const FIRST: f64 = 0.8;
/// The most tries.
pub(super) const TRIES: usize = 7;
/// At least this share of what was due is delivered in the measured time.
const DELIVERED: f64 = 0.97;
/// A queue that grows by a fifth of the rate makes the last messages of a try later than this: nanoseconds.
const LATE_NS: u64 = 400_000_000;

/// A rate, in messages published per second, and whether it was sustained.
pub(super) type Try = (f64, bool);

/// Whether a server sustained this open-loop rate.
pub(super) fn sustained(outcome: &Outcome, rate: f64, deliveries_per_message: f64) -> bool {
    let due = rate * deliveries_per_message * DELIVERED;
    outcome.errors.none()
        && outcome.invalid.is_empty()
        && outcome.delivered_per_second() >= due
        && outcome.latency.p99 <= LATE_NS
}

/// The rate to try next, given what a closed loop published per second; nothing when the answer is known, or after `most`
/// tries.
pub(super) fn next(closed_loop: f64, tries: &[Try], most: usize) -> Option<f64> {
    if tries.len() >= most {
        return None;
    }
    let first = rounded(closed_loop * FIRST).max(1.0);
    let next = match (highest(tries), lowest_too_much(tries)) {
        (None, None) => first,
        (Some(good), None) => good * STRIDE,
        (None, Some(bad)) => bad / STRIDE,
        (Some(good), Some(bad)) if bad / good > STEP => (good * bad).sqrt(),
        _ => return None,
    };
    let next = rounded(next);
    (next > 0.0 && tries.iter().all(|(tried, _)| *tried != next)).then_some(next)
}

/// The highest rate that was sustained: the answer.
pub(super) fn highest(tries: &[Try]) -> Option<f64> {
    let below = lowest_too_much(tries).unwrap_or(f64::INFINITY);
    // A sustained rate above one that was not is luck.
    tries.iter().filter(|(rate, good)| *good && *rate < below).map(|(rate, _)| *rate).reduce(f64::max)
}

fn lowest_too_much(tries: &[Try]) -> Option<f64> {
    tries.iter().filter(|(_, good)| !good).map(|(rate, _)| *rate).reduce(f64::min)
}

/// Two significant digits.
pub(super) fn rounded(rate: f64) -> f64 {
    if rate < 1.0 {
        return (rate * 10.0).round() / 10.0;
    }
    let unit = 10_f64.powf(rate.log10().floor() - 1.0);
    (rate / unit).round() * unit
}

#[cfg(test)]
mod tests {
    use loadgen::outcome::{Latencies, Traffic};

    use super::*;

    fn search(capacity: f64, closed_loop: f64) -> Vec<Try> {
        let mut tries = Vec::new();
        while let Some(rate) = next(closed_loop, &tries, TRIES) {
            tries.push((rate, rate <= capacity));
        }
        tries
    }

    #[test]
    fn a_search_comes_near_from_both_sides() {
        for capacity in [3.0, 97.0, 130.0, 1000.0, 4321.0] {
            for share in [0.5, 0.9, 1.0, 1.1, 2.0] {
                let tries = search(capacity, capacity * share);
                let found = highest(&tries).unwrap();
                assert!(found <= capacity && found * STEP * 1.06 >= capacity, "{capacity} {share}: {tries:?}");
                assert!(tries.len() <= TRIES, "{tries:?}");
            }
        }
    }

    #[test]
    fn a_search_ends() {
        assert_eq!(search(f64::INFINITY, 100.0).len(), TRIES);
        assert!(highest(&search(0.0, 100.0)).is_none());
        assert!(search(0.0, 0.5).len() <= TRIES);
    }

    #[test]
    fn luck_does_not_count() {
        assert_eq!(highest(&[(100.0, true), (150.0, false), (200.0, true)]), Some(100.0));
    }

    #[test]
    fn rates_are_round() {
        assert_eq!([0.04, 0.26, 1.0, 12.4, 987.0, 1234.0].map(rounded), [0.0, 0.3, 1.0, 12.0, 990.0, 1200.0]);
    }

    #[test]
    fn sustained_is_in_time_and_whole() {
        let outcome = |delivered, p99| Outcome {
            seconds: 2.0,
            traffic: Traffic { delivered, ..Traffic::default() },
            latency: Latencies { p99, ..Latencies::default() },
            ..Outcome::default()
        };
        assert!(sustained(&outcome(2000, LATE_NS), 10.0, 100.0));
        assert!(!sustained(&outcome(1900, LATE_NS), 10.0, 100.0));
        assert!(!sustained(&outcome(2000, LATE_NS + 1), 10.0, 100.0));
        let mut lossy = outcome(2000, 1);
        lossy.errors.lost = 1;
        assert!(!sustained(&lossy, 10.0, 100.0));
        let mut invalid = outcome(2000, 1);
        invalid.invalid.push("no".to_owned());
        assert!(!sustained(&invalid, 10.0, 100.0));
    }
}

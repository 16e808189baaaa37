//! Whether the load generator itself was the limit, so that the figures say little about the server.

use super::Run;
use super::rows::State;
use crate::outcome::{Latencies, Outcome, Own};
use crate::plan::Pacing;
use crate::worker::Times;

/// A thread that was running or waiting for a core for more than this share of the time was the limit.
const SATURATED: f64 = 0.97;

impl Run {
    /// Why the load generator was the limit; nothing if it was not.
    pub(super) fn bottlenecks(&self, outcome: &Outcome, latency: &Latencies, times: Times) -> Vec<String> {
        let mut found = Vec::new();
        if self.plan.pacing == Pacing::Idle || outcome.traffic.delivered == 0 {
            return found;
        }
        let Own { cpu_share, busiest_worker, .. } = outcome.own;
        if cpu_share > SATURATED {
            found.push(format!("it used {:.0} % of the cores it may run on", cpu_share * 100.0));
        } else if busiest_worker > SATURATED {
            let share = busiest_worker * 100.0;
            found.push(format!("its busiest worker was running or waiting for a core {share:.0} % of the time"));
        }
        let whole = !outcome.interrupted && self.ended.is_none();
        if let (Pacing::Open(rate), true) = (self.plan.pacing, whole) {
            let late = outcome.traffic.lateness_p99_ns;
            if late > 10_000_000 && late > latency.p50 / 2 {
                found.push(format!("it published {:.0} ms late (p99)", late as f64 / 1e6));
            }
            let share = f64::from(self.plan.options.share.of);
            let wanted = rate * (times.end - times.measure_from) as f64 / 1e9 / share;
            let reached = outcome.traffic.published_measured as f64;
            // What was due while the publisher had no connection, or the server took no more of it, is not our delay.
            let excused = self.last.counts.unpublished as f64;
            if wanted > 100.0 && reached + excused < wanted * 0.95 && self.last.counts.blocked == 0 {
                found.push(format!("{reached:.0} messages were published in the measured time instead of {wanted:.0}"));
            }
        }
        found
    }
}

/// The busiest worker's share of a core, waiting for one included, between two states. `but_last`: the last does not count.
pub(super) fn busiest(from: &State, to: &State, but_last: bool) -> f64 {
    let span = (to.at - from.at).max(1) as f64;
    let workers = to.busy_ns.len() - usize::from(but_last && !to.busy_ns.is_empty());
    to.busy_ns
        .iter()
        .zip(&from.busy_ns)
        .take(workers)
        .map(|(to, from)| to.saturating_sub(*from) as f64 / span)
        .fold(0.0, f64::max)
}

//! How far a comparison is, and when it will be over.

use std::time::Duration;

use time::OffsetDateTime;

use super::peer::Peer;
use super::plan::{Rate, Step};

/// Counts the steps and estimates when the last will be done.
pub(super) struct Progress {
    steps: usize,
    taken: usize,
    /// Estimates: for the steps that are left, and for those that are done.
    left: Duration,
    estimated: Duration,
    /// What the steps that are done really took.
    took: Duration,
}

impl Progress {
    pub(super) fn new(steps: &[Step]) -> Self {
        let left = steps.iter().map(|step| step.point.estimate()).sum();
        Self { steps: steps.len(), taken: 0, left, estimated: Duration::ZERO, took: Duration::ZERO }
    }

    /// Prints the step that begins.
    pub(super) fn announce(&mut self, step: &Step, peer: &Peer, rounds: u32) {
        self.taken += 1;
        let left = self.left();
        let end = OffsetDateTime::now_utc() + left;
        let round =
            if step.point.rate == Rate::Search { String::new() } else { format!(", run {} of {rounds}", step.round) };
        println!(
            "[{}/{}, {} min left, until {:02}:{:02} UTC] {}: {}{round}",
            self.taken,
            self.steps,
            left.as_secs().div_ceil(60),
            end.hour(),
            end.minute(),
            step.point.title(),
            peer.title,
        );
    }

    /// The estimate, corrected by how well the estimates were so far.
    fn left(&self) -> Duration {
        if self.estimated.is_zero() {
            return self.left;
        }
        self.left.mul_f64(self.took.as_secs_f64() / self.estimated.as_secs_f64())
    }

    pub(super) fn done(&mut self, step: &Step, took: Duration) {
        let estimate = step.point.estimate();
        self.left = self.left.saturating_sub(estimate);
        self.estimated += estimate;
        self.took += took;
    }
}

//! What a scrape is made of: all counters at one moment.

use crate::http::app::App;
use crate::http::stats::sum;
use crate::observe::counters::{Distribution, Scale, Snapshot, Stats};
use crate::observe::process::Process;

/// Everything at one moment; each number by itself, not one cut through all.
pub(super) struct View<'a> {
    pub(super) app: &'a App,
    pub(super) shards: Vec<Snapshot>,
    /// The shards', and what the control plane refused by itself.
    pub(super) totals: Snapshot,
    pub(super) delivery: Distribution,
    pub(super) batch: Distribution,
    pub(super) turn: Distribution,
    pub(super) process: Process,
}

impl<'a> View<'a> {
    pub(super) fn now(app: &'a App) -> Self {
        let shared = app.shared();
        let (mut delivery, mut batch) = (Distribution::new(Scale::TIME), Distribution::new(Scale::COUNT));
        let mut turn = Distribution::new(Scale::TIME);
        for shard in &shared.stats {
            shard.delivery.add_to(&mut delivery);
            shard.batch.add_to(&mut batch);
            shard.turn.add_to(&mut turn);
        }
        let shards: Vec<Snapshot> = shared.stats.iter().map(Stats::snapshot).collect();
        let totals = sum(shared, shards.iter().copied());
        Self { app, shards, totals, delivery, batch, turn, process: Process::this() }
    }
}

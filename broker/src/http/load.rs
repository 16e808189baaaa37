//! `$sys/load`: once a second, while somebody subscribes to it, what the broker does, published as any message is.
//!
//! Not responsible for all that is counted: operators have `/metrics` and `/api/stats`. What is published here may be read by
//! anyone who may subscribe.
//!
//! Cost: four look-ups in the registry a second; while somebody subscribes, one message a second, made of the shards' counters.
//! Rates are over the time since the look before: so the first message comes with the second look.

use std::time::{Duration, SystemTime};

use protocol::topic::LOAD;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::http::app::App;
use crate::http::{stats, sys};
use crate::observe::counters::{Distribution, Scale, Snapshot, Stats};
use crate::observe::process::Process;
use crate::shard::shared::SharedState;

/// Every filter that matches it: those that begin with a wildcard do not.
const FILTERS: [&str; 4] = [LOAD, "$sys/#", "$sys/+", "$sys/load/#"];
/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// The payload. Rates are per second, over the time since the last look, and whole numbers.
#[derive(PartialEq, Serialize, Debug)]
struct Load {
    uptime_s: u64,
    connections: u64,
    subscriptions: u64,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    sends: u64,
    /// Of the sends to subscribers in this time, on average, to a tenth; `None`: there were none.
    messages_per_send: Option<f64>,
    delivery_us: Quantiles,
    memory: Memory,
    totals: Totals,
    shards: Vec<OfShard>,
}

/// From a message's sequencing to its completed send, in microseconds: bounds of buckets, so up to a fifth too much.
/// `None`: nothing was sent in this time.
#[derive(PartialEq, Eq, Serialize, Debug)]
struct Quantiles {
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
    p999: Option<u64>,
}

/// Bytes: held for clients, the most of that, and what the process has in memory.
#[derive(PartialEq, Eq, Serialize, Debug)]
struct Memory {
    held: u64,
    max: u64,
    resident: Option<u64>,
}

/// Since the start.
#[derive(PartialEq, Eq, Serialize, Debug)]
struct Totals {
    messages_in: u64,
    messages_out: u64,
    sends: u64,
    accepted: u64,
    closed: u64,
}

/// One shard's part.
#[derive(PartialEq, Eq, Serialize, Debug)]
struct OfShard {
    connections: u64,
    messages_in: u64,
    messages_out: u64,
    sends: u64,
    log_bytes: u64,
}

/// All counters at one moment.
struct Look {
    at: Instant,
    shards: Vec<Snapshot>,
    totals: Snapshot,
    delivery: Distribution,
    batch: Distribution,
}

impl Look {
    fn now(shared: &SharedState) -> Self {
        let (mut delivery, mut batch) = (Distribution::new(Scale::TIME), Distribution::new(Scale::COUNT));
        for shard in &shared.stats {
            shard.delivery.add_to(&mut delivery);
            shard.batch.add_to(&mut batch);
        }
        let shards: Vec<Snapshot> = shared.stats.iter().map(Stats::snapshot).collect();
        let totals = stats::sum(shared, shards.iter().copied());
        Self { at: Instant::now(), shards, totals, delivery, batch }
    }
}

/// Publishes for as long as the runtime runs and the broker stays.
pub(crate) async fn run(app: App) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Look> = None;
    while !app.is_stopping() {
        ticks.tick().await;
        // Follows the clock when that is set.
        app.shared().wall_clock.set(SystemTime::now(), ring::monotonic());
        if !FILTERS.iter().any(|filter| sys::is_read(&app, filter)) {
            before = None;
            continue;
        }
        let now = Look::now(app.shared());
        if let Some(before) = &before {
            let budget = &app.shared().budget;
            let resident = Process::this().resident_memory_bytes;
            let memory = Memory { held: budget.used(), max: budget.bytes_max(), resident };
            sys::publish(&app, LOAD, &load(before, &now, memory, app.started().elapsed()));
        }
        before = Some(now);
    }
}

fn load(before: &Look, now: &Look, memory: Memory, uptime: Duration) -> Load {
    let ms = ((now.at - before.at).as_millis() as u64).max(1);
    let per_second = |was: u64, is: u64| (is.saturating_sub(was) * 1000 + ms / 2) / ms;
    let rate = |count: fn(&Snapshot) -> u64| per_second(count(&before.totals), count(&now.totals));
    let of_shard = |(was, is): (&Snapshot, &Snapshot)| OfShard {
        connections: is.connections,
        messages_in: per_second(was.messages_in, is.messages_in),
        messages_out: per_second(was.messages_out, is.messages_out),
        sends: per_second(was.sends, is.sends),
        log_bytes: is.log_bytes,
    };
    let (delivery, batch) = (now.delivery.since(&before.delivery), now.batch.since(&before.batch));
    let microseconds = |rank| delivery.quantile(rank).map(|ns| ns / 1000);
    let totals = &now.totals;
    Load {
        uptime_s: uptime.as_secs(),
        connections: totals.connections,
        subscriptions: totals.subscriptions,
        messages_in: rate(|counted| counted.messages_in),
        messages_out: rate(|counted| counted.messages_out),
        bytes_in: rate(|counted| counted.bytes_in),
        bytes_out: rate(|counted| counted.bytes_out),
        sends: rate(|counted| counted.sends),
        messages_per_send: batch.mean().map(|mean| (mean * 10.0).round() / 10.0),
        delivery_us: Quantiles {
            p50: microseconds(0.5),
            p90: microseconds(0.9),
            p99: microseconds(0.99),
            p999: microseconds(0.999),
        },
        memory,
        totals: Totals {
            messages_in: totals.messages_in,
            messages_out: totals.messages_out,
            sends: totals.sends,
            accepted: totals.accepted,
            closed: totals.closed,
        },
        shards: before.shards.iter().zip(&now.shards).map(of_shard).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    #[test]
    fn rates_are_per_second_and_gauges_as_they_are() {
        let shared = SharedState::new(2, 1, Epoch(1));
        shared.stats[0].messages_in.add(100);
        shared.stats[1].delivery.observe(Scale::TIME, 10_000_000, 5);
        let before = Look::now(&shared);
        shared.stats[0].messages_in.add(1000);
        shared.stats[1].connections.add(3);
        shared.stats[1].sends.add(7);
        shared.stats[0].batch.observe(Scale::COUNT, 3, 2);
        shared.stats[0].batch.observe(Scale::COUNT, 4, 1);
        shared.stats[0].delivery.observe(Scale::TIME, 100_000, 99);
        shared.stats[0].delivery.observe(Scale::TIME, 3_000_000, 1);
        let now = Look { at: before.at + Duration::from_millis(500), ..Look::now(&shared) };
        let memory = || Memory { held: 1, max: 2, resident: None };
        let load = load(&before, &now, memory(), Duration::from_millis(2700));
        assert_eq!((load.uptime_s, load.connections, load.messages_in, load.messages_out), (2, 3, 2000, 0));
        assert_eq!((load.sends, load.messages_per_send, load.totals.messages_in), (14, Some(3.3), 1100));
        assert_eq!((&load.memory, load.shards[0].messages_in, load.shards[1].sends), (&memory(), 2000, 14));
        let between = |us: Option<u64>, least, most| us.is_some_and(|us| (least..=most).contains(&us));
        assert!(between(load.delivery_us.p50, 100, 125) && between(load.delivery_us.p99, 100, 125), "{load:?}");
        assert!(between(load.delivery_us.p999, 3000, 3750), "what came before is left out: {load:?}");
        let idle = super::load(&now, &now, memory(), Duration::ZERO);
        assert_eq!((idle.messages_per_send, idle.delivery_us.p50, idle.messages_in), (None, None, 0));
    }

    #[test]
    fn the_filters_are_those_that_match() {
        for filter in FILTERS {
            assert!(protocol::topic::matches(filter, LOAD), "{filter}");
        }
        for filter in ["#", "+/load", "+/#", "+/+", "$sys", "$sys/load/+"] {
            assert!(!protocol::topic::matches(filter, LOAD), "{filter}");
        }
    }
}

//! `GET /api/stats`: the shards' counters, summed and one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use ring::Io;
use serde::Serialize;

use crate::capacity::budget::Held;
use crate::http::app::{App, VERSION};
use crate::observe::counters::{Snapshot, Stats};
use crate::shard::shared::SharedState;

/// The answer. Fields of [`Snapshot`] are explained at [`Stats`].
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: &'static str,
    driver: &'static str,
    uptime_ms: u64,
    /// Gauge: topics and filters that somebody publishes, subscribes to or remembers.
    topics_registered: usize,
    /// Gauge: HTTP connections, those that stay with shards included.
    http_connections: usize,
    /// What is held for clients.
    memory: Memory,
    /// The sums, with what the control plane refused by itself.
    totals: Snapshot,
    /// By number.
    shards: Vec<Snapshot>,
}

/// Bytes held for clients ([`Budget`](crate::capacity::budget::Budget)).
#[derive(Debug, Serialize)]
struct Memory {
    used: u64,
    max: u64,
    /// By what they are held for.
    held: BTreeMap<&'static str, u64>,
}

/// The handler.
pub(crate) async fn show(State(app): State<App>) -> Json<Report> {
    Json(report(app.shared(), app.room().io, app.started().elapsed(), app.http_connections()))
}

/// All shards' counters added up, with what the control plane refused by itself.
pub(crate) fn totals(shared: &SharedState) -> Snapshot {
    sum(shared, shared.stats.iter().map(Stats::snapshot))
}

/// The same of looks that were taken before.
pub(crate) fn sum(shared: &SharedState, shards: impl Iterator<Item = Snapshot>) -> Snapshot {
    let mut totals = shared.plane.snapshot();
    shards.for_each(|shard| totals += shard);
    totals
}

fn report(shared: &SharedState, io: Io, uptime: Duration, http_connections: usize) -> Report {
    let shards: Vec<Snapshot> = shared.stats.iter().map(Stats::snapshot).collect();
    Report {
        version: VERSION,
        driver: io.name(),
        uptime_ms: uptime.as_millis() as u64,
        topics_registered: shared.registry.len(),
        http_connections,
        memory: Memory {
            used: shared.budget.used(),
            max: shared.budget.bytes_max(),
            held: Held::ALL.iter().map(|held| (held.label(), shared.budget.held(*held))).collect(),
        },
        totals: sum(shared, shards.iter().copied()),
        shards,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::budget::Charge;
    use crate::ids::Epoch;

    #[test]
    fn totals_are_sums_and_every_counter_has_its_name() {
        let shared = SharedState::new(2, 0, Epoch(1));
        shared.stats[0].messages_out.add(3);
        shared.stats[1].messages_out.add(4);
        shared.stats[1].dropped_slow.add(1);
        let shared = shared.within(1000);
        let input = Charge::new(shared.budget.of_shard(1), Held::Input, 70);
        let topic = shared.registry.resolve("demo");
        let json = serde_json::to_value(report(&shared, Io::Epoll, Duration::from_millis(1500), 5)).unwrap();
        drop(topic);
        assert_eq!(json["version"], VERSION);
        assert_eq!(json["driver"], "epoll");
        assert_eq!(json["uptime_ms"], 1500);
        assert_eq!(json["topics_registered"], 1);
        assert_eq!(json["http_connections"], 5);
        assert_eq!((&json["memory"]["max"], &json["memory"]["held"]["bodies"]), (&1000.into(), &0.into()));
        // Names are charged too.
        assert_eq!(json["memory"]["held"]["input"], 70);
        assert!(json["memory"]["used"].as_u64().unwrap() >= 70);
        drop(input);
        assert_eq!(json["totals"]["messages_out"], 7);
        assert_eq!(json["totals"]["dropped_slow"], 1);
        assert_eq!(json["shards"].as_array().unwrap().len(), 2);
        assert_eq!(json["shards"][0]["messages_out"], 3);
        for name in ["connections", "subscriptions", "topics", "messages_in", "sends", "bytes_out", "accepted"] {
            assert_eq!(json["totals"][name], 0, "{name}");
        }
    }
}

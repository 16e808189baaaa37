//! `GET /api/stats`: the shards' counters, summed and one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use ring::Io;
use serde::Serialize;

use crate::capacity::budget::Held;
use crate::http::routes::{App, VERSION};
use crate::observe::counters::{Snapshot, Stats};
use crate::shard::shared::Links;

/// The answer. Fields of [`Snapshot`] are explained at [`Stats`].
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: &'static str,
    driver: &'static str,
    uptime_ms: u64,
    /// Gauge: topics and filters that somebody publishes, subscribes to or remembers.
    topics_registered: usize,
    /// Gauge: HTTP connections that the control plane holds.
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
    Json(report(app.links(), app.room().io, app.started().elapsed(), app.http_connections()))
}

/// All shards' counters added up, with what the control plane refused by itself.
pub(crate) fn totals(links: &Links) -> Snapshot {
    sum(links, links.stats.iter().map(Stats::snapshot))
}

/// The same of looks that were taken before.
pub(crate) fn sum(links: &Links, shards: impl Iterator<Item = Snapshot>) -> Snapshot {
    let mut totals = links.plane.snapshot();
    shards.for_each(|shard| totals += shard);
    totals
}

fn report(links: &Links, io: Io, uptime: Duration, http_connections: usize) -> Report {
    let shards: Vec<Snapshot> = links.stats.iter().map(Stats::snapshot).collect();
    Report {
        version: VERSION,
        driver: io.name(),
        uptime_ms: uptime.as_millis() as u64,
        topics_registered: links.registry.len(),
        http_connections,
        memory: Memory {
            used: links.budget.used(),
            max: links.budget.bytes_max(),
            held: Held::ALL.iter().map(|held| (held.label(), links.budget.held(*held))).collect(),
        },
        totals: sum(links, shards.iter().copied()),
        shards,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::budget::Charge;

    #[test]
    fn totals_are_sums_and_every_counter_has_its_name() {
        let links = Links::new(2, 0, 1);
        links.stats[0].messages_out.add(3);
        links.stats[1].messages_out.add(4);
        links.stats[1].dropped_slow.add(1);
        let links = links.within(1000);
        let input = Charge::new(links.budget.of_shard(1), Held::Input, 70);
        let topic = links.registry.resolve("demo");
        let json = serde_json::to_value(report(&links, Io::Epoll, Duration::from_millis(1500), 5)).unwrap();
        links.registry.release(topic);
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

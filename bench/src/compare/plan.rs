//! The workloads, and the order in which they run. A row is a table of the results; a point is one workload of a row,
//! the same for every broker.
//!
//! Brokers alternate: A, B, C, A, B, C, ... Durations are seconds, rates are messages published per second. All are
//! chosen so that a comparison of seven brokers takes less than half an hour.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A table of the results.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Row {
    /// As many messages as the broker can deliver to 5,000 subscribers.
    Saturation,
    /// Bursts of ten, to 5,000 subscribers.
    Bursts,
    /// Processor time per message, from 100 to 15,000 subscribers.
    Cpu,
    /// Capacity with 1,000 subscribers, and latencies below it.
    Latency,
    /// 15,000 idle connections: memory, and what it takes to admit them.
    #[value(alias = "crowd", alias = "memory", alias = "admission")]
    Idle,
    /// 10,000 topics of 10 subscribers.
    Topics,
}

impl Row {
    pub(super) const ALL: [Self; 6] =
        [Self::Saturation, Self::Bursts, Self::Cpu, Self::Latency, Self::Idle, Self::Topics];
}

/// How messages are published.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Rate {
    /// Not at all.
    Idle,
    /// Closed loop: whenever fewer bursts than this are on their way.
    ClosedLoop(u32),
    /// Open loop: so many messages per second.
    OpenLoop(f64),
    /// So many percent of the slowest peer's capacity.
    Percent(u32),
    /// At several rates, to find the capacity.
    Search,
}

/// One workload.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Point {
    pub(super) row: Row,
    /// Identifies the point in the results.
    pub(super) key: String,
    pub(super) clients: u32,
    pub(super) topics: u32,
    pub(super) topics_per_client: u32,
    pub(super) rate: Rate,
    pub(super) burst: u32,
    pub(super) warmup: f64,
    pub(super) duration: f64,
}

/// Bytes of every message.
pub(super) const PAYLOAD: u32 = 128;
/// Deliveries per second where every message is a send of its own, whatever the number of subscribers.
const MODERATE: u32 = 15_000;
/// Subscribers whose processor time per message is measured.
pub(super) const SUBSCRIBERS: [u32; 4] = [100, 1_000, 5_000, 15_000];
/// Percents of the slowest peer's capacity at which latency is measured.
pub(super) const PERCENTS: [u32; 2] = [30, 70];
/// Percent of the slowest peer's capacity at which many topics are measured.
pub(super) const TOPICS_PERCENT: u32 = 50;
/// Bursts on their way at saturation.
pub(super) const WINDOWS: [u32; 2] = [4, 64];

/// Every point, in order. Quick: fewer of them, tens of clients and tenths of seconds.
pub(super) fn points(quick: bool) -> Vec<Point> {
    let point = |row, key: &str, clients, rate, seconds: f64| Point {
        row,
        key: key.to_owned(),
        clients: if quick { clients / 100 + 10 } else { clients },
        topics: 1,
        topics_per_client: 1,
        rate,
        burst: 1,
        warmup: if quick { 0.05 } else { 0.7 },
        duration: if quick { 0.2 } else { seconds },
    };
    let few = |all: &[u32]| if quick { all[..1].to_vec() } else { all.to_vec() };
    let mut points = Vec::new();
    for window in few(&WINDOWS) {
        let key = format!("saturation-{window}");
        points.push(point(Row::Saturation, &key, 5_000, Rate::ClosedLoop(window), 4.0));
    }
    points.push(Point { burst: 10, ..point(Row::Bursts, "bursts", 5_000, Rate::ClosedLoop(1), 4.0) });
    for clients in few(&SUBSCRIBERS) {
        let rate = f64::from(MODERATE / clients);
        points.push(point(Row::Cpu, &format!("cpu-{clients}"), clients, Rate::OpenLoop(rate), 4.0));
    }
    points.push(point(Row::Latency, "latency-capacity", 1_000, Rate::Search, 2.5));
    for percent in few(&PERCENTS) {
        points.push(point(Row::Latency, &format!("latency-{percent}"), 1_000, Rate::Percent(percent), 5.0));
    }
    points.push(point(Row::Idle, "idle", 15_000, Rate::Idle, 2.0));
    let topics = |key: &str, rate, seconds| Point {
        topics: if quick { 20 } else { 10_000 },
        topics_per_client: if quick { 10 } else { 100 },
        ..point(Row::Topics, key, 1_000, rate, seconds)
    };
    points.push(topics("topics-capacity", Rate::Search, 2.5));
    points.push(topics(&format!("topics-{TOPICS_PERCENT}"), Rate::Percent(TOPICS_PERCENT), 4.0));
    points
}

/// One thing to do: a run of a peer, or the search for its capacity.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Step {
    pub(super) point: Point,
    /// Index of the peer.
    pub(super) peer: usize,
    /// From 1.
    pub(super) round: u32,
}

/// Everything to do, in order. A capacity is searched once, not `rounds` times.
pub(super) fn steps(points: &[Point], rounds: u32, peers: usize, can: impl Fn(usize, &Point) -> bool) -> Vec<Step> {
    let mut steps = Vec::new();
    for point in points {
        let rounds = if point.rate == Rate::Search { 1 } else { rounds };
        for round in 1..=rounds {
            let able = (0..peers).filter(|peer| can(*peer, point));
            steps.extend(able.map(|peer| Step { point: point.clone(), peer, round }));
        }
    }
    steps
}

/// Runs that a search usually takes.
const PROBES: f64 = 4.5;

impl Point {
    /// How long a run usually takes: starting the server, connecting, measuring, draining.
    pub(super) fn estimate(&self) -> Duration {
        let once = 1.2 + f64::from(self.clients) / 5000.0 + self.warmup + self.duration;
        Duration::from_secs_f64(if self.rate == Rate::Search { once * PROBES } else { once })
    }

    /// No run may take longer.
    pub(super) fn patience(&self) -> Duration {
        self.estimate() * 2 + Duration::from_secs(45)
    }

    /// Whether the point drives the server to its limit.
    pub(super) fn goes_to_the_limit(&self) -> bool {
        matches!(self.rate, Rate::ClosedLoop(_) | Rate::Search)
    }

    /// In words, for progress.
    pub(super) fn title(&self) -> String {
        let subscribers = format!("{} subscribers", loadgen::format::count(self.clients.into()));
        match (self.row, self.rate) {
            (_, Rate::Search) => format!("capacity, {}", self.shape()),
            (Row::Saturation, Rate::ClosedLoop(window)) => format!("saturation, {window} outstanding"),
            (Row::Bursts, _) => "bursts of ten".to_owned(),
            (Row::Cpu, _) => format!("processor time, {subscribers}"),
            (Row::Latency, Rate::Percent(percent)) => format!("latency at {percent} %"),
            (Row::Idle, _) => format!("{} idle", loadgen::format::count(self.clients.into())),
            (_, Rate::Percent(percent)) => format!("{} at {percent} %", self.shape()),
            _ => self.key.clone(),
        }
    }

    fn shape(&self) -> String {
        if self.topics > 1 {
            return format!("{} topics", loadgen::format::count(self.topics.into()));
        }
        format!("{} subscribers", loadgen::format::count(self.clients.into()))
    }

    /// The point whose capacity the percentage refers to.
    pub(super) fn capacity_key(&self) -> &'static str {
        if self.row == Row::Topics { "topics-capacity" } else { "latency-capacity" }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_are_unique_and_every_row_has_points() {
        for quick in [false, true] {
            let points = points(quick);
            assert_eq!(points.iter().map(|point| &point.key).collect::<BTreeSet<_>>().len(), points.len());
            assert!(Row::ALL.iter().all(|row| points.iter().any(|point| point.row == *row)));
            for point in &points {
                let searched = points.iter().position(|other| other.key == point.capacity_key());
                let at = points.iter().position(|other| other == point);
                assert!(!matches!(point.rate, Rate::Percent(_)) || searched < at, "{}", point.key);
            }
        }
    }

    #[test]
    fn peers_alternate() {
        let points = points(false);
        let steps = steps(&points, 3, 2, |peer, point| peer == 0 || point.row != Row::Topics);
        let of_first: Vec<_> =
            steps.iter().filter(|step| step.point == points[0]).map(|step| (step.round, step.peer)).collect();
        assert_eq!(of_first, [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]);
        assert_eq!(steps.iter().filter(|step| step.point.key == "topics-capacity").count(), 1);
        assert!(steps.iter().all(|step| step.peer == 0 || step.point.row != Row::Topics));
    }

    #[test]
    fn a_comparison_of_seven_takes_less_than_half_an_hour() {
        let few = |row: Row| matches!(row, Row::Topics);
        let steps = steps(&points(false), 3, 7, |peer, point| {
            if peer == 1 { !matches!(point.row, Row::Cpu | Row::Latency) } else { peer < 5 || !few(point.row) }
        });
        let all: Duration = steps.iter().map(|step| step.point.estimate()).sum();
        assert!(all < Duration::from_secs(30 * 60), "{all:?}");
    }

    #[test]
    fn the_rate_of_deliveries_does_not_depend_on_the_number_of_subscribers() {
        for point in points(false).iter().filter(|point| point.row == Row::Cpu) {
            let Rate::OpenLoop(rate) = point.rate else { panic!("{}", point.key) };
            assert_eq!((rate * f64::from(point.clients)) as u32, MODERATE);
        }
    }
}

//! `$sys/load`: once a second, while somebody subscribes to it, what the broker does, published as any message is.
//!
//! Not responsible for all that is counted: operators have `/metrics` and `/api/stats`. What is published here may be read by
//! anyone who may subscribe, and is therefore no more than a client needs to be considerate.
//!
//! Cost: four look-ups in the registry a second; while somebody subscribes, one message a second.

use std::time::{Duration, SystemTime};

use protocol::v1::PayloadKind;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::http::app::App;
use crate::http::stats;
use crate::message::Payload;
use crate::observe::counters::Snapshot;
use crate::shard::shared::ControlMessage;

/// Where it is published.
const TOPIC: &str = "$sys/load";
/// Every filter that matches it: those that begin with a wildcard do not.
const FILTERS: [&str; 4] = [TOPIC, "$sys/#", "$sys/+", "$sys/load/#"];
/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// The payload. Rates are per second, over the time since the last look.
#[derive(PartialEq, Eq, Serialize, Debug)]
struct Load {
    uptime_s: u64,
    connections: u64,
    subscriptions: u64,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// Publishes for as long as the runtime runs and the broker stays.
pub(crate) async fn run(app: App) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (Instant::now(), Snapshot::default());
    while !app.is_stopping() {
        ticks.tick().await;
        // Follows the clock when that is set.
        app.shared().wall_clock.set(SystemTime::now(), ring::monotonic());
        let now = (Instant::now(), stats::totals(app.shared()));
        if FILTERS.iter().any(|filter| app.shared().registry.subscriptions_to(filter) > 0) {
            let load = load(&before.1, &now.1, now.0 - before.0, app.started().elapsed());
            publish(&app, &load);
        }
        before = now;
    }
}

/// Rates are rounded to whole numbers.
fn load(before: &Snapshot, now: &Snapshot, elapsed: Duration, uptime: Duration) -> Load {
    let ms = (elapsed.as_millis() as u64).max(1);
    let rate = |count: fn(&Snapshot) -> u64| (count(now).saturating_sub(count(before)) * 1000 + ms / 2) / ms;
    Load {
        uptime_s: uptime.as_secs(),
        connections: now.connections,
        subscriptions: now.subscriptions,
        messages_in: rate(|counted| counted.messages_in),
        messages_out: rate(|counted| counted.messages_out),
        bytes_in: rate(|counted| counted.bytes_in),
        bytes_out: rate(|counted| counted.bytes_out),
    }
}

/// Publishes unless the broker is too busy: then a second is left out.
fn publish(app: &App, load: &Load) {
    let shared = app.shared();
    let topic = shared.registry.resolve(TOPIC);
    if topic.is_congested() {
        return;
    }
    let text = serde_json::to_vec(load).expect("numbers are JSON");
    let payload = Payload::copy_of(PayloadKind::Json, &text, shared.budget.of_plane());
    // Nobody waits for its place.
    let (answer, _) = oneshot::channel();
    drop(shared.send_control(topic.sequencer, ControlMessage::Publish { topic, payload, options: None, answer }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_gauges_as_they_are() {
        let before = Snapshot { connections: 9, messages_in: 100, bytes_out: 7, ..Snapshot::default() };
        let now = Snapshot { connections: 3, subscriptions: 4, messages_in: 1100, ..before };
        let load = load(&before, &now, Duration::from_millis(500), Duration::from_millis(2700));
        let expected = Load {
            uptime_s: 2,
            connections: 3,
            subscriptions: 4,
            messages_in: 2000,
            messages_out: 0,
            bytes_in: 0,
            bytes_out: 0,
        };
        assert_eq!(load, expected);
    }

    #[test]
    fn the_filters_are_those_that_match() {
        for filter in FILTERS {
            assert!(protocol::topic::matches(filter, TOPIC), "{filter}");
        }
        for filter in ["#", "+/load", "+/#", "+/+", "$sys", "$sys/load/+"] {
            assert!(!protocol::topic::matches(filter, TOPIC), "{filter}");
        }
    }
}

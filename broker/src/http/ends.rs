//! `$sys/closed`: every other second, while an operator subscribes to it, why connections ended and requests were refused since
//! the start, by cause. The same numbers are in `/metrics`.
//!
//! Cost: a look-up in the registry each time; while somebody subscribes, one message.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::topic::ENDS;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::http::app::App;
use crate::http::{stats, sys};
use crate::observe::counters::Snapshot;

/// How often.
const PERIOD: Duration = Duration::from_secs(2);

/// The payload: counts since the start. Labels are those of `/metrics`.
#[derive(PartialEq, Eq, Serialize, Debug)]
struct Ends {
    uptime_s: u64,
    /// Connections of shards that ended, by the one reason of each.
    closed: BTreeMap<&'static str, u64>,
    /// Requests that were refused, by the one cause of each.
    refused: BTreeMap<&'static str, u64>,
    /// Tokens and keys that were refused, by the cause that clients do not learn.
    credentials: BTreeMap<&'static str, u64>,
    /// Commands that were refused on connections that went on.
    commands: BTreeMap<&'static str, u64>,
}

/// Publishes for as long as the runtime runs and the broker stays.
pub(crate) async fn run(app: App) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !app.is_stopping() {
        ticks.tick().await;
        if sys::is_read(&app, ENDS) {
            let credentials = app.shared().authority.counts().map(|(cause, count)| (cause.label(), count)).collect();
            let totals = stats::totals(app.shared());
            sys::publish(&app, ENDS, &ends(&totals, credentials, app.started().elapsed()));
        }
    }
}

fn ends(totals: &Snapshot, credentials: BTreeMap<&'static str, u64>, uptime: Duration) -> Ends {
    Ends {
        uptime_s: uptime.as_secs(),
        closed: totals.closed_by().collect(),
        refused: totals.refused_by().collect(),
        credentials,
        commands: BTreeMap::from([("forbidden", totals.commands_forbidden), ("limit", totals.commands_limited)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_count() {
        let totals = Snapshot { dropped_slow: 3, refused_origin: 4, commands_limited: 5, ..Snapshot::default() };
        let ends = ends(&totals, BTreeMap::from([("expired", 6)]), Duration::from_millis(1900));
        assert_eq!((ends.uptime_s, ends.closed["slow"], ends.closed["by_client"]), (1, 3, 0));
        assert_eq!((ends.refused["origin"], ends.refused["host"], ends.commands["limit"]), (4, 0, 5));
        assert_eq!((ends.credentials["expired"], ends.commands["forbidden"]), (6, 0));
    }
}

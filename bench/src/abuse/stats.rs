//! The broker's own counters and gauges, over one connection that stays open.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::peer::{Address, Answer, Peer};

/// Between two requests while waiting for gauges.
const POLL: Duration = Duration::from_millis(50);

/// Asks `/api/stats`.
pub(super) struct Poller {
    address: SocketAddr,
    /// Stays open, so that requests do not change the counters of connections.
    peer: Option<Peer>,
}

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct Stats(Value);

/// Gauges that return to their start when clients leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Gauges {
    pub(super) connections: u64,
    pub(super) subscriptions: u64,
    pub(super) logs: u64,
    pub(super) log_bytes: u64,
    pub(super) topics: u64,
    pub(super) topics_registered: u64,
    /// The poller's own included.
    pub(super) http_connections: u64,
}

impl Poller {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, peer: None }
    }

    pub(super) fn ask(&mut self) -> Result<Stats> {
        // The broker closes a connection that was idle for long; a new one answers.
        if let Some(peer) = &mut self.peer
            && let Ok(stats) = ask(peer)
        {
            return Ok(stats);
        }
        let mut peer = Peer::connect(&Address::plain(self.address))?;
        ask(&mut peer)?;
        // By the second answer the shard has dropped the connection that it handed over.
        thread::sleep(POLL);
        let stats = ask(&mut peer)?;
        self.peer = Some(peer);
        Ok(stats)
    }

    /// Waits until the gauges are `good`: returns how long that took and the answer, or the last answer that was not.
    pub(super) fn wait(
        &mut self,
        patience: Duration,
        good: impl Fn(&Gauges) -> bool,
    ) -> Result<Result<(Duration, Stats), Stats>> {
        let begun = Instant::now();
        loop {
            let stats = self.ask()?;
            if good(&stats.gauges()?) {
                return Ok(Ok((begun.elapsed(), stats)));
            }
            if begun.elapsed() > patience {
                return Ok(Err(stats));
            }
            thread::sleep(POLL);
        }
    }
}

/// The text of /metrics, over a connection of its own.
pub(super) fn metrics(operators: SocketAddr) -> Result<String> {
    match Peer::connect(&Address::plain(operators))?.get("broker", "/metrics", "") {
        Ok(Answer { status: 200, body }) => Ok(String::from_utf8_lossy(&body).into_owned()),
        other => bail!("/metrics: {other:?}"),
    }
}

fn ask(peer: &mut Peer) -> Result<Stats> {
    match peer.get("broker", "/api/stats", "") {
        Ok(Answer { status: 200, body }) => Ok(Stats(serde_json::from_slice(&body)?)),
        other => bail!("/api/stats: {other:?}"),
    }
}

impl Stats {
    /// A counter or gauge, over all shards.
    pub(super) fn total(&self, name: &str) -> Result<u64> {
        self.0["totals"][name].as_u64().with_context(|| format!("/api/stats has no total of {name}"))
    }

    pub(super) fn gauges(&self) -> Result<Gauges> {
        let outer = |name: &str| self.0[name].as_u64().with_context(|| format!("/api/stats has no {name}"));
        Ok(Gauges {
            connections: self.total("connections")?,
            subscriptions: self.total("subscriptions")?,
            logs: self.total("logs")?,
            log_bytes: self.total("log_bytes")?,
            topics: self.total("topics")?,
            topics_registered: outer("topics_registered")?,
            http_connections: outer("http_connections")?,
        })
    }

    /// Counters that are not 0, with their names.
    pub(super) fn counters(&self) -> Vec<(&str, u64)> {
        let totals = self.0["totals"].as_object();
        totals
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_u64()?)))
            .filter(|(_, value)| *value > 0)
            .collect()
    }
}

impl fmt::Display for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, subscriptions, logs, log_bytes, topics, topics_registered, http_connections } = self;
        write!(
            f,
            "{connections} connections, {subscriptions} subscriptions, {logs} logs, {log_bytes} log bytes, {topics} \
             topics, {topics_registered} registered, {http_connections} over HTTP"
        )
    }
}

//! The broker's own counters, over one kept connection, and waiting for its gauges to come back.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::peer::{Answer, Peer};

/// How often gauges are looked at while they are waited for.
const POLL: Duration = Duration::from_millis(50);

/// Asks `/api/stats`.
pub(super) struct Poller {
    address: SocketAddr,
    /// Kept, so that asking opens no connection that would be counted.
    peer: Option<Peer>,
}

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Stats(Value);

/// What goes back when clients leave.
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
        // The broker ends a connection that was quiet for long; a new one answers.
        if let Some(peer) = &mut self.peer
            && let Ok(stats) = ask(peer)
        {
            return Ok(stats);
        }
        let mut peer = Peer::connect(self.address)?;
        ask(&mut peer)?;
        // By the second answer the shard has let go of the connection that it handed over.
        thread::sleep(POLL);
        let stats = ask(&mut peer)?;
        self.peer = Some(peer);
        Ok(stats)
    }

    /// Waits until `good`; how long that took and the look that was good, or the last look that was not.
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
    let mut peer = Peer::connect(operators)?;
    peer.send(b"GET /metrics HTTP/1.1\r\nHost: broker\r\n\r\n")?;
    match peer.answer() {
        Ok(Answer { status: 200, body }) => Ok(String::from_utf8_lossy(&body).into_owned()),
        other => bail!("/metrics: {other:?}"),
    }
}

fn ask(peer: &mut Peer) -> Result<Stats> {
    peer.send(b"GET /api/stats HTTP/1.1\r\nHost: broker\r\n\r\n")?;
    match peer.answer() {
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

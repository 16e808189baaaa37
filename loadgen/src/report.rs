//! The result of a run: as JSON for programs, as a few lines for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::server::{Counters, Memory};

/// A client that used more of its core than this was the limit, not the server.
const SATURATED: f64 = 0.97;

/// What went wrong. A good run has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Messages that a subscriber never got.
    pub lost: u64,
    /// Messages that came again, or after a later one.
    pub doubled_or_reordered: u64,
    /// Messages with the wrong length or filler.
    pub corrupt: u64,
    /// Connections the server closed, by code; 1006 without a close frame.
    pub closed: BTreeMap<u16, u64>,
    /// What was wrong with the frames, if anything.
    pub broken: BTreeSet<String>,
}

impl Errors {
    /// Whether all went well.
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn closed(&mut self, code: u16) {
        *self.closed.entry(code).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.doubled_or_reordered += other.doubled_or_reordered;
        self.corrupt += other.corrupt;
        other.closed.iter().for_each(|(code, count)| *self.closed.entry(*code).or_default() += count);
        self.broken.extend(other.broken.iter().cloned());
    }
}

/// Microseconds from a message's time to its receipt.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1000.0;
        Self {
            p50_us: us(histogram.value_at_quantile(0.5)),
            p99_us: us(histogram.value_at_quantile(0.99)),
            p999_us: us(histogram.value_at_quantile(0.999)),
            max_us: us(histogram.max()),
        }
    }
}

/// What the server used. Needs `--server-pid`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ServerUse {
    /// Processor time per connection while they were opened: accept, upgrade, subscribe.
    pub admission_ns: f64,
    /// Processor time per delivered message in the measured time.
    pub message_ns: Option<f64>,
    /// Share of one core in the measured time.
    pub cpu_share: f64,
    /// Memory before the first connection.
    pub memory_before: Memory,
    /// Memory at the end of the measured time.
    pub memory_after: Memory,
}

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Subscribers.
    pub clients: usize,
    /// Bytes per message.
    pub payload_bytes: usize,
    /// Messages per write of the publisher.
    pub burst: u32,
    /// How it was paced.
    pub pacing: String,
    /// Seconds it took to open all connections.
    pub connect_seconds: f64,
    /// Seconds of measurement.
    pub seconds: f64,
    /// Messages published, in the whole run.
    pub published: u64,
    /// Messages received by subscribers in the measured time.
    pub delivered: u64,
    /// The same per second.
    pub delivered_per_second: f64,
    /// Published per second in the measured time.
    pub published_per_second: f64,
    /// From publishing to receipt.
    pub latency: Latency,
    /// Messages per read of this program.
    pub messages_per_read: f64,
    /// Pings answered.
    pub pings: u64,
    /// The server's own counters over the measured time and a little more.
    pub counters: Option<Counters>,
    /// Sends per message sent to one subscriber.
    pub sends_per_message: Option<f64>,
    /// What the server used.
    pub server: Option<ServerUse>,
    /// Share of one core that the busiest process of this program used in the measured time.
    pub client_cpu_share: f64,
    /// This program, not the server, was the limit: the figures say little about the server.
    pub client_was_the_bottleneck: bool,
    /// What went wrong.
    pub errors: Errors,
}

impl Report {
    pub(crate) fn judge_client(&mut self, cpu_share: f64) {
        self.client_cpu_share = cpu_share;
        self.client_was_the_bottleneck = cpu_share > SATURATED;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} subscribers, {} bytes, {} x{}; opened in {:.2} s, measured for {:.2} s",
            self.clients, self.payload_bytes, self.pacing, self.burst, self.connect_seconds, self.seconds
        )?;
        if self.delivered > 0 {
            let Latency { p50_us, p99_us, p999_us, max_us } = self.latency;
            writeln!(
                f,
                "delivered   {:.0}/s of {:.1}/s published; {:.2} messages per read",
                self.delivered_per_second, self.published_per_second, self.messages_per_read
            )?;
            writeln!(
                f,
                "latency     p50 {p50_us:.0} us, p99 {p99_us:.0} us, p99.9 {p999_us:.0} us, max {max_us:.0} us"
            )?;
        }
        if let Some(server) = &self.server {
            if let Some(message_ns) = server.message_ns {
                writeln!(f, "server      {message_ns:.0} ns per delivered message")?;
            }
            writeln!(
                f,
                "server      {:.1} % of a core, {:.1} us per admission, {:.1} MiB anonymous ({:+.1} since the start)",
                server.cpu_share * 100.0,
                server.admission_ns / 1000.0,
                server.memory_after.anonymous_bytes as f64 / 1048576.0,
                (server.memory_after.anonymous_bytes as f64 - server.memory_before.anonymous_bytes as f64) / 1048576.0,
            )?;
        }
        if let Some(sends) = self.sends_per_message {
            writeln!(f, "sends       {sends:.3} per delivered message")?;
        }
        let verdict = if self.client_was_the_bottleneck { ": client was the bottleneck" } else { "" };
        writeln!(
            f,
            "client      {:.1} % of a core{verdict}; {} pings answered",
            self.client_cpu_share * 100.0,
            self.pings
        )?;
        let Errors { lost, doubled_or_reordered, corrupt, closed, broken } = &self.errors;
        write!(
            f,
            "errors      {lost} lost, {doubled_or_reordered} doubled or out of order, {corrupt} damaged, closed {closed:?}"
        )?;
        broken.iter().try_for_each(|why| write!(f, ", {why}"))
    }
}

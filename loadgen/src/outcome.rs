//! What one loadgen process saw: everything a report, a verdict or a merge is made of. Written by `--json`, read by
//! `merge` and by `bench`.
//!
//! Not responsible for gathering it (`worker`), for judging it (`verdict`) or for showing it (`report`).
//! Times are nanoseconds unless the name says otherwise, memory is bytes, rates are per second.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::adapter::Protocol;

/// Raised when a field changes its meaning; `merge` refuses what it does not know.
pub const FORMAT: u32 = 1;

/// Latencies above this count as this: nanoseconds.
pub const LATENCY_MAX_NS: u64 = 300_000_000_000;

/// One process's share of a run, or several merged.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// [`FORMAT`].
    pub format: u32,
    /// What was asked for.
    pub run: Facts,
    /// How the connections were opened.
    pub connect: Connect,
    /// Seconds of measurement: without connecting, warm-up and draining.
    pub seconds: f64,
    /// What was published and received.
    pub traffic: Traffic,
    /// From the time a message was due until a verifying client had it, in the measured time.
    pub latency: Latencies,
    /// Upgrade request until subscribed, of every client.
    pub admission: Latencies,
    /// One row a second, from the first connect to the end of the drain.
    pub series: Vec<Second>,
    /// What went wrong. A good run has none.
    pub errors: Errors,
    /// What became of each stream: what a merge needs to tell loss.
    pub streams: BTreeMap<u32, Stream>,
    /// What this program used.
    pub own: Own,
    /// What the server used. Needs `--server-pid`.
    pub server: Option<ServerUse>,
    /// Why this run says little about the server: this program was the limit. Nothing when it was not.
    pub invalid: Vec<String>,
    /// Thresholds (`--fail-if`) that were crossed, each as a sentence.
    pub crossed: Vec<String>,
    /// Ended by a signal before its time.
    pub interrupted: bool,
    /// Processes whose outcomes were merged into this one; 1 for a process's own.
    pub parts: u32,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The scenario's name: `fan-out`, `many-topics`, ...
    pub scenario: String,
    /// The wire protocol.
    pub protocol: Option<Protocol>,
    /// Where it went.
    pub url: String,
    /// Subscribing clients.
    pub clients: u64,
    /// Those of them that look at every frame; the others count bytes.
    pub verifying: u64,
    /// Connections that only publish.
    pub publishers: u64,
    /// Topics.
    pub topics: u32,
    /// Topics per client.
    pub topics_per_client: u32,
    /// Streams: publishers and topics.
    pub streams: u32,
    /// Bytes per message, as asked for: `128`, `100..2000`, `64,1024`.
    pub payload: String,
    /// Messages published together.
    pub burst: u32,
    /// How it was paced, in words: `100/s`, `4 outstanding`.
    pub pacing: String,
    /// Threads, each with its ring.
    pub workers: u32,
    /// When the run began: milliseconds since 1970.
    pub started_unix_ms: u64,
    /// This process is the first of ... : `--share 1/4` is (1, 4).
    pub share: (u32, u32),
    /// Which machine this ran on: `/proc/sys/kernel/random/boot_id`. Empty counts as one and the same.
    pub machine: String,
    /// The version of this program.
    pub version: String,
}

/// How the connections were opened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Connect {
    /// Subscribed, in the end.
    pub opened: u64,
    /// From the first connect to the last subscription, in seconds.
    pub seconds: f64,
    /// Connects and upgrades that were tried again.
    pub retries: u64,
    /// Connections opened again on purpose: reconnect storms, churn.
    pub reopened: u64,
    /// Storm by storm: seconds until all were subscribed again.
    pub storm_seconds: Vec<f64>,
}

/// What was published and received.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// Messages published in the whole run.
    pub published: u64,
    /// Messages published in the measured time.
    pub published_measured: u64,
    /// Messages that clients received in the measured time (of those that only count bytes: as the bytes say).
    pub delivered: u64,
    /// The same in the whole run.
    pub delivered_total: u64,
    /// Bytes that clients received in the measured time, frames included.
    pub bytes: u64,
    /// Receives in the measured time.
    pub receives: u64,
    /// Pings of the server that were answered.
    pub pings: u64,
    /// Messages missing between others of their stream: the part of `errors.lost` that needs no knowledge of a
    /// stream's end.
    pub gaps: u64,
    /// How late open-loop publishing was at the 99th percentile: this program's own delay, part of the latency.
    pub lateness_p99_ns: u64,
    /// Broadcasts of `--rate` so slow that each stands alone: for the last one, from its publication until the
    /// first and until the last client had it. 0: not known.
    pub last_first_ns: u64,
    /// See `last_first_ns`.
    pub last_last_ns: u64,
}

/// What went wrong. A good run has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Errors {
    /// Messages that a subscriber never got: the gaps, and what is missing at the end of streams that this outcome
    /// knows the end of. Set by `verdict`.
    pub lost: u64,
    /// Messages that came again.
    pub doubled: u64,
    /// Messages that came after a later one of their stream, without having been missed for good.
    pub reordered: u64,
    /// Messages with the wrong length, filler or topic, or without a stamp; and those `beyond`.
    pub corrupt: u64,
    /// Messages received that nobody published: numbers beyond the end of streams that this outcome knows the end of.
    /// Part of `corrupt`. Set by `verdict`.
    pub beyond: u64,
    /// Clients that count bytes and got another number than was sent to them.
    pub miscounted: u64,
    /// Clients that never became subscribed, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Connections that the server closed, by close code; 1006 without a close frame. Slow consumers of a scenario
    /// that wants them are not counted here, but in `shed`.
    pub closed: BTreeMap<u16, u64>,
    /// What was wrong with the server's bytes or what it said, and how often.
    pub broken: BTreeMap<String, u64>,
    /// Publishers' connections lost, by reason.
    pub publishers: BTreeMap<String, u64>,
    /// Not an error: slow consumers closed by the server, by close code.
    pub shed: BTreeMap<u16, u64>,
}

impl Errors {
    /// Whether all went well.
    #[must_use]
    pub fn none(&self) -> bool {
        Self { shed: BTreeMap::new(), ..self.clone() } == Self::default()
    }

    /// How many, of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        let by_code = self.closed.values();
        let by_reason = [&self.refused, &self.broken, &self.publishers].into_iter().flat_map(BTreeMap::values);
        [self.lost, self.doubled, self.reordered, self.corrupt, self.miscounted]
            .iter()
            .chain(by_code)
            .chain(by_reason)
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Adds what somebody else counted.
    pub fn add(&mut self, other: &Self) {
        self.lost = self.lost.saturating_add(other.lost);
        self.doubled = self.doubled.saturating_add(other.doubled);
        self.reordered = self.reordered.saturating_add(other.reordered);
        self.corrupt = self.corrupt.saturating_add(other.corrupt);
        self.beyond = self.beyond.saturating_add(other.beyond);
        self.miscounted = self.miscounted.saturating_add(other.miscounted);
        add_each(&mut self.refused, &other.refused);
        add_each(&mut self.closed, &other.closed);
        add_each(&mut self.broken, &other.broken);
        add_each(&mut self.publishers, &other.publishers);
        add_each(&mut self.shed, &other.shed);
    }
}

/// Adds counts key by key.
fn add_each<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        let sum = to.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

/// Adds streams, number by number.
pub fn add_streams(to: &mut BTreeMap<u32, Stream>, from: &BTreeMap<u32, Stream>) {
    for (number, stream) in from {
        let sum = to.entry(*number).or_default();
        sum.published = sum.published.saturating_add(stream.published);
        add_each(&mut sum.reached, &stream.reached);
    }
}

/// What became of one stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stream {
    /// Messages that this process published on it.
    pub published: u64,
    /// Verifying clients here, by the number they expected next when the run ended.
    pub reached: BTreeMap<u64, u64>,
}

/// A distribution of times, whole: values and how often.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Latencies {
    /// How many.
    pub count: u64,
    /// Half took at most this.
    pub p50: u64,
    /// 90 of 100.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
    /// (nanoseconds, count), ascending, three significant digits.
    pub values: Vec<(u64, u64)>,
}

/// An empty histogram; all have the same bounds.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("valid bounds")
}

/// The value that so many in 100 do not exceed.
#[must_use]
pub fn percentile(histogram: &Histogram<u64>, percent: f64) -> u64 {
    // 99.9 / 100 is a little more than 0.999, which is another message.
    histogram.value_at_quantile((percent * 1e9).round() / 1e11)
}

impl Latencies {
    /// Of a histogram.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            mean: histogram.mean(),
            values: histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect(),
        }
    }

    /// The histogram again.
    #[must_use]
    pub fn histogram(&self) -> Histogram<u64> {
        let mut histogram = histogram();
        self.values.iter().for_each(|(value, count)| histogram.saturating_record_n(*value, *count));
        histogram
    }
}

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// Seconds since the run's start, at this row's end.
    pub at: f64,
    /// How long the row is, in seconds.
    pub span: f64,
    /// What the run was doing: `connect`, `warm-up`, `measure`, `drain`.
    pub phase: Phase,
    /// Subscribed at its end.
    pub clients: u64,
    /// Became subscribed in it.
    pub opened: u64,
    /// Published in it.
    pub published: u64,
    /// Received in it.
    pub delivered: u64,
    /// Received in it, bytes.
    pub bytes: u64,
    /// Latency of what verifying clients received in it (of connecting clients: upgrade until subscribed). The `values`
    /// are not kept.
    pub latency: Latencies,
    /// Errors counted in it, of all kinds.
    pub errors: u64,
    /// Share of one core that this program used (2.0: two cores).
    pub own_cpu: f64,
    /// Share of one core that the server used.
    pub server_cpu: Option<f64>,
    /// The server's anonymous memory at its end.
    pub server_memory: Option<u64>,
}

/// What a run is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Opening connections.
    #[default]
    Connect,
    /// Everything as in the measurement, counted nowhere but in the series.
    WarmUp,
    /// The measured time.
    Measure,
    /// Publishing is over; what is under way arrives.
    Drain,
}

impl Phase {
    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::WarmUp => "warm-up",
            Self::Measure => "measure",
            Self::Drain => "drain",
        }
    }
}

/// What this program used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Own {
    /// Processor time in the measured time.
    pub cpu_ns: u64,
    /// Processor time while connecting.
    pub connect_cpu_ns: u64,
    /// Share of the cores this program may run on, in the measured time (1.0: all of them, always).
    pub cpu_share: f64,
    /// Share of one core of the busiest worker in the measured time.
    pub busiest_worker: f64,
    /// Memory before the first connection.
    pub memory_before: Memory,
    /// Memory at the end of the measured time.
    pub memory_after: Memory,
}

/// What the server used.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerUse {
    /// Its process (several: children included).
    pub pid: u32,
    /// Processor time while connections were opened.
    pub connect_cpu_ns: u64,
    /// Processor time in the measured time.
    pub cpu_ns: u64,
    /// Memory before the first connection.
    pub memory_before: Memory,
    /// Memory when all were connected.
    pub memory_connected: Memory,
    /// Memory at the end of the measured time.
    pub memory_after: Memory,
    /// Counters of a Ringyard broker over the measured time: sends and messages.
    pub sends: Option<u64>,
    /// Messages that a Ringyard broker says it delivered in the measured time.
    pub messages: Option<u64>,
}

/// Memory of a process, in bytes, and of the machine's sockets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// `Anonymous` of `/proc/PID/smaps_rollup`.
    pub anonymous: u64,
    /// `Pss` of the same.
    pub pss: u64,
    /// TCP's pages, of `/proc/net/sockstat`, times the page size: all processes of the machine.
    pub tcp: u64,
    /// `Slab` of `/proc/meminfo`: all of the machine.
    pub slab: u64,
    /// `MemAvailable` of `/proc/meminfo`.
    pub available: u64,
}

impl Outcome {
    /// Delivered messages per second of the measured time.
    #[must_use]
    pub fn delivered_per_second(&self) -> f64 {
        per(self.traffic.delivered as f64, self.seconds)
    }

    /// Published messages per second of the measured time.
    #[must_use]
    pub fn published_per_second(&self) -> f64 {
        per(self.traffic.published_measured as f64, self.seconds)
    }

    /// The server's processor time per delivered message, in nanoseconds.
    #[must_use]
    pub fn server_ns_per_message(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        (self.traffic.delivered > 0).then(|| server.cpu_ns as f64 / self.traffic.delivered as f64)
    }

    /// This program's processor time per delivered message, in nanoseconds.
    #[must_use]
    pub fn own_ns_per_message(&self) -> f64 {
        per(self.own.cpu_ns as f64, self.traffic.delivered as f64)
    }

    /// The server's processor time per admitted connection, in nanoseconds.
    #[must_use]
    pub fn server_ns_per_admission(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        (self.connect.opened > 0).then(|| server.connect_cpu_ns as f64 / self.connect.opened as f64)
    }

    /// The server's user memory (proportional set size) per connection, in bytes.
    #[must_use]
    pub fn server_bytes_per_connection(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        let grown = server.memory_connected.pss as f64 - server.memory_before.pss as f64;
        (self.connect.opened > 0).then(|| grown / self.connect.opened as f64)
    }

    /// The server's share of one core in the measured time (2.0: two cores).
    #[must_use]
    pub fn server_cpu(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        (self.seconds > 0.0).then(|| server.cpu_ns as f64 / 1e9 / self.seconds)
    }

    /// This program's share of one core in the measured time (2.0: two cores).
    #[must_use]
    pub fn own_cpu(&self) -> f64 {
        per(self.own.cpu_ns as f64 / 1e9, self.seconds)
    }

    /// Sends of a Ringyard broker per message that it delivered.
    #[must_use]
    pub fn sends_per_message(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        let (sends, messages) = (server.sends?, server.messages?);
        (messages > 0).then(|| sends as f64 / messages as f64)
    }

    /// This program's user memory (proportional set size) per client, in bytes.
    #[must_use]
    pub fn own_bytes_per_client(&self) -> Option<f64> {
        let grown = self.own.memory_after.pss as f64 - self.own.memory_before.pss as f64;
        (self.connect.opened > 0 && self.own.memory_after.pss > 0).then(|| grown / self.connect.opened as f64)
    }

    /// Leaves what a table needs: percentiles instead of every value, no series, no streams. Cannot be merged any more.
    pub fn trim(&mut self) {
        self.latency.values.clear();
        self.admission.values.clear();
        self.series.clear();
        self.streams.clear();
    }

    /// Nothing lost, doubled, reordered or corrupt, nobody refused or closed.
    #[must_use]
    pub fn good(&self) -> bool {
        self.errors.none()
    }
}

fn per(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trimmed_outcome_keeps_its_percentiles() {
        let latency = Latencies { count: 1, p50: 5, values: vec![(5, 1)], ..Latencies::default() };
        let mut outcome = Outcome { latency, series: vec![Second::default()], ..Outcome::default() };
        outcome.trim();
        assert_eq!((outcome.latency.p50, outcome.latency.values.len(), outcome.series.len()), (5, 0, 0));
    }
}

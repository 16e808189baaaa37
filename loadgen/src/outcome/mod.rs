//! The outcome of a run as one process saw it. Reports, verdicts and merges are made of it; `--json` writes it, `merge`
//! and `bench` read it.
//!
//! | file | what it is |
//! | --- | --- |
//! | `errors` | what went wrong, and how far each stream came |
//! | `history` | what clients made of the topics' histories |
//! | `latencies` | a distribution of times |
//! | `second` | one second of the run |
//! | `slow` | what became of slow clients |
//! | `terms` | policies for slow consumers, throttles, and what was left out for them |
//! | `tls` | the TLS handshakes |
//! | `logins` | a storm of logins |
//! | `resources` | processor time and memory of the load generator and of the server |
//!
//! Not responsible for gathering it (`worker`), judging it (`verdict`) or showing it (`results`).
//! Times are nanoseconds unless the name says otherwise, memory is bytes, rates are per second.

mod errors;
mod history;
mod latencies;
mod logins;
mod resources;
mod second;
mod slow;
mod terms;
mod tls;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::errors::{Errors, Stream, add_streams};
pub use self::history::{Arrival, History};
pub use self::latencies::{LATENCY_MAX_NS, Latencies, histogram, percentile};
pub use self::logins::Logins;
pub use self::resources::{Memory, Own, ServerUse};
pub use self::second::{Phase, Second};
pub use self::slow::Slow;
pub use self::terms::{Answer, Terms};
pub use self::tls::Tls;
use crate::adapter::Protocol;

/// Increased when a field changes its meaning; `merge` refuses other formats.
pub const FORMAT: u32 = 1;

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
    /// Upgrade request until subscribed, of every client. Over `wss://` with the handshake: from the connect's success.
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
    /// Thresholds that were not crossed, each as a sentence.
    pub passed: Vec<String>,
    /// What became of the slow clients, if there were any.
    pub slow: Option<Slow>,
    /// What was agreed about slow consumers and throttles, if anything.
    pub terms: Option<Terms>,
    /// The handshakes, of a run over `wss://`.
    pub tls: Option<Tls>,
    /// What a storm of logins did, of a run that has one.
    pub logins: Option<Logins>,
    /// Recovery and state, of a run that looks at them.
    pub history: Option<History>,
    /// Ended while connecting, because the server took no more clients: a sentence. Nothing was measured then.
    pub stalled: Option<String>,
    /// Ended early because the server or all connections had ended: a sentence. The figures are of the time before.
    pub ended: Option<String>,
    /// Ended early by a signal.
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
    /// The server's URL.
    pub url: String,
    /// Subscribing clients.
    pub clients: u64,
    /// Those of them that look at every frame; the others count bytes.
    pub verifying: u64,
    /// Connections that only publish.
    pub publishers: u64,
    /// Every client publishes too.
    pub everyone_publishes: bool,
    /// Clients that read slowly or never.
    pub slow: u64,
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
    /// How messages were published: `100/s`, `4 outstanding`.
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
    /// From the first connect until the last connection was open, in seconds.
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
        // A process that could not be read has no memory.
        (self.connect.opened > 0 && server.memory_connected.pss > 0).then(|| grown / self.connect.opened as f64)
    }

    /// The server's share of one core in the measured time, as long as it lived (2.0: two cores).
    #[must_use]
    pub fn server_cpu(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        let seconds = server.lived.unwrap_or(self.seconds);
        (seconds > 0.0).then(|| server.cpu_ns as f64 / 1e9 / seconds)
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

    /// Deliveries per second to a subscription whose server answered with a policy or a throttle, on average.
    #[must_use]
    pub fn deliveries_per_subscription(&self) -> Option<f64> {
        let terms = self.terms.as_ref().filter(|terms| terms.subscriptions > 0)?;
        Some(per(terms.deliveries as f64 / terms.subscriptions as f64, self.seconds))
    }

    /// Sends of a Ringyard broker per client and second.
    #[must_use]
    pub fn sends_per_client(&self) -> Option<f64> {
        let sends = self.server.as_ref()?.sends?;
        (self.connect.opened > 0).then(|| per(sends as f64 / self.connect.opened as f64, self.seconds))
    }

    /// This program's user memory (proportional set size) per client, in bytes.
    #[must_use]
    pub fn own_bytes_per_client(&self) -> Option<f64> {
        let grown = self.own.memory_after.pss as f64 - self.own.memory_before.pss as f64;
        (self.connect.opened > 0 && self.own.memory_after.pss > 0).then(|| grown / self.connect.opened as f64)
    }

    /// Removes what a table does not need: single values, series and streams. It can no longer be merged.
    pub fn trim(&mut self) {
        self.latency.values.clear();
        self.admission.values.clear();
        if let Some(logins) = &mut self.logins {
            for latencies in [&mut logins.took, &mut logins.calm, &mut logins.storm] {
                latencies.values.clear();
            }
        }
        if let Some(tls) = &mut self.tls {
            tls.handshake.values.clear();
        }
        if let Some(history) = &mut self.history {
            history.catch_up.values.clear();
        }
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

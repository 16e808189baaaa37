//! A row of the series: one second of a run.

use serde::{Deserialize, Serialize};

use super::Latencies;

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

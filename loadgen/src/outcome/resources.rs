//! Processor time and memory of the load generator and of the server.

use serde::{Deserialize, Serialize};

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
    /// When its last process ended, in seconds after the run's start; nothing while it runs.
    pub ended_at: Option<f64>,
    /// Then the seconds of the measured time until it did.
    pub lived: Option<f64>,
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

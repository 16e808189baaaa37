//! Watches the broker during an attack: resident memory, bytes in its logs, and whether operators are answered.
//!
//! One thread samples the memory of the process, another asks over the operators' port, so that a late answer leaves no
//! gap in the samples. Units: bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::broker::{self, Broker};
use super::budget::Budget;
use super::stats::{Poller, metrics};
use super::turns::{Longest, Turns};

/// Between two samples.
const MEMORY_INTERVAL: Duration = Duration::from_millis(10);
/// Between two questions to the operators' port.
const STATS_INTERVAL: Duration = Duration::from_millis(100);

/// The running watch.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    memory: JoinHandle<Memory>,
    operators: JoinHandle<Operators>,
    address: SocketAddr,
    before: Turns,
}

/// What it observed.
pub(super) struct Seen {
    pub(super) memory: Memory,
    pub(super) operators: Operators,
    pub(super) longest_turn: Longest,
}

/// Of the process.
#[derive(Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) first_bytes: u64,
    /// The most of all samples and of the peak that the kernel recorded.
    pub(super) peak_bytes: u64,
    pub(super) samples: u64,
}

/// Of the operators' port.
#[derive(Default)]
pub(super) struct Operators {
    pub(super) log_peak_bytes: u64,
    /// What was held for clients when that was most.
    pub(super) budget: Budget,
    pub(super) answers: u64,
    /// The slowest answer.
    pub(super) slowest: Duration,
    /// Why the first request without an answer failed.
    pub(super) failure: Option<String>,
}

impl Watch {
    pub(super) fn start(broker: &Broker) -> Self {
        let (pid, address, stop) = (broker.pid(), broker.operators, Arc::new(AtomicBool::new(false)));
        let before = metrics(address).map(|text| Turns::read(&text)).unwrap_or_default();
        let over = Arc::clone(&stop);
        let memory = thread::spawn(move || watch_memory(pid, &over));
        let over = Arc::clone(&stop);
        let operators = thread::spawn(move || watch_operators(address, &over));
        Self { stop, memory, operators, address, before }
    }

    pub(super) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let memory = self.memory.join().expect("a watch does not panic");
        let operators = self.operators.join().expect("a watch does not panic");
        let after = metrics(self.address).map(|text| Turns::read(&text)).unwrap_or_default();
        Seen { memory, operators, longest_turn: after.longest_since(&self.before) }
    }
}

fn watch_memory(pid: u32, over: &AtomicBool) -> Memory {
    let mut memory = Memory::default();
    loop {
        // One more sample at the end: the kernel's peak covers the time between samples.
        let last = over.load(Ordering::Relaxed);
        if let Ok(held) = broker::held(pid) {
            if memory.samples == 0 {
                memory.first_bytes = held.resident_kib << 10;
            }
            memory.peak_bytes = memory.peak_bytes.max(held.resident_kib.max(held.peak_kib) << 10);
            memory.samples += 1;
        }
        if last {
            return memory;
        }
        thread::sleep(MEMORY_INTERVAL);
    }
}

fn watch_operators(address: SocketAddr, over: &AtomicBool) -> Operators {
    let (mut poller, mut seen) = (Poller::new(address), Operators::default());
    // Opens the connection before anything is measured; a failure shows below.
    drop(poller.ask());
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match poller.ask().and_then(|stats| stats.total("log_bytes")) {
            Ok(bytes) => {
                seen.log_peak_bytes = seen.log_peak_bytes.max(bytes);
                seen.answers += 1;
                seen.slowest = seen.slowest.max(asked.elapsed());
            }
            Err(error) => {
                seen.failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
        // A failure shows above.
        let budget = metrics(address).map(|text| Budget::read(&text)).unwrap_or_default();
        if budget.used() > seen.budget.used() {
            seen.budget = budget;
        }
        thread::sleep(STATS_INTERVAL);
    }
    seen
}

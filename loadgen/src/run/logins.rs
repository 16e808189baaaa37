//! A storm of logins: others connect at once while messages reach those that are there. What these get until then is the
//! measure for what they get meanwhile.

use anyhow::Result;
use hdrhistogram::Histogram;

use super::Run;
use super::rows::State;
use crate::clock::monotonic;
use crate::outcome::{Latencies, Logins, Memory, histogram};
use crate::usage;
use crate::worker::{Command, Times};

/// The longest that a storm may take. Publishing goes on until it is over.
const STORM_MAX_NS: u64 = 600_000_000_000;

/// What is known of the storm so far.
pub(super) struct Storm {
    /// Latency of what came in the measured time: before, and since it began.
    calm: Histogram<u64>,
    meanwhile: Histogram<u64>,
    /// When it began, and where everything stood then.
    began: Option<(u64, State)>,
    /// Where everything stood when all were there, and when that was.
    ended: Option<(u64, State)>,
    /// This program's memory before it.
    pub(super) own_memory: Memory,
}

impl Storm {
    pub(super) fn new() -> Self {
        let own_memory = Memory::default();
        Self { calm: histogram(), meanwhile: histogram(), began: None, ended: None, own_memory }
    }

    /// What came since the last row of the measured time.
    pub(super) fn add(&mut self, latency: &Histogram<u64>) {
        let sum = match (&self.began, &self.ended) {
            (None, _) => &mut self.calm,
            (_, None) => &mut self.meanwhile,
            _ => return,
        };
        sum.add(latency).expect("the same bounds");
    }

    /// `from`: the beginning of the measured time.
    pub(super) fn outcome(
        &self,
        from: &State,
        reused: bool,
        server: bool,
        took: Option<&Histogram<u64>>,
    ) -> Option<Logins> {
        let ((began, before), (last, after)) = (self.began.as_ref()?, self.ended.as_ref()?);
        let span = |from: &State, to: &State| to.at.saturating_sub(from.at).max(1) as f64;
        let meanwhile = span(before, after);
        let cpu = |from: &State, to: &State| to.server_cpu_ns.saturating_sub(from.server_cpu_ns) as f64;
        let usual = cpu(from, before) / span(from, before) * meanwhile;
        Some(Logins {
            opened: after.counts.opened - before.counts.opened,
            reused,
            seconds: last.saturating_sub(*began) as f64 / 1e9,
            took: took.map_or_else(Latencies::default, Latencies::of),
            calm: Latencies::of(&self.calm),
            storm: Latencies::of(&self.meanwhile),
            server_cpu_ns: server.then(|| (cpu(before, after) - usual).max(0.0) as u64),
            own_cpu: after.own_cpu_ns.saturating_sub(before.own_cpu_ns) as f64 / meanwhile,
        })
    }
}

impl Run {
    /// Publishing does not end before the storm does.
    pub(super) fn until_logged_in(&self, times: Times) -> Times {
        if self.storm.is_some() { Times { end: times.end + STORM_MAX_NS, ..times } } else { times }
    }

    /// All log in, now; returns when they are there, or could not come.
    pub(super) fn log_in(&mut self) -> Result<()> {
        if self.storm.is_none() || self.is_over() {
            return Ok(());
        }
        self.row()?;
        let (began, before) = (monotonic(), self.last.clone());
        if let Some(storm) = &mut self.storm {
            storm.began = Some((began, before));
            storm.own_memory = usage::memory(std::process::id()).unwrap_or_default();
        }
        self.arrived_workers = (0, began);
        self.send_all(&Command::Arrive { behind: None });
        while self.arrived_workers.0 < self.shared.commands.len() && !self.is_over() {
            self.wait(self.next_row)?;
        }
        self.row()?;
        let ended = (self.shared.opened_at.load(std::sync::atomic::Ordering::Relaxed), self.last.clone());
        if let Some(storm) = &mut self.storm {
            storm.ended = Some(ended);
        }
        Ok(())
    }
}

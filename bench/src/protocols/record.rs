//! Raw data of all runs as JSON, `protocols/DATE.json`, of which the latest is kept; and the figures made of it: medians of the rounds.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::client::Sample;
use super::protocol::Protocol;
use super::uses::{Costs, Use};
use crate::machine::Machine;
use crate::results::remove_older;

/// Everything that was measured together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) machine: Machine,
    command: String,
    /// Measured seconds of each run.
    seconds: f64,
    /// The uses as they were then.
    pub(super) uses: Vec<Use>,
    pub(super) runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// The key of its use.
    #[serde(rename = "use")]
    pub(super) wanted: String,
    pub(super) protocol: Protocol,
    /// From 1.
    pub(super) round: u32,
    pub(super) sample: Sample,
}

impl Record {
    pub(super) fn new(machine: Machine, seconds: f64, uses: &[Use]) -> Self {
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        Self { machine, command: format!("bench {command}"), seconds, uses: uses.to_vec(), runs: Vec::new() }
    }

    /// Medians of the rounds; nothing if there were none.
    pub(super) fn costs(&self, wanted: &Use, protocol: Protocol) -> Option<Costs> {
        let is_it = |run: &&Run| run.wanted == wanted.key && run.protocol == protocol;
        let samples: Vec<_> = self.runs.iter().filter(is_it).map(|run| &run.sample).collect();
        let of = |value: fn(&Sample) -> f64| {
            let mut values: Vec<_> = samples.iter().map(|sample| value(sample)).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        Some(Costs {
            p50_ms: of(|sample| sample.p50_us as f64 / 1e3)?,
            p99_ms: of(|sample| sample.p99_us as f64 / 1e3)?,
            cpu_us: of(|sample| each(sample.server_cpu_ns, sample) / 1e3)?,
            bytes: of(|sample| each(sample.bytes, sample))?,
            requests: of(|sample| each(sample.requests, sample))?,
            missing: samples.iter().map(|sample| sample.missing).sum(),
        })
    }
}

/// Per delivered message.
fn each(amount: u64, sample: &Sample) -> f64 {
    amount as f64 / sample.delivered.max(1) as f64
}

/// One line while it is measured.
pub(super) fn describe(sample: &Sample) -> String {
    format!(
        "{} delivered, {} missing, p50 {:.2} ms, p99 {:.2} ms, {:.1} us, {:.0} bytes and {:.3} requests each; clients used {:.0} % of a core",
        sample.delivered,
        sample.missing,
        sample.p50_us as f64 / 1e3,
        sample.p99_us as f64 / 1e3,
        each(sample.server_cpu_ns, sample) / 1e3,
        each(sample.bytes, sample),
        each(sample.requests, sample),
        sample.own_cpu * 100.0
    )
}

/// Keeps the raw data, in place of earlier ones.
pub(super) fn keep(results: &Path, record: &Record) -> Result<()> {
    let directory = results.join("protocols");
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{}.json", record.machine.date));
    fs::write(&path, serde_json::to_string_pretty(record)? + "\n")
        .with_context(|| format!("writing {}", path.display()))?;
    remove_older(&path)
}

/// What is kept, if anything is.
pub(super) fn kept(results: &Path) -> Result<Option<Record>> {
    let directory = results.join("protocols");
    if !directory.exists() {
        return Ok(None);
    }
    let mut paths: Vec<_> = fs::read_dir(&directory)?.map(|entry| anyhow::Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let Some(path) = paths.last() else { return Ok(None) };
    let text = fs::read_to_string(path)?;
    serde_json::from_str(&text).with_context(|| format!("{} is no record", path.display())).map(Some)
}

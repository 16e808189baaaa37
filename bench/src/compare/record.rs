//! The results of a comparison, run by run: one JSON file, rewritten after every run, so that an interrupted comparison
//! can continue.
//!
//! Not responsible for medians and spread (`summary`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use loadgen::outcome::Outcome;
use serde::{Deserialize, Serialize};

use super::plan::Row;
use crate::machine::Machine;

/// Increased when a field changes its meaning.
const FORMAT: u32 = 1;

/// A comparison. In its file, each run is one line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Comparison {
    format: u32,
    pub(super) machine: Machine,
    /// Which state of the sources: `git describe`.
    pub(super) source: String,
    pub(super) command: String,
    /// When it began, UTC.
    pub(super) begun: String,
    pub(super) rounds: u32,
    /// It has every row and every installed broker: only then the pages are made of it.
    pub(super) whole: bool,
    /// Nothing is left to do.
    pub(super) finished: bool,
    /// Seconds it took, interruptions left out.
    pub(super) seconds: f64,
    pub(super) participants: Vec<Participant>,
    /// Brokers that did not take part, and why.
    pub(super) absent: Vec<(String, String)>,
    pub(super) runs: Vec<Run>,
}

/// A broker that took part, and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Participant {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) version: String,
    pub(super) settings: String,
    pub(super) documentation: Vec<String>,
    pub(super) remark: Option<String>,
    /// Points that it cannot run, and why.
    pub(super) cannot: Vec<(String, String)>,
}

/// One run of the load generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) peer: String,
    pub(super) row: Row,
    pub(super) key: String,
    pub(super) round: u32,
    /// Open loop: messages published per second.
    pub(super) rate: Option<f64>,
    /// Of a search: whether the rate was sustained.
    pub(super) sustained: Option<bool>,
    pub(super) arguments: String,
    /// Cores that neither server nor load generator kept busy.
    pub(super) others: f64,
    /// Why there is no outcome.
    pub(super) failure: Option<String>,
    pub(super) outcome: Option<Outcome>,
}

impl Comparison {
    pub(super) fn new(machine: Machine, begun: String, source: String, rounds: u32, whole: bool) -> Self {
        let arguments = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        Self {
            format: FORMAT,
            machine,
            source,
            command: format!("bench {arguments}"),
            begun,
            rounds,
            whole,
            finished: false,
            seconds: 0.0,
            participants: Vec::new(),
            absent: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Runs of one peer at one point.
    pub(super) fn runs_of<'a>(&'a self, key: &'a str, peer: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.key == key && run.peer == peer)
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let comparison: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is no comparison", path.display()))?;
        ensure!(comparison.format == FORMAT, "{} has format {}, not {FORMAT}", path.display(), comparison.format);
        Ok(comparison)
    }

    /// Writes all of it; the file is whole at any time.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let beside = path.with_extension("json.new");
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&beside, self.as_lines()?).with_context(|| format!("writing {}", beside.display()))?;
        fs::rename(&beside, path).with_context(|| format!("writing {}", path.display()))
    }

    /// Pretty, but for the runs: a line each.
    fn as_lines(&self) -> Result<String> {
        let head = serde_json::to_string_pretty(&Self { runs: Vec::new(), ..self.clone() })?;
        let runs: Vec<_> = self.runs.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let head = head.strip_suffix("\"runs\": []\n}").context("runs are the last field")?;
        Ok(format!("{head}\"runs\": [\n{}\n  ]\n}}\n", runs.join(",\n")))
    }
}

/// The newest comparison in a folder that `wanted` accepts.
pub(super) fn newest(folder: &Path, wanted: impl Fn(&Comparison) -> bool) -> Result<Option<(PathBuf, Comparison)>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(None);
    };
    let mut paths: Vec<_> = entries.map(|entry| anyhow::Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    for path in paths.into_iter().rev() {
        let comparison = Comparison::read(&path)?;
        if wanted(&comparison) {
            return Ok(Some((path, comparison)));
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(super) mod tests {
    use loadgen::outcome::Traffic;

    use super::*;

    pub(in crate::compare) fn comparison() -> Comparison {
        Comparison::new(Machine::this(), "2026-01-02 03:04".to_owned(), "abc".to_owned(), 3, true)
    }

    pub(in crate::compare) fn run(peer: &str, row: Row, key: &str, round: u32, outcome: Outcome) -> Run {
        Run {
            peer: peer.to_owned(),
            row,
            key: key.to_owned(),
            round,
            rate: None,
            sustained: None,
            arguments: "--clients 5".to_owned(),
            others: 0.01,
            failure: None,
            outcome: Some(outcome),
        }
    }

    pub(in crate::compare) fn delivering(per_second: u64) -> Outcome {
        let traffic = Traffic { delivered: per_second * 2, ..Traffic::default() };
        Outcome { seconds: 2.0, traffic, ..Outcome::default() }
    }

    #[test]
    fn a_comparison_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("2026-01-02-0304.json");
        let mut comparison = comparison();
        comparison.write(&path).unwrap();
        assert_eq!(Comparison::read(&path).unwrap().runs.len(), 0);
        comparison.runs.push(run("a", Row::Cpu, "cpu-100", 1, delivering(5)));
        comparison.runs.push(run("b", Row::Cpu, "cpu-100", 1, delivering(7)));
        comparison.finished = true;
        comparison.write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("\"cpu-100\"")).count(), 2);
        let (found, back) = newest(folder.path(), |comparison| comparison.finished).unwrap().unwrap();
        assert_eq!((found, back.runs.len(), back.runs_of("cpu-100", "b").count()), (path, 2, 1));
        assert_eq!(back.runs[1].outcome.as_ref().unwrap().delivered_per_second(), 7.0);
        assert!(newest(folder.path(), |comparison| !comparison.finished).unwrap().is_none());
    }
}

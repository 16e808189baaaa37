//! Runs a comparison: every step that was not run yet, in order. Keeps the results after each run.
//!
//! Not responsible for what the steps are (`plan`), nor for the pages (`page`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use time::OffsetDateTime;

use super::peer::{Peer, Words};
use super::plan::{Point, Rate, Row, Step, points, steps};
use super::progress::Progress;
use super::record::{self, Comparison, Participant, Run};
use super::server::Server;
use super::{Options, capacity, load, summary};
use crate::machine::Machine;
use crate::process::CoreOptions;
use crate::results::remove_older;

/// Connections before memory is measured: what a server allocates once is not a cost of a connection.
const WARMING: u32 = 100;

/// A comparison that is under way.
pub(super) struct Runner {
    pub(super) comparison: Comparison,
    /// Its file; a quick comparison has none.
    pub(super) path: Option<PathBuf>,
    peers: Vec<Peer>,
    points: Vec<Point>,
    rounds: u32,
    quick: bool,
    words: Words,
    scratch: TempDir,
    cores: CoreOptions,
}

impl Runner {
    /// Prepares a new comparison, or reads the interrupted one.
    pub(super) fn open(
        options: &Options,
        kept: &Path,
        described: Vec<Peer>,
        words: Words,
        scratch: TempDir,
    ) -> Result<Self> {
        let chosen = |peer: &Peer| options.only.is_empty() || options.only.contains(&peer.name);
        let (mut peers, mut absent) = (Vec::new(), Vec::new());
        for peer in described.into_iter().filter(chosen) {
            match peer.missing(&words) {
                None => peers.push(peer),
                Some(why) => {
                    println!("{} is not installed ({why}): skipped", peer.title);
                    absent.push((peer.title.clone(), why));
                }
            }
        }
        ensure!(!peers.is_empty(), "no broker to compare: see bench/compare.toml and --install");
        let mut points = points(options.quick);
        points.retain(|point| options.rows.is_empty() || options.rows.contains(&point.row));
        let participants: Vec<_> = peers.iter().map(|peer| participant(peer, &points, &words)).collect();
        let rounds = if options.quick { 1 } else { options.runs };
        let whole = options.only.is_empty() && options.rows.is_empty();
        let now = OffsetDateTime::now_utc();
        let (date, hour, minute) = (now.date(), now.hour(), now.minute());
        let (path, comparison) = if options.resume {
            let wanted = |comparison: &Comparison| {
                !comparison.finished && comparison.participants == participants && comparison.rounds == rounds
            };
            let (path, comparison) =
                record::newest(kept, wanted)?.context("there is no interrupted comparison of these brokers")?;
            ensure!(
                comparison.machine.kernel == Machine::this().kernel && comparison.source == source(),
                "{} was measured with {}; this is {}",
                path.display(),
                comparison.source,
                source()
            );
            (Some(path), comparison)
        } else {
            let part = if whole { "" } else { "-part" };
            let path = kept.join(format!("{date}-{hour:02}{minute:02}{part}.json"));
            let begun = format!("{date} {hour:02}:{minute:02}");
            let mut comparison = Comparison::new(Machine::this(), begun, source(), rounds, whole);
            (comparison.participants, comparison.absent) = (participants, absent);
            ((!options.quick).then_some(path), comparison)
        };
        let Options { quick, cores, .. } = *options;
        Ok(Self { comparison, path, peers, points, rounds, quick, words, scratch, cores })
    }

    /// Runs everything that was not run yet. True when every run took place and Ringyard lost nothing.
    pub(super) fn run_all(&mut self) -> Result<bool> {
        let steps =
            steps(&self.points, self.rounds, self.peers.len(), |peer, point| self.peers[peer].cannot(point).is_none());
        let steps: Vec<_> = steps.into_iter().filter(|step| !self.is_done(step)).collect();
        let mut progress = Progress::new(&steps);
        for step in &steps {
            progress.announce(step, &self.peers[step.peer], self.rounds);
            let begun = Instant::now();
            self.take(step).with_context(|| format!("{}, {}", step.point.title(), self.peers[step.peer].title))?;
            self.comparison.seconds += begun.elapsed().as_secs_f64();
            progress.done(step, begun.elapsed());
            self.keep()?;
        }
        self.comparison.finished = true;
        self.keep()?;
        self.path.as_deref().map_or(Ok(()), remove_older)?;
        Ok(self.comparison.runs.iter().all(|run| {
            let good = run.sustained.is_some() || run.outcome.as_ref().is_some_and(|outcome| outcome.errors.none());
            run.failure.is_none() && (good || !run.peer.starts_with("ringyard"))
        }))
    }

    fn keep(&self) -> Result<()> {
        self.path.as_ref().map_or(Ok(()), |path| self.comparison.write(path))
    }

    fn is_done(&self, step: &Step) -> bool {
        let name = &self.peers[step.peer].name;
        if step.point.rate == Rate::Search {
            return self.next_try(&step.point, name).is_none();
        }
        self.comparison.runs_of(&step.point.key, name).any(|run| run.round == step.round)
    }

    /// Does one run, or all runs of a search.
    fn take(&mut self, step: &Step) -> Result<()> {
        let Step { point, peer, round } = step;
        match point.rate {
            Rate::Search => {
                while let Some(rate) = self.next_try(point, &self.peers[*peer].name) {
                    self.run(point, *peer, *round, rate)?;
                    self.keep()?;
                }
                Ok(())
            }
            Rate::Percent(percent) => {
                let slowest = self.slowest(point).context("no capacity is known")?;
                let rate = capacity::rounded(slowest * f64::from(percent) / 100.0);
                ensure!(rate > 0.0, "{percent} % of {slowest} messages per second is too little to measure");
                self.run(point, *peer, *round, Some(rate))
            }
            Rate::OpenLoop(rate) => self.run(point, *peer, *round, Some(rate)),
            Rate::Idle | Rate::ClosedLoop(_) => self.run(point, *peer, *round, None),
        }
    }

    /// What a search runs next: at first a closed loop (no rate), then open loops.
    fn next_try(&self, point: &Point, name: &str) -> Option<Option<f64>> {
        let mut runs = self.comparison.runs_of(&point.key, name);
        let Some(first) = runs.next() else {
            return Some(None);
        };
        // A broker that fails here fails at every rate.
        let closed_loop = first.outcome.as_ref()?.published_per_second();
        let most = if self.quick { 1 } else { capacity::TRIES };
        capacity::next(closed_loop, &summary::tries(&self.comparison, &point.key, name), most).map(Some)
    }

    /// The least capacity of all brokers that can run this point.
    fn slowest(&self, point: &Point) -> Option<f64> {
        summary::slowest(&self.comparison, point.capacity_key()).map(|(_, rate)| rate)
    }

    fn run(&mut self, point: &Point, peer: usize, round: u32, rate: Option<f64>) -> Result<()> {
        let peer = &self.peers[peer];
        let mut found = self.load(peer, point, rate);
        // Repeated once when other processes disturbed the run.
        if !self.quick && found.as_ref().is_ok_and(|run| run.others > load::DISTURBED) {
            println!("      disturbed by other processes: repeated");
            found = self.load(peer, point, rate);
        }
        let (arguments, others, outcome) = match found {
            Ok(load::Run { arguments, outcome, others }) => (arguments, others, outcome),
            Err(error) => (String::new(), 0.0, Err(error)),
        };
        let (failure, outcome) = match outcome {
            Ok(outcome) => (None, Some(outcome)),
            Err(error) => (Some(format!("{error:#}")), None),
        };
        let is_try = point.rate == Rate::Search && rate.is_some();
        let each = f64::from(point.clients * point.topics_per_client / point.topics);
        let sustained = is_try.then(|| {
            let rate = rate.unwrap_or_default();
            outcome.as_ref().is_some_and(|outcome| capacity::sustained(outcome, rate, each))
        });
        let run = Run {
            peer: peer.name.clone(),
            row: point.row,
            key: point.key.clone(),
            round,
            rate,
            sustained,
            arguments,
            others,
            failure,
            outcome,
        };
        println!("      {}", summary::in_a_line(&run));
        self.comparison.runs.push(run);
        Ok(())
    }

    /// One run on a server of its own.
    fn load(&self, peer: &Peer, point: &Point, rate: Option<f64>) -> Result<load::Run> {
        if !self.quick {
            load::await_quiet();
        }
        let mut server = Server::start(peer, &self.words, self.cores.server_core, &self.scratch.path().join("server"))?;
        let mut run = |point: &Point, rate| {
            load::run(peer, &mut server, point, rate, self.cores.client_core, self.scratch.path())
        };
        if point.row == Row::Idle && !self.quick {
            let warming = Point { clients: WARMING, duration: 0.2, ..point.clone() };
            run(&warming, None).outcome.context("the first clients")?;
        }
        Ok(run(point, rate))
    }
}

fn participant(peer: &Peer, points: &[Point], words: &Words) -> Participant {
    let cannot = points.iter().filter_map(|point| Some((point.key.clone(), peer.cannot(point)?)));
    Participant {
        name: peer.name.clone(),
        title: peer.title.clone(),
        version: peer.version(words),
        settings: peer.settings.clone(),
        documentation: peer.documentation.clone(),
        remark: peer.remark.clone(),
        cannot: cannot.collect(),
    }
}

/// The commit of the sources, and whether they were changed since.
fn source() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", "../*.rs", "../*.toml"]);
    let changed = changed.is_some_and(|files| !files.is_empty());
    if changed { format!("{commit} and changes") } else { commit }
}

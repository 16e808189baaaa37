//! `bench race`: Ringyard against every peer that is installed, with the same load generator and the same work.
//!
//! | file | what it is |
//! | --- | --- |
//! | `peer` | who can take part: `race.toml` |
//! | `install` | what is missing, installed |
//! | `plan` | rows of points: the workloads, and their order |
//! | `server` | a peer's processes: start, ready, end |
//! | `load` | one run of the load generator |
//! | `capacity` | the search for the highest rate a peer sustains |
//! | `record` | what was found, run by run, kept after each |
//! | `summary` | medians and spread |
//! | `page`, `charts` | tables and plots made of it |
//!
//! Each run has a server of its own on one core, and the load generator on another. Nothing is judged here; what the
//! load generator says of a run (lost messages, itself having been the limit) stands beside its figures.

mod capacity;
mod charts;
mod install;
mod load;
mod page;
mod peer;
mod plan;
mod record;
mod server;
mod summary;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use time::OffsetDateTime;

use self::peer::{Peer, Words};
use self::plan::{Pace, Point, Row, Step, points, steps};
use self::record::{Contestant, Race, Run};
use self::server::Server;
use crate::machine::Machine;
use crate::process::{self, CoreOptions};

/// Descriptors that a server of 15,000 connections needs.
const DESCRIPTORS_MIN: u64 = 16_000;
/// More make servers that reserve memory for each larger than they need be.
const DESCRIPTORS_MAX: u64 = 65_536;
/// Connections before memory is measured: what is there once, whoever connects, is no cost of a connection.
const WARMING: u32 = 100;

/// `bench race`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only these peers, by name, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these rows, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum)]
    rows: Vec<Row>,
    /// Runs of each peer at each point.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Tens of clients instead of thousands: shows that everybody can be raced, judges and keeps nothing.
    #[arg(long)]
    quick: bool,
    /// Goes on with the newest race that was interrupted.
    #[arg(long)]
    resume: bool,
    /// Only makes tables and plots of the newest race again.
    #[arg(long, conflicts_with_all = ["resume", "quick"])]
    pages: bool,
    /// First installs the peers that are packages (apt-get, npm).
    #[arg(long)]
    install: bool,
    /// More peers, in a file like bench/race.toml.
    #[arg(long)]
    peers: Vec<PathBuf>,
    /// The broker [default: `ringyard` beside this program].
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Where results are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
    /// The page that shows some of them, between `<!-- race -->` and `<!-- /race -->`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"))]
    readme: PathBuf,
    #[command(flatten)]
    cores: CoreOptions,
}

/// Races. True when every run took place and Ringyard lost nothing.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let kept = options.results.join("race");
    if options.pages {
        let (path, race) = record::newest(&kept, |race| race.whole)?.context("there is no race to make pages of")?;
        return page::write_all(&race, &path, &options.results, &options.readme).map(|()| true);
    }
    ensure!(options.runs > 0, "--runs must be at least 1");
    let descriptors = raise_descriptors(options.quick)?;
    let broker = process::broker(options.broker.as_deref())?;
    let words = Words::default()
        .with("ringyard", broker.display())
        .with("bench", std::env::current_exe()?.display())
        .with("descriptors", descriptors);
    let described = described(options)?;
    if options.install {
        install::run(&described, &words)?;
    }
    let scratch = Scratch::new()?;
    let mut track = Track::open(options, &kept, described, words, scratch)?;
    let good = track.race()?;
    if track.race.whole && !options.quick {
        page::write_all(&track.race, track.path.as_deref().context("kept")?, &options.results, &options.readme)?;
    }
    if !options.quick {
        println!("\n{}", page::tables(&track.race));
    }
    Ok(good)
}

/// All peers that are described, installed or not.
fn described(options: &Options) -> Result<Vec<Peer>> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("race.toml");
    let mut peers = Vec::new();
    for path in [&ours].into_iter().chain(&options.peers) {
        for peer in peer::read(path)? {
            ensure!(peers.iter().all(|other: &Peer| other.name != peer.name), "there are two peers {}", peer.name);
            peers.push(peer);
        }
    }
    for name in &options.only {
        ensure!(peers.iter().any(|peer| peer.name == *name), "there is no peer {name} in {}", ours.display());
    }
    Ok(peers)
}

/// As many as allowed, within reason: what a process may open, its children too.
fn raise_descriptors(quick: bool) -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(DESCRIPTORS_MAX).min(DESCRIPTORS_MAX);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })?;
    ensure!(
        quick || most >= DESCRIPTORS_MIN,
        "a process may open {most} descriptors here, and servers of a race need {DESCRIPTORS_MIN}: raise `ulimit -Hn`"
    );
    Ok(most)
}

/// A folder for servers and load generator, gone when the race is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        const NAME: &str = "ringyard-race-";
        let folders = std::env::temp_dir();
        // An interrupted race leaves its own behind.
        for entry in fs::read_dir(&folders)?.filter_map(Result::ok) {
            let of = entry.file_name().to_str().and_then(|name| name.strip_prefix(NAME)?.parse::<u32>().ok());
            if of.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
        let folder = folders.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A race that is under way.
struct Track {
    race: Race,
    /// Where it is kept; a quick one is not.
    path: Option<PathBuf>,
    peers: Vec<Peer>,
    points: Vec<Point>,
    rounds: u32,
    quick: bool,
    words: Words,
    scratch: Scratch,
    cores: CoreOptions,
}

impl Track {
    fn open(options: &Options, kept: &Path, described: Vec<Peer>, words: Words, scratch: Scratch) -> Result<Self> {
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
        ensure!(!peers.is_empty(), "nobody to race: see bench/race.toml and --install");
        let mut points = points(options.quick);
        points.retain(|point| options.rows.is_empty() || options.rows.contains(&point.row));
        let contestants: Vec<_> = peers.iter().map(|peer| contestant(peer, &points, &words)).collect();
        let rounds = if options.quick { 1 } else { options.runs };
        let whole = options.only.is_empty() && options.rows.is_empty();
        let now = OffsetDateTime::now_utc();
        let (date, hour, minute) = (now.date(), now.hour(), now.minute());
        let (path, race) = if options.resume {
            let wanted = |race: &Race| !race.finished && race.contestants == contestants && race.rounds == rounds;
            let (path, race) = record::newest(kept, wanted)?.context("there is no interrupted race of these peers")?;
            ensure!(
                race.machine.kernel == Machine::this().kernel && race.source == source(),
                "{} was raced with {}; this is {}",
                path.display(),
                race.source,
                source()
            );
            (Some(path), race)
        } else {
            let part = if whole { "" } else { "-part" };
            let path = kept.join(format!("{date}-{hour:02}{minute:02}{part}.json"));
            let begun = format!("{date} {hour:02}:{minute:02}");
            let mut race = Race::new(Machine::this(), begun, source(), rounds, whole);
            (race.contestants, race.absent) = (contestants, absent);
            ((!options.quick).then_some(path), race)
        };
        let Options { quick, cores, .. } = *options;
        Ok(Self { race, path, peers, points, rounds, quick, words, scratch, cores })
    }

    /// Runs all that was not run yet.
    fn race(&mut self) -> Result<bool> {
        let steps =
            steps(&self.points, self.rounds, self.peers.len(), |peer, point| self.peers[peer].cannot(point).is_none());
        let steps: Vec<_> = steps.into_iter().filter(|step| !self.is_done(step)).collect();
        let mut progress = Progress::new(&steps);
        for step in &steps {
            progress.announce(step, &self.peers[step.peer], self.rounds);
            let begun = Instant::now();
            self.take(step).with_context(|| format!("{}, {}", step.point.title(), self.peers[step.peer].title))?;
            self.race.seconds += begun.elapsed().as_secs_f64();
            progress.done(step, begun.elapsed());
            self.keep()?;
        }
        self.race.finished = true;
        self.keep()?;
        Ok(self.race.runs.iter().all(|run| {
            let good = run.sustained.is_some() || run.outcome.as_ref().is_some_and(|outcome| outcome.errors.none());
            run.failure.is_none() && (good || !run.peer.starts_with("ringyard"))
        }))
    }

    fn keep(&self) -> Result<()> {
        self.path.as_ref().map_or(Ok(()), |path| self.race.write(path))
    }

    fn is_done(&self, step: &Step) -> bool {
        let name = &self.peers[step.peer].name;
        if step.point.pace == Pace::Search {
            return self.next_try(&step.point, name).is_none();
        }
        self.race.runs_of(&step.point.key, name).any(|run| run.round == step.round)
    }

    /// One run, or all runs of a search.
    fn take(&mut self, step: &Step) -> Result<()> {
        let Step { point, peer, round } = step;
        match point.pace {
            Pace::Search => {
                while let Some(rate) = self.next_try(point, &self.peers[*peer].name) {
                    self.run(point, *peer, *round, rate)?;
                    self.keep()?;
                }
                Ok(())
            }
            Pace::Percent(percent) => {
                let slowest = self.slowest(point).context("nobody's capacity is known")?;
                let rate = capacity::rounded(slowest * f64::from(percent) / 100.0);
                ensure!(rate > 0.0, "{percent} % of {slowest} messages per second is too little to measure");
                self.run(point, *peer, *round, Some(rate))
            }
            Pace::Open(rate) => self.run(point, *peer, *round, Some(rate)),
            Pace::Idle | Pace::Closed(_) => self.run(point, *peer, *round, None),
        }
    }

    /// What a search runs next: a closed loop at first (no rate), then open loops.
    fn next_try(&self, point: &Point, name: &str) -> Option<Option<f64>> {
        let mut runs = self.race.runs_of(&point.key, name);
        let Some(first) = runs.next() else {
            return Some(None);
        };
        // Who fails does not succeed at another rate.
        let closed_loop = first.outcome.as_ref()?.published_per_second();
        let most = if self.quick { 1 } else { capacity::TRIES };
        capacity::next(closed_loop, &summary::tries(&self.race, &point.key, name), most).map(Some)
    }

    /// The least capacity of all who can do this.
    fn slowest(&self, point: &Point) -> Option<f64> {
        summary::slowest(&self.race, point.capacity_key()).map(|(_, rate)| rate)
    }

    fn run(&mut self, point: &Point, peer: usize, round: u32, rate: Option<f64>) -> Result<()> {
        let peer = &self.peers[peer];
        let mut found = self.load(peer, point, rate);
        // Again when others took part in it, whatever came of it; once, as they may stay.
        if !self.quick && found.as_ref().is_ok_and(|run| run.others > load::DISTURBED) {
            println!("      disturbed by other processes: again");
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
        let is_try = point.pace == Pace::Search && rate.is_some();
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
        self.race.runs.push(run);
        Ok(())
    }

    /// One run on a server of its own.
    fn load(&self, peer: &Peer, point: &Point, rate: Option<f64>) -> Result<load::Run> {
        if !self.quick {
            load::await_quiet();
        }
        let mut server = Server::start(peer, &self.words, self.cores.server_core, &self.scratch.0.join("server"))?;
        let mut run =
            |point: &Point, rate| load::run(peer, &mut server, point, rate, self.cores.client_core, &self.scratch.0);
        if point.row == Row::Crowd && !self.quick {
            let warming = Point { clients: WARMING, duration: 0.2, ..point.clone() };
            run(&warming, None).outcome.context("the first clients")?;
        }
        Ok(run(point, rate))
    }
}

fn contestant(peer: &Peer, points: &[Point], words: &Words) -> Contestant {
    let cannot = points.iter().filter_map(|point| Some((point.key.clone(), peer.cannot(point)?)));
    Contestant {
        name: peer.name.clone(),
        title: peer.title.clone(),
        version: peer.version(words),
        settings: peer.settings.clone(),
        documentation: peer.documentation.clone(),
        remark: peer.remark.clone(),
        cannot: cannot.collect(),
    }
}

/// The state of the sources: a commit, and whether something was changed since.
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

/// How far it is, and when it will be over.
struct Progress {
    steps: usize,
    taken: usize,
    /// What was estimated for what is left, and for what was done.
    left: Duration,
    estimated: Duration,
    took: Duration,
}

impl Progress {
    fn new(steps: &[Step]) -> Self {
        let left = steps.iter().map(|step| step.point.estimate()).sum();
        Self { steps: steps.len(), taken: 0, left, estimated: Duration::ZERO, took: Duration::ZERO }
    }

    fn announce(&mut self, step: &Step, peer: &Peer, rounds: u32) {
        self.taken += 1;
        let left = self.left();
        let end = OffsetDateTime::now_utc() + left;
        let round =
            if step.point.pace == Pace::Search { String::new() } else { format!(", run {} of {rounds}", step.round) };
        println!(
            "[{}/{}, {} min left, until {:02}:{:02} UTC] {}: {}{round}",
            self.taken,
            self.steps,
            left.as_secs().div_ceil(60),
            end.hour(),
            end.minute(),
            step.point.title(),
            peer.title,
        );
    }

    /// By what was estimated, corrected by how that went so far.
    fn left(&self) -> Duration {
        if self.estimated.is_zero() {
            return self.left;
        }
        self.left.mul_f64(self.took.as_secs_f64() / self.estimated.as_secs_f64())
    }

    fn done(&mut self, step: &Step, took: Duration) {
        let estimate = step.point.estimate();
        self.left = self.left.saturating_sub(estimate);
        self.estimated += estimate;
        self.took += took;
    }
}

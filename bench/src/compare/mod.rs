//! `bench compare`: Ringyard and every other broker that is installed, with the same load generator and the same work.
//!
//! | file | what it is |
//! | --- | --- |
//! | `peer` | the brokers that can take part: `compare.toml` |
//! | `install` | installs the missing ones |
//! | `plan` | the workloads, and their order |
//! | `runner` | runs what is left to do, and keeps each result |
//! | `server` | a broker's processes: start, ready, end |
//! | `load` | one run of the load generator |
//! | `capacity` | the search for the highest rate that a broker sustains |
//! | `progress` | how far the comparison is |
//! | `record` | the result of every run, kept as JSON |
//! | `summary` | medians and spread |
//! | `page`, `charts` | tables and plots |
//!
//! Each run has a server of its own on one core, and the load generator on another. Nothing is judged here: what went
//! wrong in a run (lost messages, the load generator as the limit) stands beside its figures.

mod capacity;
mod charts;
mod install;
mod load;
mod page;
mod peer;
mod plan;
mod progress;
mod record;
mod runner;
mod server;
mod summary;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::peer::{Peer, Words};
use self::plan::Row;
use self::runner::Runner;
use crate::process::{self, CoreOptions};

/// Descriptors that a server of 15,000 connections needs.
const DESCRIPTORS_MIN: u64 = 16_000;
/// With more, servers that reserve memory for each descriptor become larger than they need to be.
const DESCRIPTORS_MAX: u64 = 65_536;

/// `bench compare`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only these brokers, by name, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these rows, separated by commas.
    #[arg(long, value_delimiter = ',', value_enum)]
    rows: Vec<Row>,
    /// Runs of each broker at each point.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Tens of clients instead of thousands: shows that every broker can be measured; judges and keeps nothing.
    #[arg(long)]
    quick: bool,
    /// Continues the newest comparison that was interrupted.
    #[arg(long)]
    resume: bool,
    /// Runs nothing: writes tables and plots of the newest comparison again.
    #[arg(long, conflicts_with_all = ["resume", "quick"])]
    pages: bool,
    /// First installs the brokers that come as packages (apt-get, npm).
    #[arg(long)]
    install: bool,
    /// More brokers, in a file like bench/compare.toml.
    #[arg(long)]
    peers: Vec<PathBuf>,
    /// The broker [default: `ringyard` beside this program].
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Where results are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
    /// The page that shows some of them, between `<!-- compare -->` and `<!-- /compare -->`.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"))]
    readme: PathBuf,
    #[command(flatten)]
    cores: CoreOptions,
}

/// Runs the comparison. True when every run took place and Ringyard lost nothing.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let kept = options.results.join("compare");
    if options.pages {
        let (path, comparison) =
            record::newest(&kept, |comparison| comparison.whole)?.context("there is no comparison to make pages of")?;
        return page::write_all(&comparison, &path, &options.results, &options.readme).map(|()| true);
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
    // Removed when the comparison is over.
    let scratch = tempfile::Builder::new().prefix("ringyard-compare-").tempdir()?;
    let mut runner = Runner::open(options, &kept, described, words, scratch)?;
    let good = runner.run_all()?;
    if runner.comparison.whole && !options.quick {
        page::write_all(
            &runner.comparison,
            runner.path.as_deref().context("kept")?,
            &options.results,
            &options.readme,
        )?;
    }
    if !options.quick {
        println!("\n{}", page::tables(&runner.comparison));
    }
    Ok(good)
}

/// All brokers that are described, installed or not.
fn described(options: &Options) -> Result<Vec<Peer>> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("compare.toml");
    let mut peers = Vec::new();
    for path in [&ours].into_iter().chain(&options.peers) {
        for peer in peer::read(path)? {
            ensure!(peers.iter().all(|other: &Peer| other.name != peer.name), "there are two brokers {}", peer.name);
            peers.push(peer);
        }
    }
    for name in &options.only {
        ensure!(peers.iter().any(|peer| peer.name == *name), "there is no broker {name} in {}", ours.display());
    }
    Ok(peers)
}

/// Raises the number of descriptors that this process and its children may open, up to [`DESCRIPTORS_MAX`].
fn raise_descriptors(quick: bool) -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(DESCRIPTORS_MAX).min(DESCRIPTORS_MAX);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })?;
    ensure!(
        quick || most >= DESCRIPTORS_MIN,
        "a process may open {most} descriptors here, and servers of a comparison need {DESCRIPTORS_MIN}: raise `ulimit -Hn`"
    );
    Ok(most)
}

//! `bench figures`: the figures that the broker must reach. Each is measured on a broker started for it, and judged.

mod admission;
mod conflate;
mod crowd;
mod dashboard;
mod drivers;
mod events;
mod history;
mod idle;
mod leases;
mod load;
mod logins;
mod message;
mod tls;
mod tokens;
mod v1;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use loadgen::Outcome;

use crate::machine::Machine;
use crate::process::{self, CoreOptions, Cores, Server, run_client};
use crate::results::{Figure, keep, write_table};

/// `bench figures`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only these: letters separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<char>,
    /// A few seconds and tens of clients: shows that nothing is lost, judges and keeps nothing.
    #[arg(long)]
    quick: bool,
    /// Runs nothing: writes the table of the kept runs again.
    #[arg(long)]
    pages: bool,
    /// The broker [default: `ringyard` beside this program].
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Where results are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
    #[command(flatten)]
    cores: CoreOptions,
}

type Measure = fn(&Bench) -> Result<Figure>;

/// Letter and measurement, in the order of the table.
const FIGURES: [(char, Measure); 31] = [
    ('a', message::processor_time),
    ('b', load::bursts),
    ('c', load::overload),
    ('d', admission::processor_time),
    ('e', load::saturation),
    ('f', idle::memory_of_fifteen_thousand),
    ('f', idle::memory_of_a_hundred_thousand),
    ('g', idle::processor_time),
    ('h', drivers::message),
    ('h', drivers::bursts),
    ('h', drivers::admission),
    ('h', drivers::memory),
    ('i', conflate::processor_time),
    ('j', conflate::slow_readers),
    ('k', history::newcomers),
    ('l', history::memory_of_retained),
    ('m', tls::message),
    ('m', tls::saturation),
    ('n', tls::memory),
    ('o', tls::handshakes),
    ('p', tokens::verification),
    ('q', logins::storm),
    ('r', logins::secure_storm),
    ('s', tls::key_exchanges),
    ('t', crowd::crowd),
    ('t', crowd::counted),
    ('u', leases::wills_and_leases),
    ('v', events::processor_time),
    ('v', events::memory),
    ('v', events::crowd),
    ('w', dashboard::processor_time),
];

/// What all measurements share.
pub(crate) struct Bench {
    pub(crate) broker: PathBuf,
    pub(crate) cores: Cores,
    pub(crate) quick: bool,
}

impl Bench {
    /// A broker with these arguments, on the server's core if it has one shard.
    pub(crate) fn start(&self, shards: u32, arguments: &[&str]) -> Result<Server> {
        let core = if shards == 1 { self.cores.server } else { None };
        let shards = shards.to_string();
        let always = ["--listen", "127.0.0.1:0", "--admin-listen", "public", "--shards", &shards];
        let arguments = [&always, arguments].concat();
        Server::start(&self.broker, core, &arguments)
    }

    /// One run on a broker of its own, with one shard.
    pub(crate) fn run(&self, arguments: &str) -> Result<Outcome> {
        self.run_on(&self.start(1, &[])?, arguments)
    }

    /// One run on this broker.
    pub(crate) fn run_on(&self, server: &Server, arguments: &str) -> Result<Outcome> {
        println!("\n> {arguments}");
        run_client(server, self.cores.client, &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// A number of clients, or of seconds: the real one, or the one of a quick run.
    pub(crate) fn pick<T>(&self, real: T, quick: T) -> T {
        if self.quick { quick } else { real }
    }
}

/// True when every figure is reached; in a quick run, when nothing went wrong.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.pages {
        return write_table(&options.results).map(|()| true);
    }
    for letter in &options.only {
        ensure!(FIGURES.iter().any(|(known, _)| known == letter), "there is no figure {letter}");
    }
    let bench = Bench {
        broker: process::broker(options.broker.as_deref())?,
        cores: Cores { server: Some(options.cores.server_core), client: Some(options.cores.client_core) },
        quick: options.quick,
    };
    let machine = Machine::this();
    let mut figures = Vec::new();
    for (letter, measure) in FIGURES {
        if options.only.is_empty() || options.only.contains(&letter) {
            let figure = measure(&bench).with_context(|| format!("figure {letter}"))?;
            if !options.quick {
                keep(&options.results, &machine, &figure)?;
                write_table(&options.results)?;
            }
            figures.push(figure);
        }
    }
    println!();
    for Figure { key, measured, bound, reached, .. } in &figures {
        let verdict = match (options.quick, reached) {
            (true, _) => "not judged",
            (false, true) => "reached",
            (false, false) => "NOT REACHED",
        };
        println!("{key:28} {measured:60} bound: {:40} {verdict}", bound.as_deref().unwrap_or("none"));
    }
    Ok(options.quick || figures.iter().all(|figure| figure.reached))
}

/// The median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A remark on how busy the client was: in some run it may have been the limit instead of the server.
pub(crate) fn client_remark(runs: &[(String, Outcome)]) -> Vec<String> {
    let saturated: Vec<_> =
        runs.iter().filter(|(_, report)| !report.invalid.is_empty()).map(|(name, _)| &name[..]).collect();
    if saturated.is_empty() {
        let busiest = runs.iter().map(|(_, report)| report.own.cpu_share).fold(0.0, f64::max);
        return vec![format!("the client used {:.0} % of its core at most", busiest * 100.0)];
    }
    vec![format!("client was the bottleneck in: {}", saturated.join(", "))]
}

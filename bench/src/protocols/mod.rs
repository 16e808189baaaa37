//! `bench protocols`: short poll, long poll, server-sent events and WebSockets, each for some uses of messages in pages: how late messages
//! are, and what they cost. Every run has a broker of its own; all runs of a use follow each other, round by round.
//!
//! | file | what it is |
//! | --- | --- |
//! | `uses` | the uses, and the rule by which a protocol is judged |
//! | `protocol` | the protocols |
//! | `client` | the clients of one run, a process of its own |
//! | `wire` | one connection, with everything counted |
//! | `stamps` | when a message was published, in its text |
//! | `record` | raw data of a run of all, as it is kept, and the figures made of it |
//! | `page` | the table in `bench/README.md`, and what the page `/compare` shows |
//!
//! Not measured: proxies, mobile networks, HTTP/2, WebTransport.

mod client;
mod page;
mod protocol;
mod record;
mod stamps;
mod uses;
mod wire;

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

pub(crate) use self::client::{ClientOptions, run as run_client};

use self::client::Sample;
use self::protocol::Protocol;
use self::record::{Record, Run};
use self::uses::Use;
use crate::machine::Machine;
use crate::process::{self, CoreOptions, Server, bound};

/// `bench protocols`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only these uses: chat, editing, game, status, railway.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Runs of each protocol for each use.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each that are measured.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// One round of a second each: shows that nothing is lost, keeps nothing.
    #[arg(long)]
    quick: bool,
    /// Runs nothing: writes the pages of the kept runs again.
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

/// Measures, prints, keeps.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.pages {
        return page::write_all(&options.results).map(|()| true);
    }
    let all = uses::all();
    for key in &options.only {
        ensure!(all.iter().any(|wanted| wanted.key == *key), "there is no use {key}");
    }
    ensure!(options.rounds > 0 && options.seconds > 0.0 && options.warmup >= 0.0, "nothing to measure");
    let (rounds, warmup, seconds) =
        if options.quick { (1, 0.5, 1.0) } else { (options.rounds, options.warmup, options.seconds) };
    let machine = Machine::this();
    let mut record = Record::new(machine, seconds, &all);
    for wanted in all.iter().filter(|wanted| options.only.is_empty() || options.only.contains(&wanted.key)) {
        for round in 1..=rounds {
            for &protocol in Protocol::value_variants() {
                let sample = measure(options, wanted, protocol, (warmup, seconds))?;
                println!("{}, {}, round {round}: {}", wanted.name, protocol.title(), record::describe(&sample));
                record.runs.push(Run { wanted: wanted.key.clone(), protocol, round, sample });
            }
        }
    }
    println!("\n{}", page::table(&record));
    // A part of the uses makes no table.
    if !options.quick && options.only.is_empty() {
        record::keep(&options.results, &record)?;
        page::write_all(&options.results)?;
    }
    Ok(record.runs.iter().all(|run| run.sample.missing == 0))
}

/// One run on a broker of its own, with one shard.
fn measure(options: &Options, wanted: &Use, protocol: Protocol, (warmup, seconds): (f64, f64)) -> Result<Sample> {
    let broker = process::broker(options.broker.as_deref())?;
    let arguments = ["--listen", "127.0.0.1:0", "--admin-listen", "off", "--shards", "1"];
    let server = Server::start(&broker, Some(options.cores.server_core), &arguments)?;
    let name = protocol.to_possible_value().expect("no protocol is hidden").get_name().to_owned();
    let output = bound(&std::env::current_exe()?, Some(options.cores.client_core))
        .args(["protocols-client", "--protocol", &name, "--use", &wanted.key])
        .args(["--address", &server.address.to_string(), "--server-pid", &server.pid().to_string()])
        .args(["--warmup", &warmup.to_string(), "--seconds", &seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .context("starting the clients")?;
    ensure!(output.status.success(), "{}, {}: the clients failed: {}", wanted.name, protocol.title(), output.status);
    serde_json::from_slice(&output.stdout).context("the clients wrote no sample")
}

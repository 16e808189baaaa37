//! `bench withstand`: abusive clients beside well-behaved ones, and proof that nobody else was harmed and that
//! everything went back to the start.
//!
//! | file | what it is |
//! | --- | --- |
//! | `round` | one round: control group, abusers, back to the control group, back to nothing |
//! | `control` | the well-behaved: every message checked, latency measured |
//! | `abuse` | the abusers, one file each kind |
//! | `arena` | what abusers share: where, how long, how much, what came of it |
//! | `broker` | the process under siege: memory, descriptors, last words |
//! | `stats` | its counters, and waiting for its gauges |
//! | `peer`, `wire`, `mutate` | a client, its bytes, and bytes gone wrong |
//! | `report` | the result, for people |
//!
//! The first round is the warm-up: what the broker keeps for good, it has after that. Each later one must end
//! with the same memory, within [`GROWTH_MAX_KIB`], and always with the same descriptors.

mod abuse;
mod arena;
mod broker;
mod control;
mod mutate;
mod peer;
mod report;
mod round;
mod stats;
mod wire;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use abuse::{KINDS, Kind};
use arena::{LAG_MAX, MESSAGE_MAX, Scale};
use broker::Broker;
use stats::Poller;

/// What a round may end above the first one's end, in kilobytes of resident memory: tables that are still as
/// large as their largest use may double once more. A round opens hundreds of thousands of connections, so a leak
/// of some twenty bytes each is above it.
const GROWTH_MAX_KIB: u64 = 16 << 10;

/// How long a broker may take to end when nobody is connected: far below the grace period.
const END_MAX: Duration = Duration::from_secs(3);

/// `bench withstand`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Seconds of abuse in each round [default: 30; with --quick 3].
    #[arg(long)]
    seconds: Option<u64>,
    /// Rounds in one broker; the first is the warm-up.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Decides mutations and their order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these kinds of abuse, separated by commas: heads, frames, silent, resets, churn, stalled, flood,
    /// topics, resubscribe, http.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Some ten seconds in all, with smaller counts and shorter deadlines.
    #[arg(long)]
    quick: bool,
    /// The broker [default: `ringyard` beside this program].
    #[arg(long)]
    broker: Option<PathBuf>,
}

/// True when nothing was violated.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let begun = Instant::now();
    let program = crate::process::broker(options.broker.as_deref())?;
    let scale = scale(options);
    let kinds = kinds(&options.only)?;
    let mut broker = Broker::start(&program, &arguments(&scale).iter().map(String::as_str).collect::<Vec<_>>())?;
    println!("{} at {}, seed {}", program.display(), broker.address, options.seed);

    let mut poller = Poller::new(broker.address);
    poller.ask()?;
    let start = broker.held()?;
    println!("at the start: {} KiB resident, {} descriptors", start.resident_kib, start.descriptors);
    let mut evidence = Vec::new();
    let mut warm_kib = None;
    for number in 1..=options.rounds as usize {
        let round = round::run(&broker, &mut poller, &kinds, &scale, number, options.seed);
        if let Some(status) = broker.ended()? {
            evidence.push(format!("round {number}: the broker ended: {status}"));
        }
        let round = match round {
            Ok(round) => round,
            Err(error) => {
                evidence.push(format!("round {number}: {error:#}"));
                break;
            }
        };
        evidence.extend(report::show(number, &round));
        let held = round.held;
        if held.descriptors != start.descriptors {
            let (now, before) = (held.descriptors, start.descriptors);
            evidence.push(format!("round {number}: {now} descriptors, {before} at the start"));
        }
        let warm_kib = *warm_kib.get_or_insert(held.resident_kib);
        if held.resident_kib > warm_kib + GROWTH_MAX_KIB {
            let now = held.resident_kib;
            evidence.push(format!("round {number}: {now} KiB resident, {warm_kib} KiB after the first"));
        }
    }
    drop(poller);
    let (status, took, said) = broker.end()?;
    if took > END_MAX {
        evidence.push(format!("with nobody connected, the broker took {took:.1?} to end"));
    }
    if !status.success() {
        evidence.push(format!("the broker ended with {status}"));
    }
    if !said.is_empty() {
        evidence.push(format!("the broker said: {said}"));
    }

    println!("\n{:.0} s in all", begun.elapsed().as_secs_f64());
    evidence.iter().for_each(|what| println!("VIOLATED  {what}"));
    if evidence.is_empty() {
        println!("withstood: nobody else was harmed, and everything went back");
    }
    Ok(evidence.is_empty())
}

fn kinds(only: &[String]) -> Result<Vec<Kind>> {
    for name in only {
        ensure!(KINDS.iter().any(|(known, ..)| known == name), "there is no abuse called {name}");
    }
    Ok(KINDS.into_iter().filter(|(name, ..)| only.is_empty() || only.iter().any(|wanted| wanted == name)).collect())
}

fn scale(options: &Options) -> Scale {
    let rounds = options.rounds as usize;
    let seconds = |quick, real| Duration::from_secs(if options.quick { quick } else { real });
    let pick = |quick: usize, real: usize| if options.quick { quick } else { real };
    Scale {
        time: options.seconds.map_or(seconds(3, 30), Duration::from_secs),
        raw: pick(50, 200),
        multi: pick(5, 20),
        topics: pick(5_000, 100_000),
        resubscriptions: pick(20_000, 1_000_000usize.div_ceil(rounds)),
        silent: pick(3, 20),
        stalled: pick(3, 10),
        handshake_timeout: seconds(3, 5),
        ping_interval: seconds(1, 3),
        ping_timeout: seconds(2, 3),
        close_timeout: seconds(1, 3),
        topic_idle_timeout: seconds(1, 2),
    }
}

fn arguments(scale: &Scale) -> Vec<String> {
    let time = |time: Duration| format!("{}ms", time.as_millis());
    let options = [
        ("listen", "127.0.0.1:0".to_owned()),
        ("admin-listen", "public".to_owned()),
        // As abusers call it.
        ("allow-host", "broker,b".to_owned()),
        // Refusals and closes are what this is about; what is said beyond is a fault.
        ("log-level", "error".to_owned()),
        ("shards", "2".to_owned()),
        ("max-message", MESSAGE_MAX.to_string()),
        ("max-lag", LAG_MAX.to_owned()),
        ("handshake-timeout", time(scale.handshake_timeout)),
        ("ping-interval", time(scale.ping_interval)),
        ("ping-timeout", time(scale.ping_timeout)),
        ("close-timeout", time(scale.close_timeout)),
        ("topic-idle-timeout", time(scale.topic_idle_timeout)),
    ];
    options.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

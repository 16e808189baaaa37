//! `bench abuse`: abusive clients beside well-behaved ones, and proof that the well-behaved ones notice nothing.
//!
//! Three parts, one after the other: the campaign, after which the broker must hold as much as before; each attack
//! alone, against a broker of its own on a core of its own; and all attacks together, within a memory limit that the
//! kernel enforces.
//!
//! | file | what it is |
//! | --- | --- |
//! | `campaign`, `round` | rounds of attacks on one broker; after each, its gauges must be back where they were |
//! | `trial` | one attack or all of them on a fresh broker, and the promises that the broker must keep |
//! | `confine` | the memory limit: a control group, or a limit of the address space |
//! | `control`, `bystanders` | the well-behaved clients: every message checked, every answer, latency measured |
//! | `watch`, `budget`, `turns` | the broker during an attack: memory and its purposes, operators' port, longest turn |
//! | `attacks` | the attacks, one file per kind |
//! | `abuser` | one thread of an attack, and its tally |
//! | `phase` | latencies before and during an attack |
//! | `broker` | the broker's process: memory, descriptors, exit status, log |
//! | `port` | the broker's port with TLS |
//! | `stats` | the broker's counters and gauges, over HTTP |
//! | `peer`, `stream`, `readers` | a client, over TCP or TLS; many clients that discard what they receive |
//! | `wire`, `mutate` | requests and frames as bytes; random damage to them |
//! | `scale` | how many clients, how long, and the broker's deadlines |
//! | `report` | the results as text |

mod abuser;
mod attacks;
mod broker;
mod budget;
mod bystanders;
mod campaign;
mod confine;
mod control;
mod mutate;
mod peer;
mod phase;
mod port;
mod readers;
mod report;
mod round;
mod scale;
mod stats;
mod stream;
mod trial;
mod turns;
mod watch;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;

use crate::process::CoreOptions;
use attacks::{ATTACKS, Attack, KINDS, Kind};

/// `bench abuse`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Seconds of attacks in each round of the campaign and in each attack [default: 30 and 10; with --quick 3]
    #[arg(long)]
    seconds: Option<u64>,
    /// Rounds of the campaign in one broker; the first is the warm-up
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Decides mutations and their order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these kinds, separated by commas. Of the campaign: heads, frames, silent, resets, churn, stalled, flood,
    /// topics, resubscribe, http, tls. Attacks: flood-one-reader, large-messages, small-messages, outboxes, acks, assembly,
    /// bodies, names, shapes, large-subscribes, overlap, flood-topic, slow-progress, filter-churn
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only all attacks together, in a memory limit of 256 MiB that the kernel enforces
    #[arg(long)]
    together: bool,
    /// Less than two minutes in all, with smaller counts and shorter deadlines
    #[arg(long)]
    quick: bool,
    /// Everything over TLS: attackers and well-behaved clients
    #[arg(long)]
    tls: bool,
    /// The broker [default: `ringyard` beside this program]
    #[arg(long)]
    broker: Option<PathBuf>,
    #[command(flatten)]
    cores: CoreOptions,
}

/// True when nothing was violated.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let begun = Instant::now();
    let program = crate::process::broker(options.broker.as_deref())?;
    let (kinds, attacks) = chosen(&options.only)?;
    let everything = options.only.is_empty();
    let mut evidence = Vec::new();
    if !options.together {
        evidence.extend(campaign(options, &program, &kinds)?);
        evidence.extend(trial::one_by_one(&program, &attacks, &scale::attack(options), options.cores, options.seed)?);
    }
    if options.together || everything {
        evidence.extend(trial::together(&program, &attacks, &scale::together(options), options.seed)?);
    }

    println!("\n{:.0} s in all", begun.elapsed().as_secs_f64());
    evidence.iter().for_each(|what| println!("VIOLATED  {what}"));
    if evidence.is_empty() {
        println!("passed: the well-behaved clients noticed nothing");
    }
    Ok(evidence.is_empty())
}

fn campaign(options: &Options, program: &Path, kinds: &[Kind]) -> Result<Vec<String>> {
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    campaign::run(program, kinds, &scale::campaign(options), options.rounds as usize, options.seed)
}

/// The kinds of the campaign and the attacks that were asked for; all when nothing was named.
fn chosen(only: &[String]) -> Result<(Vec<Kind>, Vec<Attack>)> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    for name in only {
        let known = KINDS.iter().chain(ATTACKS.iter().map(|attack| &attack.kind)).any(|(known, ..)| known == name);
        ensure!(known, "there is no attack called {name}");
    }
    let kinds = KINDS.into_iter().filter(|(name, ..)| wanted(name)).collect();
    let attacks = ATTACKS.into_iter().filter(|attack| wanted(attack.kind.0)).collect();
    Ok((kinds, attacks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_chosen_by_name() {
        let names = |only: &[&str]| {
            let (kinds, attacks) = chosen(&only.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
            anyhow::Ok((kinds.len(), attacks.len()))
        };
        assert_eq!(names(&[]).unwrap(), (KINDS.len(), ATTACKS.len()));
        assert_eq!(names(&["heads", "acks", "bodies"]).unwrap(), (1, 2));
        assert!(names(&["nothing"]).is_err());
    }
}

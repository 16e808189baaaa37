//! `bench withstand`: abusive clients beside well-behaved ones, and proof that nobody else was harmed.
//!
//! Three parts, one after the other: the campaign, in which everything goes back to the start; the attacks, each
//! against a broker of its own on a core of its own; and all attacks together, in a bound of memory that the kernel
//! enforces.
//!
//! | file | what it is |
//! | --- | --- |
//! | `campaign`, `round` | rounds of abuse in one broker: back to the control group, back to nothing |
//! | `siege` | some attacks on one broker, and what it must keep to |
//! | `confine` | a bound for the broker's memory: a control group, or its address space |
//! | `control`, `bystanders` | the well-behaved: every message checked, every request answered, latency measured |
//! | `watch`, `budget`, `turns` | the broker during an attack: memory, what it is held for, operators, its longest turn |
//! | `abuse` | the abusers, one file each kind |
//! | `arena`, `phase` | what abusers share: where, how long, how much, what came of it; before and during |
//! | `broker` | the process under siege: memory, descriptors, last words |
//! | `stats` | its counters, and waiting for its gauges |
//! | `peer`, `herd`, `wire`, `mutate` | a client, many that only read, their bytes, and bytes gone wrong |
//! | `scale` | how much of everything |
//! | `report` | the result, for people |

mod abuse;
mod arena;
mod broker;
mod budget;
mod bystanders;
mod campaign;
mod confine;
mod control;
mod herd;
mod mutate;
mod peer;
mod phase;
mod report;
mod round;
mod scale;
mod siege;
mod stats;
mod turns;
mod watch;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;

use crate::process::CoreOptions;
use abuse::{ATTACKS, Attack, KINDS, Kind};

/// `bench withstand`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Seconds of abuse in each round of the campaign and in each attack [default: 30 and 10; with --quick 3]
    #[arg(long)]
    seconds: Option<u64>,
    /// Rounds of the campaign in one broker; the first is the warm-up
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Decides mutations and their order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these kinds, separated by commas. Of the campaign: heads, frames, silent, resets, churn, stalled, flood,
    /// topics, resubscribe, http. Attacks: flood-one-reader, large-messages, small-messages, outboxes, acks, assembly,
    /// bodies, names, shapes, large-subscribes, overlap, flood-topic, slow-progress, filter-churn
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only all attacks together, in a memory limit of 256 MiB that the kernel enforces
    #[arg(long)]
    together: bool,
    /// Less than two minutes in all, with smaller counts and shorter deadlines
    #[arg(long)]
    quick: bool,
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
        evidence.extend(siege::one_by_one(&program, &attacks, &scale::attack(options), options.cores, options.seed)?);
    }
    if options.together || everything {
        evidence.extend(siege::together(&program, &attacks, &scale::together(options), options.seed)?);
    }

    println!("\n{:.0} s in all", begun.elapsed().as_secs_f64());
    evidence.iter().for_each(|what| println!("VIOLATED  {what}"));
    if evidence.is_empty() {
        println!("withstood: nobody else was harmed");
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
        ensure!(known, "there is no abuse called {name}");
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

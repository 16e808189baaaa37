//! A trial: attacks on a fresh broker with limits, beside the control group and bystanders. The broker must keep these
//! promises:
//!
//! - It survives, and ends with status 0.
//! - Its resident memory stays below what it announced at start, and its logs below `--max-log`.
//! - No well-behaved client loses a message, is closed, or is refused.
//! - Operators are always answered.
//! - Where it is promised, other topics keep their latency.
//!
//! A single attack runs against one shard on a core of its own, and the clients share another core, so that a delayed shard
//! shows. All attacks together run against two shards, within a memory limit that the kernel enforces.

use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::abuser::{Tally, Target};
use super::attacks::{self, Attack, Kind};
use super::broker::{Broker, Place};
use super::bystanders::{Bystanders, Service};
use super::confine::Confinement;
use super::control::{Control, Outcome};
use super::phase::Phase;
use super::port::Port;
use super::report::{self, Promise};
use super::scale::{self, Scale};
use super::watch::{Seen, Watch};
use crate::process::CoreOptions;

/// The limit of all memory, in bytes.
const MEMORY_MAX: u64 = 256 << 20;
/// Memory that the broker may hold for its clients: with its tables, code and connections it stays below [`MEMORY_MAX`].
pub(super) const BUDGET_BYTES: u64 = 96 << 20;
/// Bytes of messages that one shard keeps.
const LOG_BYTES: u64 = 32 << 20;
const LAG_BYTES: u64 = 4 << 20;
const CONNECTIONS_MAX: u32 = 12_000;
/// Names and filters: more than all attacks together use.
const TOPICS_MAX: u32 = 200_000;
/// Attackers have a lower priority than well-behaved clients on their shared core: the broker is measured, not the client.
const ABUSER_NICE: i32 = 10;
/// How long an HTTP publish may be refused beyond the time after which a body that does not end is cut.
const REFUSED_SLACK: Duration = Duration::from_secs(3);

/// The results of a trial.
pub(super) struct Trial {
    pub(super) kinds: Vec<(&'static str, Tally)>,
    pub(super) control: Outcome,
    pub(super) services: Vec<Service>,
    pub(super) seen: Seen,
    /// The most resident memory that the broker announced.
    pub(super) resident_max: Option<u64>,
    /// The limit of all its logs, in bytes.
    pub(super) log_max: u64,
    pub(super) took: Duration,
    pub(super) end: End,
}

/// How the broker ended.
pub(super) struct End {
    pub(super) early: Option<ExitStatus>,
    pub(super) status: ExitStatus,
    pub(super) said: String,
}

/// Runs each attack by itself, and returns everything that must not have happened.
pub(super) fn one_by_one(
    program: &Path,
    attacks: &[Attack],
    scale: &Scale,
    cores: CoreOptions,
    seed: u64,
) -> Result<Vec<String>> {
    let all = sched_getaffinity(None)?;
    let apart = pin(&all, cores)?;
    let port = scale.tls.then(|| Port::new(true)).transpose()?;
    let place = Place { core: apart.then_some(cores.server_core), confinement: None, port: port.as_ref() };
    let mut evidence = Vec::new();
    for attack in attacks {
        let scale = Scale { time: scale.time.max(attack.least), ..*scale };
        let trial = run(program, &[attack.kind], &scale, 1, place, seed);
        let name = attack.kind.0;
        println!("\n{name}: {}", attack.what);
        let found = match &trial {
            Ok(trial) => report::show_trial(
                trial,
                MEMORY_MAX,
                Promise { judged: apart, median_factor_max: attack.median_factor_max },
            ),
            Err(error) => vec![format!("{error:#}")],
        };
        evidence.extend(found.into_iter().map(|what| format!("{name}: {what}")));
    }
    sched_setaffinity(None, &all)?;
    Ok(evidence)
}

/// Runs all attacks at once, within [`MEMORY_MAX`].
pub(super) fn together(program: &Path, attacks: &[Attack], scale: &Scale, seed: u64) -> Result<Vec<String>> {
    let confinement = Confinement::new(MEMORY_MAX);
    println!(
        "\ntogether: {} attacks at once, the broker in {} MiB by {}",
        attacks.len(),
        MEMORY_MAX >> 20,
        confinement.name()
    );
    let kinds: Vec<_> = attacks.iter().map(|attack| attack.kind).collect();
    let port = scale.tls.then(|| Port::new(true)).transpose()?;
    let place = Place { core: None, confinement: Some(&confinement), port: port.as_ref() };
    let mut evidence = match run(program, &kinds, scale, 2, place, seed) {
        Ok(trial) => report::show_trial(&trial, MEMORY_MAX, Promise::default()),
        Err(error) => vec![format!("{error:#}")],
    };
    if let Some(peak) = confinement.peak() {
        println!(
            "  {:16} {:.1} MiB at most, the kernel's share included",
            "in the group",
            peak as f64 / f64::from(1 << 20)
        );
    }
    if confinement.kills() > 0 {
        evidence.push("the kernel killed the broker for want of memory".to_owned());
    }
    Ok(evidence.into_iter().map(|what| format!("together: {what}")).collect())
}

/// Moves this process to the client's core, if broker and clients can have a core each; returns whether they can.
fn pin(all: &CpuSet, cores: CoreOptions) -> Result<bool> {
    let (server, client) = (cores.server_core as usize, cores.client_core as usize);
    if server == client || !all.is_set(server) || !all.is_set(client) {
        println!("\nattacks: broker and clients share all cores, so latencies are not judged");
        return Ok(false);
    }
    let mut only = CpuSet::new();
    only.set(client);
    sched_setaffinity(None, &only).with_context(|| format!("there is no core {client}"))?;
    Ok(true)
}

fn run(program: &Path, kinds: &[Kind], scale: &Scale, shards: u64, place: Place<'_>, seed: u64) -> Result<Trial> {
    let mut broker = Broker::start(program, &arguments(scale, shards), place)?;
    let phase = Phase::default();
    let control = Control::start(&broker.clients, scale.raw, scale.v1, &phase)?;
    let bystanders = Bystanders::start(&broker.clients, scale.message_timeout + REFUSED_SLACK, &phase);
    let watch = Watch::start(&broker);
    thread::sleep(scale.calm);

    phase.attack();
    let begun = Instant::now();
    let target = Target::new(&broker, scale, 1, begun);
    let kinds = thread::scope(|scope| {
        // Threads inherit the priority of the thread that starts them (sched(7)).
        let abusers = scope.spawn(|| rustix::process::nice(ABUSER_NICE).map(|_| attacks::run(kinds, &target, seed)));
        abusers.join().expect("abusers do not panic")
    })
    .context("lowering the priority of the attackers")?;
    let took = begun.elapsed();

    let services = bystanders.stop();
    let control = control.stop().context("the control group")?;
    let seen = watch.stop();
    let resident_max = broker.resident_max();
    let early = broker.ended()?;
    let (status, _, said) = broker.end()?;
    let end = End { early, status, said };
    Ok(Trial { kinds, control, services, seen, resident_max, log_max: shards * LOG_BYTES, took, end })
}

fn arguments(scale: &Scale, shards: u64) -> Vec<String> {
    scale::arguments(
        scale,
        &[
            ("listen", "127.0.0.1:0"),
            ("admin-listen", "127.0.0.1:0"),
            // The values of Host in the attacks.
            ("allow-host", "broker,b"),
            ("shards", &shards.to_string()),
            ("max-connections", &CONNECTIONS_MAX.to_string()),
            ("max-topics", &TOPICS_MAX.to_string()),
            ("max-message", "1m"),
            ("max-memory", &BUDGET_BYTES.to_string()),
            ("max-lag", &LAG_BYTES.to_string()),
            ("max-log", &LOG_BYTES.to_string()),
            ("message-timeout", &scale::milliseconds(scale.message_timeout)),
        ],
    )
}

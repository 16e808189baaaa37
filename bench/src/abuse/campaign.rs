//! The campaign: rounds of attacks of all kinds on one broker, after which nothing may be left behind.
//!
//! The first round is the warm-up: after it the broker has allocated what it keeps for good. Each later round must end
//! with the same memory, within [`GROWTH_MAX_KIB`], and every round with the same descriptors.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::attacks::{self, Kind};
use super::broker::{Broker, Place};
use super::port::Port;
use super::scale::{self, LAG_MAX, MESSAGE_MAX, Scale};
use super::stats::Poller;
use super::{report, round};

/// The most that resident memory may grow after the first round, in kilobytes: a table may double once more. A round opens
/// hundreds of thousands of connections, so that a leak of twenty bytes per connection exceeds it.
const GROWTH_MAX_KIB: u64 = 16 << 10;

/// How long a broker may take to end when nobody is connected: far below the grace period.
const END_MAX: Duration = Duration::from_secs(3);

/// Runs it and returns everything that must not have happened.
pub(super) fn run(program: &Path, kinds: &[Kind], scale: &Scale, rounds: usize, seed: u64) -> Result<Vec<String>> {
    let secure = scale.tls || kinds.iter().any(|(name, ..)| *name == attacks::TLS);
    let port = secure.then(|| Port::new(scale.tls)).transpose()?;
    let mut broker = Broker::start(program, &arguments(scale), Place { port: port.as_ref(), ..Place::default() })?;
    println!("{} at {}, seed {seed}", program.display(), broker.address);

    let mut poller = Poller::new(broker.address);
    poller.ask()?;
    let start = broker.held()?;
    println!("at the start: {} KiB resident, {} descriptors", start.resident_kib, start.descriptors);
    let mut evidence = Vec::new();
    let mut warm_kib = None;
    for number in 1..=rounds {
        let round = round::run(&broker, &mut poller, kinds, scale, number, seed);
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
        evidence.extend(report::show_round(number, &round));
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
    Ok(evidence)
}

fn arguments(scale: &Scale) -> Vec<String> {
    scale::arguments(
        scale,
        &[
            ("listen", "127.0.0.1:0"),
            ("admin-listen", "public"),
            // The values of Host in the attacks.
            ("allow-host", "broker,b"),
            // Refusals and closes are expected; errors are faults.
            ("log-level", "error"),
            ("shards", "2"),
            ("max-message", &MESSAGE_MAX.to_string()),
            ("max-lag", LAG_MAX),
        ],
    )
}

//! One round: the control group connects, the attacks run and end, the gauges must be as before; then the control group
//! disconnects, and nothing may be left.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::abuser::{Tally, Target};
use super::attacks::{self, Kind};
use super::broker::{Broker, Held};
use super::control::{Control, Outcome};
use super::phase::Phase;
use super::scale::Scale;
use super::stats::{Gauges, Poller, Stats};

/// Bytes that may still be on their way to the control group when the attacks have ended.
const CONTROL_LOG_BYTES_MAX: u64 = 64 << 10;
/// The counters of why connections ended: each counts for one.
const REASONS: [&str; 16] = [
    "closed_by_client",
    "closed_shutdown",
    "handed_over",
    "refused",
    "dropped_handshake_timeout",
    "dropped_ping_timeout",
    "dropped_slow",
    "dropped_violation",
    "dropped_rate",
    "dropped_proxy_header",
    "dropped_reset",
    "dropped_handover",
    "dropped_adoption",
    "dropped_tls",
    "closed_expired",
    "closed_access",
];
/// Beyond the broker's own deadlines, for a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// What one round showed.
pub(super) struct Round {
    pub(super) kinds: Vec<(&'static str, Tally)>,
    pub(super) control: Outcome,
    /// How long the attacks ran.
    pub(super) took: Duration,
    /// From the end of the attacks until the gauges were as before, and from the end of the control group until they were 0.
    pub(super) back_after: Option<Duration>,
    pub(super) empty_after: Option<Duration>,
    pub(super) held: Held,
    pub(super) stats: Stats,
    pub(super) violations: Vec<String>,
}

/// Runs one.
pub(super) fn run(
    broker: &Broker,
    poller: &mut Poller,
    kinds: &[Kind],
    scale: &Scale,
    round: usize,
    seed: u64,
) -> Result<Round> {
    let mut violations = Vec::new();
    let control = Control::start(&broker.clients, scale.raw, scale.v1, &Phase::under_attack())?;
    let members = (scale.raw + scale.v1) as u64;
    let only_control = |gauges: &Gauges| {
        gauges.connections == members + 1
            && gauges.subscriptions == members
            && gauges.log_bytes <= CONTROL_LOG_BYTES_MAX
            && gauges.http_connections == 1
    };
    let calm = poller.wait(SLACK, only_control)?;
    let before = match calm {
        Ok((_, stats)) => stats.gauges()?,
        Err(stats) => {
            violations.push(format!("before the attacks: {}", stats.gauges()?));
            stats.gauges()?
        }
    };

    let begun = Instant::now();
    let target = Target::new(broker, scale, round, begun);
    let kinds = attacks::run(kinds, &target, seed);
    let took = begun.elapsed();

    let deadlines = scale.handshake_timeout.max(scale.ping_interval + scale.ping_timeout) + scale.close_timeout;
    let back = poller.wait(deadlines + SLACK, |gauges| only_control(gauges) && gauges.logs == before.logs)?;
    let back_after = match back {
        Ok((after, _)) => Some(after),
        Err(stats) => {
            violations.push(format!("after the attacks: {}; before: {before}", stats.gauges()?));
            None
        }
    };

    let control = control.stop().context("the control group")?;
    let nothing = Gauges { http_connections: 1, ..Gauges::default() };
    let empty = poller.wait(deadlines + scale.topic_idle_timeout + SLACK, |gauges| *gauges == nothing)?;
    let (empty_after, stats) = match empty {
        Ok((after, stats)) => (Some(after), stats),
        Err(stats) => {
            violations.push(format!("after all had left: {}", stats.gauges()?));
            (None, stats)
        }
    };
    check_accounts(&stats, &mut violations)?;
    // The allocator returns freed memory a little later.
    thread::sleep(Duration::from_millis(500));
    let held = broker.held()?;
    Ok(Round { kinds, control, took, back_after, empty_after, held, stats, violations })
}

/// Every connection that a shard accepted or adopted, it has closed, for one reason; every connection that was handed over
/// had been accepted.
fn check_accounts(stats: &Stats, violations: &mut Vec<String>) -> Result<()> {
    let total = |name: &str| stats.total(name);
    let (accepted, adopted, closed) = (total("accepted")?, total("adopted")?, total("closed")?);
    if accepted + adopted != closed {
        violations.push(format!("{accepted} accepted and {adopted} adopted, but {closed} closed"));
    }
    let reasons = REASONS.iter().map(|name| total(name)).sum::<Result<u64>>()?;
    if reasons != closed {
        violations.push(format!("{closed} closed, but {reasons} reasons why"));
    }
    let ends = total("handed_over")? + total("refused")? + total("upgraded")?;
    if ends > accepted {
        violations.push(format!("{accepted} accepted, but {ends} handed over, refused or upgraded"));
    }
    Ok(())
}

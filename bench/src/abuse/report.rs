//! The results of rounds and trials as text: counts, latencies, the broker's memory, and what was violated.

use std::time::Duration;

use super::abuser::Tally;
use super::bystanders::Service;
use super::control::Outcome;
use super::phase::Latencies;
use super::round::Round;
use super::trial::{BUDGET_BYTES, End, Trial};
use super::watch::Seen;

/// A shorter median before an attack counts as this long: below it, the client's own timing decides.
const MEDIAN_LEAST: Duration = Duration::from_micros(100);
/// The longest p99 of the pairs' messages while a shard is attacked: nothing that a client sends may delay a shard for
/// longer. On a machine that is slow even before the attack, twice the p99 from before is allowed.
const P99_MAX: Duration = Duration::from_millis(100);
/// The longest that a well-behaved client may wait for anything. A longer wait means that a broker short of memory makes
/// those wait who hold none of it.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// Bytes that may be held beyond the budget: one message, and changes while the gauges were read.
const BUDGET_SLACK: u64 = 2 << 20;
/// The broker's levels of log lines that are faults.
const FAULTS: [&str; 3] = [" ERROR ", "panicked", "RUST_BACKTRACE"];

/// What the broker promises about the latency of other topics during an attack.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Promise {
    /// Whether latencies are judged: not where broker and clients share their cores.
    pub(super) judged: bool,
    /// The largest median, as a multiple of the median before the attack.
    pub(super) median_factor_max: Option<f64>,
}

/// Prints a round and returns everything in it that must not have happened.
pub(super) fn show_round(number: usize, round: &Round) -> Vec<String> {
    let Round { kinds, control, took, back_after, empty_after, held, stats, violations } = round;
    let mut evidence = violations.clone();
    println!("\nround {number}, {:.1} s of abuse", took.as_secs_f64());
    evidence.extend(show_kinds(kinds));
    println!(
        "  {:14} {} published, {} delivered in order, {} pings; latency {}",
        "control group", control.published, control.delivered, control.pings, control.latencies.under_attack,
    );
    evidence.extend(of_control(control));
    let after =
        |time: &Option<Duration>| time.map_or("NEVER".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
    println!(
        "  {:14} to the control group after {}, to nothing after {}",
        "back",
        after(back_after),
        after(empty_after)
    );
    println!("  {:14} {} KiB resident, {} descriptors", "held", held.resident_kib, held.descriptors);
    let counters: Vec<_> = stats.counters().into_iter().map(|(name, n)| format!("{name} {n}")).collect();
    println!("  {:14} {}", "counters", counters.join(", "));
    evidence.into_iter().map(|what| format!("round {number}: {what}")).collect()
}

/// Prints a trial and returns everything in it that must not have happened. `memory_max`: the limit in bytes where the
/// broker announced none.
pub(super) fn show_trial(trial: &Trial, memory_max: u64, promise: Promise) -> Vec<String> {
    let Trial { kinds, control, services, took, end, .. } = trial;
    let mut evidence = show_kinds(kinds);
    println!(
        "  {:16} {} published, {} delivered in order, in {:.1} s",
        "control group",
        control.published,
        control.delivered,
        took.as_secs_f64()
    );
    let rows = services.iter().map(|service| (service.name, &service.latencies));
    for (name, latencies) in [("latency", &control.latencies)].into_iter().chain(rows) {
        println!("  {name:16} {} -> {}", latencies.calm, latencies.under_attack);
    }
    evidence.extend(of_control(control));
    evidence.extend(waited_too_long("control group", &control.latencies));
    evidence.extend(services.iter().flat_map(of_service));
    show_broker(trial);
    evidence.extend(of_memory(trial, memory_max));
    evidence.extend(trial.seen.operators.failure.iter().map(|what| format!("operators were not answered: {what}")));
    let pairs = services.iter().filter(|service| service.name == "pairs");
    evidence.extend(pairs.flat_map(|pairs| judge_latencies(&pairs.latencies, promise)));
    evidence.extend(of_end(end));
    evidence
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn show_broker(trial: &Trial) {
    let (memory, operators) = (&trial.seen.memory, &trial.seen.operators);
    let announced = trial.resident_max.map_or("not reported".to_owned(), |bytes| format!("{:.1} MiB", mib(bytes)));
    println!(
        "  {:16} {:.1} MiB before, {:.1} MiB at most, announced: {announced}; log {:.1} of {:.0} MiB",
        "resident",
        mib(memory.first_bytes),
        mib(memory.peak_bytes),
        mib(operators.log_peak_bytes),
        mib(trial.log_max),
    );
    println!("  {:16} {}", "held for clients", operators.budget);
    println!("  {:16} {}", "longest turn", trial.seen.longest_turn);
    let slowest_ms = operators.slowest.as_secs_f64() * 1e3;
    println!("  {:16} answered {} times, within {slowest_ms:.1} ms", "operators", operators.answers);
}

fn of_service(service: &Service) -> Vec<String> {
    let Service { name, latencies, violations } = service;
    let mut evidence: Vec<_> = waited_too_long(name, latencies).into_iter().collect();
    evidence.extend(violations.iter().map(|(what, n)| format!("{name}: {n} times {what}")));
    if latencies.under_attack.count() == 0 {
        evidence.push(format!("{name}: never served"));
    }
    evidence
}

/// Limits of memory that the broker did not keep.
fn of_memory(trial: &Trial, memory_max: u64) -> Vec<String> {
    let Seen { memory, operators, .. } = &trial.seen;
    let (peak, log, held) = (memory.peak_bytes, operators.log_peak_bytes, operators.budget.used());
    let resident_max = trial.resident_max.unwrap_or(memory_max);
    let mut evidence = Vec::new();
    if peak > resident_max {
        evidence.push(format!("{:.1} MiB were resident, the limit is {:.1} MiB", mib(peak), mib(resident_max)));
    }
    if resident_max > memory_max {
        evidence.push(format!("it announced {:.1} MiB, more than its limits were chosen for", mib(resident_max)));
    }
    if log > trial.log_max {
        evidence.push(format!("{:.1} MiB in logs, the limit is {:.0} MiB", mib(log), mib(trial.log_max)));
    }
    if held > BUDGET_BYTES + BUDGET_SLACK {
        evidence.push(format!("{:.1} MiB held for clients, the budget is {:.1} MiB", mib(held), mib(BUDGET_BYTES)));
    }
    evidence
}

fn waited_too_long(who: &str, latencies: &Latencies) -> Option<String> {
    let worst = latencies.under_attack.worst();
    (worst > WAIT_MAX).then(|| format!("{who}: held up for {:.1} s", worst.as_secs_f64()))
}

fn judge_latencies(latencies: &Latencies, promise: Promise) -> Vec<String> {
    let Latencies { calm, under_attack } = latencies;
    let mut evidence = Vec::new();
    let p99_max = P99_MAX.max(2 * calm.p99());
    if promise.judged && under_attack.p99() > p99_max {
        evidence.push(format!(
            "one in a hundred of the pairs' messages took {:.1?}, {p99_max:.1?} are the bound",
            under_attack.p99()
        ));
    }
    if let Some(factor_max) = promise.median_factor_max.filter(|_| promise.judged) {
        let (before, during) = (calm.median(), under_attack.median());
        if during > before.max(MEDIAN_LEAST).mul_f64(factor_max) {
            evidence.push(format!(
                "the pairs' median went from {before:.1?} to {during:.1?}, more than {factor_max} times"
            ));
        }
    }
    evidence
}

fn show_kinds(kinds: &[(&'static str, Tally)]) -> Vec<String> {
    let mut evidence = Vec::new();
    for (kind, tally) in kinds {
        let counts: Vec<_> = tally.counts.iter().map(|(what, n)| format!("{n} {what}")).collect();
        let rest = if tally.violations > 0 { format!("; {} VIOLATIONS", tally.violations) } else { String::new() };
        println!("  {kind:16} {}{rest}", counts.join(", "));
        evidence.extend(tally.sentences.iter().map(|sentence| format!("{kind}: {sentence}")));
        let more = tally.violations - tally.sentences.len() as u64;
        if more > 0 {
            evidence.push(format!("{kind}: and {more} more"));
        }
    }
    evidence
}

fn of_control(control: &Outcome) -> impl Iterator<Item = String> {
    control.violations.iter().map(|(what, n)| format!("control group: {n} {what}"))
}

fn of_end(end: &End) -> Vec<String> {
    let mut evidence: Vec<_> = end.early.iter().map(|status| format!("the broker ended by itself: {status}")).collect();
    if !end.status.success() {
        evidence.push(format!("the broker ended with {}", end.status));
    }
    let faults = end.said.lines().filter(|line| FAULTS.iter().any(|fault| line.contains(fault)));
    evidence.extend(faults.map(|line| format!("the broker said: {line}")));
    evidence
}

#[cfg(test)]
mod tests {
    use super::super::phase::Phase;
    use super::*;

    #[test]
    fn latencies_are_judged_where_the_broker_has_a_core_of_its_own() {
        let (phase, mut latencies) = (Phase::default(), Latencies::new());
        latencies.record(&phase, Duration::from_millis(1));
        phase.attack();
        latencies.record(&phase, Duration::from_millis(50));
        let judge = |latencies: &Latencies, judged, median_factor_max| {
            judge_latencies(latencies, Promise { judged, median_factor_max }).len()
        };
        assert_eq!(judge(&latencies, true, None), 0);
        assert_eq!(judge(&latencies, true, Some(60.0)), 0);
        assert_eq!(judge(&latencies, true, Some(3.0)), 1);
        assert_eq!(waited_too_long("pairs", &latencies), None);
        latencies.record(&phase, Duration::from_millis(150));
        assert_eq!(judge(&latencies, true, Some(3.0)), 2);
        assert_eq!(judge(&latencies, false, Some(3.0)), 0);
        latencies.record(&phase, WAIT_MAX * 2);
        assert!(waited_too_long("pairs", &latencies).is_some_and(|what| what.starts_with("pairs: held up for 16.0")));
    }
}

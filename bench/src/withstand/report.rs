//! What a campaign showed, for people: counts of each round, then what was violated.

use std::time::Duration;

use super::round::Round;

/// Prints a round and returns everything in it that must not have happened.
pub(super) fn show(number: usize, round: &Round) -> Vec<String> {
    let Round { kinds, control, took, back_after, empty_after, held, stats, violations } = round;
    let mut evidence = violations.clone();
    println!("\nround {number}, {:.1} s of abuse", took.as_secs_f64());
    for (kind, tally) in kinds {
        let counts: Vec<_> = tally.counts.iter().map(|(what, n)| format!("{n} {what}")).collect();
        let rest = if tally.violations > 0 { format!("; {} VIOLATIONS", tally.violations) } else { String::new() };
        println!("  {kind:14} {}{rest}", counts.join(", "));
        evidence.extend(tally.sentences.iter().map(|sentence| format!("{kind}: {sentence}")));
        let more = tally.violations - tally.sentences.len() as u64;
        if more > 0 {
            evidence.push(format!("{kind}: and {more} more"));
        }
    }
    let ms = |quantile| control.latencies.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "  {:14} {} published, {} delivered in order, {} pings; latency p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        "control group",
        control.published,
        control.delivered,
        control.pings,
        ms(0.5),
        ms(0.99),
        control.latencies.max() as f64 / 1e6,
    );
    evidence.extend(control.violations.iter().map(|(what, n)| format!("control group: {n} {what}")));
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

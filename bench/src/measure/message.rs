//! Processor time per delivered message, compared with the kernel's floor in the same run.

use anyhow::{Context, Result};
use loadgen::Outcome;

use super::{Bench, client_remark, median};
use crate::floor::{self, Timing};
use crate::results::Figure;

const RATIO_MAX: f64 = 1.10;
const PAYLOAD: usize = 128;

/// 5,000 subscribers, 128 bytes, one message per send: the next message is published when all subscribers have the last.
pub(crate) fn processor_time(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 50);
    let timing = bench.pick(Timing { warmup: 2.0, duration: 6.0 }, Timing { warmup: 0.1, duration: 0.3 });
    let mut runs = Vec::new();
    let (mut floors, mut brokers) = (Vec::new(), Vec::new());
    for round in 1..=bench.pick(5, 1) {
        let (report, nanos) = floor::measure(bench.cores, clients, PAYLOAD, timing)?;
        runs.push((format!("floor {round}"), report));
        floors.push(nanos);
        let arguments = format!("--clients {clients} --payload {PAYLOAD} --outstanding 1 {}", timing.arguments());
        let report = bench.run(&arguments)?;
        brokers.push(message_ns(&report)?);
        runs.push((format!("broker {round}"), report));
    }
    let each = format!("floor {}; broker {} ns", rounded(&floors), rounded(&brokers));
    let (floor, broker) = (median(floors), median(brokers));
    let ratio = broker / floor;
    let sends = runs.iter().filter_map(|(_, outcome)| sends_per_message(outcome)).fold(1.0, f64::min);
    let mut remarks = client_remark(&runs);
    remarks.push(format!("at least {sends:.3} sends per message; medians of alternating runs: {each}"));
    remarks.push(
        "the broker's time is that of all its threads, everything included; the floor's that of its sends alone"
            .to_owned(),
    );
    Ok(Figure {
        key: "a-message".to_owned(),
        what: format!("processor time per delivered message, {clients} subscribers, 128 bytes, one message per send"),
        measured: format!("{ratio:.3} x the floor ({broker:.0} ns against {floor:.0} ns)"),
        bound: Some(format!("at most {RATIO_MAX:.2} x the kernel's floor")),
        reached: ratio <= RATIO_MAX && sends > 0.99,
        remarks,
        runs,
    })
}

fn rounded(nanos: &[f64]) -> String {
    nanos.iter().map(|nanos| format!("{nanos:.0}")).collect::<Vec<_>>().join(", ")
}

/// Processor time per delivered message, in nanoseconds.
pub(crate) fn message_ns(outcome: &Outcome) -> Result<f64> {
    outcome.server_ns_per_message().context("nothing was delivered")
}

/// Sends per message that the broker sent to one subscriber.
pub(crate) fn sends_per_message(outcome: &Outcome) -> Option<f64> {
    let server = outcome.server.as_ref()?;
    Some(server.sends? as f64 / server.messages.filter(|messages| *messages > 0)? as f64)
}

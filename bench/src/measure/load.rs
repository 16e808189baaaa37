//! Throughput: bursts, saturation, and publishing faster than a delivery round takes.

use anyhow::{Context, Result};

use super::message::{message_ns, sends_per_message};
use super::{Bench, client_remark};
use crate::results::Figure;

/// Ten messages are published together, the next ten when all subscribers have the last.
pub(crate) fn bursts(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 50);
    let timing = bench.pick("--warmup 2 --duration 10", "--warmup 0.1 --duration 0.8");
    let report = bench.run(&format!("--clients {clients} --payload 128 --burst 10 --outstanding 1 {timing}"))?;
    let (per_second, p99_ms) = (report.delivered_per_second(), report.latency.p99 as f64 / 1e6);
    let us = message_ns(&report)? / 1000.0;
    let runs = vec![("bursts of ten".to_owned(), report)];
    Ok(Figure {
        key: "b-bursts".to_owned(),
        what: format!("published in bursts of ten, {clients} subscribers, 128 bytes"),
        measured: format!("{per_second:.0}/s, {us:.2} us each, p99 {p99_ms:.1} ms"),
        bound: None,
        reached: true,
        remarks: client_remark(&runs),
        runs,
    })
}

/// Four messages are on their way at any time.
pub(crate) fn saturation(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 50);
    let timing = bench.pick("--warmup 2 --duration 10", "--warmup 0.1 --duration 0.8");
    let report = bench.run(&format!("--clients {clients} --payload 128 --outstanding 4 {timing}"))?;
    let (per_second, p99_ms) = (report.delivered_per_second(), report.latency.p99 as f64 / 1e6);
    let us = message_ns(&report)? / 1000.0;
    let runs = vec![("four outstanding".to_owned(), report)];
    Ok(Figure {
        key: "e-saturation".to_owned(),
        what: format!("four publishes outstanding, {clients} subscribers, 128 bytes"),
        measured: format!("{per_second:.0}/s, {us:.2} us each, p99 {p99_ms:.1} ms"),
        bound: None,
        reached: true,
        remarks: client_remark(&runs),
        runs,
    })
}

/// Messages are published faster than a delivery round takes: each send carries several, and nothing is lost.
pub(crate) fn overload(bench: &Bench) -> Result<Figure> {
    const SENDS_MAX: f64 = 0.2;
    let clients = bench.pick(5000, 50);
    let timing = bench.pick("--warmup 2 --duration 5", "--warmup 0.1 --duration 0.8");
    let mut runs = Vec::new();
    let mut sends = Vec::new();
    for rate in bench.pick(&[25, 50, 100, 200, 400][..], &[100, 1000][..]) {
        let report = bench.run(&format!("--clients {clients} --payload 128 --rate {rate} {timing}"))?;
        sends.push(sends_per_message(&report).context("the broker shows no sends")?);
        runs.push((format!("{rate}/s"), report));
    }
    let falls = sends.windows(2).all(|pair| pair[1] <= pair[0] + 0.01);
    let shown: Vec<_> = runs.iter().zip(&sends).map(|((rate, _), sends)| format!("{sends:.3} at {rate}")).collect();
    let least = sends.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Figure {
        key: "c-overload".to_owned(),
        what: format!(
            "sends per delivered message, published faster than a delivery round takes, {clients} subscribers"
        ),
        measured: shown.join(", "),
        bound: Some(format!("falling, below {SENDS_MAX}, nothing lost")),
        reached: falls && least < SENDS_MAX,
        remarks: client_remark(&runs),
        runs,
    })
}

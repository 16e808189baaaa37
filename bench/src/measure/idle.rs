//! Memory and processor time of idle connections.

use anyhow::{Context, Result, ensure};
use loadgen::Outcome;

use super::Bench;
use crate::process::Server;
use crate::results::Figure;

const MEMORY_MAX_BYTES: f64 = 256.0;
const CPU_SHARE_MAX: f64 = 0.01;

/// Memory per connection with one subscription, 15,000 of them, one shard.
pub(crate) fn memory_of_fifteen_thousand(bench: &Bench) -> Result<Figure> {
    memory(bench, "f-memory-15000", bench.pick(15_000, 50), 1)
}

/// The same with 100,000, seven shards of at most 20,000 descriptors each, all on whatever core is free.
pub(crate) fn memory_of_a_hundred_thousand(bench: &Bench) -> Result<Figure> {
    memory(bench, "f-memory-100000", bench.pick(100_000, 200), 7)
}

fn memory(bench: &Bench, key: &str, clients: u32, shards: u32) -> Result<Figure> {
    let (report, pss, anonymous) = memory_per_client(bench, &bench.start(shards, &[])?, clients, "raw")?;
    Ok(Figure {
        key: key.to_owned(),
        what: format!("user memory per idle connection with one subscription, {clients} connections, {shards} shards"),
        measured: format!("{pss:.0} bytes"),
        bound: Some(format!("at most {MEMORY_MAX_BYTES:.0} bytes")),
        reached: pss <= MEMORY_MAX_BYTES,
        remarks: vec![format!(
            "proportional set size above that of the broker before, which had served 100 clients; anonymous memory \
             alone grew by {anonymous:.0} bytes per connection"
        )],
        runs: vec![("idle".to_owned(), report)],
    })
}

/// By how much `clients` connections of this protocol enlarge the proportional set size and the anonymous memory, in bytes per
/// connection.
pub(crate) fn memory_per_client(
    bench: &Bench,
    server: &Server,
    clients: u32,
    protocol: &str,
) -> Result<(Outcome, f64, f64)> {
    warm(bench, server)?;
    let arguments = format!("--clients {clients} --scenario idle --protocol {protocol} --warmup 1 --duration 2");
    let report = bench.run_on(server, &arguments)?;
    let used = report.server.clone().context("no memory was measured")?;
    let per_client = |after: u64, before: u64| (after as f64 - before as f64) / f64::from(clients);
    let pss = per_client(used.memory_after.pss, used.memory_before.pss);
    let anonymous = per_client(used.memory_after.anonymous, used.memory_before.anonymous);
    Ok((report, pss, anonymous))
}

/// Processor time with 15,000 connections that are pinged every 25 seconds.
pub(crate) fn processor_time(bench: &Bench) -> Result<Figure> {
    let (clients, seconds) = bench.pick((15_000, 75), (50, 2));
    let server = bench.start(1, &[])?;
    warm(bench, &server)?;
    // Two seconds of warm-up: the connections' first minute has no special cost, but the last admissions do.
    let report =
        bench.run_on(&server, &format!("--clients {clients} --scenario idle --warmup 2 --duration {seconds}"))?;
    judge_idle(clients, seconds, report)
}

fn judge_idle(clients: u64, seconds: u64, report: Outcome) -> Result<Figure> {
    let pinged = report.traffic.pings as f64 / clients as f64;
    // The first comes 25 s after the upgrade; the last may be due just when the measurement ends.
    let pings_min = clients * (seconds / 25).saturating_sub(1);
    ensure!(report.traffic.pings >= pings_min, "only {} pings came to {clients} clients", report.traffic.pings);
    let used = report.server.as_ref().context("no processor time")?;
    let share = used.cpu_ns as f64 / 1e9 / report.seconds;
    Ok(Figure {
        key: "g-idle".to_owned(),
        what: format!("processor time of {clients} idle connections, pinged every 25 s"),
        measured: format!("{:.2} % of a core", share * 100.0),
        bound: Some(format!("below {:.0} %", CPU_SHARE_MAX * 100.0)),
        reached: share < CPU_SHARE_MAX,
        remarks: vec![format!("measured for {seconds} s, each connection was pinged {pinged:.1} times")],
        runs: vec![("idle".to_owned(), report)],
    })
}

/// Connects some clients first: code pages, pools and first allocations are not a cost of a connection.
fn warm(bench: &Bench, server: &Server) -> Result<()> {
    let clients = bench.pick(100, 20);
    bench.run_on(server, &format!("--clients {clients} --scenario idle --warmup 0 --duration 0.2"))?;
    Ok(())
}

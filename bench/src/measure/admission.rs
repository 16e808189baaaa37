//! Processor time to admit a client: accept, upgrade and subscribe.

use anyhow::{Context, Result};
use loadgen::Outcome;

use super::{Bench, median};
use crate::process::Server;
use crate::results::Figure;

const ADMISSION_MAX_US: f64 = 22.0;

/// On a broker that has admitted clients before.
pub(crate) fn processor_time(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(10_000, 50);
    let (mut runs, mut values) = (Vec::new(), Vec::new());
    for round in 1..=bench.pick(5, 1) {
        let (report, us) = admission_us(bench, &bench.start(1, &[])?, clients)?;
        runs.push((format!("round {round}"), report));
        values.push(us);
    }
    let us = median(values);
    Ok(Figure {
        key: "d-admission".to_owned(),
        what: format!("processor time per admitted client (accept, upgrade, subscribe), {clients} clients"),
        measured: format!("{us:.1} us"),
        bound: Some(format!("at most {ADMISSION_MAX_US:.0} us")),
        reached: us <= ADMISSION_MAX_US,
        remarks: Vec::new(),
        runs,
    })
}

/// Microseconds per admitted client, on a server that has admitted some before.
pub(crate) fn admission_us(bench: &Bench, server: &Server, clients: u32) -> Result<(Outcome, f64)> {
    bench.run_on(server, "--clients 100 --scenario idle --warmup 0 --duration 0.1")?;
    let report = bench.run_on(server, &format!("--clients {clients} --scenario idle --warmup 0 --duration 0.1"))?;
    let us = report.server_ns_per_admission().context("no processor time")? / 1000.0;
    Ok((report, us))
}

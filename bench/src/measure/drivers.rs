//! The same runs on the same broker, on io_uring and on epoll in turn. They have no bound; they show what it costs to do
//! without io_uring.

use anyhow::Result;
use loadgen::Outcome;

use super::admission::admission_us;
use super::idle::memory_per_client;
use super::message::message_ns;
use super::{Bench, client_remark, median};
use crate::process::Server;
use crate::results::Figure;

/// One message per send.
pub(crate) fn message(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 50);
    let timing = bench.pick("--warmup 2 --duration 6", "--warmup 0.1 --duration 0.8");
    let run = format!("--clients {clients} --payload 128 --outstanding 1 {timing}");
    let what = format!("processor time per delivered message, {clients} subscribers, one message per send");
    compare(bench, "h-message", &what, "ns", |server| {
        let outcome = bench.run_on(server, &run)?;
        let ns = message_ns(&outcome)?;
        Ok((outcome, ns))
    })
}

/// Ten messages at a time.
pub(crate) fn bursts(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 50);
    let timing = bench.pick("--warmup 2 --duration 6", "--warmup 0.1 --duration 0.8");
    let run = format!("--clients {clients} --payload 128 --burst 10 --outstanding 1 {timing}");
    let what = format!("processor time per delivered message, {clients} subscribers, in bursts of ten");
    compare(bench, "h-bursts", &what, "ns", |server| {
        let outcome = bench.run_on(server, &run)?;
        let ns = message_ns(&outcome)?;
        Ok((outcome, ns))
    })
}

/// Accept, upgrade and subscribe.
pub(crate) fn admission(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(10_000, 50);
    let what = format!("processor time per admitted client, {clients} clients");
    compare(bench, "h-admission", &what, "us", |server| admission_us(bench, server, clients))
}

/// Connections that do nothing.
pub(crate) fn memory(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(15_000, 50);
    let what = format!("user memory per idle connection, {clients} connections");
    compare(bench, "h-memory", &what, "bytes", |server| {
        memory_per_client(bench, server, clients, "raw").map(|(outcome, pss, _)| (outcome, pss))
    })
}

/// Alternating runs, each on a broker of its own with one shard; the medians.
fn compare(
    bench: &Bench,
    key: &str,
    what: &str,
    unit: &str,
    measure: impl Fn(&Server) -> Result<(Outcome, f64)>,
) -> Result<Figure> {
    let mut runs = Vec::new();
    let (mut uring, mut epoll) = (Vec::new(), Vec::new());
    for round in 1..=bench.pick(5, 1) {
        for (io, values) in [("uring", &mut uring), ("epoll", &mut epoll)] {
            let (outcome, value) = measure(&bench.start(1, &["--io", io])?)?;
            runs.push((format!("{io} {round}"), outcome));
            values.push(value);
        }
    }
    let (uring, epoll) = (median(uring), median(epoll));
    Ok(Figure {
        key: key.to_owned(),
        what: format!("io_uring against epoll: {what}"),
        measured: format!("{uring:.1} {unit} against {epoll:.1} {unit}, {:.2} x", epoll / uring),
        bound: None,
        reached: true,
        remarks: client_remark(&runs),
        runs,
    })
}

//! Streams of server-sent events beside raw WebSockets, in the same run: what a message costs, and what an idle one takes.

use anyhow::{Context, Result};

use super::idle::memory_per_client;
use super::message::{message_ns, sends_per_message};
use super::{Bench, client_remark, median};
use crate::results::Figure;

const RATIO_MAX: f64 = 1.05;
const MEMORY_MAX_BYTES: f64 = 256.0;

/// 5,000 subscribers, 128 bytes, one message per send: the next is published when all have the last.
pub(crate) fn processor_time(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 50);
    let timing = bench.pick("--warmup 2 --duration 6", "--warmup 0.1 --duration 0.3");
    let mut runs = Vec::new();
    let (mut raw, mut events, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.pick(5, 1) {
        let mut measure = |protocol: &str| -> Result<f64> {
            let report = bench
                .run(&format!("--clients {clients} --payload 128 --outstanding 1 --protocol {protocol} {timing}"))?;
            let nanos = message_ns(&report)?;
            runs.push((format!("{protocol} {round}"), report));
            Ok(nanos)
        };
        let (one, other) = (measure("raw")?, measure("sse")?);
        raw.push(one);
        events.push(other);
        ratios.push(other / one);
    }
    let each: Vec<_> = raw.iter().zip(&events).map(|(raw, events)| format!("{raw:.0} and {events:.0}")).collect();
    let ratio = median(ratios);
    let sends = runs.iter().filter_map(|(_, outcome)| sends_per_message(outcome)).fold(1.0, f64::min);
    let mut remarks = client_remark(&runs);
    remarks.push(format!(
        "alternating runs, raw and events, in ns: {}; median of their ratios; at least {sends:.3} sends per message",
        each.join("; ")
    ));
    Ok(Figure {
        key: "v-events-message".to_owned(),
        what: format!(
            "processor time per message of a stream of server-sent events, {clients} subscribers, 128 bytes, one message per send"
        ),
        measured: format!("{ratio:.3} x a raw WebSocket ({:.0} ns against {:.0} ns)", median(events), median(raw)),
        bound: Some(format!("at most {RATIO_MAX:.2} x a raw WebSocket")),
        reached: ratio <= RATIO_MAX && sends > 0.99,
        remarks,
        runs,
    })
}

/// Memory of 15,000 idle streams, one shard; beside as many raw WebSockets.
pub(crate) fn memory(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(15_000, 50);
    let (raw, raw_bytes, _) = memory_per_client(bench, &bench.start(1, &[])?, clients, "raw")?;
    let (events, bytes, anonymous) = memory_per_client(bench, &bench.start(1, &[])?, clients, "sse")?;
    Ok(Figure {
        key: "v-events-memory".to_owned(),
        what: format!("user memory per idle stream of server-sent events, {clients} streams, one shard"),
        measured: format!("{bytes:.0} bytes ({raw_bytes:.0} of a raw WebSocket)"),
        bound: Some(format!("at most {MEMORY_MAX_BYTES:.0} bytes")),
        reached: bytes <= MEMORY_MAX_BYTES,
        remarks: vec![format!(
            "proportional set size above that of the broker before, which had served 100 clients; anonymous memory alone grew by \
             {anonymous:.0} bytes per stream"
        )],
        runs: vec![("raw".to_owned(), raw), ("events".to_owned(), events)],
    })
}

/// One broadcast after the other to 15,000 streams of one topic: nothing is lost, and how late the last is.
pub(crate) fn crowd(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(15_000, 50);
    let timing = bench.pick("--warmup 2 --duration 10", "--warmup 0.1 --duration 0.5");
    let report = bench.run(&format!("--clients {clients} --payload 128 --rate 5 --protocol sse {timing}"))?;
    let (delivered, p99_ms) = (report.delivered_per_second(), report.latency.p99 as f64 / 1e6);
    let us = message_ns(&report).context("nothing was delivered")? / 1000.0;
    let runs = vec![("five a second".to_owned(), report)];
    Ok(Figure {
        key: "v-events-crowd".to_owned(),
        what: format!("{clients} streams of server-sent events of one topic, 5 messages a second, 128 bytes"),
        measured: format!("{delivered:.0}/s, {us:.2} us each, p99 {p99_ms:.1} ms"),
        bound: Some("nothing lost".to_owned()),
        reached: true,
        remarks: client_remark(&runs),
        runs,
    })
}

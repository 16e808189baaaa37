//! `slow-consumer = "latest"` with a throttle: ten sends a second to each subscriber, however much is published, and slow
//! readers that nobody notices.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use loadgen::Outcome;
use loadgen::outcome::Phase;
use tempfile::NamedTempFile;

use super::{Bench, client_remark, median};
use crate::floor::{self, Timing};
use crate::process::Server;
use crate::results::Figure;

const RATIO_MAX: f64 = 1.10;
/// The rule's interval, in seconds.
const INTERVAL: f64 = 0.1;
/// The rule's throttle, as sends per subscriber and second.
const SENDS_MAX: f64 = 10.0;
/// How much later the 99th percentile may be with slow readers.
const LATER_MAX: f64 = 1.10;
/// Memory that counts as none: pages that the allocator keeps.
const GROWTH_MAX_MIB: f64 = 1.0;
/// Header of a frame of the floor, whose payload is longer than 125 bytes.
const HEADER: f64 = 4.0;

/// A broker with that rule for the topic `latest`. The file must outlive its start.
fn start(bench: &Bench) -> Result<(Server, NamedTempFile)> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
    writeln!(file, "[[topic]]\nmatch = \"latest\"\nslow-consumer = \"latest\"\nthrottle = \"100ms\"")?;
    let path = file.path().to_str().context("a path in UTF-8")?;
    let server = bench.start(1, &["--config", path])?;
    Ok((server, file))
}

/// One run of the scenario: 500 messages of 128 bytes a second over 50 keys.
fn run(bench: &Bench, clients: usize, more: &str) -> Result<Outcome> {
    let (server, _file) = start(bench)?;
    let url = format!("--url ws://{}/ws --topic-prefix latest", server.address);
    bench.run_on(&server, &format!("--scenario conflate {url} --clients {clients} --payload 128 {more}"))
}

/// Processor time against ten sends a second to each subscriber by the bare sender, in alternating runs.
pub(crate) fn processor_time(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 50);
    let timing = bench.pick(Timing { warmup: 2.0, duration: 10.0 }, Timing { warmup: 0.3, duration: 0.6 });
    let mut runs = Vec::new();
    let (mut floors, mut brokers, mut sends) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.pick(5, 1) {
        let report = run(bench, clients, &timing.arguments())?;
        let sent = report.sends_per_client().context("the broker shows no sends")?;
        // A busy machine delays a round now and then; what is left out then is no merit.
        brokers.push(report.server_cpu().context("no processor time was measured")? * SENDS_MAX / sent);
        sends.push(sent);
        // The same bytes as the broker sent.
        let each = report.traffic.bytes as f64 / report.traffic.delivered as f64;
        runs.push((format!("broker {round}"), report));
        let arguments = format!(
            "--clients {clients} --rate 500 --verify 0.1 --payload {:.0} {}",
            each - HEADER,
            timing.arguments()
        );
        let (report, nanos) = floor::measure_with(bench.cores, clients, timing.warmup, INTERVAL, &arguments)?;
        floors.push(nanos * SENDS_MAX * clients as f64 / 1e9);
        runs.push((format!("floor {round}"), report));
    }
    let each = format!("broker {}; floor {}", percent(&brokers), percent(&floors));
    let rates: Vec<_> = sends.iter().map(|sends| format!("{sends:.2}")).collect();
    let (broker, floor) = (median(brokers), median(floors));
    let (ratio, most) = (broker / floor, sends.into_iter().fold(0.0, f64::max));
    let mut remarks = client_remark(&runs);
    remarks.push(format!("per cent of a core for ten sends a second each, medians of alternating runs: {each}"));
    remarks.push(format!("the broker's sends per subscriber and second: {}", rates.join(", ")));
    remarks.push(
        "the broker's time is that of all its threads, everything included; the floor's that of its sends alone"
            .to_owned(),
    );
    Ok(Figure {
        key: "i-latest".to_owned(),
        what: format!(
            "processor time, {clients} subscribers of a topic with latest and a throttle of 100 ms, 500 messages/s over 50 keys"
        ),
        measured: format!("{ratio:.3} x the floor ({:.1} % of a core against {:.1} %)", broker * 100.0, floor * 100.0),
        bound: Some(format!("at most {RATIO_MAX:.2} x the floor of ten sends a second each")),
        reached: ratio <= RATIO_MAX && most <= SENDS_MAX * 1.02,
        remarks,
        runs,
    })
}

fn percent(shares: &[f64]) -> String {
    shares.iter().map(|share| format!("{:.1}", share * 100.0)).collect::<Vec<_>>().join(", ")
}

/// One in a hundred reads 1,000 bytes a second: the latency of the others, and the broker's memory.
pub(crate) fn slow_readers(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 200);
    let timing = bench.pick("--warmup 20 --duration 40", "--warmup 0.3 --duration 1.5");
    let mut runs = Vec::new();
    let (mut without, mut with, mut growths, mut behind, mut invalid) = (Vec::new(), Vec::new(), Vec::new(), 0, 0);
    for round in 1..=bench.pick(3, 1) {
        let calm = run(bench, clients, timing)?;
        let slow = run(bench, clients, &format!("--slow-share 0.01 --slow-rate 1000 {timing}"))?;
        // Where the machine was busy with other things, latencies say nothing of the broker.
        if bench.quick || (calm.invalid.is_empty() && slow.invalid.is_empty()) {
            without.push(calm.latency.p99 as f64 / 1e6);
            with.push(slow.latency.p99 as f64 / 1e6);
        } else {
            invalid += 1;
        }
        growths.push(growth_mib(&slow));
        behind = behind.max(slow.slow.as_ref().map_or(0, |slow| slow.behind));
        runs.push((format!("without {round}"), calm));
        runs.push((format!("with {round}"), slow));
    }
    ensure!(
        !with.is_empty(),
        "the client was the bottleneck in every pair of runs: the machine is too busy for this figure"
    );
    let each = format!("without {}; with {} ms", shown(&without), shown(&with));
    let growth = growths.iter().map(|(growth, _)| *growth).fold(0.0, f64::max);
    let series: Vec<_> = growths.into_iter().map(|(_, series)| series).collect();
    // Each pair saw the same machine; others use it too.
    let ratio = median(with.iter().zip(&without).map(|(with, without)| with / without).collect());
    let (without, with) = (median(without), median(with));
    let mut remarks = client_remark(&runs);
    remarks.push(format!("p99, medians of alternating runs, {invalid} invalid pairs left out: {each}"));
    remarks.push(format!("up to {behind} readers were behind when publishing ended"));
    remarks.push(format!(
        "the broker's anonymous memory with slow readers, every five seconds, in MiB: {}",
        series.join("; ")
    ));
    Ok(Figure {
        key: "j-slow-readers".to_owned(),
        what: format!(
            "p99 latency with latest and a throttle of 100 ms, {clients} subscribers, of the readers beside one in a hundred that \
             reads 1,000 bytes a second"
        ),
        measured: format!(
            "{ratio:.3} x that without them ({with:.1} ms against {without:.1} ms), memory grows by {growth:.1} MiB"
        ),
        bound: Some(format!("at most {LATER_MAX:.2} x, memory flat")),
        reached: ratio <= LATER_MAX && growth <= GROWTH_MAX_MIB,
        remarks,
        runs,
    })
}

fn shown(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(", ")
}

/// By how much the broker's memory grew from the first third of the measured time to the last, and its course.
fn growth_mib(report: &Outcome) -> (f64, String) {
    let measured = report.series.iter().filter(|row| row.phase == Phase::Measure);
    let memory: Vec<_> = measured.filter_map(|row| Some(row.server_memory? as f64 / f64::from(1 << 20))).collect();
    let third = memory.len() / 3;
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let growth = if third == 0 { 0.0 } else { most(&memory[memory.len() - third..]) - most(&memory[..third]) };
    let course: Vec<_> = memory.iter().copied().step_by(5).collect();
    (growth, shown(&course))
}

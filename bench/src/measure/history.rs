//! What topics' histories cost: the state of many keys for many newcomers, and memory per topic with a retained message.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;

use anyhow::{Context, Result, ensure};
use loadgen::Outcome;

use super::{Bench, median};
use crate::floor;
use crate::process::Server;
use crate::results::Figure;

const NEWCOMERS_RATIO_MAX: f64 = 1.5;
const RETAINED_BYTES_MAX: f64 = 512.0;
/// The most bytes that the broker sends at once.
const SEND_BYTES: usize = 256 << 10;
const PAYLOAD: usize = 128;
/// Items of one piece of the lines that are published.
const ITEMS_PER_PIECE: usize = 1000;

/// 1,000 newcomers get the newest message of each of 10,000 keys: processor time beyond that of their handshakes, against a
/// bare program that sends as many bytes.
pub(crate) fn newcomers(bench: &Bench) -> Result<Figure> {
    let (clients, keys) = bench.pick((1000, 10_000), (20, 100));
    let rules = tempfile::NamedTempFile::new()?;
    fs::write(rules.path(), "[[topic]]\nmatch = \"keyed/#\"\nhistory = \"keyed\"\nhistory-bytes = \"64m\"\n")?;
    let rules = rules.path().display().to_string();
    let (mut runs, mut floors, mut states) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=bench.pick(5, 0) {
        let server = bench.start(1, &["--config", &rules, "--max-memory", "1g", "--max-history", "256m"])?;
        let (few, handshakes, _) = arrival(bench, &server, clients, 1, "few")?;
        let (all, with_state, bytes) = arrival(bench, &server, clients, keys, "all")?;
        drop(server);
        let floor = floor::time_of_copies(bench.cores, clients, bytes, SEND_BYTES)?;
        // The kernel may have to get memory for sockets first, from a hypervisor even: that is no part of either.
        if round > 0 || bench.quick {
            states.push(with_state - handshakes);
            floors.push(floor);
            runs.push((format!("handshakes {round}"), few));
            runs.push((format!("state {round}"), all));
        }
    }
    let each = format!("floor {}; broker {} ms", in_ms(&floors), in_ms(&states));
    let (floor, state) = (median(floors), median(states));
    let ratio = state / floor;
    Ok(Figure {
        key: "k-newcomers".to_owned(),
        what: format!(
            "processor time of the state of {keys} keys for {clients} newcomers, 128 bytes, beyond handshakes"
        ),
        measured: format!("{ratio:.2} x the floor ({:.0} ms against {:.0} ms)", state / 1e6, floor / 1e6),
        bound: Some(format!("at most {NEWCOMERS_RATIO_MAX:.1} x the kernel's floor")),
        reached: ratio <= NEWCOMERS_RATIO_MAX,
        remarks: vec![
            format!("medians of alternating runs, one before them not counted: {each}"),
            "the floor sends as many bytes, 256 KiB at a time, to receivers that read at once".to_owned(),
        ],
        runs,
    })
}

/// So many newcomers to a topic with so many keys: processor time of the broker, and bytes for each of them.
fn arrival(bench: &Bench, server: &Server, clients: usize, keys: usize, topic: &str) -> Result<(Outcome, f64, usize)> {
    let arguments = format!(
        "--url ws://{} --scenario keyed-state --topic-prefix keyed/{topic} --clients {clients} --keys {keys} \
         --payload {PAYLOAD} --rate 5000 --warmup 0 --duration {}",
        server.address,
        (keys / 2500).max(1)
    );
    let outcome = bench.run_on(server, &arguments)?;
    let arrival = outcome.history.as_ref().and_then(|history| history.arrivals.first()).context("nobody arrived")?;
    let cpu = arrival.server_cpu_ns.context("no processor time was measured")?;
    let bytes = usize::try_from(arrival.bytes)? / clients;
    Ok((outcome, cpu as f64, bytes))
}

fn in_ms(nanos: &[f64]) -> String {
    nanos.iter().map(|nanos| format!("{:.0}", nanos / 1e6)).collect::<Vec<_>>().join(", ")
}

/// Memory per topic that has one retained message, a million of them, beside the payload.
pub(crate) fn memory_of_retained(bench: &Bench) -> Result<Figure> {
    let topics = bench.pick(1_000_000, 10_000);
    // A client may begin as many topics as it leaves room for others.
    let names = (topics * 4).to_string();
    let roomy = ["--max-memory", "8g", "--max-history", "1g", "--max-keys", &names, "--max-topics", &names];
    let server = bench.start(1, &[&roomy[..], &["--max-topics-per-connection", &names]].concat())?;
    retain(&server, 0, bench.pick(1000, 10))?;
    let before = memory_of(&server)?;
    retain(&server, 1, topics)?;
    let each = (memory_of(&server)? - before) / topics as f64 - PAYLOAD as f64;
    Ok(Figure {
        key: "l-retained".to_owned(),
        what: format!("memory per topic with one retained message of 128 bytes, {topics} topics, beside the payload"),
        measured: format!("{each:.0} bytes"),
        bound: Some(format!("at most {RETAINED_BYTES_MAX:.0} bytes")),
        reached: each <= RETAINED_BYTES_MAX,
        remarks: vec![
            "proportional set size above that of the broker before; topics have the default window besides".to_owned(),
        ],
        runs: Vec::new(),
    })
}

/// Publishes a retained message to each of so many topics, over HTTP as lines.
fn retain(server: &Server, group: u32, topics: usize) -> Result<()> {
    let mut stream = TcpStream::connect(server.address)?;
    let answers = BufReader::new(stream.try_clone()?);
    let reader = thread::spawn(move || {
        let lines = answers.lines().map_while(Result::ok);
        lines.take_while(|line| line != "0").filter(|line| line.contains("\"offset\":1")).count()
    });
    let fields = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked";
    write!(stream, "POST /pub HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n")?;
    let data = "x".repeat(PAYLOAD);
    let names: Vec<usize> = (0..topics).collect();
    for piece in names.chunks(ITEMS_PER_PIECE) {
        let mut lines = String::new();
        for name in piece {
            writeln!(lines, r#"{{"topic":"devices{group}/{name:07}","data":"{data}","retain":true}}"#)?;
        }
        write!(stream, "{:x}\r\n{lines}\r\n", lines.len())?;
    }
    stream.write_all(b"0\r\n\r\n")?;
    let published = reader.join().expect("the reader does not panic");
    ensure!(published == topics, "{published} of {topics} messages were published");
    Ok(())
}

/// The proportional set size of the server, in bytes (proc(5)).
fn memory_of(server: &Server) -> Result<f64> {
    let path = format!("/proc/{}/smaps_rollup", server.pid());
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no size")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("a number of KiB")?;
    Ok(kib * 1024.0)
}

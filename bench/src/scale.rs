//! `bench scale`: how many live subscribers one broker process holds, and how long a broadcast to all of them takes.
//!
//! One broker with as many shards as its descriptors need (a ring's table holds as many as a process may open), and one
//! load generator with as many rings, on the same cores. All clients subscribe to one topic. A few messages are published,
//! so far apart that all clients have each before the next. A sample of the clients looks at every frame, the others
//! count every byte: a row without errors means that every client got every message.
//!
//! Limits of the kernel that are too small are raised while it runs ([`crate::limits`]). The load generator checks them, and
//! ends a run in which the broker takes no more clients.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use loadgen::Outcome;
use serde::{Deserialize, Serialize};

use crate::limits::Raised;
use crate::machine::Machine;
use crate::process::{self, Server, run_client};
use crate::results::machines;

/// Clients per shard: a table holds 19,900, and the kernel distributes connections unevenly.
const CLIENTS_PER_SHARD: u64 = 19_000;
const PAYLOAD: u32 = 128;
/// Seconds without a new client after which a run ends: the kernel may pause while it allocates for a million sockets.
const STALL_S: u32 = 15;

/// `bench scale`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Subscribers, one row each.
    #[arg(long, value_delimiter = ',', default_value = "100000,250000,500000,1000000")]
    clients: Vec<u64>,
    /// Minutes of a message every ten seconds, after the broadcasts.
    #[arg(long, default_value_t = 0)]
    soak: u64,
    /// Seconds between two broadcasts [default: four, and a second more for every 50,000 clients beyond 200,000].
    #[arg(long)]
    apart: Option<f64>,
    /// A few hundred clients: shows that it works, keeps nothing.
    #[arg(long)]
    quick: bool,
    /// Where the kernel has its limits.
    #[arg(long, hide = true, default_value = "/proc")]
    proc: PathBuf,
    /// The broker [default: `ringyard` beside this program].
    #[arg(long)]
    broker: Option<PathBuf>,
    /// Where results are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
}

/// One number of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    machine: Machine,
    clients: u64,
    shards: u64,
    /// Minutes of messages; 0 for the broadcasts.
    soak_minutes: u64,
    outcome: Outcome,
}

/// True when nobody missed anything.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let broker = process::broker(options.broker.as_deref())?;
    let clients = if options.quick { vec![300] } else { options.clients.clone() };
    ensure!(clients.iter().all(|clients| *clients > 0), "--clients must be at least 1");
    // Connections of an earlier row, or of its messages over minutes, are still tracked in the next.
    let connections = clients.iter().sum::<u64>() * if options.soak > 0 { 2 } else { 1 };
    let _raised = Raised::new(&options.proc, clients.iter().copied().max().unwrap_or(0), connections)?;
    let machine = Machine::this();
    for clients in clients {
        let row = measure(options, &broker, &machine, clients, 0)?;
        println!("\n{}", line(&row));
        keep(options, &row)?;
        if options.soak > 0 {
            let row = measure(options, &broker, &machine, clients, options.soak)?;
            println!("\n{}", line(&row));
            keep(options, &row)?;
        }
    }
    Ok(true)
}

fn measure(options: &Options, broker: &Path, machine: &Machine, clients: u64, soak_minutes: u64) -> Result<Row> {
    let shards = clients.div_ceil(CLIENTS_PER_SHARD);
    let arguments = format!("--listen 127.0.0.1:0 --admin-listen public --shards {shards} --ping-interval 3600s");
    let server = Server::start(broker, None, &arguments.split(' ').collect::<Vec<_>>())?;
    // What the broker allocates once is not a cost of a connection.
    let warm = "--clients 200 --scenario idle --warmup 0 --duration 0.2";
    run_client(&server, None, &warm.split(' ').collect::<Vec<_>>())?;
    let apart = options.apart.unwrap_or(if options.quick { 0.3 } else { (clients as f64 / 50_000.0).max(4.0) });
    let (apart, duration) = if soak_minutes > 0 { (10.0, soak_minutes as f64 * 60.0) } else { (apart, 2.0 * apart) };
    let arguments = format!(
        "--clients {clients} --payload {PAYLOAD} --rate {} --warmup 0 --duration {duration} --heartbeat 0 \
         --connect-timeout 300 --stall-timeout {STALL_S} --drain-timeout 60",
        1.0 / apart
    );
    println!("\n> {shards} shards; {arguments}");
    let outcome = run_client(&server, None, &arguments.split_whitespace().collect::<Vec<_>>())?;
    Ok(Row { machine: machine.clone(), clients, shards, soak_minutes, outcome })
}

// ---- what was found

/// By how many bytes per client a memory grew.
fn grown(after: u64, before: u64, clients: u64) -> f64 {
    (after as f64 - before as f64) / clients as f64
}

struct Figures {
    connect_s: f64,
    broadcast_first_ms: f64,
    broadcast_last_s: f64,
    p99_s: f64,
    broker_bytes: f64,
    loadgen_bytes: f64,
    kernel_bytes: f64,
    admission_us: f64,
    broker_us: f64,
    loadgen_us: f64,
}

fn figures(row: &Row) -> Figures {
    let outcome = &row.outcome;
    let server = outcome.server.clone().unwrap_or_default();
    let own = &outcome.own;
    let kernel = |memory: loadgen::outcome::Memory| memory.slab + memory.tcp;
    Figures {
        connect_s: outcome.connect.seconds,
        broadcast_first_ms: outcome.traffic.last_first_ns as f64 / 1e6,
        broadcast_last_s: outcome.traffic.last_last_ns as f64 / 1e9,
        p99_s: outcome.latency.p99 as f64 / 1e9,
        broker_bytes: grown(server.memory_connected.pss, server.memory_before.pss, row.clients),
        loadgen_bytes: grown(own.memory_after.anonymous, own.memory_before.anonymous, row.clients),
        kernel_bytes: grown(kernel(server.memory_connected), kernel(server.memory_before), row.clients),
        admission_us: outcome.server_ns_per_admission().unwrap_or(0.0) / 1000.0,
        broker_us: outcome.server_ns_per_message().unwrap_or(0.0) / 1000.0,
        loadgen_us: outcome.own_ns_per_message() / 1000.0,
    }
}

fn line(row: &Row) -> String {
    let found = figures(row);
    format!(
        "{} clients on {} shards: connected in {:.1} s (broker CPU {:.1} us each); last broadcast: time to first \
         subscriber {:.1} ms, to last subscriber {:.2} s, p99 {:.2} s; memory per client: broker {:.0} B, loadgen {:.0} B, \
         kernel (both ends) {:.0} B; CPU per message: broker {:.1} us, loadgen {:.1} us; {} delivered, {} lost",
        row.clients,
        row.shards,
        found.connect_s,
        found.admission_us,
        found.broadcast_first_ms,
        found.broadcast_last_s,
        found.p99_s,
        found.broker_bytes,
        found.loadgen_bytes,
        found.kernel_bytes,
        found.broker_us,
        found.loadgen_us,
        row.outcome.traffic.delivered_total,
        row.outcome.errors.lost,
    )
}

fn keep(options: &Options, row: &Row) -> Result<()> {
    if options.quick {
        return Ok(());
    }
    fs::create_dir_all(options.results.join("scale"))?;
    let soak = if row.soak_minutes > 0 { format!("-soak-{}m", row.soak_minutes) } else { String::new() };
    let path = options.results.join("scale").join(format!("{:07}{soak}.json", row.clients));
    let mut kept = row.clone();
    kept.outcome.trim();
    fs::write(&path, serde_json::to_string_pretty(&kept)? + "\n")
        .with_context(|| format!("writing {}", path.display()))?;
    write_page(&options.results)
}

/// Makes `SCALE.md` of the newest run of each number of clients.
fn write_page(results: &Path) -> Result<()> {
    let mut paths: Vec<_> =
        fs::read_dir(results.join("scale"))?.map(|entry| anyhow::Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let mut rows: Vec<Row> = Vec::new();
    for path in paths {
        rows.push(serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?);
    }
    let mut page = String::from(
        "# Scale\n\nMade by `cargo run --release -p ringyard-bench --bin bench -- scale`: live WebSocket subscribers of one topic in one \
         broker process, on a machine that runs the clients too; 128-byte messages, each at all clients before the next. \
         Every client got every message: a sample looked at every frame, the others counted every byte. Raw data: the \
         folder `scale` beside this page.\n\n\
         | clients | connected in | broker CPU per client | time to first subscriber | time to last subscriber | p99 | \
         broker memory per client | loadgen memory per client | kernel memory per client, both ends | broker CPU per message | \
         loadgen CPU per message |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in &rows {
        let found = figures(row);
        let soak = if row.soak_minutes > 0 { format!(" ({} minutes)", row.soak_minutes) } else { String::new() };
        writeln!(
            page,
            "| {}{soak} | {:.1} s | {:.1} us | {:.1} ms | {:.2} s | {:.2} s | {:.0} B | {:.0} B | {:.0} B | {:.1} us | {:.1} us |",
            row.clients,
            found.connect_s,
            found.admission_us,
            found.broadcast_first_ms,
            found.broadcast_last_s,
            found.p99_s,
            found.broker_bytes,
            found.loadgen_bytes,
            found.kernel_bytes,
            found.broker_us,
            found.loadgen_us,
        )?;
    }
    page += &machines(rows.iter().map(|row| &row.machine));
    fs::write(results.join("SCALE.md"), page)?;
    Ok(())
}

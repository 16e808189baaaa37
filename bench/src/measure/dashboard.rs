//! What an open dashboard costs the broker, beside what pinging its connections costs, in the same run.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use loadgen::Outcome;
use loadgen::usage::cpu_ns;
use serde_json::Value;

use super::v1::V1Client;
use super::{Bench, median};
use crate::process::Server;
use crate::results::Figure;

const RATIO_MAX: f64 = 0.2;
/// What the dashboard subscribes to.
const TOPICS: [&str; 3] = ["$sys/load", "$sys/topics", "$sys/closed"];
/// The broker is looked at for so long without a dashboard, and then with one.
const WINDOW: Duration = Duration::from_secs(4);

/// 100,000 idle connections: brokers without and with pings in turn; on those without, times with and without a dashboard in turn.
pub(crate) fn processor_time(bench: &Bench) -> Result<Figure> {
    let (mut runs, mut pings, mut each) = (Vec::new(), Vec::new(), Vec::new());
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 1..=bench.pick(3, 1) {
        let (silent, windows) = silent(bench)?;
        let pinged = idle(bench, &start(bench, "25s")?)?;
        let shares = (share(&silent)?, share(&pinged)?);
        each.push(format!("{:.2} and {:.2}", shares.0, shares.1));
        pings.push(shares.1 - shares.0);
        for window in windows {
            without.push(window.0);
            with.push(window.1);
        }
        runs.push((format!("silent {round}"), silent));
        runs.push((format!("pinged {round}"), pinged));
    }
    let clients = clients(bench);
    let differences = with.iter().zip(&without).map(|(with, without)| with - without).collect::<Vec<_>>();
    let windows = differences.len();
    let (ping, dashboard) = (median(pings), median(differences));
    let ratio = dashboard / ping;
    Ok(Figure {
        key: "w-dashboard".to_owned(),
        what: format!("processor time of an open dashboard, {clients} idle connections"),
        measured: format!(
            "{ratio:.2} x that of their pings every 25 s ({dashboard:.2} % against {ping:.2} % of a core)"
        ),
        bound: Some(format!("at most {RATIO_MAX:.1} x their pings")),
        reached: ratio <= RATIO_MAX,
        remarks: vec![
            format!("without and with pings, in per cent of a core, each round: {}", each.join("; ")),
            format!(
                "{windows} times {} s with a dashboard, each behind as long without: {:.2} and {:.2} % of a core; the median of the differences counts",
                WINDOW.as_secs(),
                median(with),
                median(without)
            ),
        ],
        runs,
    })
}

fn clients(bench: &Bench) -> u64 {
    bench.pick(100_000, 200)
}

/// A broker with an operators' port.
fn start(bench: &Bench, ping_interval: &str) -> Result<Server> {
    let shards = bench.pick("7", "2");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--shards",
        shards,
        "--ping-interval",
        ping_interval,
    ];
    Server::start(&bench.broker, None, &arguments)
}

fn idle(bench: &Bench, server: &Server) -> Result<Outcome> {
    let seconds = bench.pick(26, 3);
    bench.run_on(server, &format!("--clients {} --scenario idle --warmup 2 --duration {seconds}", clients(bench)))
}

/// A run without pings, and behind it, with as many connections, pairs of times without and with a dashboard: the broker's processor
/// time in each, in per cent of a core.
fn silent(bench: &Bench) -> Result<(Outcome, Vec<(f64, f64)>)> {
    let server = start(bench, "1h")?;
    let outcome = idle(bench, &server)?;
    let pairs = bench.pick(6, 1);
    let seconds = (2 * WINDOW.as_secs() + 1) * pairs + 5;
    let arguments = format!("--clients {} --scenario idle --warmup 0 --duration {seconds}", clients(bench));
    thread::scope(|scope| {
        let load = scope.spawn(|| bench.run_on(&server, &arguments));
        await_clients(&server, clients(bench))?;
        let mut windows = Vec::new();
        for _ in 0..pairs {
            let without = used(&server)?;
            let mut dashboard = open(&server)?;
            let with = used(&server)?;
            // The load alone is a message a second.
            let mut messages = 1;
            while messages < WINDOW.as_secs() {
                messages += u64::from(dashboard.hear("")?.contains(r#""type":"message""#));
            }
            windows.push((without, with));
        }
        load.join().map_err(|_| anyhow!("the load generator's thread panicked"))??;
        Ok((outcome, windows))
    })
}

/// Waits until the broker has so many connections, as it says itself.
fn await_clients(server: &Server, clients: u64) -> Result<()> {
    let mut watcher = V1Client::connect(server.operators)?;
    watcher.ask(r#"{"type":"subscribe","id":1,"topic":"$sys/load"}"#)?;
    for _ in 0..60 {
        let message: Value = serde_json::from_str(&watcher.hear(r#""type":"message""#)?)?;
        if message["data"]["connections"].as_u64().is_some_and(|connections| connections > clients) {
            return Ok(());
        }
    }
    Err(anyhow!("the clients did not all come"))
}

/// A client that follows what the dashboard follows.
fn open(server: &Server) -> Result<V1Client> {
    let mut client = V1Client::connect(server.operators)?;
    for (id, topic) in TOPICS.iter().enumerate() {
        client.say(&format!(r#"{{"type":"subscribe","id":{id},"topic":"{topic}"}}"#))?;
    }
    Ok(client)
}

/// The broker's processor time in the next [`WINDOW`], in per cent of a core.
fn used(server: &Server) -> Result<f64> {
    let before = cpu_ns(server.pid())?;
    thread::sleep(WINDOW);
    Ok((cpu_ns(server.pid())? - before) as f64 / WINDOW.as_nanos() as f64 * 100.0)
}

/// The broker's processor time in a run, in per cent of a core.
fn share(outcome: &Outcome) -> Result<f64> {
    let used = outcome.server.as_ref().context("no processor time")?.cpu_ns as f64 / 1e9 / outcome.seconds;
    ensure!(used > 0.0, "no processor time");
    Ok(used * 100.0)
}

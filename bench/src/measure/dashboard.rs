//! What an open dashboard costs the broker, beside what pinging its connections costs, in the same run.

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use loadgen::Outcome;

use super::v1::V1Client;
use super::{Bench, median};
use crate::process::Server;
use crate::results::Figure;

const RATIO_MAX: f64 = 0.2;
/// What the dashboard subscribes to.
const TOPICS: [&str; 3] = ["$sys/load", "$sys/topics", "$sys/closed"];

/// 100,000 idle connections: without pings, with pings, and without pings but with an open dashboard, one after the other.
pub(crate) fn processor_time(bench: &Bench) -> Result<Figure> {
    let (mut runs, mut each) = (Vec::new(), Vec::new());
    let (mut pings, mut dashboards) = (Vec::new(), Vec::new());
    for round in 1..=bench.pick(3, 1) {
        let mut share = |name: &str, interval: &str, watched: bool| -> Result<f64> {
            let report = idle(bench, interval, watched)?;
            let used =
                report.server.as_ref().context("no processor time")?.cpu_ns as f64 / 1e9 / report.seconds * 100.0;
            runs.push((format!("{name} {round}"), report));
            Ok(used)
        };
        let silent = share("silent", "1h", false)?;
        let pinged = share("pinged", "25s", false)?;
        let watched = share("watched", "1h", true)?;
        each.push(format!("{silent:.2}, {pinged:.2}, {watched:.2}"));
        pings.push(pinged - silent);
        dashboards.push(watched - silent);
    }
    let clients = bench.pick(100_000, 200);
    let (ping, dashboard) = (median(pings), median(dashboards));
    let ratio = dashboard / ping;
    Ok(Figure {
        key: "w-dashboard".to_owned(),
        what: format!("processor time of an open dashboard, {clients} idle connections"),
        measured: format!(
            "{ratio:.2} x that of their pings every 25 s ({dashboard:.2} % against {ping:.2} % of a core)"
        ),
        bound: Some(format!("at most {RATIO_MAX:.1} x their pings")),
        reached: ratio <= RATIO_MAX,
        remarks: vec![format!(
            "silent, pinged, silent with a dashboard, in per cent of a core, each round: {}",
            each.join("; ")
        )],
        runs,
    })
}

/// Idle connections, with a client on the operators' port that follows what the dashboard follows.
fn idle(bench: &Bench, ping_interval: &str, watched: bool) -> Result<Outcome> {
    let (clients, shards, seconds) = bench.pick((100_000, "7", 26), (200, "2", 3));
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
    let server = Server::start(&bench.broker, None, &arguments)?;
    let watcher = if watched { Some(watch(&server)?) } else { None };
    let report =
        bench.run_on(&server, &format!("--clients {clients} --scenario idle --warmup 2 --duration {seconds}"))?;
    drop(server);
    if let Some(watcher) = watcher {
        let heard = watcher.join().map_err(|_| anyhow!("the dashboard's client panicked"))?;
        ensure!(heard >= seconds, "the dashboard heard only {heard} messages in {seconds} s");
    }
    Ok(report)
}

/// Follows the topics until the broker ends; how many messages came.
fn watch(server: &Server) -> Result<thread::JoinHandle<u64>> {
    let mut client = V1Client::connect(server.operators)?;
    for (id, topic) in TOPICS.iter().enumerate() {
        client.say(&format!(r#"{{"type":"subscribe","id":{id},"topic":"{topic}"}}"#))?;
    }
    Ok(thread::spawn(move || {
        let mut heard = 0;
        while let Ok(text) = client.hear("") {
            heard += u64::from(text.contains(r#""type":"message""#));
        }
        heard
    }))
}

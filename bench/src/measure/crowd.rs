//! Presence: what a crowd costs that enters before watchers, and what subscribers cost that are only counted.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use loadgen::crowd::Crowd;
use tempfile::NamedTempFile;

use super::idle::memory_per_client;
use super::v1::V1Client;
use super::{Bench, median};
use crate::floor;
use crate::process::{Server, run_crowd};
use crate::results::Figure;

const RATIO_MAX: f64 = 1.8;
/// As the load generator judges it.
const SENDS_MAX: f64 = 20.0;
/// Pages that the allocator has or has not, per subscriber.
const NOISE_BYTES: f64 = 4.0;

/// Rules under which clients may be present. The file must outlive the broker's start.
fn rules() -> Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
    writeln!(file, "[[topic]]\nmatch = \"#\"\npresence = true\npresence-members = 1000")?;
    Ok(file)
}

/// 1,000 members enter within a second before 1,000 watchers: sends per watcher, and processor time against a bare program that
/// sends as many bytes in the 20 sends that a watcher may cost.
pub(crate) fn crowd(bench: &Bench) -> Result<Figure> {
    let (members, watchers) = bench.pick((1000, 1000), (20, 20));
    let rules = rules()?;
    let rules = rules.path().to_str().context("a path in UTF-8")?;
    let (mut ratios, mut sends, mut each) = (Vec::new(), Vec::new(), Vec::new());
    let (mut brokers, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..bench.pick(5, 1) {
        let server = bench.start(1, &["--config", rules])?;
        let arguments =
            format!("--scenario presence-crowd --topic-prefix lobby --members {members} --watchers {watchers}");
        println!("\n> {arguments}");
        let crowd = run_crowd(&server, bench.cores.client, &arguments.split_whitespace().collect::<Vec<_>>())?;
        drop(server);
        ensure!(crowd.missing == 0, "{}", crowd.failures.join("; "));
        let (sent, broker) = used(&crowd)?;
        let bytes = usize::try_from(crowd.bytes / crowd.watchers)?;
        let send_bytes = (bytes as f64 / SENDS_MAX).ceil() as usize;
        let floor = floor::time_of_copies(bench.cores, watchers, bytes, send_bytes)? / 1e9;
        each.push(format!("{:.0} against {:.0} ms, {bytes} bytes in {sent:.2} sends", broker * 1e3, floor * 1e3));
        ratios.push(broker / floor);
        brokers.push(broker);
        floors.push(floor);
        sends.push(sent);
    }
    let (ratio, most) = (median(ratios), sends.into_iter().fold(0.0, f64::max));
    Ok(Figure {
        key: "t-presence".to_owned(),
        what: format!("processor time while {members} members enter within a second before {watchers} watchers"),
        measured: format!(
            "{ratio:.2} x the floor ({:.0} ms against {:.0} ms), {most:.1} sends per watcher at most",
            median(brokers) * 1e3,
            median(floors) * 1e3
        ),
        bound: Some(format!("at most {RATIO_MAX:.1} x the floor of {SENDS_MAX:.0} sends per watcher, and no more sends than that")),
        reached: ratio <= RATIO_MAX && most <= SENDS_MAX,
        remarks: vec![
            format!("broker against floor, and what a watcher got, each run: {}", each.join("; ")),
            "the broker's time is that of all its threads and has the members' commands and answers in it; the floor's is that of its \
             sends alone"
                .to_owned(),
        ],
        runs: Vec::new(),
    })
}

/// Sends per watcher, and the broker's processor time in seconds.
fn used(crowd: &Crowd) -> Result<(f64, f64)> {
    let sends = crowd.sends_per_watcher.context("the broker shows no sends")?;
    Ok((sends.max(1.0), crowd.server_cpu_s.context("no processor time was measured")?))
}

/// Memory per idle subscriber of a topic whose count somebody reads, beyond that of others.
pub(crate) fn counted(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(15_000, 50);
    let rules = rules()?;
    let rules = rules.path().to_str().context("a path in UTF-8")?;
    let mut runs = Vec::new();
    let mut bytes = [0.0; 2];
    for (at, name) in ["not counted", "counted"].into_iter().enumerate() {
        let server = bench.start(1, &["--config", rules])?;
        let reader = (at == 1).then(|| read_count(&server, "bench")).transpose()?;
        let (report, _, anonymous) = memory_per_client(bench, &server, clients, "raw")?;
        drop(reader);
        bytes[at] = anonymous;
        runs.push((name.to_owned(), report));
    }
    let [plain, counted] = bytes;
    let beyond = counted - plain;
    Ok(Figure {
        key: "t-counted".to_owned(),
        what: format!(
            "memory per idle subscriber of a topic with presence whose $count is read, beyond others', {clients} connections"
        ),
        measured: format!("{beyond:.1} bytes ({counted:.1} against {plain:.1})"),
        bound: Some(format!("none: at most {NOISE_BYTES:.0} bytes, which is the noise of the measurement")),
        reached: beyond <= NOISE_BYTES,
        remarks: vec!["anonymous memory above that of the broker before, which had served 100 clients".to_owned()],
        runs,
    })
}

/// A connection that reads the count of a topic.
fn read_count(server: &Server, topic: &str) -> Result<V1Client> {
    let mut client = V1Client::connect(server.address)?;
    client.ask(&format!(r#"{{"type":"subscribe","id":1,"topic":"$count/{topic}"}}"#))?;
    client.hear(r#""subscribers":"#)?;
    Ok(client)
}

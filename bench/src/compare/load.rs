//! One run of the load generator against a peer's server: a child process on its own core, with a bound on its time.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use loadgen::outcome::Outcome;

use super::peer::Peer;
use super::plan::{PAYLOAD, Point, Rate};
use super::server::Server;
use crate::process::bound;

const NAP: Duration = Duration::from_millis(20);
/// Share of the clients that look at every frame where a server is driven to its limit; the others count bytes, so that
/// the load generator is not the limit.
pub(super) const VERIFY: f64 = 0.1;
/// Seconds without a message after which what is missing counts as lost.
const DRAIN: u32 = 10;
/// The same in a search, where an overloaded server need not deliver everything.
const DRAIN_IN_SEARCH: u32 = 2;
/// A run counts as disturbed when other processes use more than this share of a core.
pub(super) const DISTURBED: f64 = 0.10;
/// How long the machine is observed to find out whether it is quiet.
const LOOK: Duration = Duration::from_millis(150);
/// How long to wait for a quiet machine.
const QUIET: Duration = Duration::from_secs(15);

/// The result of a run.
pub(super) struct Run {
    /// The load generator's arguments, without addresses and process ids.
    pub(super) arguments: String,
    pub(super) outcome: Result<Outcome>,
    /// Processor time used by others than server and load generator, in cores.
    pub(super) others: f64,
}

/// Loads a server as `point` says; open loops at `rate`, in messages per second.
pub(super) fn run(
    peer: &Peer,
    server: &mut Server,
    point: &Point,
    rate: Option<f64>,
    core: u32,
    scratch: &Path,
) -> Run {
    let arguments = arguments(peer, point, rate);
    let before = Used::now(&server.pids);
    let mut outcome = drive(peer, server, point, &arguments, core, scratch);
    let others = Used::now(&server.pids).others_since(&before);
    if let Ok(outcome) = &mut outcome {
        outcome.trim();
    }
    Run { arguments: arguments.join(" "), outcome, others }
}

/// Waits until the machine is quiet: the rest of the last run (thousands of sockets that the kernel closes) must not disturb
/// the next. Gives up after [`QUIET`]; the run then counts as disturbed.
pub(super) fn await_quiet() {
    let begun = Instant::now();
    while begun.elapsed() < QUIET {
        let before = machine_seconds();
        sleep(LOOK);
        if machine_seconds() - before <= DISTURBED * LOOK.as_secs_f64() {
            return;
        }
    }
}

fn drive(
    peer: &Peer,
    server: &mut Server,
    point: &Point,
    arguments: &[String],
    core: u32,
    scratch: &Path,
) -> Result<Outcome> {
    let (json, said) = (scratch.join("outcome.json"), scratch.join("client.log"));
    drop(fs::remove_file(&json));
    let words = server.words();
    let publish_url = peer.publish_url.iter().flat_map(|url| ["--publish-url".to_owned(), words.put_into(url)]);
    let pids = server.pids.iter().flat_map(|pid| ["--server-pid".to_owned(), pid.to_string()]);
    let mut client = bound(&std::env::current_exe()?, Some(core))
        .args(["client", "--quiet", "--url", &words.put_into(&peer.url)])
        .args(publish_url.chain(pids))
        .args(arguments)
        .arg("--json")
        .arg(&json)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&said)?)
        .spawn()
        .context("starting the load generator")?;
    let status = wait(&mut client, point.patience());
    if let Some(why) = server.ended() {
        drop(client.kill());
        drop(client.wait());
        bail!("{why}");
    }
    let text = fs::read_to_string(&json);
    match (status?, text) {
        (0 | 1 | 3, Ok(text)) => serde_json::from_str(&text).context("an outcome that is none"),
        (code, _) => bail!("the load generator could not run (status {code}): {}", last_line(&said)),
    }
}

/// The load generator's arguments, without addresses and process ids.
pub(super) fn arguments(peer: &Peer, point: &Point, rate: Option<f64>) -> Vec<String> {
    let mut arguments = vec![format!("--protocol {}", peer.protocol.name()), format!("--clients {}", point.clients)];
    if point.topics > 1 {
        arguments.push(format!("--topics {} --topics-per-client {}", point.topics, point.topics_per_client));
    }
    match (point.rate, rate) {
        (Rate::Idle, _) => arguments.push("--scenario idle".to_owned()),
        (Rate::ClosedLoop(window), _) => arguments.push(format!("--rate max --outstanding {window}")),
        (_, Some(rate)) => arguments.push(format!("--rate {rate}")),
        // The first run of a search: a closed loop, with one message of each of many topics, or four of a single topic.
        (_, None) => arguments.push(format!("--rate max --outstanding {}", if point.topics > 1 { 1 } else { 4 })),
    }
    if point.rate != Rate::Idle {
        arguments.push(format!("--payload {PAYLOAD}"));
    }
    if point.goes_to_the_limit() && peer.protocol.abilities().discard {
        arguments.push(format!("--verify {VERIFY}"));
    }
    if point.burst > 1 {
        arguments.push(format!("--burst {}", point.burst));
    }
    let drain = if point.rate == Rate::Search { DRAIN_IN_SEARCH } else { DRAIN };
    arguments.push("--ramp max --workers 1".to_owned());
    arguments.push(format!("--warmup {} --duration {} --drain-timeout {drain}", point.warmup, point.duration));
    arguments.iter().flat_map(|words| words.split(' ')).map(str::to_owned).collect()
}

/// The exit status; an error when it takes too long, or a signal ended it.
fn wait(client: &mut Child, patience: Duration) -> Result<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = client.try_wait()? {
            return status.code().with_context(|| format!("the load generator failed: {status}"));
        }
        if begun.elapsed() > patience {
            drop(client.kill());
            drop(client.wait());
            bail!("the load generator was not done after {patience:?}");
        }
        sleep(NAP);
    }
}

fn last_line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
}

/// Processor time so far, in seconds.
struct Used {
    at: Instant,
    machine: f64,
    ours: f64,
}

impl Used {
    fn now(server: &[u32]) -> Self {
        let server: u64 = server.iter().filter_map(|pid| loadgen::usage::cpu_ns(*pid).ok()).sum();
        Self { at: Instant::now(), machine: machine_seconds(), ours: server as f64 / 1e9 + own_seconds() }
    }

    /// Cores that others kept busy since.
    fn others_since(&self, before: &Self) -> f64 {
        let seconds = (self.at - before.at).as_secs_f64();
        let others = (self.machine - before.machine) - (self.ours - before.ours);
        // Ticks are coarse, so the difference may be negative.
        if seconds > 0.0 { (others / seconds).max(0.0) } else { 0.0 }
    }
}

/// Ticks per second in /proc (USER_HZ).
const TICKS: f64 = 100.0;

/// All but idle and iowait (proc_stat(5)).
fn machine_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let busy = fields.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4) && *at < 8).map(|(_, ticks)| ticks);
    busy.sum::<f64>() / TICKS
}

/// This process's time and that of its children who have ended (proc_pid_stat(5), fields 14 to 17).
fn own_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::compare::peer;
    use crate::compare::plan::{Row, points};

    fn line(name: &str, point: &Point, rate: Option<f64>) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("compare.toml");
        let peers = peer::read(&path).unwrap();
        arguments(peers.iter().find(|peer| peer.name == name).unwrap(), point, rate).join(" ")
    }

    #[test]
    fn everybody_gets_the_same_work() {
        let points = points(false);
        let find = |key: &str| points.iter().find(|point| point.key == key).unwrap();
        let line_of = |key: &str, rate| line("nats", find(key), rate);
        assert!(
            line_of("saturation-64", None).starts_with("--protocol nats --clients 5000 --rate max --outstanding 64")
        );
        assert!(line_of("bursts", None).contains("--outstanding 1 --payload 128 --burst 10 "));
        assert!(line_of("cpu-15000", Some(1.0)).contains("--clients 15000 --rate 1 --payload 128"));
        assert!(line_of("idle", None).contains("--scenario idle --ramp max"));
        assert!(line_of("topics-50", Some(7.0)).contains("--topics 10000 --topics-per-client 100 --rate 7"));
        assert!(line_of("latency-capacity", None).contains("--rate max") && find("idle").row == Row::Idle);
        for point in &points {
            let work = |name: &str| line(name, point, Some(5.0)).split_once("--clients").unwrap().1.to_owned();
            assert_eq!(work("nats"), work("mosquitto"));
            assert_eq!(work("nats"), work("ringyard").replace("--verify 0.1 ", ""));
        }
    }

    #[test]
    fn processor_time_of_others() {
        let busy = |machine, ours, at| Used { at, machine, ours };
        let begun = Instant::now();
        let later = begun + Duration::from_secs(10);
        let others = busy(120.0, 69.0, later).others_since(&busy(100.0, 50.0, begun));
        assert!((others - 0.1).abs() < 1e-9);
        assert_eq!(busy(101.0, 60.0, later).others_since(&busy(100.0, 50.0, begun)), 0.0);
        assert!(machine_seconds() > own_seconds());
    }

    #[test]
    fn a_run_has_a_bound() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(wait(&mut child, Duration::from_millis(50)).unwrap_err().to_string().contains("not done"));
        let mut child = Command::new("false").spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_secs(5)).unwrap(), 1);
    }
}

//! `--scenario presence-crowd`: members enter a topic, all within a second, before watchers who learn of each. What is measured
//! is what that costs the server: sends per watcher and processor time; and how late watchers know.
//!
//! The topic must be one where clients may be present, and that says who is there at `$presence/{topic}` (Ringyard). Every
//! watcher has to learn of every member: who does not is counted, and the run has failed.
//!
//! Not responsible for load: one thread enters, one reads. Other scenarios have the rings.

mod watchers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use self::watchers::Watchers;
use crate::calls;
use crate::calls::wire::{Peer, Wire};
use crate::options::Options;
use crate::run::Interrupt;
use crate::usage::Server;

/// How long an answer may take, and the last of what watchers are sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time in which all members enter.
const SPAN: Duration = Duration::from_secs(1);
/// How long the server is left alone before and after.
const PAUSE: Duration = Duration::from_millis(500);
/// The most sends per watcher: at four deliveries a second, those of the members' second and of the end, with room to spare.
const SENDS_MAX: f64 = 20.0;
/// Members and watchers at most, together with each other.
const CONNECTIONS_MAX: u64 = 18_000;

/// What a run observed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Crowd {
    /// `presence-crowd`.
    pub scenario: String,
    /// Where.
    pub url: String,
    /// Connections that entered.
    pub members: u64,
    /// Connections that learned of them.
    pub watchers: u64,
    /// From the first member to the last watcher's knowledge of the last, in seconds.
    pub seconds: f64,
    /// Messages about members that came to watchers.
    pub messages: u64,
    /// Bytes of everything that came to watchers.
    pub bytes: u64,
    /// Members that some watcher did not learn of, summed over watchers.
    pub missing: u64,
    /// Sends to a watcher, without the answers to members; nothing from a server without Ringyard's counters.
    pub sends_per_watcher: Option<f64>,
    /// Processor time of the server, in seconds.
    pub server_cpu_s: Option<f64>,
    /// From the write of `enter` to the watcher's read, in milliseconds: half of them at most.
    pub p50_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Why the run has failed.
    pub failures: Vec<String>,
}

/// Runs the scenario.
///
/// # Errors
/// An option that it does not have, a server that cannot be reached or refuses, or one without presence.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<Crowd> {
    run_within(options, interrupt, PATIENCE)
}

/// The same, where watchers know everything so long after the last member at the latest.
fn run_within(options: &Options, interrupt: &Interrupt, patience: Duration) -> Result<Crowd> {
    let (members, watchers) = counts(options)?;
    let address = address(&options.url)?;
    let topic = &options.topic_prefix;
    let server = Server::new(options.server_pid.clone(), options.server_stats.clone(), address)?;
    let mut watching = Watchers::connect(address, topic, watchers, members, PATIENCE)?;
    let mut entering = (0..members).map(|_| Peer::connect(Wire::V1, address, PATIENCE)).collect::<Result<Vec<_>>>()?;
    thread::sleep(PAUSE);
    let before = Used::of(server.as_ref());
    let entered: Arc<[AtomicU64]> = (0..members).map(|_| AtomicU64::new(0)).collect();
    let begun = Instant::now();
    let reader = thread::spawn({
        let (entered, deadline) = (Arc::clone(&entered), begun + SPAN + patience);
        move || watching.read(begun, deadline, &entered).map(|()| watching)
    });
    for (number, member) in entering.iter_mut().enumerate() {
        let due = begun + SPAN.mul_f64(number as f64 / members as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if interrupt.load(Ordering::Relaxed) {
            break;
        }
        entered[number].store(begun.elapsed().as_nanos() as u64, Ordering::Release);
        member.say(&format!(r#"{{"type":"enter","id":{number},"topic":"{topic}","info":{number}}}"#))?;
    }
    for member in &mut entering {
        let answer = member.text()?;
        ensure!(answer.contains(r#""type":"ok""#), "enter was answered with {answer}");
    }
    let watching = reader.join().map_err(|_| anyhow!("a thread panicked"))??;
    let seconds = begun.elapsed().as_secs_f64();
    thread::sleep(PAUSE);
    let used = before.zip(Used::of(server.as_ref())).map(|(before, after)| after.since(&before));
    let mut crowd = Crowd::of(options, members, watchers, &watching);
    crowd.seconds = seconds;
    crowd.server_cpu_s = used.as_ref().map(|used| used.cpu_ns as f64 / 1e9);
    let sends = used.and_then(|used| used.sends);
    crowd.sends_per_watcher = sends.map(|sends| sends.saturating_sub(members) as f64 / watchers as f64);
    crowd.judge();
    Ok(crowd)
}

/// Members and watchers.
fn counts(options: &Options) -> Result<(u64, u64)> {
    let name = "--scenario presence-crowd";
    ensure!(options.clients.is_none(), "{name} has --members and --watchers in place of --clients");
    calls::check_options(options)?;
    ensure!(options.fail_if.is_empty(), "{name} has no --fail-if: it judges by itself");
    let (members, watchers) = (options.members.unwrap_or(1000), options.watchers.unwrap_or(1000));
    ensure!(
        members > 0 && watchers > 0 && members.saturating_add(watchers) <= CONNECTIONS_MAX,
        "{name} takes at least one member and one watcher, and {CONNECTIONS_MAX} connections in all"
    );
    Ok((members, watchers))
}

fn address(url: &str) -> Result<SocketAddr> {
    let rest = url.strip_prefix("ws://").context("--scenario presence-crowd needs a --url that begins with ws://")?;
    calls::resolve(rest)
}

/// What the server had used at some time.
#[derive(Debug)]
struct Used {
    cpu_ns: u64,
    sends: Option<u64>,
}

impl Used {
    fn of(server: Option<&Server>) -> Option<Self> {
        // The counters are asked for first: that is work of its own.
        let sends = server?.counters().map(|(sends, _)| sends);
        Some(Self { cpu_ns: server?.cpu_ns(), sends })
    }

    fn since(&self, before: &Self) -> Self {
        let sends = self.sends.zip(before.sends).map(|(after, before)| after.saturating_sub(before));
        Self { cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns), sends }
    }
}

impl Crowd {
    fn of(options: &Options, members: u64, watchers: u64, watching: &Watchers) -> Self {
        let known: &Histogram<u64> = &watching.known_ns;
        let ms = |nanos: u64| nanos as f64 / 1e6;
        Self {
            scenario: options.scenario.name(),
            url: options.url.clone(),
            members,
            watchers,
            seconds: 0.0,
            messages: watching.messages,
            bytes: watching.bytes,
            missing: watching.missing(),
            sends_per_watcher: None,
            server_cpu_s: None,
            p50_ms: ms(known.value_at_quantile(0.5)),
            max_ms: ms(known.max()),
            failures: Vec::new(),
        }
    }

    fn judge(&mut self) {
        if self.missing > 0 {
            self.failures.push(format!("{} times a watcher did not learn of a member", self.missing));
        }
        if let Some(sends) = self.sends_per_watcher.filter(|sends| *sends > SENDS_MAX) {
            self.failures.push(format!("{sends:.1} sends per watcher; at most {SENDS_MAX:.0} are allowed"));
        }
    }

    /// It for people.
    #[must_use]
    pub fn table(&self) -> String {
        let Self { url, members, watchers, seconds, messages, p50_ms, max_ms, failures, .. } = self;
        let unknown = || "not known (--server-pid)".to_owned();
        let sends = self.sends_per_watcher.map_or_else(unknown, |sends| format!("{sends:.2}"));
        let cpu = self.server_cpu_s.map_or_else(unknown, |cpu| format!("{cpu:.3} s"));
        let verdict = if failures.is_empty() { "valid".to_owned() } else { format!("FAILED: {}", failures.join("; ")) };
        format!(
            "presence-crowd at {url}: {members} members within {:.0} s, {watchers} watchers, all known after {seconds:.2} s\n\
             {messages} messages; sends per watcher: {sends}; processor time of the server: {cpu}\n\
             a member is known after: median {p50_ms:.0} ms, longest {max_ms:.0} ms\n\
             {verdict}\n",
            SPAN.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests;

//! One run: starts the workers, opens the connections, warms up, measures, drains, and makes the outcome.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | the order of the phases |
//! | `start` | starts the workers, one thread and one ring each |
//! | `phases` | connecting, measuring, draining, ending the workers |
//! | `logins` | a storm of logins |
//! | `arrivals` | all clients at once, after publishing has ended |
//! | `ending` | what ends a run before its time |
//! | `reports` | waits for reports of the workers, and handles them |
//! | `rows` | the state of all workers, once a second: a row of the series |
//! | `outcome` | makes the outcome of what was observed |
//! | `bottleneck` | whether the load generator was the limit |
//!
//! The coordinator is the calling thread. It asks every worker for its state once a second and at the borders of the
//! phases. It never touches a connection.

mod arrivals;
mod bottleneck;
mod ending;
mod logins;
mod outcome;
mod phases;
mod reports;
mod rows;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam::channel::Receiver;

use self::logins::Storm;
use self::outcome::Observed;
use self::phases::Measured;
use self::rows::State;
use crate::adapter::{Duty, Topics};
use crate::machine::Machine;
use crate::options::Options;
use crate::outcome::{Arrival, Connect, Facts, Memory, Outcome, Phase, Second};
use crate::plan::Plan;
use crate::progress::ProgressDisplay;
use crate::usage::{self, Server};
use crate::worker::{Broadcast, Command, Part, Report, Shared, Snapshot};

/// Set by a signal; a run ends early then, and its outcome says so.
pub type Interrupt = Arc<AtomicBool>;

/// Runs what `options` ask for.
///
/// # Errors
/// When the run could not take place: a sentence that says what to change. What went wrong with connections and
/// messages is in the outcome.
pub fn run(options: Options, interrupt: &Interrupt) -> Result<Outcome> {
    let options = options.completed();
    options.check()?;
    let machine = Machine::this();
    ring::limits::forgo_huge_pages();
    let plan = Arc::new(Plan::new(options, &machine)?);
    match machine.check(&plan) {
        Ok(warnings) => warnings.iter().for_each(|warning| warn(warning)),
        Err(error) if plan.options.force => warn(&error),
        Err(error) => return Err(error.context("this machine cannot hold that (--force tries nevertheless)")),
    }
    for address in BTreeSet::from([plan.adapter.address(), plan.adapter.publish_address()]) {
        TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .with_context(|| format!("nobody answers at {address}"))?;
    }
    prepare_tls(&plan)?;
    // Before the rings and the tables of clients exist, which count as memory of the clients.
    let memory = usage::memory(std::process::id())?;
    let mut run = Run::start(plan, interrupt)?;
    let outcome = run.go(machine.cores, memory);
    run.progress.done();
    outcome
}

/// A first handshake with each server, whose error is that of the whole run.
fn prepare_tls(plan: &Plan) -> Result<()> {
    let Some(tls) = &plan.tls else { return Ok(()) };
    if plan.options.access.tls_insecure {
        warn(&"--tls-insecure: certificates are not checked");
    }
    let subscribes = Duty { subscribes: Topics { count: 1, ..Topics::default() }, ..Duty::default() };
    for (duty, address) in [(subscribes, plan.adapter.address()), (Duty::default(), plan.adapter.publish_address())] {
        if let Some(name) = plan.adapter.server_name(&duty) {
            tls.prepare(address, name, u64::from(plan.options.concurrency).min(plan.connections()) as usize)?;
        }
    }
    Ok(())
}

/// Writes to standard error, which may be full or closed: `eprintln!` would panic then.
fn warn(warning: &dyn std::fmt::Display) {
    drop(writeln!(std::io::stderr(), "warning: {warning}"));
}

/// A run under way.
struct Run {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Option<Part>>>,
    reports: Receiver<Report>,
    interrupt: Interrupt,
    progress: ProgressDisplay,
    server: Option<Server>,
    /// Its memory before the first connection, in bytes.
    server_before: u64,
    /// The run as the outcome describes it.
    facts: Facts,
    started: u64,
    phase: Phase,
    series: Vec<Second>,
    /// The state at the last row.
    last: State,
    /// Answers to the request for a row that is under way.
    gathering: BTreeMap<u32, Box<Snapshot>>,
    next_row: u64,
    /// Workers were asked for their state, for a row.
    asked: bool,
    /// Workers with clients that are neither open nor given up.
    incomplete: BTreeSet<usize>,
    /// Workers that have not begun the storm yet.
    unstormed: usize,
    /// Since when clients are missing that were open before.
    missing_since: Option<u64>,
    storm_seconds: Vec<f64>,
    published: Vec<(u32, u64)>,
    published_workers: usize,
    drained_workers: usize,
    /// Workers that have answered that all have left, or arrived, and when the last did.
    left_workers: usize,
    arrived_workers: (usize, u64),
    arrivals: Vec<Arrival>,
    /// The storm of logins, of a run that has one.
    storm: Option<Storm>,
    broadcast: Broadcast,
    interrupted: bool,
    /// Why the run ended while connecting: the server took no more clients.
    stalled: Option<String>,
    /// When the run ended before its time, and why: there was nothing left to measure.
    ended: Option<(u64, String)>,
    /// When the server's last process ended.
    server_ended_at: Option<u64>,
}

impl Run {
    /// All phases, in order.
    fn go(&mut self, cores: u32, own_before: Memory) -> Result<Outcome> {
        let before = self.usage();
        self.connect()?;
        let connected = self.usage();
        let opened = self.last.counts.opened;
        if opened == 0 && self.plan.own_clients.1 > 0 && !self.plan.late() {
            let mut reasons: Vec<_> = self.finish().errors.refused.into_iter().collect();
            reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let reason = reasons.first().map_or("interrupted", |(reason, _)| reason);
            bail!("none of {} clients could subscribe at {}: {reason}", self.plan.own_clients.1, self.plan.options.url);
        }
        let connect = Connect { opened, seconds: self.connect_seconds(), ..Connect::default() };
        self.progress.connected(opened, connect.seconds);
        let stalled = self.stalled.is_some();
        let measured = if stalled { Measured::nothing(&self.last) } else { self.measure()? };
        let after = self.usage();
        let own_after = match &self.storm {
            Some(storm) => storm.own_memory,
            None => usage::memory(std::process::id()).unwrap_or_default(),
        };
        if !stalled {
            self.end_publishing()?;
            if self.plan.late() {
                self.newcomers()?;
            }
            self.drain()?;
            self.come_back()?;
        }
        let part = self.finish();
        Ok(self.outcome(Observed {
            cores,
            logs_in: self.storm.is_some(),
            connect,
            before,
            connected,
            after,
            own_before,
            own_after,
            measured,
            part,
        }))
    }

    fn send_all(&self, command: &Command) {
        for worker in 0..self.shared.commands.len() {
            self.shared.send(worker, command.clone());
        }
    }
}

//! One run: workers are started, connections opened; warm-up, measurement, drain; the outcome.
//!
//! The coordinator is the calling thread. It asks every worker for its state once a second and at the borders of the
//! phases, makes a row of the series of it, and never touches a connection itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
use ring::Driver;
use ring::uring::{Setup, UringDriver};

use crate::clock::monotonic;
use crate::machine::Machine;
use crate::options::Options;
use crate::outcome::{
    Connect, FORMAT, Facts, Latencies, Memory, Outcome, Own, Phase, Second, ServerUse, Traffic, add_streams, histogram,
};
use crate::plan::{Pacing, Plan};
use crate::progress::ProgressDisplay;
use crate::stamp::{Sizes, Stamp};
use crate::usage::{self, Server};
use crate::verdict;
use crate::worker::{Broadcast, Command, Counts, Final, Part, Report, Shared, Snapshot, Times, Worker};

/// After the last subscription: what the server still does for it belongs to admission.
const SETTLE: Duration = Duration::from_millis(300);
/// Between the command and the first message.
const HEAD_START_NS: u64 = 50_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Who was running or waiting for a core this much of the time was the limit.
const SATURATED: f64 = 0.97;
/// Clients that never looked at a frame need no large buffers; those that do share these.
const RECEIVE_BUFFERS: u16 = 128;
const RECEIVE_BUFFER_BYTES: u32 = crate::worker::SLOW_READ_BYTES as u32;

/// Set by a signal; a run ends early then, and its outcome says so.
pub type Interrupt = Arc<AtomicBool>;

/// Runs what `options` ask for.
///
/// # Errors
/// When the run could not take place: a sentence that says what to change. What went wrong with connections and
/// messages stands in the outcome.
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
    // Before the rings and the tables of clients are made: they are a cost of the clients.
    let memory = usage::memory(std::process::id())?;
    let mut run = Run::start(plan, interrupt)?;
    let outcome = run.go(machine.cores, memory);
    run.progress.done();
    outcome
}

/// To standard error, which may be full or closed: `eprintln!` would panic then.
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
    /// What it took before anybody connected, in bytes.
    server_before: u64,
    /// What the outcome says of the run.
    facts: Facts,
    started: u64,
    phase: Phase,
    series: Vec<Second>,
    /// State as of the last row.
    last: State,
    /// Answers to the request under way.
    gathering: BTreeMap<u32, Box<Snapshot>>,
    next_row: u64,
    asked: bool,
    incomplete: BTreeSet<usize>,
    /// Workers that have not heard of the storm yet.
    unstormed: usize,
    /// When the last worker became complete, and since when somebody is missing again.
    complete_at: u64,
    missing_since: Option<u64>,
    storm_seconds: Vec<f64>,
    published: Vec<(u32, u64)>,
    published_workers: usize,
    drained_workers: usize,
    broadcast: Broadcast,
    interrupted: bool,
}

/// All workers together, at one time.
#[derive(Clone, Default)]
struct State {
    at: u64,
    counts: Counts,
    /// By worker.
    busy_ns: Vec<u64>,
    own_cpu_ns: u64,
    server_cpu_ns: u64,
}

impl Run {
    fn start(plan: Arc<Plan>, interrupt: &Interrupt) -> Result<Self> {
        let server =
            Server::new(plan.options.server_pid.clone(), plan.options.server_stats.clone(), plan.adapter.address())?;
        let (report, reports) = unbounded();
        let (introduce, introductions) = unbounded();
        let mut threads = Vec::new();
        let mut commands = Vec::new();
        let mut shared_senders = Vec::new();
        for index in 0..plan.workers {
            let (plan, report, introduce) = (Arc::clone(&plan), report.clone(), introduce.clone());
            let (command, inbox) = unbounded();
            let (share, shared) = unbounded::<Arc<Shared>>();
            commands.push(command);
            shared_senders.push(share);
            let work = move || {
                let needed = plan.roles_of(index).count() as u32;
                let setup = Setup {
                    listener: None,
                    // Some more, for those that come back while their old connection is being closed.
                    capacity: (needed + needed / 20 + 16).min(ring::limits::descriptors() as u32),
                    receive_buffers: RECEIVE_BUFFERS,
                    receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
                    dials: true,
                    ..Setup::default()
                };
                let driver = match UringDriver::new(setup) {
                    Ok(driver) => driver,
                    Err(error) => {
                        drop(introduce.send((index, Err(error.to_string()))));
                        return None;
                    }
                };
                drop(introduce.send((index, Ok(driver.waker()))));
                drop(introduce);
                let shared = shared.recv().ok()?;
                Some(Worker::new(index, plan, shared, driver, inbox, report).run())
            };
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(work)?);
        }
        drop(introduce);
        let mut wakers = BTreeMap::new();
        for (index, waker) in introductions {
            wakers.insert(index, waker.map_err(|error| anyhow!("{error}"))?);
        }
        let completed = match plan.pacing {
            Pacing::Closed(_) => plan.workers as usize * plan.streams as usize,
            _ => 0,
        };
        let shared = Arc::new(Shared {
            commands,
            wakers: wakers.into_values().collect(),
            completed: (0..completed).map(|_| AtomicU64::new(0)).collect(),
            last_published: AtomicU64::new(0),
        });
        let started = monotonic();
        let facts = facts(&plan, started);
        let run = Self {
            threads,
            progress: ProgressDisplay::new(&facts, !plan.options.quiet),
            server_before: server.as_ref().map_or(0, Server::anonymous),
            server,
            facts,
            started,
            phase: Phase::Connect,
            series: Vec::new(),
            last: State { at: started, own_cpu_ns: ring::floor::process_cpu_ns(), ..State::default() },
            gathering: BTreeMap::new(),
            next_row: started + SECOND_NS,
            asked: false,
            incomplete: (0..plan.workers as usize).collect(),
            unstormed: 0,
            complete_at: started,
            missing_since: None,
            storm_seconds: Vec::new(),
            published: Vec::new(),
            published_workers: 0,
            drained_workers: 0,
            broadcast: Broadcast::default(),
            interrupted: false,
            interrupt: Arc::clone(interrupt),
            reports,
            shared: Arc::clone(&shared),
            plan,
        };
        for share in shared_senders {
            drop(share.send(Arc::clone(&shared)));
        }
        Ok(run)
    }

    fn send_all(&self, command: &Command) {
        for worker in 0..self.shared.commands.len() {
            self.shared.send(worker, command.clone());
        }
    }
}

/// The measured time.
struct Measured {
    times: Times,
    from: State,
    to: State,
    /// Sends and messages that the server counted.
    counters: Option<(u64, u64)>,
}

/// What was used up to some point of the run.
struct Usage {
    server_memory: Memory,
    own_cpu_ns: u64,
    server_cpu_ns: u64,
}

impl Run {
    fn go(&mut self, cores: u32, memory: Memory) -> Result<Outcome> {
        let before = self.usage();
        self.connect()?;
        let connected = self.usage();
        let opened = self.last.counts.opened;
        if opened == 0 && self.plan.own_clients.1 > 0 {
            let part = self.finish();
            let mut reasons = part.errors.refused.into_iter().collect::<Vec<_>>();
            reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let reason = reasons.first().map_or("interrupted", |(reason, _)| reason);
            bail!("none of {} clients could subscribe at {}: {reason}", self.plan.own_clients.1, self.plan.options.url);
        }
        if !self.incomplete.is_empty() {
            self.complete_at = monotonic();
        }
        let connect = Connect { opened, seconds: (self.complete_at - self.started) as f64 / 1e9, ..Connect::default() };
        let Measured { times, from, to, counters } = self.measure()?;
        let after = self.usage();
        let memory_after = usage::memory(std::process::id()).unwrap_or_default();
        self.drain()?;
        let part = self.finish();
        let window = (to.at - from.at) as f64 / 1e9;
        let busiest = busiest(&from, &to);
        let own_cpu_ns = to.own_cpu_ns - from.own_cpu_ns;
        let cpu_share = own_cpu_ns as f64 / 1e9 / window.max(1e-9) / f64::from(cores.max(1));
        let lateness_p99 = if part.lateness.is_empty() { 0 } else { part.lateness.value_at_quantile(0.99) };
        let total = self.last.counts;
        let latency = Latencies::of(&part.latency);
        let mut outcome = Outcome {
            format: FORMAT,
            run: self.facts.clone(),
            connect: Connect {
                retries: total.retries,
                reopened: total.reopened,
                storm_seconds: std::mem::take(&mut self.storm_seconds),
                ..connect
            },
            seconds: window,
            traffic: Traffic {
                published: total.published,
                published_measured: to.counts.published - from.counts.published,
                delivered: self.delivered(&to.counts) - self.delivered(&from.counts),
                delivered_total: self.delivered(&total),
                bytes: to.counts.bytes - from.counts.bytes,
                receives: to.counts.receives - from.counts.receives,
                pings: total.pings,
                gaps: part.gaps,
                lateness_p99_ns: lateness_p99,
                last_first_ns: self.broadcast.first.saturating_sub(self.broadcast.published),
                last_last_ns: self.broadcast.last.saturating_sub(self.broadcast.published),
            },
            admission: Latencies::of(&part.admission),
            series: std::mem::take(&mut self.series),
            errors: part.errors,
            streams: part.streams,
            own: Own {
                cpu_ns: own_cpu_ns,
                connect_cpu_ns: connected.own_cpu_ns - before.own_cpu_ns,
                cpu_share,
                busiest_worker: busiest,
                memory_before: memory,
                memory_after,
            },
            server: self.server.as_ref().map(|server| ServerUse {
                pid: server.pid(),
                connect_cpu_ns: connected.server_cpu_ns.saturating_sub(before.server_cpu_ns),
                cpu_ns: to.server_cpu_ns.saturating_sub(from.server_cpu_ns),
                memory_before: before.server_memory,
                memory_connected: connected.server_memory,
                memory_after: after.server_memory,
                sends: counters.map(|(sends, _)| sends),
                messages: counters.map(|(_, messages)| messages),
            }),
            interrupted: self.interrupted,
            parts: 1,
            ..Outcome::default()
        };
        outcome.invalid = self.bottlenecks(&outcome, &latency, times);
        outcome.latency = latency;
        verdict::judge(&mut outcome);
        Ok(outcome)
    }

    // ---- phases

    fn connect(&mut self) -> Result<()> {
        while !self.incomplete.is_empty() && !self.stopped() {
            self.wait(self.next_row)?;
        }
        let settled = monotonic() + SETTLE.as_nanos() as u64;
        self.wait_until(settled)?;
        self.row()?;
        Ok(())
    }

    /// Warm-up and measurement.
    fn measure(&mut self) -> Result<Measured> {
        let options = &self.plan.options;
        let soon = monotonic() + HEAD_START_NS;
        let begin = self.plan.start_at().map_or(soon, |at| at.max(soon));
        if let Some(at) = self.plan.start_at().filter(|at| *at < soon) {
            let late = (soon - at) as f64 / 1e9;
            warn(&format!("--start-at was {late:.1} s ago when all were connected: this process begins now"));
        }
        let measure_from = begin + options.warmup.as_nanos() as u64;
        let mut times = Times { begin, measure_from, end: measure_from + options.duration.as_nanos() as u64 };
        if self.interrupted {
            times = Times { begin, measure_from: begin, end: begin };
        }
        self.send_all(&Command::Begin(times));
        self.phase = Phase::WarmUp;
        self.wait_until(times.measure_from)?;
        self.row()?;
        let from = self.last.clone();
        let counters_from = self.server.as_ref().and_then(Server::counters);
        self.phase = Phase::Measure;
        let storms = u64::from(self.plan.options.storms.unwrap_or(0));
        for storm in 1..=storms {
            self.wait_until(times.measure_from + (times.end - times.measure_from) * storm / (storms + 1))?;
            if !self.interrupted {
                self.missing_since = Some(monotonic());
                self.unstormed += self.shared.commands.len();
                self.send_all(&Command::Storm);
            }
        }
        self.wait_until(times.end)?;
        if self.interrupted {
            times.end = times.end.min(monotonic());
            self.send_all(&Command::Begin(times));
        }
        self.row()?;
        let to = self.last.clone();
        // Who did not answer then is not waited for now.
        let counters_to = counters_from.and(self.server.as_ref()).and_then(Server::counters);
        let counters =
            counters_from.zip(counters_to).map(|(from, to)| (to.0.saturating_sub(from.0), to.1.saturating_sub(from.1)));
        Ok(Measured { times, from, to, counters })
    }

    fn drain(&mut self) -> Result<()> {
        self.phase = Phase::Drain;
        self.send_all(&Command::Published);
        while self.published_workers < self.shared.commands.len() {
            self.wait(self.next_row)?;
        }
        let last = Arc::new(self.final_counts());
        self.send_all(&Command::Drain(last));
        while self.drained_workers < self.shared.commands.len() && !self.stopped_twice() {
            self.wait(self.next_row)?;
        }
        // One state more: the last rows' errors and broadcast.
        self.row()
    }

    fn final_counts(&self) -> Final {
        let streams = self.plan.streams as usize;
        let all_known = self.plan.options.share.of == 1;
        let mut published = vec![if all_known { 0 } else { u64::MAX }; streams];
        for (stream, count) in &self.published {
            published[*stream as usize] = *count;
        }
        let can = self.plan.adapter.abilities();
        let wire = (can.discard && self.plan.verifying < 1.0 && all_known && streams > 0).then(|| {
            let mut wire = vec![0; self.plan.topics as usize];
            for (stream, count) in &self.published {
                wire[self.plan.topic_of(*stream) as usize] += self.wire_bytes(*stream, *count);
            }
            wire
        });
        Final { published, wire, interrupted: self.interrupted }
    }

    /// Bytes that the first `count` messages of a stream are on the wire.
    fn wire_bytes(&self, stream: u32, count: u64) -> u64 {
        let topic = self.plan.topic_of(stream);
        let len = |seq| self.plan.adapter.wire_len(topic, Stamp { stream, seq, sent_ns: 0 }).unwrap_or(0);
        match self.plan.payloads.sizes() {
            Sizes::Fixed(_) => len(0) * count,
            _ => (0..count).map(len).sum(),
        }
    }

    /// Ends all workers and puts their parts together.
    fn finish(&mut self) -> Part {
        self.send_all(&Command::Finish);
        let mut sum = Part {
            errors: crate::outcome::Errors::default(),
            gaps: 0,
            latency: histogram(),
            admission: histogram(),
            lateness: histogram(),
            streams: BTreeMap::new(),
        };
        for thread in self.threads.drain(..) {
            let Some(part) = thread.join().expect("a worker does not panic") else { continue };
            sum.errors.add(&part.errors);
            sum.gaps += part.gaps;
            for (all, one) in [
                (&mut sum.latency, &part.latency),
                (&mut sum.admission, &part.admission),
                (&mut sum.lateness, &part.lateness),
            ] {
                all.add(one).expect("the same bounds");
            }
            add_streams(&mut sum.streams, &part.streams);
        }
        sum
    }

    // ---- waiting

    fn stopped(&mut self) -> bool {
        self.interrupted |= self.interrupt.load(Ordering::Relaxed);
        self.interrupted
    }

    /// Asked again to stop while it drains: then it does not wait.
    fn stopped_twice(&mut self) -> bool {
        !self.interrupted && self.stopped()
    }

    fn wait_until(&mut self, at: u64) -> Result<()> {
        while monotonic() < at && !self.stopped() {
            self.wait(at.min(self.next_row))?;
        }
        Ok(())
    }

    /// Takes one report, or asks for a row when that is due; back at `until` at the latest.
    fn wait(&mut self, until: u64) -> Result<()> {
        let now = monotonic();
        if now >= self.next_row && !self.asked {
            self.ask();
        }
        // Short enough to notice a signal.
        let wait = Duration::from_nanos(until.saturating_sub(now).clamp(1_000, 50_000_000));
        match self.reports.recv_timeout(wait) {
            Ok(report) => self.on(report),
            Err(RecvTimeoutError::Timeout) => match self.threads.iter().position(JoinHandle::is_finished) {
                Some(worker) if self.reports.is_empty() => bail!("worker {worker} ended before its time"),
                _ => Ok(()),
            },
            Err(RecvTimeoutError::Disconnected) => bail!("all workers ended"),
        }
    }

    fn ask(&mut self) {
        self.asked = true;
        self.gathering.clear();
        self.send_all(&Command::Snapshot);
    }

    /// Makes a row now, whatever time it is.
    fn row(&mut self) -> Result<()> {
        if !self.asked {
            self.ask();
        }
        while self.asked {
            self.wait(monotonic() + SECOND_NS)?;
        }
        Ok(())
    }

    fn on(&mut self, report: Report) -> Result<()> {
        match report {
            Report::Complete(worker, at) => {
                self.incomplete.remove(&(worker as usize));
                if self.incomplete.is_empty() && self.unstormed == 0 {
                    self.complete_at = self.complete_at.max(at);
                    if let Some(since) = self.missing_since.take() {
                        self.storm_seconds.push(at.saturating_sub(since) as f64 / 1e9);
                    }
                }
            }
            Report::Incomplete(worker, at) => {
                // Subscriptions that are churned are no storm.
                let churns = self.plan.options.churn.is_some_and(|churn| churn > 0.0);
                if self.incomplete.is_empty() && self.phase != Phase::Connect && !churns {
                    self.missing_since = Some(at);
                }
                self.incomplete.insert(worker as usize);
            }
            Report::Stormed(worker) => {
                self.unstormed -= 1;
                self.incomplete.insert(worker as usize);
            }
            Report::Snapshot(snapshot) => {
                self.gathering.insert(snapshot.worker, snapshot);
                if self.gathering.len() == self.shared.commands.len() {
                    self.make_row();
                }
            }
            Report::Published(streams) => {
                self.published.extend(streams);
                self.published_workers += 1;
            }
            Report::Drained => self.drained_workers += 1,
            Report::Failed(worker, error) => bail!("worker {worker}: its ring failed: {error}"),
        }
        Ok(())
    }

    // ---- rows

    fn make_row(&mut self) {
        self.asked = false;
        let now = monotonic();
        let mut state = State {
            at: now,
            own_cpu_ns: ring::floor::process_cpu_ns(),
            server_cpu_ns: self.server.as_ref().map_or(0, Server::cpu_ns),
            ..State::default()
        };
        let (mut latency, mut errors) = (histogram(), crate::outcome::Errors::default());
        for snapshot in std::mem::take(&mut self.gathering).into_values() {
            state.counts.add(&snapshot.counts);
            state.busy_ns.push(snapshot.counts.cpu_ns + snapshot.counts.waited_ns);
            let values = if self.phase == Phase::Connect { &snapshot.admission } else { &snapshot.latency };
            values.iter().for_each(|(value, count)| latency.saturating_record_n(*value, *count));
            errors.add(&snapshot.errors);
            self.broadcast.add(&snapshot.broadcast);
        }
        let (last, counts) = (&self.last, state.counts);
        let span = (now - last.at).max(1) as f64 / 1e9;
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1e9 / span;
        let server_memory = self.server.as_ref().map(Server::anonymous);
        let row = Second {
            at: (now - self.started) as f64 / 1e9,
            span,
            phase: self.phase,
            clients: counts.open,
            opened: counts.opened - last.counts.opened,
            published: counts.published - last.counts.published,
            delivered: self.delivered(&counts) - self.delivered(&last.counts),
            bytes: counts.bytes - last.counts.bytes,
            latency: Latencies { values: Vec::new(), ..Latencies::of(&latency) },
            errors: counts.errors - last.counts.errors,
            own_cpu: share(state.own_cpu_ns, last.own_cpu_ns),
            server_cpu: self.server.as_ref().map(|_| share(state.server_cpu_ns, last.server_cpu_ns)),
            server_memory,
        };
        if self.phase == Phase::Connect {
            self.progress.connecting(counts.open, counts.failed, row.opened as f64 / span);
        } else {
            let each = server_memory
                .filter(|_| counts.open > 0)
                .map(|memory| memory.saturating_sub(self.server_before) as f64 / counts.open as f64);
            self.progress.second(&row, &errors, each);
        }
        self.series.push(row);
        self.last = state;
        self.next_row = now + SECOND_NS;
    }

    /// Messages that clients received: looked at, or as their bytes say.
    fn delivered(&self, counts: &Counts) -> u64 {
        if counts.discarded == 0 || self.plan.streams == 0 {
            return counts.messages;
        }
        let sample = match self.plan.payloads.sizes() {
            Sizes::Fixed(_) => 1,
            _ => 1000,
        };
        let mean = self.wire_bytes(0, sample) as f64 / sample as f64;
        counts.messages + (counts.discarded as f64 / mean).round() as u64
    }

    fn usage(&self) -> Usage {
        let server = self.server.as_ref();
        Usage {
            server_memory: server.map_or(Memory::default(), Server::memory),
            own_cpu_ns: ring::floor::process_cpu_ns(),
            server_cpu_ns: server.map_or(0, Server::cpu_ns),
        }
    }

    // ---- judging oneself

    /// Why the figures would say more about this program than about the server.
    fn bottlenecks(&self, outcome: &Outcome, latency: &Latencies, times: Times) -> Vec<String> {
        let mut found = Vec::new();
        if self.plan.pacing == Pacing::Idle || outcome.traffic.delivered == 0 {
            return found;
        }
        let Own { cpu_share, busiest_worker, .. } = outcome.own;
        if cpu_share > SATURATED {
            found.push(format!("it used {:.0} % of the cores it may run on", cpu_share * 100.0));
        } else if busiest_worker > SATURATED {
            let share = busiest_worker * 100.0;
            found.push(format!("its busiest worker was running or waiting for a core {share:.0} % of the time"));
        }
        if let (Pacing::Open(rate), false) = (self.plan.pacing, outcome.interrupted) {
            let late = outcome.traffic.lateness_p99_ns;
            if late > 10_000_000 && late > latency.p50 / 2 {
                found.push(format!("it published {:.0} ms late (p99)", late as f64 / 1e6));
            }
            let share = f64::from(self.plan.options.share.of);
            let wanted = rate * (times.end - times.measure_from) as f64 / 1e9 / share;
            let reached = outcome.traffic.published_measured as f64;
            // What was due while the publisher had no connection, or the server took no more of it, is not our delay.
            let excused = self.last.counts.unpublished as f64;
            if wanted > 100.0 && reached + excused < wanted * 0.95 && self.last.counts.blocked == 0 {
                found.push(format!("{reached:.0} messages were published in the measured time instead of {wanted:.0}"));
            }
        }
        found
    }
}

/// The busiest worker's share of a core, waiting for one included, between two states.
fn busiest(from: &State, to: &State) -> f64 {
    let span = (to.at - from.at).max(1) as f64;
    to.busy_ns.iter().zip(&from.busy_ns).map(|(to, from)| to.saturating_sub(*from) as f64 / span).fold(0.0, f64::max)
}

fn facts(plan: &Plan, started: u64) -> Facts {
    let options = &plan.options;
    let (first, count) = plan.own_clients;
    let verifying =
        if plan.verifying >= 1.0 { count } else { (first..first + count).filter(|n| plan.verifies(*n)).count() as u64 };
    Facts {
        scenario: options.scenario.name(),
        protocol: options.protocol,
        url: options.url.clone(),
        clients: count,
        verifying,
        publishers: plan.own_publishers.1,
        topics: plan.topics,
        topics_per_client: plan.topics_per_client,
        streams: plan.streams,
        payload: options.payload.as_ref().map(ToString::to_string).unwrap_or_default(),
        burst: options.burst,
        pacing: match plan.pacing {
            Pacing::Idle => "idle".into(),
            Pacing::Closed(outstanding) => format!("{outstanding} outstanding"),
            Pacing::Open(rate) => format!("{rate}/s"),
        },
        workers: plan.workers,
        started_unix_ms: plan.clock.unix(started) / 1_000_000,
        share: (options.share.index, options.share.of),
        version: env!("CARGO_PKG_VERSION").into(),
        machine: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into(),
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.opened += other.opened;
        self.reopened += other.reopened;
        self.failed += other.failed;
        self.retries += other.retries;
        self.published += other.published;
        self.unpublished += other.unpublished;
        self.blocked += other.blocked;
        self.messages += other.messages;
        self.discarded += other.discarded;
        self.bytes += other.bytes;
        self.receives += other.receives;
        self.pings += other.pings;
        self.errors += other.errors;
        self.cpu_ns += other.cpu_ns;
        self.waited_ns += other.waited_ns;
    }
}

impl Broadcast {
    /// The newest publication is what counts: its first receipt and its last.
    fn add(&mut self, other: &Self) {
        match other.published.cmp(&self.published) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Greater => *self = *other,
            std::cmp::Ordering::Equal => {
                self.first = self.first.min(other.first);
                self.last = self.last.max(other.last);
            }
        }
    }
}

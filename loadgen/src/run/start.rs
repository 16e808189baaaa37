//! Starts the workers: a thread and a ring each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{Builder, JoinHandle};

use anyhow::{Result, anyhow};
use crossbeam::channel::{Receiver, Sender, unbounded};
use ring::uring::{Setup, UringDriver};
use ring::{Driver, Waker};

use super::logins::Storm;
use super::rows::{SECOND_NS, State};
use super::{Interrupt, Run};
use crate::clock::monotonic;
use crate::outcome::{Facts, Phase};
use crate::plan::{Pacing, Plan};
use crate::progress::ProgressDisplay;
use crate::usage::Server;
use crate::worker::{Broadcast, Command, Part, Report, SLOW_READ_BYTES, Shared, Worker};

/// Shared by the clients that look at frames; the others need no large buffers.
const RECEIVE_BUFFERS: u16 = 128;
const RECEIVE_BUFFER_BYTES: u32 = SLOW_READ_BYTES as u32;

/// A worker's thread, which waits for what all workers share.
struct Started {
    thread: JoinHandle<Option<Part>>,
    commands: Sender<Command>,
    share: Sender<Arc<Shared>>,
}

/// A worker's number, and its waker or the reason why it has no ring.
type Introduction = (u32, Result<Waker, String>);

impl Run {
    pub(super) fn start(plan: Arc<Plan>, interrupt: &Interrupt) -> Result<Self> {
        let server =
            Server::new(plan.options.server_pid.clone(), plan.options.server_stats.clone(), plan.adapter.address())?;
        let (report, reports) = unbounded();
        let (introduce, introductions) = unbounded();
        let workers = (0..plan.workers)
            .map(|index| start_worker(index, &plan, &report, &introduce))
            .collect::<Result<Vec<_>>>()?;
        drop(introduce);
        let shared = Arc::new(shared(&plan, &workers, introductions)?);
        workers.iter().for_each(|worker| drop(worker.share.send(Arc::clone(&shared))));
        let started = monotonic();
        let facts = facts(&plan, started);
        Ok(Self {
            threads: workers.into_iter().map(|worker| worker.thread).collect(),
            // What was used before the run began belongs to no row.
            last: State {
                at: started,
                own_cpu_ns: ring::floor::process_cpu_ns(),
                server_cpu_ns: server.as_ref().map_or(0, Server::cpu_ns),
                ..State::default()
            },
            progress: ProgressDisplay::new(&facts, !plan.options.quiet),
            server_before: server.as_ref().and_then(Server::anonymous).unwrap_or(0),
            server_ended_at: None,
            server,
            facts,
            started,
            phase: Phase::Connect,
            series: Vec::new(),
            gathering: BTreeMap::new(),
            next_row: started + SECOND_NS,
            asked: false,
            incomplete: (0..plan.workers as usize).collect(),
            unstormed: 0,
            missing_since: None,
            storm_seconds: Vec::new(),
            published: Vec::new(),
            published_workers: 0,
            drained_workers: 0,
            left_workers: 0,
            arrived_workers: (0, 0),
            arrivals: Vec::new(),
            storm: (plan.logins > 0).then(Storm::new),
            broadcast: Broadcast::default(),
            interrupted: false,
            stalled: None,
            ended: None,
            interrupt: Arc::clone(interrupt),
            reports,
            shared,
            plan,
        })
    }
}

fn start_worker(
    index: u32,
    plan: &Arc<Plan>,
    report: &Sender<Report>,
    introduce: &Sender<Introduction>,
) -> Result<Started> {
    let (plan, report, introduce) = (Arc::clone(plan), report.clone(), introduce.clone());
    let (commands, inbox) = unbounded();
    let (share, shared) = unbounded::<Arc<Shared>>();
    let work = move || {
        let driver = match UringDriver::new(setup(&plan, index)) {
            Ok(driver) => driver,
            Err(error) => {
                drop(introduce.send((index, Err(error.to_string()))));
                return None;
            }
        };
        drop(introduce.send((index, Ok(driver.waker()))));
        drop(introduce);
        let shared = shared.recv().ok()?;
        if plan.logs_in(index) {
            // So that it does not delay what the others measure. Where it cannot be lowered, it stays.
            let _ = rustix::process::setpriority_process(None, 10);
        }
        Some(Worker::new(index, plan, shared, driver, inbox, report).run())
    };
    let thread = Builder::new().name(format!("worker-{index}")).spawn(work)?;
    Ok(Started { thread, commands, share })
}

/// Most operations of one system call of the worker that logs in. Many kernels do not interrupt a system call for another thread
/// (`CONFIG_PREEMPT_NONE`): a thousand connects in one took 24 ms, in which workers on the same core received nothing, and that
/// looked like the server's delay.
const LOGIN_SUBMISSIONS: u32 = 16;

fn setup(plan: &Plan, worker: u32) -> Setup {
    let needed = plan.roles_of(worker).count() as u32;
    Setup {
        listener: None,
        // Some more, for clients that come back while their old connection is being closed.
        capacity: (needed + needed / 20 + 16).min(ring::limits::descriptors() as u32),
        receive_buffers: RECEIVE_BUFFERS,
        receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
        dials: true,
        submission_entries: if plan.logs_in(worker) { LOGIN_SUBMISSIONS } else { Setup::default().submission_entries },
        ..Setup::default()
    }
}

/// Waits until every worker has its ring.
fn shared(plan: &Plan, workers: &[Started], introductions: Receiver<Introduction>) -> Result<Shared> {
    let mut wakers = BTreeMap::new();
    for (index, waker) in introductions {
        wakers.insert(index, waker.map_err(|error| anyhow!("{error}"))?);
    }
    let completed = match plan.pacing {
        Pacing::Closed(_) => plan.workers as usize * plan.streams as usize,
        _ => 0,
    };
    Ok(Shared {
        commands: workers.iter().map(|worker| worker.commands.clone()).collect(),
        wakers: wakers.into_values().collect(),
        completed: (0..completed).map(|_| AtomicU64::new(0)).collect(),
        published: (0..if plan.recovers() || plan.late() { plan.streams } else { 0 })
            .map(|_| AtomicU64::new(0))
            .collect(),
        last_published: AtomicU64::new(0),
        opened_at: AtomicU64::new(0),
        remaining: AtomicU64::new(plan.own_clients.1 + plan.logins),
        left_at: AtomicU64::new(0),
    })
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
        everyone_publishes: options.everyone_publishes,
        slow: (first..first + count).filter(|client| plan.is_slow(*client)).count() as u64,
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

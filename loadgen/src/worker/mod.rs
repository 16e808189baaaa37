//! A worker: one thread, one ring, its share of the connections.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | the loop: commands, what is due, one turn of the driver, its events |
//! | `client` | what is known of one connection |
//! | `connect` | opening connections: the queue, the ramp, dials, upgrades, tries again |
//! | `receive` | bytes to messages, order, counts |
//! | `publish` | when which stream publishes |
//! | `upkeep` | heartbeats, churn, slow reading, storms, giving up |
//! | `drain` | whether everything has arrived; the worker's share of the outcome |
//! | `tally` | what is counted |
//!
//! Invariants:
//! - a client's `conn` is its own from the dial's success until `Closed`, and `slots` names the client;
//! - at most one send of a connection is in flight; what comes meanwhile waits in its outbox;
//! - `opening` holds exactly the clients that are dialling, upgrading or greeting.
//!
//! Cost of a message: one walk over its bytes, no allocation; of a receive whose bytes are only counted, an addition.

mod client;
mod connect;
mod drain;
mod publish;
mod receive;
mod tally;
mod upkeep;

use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender};
use ring::{ConnId, Dial, Event, Gather, Nanos, ReceiveEnd, Waker};

use crate::plan::{Pacing, Plan};
use client::{Client, State};
use connect::Opening;
use publish::Publishing;
pub(crate) use tally::{Broadcast, Counts, Part, Snapshot};
use tally::{Tally, count_reason};
pub(crate) use upkeep::SLOW_READ_BYTES;
use upkeep::Upkeep;

/// What the coordinator wants of a worker.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Publishing begins, and ends, at these times.
    Begin(Times),
    /// Answer with a [`Report::Snapshot`].
    Snapshot,
    /// All clients drop their connections and come back.
    Storm,
    /// Publishing is over: how much was it?
    Published,
    /// What was published by all; answer when it has arrived.
    Drain(Arc<Final>),
    /// Another worker's subscribers have received more of this stream.
    Advanced(u32),
    /// End, with what there is.
    Finish,
}

/// When things happen: monotonic nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Times {
    pub(crate) begin: Nanos,
    pub(crate) measure_from: Nanos,
    pub(crate) end: Nanos,
}

/// What was published, when that is over.
#[derive(Debug)]
pub(crate) struct Final {
    /// By stream; `u64::MAX`: not by this process.
    pub(crate) published: Vec<u64>,
    /// Bytes on the wire, by topic, where they are exact.
    pub(crate) wire: Option<Vec<u64>>,
    /// The run ends before its time: who is not connected yet is nobody's fault.
    pub(crate) interrupted: bool,
}

/// What a worker tells the coordinator.
#[derive(Debug)]
pub(crate) enum Report {
    /// Every client is open or given up.
    Complete(u32, Nanos),
    /// That is no longer so.
    Incomplete(u32, Nanos),
    /// A storm was raised: this worker's clients are about to come back.
    Stormed(u32),
    Snapshot(Box<Snapshot>),
    /// By stream.
    Published(Vec<(u32, u64)>),
    /// Everything has arrived, or nothing came for the drain's timeout.
    Drained,
    /// The ring failed.
    Failed(u32, io::Error),
}

/// What all workers and the coordinator share.
pub(crate) struct Shared {
    pub(crate) commands: Vec<Sender<Command>>,
    pub(crate) wakers: Vec<Waker>,
    /// Closed loop: messages that all subscribers of a worker received, by worker and stream.
    pub(crate) completed: Vec<AtomicU64>,
    /// When the newest message was published: monotonic nanoseconds.
    pub(crate) last_published: AtomicU64,
}

impl Shared {
    /// Closed loop: all subscribers of `worker` have received `messages` of a stream. Returns true if `worker` itself
    /// publishes this stream; otherwise the worker that does gets a command.
    fn complete(&self, plan: &Plan, worker: u32, stream: u32, messages: u64) -> bool {
        self.completed[plan.progress_at(worker, stream)].store(messages, Ordering::Release);
        let writer = plan.writer(stream);
        if writer != worker {
            self.send(writer as usize, Command::Advanced(stream));
        }
        writer == worker
    }

    pub(crate) fn send(&self, worker: usize, command: Command) {
        // A worker that has ended needs no commands.
        drop(self.commands[worker].send(command));
        self.wakers[worker].wake();
    }
}

/// One worker.
pub(crate) struct Worker<D: Dial> {
    index: u32,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    driver: D,
    commands: Receiver<Command>,
    reports: Sender<Report>,
    clients: Vec<Client>,
    /// Client by slot of the driver.
    slots: Vec<u32>,
    /// To be opened, in order.
    waiting: VecDeque<u32>,
    opening: HashMap<u32, Opening>,
    /// Tries again: when (the earliest first), and who.
    retries: BinaryHeap<std::cmp::Reverse<(Nanos, u32)>>,
    /// Connections that may be begun, a fraction included, as of `ramped_at`.
    ramp_credit: f64,
    ramped_at: Nanos,
    /// Clients that are neither open nor given up.
    incomplete: usize,
    /// The last [`Report::Complete`] (true) or [`Report::Incomplete`] (false).
    reported_complete: bool,
    times: Option<Times>,
    publishing: Publishing,
    upkeep: Upkeep,
    drain: Option<drain::Drain>,
    drained: bool,
    /// When a message last arrived.
    heard_at: Nanos,
    /// When a client was last opened.
    opened_at: Nanos,
    tally: Tally,
    /// Of streams heard here, in a closed loop.
    progress: receive::Progress,
    /// Scratch: replies to what is being read.
    replies: Vec<u8>,
    finished: bool,
    /// A source of jitter.
    random: u64,
}

/// No turn waits longer.
const TURN_MAX_NS: Nanos = 500_000_000;

impl<D: Dial> Worker<D> {
    pub(crate) fn new(
        index: u32,
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        driver: D,
        commands: Receiver<Command>,
        reports: Sender<Report>,
    ) -> Self {
        let clients: Vec<_> = plan
            .roles_of(index)
            .map(|role| match role {
                crate::plan::Role::Client(number) => {
                    let slow = plan.is_slow(number);
                    // Of a slow client it must be known with which code it was closed.
                    Client::new(role, slow || plan.verifies(number), slow)
                }
                crate::plan::Role::Publisher(_) => Client::new(role, true, false),
            })
            .collect();
        let publishing = Publishing::new(&plan, &clients);
        let now = driver.now();
        Self {
            index,
            slots: vec![u32::MAX; driver.capacity() as usize],
            waiting: (0..clients.len() as u32).collect(),
            opening: HashMap::new(),
            retries: BinaryHeap::new(),
            ramp_credit: 1.0,
            ramped_at: now,
            incomplete: clients.len(),
            reported_complete: false,
            times: None,
            publishing,
            upkeep: Upkeep::new(now),
            drain: None,
            drained: false,
            heard_at: now,
            opened_at: now,
            tally: Tally::new(),
            progress: receive::Progress::new(&plan, matches!(plan.pacing, Pacing::Closed(_))),
            replies: Vec::new(),
            finished: false,
            random: 0x9e37_79b9_7f4a_7c15 ^ u64::from(index) << 32,
            clients,
            plan,
            shared,
            driver,
            commands,
            reports,
        }
    }

    /// Runs until [`Command::Finish`].
    pub(crate) fn run(mut self) -> Part {
        let mut events = Vec::new();
        if let Err(error) = self.work(&mut events) {
            self.report(Report::Failed(self.index, error));
        }
        self.part()
    }

    fn work(&mut self, events: &mut Vec<Event<D::Buf>>) -> io::Result<()> {
        loop {
            while let Ok(command) = self.commands.try_recv() {
                self.command(command);
            }
            if self.finished {
                return Ok(());
            }
            let now = self.driver.now();
            let due = [
                self.open_more(now),
                self.publish_due(now),
                self.upkeep_due(now),
                self.drain_due(now),
                now + TURN_MAX_NS,
            ];
            self.report_completeness(now);
            let deadline = due.into_iter().min().expect("several");
            self.driver.turn(Some(deadline), events)?;
            for event in events.drain(..) {
                self.on(event);
            }
        }
    }

    fn report(&self, report: Report) {
        // A coordinator that is gone wants no reports.
        drop(self.reports.send(report));
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Begin(times) => {
                self.times = Some(times);
                self.publishing.begin(&self.plan);
            }
            Command::Snapshot => {
                let snapshot = self.tally.snapshot(self.index);
                self.report(Report::Snapshot(Box::new(snapshot)));
            }
            Command::Storm => {
                self.storm();
                self.reported_complete = false;
                self.report(Report::Stormed(self.index));
            }
            Command::Published => {
                self.publishing.end();
                let published = self.publishing.published();
                self.report(Report::Published(published));
            }
            Command::Drain(published) => self.begin_drain(published),
            Command::Advanced(stream) => self.publishing.advanced(stream),
            Command::Finish => self.finished = true,
        }
    }

    fn on(&mut self, event: Event<D::Buf>) {
        match event {
            Event::Dialled { token, result } => self.on_dialled(token as u32, result),
            Event::Received { conn, buf } => {
                if let Some(at) = self.client_of(conn) {
                    self.on_received(at, &buf);
                }
            }
            Event::Discarded { conn, bytes } => {
                if let Some(at) = self.client_of(conn) {
                    self.on_discarded(at, bytes);
                }
            }
            Event::ReceiveEnded { conn, end } => {
                if let Some(at) = self.client_of(conn) {
                    self.on_receive_ended(at, end);
                }
            }
            Event::Sent { conn, gather, from, result } => {
                if let Some(at) = self.client_of(conn) {
                    self.on_sent(at, gather, from, result);
                }
            }
            Event::Closed { conn } => {
                let at = self.slots[conn.slot as usize];
                // Nobody's: it was opened too late.
                if at != u32::MAX {
                    self.on_closed(at);
                }
            }
            Event::Woken => {}
            Event::Accepted { .. }
            | Event::AcceptEnded { .. }
            | Event::Adopted { .. }
            | Event::Installed { .. }
            | Event::Peer { .. }
            | Event::Unsent { .. } => {
                unreachable!("a client accepts, adopts, installs and asks nothing")
            }
        }
    }

    /// The client of a connection that is not being closed.
    fn client_of(&self, conn: ConnId) -> Option<u32> {
        let at = *self.slots.get(conn.slot as usize)?;
        let client = self.clients.get(at as usize)?;
        (client.conn == conn && client.state != State::Closing).then_some(at)
    }

    // ---- sending

    fn send(&mut self, at: u32, bytes: Vec<u8>) {
        let client = &mut self.clients[at as usize];
        if bytes.is_empty() {
            return;
        }
        if client.sending {
            client.outbox.get_or_insert_default().extend_from_slice(&bytes);
        } else {
            client.sending = true;
            self.driver.send(client.conn, Gather::one(Bytes::from(bytes)), 0);
        }
    }

    fn on_sent(&mut self, at: u32, gather: Gather, from: usize, result: Result<usize, i32>) {
        let client = &mut self.clients[at as usize];
        match result {
            Ok(sent) if from + sent < gather.len() => self.driver.send(client.conn, gather, from + sent),
            Ok(_) => {
                client.sending = false;
                if let Some(outbox) = client.outbox.take() {
                    self.send(at, *outbox);
                }
                self.publishing.unblocked(at);
            }
            // The receive tells the same, and why.
            Err(errno) => {
                client.sending = false;
                if !client.receiving {
                    self.on_lost(at, 1006, &format!("sending failed: {}", io::Error::from_raw_os_error(errno)));
                }
            }
        }
    }

    // ---- ends

    fn on_receive_ended(&mut self, at: u32, end: ReceiveEnd) {
        self.clients[at as usize].receiving = false;
        match end {
            ReceiveEnd::NoBuffers | ReceiveEnd::Stopped => self.receive_more(at),
            ReceiveEnd::EndOfStream => self.on_lost(at, 1006, "closed without an answer"),
            ReceiveEnd::Failed(errno) => {
                self.on_lost(at, 1006, &io::Error::from_raw_os_error(errno).to_string());
            }
        }
    }

    /// Arms whatever receive a client's state asks for.
    fn receive_more(&mut self, at: u32) {
        let slow_rate = self.plan.options.slow_rate;
        let draining = self.drain.is_some();
        let client = &mut self.clients[at as usize];
        if client.receiving {
            return;
        }
        match client.state {
            State::Upgrading | State::Greeting => self.driver.receive_once(client.conn),
            State::Open if client.slow && !draining => {
                if slow_rate > 0 {
                    let now = self.driver.now();
                    self.upkeep.read_later(now, at, slow_rate);
                }
                return;
            }
            State::Open if client.verifies => self.driver.receive(client.conn),
            State::Open => self.driver.discard(client.conn),
            State::Waiting | State::Dialling | State::Closing | State::Gone => return,
        }
        client.receiving = true;
    }

    /// The server, or the network, ended a connection.
    fn on_lost(&mut self, at: u32, code: u16, why: &str) {
        let reconnect = self.plan.options.reconnect;
        let client = &mut self.clients[at as usize];
        match client.state {
            State::Upgrading | State::Greeting => return self.on_failed_try(at, why, None, true),
            State::Open => {}
            _ => return,
        }
        let errors = &mut self.tally.errors;
        let mut counted = true;
        if reconnect {
            *errors.shed.entry(code).or_default() += u64::from(client.is_subscriber());
            counted = false;
        } else if !client.is_subscriber() {
            count_reason(&mut errors.publishers, format!("{code}: {why}"));
        } else if client.slow {
            *errors.shed.entry(code).or_default() += 1;
            counted = false;
        } else {
            *errors.closed.entry(code).or_default() += 1;
        }
        self.tally.counts.errors += u64::from(counted);
        self.publishing.lost(at);
        self.close(at, reconnect);
    }

    /// The server's bytes are not what the protocol allows, or it refused something in words.
    fn on_broken(&mut self, at: u32, why: String) {
        let client = &self.clients[at as usize];
        match client.state {
            // Asking again would change nothing.
            State::Upgrading | State::Greeting => return self.give_up(at, &why, true),
            State::Open => {}
            _ => return,
        }
        let errors = &mut self.tally.errors;
        count_reason(if client.is_subscriber() { &mut errors.broken } else { &mut errors.publishers }, why);
        self.tally.counts.errors += 1;
        self.publishing.lost(at);
        self.close(at, self.plan.options.reconnect);
    }

    /// Closes a connection from this side; `comes_back`: to open it again.
    fn close(&mut self, at: u32, comes_back: bool) {
        let client = &self.clients[at as usize];
        if client.state == State::Open {
            if client.is_subscriber() {
                self.tally.counts.open -= 1;
                self.stop_waiting_for(at);
            }
            self.incomplete += usize::from(comes_back);
        }
        self.publishing.unblocked(at);
        let client = &mut self.clients[at as usize];
        client.comes_back = comes_back;
        client.state = State::Closing;
        self.opening.remove(&at);
        self.driver.close(client.conn);
    }

    fn on_closed(&mut self, at: u32) {
        self.progress.forget(at);
        let client = &mut self.clients[at as usize];
        client.reset();
        if client.comes_back {
            client.comes_back = false;
            client.state = State::Waiting;
            if client.tries == 0 {
                self.waiting.push_back(at);
            }
        } else {
            client.state = State::Gone;
        }
    }

    fn report_completeness(&mut self, now: Nanos) {
        let complete = self.incomplete == 0;
        if complete != self.reported_complete {
            self.reported_complete = complete;
            if complete {
                self.progress.release(&self.plan, self.index, &self.shared);
            }
            self.report(if complete { Report::Complete(self.index, now) } else { Report::Incomplete(self.index, now) });
        }
    }

    fn jitter(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn note_publication(&self, now: Nanos) {
        self.shared.last_published.store(now, Ordering::Relaxed);
    }
}

/// A set of clients with something to be sent at the turn's end.
type Dirty = BTreeSet<u32>;

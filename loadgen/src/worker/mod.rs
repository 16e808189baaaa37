//! A worker: one thread, one ring, its share of the connections.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | the loop: commands, what is due, one turn of the driver, its events |
//! | `coordination` | what workers and coordinator send each other and share |
//! | `client` | the state of one connection |
//! | `backoff` | fewer tries while no connection succeeds |
//! | `connect` | opening connections: queue, ramp, dials, upgrades, retries |
//! | `secure` | TLS between the socket and all of this |
//! | `connection` | sending, arming receives, and how connections end |
//! | `receive` | bytes to messages: order, damage, counts |
//! | `recall` | what a history adds to that: offsets, answers about recovery, gaps, state |
//! | `terms` | what a policy for slow consumers and a throttle leave out |
//! | `receipts` | closed loop: which messages all subscribers of this worker have |
//! | `publish` | when each stream publishes |
//! | `past` | clients that come back with their positions, and newcomers that begin with state |
//! | `upkeep` | heartbeats, churn, slow reading, storms, timeouts |
//! | `drain` | whether everything has arrived; the worker's share of the outcome |
//! | `tally` | counters |
//!
//! Invariants:
//! - a client's `conn` is its own from the dial's success until `Closed`, and `slots` names the client;
//! - at most one send of a connection is in flight; further bytes wait in its outbox;
//! - `opening` holds exactly the clients that are dialling, upgrading or greeting.
//!
//! Cost of a message: one walk over its bytes, no allocation. Cost of a receive whose bytes are only counted: an addition.

mod backoff;
mod client;
mod connect;
mod connection;
mod coordination;
mod drain;
mod past;
mod publish;
mod recall;
mod receipts;
mod receive;
mod secure;
mod tally;
mod terms;
mod upkeep;

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Receiver, Sender};
use fastrand::Rng;
use ring::{ConnId, Dial, Event, Nanos};

use crate::plan::{Pacing, Plan};
use backoff::Backoff;
use client::{Client, State};
use connect::Opening;
pub(crate) use coordination::{Command, Final, Report, Shared, Times};
use past::Past;
use publish::Publishing;
use receipts::Receipts;
use secure::Secure;
use tally::Tally;
pub(crate) use tally::{Broadcast, Counts, HistoryPart, Part, SlowPart, Snapshot, TermsPart, TlsPart};
pub(crate) use upkeep::SLOW_READ_BYTES;
use upkeep::Upkeep;

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
    /// Clients to be opened, in order.
    waiting: VecDeque<u32>,
    opening: HashMap<u32, Opening>,
    /// Retries: when (the earliest first), and which client.
    retries: BinaryHeap<std::cmp::Reverse<(Nanos, u32)>>,
    backoff: Backoff,
    /// Connections that the ramp allows as of `ramped_at`, fractions included.
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
    receipts: Receipts,
    past: Past,
    secure: Secure,
    /// No connection of this process publishes.
    only_hears: bool,
    /// Scratch: replies to the bytes that are being read.
    replies: Vec<u8>,
    finished: bool,
    /// Jitter of retries.
    random: Rng,
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
                    // Slow clients look at their frames too, to learn with which code they are closed.
                    Client::new(role, slow || plan.verifies(number), slow)
                }
                crate::plan::Role::Publisher(_) => Client::new(role, true, false),
            })
            .collect();
        let publishing = Publishing::new(&plan, &clients);
        let past = Past::new(&plan, &clients);
        let now = driver.now();
        Self {
            index,
            slots: vec![u32::MAX; driver.capacity() as usize],
            waiting: (0..).zip(&clients).filter(|(_, one)| !plan.is_held(one.role)).map(|(at, _)| at).collect(),
            opening: HashMap::new(),
            retries: BinaryHeap::new(),
            backoff: Backoff::default(),
            ramp_credit: 1.0,
            ramped_at: now,
            incomplete: clients.len() - past.holds(),
            past,
            reported_complete: false,
            times: None,
            publishing,
            upkeep: Upkeep::new(now),
            drain: None,
            drained: false,
            heard_at: now,
            opened_at: now,
            tally: Tally::new(),
            receipts: Receipts::new(&plan, matches!(plan.pacing, Pacing::Closed(_))),
            only_hears: plan.own_publishers.1 == 0 && !plan.options.everyone_publishes,
            replies: Vec::new(),
            finished: false,
            random: Rng::with_seed(u64::from(index)),
            secure: Secure::new(&plan, clients.len()),
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
                self.arrivals_due(now),
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
        // A coordinator that has ended needs no reports.
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
            Command::Leave => self.leave_all(),
            Command::Arrive { behind } => self.arrive_all(behind),
            Command::GiveUp => self.give_up_rest(),
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
                    self.on_bytes(at, &buf);
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
                // No client has it: it was opened too late.
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
                unreachable!("a client only dials, sends and receives")
            }
        }
    }

    /// The client of a connection that is not being closed.
    fn client_of(&self, conn: ConnId) -> Option<u32> {
        let at = *self.slots.get(conn.slot as usize)?;
        let client = self.clients.get(at as usize)?;
        (client.conn == conn && client.state != State::Closing).then_some(at)
    }

    fn report_completeness(&mut self, now: Nanos) {
        let complete = self.incomplete == 0;
        if complete != self.reported_complete {
            self.reported_complete = complete;
            if complete {
                self.receipts.release(&self.plan, self.index, &self.shared);
            }
            self.report(if complete { Report::Complete(self.index, now) } else { Report::Incomplete(self.index, now) });
        }
    }

    fn note_publication(&self, now: Nanos) {
        self.shared.last_published.store(now, Ordering::Relaxed);
    }
}

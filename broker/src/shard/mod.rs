//! A shard: one thread, one driver, its own connections, topics and subscribers.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`transport`] | connections: accept, handshake, ingress, deadlines, close |
//! | `commands`, `subscribe` | `ringyard.v1` commands; subscriptions, joins and leaves |
//! | `mailbox` | publishes on their way to sequencers, deliveries on their way from them |
//! | [`fanout`] | logs and delivery rounds |
//! | `pressure` | what happens when memory is short |
//! | `drain` | shutdown |
//! | [`shared`] | the state and the queues that shards and the control plane share |
//! | [`audit`] | what the simulation checks after every step |
//!
//! A turn ([`Shard::step`]) takes what other threads sent, sends what is pending, submits everything to
//! the driver in one system call, and handles what completed. Each part has a budget of work; what does not fit goes on
//! in the next turn. Nothing in it waits but the driver, nothing is linear in the number of connections, and nothing
//! reads a clock but the driver: the simulation runs this very code, and a seed replays a run.

pub mod audit;
mod commands;
mod drain;
pub mod fanout;
mod mailbox;
mod pressure;
pub mod shared;
mod subscribe;
#[cfg(test)]
mod tests;
pub mod transport;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol::frame::FrameLimits;
use protocol::head::HeadLimits;
use ring::{ConnId, Driver, Event, Gather, Nanos};
use rustc_hash::FxHashMap;

use crate::access::address::AddressLease;
use crate::capacity::budget::{Account, Level};
use crate::config::limits::Limits;
use crate::ids::{LogSlot, ShardId, TopicId};
use crate::observe::counters::{Scale, Stats};
use crate::sequencer::Sequencer;
use crate::shard::fanout::log::{Log, Subscriber};
use crate::shard::shared::{Purpose, SharedState};
use crate::shard::transport::client_address::ClientAddresses;
use crate::shard::transport::connection::Conns;
use crate::shard::transport::timers::Timers;
use crate::topics::matches::Matches;

/// How long a turn waits for another shard's full queue.
const RETRY_NANOS: Nanos = 1_000_000;

/// What a shard is given.
#[derive(Clone, Debug)]
pub struct ShardSetup {
    /// Its number: index of its inbox and its stats.
    pub id: ShardId,
    /// What it shares with the others.
    pub shared: Arc<SharedState>,
    /// What it allows.
    pub limits: Arc<Limits>,
}

/// One shard over a driver. See the module's head.
pub struct Shard<D: Driver> {
    id: ShardId,
    shared: Arc<SharedState>,
    limits: Arc<Limits>,
    head_limits: HeadLimits,
    frame_limits: FrameLimits,
    driver: D,
    events: Vec<Event<D::Buf>>,
    /// The driver's clock at the beginning of the turn.
    now: Nanos,

    conns: Conns,
    client_addresses: ClientAddresses,
    timers: Timers,
    /// Sockets from the control plane that the driver is adopting, by token.
    adopting: FxHashMap<u64, Adopting>,
    next_token: u64,
    accepting: Accepting,

    logs: Vec<Option<Box<Log>>>,
    free_logs: Vec<LogSlot>,
    /// Topics and filters that have a log.
    log_of: FxHashMap<TopicId, LogSlot>,
    /// Logs of filters with wildcards, and which of them match a topic.
    matches: Matches<LogSlot>,
    next_join: u64,
    next_ticket: u64,

    /// Connections whose receive found no buffer, beyond those that this turn armed again.
    waiting_for_buffer: VecDeque<ConnId>,
    /// How many those were.
    rearmed: usize,

    /// What is charged here counts as held by this shard.
    account: Arc<Account>,
    pressure: pressure::Pressure,
    /// The rest of this turn's work.
    work: fanout::deliver::Work,
    input_work: transport::ingress::InputWork,

    /// Logs with pending messages, each once, here or in `fresh`.
    pending: VecDeque<LogSlot>,
    /// Those that had nothing pending before.
    fresh: VecDeque<LogSlot>,
    /// Logs to be trimmed at the end of this turn's deliveries.
    delivered_logs: Vec<LogSlot>,
    /// Subscribers that took another's index in a log, to be delivered to out of turn.
    moved: Vec<(LogSlot, Subscriber)>,
    /// For so many turns more, turns are short: see `deliver`.
    short_turns: u32,
    /// Whether this turn's next send is to be timed.
    time_next: bool,
    /// Sends in flight that are.
    timed: Vec<fanout::deliver::Timed>,
    /// Connections with something to send that no send in flight holds up, each once, here or in `delivered_ready`.
    ready: VecDeque<ConnId>,
    /// Those that this turn's delivery rounds found.
    delivered_ready: Vec<ConnId>,
    /// Connections whose input waits for its next part of a turn, each once, here or in `paused`.
    yielded: VecDeque<ConnId>,
    /// Connections whose input waits for something else.
    paused: VecDeque<ConnId>,
    /// How many of those, from the first on, may be able to go on: something changed since they were tried.
    untried: usize,
    /// Whether a connection's kept input is looked at right now.
    resuming: bool,
    /// When all of them are tried again, because of what other shards may have changed.
    retry_at: Nanos,
    /// Logs whose publishers have to wait.
    congested_logs: usize,
    awaited: fanout::lag::Awaited,
    /// Bytes that all logs keep.
    log_bytes: u64,
    assemblies: transport::assembly::Assemblies,
    appends: fanout::append::Appends,

    sequencer: Sequencer,
    mailbox: mailbox::Mailbox,
    parser: Option<protocol::v1::Parser>,
    /// Where an answer is written before it is framed.
    scratch: BytesMut,
    ping: Gather,
    drain: drain::Drain,
}

#[derive(PartialEq, Eq, Debug)]
enum Accepting {
    /// The driver's multishot accept is armed.
    Armed,
    /// Wait for a free slot.
    Full,
    /// Wait for a deadline: the kernel refused.
    Retry(Nanos),
    /// Shutting down.
    Stopped,
}

/// A socket that the driver is adopting.
struct Adopting {
    purpose: Purpose,
    read: Vec<u8>,
    lease: AddressLease,
}

impl<D: Driver> Shard<D> {
    /// A shard over `driver`, which must belong to the calling thread.
    #[must_use]
    pub fn new(driver: D, setup: ShardSetup) -> Self {
        let ShardSetup { id, shared, limits } = setup;
        shared.inboxes[usize::from(id)].set_waker(driver.waker());
        let now = driver.now();
        let account = Arc::clone(shared.budget.of_shard(id));
        // Homes of one broker share a base; the shard's number keeps their epochs apart.
        let epoch_base = shared.epoch_base.wrapping_add(u64::from(id) << 40);
        let mut shard = Self {
            id,
            head_limits: HeadLimits {
                head_bytes_max: limits.head_bytes_max,
                headers_max: limits.headers_max,
                topic_len_max: limits.topic_bytes_max,
            },
            frame_limits: FrameLimits {
                frame_bytes_max: limits.frame_bytes_max,
                message_bytes_max: limits.message_bytes_max,
            },
            events: Vec::new(),
            now,
            conns: Conns::default(),
            client_addresses: ClientAddresses::new(&limits),
            timers: Timers::new(now),
            adopting: FxHashMap::default(),
            next_token: 0,
            accepting: Accepting::Armed,
            logs: Vec::new(),
            free_logs: Vec::new(),
            log_of: FxHashMap::default(),
            matches: Matches::new(shared.registry.keys()),
            next_join: 0,
            next_ticket: 0,
            pressure: pressure::Pressure::default(),
            work: fanout::deliver::Work::default(),
            input_work: transport::ingress::InputWork::default(),
            pending: VecDeque::new(),
            fresh: VecDeque::new(),
            delivered_logs: Vec::new(),
            moved: Vec::new(),
            short_turns: 0,
            time_next: false,
            timed: Vec::new(),
            waiting_for_buffer: VecDeque::new(),
            rearmed: 0,
            ready: VecDeque::new(),
            delivered_ready: Vec::new(),
            yielded: VecDeque::new(),
            paused: VecDeque::new(),
            untried: 0,
            resuming: false,
            retry_at: 0,
            congested_logs: 0,
            awaited: fanout::lag::Awaited::default(),
            log_bytes: 0,
            assemblies: transport::assembly::Assemblies::default(),
            appends: fanout::append::Appends::default(),
            sequencer: Sequencer::new(
                epoch_base,
                nanos(limits.topic_idle_timeout),
                limits.topics_max,
                shared.registry.keys(),
            ),
            mailbox: mailbox::Mailbox::new(id, Arc::clone(&shared), &account),
            account,
            parser: Some(protocol::v1::Parser::default()),
            scratch: BytesMut::new(),
            ping: Gather::one(Bytes::from_static(&[0x89, 0])),
            drain: drain::Drain::default(),
            driver,
            shared,
            limits,
        };
        shard.driver.accept();
        shard
    }

    /// Runs until a shutdown is complete.
    ///
    /// # Errors
    /// What [`Driver::turn`] cannot mend.
    pub fn run(mut self) -> io::Result<()> {
        while self.step()? {}
        Ok(())
    }

    /// One turn. Returns false once a shutdown is complete.
    ///
    /// # Errors
    /// What [`Driver::turn`] cannot mend.
    pub fn step(&mut self) -> io::Result<bool> {
        self.now = self.driver.now();
        self.timers.advance(self.now);
        self.input_work.begin_turn(self.short_turns > 0);
        self.keep_up();
        self.relieve_pressure();
        self.go_on_appending();
        self.take_mail();
        self.resume_paused();
        self.rearm_waiting();
        self.deliver_pending();
        self.trim_delivered();
        if self.advance_drain() {
            return Ok(false);
        }
        let full = self.mailbox.flush();
        self.stats().queues_full.add(full as u64);
        self.publish_gauges();

        let deadline = self.wait_until();
        let mut events = std::mem::take(&mut self.events);
        let turned = self.driver.turn(deadline, &mut events);
        self.mailbox.inbox().awake();
        turned?;
        self.now = self.driver.now();
        self.count_turn();
        self.timers.advance(self.now);
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
        Ok(true)
    }

    fn handle(&mut self, event: Event<D::Buf>) {
        match event {
            Event::Sent { conn, gather, from, result } => self.on_sent(conn, gather, from, result),
            Event::Received { conn, mut buf } => self.on_received(conn, &mut buf),
            Event::ReceiveEnded { conn, end } => self.on_receive_ended(conn, end),
            Event::Accepted { conn } => self.on_accepted(conn),
            Event::AcceptEnded { end } => self.on_accept_ended(end),
            Event::Adopted { token, result } => self.on_adopted(token, result),
            Event::Installed { conn, result } => self.on_installed(conn, result),
            Event::Peer { conn, result } => self.on_peer(conn, result),
            Event::Unsent { conn, result } => self.on_unsent(conn, result),
            Event::Closed { conn } => self.on_closed(conn),
            Event::Woken => {}
            Event::Dialled { .. } | Event::Discarded { .. } => unreachable!("a shard never dials"),
        }
    }

    /// Until when the driver may sleep: not at all while there is work.
    fn wait_until(&mut self) -> Option<Nanos> {
        if !self.pending.is_empty()
            || !self.fresh.is_empty()
            || !self.ready.is_empty()
            || !self.moved.is_empty()
            || !self.delivered_logs.is_empty()
            || !self.waiting_for_buffer.is_empty()
            || !self.appends.is_empty()
            || self.mailbox.has_come()
            || self.may_resume()
        {
            return None;
        }
        if self.mailbox.has_waiting() {
            return Some(self.now + RETRY_NANOS);
        }
        if !self.mailbox.inbox().may_sleep() {
            return None;
        }
        let accept = match self.accepting {
            Accepting::Retry(at) => Some(at),
            _ => None,
        };
        let paused = (!self.paused.is_empty() || self.pressure.level != Level::Calm) && !self.drain.is_under_way();
        let deadlines = [
            self.timers.next(),
            self.sequencer.next_expiry(),
            accept,
            self.drain_deadline(),
            self.next_message_deadline(),
            self.awaited.next(),
            // What they wait for may come about on another shard.
            paused.then_some(self.retry_at),
        ];
        Some(deadlines.into_iter().flatten().min().unwrap_or(Nanos::MAX))
    }

    fn count_turn(&self) {
        let (stats, busy) = (self.stats(), self.driver.busy());
        stats.turn.observe(Scale::TIME, busy, 1);
        if busy > stats.turn_max.get() {
            stats.turn_max.set(busy);
        }
    }

    fn publish_gauges(&self) {
        let stats = self.stats();
        stats.connections.set(self.conns.len() as u64);
        stats.logs.set((self.logs.len() - self.free_logs.len()) as u64);
        stats.topics.set(self.sequencer.len() as u64);
        stats.log_bytes.set(self.log_bytes);
        let counters = self.driver.counters();
        stats.no_buffers.set(counters.no_buffers);
        stats.multishots_ended.set(counters.multishots_ended);
        stats.submission_full.set(counters.submission_full);
        stats.completion_overflows.set(counters.completion_overflows);
        stats.stale.set(counters.stale);
        stats.enters.set(counters.enters);
    }

    fn stats(&self) -> &Stats {
        &self.shared.stats[usize::from(self.id)]
    }

    fn log(&mut self, slot: LogSlot) -> &mut Log {
        self.logs[slot as usize].as_mut().expect("a log with subscribers")
    }
}

fn nanos(duration: std::time::Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX / 4)
}

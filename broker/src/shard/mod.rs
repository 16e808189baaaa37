//! A shard: one thread, one driver, its own connections, topics and subscribers.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`transport`] | connections: accept, handshake, ingress, deadlines, close |
//! | `actions`, `subscribe` | what sessions want done; subscriptions, joins and leaves |
//! | `recall`, `backlog` | what a new subscription is given of its topic's history, and how that is sent |
//! | `history` | the commands that read a topic's history and replace its snapshot; the bound over all histories |
//! | `requests` | single publishes over HTTP that the shard answers |
//! | `mailbox` | publishes on their way to sequencers, deliveries on their way from them |
//! | `sequencing` | what the shard does as a sequencer |
//! | [`entry`], `identities`, `permissions` | who connections are, until when, and what they may do |
//! | `sessions`, `members`, `member_info` | sessions that outlive a connection; who is present at a topic, and what is said of them |
//! | `leases`, `wills`, [`lease_messages`] | who may publish to exclusive topics; what is published when a connection ends |
//! | `slowest`, `peers` | which subscriptions are furthest behind, and from where they come |
//! | [`fanout`] | logs and delivery rounds |
//! | `calls` | requests and their answers |
//! | `names`, `pressure` | room for new topics; what happens when memory is short |
//! | [`shared`], `inbox`, `messages`, [`asked`], [`handover`] | what shards and the control plane share; sockets on their way between them |
//! | `drain`, [`audit`] | shutdown; what the simulation checks after every step |
//! | `time` | durations as nanoseconds of the driver's clock |
//!
//! A turn ([`Shard::step`]) takes what other threads sent, sends what is pending, submits everything to
//! the driver in one system call, and handles what completed. Each part has a budget of work; what does not fit goes on
//! in the next turn. Nothing in it waits but the driver, nothing is linear in the number of connections, and nothing
//! reads a clock but the driver: the simulation runs this very code, and a seed replays a run.

mod actions;
pub mod asked;
pub mod audit;
mod backlog;
mod busiest;
pub mod calls;
mod drain;
pub mod entry;
pub mod fanout;
mod found;
mod gauges;
pub mod handover;
mod history;
mod identities;
mod inbox;
mod inspected;
pub mod lease_messages;
mod leases;
mod mailbox;
mod member_info;
mod members;
mod messages;
mod names;
mod peers;
mod permissions;
pub mod polls;
mod pressure;
mod recall;
mod requests;
mod sequencing;
mod sessions;
pub mod shared;
mod slowest;
mod subscribe;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod transport;
mod wills;

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use protocol::frame::FrameLimits;
use protocol::head::HeadLimits;
use ring::{ConnId, Driver, Event, Nanos, nanos};
use rustc_hash::FxHashMap;

use crate::capacity::budget::{Account, Level};
use crate::config::limits::Limits;
use crate::ids::{Epoch, ShardId};
use crate::observe::counters::Stats;
use crate::presence::leases::Leases;
use crate::presence::members::Members;
use crate::presence::sessions::Sessions;
use crate::publishing::date::Date;
use crate::publishing::{answer, fields};
use crate::sequencer::ledger::HistoryLimits;
use crate::sequencer::{Sequencer, SequencerLimits};
use crate::shard::busiest::Busiest;
use crate::shard::calls::Calls;
use crate::shard::drain::Drain;
use crate::shard::fanout::FanOut;
use crate::shard::identities::Identities;
use crate::shard::mailbox::Mailbox;
use crate::shard::members::Counts;
use crate::shard::peers::PeerQuestions;
use crate::shard::polls::Polls;
use crate::shard::pressure::Pressure;
use crate::shard::recall::Recalls;
use crate::shard::sessions::Attached;
use crate::shard::shared::SharedState;
use crate::shard::trace::Traces;
use crate::shard::transport::accept::{Accepting, Acceptor};
use crate::shard::transport::connection::Conns;
use crate::shard::transport::egress::Egress;
use crate::shard::transport::pause::Input;
use crate::shard::transport::secure::Secure;
use crate::shard::transport::timers::Timers;

/// Nanoseconds of a millisecond.
const NANOS_PER_MS: Nanos = 1_000_000;
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
    driver: D,
    events: Vec<Event<D::Buf>>,
    /// The driver's clock at the beginning of the turn.
    now: Nanos,

    /// Every connection of this shard.
    conns: Conns,
    timers: Timers,
    acceptor: Acceptor,
    input: Input,
    egress: Egress,
    fanout: FanOut,
    sequencer: Sequencer,
    mailbox: Mailbox,
    recalls: Recalls,
    polls: Polls,
    calls: Calls,
    /// What is charged here counts as held by this shard.
    account: Arc<Account>,
    pressure: Pressure,
    peer_questions: PeerQuestions,
    identities: Identities,
    /// Of connections that have a session, where that is kept.
    attached: FxHashMap<ConnId, Attached>,
    /// Sessions whose home this shard is.
    sessions: Sessions,
    /// Who is present at the topics that this shard sequences.
    members: Members,
    counts: Counts,
    busiest: Busiest,
    traces: Traces,
    /// The leases of the topics that this shard sequences.
    leases: Leases,
    secure: Secure,
    drain: Drain,
    codec: ShardCodec,
}

/// Limits of parsers, and buffers that every connection uses in turn.
struct ShardCodec {
    head_limits: HeadLimits,
    frame_limits: FrameLimits,
    /// Taken out while a session reads a message with it.
    parser: Option<Box<protocol::v1::Parser>>,
    /// Where an answer is written before it is framed.
    scratch: BytesMut,
    /// What answers over HTTP say of a connection that stays, as lines.
    http_stays: String,
    date: Date,
}

impl ShardCodec {
    fn new(limits: &Limits) -> Self {
        Self {
            head_limits: HeadLimits {
                head_bytes_max: limits.head_bytes_max,
                headers_max: limits.headers_max,
                topic_len_max: limits.topic_bytes_max,
            },
            frame_limits: FrameLimits {
                frame_bytes_max: limits.frame_bytes_max,
                message_bytes_max: limits.message_bytes_max,
            },
            parser: Some(Box::default()),
            scratch: BytesMut::new(),
            http_stays: answer::stays(fields::keep_alive(limits.http_idle_timeout).as_deref()),
            date: Date::default(),
        }
    }
}

impl<D: Driver> Shard<D> {
    /// A shard over `driver`, which must belong to the calling thread.
    #[must_use]
    pub fn new(driver: D, setup: ShardSetup) -> Self {
        let ShardSetup { id, shared, limits } = setup;
        shared.inboxes[usize::from(id)].set_waker(driver.waker());
        let now = driver.now();
        let account = Arc::clone(shared.budget.of_shard(id.0));
        // Sequencers of one broker share a base; the shard's number keeps their epochs apart.
        let epoch_base = Epoch::first(shared.epoch_base, id);
        let shards = shared.inboxes.len();
        let resumable_max = limits.sessions_max.map_or(usize::MAX, |sessions| sessions.div_ceil(shards));
        let mut shard = Self {
            id,
            events: Vec::new(),
            now,
            conns: Conns::default(),
            timers: Timers::new(now),
            acceptor: Acceptor::new(&limits),
            input: Input::default(),
            egress: Egress::default(),
            fanout: FanOut::new(id, &shared, &limits, &account),
            sequencer: Sequencer::new(
                epoch_base,
                sequencer_limits(&limits),
                &shared.registry,
                &account,
                shared.history_usage.state(),
            ),
            mailbox: Mailbox::new(id, Arc::clone(&shared), &account, limits.log_bytes_max),
            recalls: Recalls::default(),
            polls: Polls::default(),
            calls: Calls::new(id, shared.registry.keys(), &account),
            identities: Identities::new(&account),
            attached: FxHashMap::default(),
            sessions: Sessions::new(id, nanos(limits.session_grace), resumable_max, &account),
            members: Members::new(&account),
            counts: Counts::default(),
            busiest: Busiest::default(),
            traces: Traces::default(),
            // Above those of a broker that ran before: a grant takes more than a millisecond on average.
            leases: Leases::new(shared.wall_clock.millis(now), &account),
            account,
            pressure: Pressure::default(),
            peer_questions: PeerQuestions::default(),
            secure: Secure::default(),
            drain: Drain::default(),
            codec: ShardCodec::new(&limits),
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

    /// One turn: what is due, what has come, what is pending, and then what the driver completed. Returns false once a
    /// shutdown is complete.
    ///
    /// # Errors
    /// What [`Driver::turn`] cannot mend.
    pub fn step(&mut self) -> io::Result<bool> {
        self.begin_turn();
        self.expire();
        self.expire_identities();
        self.expire_calls();
        self.expire_sessions();
        self.relieve_pressure();
        for answer in self.fanout.append_waiting() {
            self.on_recalled(answer);
        }
        self.take_mail();
        self.bound_histories();
        self.resume_input();
        self.rearm_waiting();
        self.deliver();
        if self.advance_drain() {
            self.shared.log_shares.end(self.id);
            return Ok(false);
        }
        self.flush_mail();
        self.publish_gauges();
        self.wait()?;
        self.handle_events();
        Ok(true)
    }

    fn begin_turn(&mut self) {
        self.now = self.driver.now();
        self.timers.advance(self.now);
        self.fanout.open_due_rounds(self.now);
        self.sequencer.set_time(self.shared.wall_clock.millis(self.now));
        self.input.work.begin_turn(self.fanout.short_turns > 0);
    }

    /// Submits what the turn asked of the driver, and sleeps until something completes, comes or is due.
    fn wait(&mut self) -> io::Result<()> {
        let deadline = self.wait_until();
        let turned = self.driver.turn(deadline, &mut self.events);
        self.mailbox.inbox().awake();
        turned?;
        self.now = self.driver.now();
        self.count_turn();
        self.timers.advance(self.now);
        self.fanout.open_due_rounds(self.now);
        Ok(())
    }

    fn handle_events(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
    }

    fn handle(&mut self, event: Event<D::Buf>) {
        match event {
            Event::Sent { conn, gather, from, result } => self.on_sent(conn, gather, from, result),
            Event::Received { conn, mut buf } => self.on_received(conn, &mut buf),
            Event::ReceiveEnded { conn, end } => self.on_receive_ended(conn, end),
            Event::Accepted { conn, is_second } => self.on_accepted(conn, is_second),
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
        if self.fanout.has_work()
            || self.egress.has_work()
            || self.mailbox.has_come()
            || self.acceptor.has_work()
            || self.may_resume_input()
        {
            return None;
        }
        if self.mailbox.has_waiting() {
            return Some(self.now + RETRY_NANOS);
        }
        if !self.mailbox.inbox().may_sleep() {
            return None;
        }
        let accept = match self.acceptor.accepting {
            Accepting::Retry(at) => Some(at),
            _ => None,
        };
        let paused = (self.input.has_paused() || self.pressure.level != Level::Calm) && !self.drain.is_under_way();
        let deadlines = [
            self.timers.next(),
            self.sequencer.next_expiry(),
            accept,
            self.drain_deadline(),
            self.next_message_deadline(),
            self.next_identity_deadline(),
            self.next_session_deadline(),
            self.fanout.next_deadline(),
            self.calls.next_due(),
            self.polls.next_look(),
            self.next_look_at_keys(),
            // What they wait for may come about on another shard.
            paused.then_some(self.input.retry_at),
        ];
        Some(deadlines.into_iter().flatten().min().unwrap_or(Nanos::MAX))
    }

    fn stats(&self) -> &Stats {
        &self.shared.stats[usize::from(self.id)]
    }
}

fn sequencer_limits(limits: &Limits) -> SequencerLimits {
    SequencerLimits {
        idle_timeout: nanos(limits.topic_idle_timeout),
        topics_max: limits.topics_max,
        history: HistoryLimits {
            bytes_max: limits.history_bytes_max,
            entries_max: limits.keys_max as u64,
            recovery_bytes_max: limits.recovery_bytes_max,
        },
    }
}

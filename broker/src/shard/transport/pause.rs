//! When input waits, and when it goes on.
//!
//! | a connection's input waits while | until |
//! | --- | --- |
//! | it has had its part of this turn's work | the next turn |
//! | answers to its commands are as many as `--max-outbox` allows | a send of it is over |
//! | it publishes, and its topic is congested | the topic's subscribers are near enough |
//! | it publishes or sends commands, and memory is full, or another shard's queue | there is room |
//! | an unsubscribe waits for what its subscriptions hold | that is sent |
//! | its token names a key that is being fetched | the keys are there, or are late: see [`for_keys`](crate::shard::transport::for_keys) |
//!
//! So nobody is closed for sending much, only for not reading answers: then no send gets on, and the ping's deadline
//! finds that out. What arrives meanwhile is kept with the connection, and the kernel is asked to keep what follows: at
//! once, or, for one that only waits for its next turn, once it is [`KEPT_BYTES_MAX`]. A turn tries a bounded number of
//! those that wait, in their order. Connections in their handshakes, those that have hardly said anything since, and all others
//! wait in three queues that take turns: a storm of logins delays who was here before by two of them each time, and not by all
//! that came before.
//!
//! What is kept has a bound: see [`kept_input`](crate::shard::transport::kept_input).

use std::collections::VecDeque;

use ring::{ConnId, Driver, Nanos};

use crate::capacity::budget::Held;
use crate::shard::transport::assembly::Assemblies;
use crate::shard::transport::connection::{Conn, Flags, State};
use crate::shard::transport::heaviest::LOOKED_AT;
use crate::shard::transport::ingress::InputWork;
use crate::shard::{RETRY_NANOS, Shard};

/// Bytes kept here for a connection that only waits for its next turn. One that waits for anything else is not received
/// from at all.
pub(super) const KEPT_BYTES_MAX: usize = 16 << 10;
/// Paused connections that one turn tries.
const TRIES_PER_TURN: usize = 256;
/// What an acknowledgement takes in the outbox, at most, once it comes.
const ACKNOWLEDGEMENT_BYTES: usize = 192;

/// How far a connection is: each kind has a queue of its own.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) enum Progress {
    Handshake,
    /// Open, and hardly any of its messages was taken.
    Newcomer,
    Established,
}

impl Progress {
    const COUNT: usize = 3;
}

/// Connections whose input waits, and what is kept of it.
#[derive(Default, Debug)]
pub(in crate::shard) struct Input {
    /// What this turn may still take.
    pub(in crate::shard) work: InputWork,
    /// Messages that arrive in pieces.
    pub(in crate::shard) assemblies: Assemblies,
    /// Connections whose input waits for its next part of a turn, each once, here or in `paused`, in one queue for each
    /// [`Progress`].
    yielded: [VecDeque<ConnId>; Progress::COUNT],
    /// Which of these queues is next.
    next_queue: usize,
    /// Connections whose input waits for something else.
    paused: VecDeque<ConnId>,
    /// Connections whose token waits for keys.
    pub(in crate::shard) for_keys: VecDeque<ConnId>,
    /// How many of `paused`, from the first on, may be able to go on: something changed since they were tried.
    untried: usize,
    /// Where the next search for one that holds much begins, in `waiting`.
    looked_at: usize,
    /// Whether a connection's kept input is looked at right now.
    pub(in crate::shard) resuming: bool,
    /// When all of them are tried again, because of what other shards may have changed.
    pub(in crate::shard) retry_at: Nanos,
}

impl Input {
    /// Whether a connection's input waits for something else than its next turn.
    pub(in crate::shard) fn has_paused(&self) -> bool {
        !self.paused.is_empty()
    }

    /// Connections whose input waits.
    pub(in crate::shard) fn waiting(&self) -> impl Iterator<Item = ConnId> {
        self.paused.iter().chain(self.yielded.iter().flatten()).chain(&self.for_keys).copied()
    }

    /// Whether a connection waits for its next part of a turn.
    pub(in crate::shard) fn has_yielded(&self) -> bool {
        self.yielded.iter().any(|queue| !queue.is_empty())
    }

    fn next_yielded(&mut self) -> Option<ConnId> {
        (0..Progress::COUNT).find_map(|_| {
            let queue = self.next_queue;
            self.next_queue = (queue + 1) % Progress::COUNT;
            self.yielded[queue].pop_front()
        })
    }

    /// Has a connection wait for its next part of a turn.
    pub(in crate::shard) fn yield_turn(&mut self, id: ConnId, progress: Progress) {
        self.yielded[progress as usize].push_back(id);
    }

    /// Some of them, others each time, and none that are in their handshakes: what is kept of those is little.
    pub(super) fn some_waiting(&mut self) -> impl Iterator<Item = ConnId> {
        let [_, newcomers, established] = &self.yielded;
        let queues = [&self.paused, newcomers, established, &self.for_keys];
        let all = queues.iter().map(|queue| queue.len()).sum::<usize>();
        let first = self.looked_at;
        self.looked_at = (first + LOOKED_AT) % all.max(1);
        let nth = move |mut at: usize| {
            queues.into_iter().find_map(|queue| {
                let found = queue.get(at);
                at = at.saturating_sub(queue.len());
                found.copied()
            })
        };
        (first..first + LOOKED_AT.min(all)).filter_map(move |at| nth(at % all))
    }

    /// Something that paused connections wait for may have come.
    pub(in crate::shard) fn try_all(&mut self) {
        self.untried = self.paused.len();
    }
}

/// Whether a connection's answers, those to come included, are as many as it may have.
pub(super) fn outbox_is_full(conn: &Conn, bytes_max: usize) -> bool {
    let to_come = conn.session.answers_to_come().unwrap_or(0);
    conn.outbox_len() + to_come * ACKNOWLEDGEMENT_BYTES >= bytes_max
}

/// Whether a connection's input waits for a send of it to complete, which then lists it.
fn waits_for_a_send(conn: &Conn, outbox_bytes_max: usize) -> bool {
    outbox_is_full(conn, outbox_bytes_max) && conn.flags.has(Flags::SENDING)
}

impl<D: Driver> Shard<D> {
    /// Whether every publisher has to wait.
    pub(in crate::shard) fn must_wait(&self) -> bool {
        self.mailbox.is_full() || self.memory_is_full()
    }

    /// Whether this connection's input has to wait now.
    pub(in crate::shard) fn must_pause(&mut self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.flags.has(Flags::PAUSED)) || self.must_wait_for_others(id)
    }

    /// Whether something else than its next turn has to come before this connection's input goes on.
    fn must_wait_for_others(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let (publishes, commands) = (conn.session.publisher().is_some(), conn.session.answers_to_come().is_some());
        if !publishes && !commands {
            // Its answers do not add up: see `answer_ping`.
            return false;
        }
        if self.must_wait() || self.drain.is_under_way() {
            return true;
        }
        let outbox_bytes_max = self.limits.outbox_bytes_max;
        let Some(conn) = self.conns.get(id) else { return false };
        (commands && outbox_is_full(conn, outbox_bytes_max))
            || conn.session.publisher().is_some_and(|publisher| publisher.topic().is_congested())
    }

    /// Lets the connection's input wait, `rest` first.
    pub(in crate::shard) fn pause(&mut self, id: ConnId, rest: &[u8]) {
        let conn = self.conns.get(id).expect("an open connection");
        conn.flags.set(Flags::PAUSED);
        if let Some(rate_limiter) = conn.extra.as_mut().and_then(|extra| extra.rate_limiter.as_mut()) {
            rate_limiter.waits(self.now);
        }
        self.stats().pauses.add(1);
        self.list_paused(id);
        self.keep_waiting(id, rest);
    }

    /// Input came for a connection whose input waits.
    pub(in crate::shard) fn keep_waiting(&mut self, id: ConnId, bytes: &[u8]) {
        self.keep_input(id, bytes);
        self.stop_receiving_if_much_waits(id);
        self.limit_kept_input(id);
    }

    fn stop_receiving_if_much_waits(&mut self, id: ConnId) {
        let waits = self.must_wait_for_others(id);
        let much = self.account.held(Held::Input) > self.input_share() / 2;
        let Some(conn) = self.conns.get(id) else { return };
        let kept = conn.extra.as_ref().map_or(0, |extra| extra.input.len());
        if conn.flags.has(Flags::RECEIVING) && (waits || much || kept > KEPT_BYTES_MAX) {
            self.driver.receive_stop(id);
        }
    }

    /// Has [`Shard::resume_input`] look at the connection, unless its answers are in the way: then its next completed
    /// send does.
    pub(in crate::shard) fn list_paused(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let answers = waits_for_a_send(conn, self.limits.outbox_bytes_max);
        if conn.flags.has(Flags::PAUSED) && !conn.flags.has(Flags::PAUSE_LISTED) && !answers {
            conn.flags.set(Flags::PAUSE_LISTED);
            let progress = match conn.state {
                State::Handshake => Progress::Handshake,
                State::Open if conn.flags.is_newcomer() => Progress::Newcomer,
                _ => Progress::Established,
            };
            self.input.yield_turn(id, progress);
        }
    }

    /// Goes on with those that waited, as long as there is room.
    pub(in crate::shard) fn resume_input(&mut self) {
        if self.now >= self.input.retry_at {
            self.input.retry_at = self.now + RETRY_NANOS;
            self.input.try_all();
        }
        if self.fanout.take_relieved() {
            self.input.try_all();
        }
        if self.drain.is_under_way() {
            return;
        }
        self.resume_for_keys();
        for _ in 0..self.input.untried.min(TRIES_PER_TURN) {
            if !self.input.work.is_half_left() {
                break;
            }
            let Some(id) = self.input.paused.pop_front() else { break };
            self.input.untried -= 1;
            self.resume(id);
        }
        let yielded = self.input.yielded.iter().map(VecDeque::len).sum::<usize>();
        for _ in 0..yielded.min(TRIES_PER_TURN) {
            if !self.input.work.is_left() {
                break;
            }
            let Some(id) = self.input.next_yielded() else { break };
            self.resume(id);
        }
    }

    /// Whether connections wait that may be able to go on.
    pub(in crate::shard) fn may_resume_input(&self) -> bool {
        let tries = self.input.untried > 0 || self.fanout.has_relieved();
        let waits = self.input.has_yielded() || (tries && self.input.has_paused());
        waits && !self.drain.is_under_way()
    }

    /// Goes on with one connection's kept input; meanwhile [`Shard::memory_is_full`] allows a little more.
    fn resume(&mut self, id: ConnId) {
        self.input.resuming = true;
        self.take_kept_input(id);
        self.input.resuming = false;
    }

    fn take_kept_input(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.flags.clear(Flags::PAUSE_LISTED);
        match conn.state {
            State::Open => {}
            State::Http => return self.resume_http(id),
            State::Handshake => return self.resume_handshake(id),
            _ => return,
        }
        if !self.resume_connect(id) {
            return;
        }
        let Some(conn) = self.conns.get(id) else { return };
        if conn.session.is_unsubscribing() {
            // Something still waits to be sent: `finish_unsubscribe` lists it again.
            return;
        }
        conn.flags.clear(Flags::PAUSED);
        if !self.publish_held(id) || self.must_pause(id) {
            self.wait_again(id);
            self.park(id);
            return;
        }
        let Some(conn) = self.conns.get(id) else { return };
        if let Some(rate_limiter) = conn.extra.as_mut().and_then(|extra| extra.rate_limiter.as_mut()) {
            rate_limiter.waited(self.now);
        }
        // Taken out while it is looked at; nothing else comes in meanwhile.
        let Some(mut input) = conn.extra.as_mut().map(|extra| extra.input.detach()) else {
            self.go_on_receiving(id);
            return;
        };
        input.consume(|bytes| self.take_frames(id, bytes));
        let Some(conn) = self.conns.get(id) else { return };
        if conn.state != State::Open {
            return;
        }
        if input.is_empty() {
            conn.settle();
            if !conn.flags.has(Flags::PAUSED) {
                self.go_on_receiving(id);
            }
            return;
        }
        conn.extra(&self.account).input = input;
        // It has had its part of the turn, or met something else to wait for: the next try tells.
        self.wait_again(id);
        self.list_paused(id);
    }

    /// Its input waits still.
    fn wait_again(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id) {
            conn.flags.set(Flags::PAUSED);
            if let Some(rate_limiter) = conn.extra.as_mut().and_then(|extra| extra.rate_limiter.as_mut()) {
                rate_limiter.waits(self.now);
            }
        }
    }

    /// Lists a connection whose input waits for something that only others can change.
    pub(super) fn park(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if waits_for_a_send(conn, self.limits.outbox_bytes_max) || conn.flags.has(Flags::PAUSE_LISTED) {
            return;
        }
        conn.flags.set(Flags::PAUSE_LISTED);
        self.input.paused.push_back(id);
    }

    /// All input that was kept is taken.
    pub(super) fn go_on_receiving(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.extra.as_mut().is_some_and(|extra| std::mem::take(&mut extra.ended)) {
            self.on_end_of_stream(id);
        } else if !conn.flags.has(Flags::RECEIVING) {
            conn.flags.set(Flags::RECEIVING);
            self.driver.receive(id);
        }
    }
}

//! Connections come in: from the listener, or adopted from the control plane.
//!
//! A full descriptor table is no error: accepting stops, the backlog keeps the peers, and the next
//! connection that closes makes room. WebSockets do not fill it: they leave [`reserve`](crate::access::admission::reserve)d
//! slots, so that whoever comes then is answered. Cost per connection: one receive to arm, no allocation.
//!
//! During a takeover two processes accept from one listener, and the kernel wakes one of them for a connection. One that
//! stops counts itself only once its accept has ended ([`SharedState::stopped_accepting`]), and the other then begins anew,
//! which finds everybody of whom only the first was notified.
//!
//! [`SharedState::stopped_accepting`]: crate::shard::shared::SharedState::stopped_accepting

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use ring::{AcceptEnd, ConnId, Driver, Nanos, ReceiveEnd};
use rustc_hash::FxHashMap;

use crate::access::address::AddressLease;
use crate::capacity::buffer::Buffer;
use crate::config::limits::Limits;
use crate::observe::counters::Reason;
use crate::shard::handover::{Adopt, Upgrade};
use crate::shard::transport::client_address::ClientAddresses;
use crate::shard::transport::connection::{Flags, State};
use crate::shard::transport::http_places::HttpPlaces;
use crate::shard::{RETRY_NANOS, Shard};

/// Receives that one turn arms again after they found no buffer.
const REARMED_PER_TURN: usize = 256;

/// Connections on their way in.
pub(in crate::shard) struct Acceptor {
    pub(in crate::shard) accepting: Accepting,
    pub(in crate::shard) addresses: ClientAddresses,
    /// Places of HTTP connections that stay here.
    pub(in crate::shard) http: HttpPlaces,
    /// Sockets from the control plane that the driver is adopting, by token.
    adopting: FxHashMap<u64, Adopting>,
    next_token: u64,
    /// Connections whose receive found no buffer, beyond those that this turn armed again.
    waiting_for_buffer: VecDeque<ConnId>,
    /// How many those were.
    rearmed: usize,
}

impl Acceptor {
    pub(in crate::shard) fn new(limits: &Limits) -> Self {
        Self {
            accepting: Accepting::Armed,
            addresses: ClientAddresses::new(limits),
            http: HttpPlaces::default(),
            adopting: FxHashMap::default(),
            next_token: 0,
            waiting_for_buffer: VecDeque::new(),
            rearmed: 0,
        }
    }

    /// What a socket is known by while the driver adopts it.
    pub(super) fn new_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Whether the next turn has something to do here.
    pub(in crate::shard) fn has_work(&self) -> bool {
        !self.waiting_for_buffer.is_empty()
    }

    /// Whether the driver is adopting a socket.
    pub(in crate::shard) fn is_adopting(&self) -> bool {
        !self.adopting.is_empty()
    }
}

#[derive(PartialEq, Eq, Debug)]
pub(in crate::shard) enum Accepting {
    /// The driver accepts.
    Armed,
    /// Wait for a free slot.
    Full,
    /// Wait for a deadline: the kernel refused.
    Retry(Nanos),
    /// Shutting down; the end of accepting was not reported yet.
    Stopping,
    /// Nobody is accepted any more. Counted in `SharedState::stopped_accepting`.
    Stopped,
}

/// A socket that the driver is adopting.
struct Adopting {
    upgrade: Box<Upgrade>,
    read: Buffer,
    lease: AddressLease,
}

impl<D: Driver> Shard<D> {
    pub(in crate::shard) fn on_accepted(&mut self, id: ConnId, is_second: bool) {
        self.stats().accepted.add(1);
        let conn = self.conns.insert(id);
        self.timers.set(id, conn, self.limits.handshake_timeout);
        conn.flags.set(Flags::RECEIVING);
        if is_second {
            self.begin_tls(id);
        }
        self.ask_address(id);
        self.driver.receive(id);
        self.make_slots();
    }

    pub(in crate::shard) fn on_accept_ended(&mut self, end: AcceptEnd) {
        match self.acceptor.accepting {
            Accepting::Stopping => return self.has_stopped_accepting(),
            Accepting::Stopped => return,
            _ => {}
        }
        match end {
            AcceptEnd::Stopped => self.driver.accept(),
            // Somebody may have closed since; otherwise `on_closed` goes on.
            AcceptEnd::TableFull if (self.conns.len() as u64) < u64::from(self.driver.capacity()) => {
                self.acceptor.accepting = Accepting::Retry(self.now + RETRY_NANOS);
            }
            AcceptEnd::TableFull => self.acceptor.accepting = Accepting::Full,
            // A peer that gave up while it waited, or passing want of memory: try again, without haste.
            AcceptEnd::Failed(_) => self.acceptor.accepting = Accepting::Retry(self.now + RETRY_NANOS),
        }
    }

    /// Accepts nobody any more, for good.
    pub(in crate::shard) fn stop_accepting(&mut self) {
        match self.acceptor.accepting {
            Accepting::Armed => {
                self.acceptor.accepting = Accepting::Stopping;
                self.driver.accept_stop();
            }
            Accepting::Full | Accepting::Retry(_) => self.has_stopped_accepting(),
            Accepting::Stopping | Accepting::Stopped => {}
        }
    }

    fn has_stopped_accepting(&mut self) {
        self.acceptor.accepting = Accepting::Stopped;
        self.shared.stopped_accepting.fetch_add(1, Ordering::AcqRel);
    }

    /// Looks whether somebody waits of whom the driver was not notified: another process, which has stopped, accepted from
    /// the same listener. See [`Driver::accept_stop`].
    pub(in crate::shard) fn accept_anew(&mut self) {
        if self.acceptor.accepting == Accepting::Armed {
            // Its end has it begin again.
            self.driver.accept_stop();
        }
    }

    pub(in crate::shard) fn accept_again(&mut self) {
        self.acceptor.accepting = Accepting::Armed;
        self.driver.accept();
    }

    pub(in crate::shard) fn adopt(&mut self, adopt: Adopt) {
        // The driver needs the socket; the rest waits for its answer.
        let token = self.acceptor.new_token();
        let Adopt { socket, upgrade, read, lease } = adopt;
        self.acceptor.adopting.insert(token, Adopting { upgrade, read, lease });
        self.driver.adopt(socket, token);
    }

    pub(in crate::shard) fn on_adopted(&mut self, token: u64, result: Result<ConnId, i32>) {
        if let Some(client) = self.secure.bridging.remove(&token) {
            return self.on_bridge(client, result);
        }
        let mut adopting = self.acceptor.adopting.remove(&token).expect("a token of ours");
        self.stats().adopted.add(1);
        // With the table full the driver has closed the socket: the client sees that and comes back.
        let Ok(id) = result else {
            self.stats().count_end(Reason::Adoption);
            self.stats().closed.add(1);
            self.shared.admission.leave();
            return;
        };
        let conn = self.conns.insert(id);
        conn.flags.set(Flags::RECEIVING);
        conn.flags.set(Flags::ADMITTED);
        self.attach_lease(id, &adopting.lease);
        self.driver.receive(id);
        let upgrade = Upgrade { entry: self.renew_entry(adopting.upgrade.entry), ..*adopting.upgrade };
        self.establish(id, upgrade);
        self.take_input(id, &mut adopting.read.take());
        self.look_again_at(id);
        if self.drain.is_under_way() {
            self.drain_connection(id);
        }
    }

    pub(in crate::shard) fn on_receive_ended(&mut self, id: ConnId, end: ReceiveEnd) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.flags.clear(Flags::RECEIVING);
        match (end, conn.state) {
            (_, State::Gone) => {}
            (ReceiveEnd::Failed(_), _) => self.abort(id, Reason::Reset),
            // A client may half-close behind its request; the control plane sees the same.
            (_, State::HandingOver) => self.driver.install(id),
            (ReceiveEnd::EndOfStream, State::Arriving) => conn.extra(&self.account).ended = true,
            (ReceiveEnd::EndOfStream, State::Open | State::Http | State::Handshake)
                if conn.flags.has(Flags::PAUSED) =>
            {
                conn.extra(&self.account).ended = true
            }
            (ReceiveEnd::EndOfStream, _) => self.on_end_of_stream(id),
            (_, _) if conn.flags.has(Flags::PAUSED) => {}
            (ReceiveEnd::Stopped, _) => {
                conn.flags.set(Flags::RECEIVING);
                self.driver.receive(id);
            }
            (ReceiveEnd::NoBuffers, _)
                if self.acceptor.waiting_for_buffer.is_empty() && self.acceptor.rearmed < REARMED_PER_TURN =>
            {
                self.acceptor.rearmed += 1;
                conn.flags.set(Flags::RECEIVING);
                self.driver.receive(id);
            }
            (ReceiveEnd::NoBuffers, _) => self.acceptor.waiting_for_buffer.push_back(id),
        }
    }

    /// Has some of those receive again that found no buffer, in their order. Everybody at once would find no more
    /// buffers than before, and most of them would fail again, as often as there are others.
    pub(in crate::shard) fn rearm_waiting(&mut self) {
        self.acceptor.rearmed = 0;
        while self.acceptor.rearmed < REARMED_PER_TURN {
            let Some(id) = self.acceptor.waiting_for_buffer.pop_front() else { return };
            self.acceptor.rearmed += 1;
            let Some(conn) = self.conns.get(id) else { continue };
            let unwanted = matches!(conn.state, State::HandingOver | State::Gone) || conn.flags.has(Flags::PAUSED);
            if !unwanted && !conn.flags.has(Flags::RECEIVING) {
                conn.flags.set(Flags::RECEIVING);
                self.driver.receive(id);
            }
        }
    }
}

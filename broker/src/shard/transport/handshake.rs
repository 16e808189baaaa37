//! A request head becomes a WebSocket, a refusal, or the control plane's.
//!
//! The head is parsed where it was received; it is copied only when it comes in pieces. Bytes behind it
//! are frames only once the upgrade is granted (RFC 9931). RFC 6455 §4.2.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use protocol::head::{self, Head, Refusal};
use ring::{ConnId, Driver};

use crate::access::admission;
use crate::access::keys::Credential;
use crate::access::policy::{HandshakeFacts, Kind, Policy, Publishing, RequestFacts};
use crate::access::rejection::{Rejection, readable};
use crate::capacity::budget::Held;
use crate::observe::counters::Reason;
use crate::session::Session;
use crate::session::events::EventSession;
use crate::session::raw::RawSession;
use crate::shard::Shard;
use crate::shard::entry::{Asked, Credentials, enter, enter_open};
use crate::shard::handover::{Entry, Handover, Purpose, Stream, Upgrade};
use crate::shard::transport::connection::{Flags, State};
use crate::shard::transport::deadlines::stream_interval;

/// How long the client of a stream of events is to wait before it comes back.
const RETRY_MS: RangeInclusive<u16> = 1000..=5000;

/// What has been read of a request that may always be handed over, so that probes are answered. Bytes.
const SHORT_BYTES: u64 = 2 << 10;

impl<D: Driver> Shard<D> {
    /// Bytes of a connection that has not sent a whole head yet.
    pub(in crate::shard) fn on_head_bytes(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.flags.has(Flags::PAUSED) {
            self.keep_waiting(id, bytes);
            return;
        }
        let waiting = conn.extra.as_mut().map(|extra| extra.input.take()).unwrap_or_default();
        if waiting.is_empty() {
            self.on_head(id, bytes);
            return;
        }
        let mut whole = waiting;
        whole.extend_from_slice(bytes);
        // Parsed when a line has ended, not at every byte: the work stays linear.
        if head::is_worth_parsing(whole.len(), bytes, &self.codec.head_limits) {
            self.on_head(id, &mut whole);
        } else if let Some(conn) = self.conns.get(id) {
            conn.extra(&self.account).input.extend(&whole);
        }
    }

    fn on_head(&mut self, id: ConnId, bytes: &mut [u8]) {
        let granted = match head::parse(bytes, &self.codec.head_limits) {
            Ok(Head::Partial) if self.memory_is_full() => Err(Rejection::Memory),
            Ok(Head::Partial) => {
                self.keep_input(id, bytes);
                return;
            }
            Ok(Head::Http(plain)) => {
                if plain.publish.is_some() && self.keep_http(id) {
                    self.serve_bytes(id, bytes, true);
                } else {
                    self.keep_input(id, bytes);
                    self.hand_over(id);
                }
                return;
            }
            Ok(Head::Upgrade(_) | Head::Events(_)) if !self.input.work.is_left() && !self.drain.is_under_way() => {
                return self.wait_for_a_turn(id, bytes);
            }
            Ok(Head::Upgrade(parsed)) => {
                let asked = Asked::by_handshake(&parsed, bytes);
                self.grant(id, Upgrade::from(&parsed), asked).map(|upgrade| (upgrade, parsed.head_len))
            }
            Ok(Head::Events(parsed)) => {
                let asked = Asked::for_events(&parsed, bytes);
                let granted = self.grant(id, Upgrade::from(&parsed), asked);
                granted.map_err(Rejection::of_stream).map(|upgrade| (upgrade, parsed.head_len))
            }
            Err(refusal) => Err(Rejection::Malformed(refusal)),
        };
        match granted {
            Err(rejection) if rejection.awaits_key() && !self.drain.is_under_way() => {
                self.wait_for_keys(id);
                self.keep_waiting(id, bytes);
            }
            Ok((upgrade, head_len)) => {
                self.stats().upgraded.add(1);
                self.conns.get(id).expect("a connection in its handshake").flags.set(Flags::ADMITTED);
                self.establish(id, upgrade);
                self.take_input(id, &mut bytes[head_len..]);
            }
            Err(rejection) => {
                self.keep_input(id, bytes);
                self.refuse(id, &rejection);
            }
        }
    }

    /// What is asked for, if it is admitted; then the connection counts as a WebSocket.
    fn grant(&mut self, id: ConnId, mut upgrade: Upgrade, asked: Asked<'_>) -> Result<Upgrade, Rejection> {
        self.input.work.charge_handshake();
        let credential = self.policy().credential(|| head::bearer(asked.head));
        upgrade.has_key = credential == Credential::Valid;
        upgrade.check_start(self.shared.registry.rules()).map_err(Rejection::Malformed)?;
        upgrade.entry = self.enter(&upgrade, asked)?;
        // Others have slots, perhaps; this shard's last ones are for those who ask for something else.
        let capacity = self.driver.capacity();
        let others = self.conns.len() as u64 - u64::from(self.acceptor.http.taken());
        let has_slot = others <= u64::from(capacity - admission::reserve(capacity));
        let handshake = HandshakeFacts {
            is_public: true,
            topic: self.shared.admit_purpose(&upgrade.purpose, self.limits.topics_max),
            forwarded: self.forwarded(id, asked.head),
            has_slot,
        };
        let kind = Kind::Handshake(handshake);
        let publishing = upgrade.purpose.publishing(credential);
        let facts = RequestFacts { host: asked.host, origin: asked.origin, publishing, kind };
        if let Some(lease) = self.policy().decide(facts)? {
            self.attach_lease(id, &lease);
        }
        upgrade.make_readable(asked.origin, &self.shared.authority);
        Ok(upgrade)
    }

    /// As whom the connection begins.
    fn enter(&mut self, upgrade: &Upgrade, asked: Asked<'_>) -> Result<Entry, Rejection> {
        let authority = &self.shared.authority;
        if !authority.is_on() {
            return enter_open(&upgrade.purpose);
        }
        self.check_host_and_origin(asked)?;
        let credentials = Credentials::of_asked(authority, asked);
        let now_ms = self.shared.wall_clock.millis(self.now);
        let (entry, cost) = enter(authority, credentials, (&upgrade.purpose, upgrade.start), now_ms);
        self.input.work.charge_verification(cost);
        entry
    }

    /// Nothing is verified for a page that may not use this broker, nor for a request that is not for it.
    fn check_host_and_origin(&self, asked: Asked<'_>) -> Result<(), Rejection> {
        let Asked { host, origin, .. } = asked;
        let facts = RequestFacts { host, origin, publishing: Publishing::None, kind: Kind::Change };
        self.policy().decide(facts).map(drop)
    }

    /// This turn has taken enough input: the head, or the TLS handshake before it, waits for its connection's part of the next.
    pub(super) fn wait_for_a_turn(&mut self, id: ConnId, bytes: &[u8]) {
        let conn = self.conns.get(id).expect("a connection in its handshake");
        conn.flags.set(Flags::PAUSED);
        self.list_paused(id);
        self.keep_waiting(id, bytes);
    }

    /// Looks at a head that has waited, or at a TLS handshake.
    pub(super) fn resume_handshake(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection in its handshake");
        conn.flags.clear(Flags::PAUSED);
        let mut bytes = conn.extra.as_mut().map(|extra| extra.input.take()).unwrap_or_default();
        conn.settle();
        if self.secure.is_handshaking(id) {
            self.on_ciphertext(id, &mut bytes);
        } else {
            self.on_head(id, &mut bytes);
        }
        if let Some(conn) = self.conns.get(id)
            && !conn.flags.has(Flags::PAUSED)
            && matches!(conn.state, State::Open | State::Handshake | State::Http)
        {
            self.go_on_receiving(id);
        }
    }

    pub(in crate::shard) fn policy(&self) -> Policy<'_> {
        Policy {
            limits: &self.limits,
            refused: &self.shared.refused_values,
            keys: &self.shared.publish_keys,
            addresses: &self.shared.addresses,
            admission: &self.shared.admission,
            is_draining: self.drain.is_under_way(),
            now: self.now,
        }
    }

    /// Makes a WebSocket of the connection, or a stream of events. The 101, or 200, goes out once the subscription is in force: a client
    /// that sees it open misses nothing from then on.
    pub(in crate::shard) fn establish(&mut self, id: ConnId, upgrade: Upgrade) {
        let conn = self.conns.get(id).expect("a connection in its handshake");
        conn.state = State::Open;
        // The handshake is no sign of life for the WebSocket: its first ping comes after one interval.
        conn.flags.clear(Flags::ACTIVE);
        self.timers.set(id, conn, self.limits.ping_interval);
        conn.extra(&self.account).outbox.extend(&upgrade.response());
        if upgrade.has_key || upgrade.purpose != Purpose::V1Session {
            conn.flags.set(Flags::PUBLISHER);
        }
        if let Purpose::Events(stream) = &upgrade.purpose {
            self.begin_stream(id, stream);
        }
        if let Entry::Refused(code, why) = upgrade.entry {
            self.close_with(id, code.into(), why, Reason::Access);
            return;
        }
        let session = |name: &str| Session::Raw(RawSession::publishing_to(self.shared.registry.resolve(name)));
        let conn = self.conns.get(id).expect("found above");
        match &upgrade.purpose {
            Purpose::V1Session => conn.session = Session::V1(Box::default()),
            Purpose::Publish(name) | Purpose::Bus(name) => conn.session = session(name),
            Purpose::Subscribe(_) | Purpose::Events(_) => {}
        }
        self.begin_identity(id, &upgrade.entry);
        if let Purpose::Subscribe(filter) | Purpose::Bus(filter) = &upgrade.purpose {
            self.subscribe_on_upgrade(id, filter, upgrade.start);
        }
        if let Purpose::Events(stream) = &upgrade.purpose {
            self.subscribe_stream(id, &stream.filters, upgrade.start);
        }
        self.flush(id);
    }

    /// From now on the connection speaks as a stream does.
    fn begin_stream(&mut self, id: ConnId, stream: &Stream) {
        // Drawn for each, so that they do not come back together.
        let retry_ms = RETRY_MS.start() + (self.draw(id) % RETRY_MS.clone().count() as u64) as u16;
        let session = EventSession::new(stream.form(), stream.filters.len(), stream.lost_place, retry_ms);
        let conn = self.conns.get(id).expect("a connection being established");
        conn.session = Session::Events(Box::new(session));
        conn.flags.set(Flags::STREAM);
        self.timers.set(id, conn, stream_interval(&self.limits));
        self.stats().event_streams.add(1);
    }

    /// Answers with an HTTP error and closes.
    pub(in crate::shard) fn refuse(&mut self, id: ConnId, rejection: &Rejection) {
        self.stats().count_refusal(rejection.cause());
        self.reject(id, rejection.answer(), Reason::Refused);
    }

    /// The same for a reason that is no refusal of what was asked.
    pub(in crate::shard) fn reject(&mut self, id: ConnId, answer: Refusal, reason: Reason) {
        let conn = self.conns.get(id).expect("a connection in its handshake");
        // What was read of the request is of no use any more, but for whose page sent it.
        let head = conn.extra.as_mut().map(|extra| extra.input.take()).unwrap_or_default();
        let mut response = Vec::with_capacity(256);
        readable(answer, head::page(&head), &self.limits.origins).write_to(&mut response);
        conn.extra(&self.account).outbox.extend(&response);
        self.finish(id, reason);
    }

    pub(in crate::shard) fn hand_over(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection in its handshake");
        if conn.flags.has(Flags::TLS) {
            return self.bridge(id);
        }
        conn.state = State::HandingOver;
        if conn.flags.has(Flags::RECEIVING) {
            self.driver.receive_stop(id);
        } else {
            self.driver.install(id);
        }
    }

    pub(in crate::shard) fn on_installed(&mut self, id: ConnId, result: io::Result<OwnedFd>) {
        if !self.may_hand_over(id) {
            return self.refuse(id, &Rejection::Memory);
        }
        let Some(conn) = self.conns.get(id) else { return };
        let read = conn.extra(&self.account).input.detach();
        conn.extra = None;
        let read = read.transfer(self.shared.budget.of_plane(), Held::Http);
        let flags = std::mem::take(&mut conn.flags);
        self.leave_http(id, flags);
        let lease = self.lease(id);
        let handed = result.is_ok_and(|socket| {
            let handover = Handover { socket, read, lease, is_bridged: false };
            self.shared.handovers.push(handover).is_ok()
        });
        // Closes the shard's own descriptor only: the control plane's keeps the socket open.
        self.abort(id, if handed { Reason::HandedOver } else { Reason::Handover });
    }

    /// Whether there is room for what has been read of this connection's request to wait for the control plane, besides what
    /// waits of others: as much as that has connections for, and half as much again.
    pub(super) fn may_hand_over(&mut self, id: ConnId) -> bool {
        let extra = self.conns.get(id).and_then(|conn| conn.extra.as_ref());
        let bytes = extra.map_or(0, |extra| extra.input.charged());
        let budget = &self.shared.budget;
        let share = budget.share(Held::Http);
        bytes <= SHORT_BYTES || budget.held(Held::Http).saturating_add(bytes) <= share + share / 2
    }

    /// Keeps bytes for later, after those that wait already.
    pub(in crate::shard) fn keep_input(&mut self, id: ConnId, bytes: &[u8]) {
        if !bytes.is_empty()
            && let Some(conn) = self.conns.get(id)
        {
            conn.extra(&self.account).input.extend(bytes);
        }
    }
}

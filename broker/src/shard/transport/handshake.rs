//! A request head becomes a WebSocket, a refusal, or the control plane's.
//!
//! The head is parsed where it was received; it is copied only when it comes in pieces. Bytes behind it
//! are frames only once the upgrade is granted (RFC 9931). RFC 6455 §4.2.

use std::io;
use std::os::fd::OwnedFd;

use protocol::head::{self, Endpoint, Head, Refusal, Upgrade};
use protocol::topic;
use ring::{ConnId, Driver};

use crate::access::{admission, host, origin};
use crate::capacity::budget::Held;
use crate::config::limits::Limits;
use crate::observe::counters::{Reason, Refused};
use crate::session::Session;
use crate::session::raw::RawSession;
use crate::shard::Shard;
use crate::shard::shared::{Handover, Purpose, SharedState};
use crate::shard::transport::connection::{Flags, State};

/// When whoever found no room for a topic may try again: topics are forgotten slowly.
const TOPICS_RETRY_S: u32 = 10;

/// When a client that found memory short may try again: connections that hold much of it are closed within a second.
const MEMORY_RETRY_S: u32 = 2;

impl<D: Driver> Shard<D> {
    /// Bytes of a connection that has not sent a whole head yet.
    pub(in crate::shard) fn on_head_bytes(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
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
            Ok(Head::Partial) if self.memory_is_full() => Err((short_of_memory(), Refused::Memory)),
            Ok(Head::Partial) => {
                self.keep_input(id, bytes);
                return;
            }
            Ok(Head::Http(_)) => {
                self.keep_input(id, bytes);
                self.hand_over(id);
                return;
            }
            Ok(Head::Upgrade(upgrade)) => self.grant(id, &upgrade, bytes).map(|purpose| {
                let mut response = Vec::with_capacity(192);
                head::write_switching_protocols(&mut response, &upgrade.accept, upgrade.subprotocol);
                (purpose, response, upgrade.head_len)
            }),
            Err(refusal) => Err((refusal, Refused::Request)),
        };
        match granted {
            Ok((purpose, response, head_len)) => {
                self.stats().upgraded.add(1);
                self.conns.get(id).expect("a connection in its handshake").flags.set(Flags::ADMITTED);
                self.establish(id, purpose, Some(response));
                self.take_input(id, &mut bytes[head_len..]);
            }
            Err((refusal, cause)) => {
                self.keep_input(id, bytes);
                self.refuse(id, &refusal, cause);
            }
        }
    }

    /// What the upgrade asks for, unless access is refused. Granted, the connection counts as admitted.
    fn grant(&mut self, id: ConnId, upgrade: &Upgrade<'_>, head: &[u8]) -> Result<Purpose, (Refusal, Refused)> {
        if self.drain.has_begun() {
            return Err((self.shared.admission.draining(), Refused::Draining));
        }
        if !host::allowed(upgrade.host, &self.limits.hosts) {
            return Err((Refusal::new(421, host::refusal(upgrade.host)), Refused::Host));
        }
        if !origin::allowed(upgrade.origin, upgrade.host, &self.limits.origins) {
            return Err((Refusal::new(403, "this Origin may not connect; see --allow-origin"), Refused::Origin));
        }
        let purpose = match &upgrade.endpoint {
            Endpoint::Subscribe(filter) => Purpose::Subscribe(filter.clone().into_owned()),
            Endpoint::Publish(name) => Purpose::Publish(publishable(name)?),
            Endpoint::Bus(name) => Purpose::Bus(publishable(name)?),
            Endpoint::Multi => Purpose::V1Session,
        };
        admit(&self.shared, &self.limits, &upgrade.endpoint)?;
        self.count_forwarded(id, &head[..upgrade.head_len])?;
        // Others have room, perhaps; this shard's last slots are for those who ask for something else.
        let capacity = self.driver.capacity();
        if self.conns.len() as u64 > u64::from(capacity - admission::reserve(capacity)) {
            return Err((self.shared.admission.full(), Refused::Connections));
        }
        self.shared.admission.enter(self.now)?;
        Ok(purpose)
    }

    /// Makes a WebSocket of the connection. `response` is the 101, unless the peer has it already. It goes
    /// out once the subscription is in force: whoever sees the WebSocket open misses nothing from then on.
    pub(in crate::shard) fn establish(&mut self, id: ConnId, purpose: Purpose, response: Option<Vec<u8>>) {
        let conn = self.conns.get(id).expect("a connection in its handshake");
        conn.state = State::Open;
        // The handshake is no sign of life for the WebSocket: its first ping comes after one interval.
        conn.flags.clear(Flags::ACTIVE);
        self.timers.set(id, conn, self.limits.ping_interval);
        if let Some(response) = response {
            conn.extra(&self.account).outbox.extend(&response);
        }
        let session = |name: &str| Session::Raw(RawSession::publishing_to(self.shared.registry.resolve(name)));
        match &purpose {
            Purpose::V1Session => conn.session = Session::V1(Box::default()),
            Purpose::Publish(name) | Purpose::Bus(name) => conn.session = session(name),
            Purpose::Subscribe(_) => {}
        }
        if let Purpose::Subscribe(filter) | Purpose::Bus(filter) = &purpose {
            self.subscribe_on_upgrade(id, filter);
        }
        self.flush(id);
    }

    /// Answers with an HTTP error and closes.
    pub(in crate::shard) fn refuse(&mut self, id: ConnId, refusal: &Refusal, cause: Refused) {
        self.stats().count_refusal(cause);
        self.reject(id, refusal, Reason::Refused);
    }

    /// The same for a reason that is no refusal of what was asked.
    pub(in crate::shard) fn reject(&mut self, id: ConnId, refusal: &Refusal, reason: Reason) {
        let conn = self.conns.get(id).expect("a connection in its handshake");
        // What was read of the request is of no use any more, but for whose page sent it.
        let head = conn.extra.as_mut().map(|extra| extra.input.take()).unwrap_or_default();
        let mut response = Vec::with_capacity(256);
        readable(refusal, &head, &self.limits).write_to(&mut response);
        conn.extra(&self.account).outbox.extend(&response);
        self.finish(id, reason);
    }

    fn hand_over(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection in its handshake");
        conn.state = State::HandingOver;
        if conn.flags.has(Flags::RECEIVING) {
            self.driver.receive_stop(id);
        } else {
            self.driver.install(id);
        }
    }

    pub(in crate::shard) fn on_installed(&mut self, id: ConnId, result: io::Result<OwnedFd>) {
        let Some(conn) = self.conns.get(id) else { return };
        let read = conn.extra(&self.account).input.detach();
        conn.extra = None;
        let read = read.transfer(self.shared.budget.of_plane(), Held::Http);
        let lease = self.lease(id);
        let handed = result.is_ok_and(|socket| self.shared.handovers.push(Handover { socket, read, lease }).is_ok());
        // Closes the shard's own descriptor only: the control plane's keeps the socket open.
        self.abort(id, if handed { Reason::HandedOver } else { Reason::Handover });
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

/// The refusal of the request whose head this is, for the page that sent it to read, if that is of an allowed origin:
/// a browser shows a page nothing else of an answer from elsewhere, neither status nor `Retry-After`.
pub(crate) fn readable(refusal: &Refusal, head: &[u8], limits: &Limits) -> Refusal {
    let page = head::page(head).filter(|page| origin::allowed(Some(page.origin), page.host, &limits.origins));
    match page {
        Some(page) => refusal.clone().readable_for(page.origin),
        None => refusal.clone(),
    }
}

/// A head that is not complete would have to be kept.
fn short_of_memory() -> Refusal {
    Refusal::new(503, "the broker is short of memory; see --max-memory").retry_after(MEMORY_RETRY_S)
}

/// A topic that clients may publish to.
fn publishable(name: &str) -> Result<String, (Refusal, Refused)> {
    if topic::is_reserved(name) {
        return Err((Refusal::new(403, "topics that begin with '$' are the broker's own"), Refused::Request));
    }
    Ok(name.to_owned())
}

/// Whether there is room for the topic that an upgrade names.
///
/// # Errors
/// The 503 for the client, and its cause.
pub(crate) fn admit(shared: &SharedState, limits: &Limits, endpoint: &Endpoint<'_>) -> Result<(), (Refusal, Refused)> {
    match endpoint {
        Endpoint::Subscribe(name) | Endpoint::Publish(name) | Endpoint::Bus(name) => {
            match shared.admit_name(name, limits.topics_max) {
                Ok(_) => Ok(()),
                Err(full) => {
                    let refusal = Refusal::new(503, full.as_str());
                    Err((refusal.retry_after(TOPICS_RETRY_S), Refused::Topics))
                }
            }
        }
        _ => Ok(()),
    }
}

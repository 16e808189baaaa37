//! A request head becomes a WebSocket, a refusal, or the control plane's.
//!
//! The head is parsed where it was received; it is copied only when it comes in pieces. Bytes behind it
//! are frames only once the upgrade is granted (RFC 9931). RFC 6455 §4.2.

use std::io;
use std::os::fd::OwnedFd;

use protocol::head::{self, Endpoint, Head, Refusal, Upgrade};
use protocol::topic;
use ring::{ConnId, Driver};

use super::conn::{Flags, State};
use super::link::{Handover, Links, Purpose};
use super::stats::{Reason, Refused};
use super::{Shard, admission};
use crate::limits::Limits;
use crate::{host, origin};

/// When whoever found no room for a topic may try again: topics are forgotten slowly.
const TOPICS_RETRY_S: u32 = 10;

impl<D: Driver> Shard<D> {
    /// Bytes of a connection that has not sent a whole head yet.
    pub(super) fn on_head_bytes(&mut self, id: ConnId, bytes: &mut [u8]) {
        let Some(conn) = self.conns.get(id) else { return };
        let waiting = conn.extra.as_mut().map(|extra| extra.input.take()).unwrap_or_default();
        if waiting.is_empty() {
            self.on_head(id, bytes);
        } else {
            let mut whole = waiting;
            whole.extend_from_slice(bytes);
            self.on_head(id, &mut whole);
        }
    }

    fn on_head(&mut self, id: ConnId, bytes: &mut [u8]) {
        let granted = match head::parse(bytes, &self.head_limits) {
            Ok(Head::Partial) => {
                self.keep_input(id, bytes);
                return;
            }
            Ok(Head::Http) => {
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
            Err((refusal, cause)) => self.refuse(id, &refusal, cause),
        }
    }

    /// What the upgrade asks for, unless a door is locked. Granted, it counts as let in.
    fn grant(&mut self, id: ConnId, upgrade: &Upgrade<'_>, head: &[u8]) -> Result<Purpose, (Refusal, Refused)> {
        if self.drain.has_begun() {
            return Err((self.links.admission.draining(), Refused::Draining));
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
            Endpoint::Multi => Purpose::Multi,
        };
        admit(&self.links, &self.limits, &upgrade.endpoint)?;
        self.count_forwarded(id, &head[..upgrade.head_len])?;
        // Others have room, perhaps; this shard's last slots are for those who ask for something else.
        let capacity = self.driver.capacity();
        if self.conns.len() as u64 > u64::from(capacity - admission::reserve(capacity)) {
            return Err((self.links.admission.full(), Refused::Connections));
        }
        self.links.admission.enter(self.now)?;
        Ok(purpose)
    }

    /// Makes a WebSocket of the connection. `response` is the 101, unless the peer has it already. It goes
    /// out once the subscription is in force: whoever sees the WebSocket open misses nothing from then on.
    pub(super) fn establish(&mut self, id: ConnId, purpose: Purpose, response: Option<Vec<u8>>) {
        let conn = self.conns.get(id).expect("a connection in its handshake");
        conn.state = State::Open;
        // The handshake is no sign of life for the WebSocket: its first ping comes after one interval.
        conn.flags.clear(Flags::ACTIVE);
        self.timers.set(id, conn, self.limits.ping_interval);
        if let Some(response) = response {
            conn.extra(&self.account).outbox.extend(&response);
        }
        match purpose {
            Purpose::Multi => conn.multi = Some(Box::default()),
            Purpose::Publish(name) => {
                conn.flags.set(Flags::PUBLISHES);
                conn.publish = Some(self.links.registry.resolve(&name));
            }
            Purpose::Bus(name) => {
                conn.flags.set(Flags::PUBLISHES);
                conn.publish = Some(self.links.registry.resolve(&name));
                self.subscribe_raw(id, &name);
            }
            Purpose::Subscribe(filter) => self.subscribe_raw(id, &filter),
        }
        self.flush(id);
    }

    /// Answers with an HTTP error and closes.
    pub(super) fn refuse(&mut self, id: ConnId, refusal: &Refusal, cause: Refused) {
        self.stats().count_refusal(cause);
        self.say_no(id, refusal, Reason::Refused);
    }

    /// The same for a reason that is no refusal of what was asked.
    pub(super) fn say_no(&mut self, id: ConnId, refusal: &Refusal, reason: Reason) {
        let mut response = Vec::with_capacity(256);
        refusal.write_to(&mut response);
        let conn = self.conns.get(id).expect("a connection in its handshake");
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

    pub(super) fn on_installed(&mut self, id: ConnId, result: io::Result<OwnedFd>) {
        let Some(conn) = self.conns.get(id) else { return };
        let read = conn.extra.take().map(|mut extra| extra.input.take().into()).unwrap_or_default();
        let guest = self.guest(id);
        let handed = result.is_ok_and(|socket| self.links.handovers.push(Handover { socket, read, guest }).is_ok());
        // Closes the shard's own descriptor only: the control plane's keeps the socket open.
        self.abort(id, if handed { Reason::HandedOver } else { Reason::Handover });
    }

    /// Keeps bytes for later, after those that wait already.
    pub(super) fn keep_input(&mut self, id: ConnId, bytes: &[u8]) {
        if !bytes.is_empty()
            && let Some(conn) = self.conns.get(id)
        {
            conn.extra(&self.account).input.extend(bytes);
        }
    }
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
pub(crate) fn admit(links: &Links, limits: &Limits, endpoint: &Endpoint<'_>) -> Result<(), (Refusal, Refused)> {
    match endpoint {
        Endpoint::Subscribe(name) | Endpoint::Publish(name) | Endpoint::Bus(name)
            if !links.registry.admits(name, limits.topics_max) =>
        {
            let refusal = Refusal::new(503, "the broker has as many topics as --max-topics allows");
            Err((refusal.retry_after(TOPICS_RETRY_S), Refused::Topics))
        }
        _ => Ok(()),
    }
}

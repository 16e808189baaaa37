//! A TLS connection that asked for something of the control plane: the shard keeps it, and carries plaintext between it and
//! a pair of Unix sockets whose other end the control plane serves like any socket that it was handed.
//!
//! A bridge has two ends, both in [`State::Bridged`]: the client's, and the inner one, which is no client and counts as
//! none. What one receives goes to the outbox of the other. An end whose partner has [`BRIDGE_BYTES_MAX`] to send is not
//! received from until that is sent. The end of a stream is passed on behind what came before it; when both directions have
//! ended, so has the bridge. Whose client it is goes with the bridge ([`AddressLease`]): the control plane cannot ask a Unix socket
//! for it. A WebSocket handshake that the control plane admits there goes to a shard with the Unix socket.
//!
//! The control plane keeps the time of requests and answers; here only a client that does not close behind the last byte has a
//! deadline.

use std::os::unix::net::UnixStream;

use ring::{ConnId, Driver};

#[cfg(doc)]
use crate::access::address::AddressLease;
use crate::access::rejection::Rejection;
use crate::capacity::budget::Held;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::handover::Handover;
use crate::shard::transport::connection::{Flags, State};

/// Bytes that wait at one end before the other is not received from, in bytes.
const BRIDGE_BYTES_MAX: usize = 64 << 10;

impl<D: Driver> Shard<D> {
    /// Bridges a TLS connection to the control plane, with what was read of its request.
    pub(super) fn bridge(&mut self, id: ConnId) {
        if !self.may_hand_over(id) {
            return self.refuse(id, &Rejection::Memory);
        }
        self.decide(id, Reason::HandedOver);
        let Ok((ours, theirs)) = UnixStream::pair() else { return self.abort(id, Reason::Handover) };
        let conn = self.conns.get(id).expect("a connection with a request");
        let read = conn.extra(&self.account).input.detach().transfer(self.shared.budget.of_plane(), Held::Http);
        conn.state = State::Bridged;
        conn.flags.set(Flags::PAUSED);
        if conn.flags.has(Flags::RECEIVING) {
            self.driver.receive_stop(id);
        }
        let flags = conn.flags;
        conn.flags.clear(Flags::HTTP);
        if conn.extra.as_mut().is_some_and(|extra| std::mem::take(&mut extra.ended)) {
            conn.flags.set(Flags::PEER_CLOSED);
        }
        self.leave_http(id, flags);
        let lease = self.lease(id);
        let handover = Handover { socket: theirs.into(), read, lease, is_bridged: true };
        if self.shared.handovers.push(handover).is_err() {
            return self.abort(id, Reason::Handover);
        }
        let token = self.acceptor.new_token();
        self.secure.bridging.insert(token, id);
        self.driver.adopt(ours.into(), token);
    }

    /// The inner end is there, or the driver has no room for it.
    pub(super) fn on_bridge(&mut self, client: ConnId, result: Result<ConnId, i32>) {
        let lives = self.conns.get(client).is_some_and(|conn| conn.state == State::Bridged);
        let Ok(inner) = result else { return self.abort(client, Reason::Handover) };
        let conn = self.conns.insert(inner);
        conn.state = State::Bridged;
        // It is no client's, so nobody counts its end.
        conn.reason = Some(Reason::HandedOver);
        self.secure.inner.insert(inner);
        if !lives {
            return self.abort(inner, Reason::HandedOver);
        }
        conn.flags.set(Flags::RECEIVING);
        self.driver.receive(inner);
        self.secure.ends.insert(client, inner);
        self.secure.ends.insert(inner, client);
        let kept = self.conns.get(client).and_then(|conn| conn.extra.as_mut()).map(|extra| extra.input.take());
        if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
            self.on_bridged_bytes(client, &kept);
        }
        self.make_ready(inner);
        self.resume_partner(inner);
    }

    /// One end received something: it goes to the other.
    pub(super) fn on_bridged_bytes(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(&partner) = self.secure.ends.get(&id) else { return self.keep_input(id, bytes) };
        let Some(other) = self.conns.get(partner).filter(|other| other.state == State::Bridged) else { return };
        other.extra(&self.account).outbox.extend(bytes);
        let is_full = other.outbox_len() >= BRIDGE_BYTES_MAX;
        self.make_ready(partner);
        if let Some(conn) = self.conns.get(id).filter(|conn| is_full && !conn.flags.has(Flags::PAUSED)) {
            conn.flags.set(Flags::PAUSED);
            if conn.flags.has(Flags::RECEIVING) {
                self.driver.receive_stop(id);
            }
        }
    }

    /// This end has sent something: the other may be received from again.
    pub(super) fn resume_partner(&mut self, id: ConnId) {
        let is_low = self.conns.get(id).is_some_and(|conn| conn.outbox_len() < BRIDGE_BYTES_MAX / 2);
        let Some(&partner) = self.secure.ends.get(&id).filter(|_| is_low) else { return };
        let Some(other) = self.conns.get(partner).filter(|other| other.state == State::Bridged) else { return };
        if other.flags.take(Flags::PAUSED) && !other.flags.has(Flags::RECEIVING) && !other.flags.has(Flags::PEER_CLOSED)
        {
            other.flags.set(Flags::RECEIVING);
            self.driver.receive(partner);
        }
    }

    /// Nothing more comes from this end.
    pub(super) fn on_bridged_end(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id) {
            conn.flags.set(Flags::PEER_CLOSED);
        }
        if let Some(&partner) = self.secure.ends.get(&id) {
            self.make_ready(partner);
            self.end_bridge_if_over(id, partner);
        }
    }

    /// Everything was sent that this end has: if nothing more comes from the other, that is passed on.
    pub(super) fn on_bridged_idle(&mut self, id: ConnId) {
        let Some(&partner) = self.secure.ends.get(&id) else { return };
        if !self.conns.get(partner).is_none_or(|other| other.flags.has(Flags::PEER_CLOSED)) || self.say_end(id) {
            return;
        }
        let conn = self.conns.get(id).expect("an end of a bridge");
        if !conn.flags.has(Flags::SHUT) {
            conn.flags.set(Flags::SHUT);
            self.timers.set(id, conn, self.limits.close_timeout);
            self.driver.shutdown(id);
        }
        self.end_bridge_if_over(id, partner);
    }

    fn end_bridge_if_over(&mut self, one: ConnId, other: ConnId) {
        let mut is_over = |id| {
            let ended = |flags: Flags| flags.has(Flags::SHUT) && flags.has(Flags::PEER_CLOSED);
            self.conns.get(id).is_none_or(|conn| ended(conn.flags))
        };
        if is_over(one) && is_over(other) {
            self.abort(one, Reason::HandedOver);
            self.abort(other, Reason::HandedOver);
        }
    }

    /// A client that knows that nothing more comes has not closed in time. An inner end waits for the control plane.
    pub(super) fn on_bridged_deadline(&mut self, id: ConnId) {
        let is_late = self.conns.get(id).is_some_and(|conn| conn.flags.has(Flags::SHUT));
        if is_late && !self.secure.inner.contains(&id) {
            self.abort(id, Reason::HandedOver);
        }
    }

    /// One end is gone: the other is sent what there is, and goes too. Returns whether it was a client's, or no end of a
    /// bridge at all.
    pub(super) fn leave_bridge(&mut self, id: ConnId) -> bool {
        if let Some(partner) = self.secure.ends.remove(&id) {
            self.secure.ends.remove(&partner);
            if self.conns.get(partner).is_some_and(|other| other.state == State::Bridged) {
                self.finish(partner, Reason::HandedOver);
            }
        }
        !self.secure.inner.remove(&id)
    }
}

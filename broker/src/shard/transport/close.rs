//! The ways a connection ends. Each is counted once, by the first [`Reason`] that is decided for it.
//!
//! In order: subscriptions end at once; the last bytes (a close frame, a refusal) go out behind the send
//! in flight; the sending direction is shut down; what still comes in is discarded until the peer's end of
//! stream, so that no reset overtakes our last bytes; then the driver's join. A deadline bounds all of it.
//! RFC 6455 §7.1.

use ring::{ConnId, Driver};

use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::transport::accept::Accepting;
use crate::shard::transport::connection::{Flags, State};

impl<D: Driver> Shard<D> {
    /// Ends a WebSocket with a close frame that says `why`, or a stream of events as its session does.
    pub(in crate::shard) fn close_with(&mut self, id: ConnId, code: u16, why: &str, reason: Reason) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.state != State::Open {
            return;
        }
        let (session, outbox) = conn.session_and_outbox(&self.account);
        outbox.edit(|outbox| session.put_end(code, why, outbox));
        // Before its session learns that it is gone: whether a will is published depends on it.
        self.decide(id, reason);
        self.unsubscribe_all(id);
        self.finish(id, reason);
    }

    /// Sends what the outbox holds as the connection's last bytes.
    pub(in crate::shard) fn finish(&mut self, id: ConnId, reason: Reason) {
        self.decide(id, reason);
        let conn = self.conns.get(id).expect("an open connection");
        conn.state = State::Closing;
        conn.flags.clear(Flags::PAUSED);
        self.forget_assembly(id);
        let conn = self.conns.get(id).expect("an open connection");
        self.timers.set(id, conn, self.limits.close_timeout);
        if !conn.flags.has(Flags::RECEIVING) {
            // The peer's end of stream is still to be seen.
            conn.flags.set(Flags::RECEIVING);
            self.driver.receive(id);
        }
        self.make_ready(id);
    }

    /// Why the connection ends, unless that was decided before.
    pub(super) fn decide(&mut self, id: ConnId, reason: Reason) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.reason.is_none() {
            conn.reason = Some(reason);
            self.stats().count_end(reason);
            if self.traces.are_on() {
                self.traces.ended(id, self.now, reason);
            }
        }
    }

    /// The last bytes were sent.
    pub(in crate::shard) fn shut(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a closing connection");
        if conn.flags.has(Flags::TLS) && self.say_end(id) {
            return;
        }
        let conn = self.conns.get(id).expect("a closing connection");
        // Who has closed as well sends nothing more that a reset could overtake.
        if conn.flags.has(Flags::PEER_CLOSED) || conn.extra.as_ref().is_some_and(|extra| extra.ended) {
            self.abort(id, Reason::ByClient);
        } else if !conn.flags.has(Flags::SHUT) {
            conn.flags.set(Flags::SHUT);
            self.driver.shutdown(id);
        }
    }

    pub(in crate::shard) fn on_end_of_stream(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection that received");
        match conn.state {
            State::Http => self.on_http_end(id),
            State::Bridged => self.on_bridged_end(id),
            State::Closing if !conn.flags.has(Flags::SHUT) => conn.extra(&self.account).ended = true,
            _ => self.abort(id, Reason::ByClient),
        }
    }

    /// Ends a connection without another word: hands it to the driver's join.
    pub(in crate::shard) fn abort(&mut self, id: ConnId, reason: Reason) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.state == State::Gone {
            return;
        }
        self.decide(id, reason);
        self.egress.timed.retain(|timed| timed.conn != id);
        self.unsubscribe_all(id);
        self.forget_assembly(id);
        let conn = self.conns.get(id).expect("found above");
        conn.state = State::Gone;
        self.driver.close(id);
    }

    pub(in crate::shard) fn on_closed(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(id) else { return };
        if self.leave_bridge(id) {
            self.stats().closed.add(1);
        }
        self.forget_tls(id);
        self.peer_questions.on_peer(id, None);
        self.identities.forget(id);
        self.leave_http(id, conn.flags);
        self.forget_address(id);
        if conn.flags.has(Flags::ADMITTED) {
            self.shared.admission.leave();
        }
        if conn.flags.has(Flags::STREAM) {
            self.stats().event_streams.sub(1);
        }
        if self.acceptor.accepting == Accepting::Full {
            self.accept_again();
        }
    }

    /// A message that was arriving in pieces will not be completed.
    fn forget_assembly(&mut self, id: ConnId) {
        let Some(extra) = self.conns.get(id).and_then(|conn| conn.extra.as_mut()) else { return };
        extra.decoder = None;
        extra.input.take();
        if let Some(assembly) = extra.assembly.take() {
            self.input.assemblies.end(id, &assembly);
        }
    }
}

//! What is done when time has passed: deadlines, pings, forgotten topics, accepting again.
//!
//! One deadline per connection. In its handshake: the head must be complete. Open: after
//! `ping_interval` without input a ping goes out, and after another `ping_timeout` without input the
//! connection is gone. Closing: the close must be complete. RFC 6455 §5.5.2.

use protocol::head::Refusal;
use ring::{ConnId, Driver};

use super::conn::{Flags, State};
use super::stats::Reason;
use super::{Accepting, Shard};

impl<D: Driver> Shard<D> {
    pub(super) fn keep_up(&mut self) {
        let mut due = Vec::new();
        self.timers.due(&mut due);
        for (id, entry) in due {
            if let Some(conn) = self.conns.get(id)
                && self.timers.fire(id, conn, entry)
            {
                self.on_deadline(id);
            }
        }
        self.home.expire(self.now, &self.links.registry);
        if let Accepting::Retry(at) = self.accepting
            && at <= self.now
        {
            self.accept_again();
        }
    }

    fn on_deadline(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection with a deadline");
        match conn.state {
            State::Arriving | State::Proxied | State::Handshake => {
                let refusal = Refusal::new(408, "no complete request head in time; see --handshake-timeout");
                self.say_no(id, &refusal, Reason::HandshakeTimeout);
            }
            State::Open => self.on_ping_deadline(id),
            State::HandingOver => self.abort(id, Reason::Handover),
            // Its reason was decided when it began to close.
            State::Closing => self.abort(id, Reason::Reset),
            State::Gone => {}
        }
    }

    fn on_ping_deadline(&mut self, id: ConnId) {
        let (interval, timeout) = (self.limits.ping_interval, self.limits.ping_timeout);
        let conn = self.conns.get(id).expect("a connection with a deadline");
        let stalled = conn.flags.has(Flags::SENDING) && conn.flags.has(Flags::STALLED);
        let active = conn.flags.take(Flags::ACTIVE) || conn.flags.has(Flags::PAUSED);
        let pinged = conn.flags.take(Flags::PINGED);
        if stalled {
            // Its socket took nothing for a whole interval: a close frame would not arrive either.
            self.abort(id, Reason::Slow);
            return;
        }
        // A ping that waits behind the send in flight was not asked yet: there, only progress counts.
        if pinged && !active && !conn.flags.has(Flags::PING_DUE) {
            self.abort(id, Reason::PingTimeout);
            return;
        }
        if conn.flags.has(Flags::SENDING) {
            conn.flags.set(Flags::STALLED);
        }
        if active {
            let next = if pinged { interval.saturating_sub(timeout) } else { interval };
            self.timers.set(id, conn, next);
            return;
        }
        conn.flags.set(Flags::PINGED);
        self.timers.set(id, conn, timeout);
        if conn.flags.has(Flags::SENDING) || conn.flags.has(Flags::HELD) {
            conn.flags.set(Flags::PING_DUE);
        } else {
            let ping = self.ping.clone();
            self.send(id, ping);
        }
    }
}

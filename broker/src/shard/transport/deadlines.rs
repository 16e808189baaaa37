//! What is done when time has passed: deadlines, pings, forgotten topics, accepting again.
//!
//! One deadline per connection. In its handshake: the head must be complete. Open: after
//! `ping_interval` without input a ping goes out, and after another `ping_timeout` without input the
//! connection is gone. Closing: the close must be complete, or the peer must have acknowledged something since the last
//! look. RFC 6455 §5.5.2.
//!
//! Progress of a send is what the socket took: the driver tells when asked ([`Driver::send_progress`]), for a send of
//! some hundred kilobytes to a slow peer is not over for long.

use std::time::Duration;

use ring::{ConnId, Driver, nanos};

use crate::access::rejection::Rejection;
use crate::config::limits::Limits;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::transport::accept::Accepting;
use crate::shard::transport::connection::{Flags, State};

/// After so long a time in which a stream of events was sent nothing it is sent a comment: servers in between give up connections
/// that nothing comes over.
const COMMENT_INTERVAL: Duration = Duration::from_secs(20);

/// The same, unless connections are to be pinged more often.
pub(super) fn stream_interval(limits: &Limits) -> Duration {
    COMMENT_INTERVAL.min(limits.ping_interval)
}

impl<D: Driver> Shard<D> {
    pub(in crate::shard) fn expire(&mut self) {
        let mut due = Vec::new();
        self.timers.due(&mut due);
        for (id, entry) in due {
            if let Some(conn) = self.conns.get(id)
                && self.timers.fire(id, conn, entry)
            {
                self.on_deadline(id);
            }
        }
        self.sequencer.expire(self.now, &self.shared.registry);
        self.expire_messages();
        self.give_up_some();
        if let Accepting::Retry(at) = self.acceptor.accepting
            && at <= self.now
        {
            self.accept_again();
        }
    }

    fn on_deadline(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection with a deadline");
        match conn.state {
            State::Arriving | State::Proxied | State::Handshake => {
                self.reject(id, Rejection::HeadTimeout.answer(), Reason::HandshakeTimeout);
            }
            State::Http => self.on_http_deadline(id),
            State::Open if conn.flags.has(Flags::STREAM) => self.on_stream_deadline(id),
            State::Open => self.on_ping_deadline(id),
            State::HandingOver => self.abort(id, Reason::Handover),
            State::Bridged => self.on_bridged_deadline(id),
            State::Closing => self.on_close_deadline(id),
            State::Gone => {}
        }
    }

    /// Pings come every `ping_interval` while nothing else comes in. One that nothing comes after for `ping_timeout`
    /// ends the connection; so does a send that does not get on for that long.
    fn on_ping_deadline(&mut self, id: ConnId) {
        let (interval, timeout) = (self.limits.ping_interval, self.limits.ping_timeout);
        let conn = self.conns.get(id).expect("a connection with a deadline");
        if conn.flags.has(Flags::SENDING) && conn.send_age(self.now) >= nanos(timeout) {
            self.ask_progress(id);
        }
        let conn = self.conns.get(id).expect("found above");
        let step = interval.min(timeout);
        let active = conn.flags.take(Flags::ACTIVE) || conn.flags.has(Flags::PAUSED);
        // A ping that waits behind the send in flight was not asked yet: there, only progress counts.
        let waiting = if conn.flags.has(Flags::PING_DUE) { 0 } else { conn.flags.unanswered() };
        if active || waiting == 0 {
            let pinged = conn.flags.unanswered() > 0;
            conn.flags.set_unanswered(0);
            if active && (!pinged || interval > timeout) {
                // One that was pinged is looked at again when the next ping is due.
                let next = if pinged { interval - timeout } else { interval };
                self.timers.set(id, conn, next);
                return;
            }
            self.ping(id, step);
        } else if step * waiting >= timeout {
            self.abort(id, Reason::PingTimeout);
        } else {
            conn.flags.set_unanswered(waiting + 1);
            self.timers.set(id, conn, step.min(timeout - step * waiting));
        }
    }

    /// A stream of events has no answers: what its peer acknowledges tells whether it is there. After an interval in which
    /// nothing was sent it is sent a comment, if it has acknowledged everything before.
    fn on_stream_deadline(&mut self, id: ConnId) {
        let (interval, timeout) = (stream_interval(&self.limits), self.limits.ping_timeout);
        let conn = self.conns.get(id).expect("a connection with a deadline");
        let (age, interval_ns) = (conn.send_age(self.now), nanos(interval));
        if conn.flags.has(Flags::SENDING) {
            self.timers.set(id, conn, interval.min(timeout));
            if age >= nanos(timeout) {
                self.ask_progress(id);
            }
        } else if age < interval_ns {
            self.timers.set(id, conn, Duration::from_nanos(interval_ns - age));
        } else {
            self.timers.set(id, conn, interval);
            if !conn.flags.has(Flags::HELD) {
                self.driver.unsent(id);
            }
        }
    }

    /// How much a stream of events that was sent nothing for an interval has not acknowledged.
    fn on_stream_unsent(&mut self, id: ConnId, unsent: usize) {
        let (interval, timeout) = (nanos(stream_interval(&self.limits)), nanos(self.limits.ping_timeout));
        let conn = self.conns.get(id).expect("a connection that was asked about");
        let age = conn.send_age(self.now);
        if age < interval {
            return; // It was sent something since.
        }
        if unsent == 0 {
            self.send_ping(id);
        } else if age >= timeout {
            self.abort(id, Reason::PingTimeout);
        } else {
            self.timers.set(id, conn, Duration::from_nanos(timeout - age));
        }
    }

    /// Pings a connection, and looks at it again after `wait`.
    fn ping(&mut self, id: ConnId, wait: Duration) {
        let conn = self.conns.get(id).expect("a connection with a deadline");
        conn.flags.set_unanswered(1);
        self.timers.set(id, conn, wait);
        if conn.flags.has(Flags::SENDING) || conn.flags.has(Flags::HELD) {
            conn.flags.set(Flags::PING_DUE);
        } else {
            self.send_ping(id);
        }
    }

    /// A closing connection's time is over, unless its peer still takes what it was sent.
    fn on_close_deadline(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection with a deadline");
        self.timers.set(id, conn, self.limits.close_timeout);
        self.ask_progress(id);
    }

    /// Finds out whether the peer takes what it is sent: the answer is in [`Shard::on_sent`] or [`Shard::on_unsent`].
    pub(super) fn ask_progress(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection with a deadline");
        if conn.flags.has(Flags::SENDING) {
            conn.flags.set(Flags::ASKED_PROGRESS);
            self.driver.send_progress(id);
        } else {
            self.driver.unsent(id);
        }
    }

    /// How many bytes the peer has not acknowledged. Fewer than when that was asked before: it gets on.
    pub(in crate::shard) fn on_unsent(&mut self, id: ConnId, result: Result<usize, i32>) {
        let Some(conn) = self.conns.get(id) else { return };
        let closing = conn.state == State::Closing;
        if !closing && !conn.flags.has(Flags::SENDING) {
            // The send that was asked about is over, unless there was none.
            if let (State::Open, true, Ok(unsent)) = (conn.state, conn.flags.has(Flags::STREAM), result) {
                self.on_stream_unsent(id, unsent);
            }
            return;
        }
        let before = conn.extra.as_ref().and_then(|extra| extra.unsent);
        match result {
            Ok(unsent) if unsent > 0 && before.is_none_or(|before| unsent < before) => {
                conn.extra(&self.account).unsent = Some(unsent);
            }
            // A closing one's reason was decided when it began to close.
            _ => self.abort(id, Reason::PingTimeout),
        }
    }
}

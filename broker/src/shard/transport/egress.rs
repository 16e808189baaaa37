//! What one connection is sent: its own frames and data, one send at a time.
//!
//! A connection's own frames (answers, pongs, pings, close) go out before data, between sends, and so at frame boundaries
//! only: every send is whole frames. A connection with something to send, and no send in flight, is in the shard's list
//! of those that are ready, once ([`Flags::READY`]).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use ring::{ConnId, Driver, Gather};

use crate::capacity::budget::Account;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::fanout::parts::{COPY_BYTES_MAX, coalesce};
use crate::shard::fanout::timed::Timed;
use crate::shard::transport::connection::{Flags, State};

/// A send of up to this many bytes counts as one, each as many more as one more: 16 KiB cost the kernel about one and a
/// half times what an empty send does.
const SEND_BYTES: usize = 16 << 10;

/// Connections with something to send, and what a turn may send.
#[derive(Default, Debug)]
pub(in crate::shard) struct Egress {
    /// Connections with something to send that no send in flight holds up, each once, here or in `delivered_ready`.
    pub(in crate::shard) ready: VecDeque<ConnId>,
    /// Those that this turn's delivery rounds found.
    pub(in crate::shard) delivered_ready: Vec<ConnId>,
    /// The rest of this turn's work.
    pub(in crate::shard) work: Work,
    /// Whether this turn's next send is to be timed.
    pub(in crate::shard) time_next: bool,
    /// Sends in flight that are.
    pub(in crate::shard) timed: Vec<Timed>,
    /// Connections whose unsubscribe waits for messages on their way into logs. Tried again once a turn.
    postponed: Vec<ConnId>,
}

impl Egress {
    /// Whether the next turn has something to send.
    pub(in crate::shard) fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// What is left to do in this turn, in sends of up to [`SEND_BYTES`].
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::shard) struct Work {
    pub(in crate::shard) sends: u32,
    /// Subscribers and connections that may still have their turn.
    pub(in crate::shard) deliveries_left: u32,
    /// Sends made, whatever their bytes.
    pub(in crate::shard) made: u32,
}

impl Work {
    pub(in crate::shard) fn is_done(self) -> bool {
        self.sends == 0 || self.deliveries_left == 0
    }

    pub(in crate::shard) fn charge(&mut self, bytes: usize) {
        let sends = u32::try_from(bytes / SEND_BYTES).unwrap_or(u32::MAX).saturating_add(1);
        self.sends = self.sends.saturating_sub(sends);
        self.made += 1;
    }
}

impl<D: Driver> Shard<D> {
    /// Has [`Shard::flush`] called for the connection, when it is its turn.
    pub(in crate::shard) fn make_ready(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.flags.has(Flags::SENDING) && !conn.flags.has(Flags::READY) {
            conn.flags.set(Flags::READY);
            self.egress.ready.push_back(id);
        }
    }

    /// Lists what the last turn put off.
    pub(in crate::shard) fn try_postponed(&mut self) {
        for id in std::mem::take(&mut self.egress.postponed) {
            self.make_ready(id);
        }
    }

    /// Sends a ping.
    pub(in crate::shard) fn send_ping(&mut self, id: ConnId) {
        let ping = self.conns.get(id).expect("an open connection").session.ping();
        self.send(id, Gather::one(ping));
    }

    /// Sends to connections whose turn it is, as far as this turn's work goes.
    pub(in crate::shard) fn flush_ready(&mut self) {
        while !self.egress.work.is_done()
            && let Some(id) = self.egress.ready.pop_front()
        {
            self.egress.work.deliveries_left -= 1;
            self.flush_one(id);
        }
    }

    /// Sends to connections whose subscriptions had their turn; their sends were charged then.
    pub(in crate::shard) fn flush_delivered(&mut self) {
        let mut visited = std::mem::take(&mut self.egress.delivered_ready);
        for id in visited.drain(..) {
            self.flush_one(id);
        }
        self.egress.delivered_ready = visited;
    }

    fn flush_one(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id) {
            conn.flags.clear(Flags::READY);
            self.flush(id);
        }
    }

    /// Sends what waits: own frames first, then data, in one send. With nothing left to send, a closing
    /// connection is shut down.
    pub(in crate::shard) fn flush(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.flags.has(Flags::SENDING) || conn.flags.has(Flags::HELD) || conn.state == State::Gone {
            return;
        }
        if conn.flags.has(Flags::TLS) && self.flush_tls(id) {
            return;
        }
        let Some(conn) = self.conns.get(id) else { return };
        if conn.flags.take(Flags::PING_DUE) && conn.state == State::Open {
            let ping = conn.session.ping();
            conn.extra(&self.account).outbox.extend(&ping);
            // The time for its answer begins now.
            let wait = self.limits.ping_timeout.min(self.limits.ping_interval);
            self.timers.set(id, conn, wait);
        }
        let outbox = conn.take_outbox();
        let (data, has_gathered) = if conn.state == State::Open { self.gather(id) } else { (None, false) };
        let conn = self.conns.get(id).expect("found above");
        let has_walked = conn.state == State::Open && !conn.flags.has(Flags::BACKLOG);
        match (outbox, data) {
            (Some(outbox), Some(data)) => self.send(id, behind(outbox, &data, &self.account)),
            (Some(outbox), None) => self.send(id, Gather::one(outbox)),
            (None, Some(data)) => self.send(id, data),
            (None, None) if conn.state == State::Closing => self.shut(id),
            (None, None) if conn.state == State::Bridged => self.on_bridged_idle(id),
            (None, None) => {}
        }
        if has_walked {
            self.go_on_with_walks(id);
        }
        self.end_what_waited(id, has_gathered);
    }

    /// What an open connection is sent next, and whether that is all that its logs have, not only what is read for it.
    fn gather(&mut self, id: ConnId) -> (Option<Gather>, bool) {
        let thrift = self.thrift();
        let conn = self.conns.get(id).expect("an open connection");
        let all = conn.session.is_unsubscribing() || conn.flags.has(Flags::LEAVING);
        let looked_at = conn.session.pending().len() as u32;
        self.egress.work.deliveries_left = self.egress.work.deliveries_left.saturating_sub(looked_at);
        match conn.take_backlog(&self.account, thrift) {
            None => (self.fanout.take_pending(id, &mut conn.session, all, thrift, self.now), all),
            some => (some, false),
        }
    }

    /// Carries out an unsubscribe, or closes for a shutdown, once everything before it is on its way. `has_gathered`: so is all
    /// that the connection's logs have.
    fn end_what_waited(&mut self, id: ConnId, has_gathered: bool) {
        let Some(conn) = self.conns.get(id) else { return };
        let leaves = conn.flags.has(Flags::LEAVING) && !conn.flags.has(Flags::SENDING);
        let has_backlog = conn.flags.has(Flags::BACKLOG);
        // One that has not begun may be the next to send what another sent before it ends.
        let has_held =
            conn.session.is_unsubscribing() && conn.session.subscriptions().any(|subscription| subscription.held);
        let is_empty = has_gathered && conn.session.pending().is_empty() && !has_backlog && !has_held;
        if conn.session.is_unsubscribing() && is_empty {
            // A message may wait for its logs that came before a subscription which is to send the later ones.
            let own = self.fanout.anchors_of(&conn.session);
            if self.fanout.waits_for_any(&own) {
                self.egress.postponed.push(id);
            } else {
                self.finish_unsubscribe(id);
            }
        } else if leaves && !has_backlog && !conn.session.is_unsubscribing() && self.fanout.has_sent_all(&conn.session)
        {
            self.close_for_shutdown(id);
        }
    }

    pub(in crate::shard) fn send(&mut self, id: ConnId, gather: Gather) {
        if self.conns.get(id).expect("an open connection").flags.has(Flags::TLS) {
            self.send_sealed(id, &gather);
        } else {
            self.send_as_it_is(id, gather);
        }
    }

    /// Sends bytes that are not to be encrypted, or are already.
    pub(super) fn send_as_it_is(&mut self, id: ConnId, gather: Gather) {
        let conn = self.conns.get(id).expect("an open connection");
        conn.send_begins(self.now, gather.len());
        self.egress.work.charge(gather.len());
        self.driver.send(id, gather, 0);
    }

    pub(in crate::shard) fn on_sent(&mut self, id: ConnId, gather: Gather, from: usize, result: Result<usize, i32>) {
        let Some(conn) = self.conns.get(id) else { return };
        let stats = &self.shared.stats[usize::from(self.id)];
        let asked = conn.flags.take(Flags::ASKED_PROGRESS);
        let sent = match result {
            Ok(0) if asked => {
                // The kernel takes up a blocked send only once much of the socket is free: what was acknowledged tells.
                self.driver.send(id, gather, from);
                self.driver.unsent(id);
                return;
            }
            Ok(sent) => sent,
            Err(_) => {
                conn.send_ends();
                self.abort(id, Reason::Reset);
                return;
            }
        };
        stats.bytes_out.add(sent as u64);
        conn.forget_unsent();
        if from + sent < gather.len() {
            stats.sends_short.add(1);
            conn.send_begins(self.now, gather.len() - from - sent);
            self.driver.send(id, gather, from + sent);
            return;
        }
        stats.sends.add(1);
        conn.send_ends();
        if self.traces.are_on() {
            self.traces.sent(id, self.now, gather.len());
        }
        if !self.egress.timed.is_empty()
            && let Some(at) = self.egress.timed.iter().position(|timed| timed.conn == id)
        {
            self.egress.timed.swap_remove(at).observe(stats, self.now);
        }
        let is_bridged = conn.state == State::Bridged;
        let waits = conn.flags.has(Flags::PING_DUE)
            || conn.flags.has(Flags::TLS)
            || is_bridged
            || conn.flags.has(Flags::LEAVING)
            || conn.state == State::Closing
            || conn.outbox_len() > 0
            || conn.flags.has(Flags::BACKLOG)
            || !conn.session.pending().is_empty()
            || conn.session.is_unsubscribing();
        let paused = conn.flags.has(Flags::PAUSED);
        if waits {
            self.make_ready(id);
        }
        if is_bridged {
            self.resume_partner(id);
        }
        if paused {
            // Its answers were in the way, perhaps.
            self.list_paused(id);
        }
    }
}

/// One send of a connection's own frames, then data.
pub(in crate::shard) fn behind(outbox: Bytes, data: &Gather, account: &Arc<Account>) -> Gather {
    let mut parts = Vec::with_capacity(1 + data.parts().len());
    let bytes = outbox.len() + data.len();
    parts.push(outbox);
    parts.extend_from_slice(data.parts());
    coalesce(parts, bytes, COPY_BYTES_MAX, account)
}

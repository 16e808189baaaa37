//! Connections whose token names a key that is being fetched: they wait for the fetch, and then their token is judged again.
//!
//! | it waits | with | then |
//! | --- | --- | --- |
//! | a handshake | its head as kept input | the head is looked at again |
//! | an HTTP request | the same | the same |
//! | an open connection | its `connect`, copied ([`HeldConnect`]); what comes behind it is kept | the command is carried out |
//!
//! They are paused like any other ([`pause`](crate::shard::transport::pause)), so what they hold is charged and bounded as
//! input that waits is. When and for how long a fetch is worth waiting for: [`key_fetch`](crate::access::key_fetch). A deadline
//! of the connection, and the end of the broker, go on counting.
//!
//! Cost: a look at a number every [`POLL_NANOS`] while somebody waits.

use ring::{ConnId, Driver, Nanos};

use crate::shard::Shard;
use crate::shard::transport::connection::{Flags, State};
use crate::shard::transport::held::HeldConnect;

/// How often a shard looks whether the fetch is over.
const POLL_NANOS: Nanos = 5_000_000;

impl<D: Driver> Shard<D> {
    /// Lets a handshake or a request wait, whose bytes are kept with it.
    pub(in crate::shard) fn wait_for_keys(&mut self, id: ConnId) {
        let conn = self.conns.get(id).expect("a connection with a token");
        conn.flags.set(Flags::PAUSED);
        conn.flags.set(Flags::PAUSE_LISTED);
        self.input.for_keys.push_back(id);
        self.stats().pauses.add(1);
    }

    /// Lets a `connect` wait.
    pub(in crate::shard) fn hold_connect(&mut self, id: ConnId, held: Box<HeldConnect>) {
        let conn = self.conns.get(id).expect("an open connection");
        conn.extra(&self.account).connect = Some(held);
        self.wait_for_keys(id);
    }

    /// Whether a `connect` of this connection waits.
    pub(in crate::shard) fn holds_connect(&mut self, id: ConnId) -> bool {
        self.conns.get(id).and_then(|conn| conn.extra.as_ref()).is_some_and(|extra| extra.connect.is_some())
    }

    /// When to look whether those who wait can go on.
    pub(in crate::shard) fn next_look_at_keys(&self) -> Option<Nanos> {
        (!self.input.for_keys.is_empty() && !self.drain.is_under_way()).then(|| self.now + POLL_NANOS)
    }

    /// The fetch may be over: then those who wait get their next parts of turns.
    pub(in crate::shard) fn resume_for_keys(&mut self) {
        if self.input.for_keys.is_empty() {
            return;
        }
        let now_ms = self.shared.wall_clock.millis(self.now);
        if self.shared.authority.key_fetch().is_awaited(now_ms) {
            return;
        }
        for id in std::mem::take(&mut self.input.for_keys) {
            if let Some(conn) = self.conns.get(id) {
                conn.flags.clear(Flags::PAUSE_LISTED);
                self.list_paused(id);
            }
        }
    }

    /// Carries out a `connect` that waited, if there is one. Returns whether the connection's input goes on.
    pub(in crate::shard) fn resume_connect(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(id) else { return false };
        let Some(held) = conn.extra.as_mut().and_then(|extra| extra.connect.take()) else { return true };
        conn.flags.clear(Flags::PAUSED);
        if let Err(error) = self.connect(id, held.id(), Some(held.token()), held.session(), held.will()) {
            self.answer_error(id, &error);
        }
        self.look_again_at(id);
        self.conns.get(id).is_some_and(|conn| conn.state == State::Open) && !self.holds_connect(id)
    }
}

//! What operators look for on a shard: the connections of a client's address, a connection to trace, and the last messages of a
//! topic that is sequenced here.
//!
//! A shard may have any number of connections: one question looks at [`SLOTS_PER_QUESTION`] of them, and the answer says where
//! the next one goes on. Connections that come or go meanwhile may be missed.

use ring::{ConnId, Driver};
use tokio::sync::mpsc;

use crate::access::address::Client;
use crate::ids::{Epoch, Offset};
use crate::message::options::Refusal;
use crate::sequencer::history::recall::{HistoryQuery, Page};
use crate::shard::Shard;
use crate::shard::shared::{INSPECTED_MAX, OfClientPart, SignedIn};
use crate::shard::trace::{TraceBegun, TraceLine};
use crate::shard::transport::connection::State;
use crate::topics::registry::TopicRef;

/// Places of connections that one question looks at.
const SLOTS_PER_QUESTION: usize = 10_000;

impl<D: Driver> Shard<D> {
    /// The connections of a client, from this place on.
    pub(super) fn of_client(&mut self, client: Client, from: usize) -> OfClientPart {
        // Where it has none that count, there is nothing to look for.
        let Some(entry) = self.shared.addresses.find(client) else { return OfClientPart::default() };
        let slots = self.conns.slots();
        let until = from.saturating_add(SLOTS_PER_QUESTION).min(slots);
        let mut connections = Vec::new();
        let mut next = (until < slots).then_some(until);
        for slot in from..until {
            let Some(conn) = self.conns.id_at(slot) else { continue };
            if self.acceptor.addresses.client_of(conn) != Some(entry) {
                continue;
            }
            if connections.len() == INSPECTED_MAX {
                next = Some(slot);
                break;
            }
            let subscriptions = self.conns.get(conn).map_or(0, |conn| conn.session.subscriptions().count());
            let principal = self.identities.principal(conn).cloned();
            connections.push(SignedIn { conn, principal, subscriptions });
        }
        OfClientPart { connections, next }
    }

    /// Traces a connection from now on.
    pub(super) fn trace(&mut self, conn: ConnId, lines: mpsc::Sender<TraceLine>) -> TraceBegun {
        match self.conns.get(conn).is_some_and(|conn| conn.state != State::Gone) {
            true => self.traces.begin(conn, self.now, lines),
            false => TraceBegun::Gone,
        }
    }

    /// The newest messages that a topic remembers, newest first.
    ///
    /// # Errors
    /// Its rule says that it remembers none.
    pub(super) fn newest(&mut self, topic: TopicRef, limit: u32) -> Result<(Epoch, Offset, Page), Refusal> {
        let query = HistoryQuery { since: None, before: None, limit, reverse: true };
        self.sequencer.page(topic, &query, self.now)
    }
}

//! How many HTTP connections stay with a shard: one in eight of its slots, a quarter of them for one client, and half of all
//! HTTP connections that there may be ([`Admission::enter_http`]). Any more are handed over with their first request, and
//! count there.
//!
//! When newcomers find few slots, idle HTTP connections end for them: so however many there are, WebSockets have theirs.
//!
//! Cost: twelve bytes per connection that stays; a look at eight of them per newcomer while slots are few.
//!
//! [`Admission::enter_http`]: crate::access::admission::Admission::enter_http

use std::collections::VecDeque;

use ring::{ConnId, Driver};
use rustc_hash::FxHashMap;

use crate::access::admission;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::transport::connection::{Flags, State};

/// One slot in so many may have an HTTP connection.
const SLOTS_PART: u32 = 8;
/// Connections that a newcomer has looked at, to find one that is idle.
const LOOKED_AT: usize = 8;
/// One client may have one place in so many.
const CLIENT_PART: u32 = 4;

/// The places of HTTP connections that stay with this shard.
///
/// Invariant: `taken` counts the connections with [`Flags::HTTP`], and `of_client` those of them whose client is counted.
#[derive(Default, Debug)]
pub(in crate::shard) struct HttpPlaces {
    taken: u32,
    /// By the place of the client's address among all addresses.
    of_client: FxHashMap<(usize, u32), u32>,
    /// Those connections, and some that are gone: the one that was looked at last comes last.
    order: VecDeque<ConnId>,
}

impl HttpPlaces {
    pub(in crate::shard) fn taken(&self) -> u32 {
        self.taken
    }
}

impl<D: Driver> Shard<D> {
    /// Has a connection in its handshake stay here, if there is a place for it.
    pub(in crate::shard) fn keep_http(&mut self, id: ConnId) -> bool {
        let max = self.driver.capacity() / SLOTS_PART;
        let client = self.acceptor.addresses.client_of(id);
        let has = client.map_or(0, |client| self.acceptor.http.of_client.get(&client).copied().unwrap_or(0));
        let has_share = client.is_none() || has < (max / CLIENT_PART).max(1);
        if self.acceptor.http.taken >= max
            || !has_share
            || self.is_short_of_slots()
            || !self.shared.admission.enter_http()
        {
            return false;
        }
        self.acceptor.http.taken += 1;
        if let Some(client) = client {
            *self.acceptor.http.of_client.entry(client).or_default() += 1;
        }
        let conn = self.conns.get(id).expect("a connection in its handshake");
        conn.flags.set(Flags::HTTP);
        conn.state = State::Http;
        self.acceptor.http.order.push_back(id);
        if self.acceptor.http.order.len() > 2 * self.acceptor.http.taken as usize + LOOKED_AT {
            let mut order = std::mem::take(&mut self.acceptor.http.order);
            order.retain(|&id| self.conns.get(id).is_some_and(|conn| conn.state == State::Http));
            self.acceptor.http.order = order;
        }
        true
    }

    /// Whether newcomers have only half of the slots that WebSockets leave free.
    fn is_short_of_slots(&self) -> bool {
        let capacity = self.driver.capacity();
        self.conns.len() as u64 + u64::from(admission::reserve(capacity) / 2) >= u64::from(capacity)
    }

    /// A connection came: if there are few slots for others, an idle HTTP connection ends for them.
    pub(in crate::shard) fn make_slots(&mut self) {
        if !self.is_short_of_slots() {
            return;
        }
        for _ in 0..LOOKED_AT {
            let Some(id) = self.acceptor.http.order.pop_front() else { return };
            let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Http) else { continue };
            let is_idle = conn.extra.as_ref().is_none_or(|extra| extra.exchange.is_none() && extra.input.is_empty());
            if is_idle && !conn.flags.has(Flags::SENDING) {
                self.finish(id, Reason::HttpIdle);
                return;
            }
            self.acceptor.http.order.push_back(id);
        }
    }

    /// Gives the connection's place back, if it has one. Before its client is forgotten.
    pub(in crate::shard) fn leave_http(&mut self, id: ConnId, flags: Flags) {
        if !flags.has(Flags::HTTP) {
            return;
        }
        self.shared.admission.leave_http();
        self.acceptor.http.taken -= 1;
        let Some(client) = self.acceptor.addresses.client_of(id) else { return };
        if let Some(has) = self.acceptor.http.of_client.get_mut(&client) {
            *has -= 1;
            if *has == 0 {
                self.acceptor.http.of_client.remove(&client);
            }
        }
    }
}

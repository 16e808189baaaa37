//! Messages that arrive in pieces: how long they may take, and how much memory all of them may.
//!
//! A message has `--message-timeout` from its first byte to its last; beyond, its connection is closed with 1008. All
//! of them together may take a quarter of the budget. Beyond that the one that holds most, or holds it longest, goes
//! (1013): so a client that sends a message in the usual way finds room, however many others are left
//! unfinished.

use std::collections::VecDeque;

use protocol::frame::close_code;
use ring::{ConnId, Driver, Nanos};

use super::conn::Flags;
use super::stats::Reason;
use super::{Shard, nanos};
use crate::budget::Held;

/// Of so many that were begun first, the one that weighs most goes.
const LOOKED_AT: usize = 64;
/// Their part of the budget: one in so many.
const PART: u64 = 4;
const MILLISECOND: Nanos = 1_000_000;

/// Messages under way, in the order in which they began; those that are complete are passed over.
#[derive(Default, Debug)]
pub(super) struct Assemblies {
    begun: VecDeque<(Nanos, ConnId)>,
}

impl Assemblies {
    pub(super) fn begin(&mut self, id: ConnId, now: Nanos) {
        self.begun.push_back((now, id));
    }

    pub(super) fn first(&self) -> Option<Nanos> {
        self.begun.front().map(|&(since, _)| since)
    }
}

impl<D: Driver> Shard<D> {
    /// When a message under way may be overdue.
    pub(super) fn next_message_deadline(&self) -> Option<Nanos> {
        self.assemblies.first().map(|since| since + nanos(self.limits.message_timeout))
    }

    /// Closes connections whose message has been under way for too long.
    pub(super) fn expire_messages(&mut self) {
        let timeout = nanos(self.limits.message_timeout);
        while let Some(&(since, id)) = self.assemblies.begun.front() {
            let late = since + timeout <= self.now;
            let bytes = self.unfinished(since, id);
            if bytes.is_some() && !late {
                return;
            }
            self.assemblies.begun.pop_front();
            if bytes.is_none() {
                continue;
            }
            let conn = self.conns.get(id).expect("it has a message under way");
            if conn.flags.has(Flags::PAUSED) || !conn.flags.has(Flags::RECEIVING) {
                // This shard makes it wait, or has no receive buffer for it; it may have sent the rest already.
                let extra = conn.extra.as_mut().expect("it has a message under way");
                extra.assembly.as_mut().expect("it has a message under way").since = self.now;
                self.assemblies.begin(id, self.now);
            } else {
                let why = "the message was not complete in time; see --message-timeout";
                self.close_with(id, close_code::POLICY.into(), why, Reason::MessageTimeout);
            }
        }
    }

    /// Bytes of the message that a connection began at `since`, if that is still under way.
    fn unfinished(&mut self, since: Nanos, id: ConnId) -> Option<u64> {
        let extra = self.conns.get(id)?.extra.as_ref()?;
        extra.assembly.as_ref().filter(|assembly| assembly.since == since).map(|assembly| assembly.room.charged())
    }

    /// A piece came: if all of them are too many bytes, the connection that holds most of this shard's goes.
    pub(super) fn make_room_for_pieces(&mut self) {
        let budget = &self.links.budget;
        if budget.held(Held::Assemblies) <= budget.bytes_max() / PART {
            return;
        }
        let mut heaviest = None;
        let mut at = 0;
        while at < self.assemblies.begun.len().min(LOOKED_AT) {
            let (since, id) = self.assemblies.begun[at];
            match self.unfinished(since, id) {
                Some(bytes) => {
                    let paused = self.conns.get(id).is_some_and(|conn| conn.flags.has(Flags::PAUSED));
                    let age = if paused { 0 } else { self.now - since };
                    let weight = bytes.saturating_mul(1 + age / MILLISECOND);
                    heaviest = heaviest.max(Some((weight, id)));
                    at += 1;
                }
                None => drop(self.assemblies.begun.remove(at)),
            }
        }
        if let Some((_, id)) = heaviest {
            let why = "too many messages are arriving in pieces, and this one held most; connect again";
            self.close_with(id, close_code::TRY_AGAIN_LATER.into(), why, Reason::Memory);
        }
    }
}

//! Requests and their answers: who serves which topics, who waits for an answer, and whose turn it is to give one.
//!
//! | file | what it does |
//! | --- | --- |
//! | `responders` | the index of those who serve topics, and whose turn it is |
//! | `registering` | `respond`: every shard learns of it; and what ends with a connection |
//! | `asking` | `request`, at the asking connection's shard: from the choice of a responder to the answer |
//! | `answering` | `reply`, at the responder's shard: what it has to answer, and until when |
//! | `parcels` | what shards send each other about it |
//!
//! A request goes from the asking shard straight to a responder's shard ([`Request::Call`]), the answer straight back
//! ([`Delivery::Called`]); no sequencer takes part. Every shard has the whole index, so that choosing is a look-up and not a
//! question. A responder's shard may refuse a request: it comes back, and goes to the next in turn. So what the index does not
//! know yet, a connection that has ended or has too much to do, costs one more hop and is never an error.
//!
//! Invariants: each request that was accepted is in `asked` until it is answered, once, and has its place in `asked_due` and,
//! if a connection asked, in `asking`. Each request that a responder was given is in its `waiting` and in `waiting_due`.
//!
//! Time: one deadline per request, on the monotonic clock that all shards have; both sides forget the request at the same
//! time, each by itself. Memory: charged as subscriptions are; payloads as messages. Who uses none of this has none of it.
//!
//! Cost of a request: two hops, one copy of each payload and one JSON encoding of each, and some look-ups in tables.
//!
//! [`Request::Call`]: crate::shard::shared::Request::Call
//! [`Delivery::Called`]: crate::shard::shared::Delivery::Called

mod answering;
mod asking;
pub mod parcels;
mod registering;
mod responders;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::size_of;
use std::sync::Arc;

use protocol::v1::CommandError;
use ring::{ConnId, Driver, Nanos};
use rustc_hash::FxHashMap;

use crate::capacity::budget::{Account, Charge, Held};
use crate::ids::ShardId;
use crate::session::calls::CallAction;
use crate::shard::Shard;
use crate::shard::calls::answering::{Serving, Waiting};
use crate::shard::calls::asking::Asked;
use crate::shard::calls::registering::Registering;
use crate::shard::calls::responders::Responders;
use crate::topics::keys::Keys;

/// What an entry of a hash table takes, for entries of `bytes`: tables have room for more than they hold.
const fn entry(bytes: usize) -> u64 {
    2 * bytes as u64
}

/// What a request that waits takes at the asking shard.
const ASKED_BYTES: u64 = entry(size_of::<(u64, Asked)>() + 2 * size_of::<(Nanos, u64)>());
/// What a request that waits takes at the responder's shard.
const WAITING_BYTES: u64 = entry(size_of::<Waiting>() + size_of::<(Nanos, ConnId, u64)>());
/// What a connection that has served something takes.
const SERVING_BYTES: u64 = entry(size_of::<(ConnId, Serving)>());
/// What a command takes that waits until every shard knows.
const REGISTERING_BYTES: u64 = entry(size_of::<(u64, Registering)>());

/// See the file's head.
pub(super) struct Calls {
    responders: Responders,
    // ---- of connections that serve topics
    serving: FxHashMap<ConnId, Serving>,
    /// Filters of all of them.
    served: usize,
    /// When each request that one of them has to answer is over.
    waiting_due: BTreeSet<(Nanos, ConnId, u64)>,
    /// Commands that wait until every shard knows.
    registering: BTreeMap<u64, Registering>,
    next_registering: u64,
    // ---- of those who ask
    asked: FxHashMap<u64, Asked>,
    asked_due: BTreeSet<(Nanos, u64)>,
    /// What each connection waits for.
    asking: FxHashMap<ConnId, Vec<u64>>,
    next_call: u64,
    charge: Charge,
}

impl Calls {
    pub(super) fn new(own: ShardId, keys: Keys, account: &Arc<Account>) -> Self {
        Self {
            responders: Responders::new(own, keys),
            serving: FxHashMap::default(),
            served: 0,
            waiting_due: BTreeSet::new(),
            registering: BTreeMap::new(),
            next_registering: 0,
            asked: FxHashMap::default(),
            asked_due: BTreeSet::new(),
            asking: FxHashMap::default(),
            next_call: 0,
            charge: Charge::new(account, Held::Subscriptions, 0),
        }
    }

    /// How many filters connections of this shard serve.
    pub(super) fn served(&self) -> usize {
        self.served
    }

    /// How many responders the index has, those of other shards included.
    pub(super) fn responders(&self) -> usize {
        self.responders.len()
    }

    /// How many requests wait for an answer that were made here.
    pub(super) fn asked(&self) -> usize {
        self.asked.len()
    }

    /// When the time of a request is over.
    pub(super) fn next_due(&self) -> Option<Nanos> {
        let asked = self.asked_due.first().map(|&(due, _)| due);
        let waiting = self.waiting_due.first().map(|&(due, ..)| due);
        asked.into_iter().chain(waiting).min()
    }

    /// Charges what there is now.
    fn recharge(&mut self) {
        let asked = self.asked.len() as u64 * ASKED_BYTES;
        let waiting = self.waiting_due.len() as u64 * WAITING_BYTES;
        let serving = self.serving.len() as u64 * SERVING_BYTES;
        let registering = self.registering.len() as u64 * REGISTERING_BYTES;
        self.charge.resize(self.responders.bytes() + asked + waiting + serving + registering);
    }

    /// The first invariant of the file's head that does not hold. Linear in everything.
    pub(super) fn invariants(&self) -> Result<(), String> {
        let numbers = || self.asked.values().filter_map(|asked| asked.conn()).count();
        let listed: usize = self.asking.values().map(Vec::len).sum();
        let waiting: usize = self.serving.values().map(|serving| serving.waiting.len()).sum();
        let served: usize = self.serving.values().map(|serving| serving.filters.len()).sum();
        for (what, found, kept) in [
            ("requests and their deadlines", self.asked.len(), self.asked_due.len()),
            ("filters that are served", served, self.served),
            ("requests of connections", numbers(), listed),
            ("requests to be answered and their deadlines", waiting, self.waiting_due.len()),
        ] {
            if found != kept {
                return Err(format!("{what}: {found} found, {kept} kept"));
            }
        }
        self.responders.invariants()
    }

    /// Connections that there is something of.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnId> {
        self.serving.keys().chain(self.asking.keys()).copied()
    }
}

impl<D: Driver> Shard<D> {
    /// Carries out what a session wants.
    pub(super) fn on_call_action(&mut self, id: ConnId, action: CallAction<'_>) -> Result<(), CommandError> {
        match action {
            CallAction::Request(ask) => self.ask_responder(id, ask),
            CallAction::Respond { id: command, filter, end } => self.respond(id, command, filter, end),
            CallAction::Reply { id: command, reply, answer } => self.reply(id, command, reply, answer),
        }
    }

    /// What has to be done because time has passed.
    pub(super) fn expire_calls(&mut self) {
        self.expire_asked();
        self.expire_waiting();
    }

    /// A connection ends, and with it what it serves, what it had to answer, and what it asked.
    pub(super) fn end_calls_of(&mut self, id: ConnId) {
        self.abandon(id);
        self.serve_no_longer(id);
    }
}

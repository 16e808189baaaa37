//! What a shard holds, found by looking at everything, for tests to compare with what it believes and is charged.
//! Linear in connections, logs and messages: the simulation asks after every step, the broker never.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::{ConnId, Driver};
use rustc_hash::FxHashMap;

use crate::capacity::budget::Held;
use crate::session::subscription::Patience;
use crate::shard::Shard;
use crate::shard::transport::connection::{Extra, Flags, State};

/// What was found on one shard.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Bytes of every message in a log, a history or a backlog, by the address of the message, which shards share.
    pub messages: BTreeMap<usize, u64>,
    /// Bytes of messages in its logs, each counted once.
    pub logged_bytes: u64,
    /// Topics that remember something.
    pub remembering: u64,
    /// Windows that were given up for want of room, so far.
    pub evicted: u64,
    /// Responders of all shards in this shard's index.
    pub responders: u64,
    /// Sessions whose home is this shard.
    pub sessions: u64,
    /// Sessions that are present at the topics that this shard sequences, each once per topic.
    pub present: u64,
    /// Pairs that must be equal: what it is, as found, as kept.
    equal: Vec<(&'static str, u64, u64)>,
    /// The first invariant of a log or of the sequencer that does not hold.
    invariants: Result<(), String>,
}

impl Audit {
    /// # Errors
    /// What does not agree.
    pub fn check(&self) -> Result<(), String> {
        self.invariants.clone()?;
        match self.equal.iter().find(|(_, found, kept)| found != kept) {
            Some((what, found, kept)) => Err(format!("{what}: {found} found, {kept} kept")),
            None => Ok(()),
        }
    }
}

impl<D: Driver> Shard<D> {
    /// Looks at everything.
    pub fn audit(&mut self) -> Audit {
        let mut invariants = self.sequencer.invariants().and_then(|()| self.invariants_of_clients());
        let (mut input, mut assemblies, mut unfinished) = (0, 0, 0);
        let (mut outboxes, mut awaited, mut paused, mut identities, mut backlogs) = (0, 0, 0, 0, Vec::new());
        for id in self.conns.ids() {
            let conn = self.conns.get(id).expect("an id of this moment");
            if let Some(extra) = &conn.extra {
                input += Extra::BYTES + extra.input.charged() + extra.connect.as_ref().map_or(0, |held| held.bytes());
                assemblies += extra.assembly.as_ref().map_or(0, |assembly| assembly.room.charged());
                unfinished += u64::from(extra.assembly.is_some());
                outboxes += extra.outbox.charged();
                if let Some(backlog) = &extra.backlog {
                    backlogs.extend(backlog.messages().map(|message| (Arc::as_ptr(message).addr(), message.weight())));
                }
            }
            identities += u64::from(self.identities.has(id));
            paused += u64::from(conn.flags.has(Flags::PAUSE_LISTED));
            for sub in conn.session.subscriptions() {
                awaited += u64::from(sub.patience == Patience::Awaited);
                if sub.live {
                    let log = &self.fanout.logs[sub.log];
                    invariants = invariants.and_then(|()| log.cursor_invariant(sub.cursor, sub.lagging));
                }
            }
        }
        let under_way = self.input.assemblies.len() as u64;
        let kept = self.sequencer.kept().map(|message| (Arc::as_ptr(message).addr(), message.weight()));
        let mut messages: BTreeMap<_, _> = kept.chain(backlogs).collect();
        invariants = invariants.and_then(|()| self.fanout.logs.iter().try_for_each(|log| log.invariants()));
        let (log_bytes, log_awaited, congested) = self.of_logs();
        let mut logged = self.logged();
        let logged_bytes = logged.values().sum();
        messages.append(&mut logged);
        let listed = self.input.waiting().filter(|&id| self.conns.get(id).is_some()).count() as u64;
        let answers = outboxes.min(self.account.held(Held::Outboxes));
        let equal = vec![
            ("bytes of messages in pieces", assemblies, self.account.held(Held::Assemblies)),
            ("messages in pieces", unfinished, under_way),
            ("bytes of input", input, self.account.held(Held::Input)),
            ("bytes of answers that wait, or more in flight", answers, outboxes),
            ("bytes in logs", log_bytes, self.fanout.log_bytes),
            ("subscribers awaited", awaited, log_awaited),
            ("congested logs", congested, self.fanout.congested_logs as u64),
            ("paused connections", paused, listed),
            ("identities of connections", identities, self.identities.len() as u64),
            ("requests of connections that have ended", self.calls_of_ended(), 0),
        ];
        let (remembering, evicted) = (self.sequencer.remembering() as u64, self.sequencer.evicted());
        let responders = self.calls.responders() as u64;
        let (sessions, present) = (self.sessions.len() as u64, self.members.sessions().count() as u64);
        Audit { messages, logged_bytes, remembering, evicted, responders, sessions, present, equal, invariants }
    }

    /// Bytes that its logs keep, subscribers that they wait for, and how many are congested.
    fn of_logs(&self) -> (u64, u64, u64) {
        self.fanout.logs.iter().fold((0, 0, 0), |(bytes, awaited, congested), log| {
            (bytes + log.kept_bytes(), awaited + u64::from(log.awaited), congested + u64::from(log.congested))
        })
    }

    /// What every message in its logs weighs, by its address.
    fn logged(&self) -> BTreeMap<usize, u64> {
        let messages = self.fanout.logs.iter().flat_map(|log| log.kept());
        messages.map(|message| (Arc::as_ptr(message).addr(), message.weight())).collect()
    }

    /// Of what the shard knows of its clients.
    fn invariants_of_clients(&self) -> Result<(), String> {
        self.calls.invariants()?;
        self.identities.invariants()?;
        self.sessions.check()?;
        self.members.check()?;
        self.lease_invariants()
    }

    /// Connections that have ended, and whose requests or responders are still there.
    fn calls_of_ended(&mut self) -> u64 {
        let (calls, conns) = (&self.calls, &mut self.conns);
        let has_ended = |&id: &ConnId| conns.get(id).is_none_or(|conn| conn.state != State::Open);
        calls.connections().filter(has_ended).count() as u64
    }

    fn lease_invariants(&self) -> Result<(), String> {
        self.leases.check()?;
        if self.leases.numbers().collect::<FxHashMap<_, _>>() == *self.sequencer.leases() {
            Ok(())
        } else {
            Err("leases: the sequencer knows those in force".to_owned())
        }
    }
}

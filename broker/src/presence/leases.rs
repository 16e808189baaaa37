//! Leases of topics, at the topics' sequencers: who has one, until when, and who waits for it.
//!
//! A lease is given to one session at a time, under a number that is higher than that of any lease before it: a fencing token.
//! It ends when it is not renewed in time, is given back, or its session is over. While the session waits for its client it does not
//! run out: the session's home says when that is over. Who waits gets it in the order of the commands.
//!
//! What follows from a call is a list of [`Event`]s, in their order ([`Leases::take_events`]).
//!
//! Invariants ([`Leases::check`]): a topic is kept exactly while somebody has its lease, so nobody waits for one that is free; a
//! session waits once, and not for what it has; no number is above the last that was given, and no two leases have the same; a topic
//! is listed by the time at which something is due.
//!
//! Memory: charged to the shard's account. Cost: linear in those who wait for one topic.

mod events;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use protocol::v1::LeaseLostReason;
use ring::Nanos;
use rustc_hash::FxHashMap;

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::ids::TopicId;
use crate::presence::SessionRef;
pub use crate::presence::leases::events::{Asker, Current, Event, Outcome};
use crate::topics::registry::TopicRef;

/// What a lease takes in the tables, in bytes; the sequencer's own included.
const LEASE_BYTES: u64 = 2 * (size_of::<(TopicId, Leased)>() + size_of::<(TopicId, u64)>()) as u64
    + 2 * size_of::<(Nanos, TopicId)>() as u64;

/// The leases of one sequencer.
#[derive(Debug)]
pub struct Leases {
    topics: FxHashMap<TopicId, Leased>,
    /// When something is due for a topic: its lease ends, or somebody has waited long enough.
    due: BTreeSet<(Nanos, TopicId)>,
    last_number: u64,
    /// How many were granted.
    granted: u64,
    events: Vec<Event>,
    account: Arc<Account>,
}

/// One of them.
#[derive(Debug)]
struct Leased {
    topic: TopicRef,
    holder: Holder,
    waiters: VecDeque<Waiter>,
    due: Option<Nanos>,
    charge: Charge,
}

#[derive(Debug)]
struct Holder {
    session: SessionRef,
    by: Arc<str>,
    number: u64,
    ttl: Nanos,
    until: Nanos,
    /// The session waits for its client.
    is_away: bool,
}

#[derive(Debug)]
struct Waiter {
    asker: Asker,
    ttl: Nanos,
    until: Nanos,
}

impl Leases {
    /// None. The first lease will have a number above `last_number`.
    #[must_use]
    pub fn new(last_number: u64, account: &Arc<Account>) -> Self {
        Self {
            topics: FxHashMap::default(),
            due: BTreeSet::new(),
            last_number,
            granted: 0,
            events: Vec::new(),
            account: Arc::clone(account),
        }
    }

    /// A session wants the lease of a topic, and waits for it for `wait`. Returns whether the lease was free: that it has changed is
    /// the caller's to say then.
    pub fn take(&mut self, topic: &TopicRef, asker: Asker, ttl: Nanos, wait: Nanos, now: Nanos) -> bool {
        let Some(leased) = self.topics.get_mut(&topic.id) else {
            let holder = self.next_holder(&asker, ttl, now);
            let number = holder.number;
            self.topics.insert(topic.id, Leased::new(topic.clone(), holder, &self.account));
            self.relist(topic.id);
            self.answer(topic, asker, Outcome::Granted { number, ttl });
            return true;
        };
        if leased.holder.session == asker.session {
            let number = leased.holder.number;
            self.renew(topic, asker, number, Some(ttl), now);
            return false;
        }
        let held = leased.holder.held(now);
        if wait == 0 {
            self.answer(topic, asker, held);
            return false;
        }
        let waiter = Waiter { asker, ttl, until: now.saturating_add(wait) };
        match leased.waiters.iter_mut().find(|waiting| waiting.asker.session == waiter.asker.session) {
            Some(place) => {
                let before = std::mem::replace(place, waiter);
                self.answer(topic, before.asker, held);
            }
            None => leased.waiters.push_back(waiter),
        }
        self.relist(topic.id);
        false
    }

    /// A session keeps the lease that it has by this number; without `ttl`, for as long as before.
    pub fn renew(&mut self, topic: &TopicRef, asker: Asker, number: u64, ttl: Option<Nanos>, now: Nanos) {
        let Some(holder) = self.holder_by(topic.id, asker.session, number) else {
            return self.answer(topic, asker, Outcome::NotThere);
        };
        let ttl = ttl.unwrap_or(holder.ttl);
        (holder.ttl, holder.until, holder.is_away) = (ttl, now.saturating_add(ttl), false);
        self.relist(topic.id);
        self.events.push(Event::Changed(topic.clone()));
        self.answer(topic, asker, Outcome::Granted { number, ttl });
    }

    /// A session gives back the lease that it has by this number.
    pub fn release(&mut self, topic: &TopicRef, asker: Asker, number: u64, now: Nanos) {
        if self.holder_by(topic.id, asker.session, number).is_none() {
            return self.answer(topic, asker, Outcome::NotThere);
        }
        self.answer(topic, asker, Outcome::Released);
        self.hand_over(topic.id, now);
    }

    /// A session is over: it neither has nor waits for the lease any more.
    pub fn free(&mut self, topic: TopicId, session: SessionRef, now: Nanos) {
        self.stop_waiting(topic, session, now);
        if self.topics.get(&topic).is_some_and(|leased| leased.holder.session == session) {
            self.hand_over(topic, now);
        }
    }

    /// A session may not have the lease any more.
    pub fn close(&mut self, topic: TopicId, session: SessionRef, now: Nanos) {
        self.stop_waiting(topic, session, now);
        if self.topics.get(&topic).is_some_and(|leased| leased.holder.session == session) {
            self.lose(topic, LeaseLostReason::Closed, now);
        }
    }

    /// A session waits for the lease no more: its command is answered as one that did not get it.
    pub fn stop_waiting(&mut self, topic: TopicId, session: SessionRef, now: Nanos) {
        let Some(leased) = self.topics.get_mut(&topic) else { return };
        let Some(at) = leased.waiters.iter().position(|waiter| waiter.asker.session == session) else { return };
        let waiter = leased.waiters.remove(at).expect("a place that was just found");
        let (of, held) = (leased.topic.clone(), leased.holder.held(now));
        self.answer(&of, waiter.asker, held);
        self.relist(topic);
    }

    /// A session waits for its client, at most until then: its lease does not run out.
    pub fn keep(&mut self, topic: TopicId, session: SessionRef, until: Nanos, now: Nanos) {
        self.stop_waiting(topic, session, now);
        if let Some(leased) = self.topics.get_mut(&topic).filter(|leased| leased.holder.session == session) {
            (leased.holder.is_away, leased.holder.until) = (true, until);
            self.events.push(Event::Changed(leased.topic.clone()));
            self.relist(topic);
        }
    }

    /// The session goes on over another connection: its lease lasts as long as it was asked for, from now on.
    pub fn resume(&mut self, topic: TopicId, session: SessionRef, now: Nanos) {
        self.stop_waiting(topic, session, now);
        let held = self.topics.get_mut(&topic);
        if let Some(leased) = held.filter(|leased| leased.holder.session == session && leased.holder.is_away) {
            let holder = &mut leased.holder;
            (holder.is_away, holder.until) = (false, now.saturating_add(holder.ttl));
            self.events.push(Event::Changed(leased.topic.clone()));
            self.relist(topic);
        }
    }

    /// Ends what is due, of one topic. Returns whether anything was.
    pub fn expire(&mut self, now: Nanos) -> bool {
        let Some(&(_, topic)) = self.due.first().filter(|(due, _)| *due <= now) else { return false };
        let holder = &self.topics[&topic].holder;
        let ends = Some(holder.until).filter(|until| *until <= now && !holder.is_away);
        // Who had waited long enough when the lease ended does not get it, however late this turn is.
        self.end_waits(topic, ends.map_or(now, |ends| ends.saturating_sub(1)), now);
        if ends.is_some() {
            self.lose(topic, LeaseLostReason::Expired, now);
            if self.topics.contains_key(&topic) {
                self.end_waits(topic, now, now);
            }
        }
        true
    }

    /// Who has the lease of a topic.
    #[must_use]
    pub fn current(&self, topic: TopicId) -> Option<Current> {
        let Holder { session, by, number, until, .. } = &self.topics.get(&topic)?.holder;
        Some(Current { session: *session, by: Arc::clone(by), number: *number, until: *until })
    }

    /// What followed from the calls since this was called last.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// When something is due next.
    #[must_use]
    pub fn next_due(&self) -> Option<Nanos> {
        self.due.first().map(|&(due, _)| due)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many were granted so far.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// The topics with the numbers of their leases.
    pub fn numbers(&self) -> impl Iterator<Item = (TopicId, u64)> + '_ {
        self.topics.iter().map(|(&topic, leased)| (topic, leased.holder.number))
    }

    /// Checks what always holds: see the file's head. Linear in leases and those who wait.
    ///
    /// # Errors
    /// What does not hold, and of which topic.
    pub fn check(&self) -> Result<(), String> {
        let numbers: BTreeSet<u64> = self.topics.values().map(|leased| leased.holder.number).collect();
        if numbers.len() != self.topics.len() || numbers.last().is_some_and(|last| *last > self.last_number) {
            return Err("leases: a number belongs to one lease".to_owned());
        }
        if self.due.len() != self.topics.values().filter(|leased| leased.due.is_some()).count() {
            return Err("leases: what is listed is due".to_owned());
        }
        for (&id, leased) in &self.topics {
            let mut sessions: Vec<SessionRef> = leased.waiters.iter().map(|waiter| waiter.asker.session).collect();
            sessions.push(leased.holder.session);
            sessions.sort_unstable();
            let rules = [
                ("a session waits once, and not for what it has", sessions.windows(2).all(|pair| pair[0] != pair[1])),
                ("it is listed when something is due", leased.due == leased.next_due()),
                ("it is listed", leased.due.is_none_or(|due| self.due.contains(&(due, id)))),
            ];
            if let Some((rule, _)) = rules.iter().find(|(_, holds)| !holds) {
                return Err(format!("lease of {:?}: {rule}", leased.topic.name));
            }
        }
        Ok(())
    }

    fn answer(&mut self, topic: &TopicRef, asker: Asker, outcome: Outcome) {
        self.events.push(Event::Answered { topic: topic.clone(), asker, outcome });
    }

    fn holder_by(&mut self, topic: TopicId, session: SessionRef, number: u64) -> Option<&mut Holder> {
        let holder = &mut self.topics.get_mut(&topic)?.holder;
        (holder.session == session && holder.number == number).then_some(holder)
    }

    /// The next lease is this one's.
    fn next_holder(&mut self, asker: &Asker, ttl: Nanos, now: Nanos) -> Holder {
        self.last_number += 1;
        self.granted += 1;
        let (number, until) = (self.last_number, now.saturating_add(ttl));
        Holder { session: asker.session, by: Arc::clone(&asker.by), number, ttl, until, is_away: false }
    }

    fn lose(&mut self, id: TopicId, reason: LeaseLostReason, now: Nanos) {
        let Leased { topic, holder, .. } = &self.topics[&id];
        let (topic, session, number) = (topic.clone(), holder.session, holder.number);
        self.events.push(Event::Lost { topic, session, number, reason });
        self.hand_over(id, now);
    }

    /// The lease is over: the first who waits gets it.
    fn hand_over(&mut self, id: TopicId, now: Nanos) {
        let leased = self.topics.get_mut(&id).expect("a lease that was just there");
        let topic = leased.topic.clone();
        match leased.waiters.pop_front() {
            Some(Waiter { asker, ttl, .. }) => {
                let holder = self.next_holder(&asker, ttl, now);
                let number = holder.number;
                self.topics.get_mut(&id).expect("found above").holder = holder;
                self.relist(id);
                self.events.push(Event::Changed(topic.clone()));
                self.answer(&topic, asker, Outcome::Granted { number, ttl });
            }
            None => {
                if let Some(due) = leased.due {
                    self.due.remove(&(due, id));
                }
                self.topics.remove(&id);
                self.events.push(Event::Changed(topic));
            }
        }
    }

    /// Those whose wait was over by `until` do not wait any more.
    fn end_waits(&mut self, id: TopicId, until: Nanos, now: Nanos) {
        let leased = self.topics.get_mut(&id).expect("a topic with a lease");
        let (over, rest): (VecDeque<_>, _) = leased.waiters.drain(..).partition(|waiter| waiter.until <= until);
        leased.waiters = rest;
        let (topic, held) = (leased.topic.clone(), leased.holder.held(now));
        for waiter in over {
            self.answer(&topic, waiter.asker, held.clone());
        }
        self.relist(id);
    }

    /// Lists a topic by what is due now, and charges what it takes.
    fn relist(&mut self, id: TopicId) {
        let Some(leased) = self.topics.get_mut(&id) else { return };
        let due = leased.next_due();
        if due != leased.due {
            if let Some(before) = std::mem::replace(&mut leased.due, due) {
                self.due.remove(&(before, id));
            }
            self.due.extend(due.map(|due| (due, id)));
        }
        leased.recharge();
    }
}

impl Leased {
    fn new(topic: TopicRef, holder: Holder, account: &Arc<Account>) -> Self {
        let charge = Charge::new(account, Held::Subscriptions, LEASE_BYTES);
        Self { topic, holder, waiters: VecDeque::new(), due: None, charge }
    }

    fn next_due(&self) -> Option<Nanos> {
        let ends = (!self.holder.is_away).then_some(self.holder.until);
        self.waiters.iter().map(|waiter| waiter.until).chain(ends).min()
    }

    fn recharge(&mut self) {
        let waiters = self.waiters.capacity() * size_of::<Waiter>();
        self.charge.resize(LEASE_BYTES + if waiters == 0 { 0 } else { allocated(waiters) });
    }
}

impl Holder {
    /// What others learn of it.
    fn held(&self, now: Nanos) -> Outcome {
        Outcome::Held { by: Arc::clone(&self.by), left: self.until.saturating_sub(now) }
    }
}

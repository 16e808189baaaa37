//! Sessions at their home: what a client is beyond one connection, and for how long.
//!
//! A session has at most one *owner*, the connection that it goes on over. Without one it waits for its grace, then it is
//! over. One without a secret cannot be resumed; it is over with its connection.
//!
//! Invariants ([`Sessions::check`]): every owner has one session, every secret one; a session is listed among those that end
//! exactly while it has no owner.
//!
//! Memory: charged to the shard's account for as long as the session is there. Cost: constant, but for the end of a session,
//! which is linear in the topics that it has entered.

mod keeps;

use std::collections::BTreeSet;
use std::sync::Arc;

use ring::Nanos;
use rustc_hash::FxHashMap;

use crate::capacity::budget::{Account, Charge, Held, allocated};
use crate::ids::{ShardId, TopicId};
use crate::presence::secret::Secret;
use crate::presence::sessions::keeps::Keeps;
use crate::presence::will::Will;
use crate::presence::{Owner, SessionRef};
use crate::topics::registry::TopicRef;

/// What a session takes in the tables, in bytes: they have room for more than they hold.
const RECORD_BYTES: u64 =
    2 * (size_of::<(u64, Session)>() + size_of::<(Owner, u64)>() + size_of::<(Secret, u64)>()) as u64;
/// What one topic that it has entered takes.
const ENTRY_BYTES: u64 = 2 * size_of::<(TopicId, TopicRef)>() as u64;

/// The sessions of one home.
#[derive(Debug)]
pub struct Sessions {
    home: ShardId,
    grace: Nanos,
    /// Most sessions that can be resumed.
    resumable_max: usize,
    sessions: FxHashMap<u64, Session>,
    by_owner: FxHashMap<Owner, u64>,
    by_secret: FxHashMap<Secret, u64>,
    /// Those without an owner, by the time of their end.
    ends: BTreeSet<(Nanos, u64)>,
    /// Those whose wills wait for something else than their end, by the time of that.
    wills: BTreeSet<(Nanos, u64)>,
    next_number: u64,
    account: Arc<Account>,
}

/// One of them.
#[derive(Debug)]
struct Session {
    /// What it can be resumed with.
    secret: Option<Secret>,
    /// The user or key that it is bound to; `None`: a client without one.
    user: Option<Arc<str>>,
    /// The name by which others see it.
    member: Arc<str>,
    owner: Option<Owner>,
    /// When it ends, if it has no owner.
    ends: Option<Nanos>,
    entered: FxHashMap<TopicId, TopicRef>,
    /// Leases and a will, if there are some.
    keeps: Option<Box<Keeps>>,
    charge: Charge,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The session that it had.
    pub resume: Option<Secret>,
    /// The secret of the new one, if it gets one.
    pub fresh: Option<Secret>,
    /// The user or key that the client is.
    pub user: Option<Arc<str>>,
    /// The name by which others see it if the session is new.
    pub member: Arc<str>,
}

/// What it gets.
#[derive(Debug)]
pub struct Opened {
    /// `None`: there is no room for more sessions that can be resumed.
    pub secret: Option<Secret>,
    /// Whether it is the session that it had.
    pub resumed: bool,
    /// The name by which others see it.
    pub member: Arc<str>,
    /// The connection that had the session until now.
    pub taken_from: Option<Owner>,
    /// A session that had to end to make room.
    pub ended: Option<Ended>,
    /// The will of the connection that had the session, if it is to be published.
    pub will: Option<(SessionRef, Box<Will>)>,
}

/// A session that is over, or some of what it had entered.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub session: SessionRef,
    /// What it had entered.
    pub entered: Vec<TopicRef>,
    /// The topics whose leases it had or wanted.
    pub leases: Vec<TopicRef>,
    /// What is to be published before these end.
    pub will: Option<Box<Will>>,
}

/// What a session has become after a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Which.
    pub session: SessionRef,
    /// The name by which others see it.
    pub member: Arc<str>,
}

impl Sessions {
    /// None. One without a connection lasts for `grace`; so many can be resumed.
    #[must_use]
    pub fn new(home: ShardId, grace: Nanos, resumable_max: usize, account: &Arc<Account>) -> Self {
        Self {
            home,
            grace,
            resumable_max,
            sessions: FxHashMap::default(),
            by_owner: FxHashMap::default(),
            by_secret: FxHashMap::default(),
            ends: BTreeSet::new(),
            wills: BTreeSet::new(),
            next_number: 1,
            account: Arc::clone(account),
        }
    }

    /// A connection without a session gets one: the one that it had, or a new one.
    pub fn open(&mut self, owner: Owner, asked: Asked) -> Opened {
        let known = asked.resume.and_then(|secret| self.by_secret.get(&secret).copied());
        if let Some(number) = known.filter(|number| self.sessions[number].user == asked.user) {
            return self.resume(number, owner);
        }
        let ended = if asked.fresh.is_some() && self.by_secret.len() >= self.resumable_max {
            // The one that would end first makes room.
            self.ends.first().copied().and_then(|(_, number)| self.take(number))
        } else {
            None
        };
        let secret = asked.fresh.filter(|_| self.by_secret.len() < self.resumable_max);
        let member = Arc::clone(&asked.member);
        self.insert(owner, secret, asked.user, asked.member);
        Opened { secret, resumed: false, member, taken_from: None, ended, will: None }
    }

    fn resume(&mut self, number: u64, owner: Owner) -> Opened {
        let will = self.end_will(number);
        let session = self.sessions.get_mut(&number).expect("a secret has a session");
        if let Some(ends) = session.ends.take() {
            self.ends.remove(&(ends, number));
        }
        let taken_from = session.owner.replace(owner);
        let will = will.filter(|will| taken_from.is_some() && will.delay == 0);
        if let Some(before) = taken_from {
            self.by_owner.remove(&before);
        }
        self.by_owner.insert(owner, number);
        let (secret, member) = (session.secret, Arc::clone(&session.member));
        let will = will.map(|will| (self.reference(number), will));
        Opened { secret, resumed: true, member, taken_from, ended: None, will }
    }

    fn insert(&mut self, owner: Owner, secret: Option<Secret>, user: Option<Arc<str>>, member: Arc<str>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.by_owner.insert(owner, number);
        self.by_secret.extend(secret.map(|secret| (secret, number)));
        let charge = Charge::new(&self.account, Held::Subscriptions, RECORD_BYTES + allocated(member.len()));
        let (entered, keeps) = (FxHashMap::default(), None);
        let session = Session { secret, user, member, owner: Some(owner), ends: None, entered, keeps, charge };
        self.sessions.insert(number, session);
        number
    }

    /// A connection without a session gets one that ends with it.
    pub fn begin(&mut self, owner: Owner, user: Option<Arc<str>>, member: Arc<str>) -> Known {
        let number = self.insert(owner, None, user, Arc::clone(&member));
        Known { session: self.reference(number), member }
    }

    /// The session of a connection. `None`: it goes on over another one.
    #[must_use]
    pub fn of(&self, owner: Owner) -> Option<Known> {
        let number = *self.by_owner.get(&owner)?;
        Some(Known { session: self.reference(number), member: Arc::clone(&self.sessions[&number].member) })
    }

    /// The session of a connection enters a topic, perhaps again. Returns whether it may: `entered_max` topics at most.
    pub fn enter(&mut self, owner: Owner, topic: TopicRef, entered_max: usize) -> bool {
        let session = self.session_of(owner).expect("a connection that has a session");
        if !session.entered.contains_key(&topic.id) {
            if session.entered.len() >= entered_max {
                return false;
            }
            session.entered.insert(topic.id, topic);
            session.recharge();
        }
        true
    }

    /// Whether the session of a connection has entered a topic.
    #[must_use]
    pub fn has_entered(&self, owner: Owner, topic: TopicId) -> bool {
        self.by_owner.get(&owner).is_some_and(|number| self.sessions[number].entered.contains_key(&topic))
    }

    /// The session of a connection leaves a topic. `None`: it has not entered it.
    pub fn leave(&mut self, owner: Owner, topic: TopicId) -> Option<Known> {
        let number = *self.by_owner.get(&owner)?;
        let reference = self.reference(number);
        let session = self.sessions.get_mut(&number).expect("an owner has a session");
        session.entered.remove(&topic)?;
        session.recharge();
        Some(Known { session: reference, member: Arc::clone(&session.member) })
    }

    /// What the session of a connection has entered and `may` does not allow any more: it has left that.
    pub fn leave_unless(&mut self, owner: Owner, may: impl Fn(&str) -> bool) -> Option<Ended> {
        let number = *self.by_owner.get(&owner)?;
        let reference = self.reference(number);
        let session = self.sessions.get_mut(&number).expect("an owner has a session");
        let lost: Vec<TopicRef> = session.entered.values().filter(|topic| !may(&topic.name)).cloned().collect();
        lost.iter().for_each(|topic| drop(session.entered.remove(&topic.id)));
        session.recharge();
        Some(Ended { session: reference, entered: lost, leases: Vec::new(), will: None })
    }

    /// The connection ended. Returns its session if that is over with it.
    pub fn drop_owner(&mut self, owner: Owner, now: Nanos) -> Option<Ended> {
        let number = *self.by_owner.get(&owner)?;
        let session = self.sessions.get_mut(&number).expect("an owner has a session");
        if session.secret.is_none() || self.grace == 0 {
            return self.take(number);
        }
        let ends = now.saturating_add(self.grace);
        (session.owner, session.ends) = (None, Some(ends));
        self.by_owner.remove(&owner);
        self.ends.insert((ends, number));
        None
    }

    /// The client ended its session, on purpose: its will is nothing.
    pub fn end(&mut self, owner: Owner) -> Option<Ended> {
        let number = *self.by_owner.get(&owner)?;
        self.end_will(number);
        self.take(number)
    }

    /// The next session whose grace is over.
    pub fn take_due(&mut self, now: Nanos) -> Option<Ended> {
        let &(_, number) = self.ends.first().filter(|(ends, _)| *ends <= now)?;
        self.take(number)
    }

    /// When the next grace is over, or a will is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Nanos> {
        self.ends.first().into_iter().chain(self.wills.first()).map(|&(due, _)| due).min()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// How many wait for their client.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.ends.len()
    }

    /// The connections that have a session.
    pub fn owners(&self) -> impl Iterator<Item = Owner> + '_ {
        self.by_owner.keys().copied()
    }

    /// Checks what always holds: see the file's head. Linear in sessions.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<(), String> {
        let owned = self.by_owner.iter().all(|(owner, number)| {
            self.sessions.get(number).is_some_and(|session| session.owner == Some(*owner) && session.ends.is_none())
        });
        let secrets = self
            .by_secret
            .iter()
            .all(|(secret, number)| self.sessions.get(number).is_some_and(|session| session.secret == Some(*secret)));
        let ends = self.ends.iter().all(|(ends, number)| {
            self.sessions.get(number).is_some_and(|session| session.ends == Some(*ends) && session.owner.is_none())
        });
        let rules = [
            ("an owner has a session that does not end", owned),
            ("a secret has its session", secrets),
            ("a session that ends has no owner", ends),
            ("a session has an owner or ends", self.by_owner.len() + self.ends.len() == self.sessions.len()),
            ("a will that is listed waits", self.wills.iter().all(|&listed| self.is_will_due(listed))),
            ("no more can be resumed than may", self.by_secret.len() <= self.resumable_max),
        ];
        let broken = rules.iter().find(|(_, holds)| !holds);
        broken.map_or(Ok(()), |(rule, _)| Err(format!("sessions of shard {}: {rule}", self.home)))
    }

    fn reference(&self, number: u64) -> SessionRef {
        SessionRef { home: self.home, number }
    }

    fn session_of(&mut self, owner: Owner) -> Option<&mut Session> {
        let number = self.by_owner.get(&owner)?;
        self.sessions.get_mut(number)
    }

    fn take(&mut self, number: u64) -> Option<Ended> {
        let will = self.end_will(number);
        let session = self.sessions.remove(&number)?;
        if let Some(owner) = session.owner {
            self.by_owner.remove(&owner);
        }
        if let Some(secret) = session.secret {
            self.by_secret.remove(&secret);
        }
        if let Some(ends) = session.ends {
            self.ends.remove(&(ends, number));
        }
        let leases = session.keeps.map(|keeps| keeps.into_topics()).unwrap_or_default();
        let entered = session.entered.into_values().collect();
        Some(Ended { session: self.reference(number), entered, leases, will })
    }
}

impl Session {
    fn recharge(&mut self) {
        let entries = ENTRY_BYTES * self.entered.capacity() as u64;
        let keeps = self.keeps.as_ref().map_or(0, |keeps| keeps.bytes());
        self.charge.resize(RECORD_BYTES + allocated(self.member.len()) + entries + keeps);
    }
}

#[cfg(test)]
mod tests;

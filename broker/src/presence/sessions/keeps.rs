//! What a session has besides being present: leases, and a will.
//!
//! Who has a lease is decided at the topic's sequencer. The home notes the topics for which a session has a lease or has asked for
//! one, so that it can give them up with the session, and so that nobody has more than it may: every command that is passed on has
//! one outcome, which comes back here on its way to the client.
//!
//! A will belongs to the connection that set it. It is published when that ends, after its delay, but at the latest with the
//! session; a session that goes on has none until its new connection sets one.

use ring::Nanos;
use rustc_hash::FxHashMap;

use crate::capacity::budget::allocated;
use crate::ids::TopicId;
use crate::presence::leases::Outcome;
use crate::presence::sessions::Sessions;
use crate::presence::will::Will;
use crate::presence::{Owner, SessionRef};
use crate::topics::registry::TopicRef;

/// See the file's head.
#[derive(Default, Debug)]
pub(super) struct Keeps {
    leases: FxHashMap<TopicId, Lease>,
    will: Option<Box<Will>>,
    /// When it is published, if that is before the end of the session.
    will_due: Option<Nanos>,
}

/// Of one topic.
#[derive(Debug)]
struct Lease {
    topic: TopicRef,
    /// The number by which the session has it.
    number: Option<u64>,
    /// Commands without an outcome yet.
    asked: u32,
}

impl Keeps {
    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let leases = 2 * self.leases.capacity() * size_of::<(TopicId, Lease)>();
        allocated(size_of::<Self>()) + leases as u64 + self.will.as_ref().map_or(0, |will| will.bytes())
    }

    pub(super) fn into_topics(self) -> Vec<TopicRef> {
        self.leases.into_values().map(|lease| lease.topic).collect()
    }
}

impl Sessions {
    // ---- leases

    /// A command about the lease of a topic is passed on for the session of a connection. Returns whether it may be: a session has
    /// or wants `leases_max` at most.
    pub fn ask_lease(&mut self, owner: Owner, topic: TopicRef, leases_max: usize) -> bool {
        let session = self.session_of(owner).expect("a connection that has a session");
        let leases = &mut session.keeps.get_or_insert_default().leases;
        if leases.len() >= leases_max && !leases.contains_key(&topic.id) {
            return false;
        }
        leases.entry(topic.id).or_insert(Lease { topic, number: None, asked: 0 }).asked += 1;
        session.recharge();
        true
    }

    /// Such a command has had this outcome; `None`: it was refused.
    pub fn lease_answered(&mut self, session: SessionRef, topic: TopicId, outcome: Option<&Outcome>) {
        self.change_lease(session, topic, |lease| {
            lease.asked -= 1;
            match outcome {
                Some(Outcome::Granted { number, .. }) => lease.number = Some(*number),
                Some(Outcome::Released) => lease.number = None,
                Some(Outcome::Held { .. } | Outcome::NotThere) | None => {}
            }
        });
    }

    /// A session has its lease by this number no more. Returns the connection that is to learn of it.
    pub fn lease_lost(&mut self, session: SessionRef, topic: TopicId, number: u64) -> Option<Owner> {
        self.change_lease(session, topic, |lease| lease.number = lease.number.filter(|held| *held != number));
        self.sessions.get(&session.number)?.owner
    }

    fn change_lease(&mut self, session: SessionRef, topic: TopicId, change: impl FnOnce(&mut Lease)) {
        let Some(session) = self.sessions.get_mut(&session.number) else { return };
        let Some(leases) = session.keeps.as_mut().map(|keeps| &mut keeps.leases) else { return };
        let Some(lease) = leases.get_mut(&topic) else { return };
        change(lease);
        if lease.number.is_none() && lease.asked == 0 {
            leases.remove(&topic);
            session.recharge();
        }
    }

    /// The leases that the session of a connection has or wants, the former with their numbers.
    #[must_use]
    pub fn leases_of(&self, owner: Owner) -> Vec<(SessionRef, TopicRef, Option<u64>)> {
        let Some(&number) = self.by_owner.get(&owner) else { return Vec::new() };
        let leases = self.sessions[&number].keeps.as_ref().map(|keeps| keeps.leases.values());
        let mut leases: Vec<_> = leases
            .into_iter()
            .flatten()
            .map(|lease| (self.reference(number), lease.topic.clone(), lease.number))
            .collect();
        leases.sort_unstable_by_key(|(_, topic, _)| topic.id);
        leases
    }

    // ---- the will

    /// Sets the will of the session of a connection, or takes it back. Returns whether it has a session.
    pub fn set_will(&mut self, owner: Owner, will: Option<Box<Will>>) -> bool {
        let Some(session) = self.session_of(owner) else { return false };
        if will.is_some() || session.keeps.is_some() {
            session.keeps.get_or_insert_default().will = will;
            session.recharge();
        }
        true
    }

    /// Takes the will of the session of a connection.
    pub fn take_will(&mut self, owner: Owner) -> Option<Box<Will>> {
        let number = *self.by_owner.get(&owner)?;
        self.end_will(number)
    }

    /// A connection has ended; [`Sessions::drop_owner`] comes next. Returns its will if that is to be published
    /// at once. `is_shutdown`: the broker has ended it, so there is nothing to be said.
    pub fn drop_will(&mut self, owner: Owner, now: Nanos, is_shutdown: bool) -> Option<(SessionRef, Box<Will>)> {
        let number = *self.by_owner.get(&owner)?;
        let delay = self.sessions[&number].keeps.as_ref()?.will.as_ref()?.delay;
        if is_shutdown || delay == 0 {
            let will = self.end_will(number)?;
            return (!is_shutdown).then(|| (self.reference(number), will));
        }
        if delay < self.grace {
            let due = now.saturating_add(delay);
            let keeps = self.sessions.get_mut(&number).and_then(|session| session.keeps.as_mut());
            keeps.expect("it has a will").will_due = Some(due);
            self.wills.insert((due, number));
        }
        None
    }

    /// The next will whose delay is over.
    pub fn take_due_will(&mut self, now: Nanos) -> Option<(SessionRef, Box<Will>)> {
        let &(_, number) = self.wills.first().filter(|(due, _)| *due <= now)?;
        let will = self.end_will(number)?;
        Some((self.reference(number), will))
    }

    /// Takes a session's will.
    pub(super) fn end_will(&mut self, number: u64) -> Option<Box<Will>> {
        let session = self.sessions.get_mut(&number)?;
        let keeps = session.keeps.as_mut()?;
        if let Some(due) = keeps.will_due.take() {
            self.wills.remove(&(due, number));
        }
        let will = keeps.will.take();
        session.recharge();
        will
    }

    pub(super) fn is_will_due(&self, (due, number): (Nanos, u64)) -> bool {
        let session = self.sessions.get(&number).filter(|session| session.owner.is_none());
        session.and_then(|session| session.keeps.as_ref()).is_some_and(|keeps| keeps.will_due == Some(due))
    }

    /// How many sessions have a will. Linear in sessions.
    #[must_use]
    pub fn wills(&self) -> usize {
        let has_will = |keeps: &Keeps| keeps.will.is_some();
        self.sessions.values().filter(|session| session.keeps.as_deref().is_some_and(has_will)).count()
    }
}
